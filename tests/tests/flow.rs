//! The core flow on every supported server: enqueued in SQL, sent by every provider's wire, and back in the views.

mod shop;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shop::{Shop, apps};
use sms_outbox_tests::history::journal::Transaction;
use sms_outbox_tests::{Major, on_majors};

on_majors! { every:
    every_provider_carries_messages, what_is_rolled_back_is_never_sent, late_and_prepared_commits_are_found,
}

async fn every_provider_carries_messages(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "providers").await?;
    let mut worker = shop.worker()?.start().await?;
    for slug in apps::SLUGS {
        let app = shop.install_for(slug, slug, apps::config(slug, shop.sandbox.url()), "").await?;
        for sms in [shop.queue_for(slug, "").await?, shop.queue_text(slug, &format!("مرحبا 👋 {slug}")).await?] {
            shop.wait_for_status(&sms, "sent").await?;
            let journal = shop.sandbox.journal()?;
            let one =
                journal.iter().find(|one| one.body == sms.text).with_context(|| format!("{slug} carried nothing"))?;
            ensure!(one.provider == slug && one.account == apps::account(slug), "{one:?}");
            let id = shop.show(&sms, "provider_message_id").await?;
            ensure!(id.as_deref() == Some(one.provider_message_id.as_str()), "{slug}: {id:?}, accepted as {one:?}");
            let response = shop.show(&sms, "response").await?.context("no response kept")?;
            let response: Value = serde_json::from_str(&response)?;
            ensure!(response.to_string().contains(&one.provider_message_id), "{slug} kept {response}");
            shop.expect_ledger(&sms, &[("accepted", app)]).await?;
            ensure!(shop.show(&sms, "provider_slug").await?.as_deref() == Some(slug));
            ensure!(shop.show(&sms, "claimed_organization_app_id").await? == Some(app.to_string()));
        }
    }
    shop.expect_a_request_for_each_attempt().await?;
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    ensure!(shop.close().await?.by_status == [("sent".to_owned(), 10)].into());
    Ok(())
}

async fn what_is_rolled_back_is_never_sent(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "rollback").await?;
    shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.start().await?;

    let session = shop.database.connect_as("app").await?;
    session.batch_execute("BEGIN").await?;
    shop.queue_ending(&session, "shop", 3, "", Transaction::RolledBack).await?;
    session.batch_execute("ROLLBACK").await?;
    let killed = shop.database.connect_as("app").await?;
    killed.batch_execute("BEGIN").await?;
    shop.queue_ending(&killed, "shop", 3, "", Transaction::RolledBack).await?;
    let pid: i32 = killed.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
    shop.database.value::<bool>("SELECT pg_terminate_backend($1)", &[&pid]).await?;

    let mut kept = Vec::new();
    for _ in 0..3 {
        kept.extend(shop.queue_many("shop", 5, "").await?);
    }
    for sms in &kept {
        shop.wait_for_status(sms, "sent").await?;
    }
    shop.expect_a_request_for_each_attempt().await?;
    let balance = shop.close().await?;
    ensure!((balance.committed, balance.accepted) == (15, 15), "{balance}");
    Ok(())
}

async fn late_and_prepared_commits_are_found(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "late").await?;
    shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.start().await?;

    let late = shop.database.connect_as("app").await?;
    late.batch_execute("BEGIN").await?;
    let first = shop.queue_by(&late, "shop", 2, "").await?;
    let prepared = shop.database.connect_as("app").await?;
    prepared.batch_execute("BEGIN").await?;
    let second = shop.queue_by(&prepared, "shop", 2, "").await?;
    prepared.batch_execute("PREPARE TRANSACTION 'held'").await?;
    // Later ones are claimed, over and over, before the earlier ones commit.
    for _ in 0..3 {
        let sms = shop.queue("").await?;
        shop.wait_for_status(&sms, "sent").await?;
    }
    ensure!(shop.sandbox.journal()?.len() == 3);
    late.batch_execute("COMMIT").await?;
    for sms in &first {
        shop.wait_for_status(sms, "sent").await?;
    }
    prepared.batch_execute("COMMIT PREPARED 'held'").await?;
    for sms in &second {
        shop.wait_for_status(sms, "sent").await?;
    }
    ensure!(shop.close().await?.accepted == 7);
    Ok(())
}
