//! The core flow on every supported server: enqueued in SQL, sent by every provider's wire, and back in the views.

mod shop;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use shop::{Shop, apps};
use sms_outbox_tests::{Major, on_majors};

on_majors! { every: every_provider_carries_messages }

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
