//! What ended as unclear is looked up at its provider by the worker itself, where the provider can be asked, and what becomes
//! known is kept as evidence. Nothing is ever sent by it.

mod shop;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shop::{Shop, Sms};
use sms_outbox_tests::scrape::Scrape;
use sms_outbox_tests::wait::poll;
use sms_outbox_tests::worker::Options;
use sms_outbox_tests::{Major, on_majors};

on_majors! { ends:
    what_the_provider_has_is_sent, what_it_never_got_is_failed_where_absence_proves_it,
    where_absence_proves_nothing_it_stays_unclear, two_workers_share_the_asking, a_provider_that_is_away_is_asked_again,
}

/// A worker that looks up after a second, the least that can be set.
fn reconciler(shop: &Shop) -> Result<Options<'_>> {
    Ok(shop.worker()?.set("SMS_OUTBOX_LOOK_UP_AFTER", "1s"))
}

/// The evidence of the only attempt of a message.
async fn evidence(shop: &Shop, sms: &Sms) -> Result<Vec<Value>> {
    let query = "SELECT coalesce(evidence, '[]') FROM sms_outbox.attempts WHERE id = $1::text";
    let row = shop.database.admin().query_opt(query, &[&sms.id]).await?;
    row.map_or(Ok(Vec::new()), |row| serde_json::from_value(row.try_get(0)?).context("an array"))
}

/// Waits until there are so many pieces of it.
async fn wait_for_evidence(shop: &Shop, sms: &Sms, pieces: usize) -> Result<Vec<Value>> {
    let asked = async || Ok(Some(evidence(shop, sms).await?).filter(|evidence| evidence.len() == pieces));
    shop.database.wait_for(format!("'{}' has {pieces} pieces of evidence", sms.text), asked).await
}

/// Lets the next look-up be due now.
async fn hasten(shop: &Shop) -> Result<()> {
    shop.database.sql("UPDATE sms_outbox.look_up SET since = since - interval '1 hour'").await
}

async fn what_the_provider_has_is_sent(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "found").await?;
    shop.rule(json!({"behaviour": "reset_after_accept"})).await?;
    for slug in ["sandbox", "twilio-sms"] {
        shop.install_for(slug, slug, shop::apps::config(slug, shop.sandbox.url()), "").await?;
    }
    let worker = reconciler(&shop)?.start().await?;
    for slug in ["sandbox", "twilio-sms"] {
        let sms = shop.queue_for(slug, "").await?;
        shop.wait_for_status(&sms, "sent").await?;
        let told = evidence(&shop, &sms).await?;
        ensure!(told.len() == 1, "{slug}: {told:?}");
        ensure!(told[0]["source"] == "look-up" && told[0]["verdict"] == "accepted", "{slug}: {told:?}");
        ensure!(told[0]["was_error_code"] == "connection_lost" && !told[0]["was_finished_at"].is_null(), "{told:?}");
        let by = told[0]["by"].as_str().unwrap_or_default();
        ensure!(by.starts_with(&format!("{}/", worker.name())), "told by {by}");
        let journal = shop.sandbox.journal()?;
        let acceptance = journal.iter().find(|one| one.body == sms.text).context("never accepted")?;
        let id = shop.show(&sms, "provider_message_id").await?;
        ensure!(id.as_deref() == Some(&*acceptance.provider_message_id), "{slug}: {id:?}");
        ensure!(shop.show(&sms, "error_code").await?.is_none(), "{slug}: it is sent, and shows an error");
        // A look-up is no request that could cause a send.
        ensure!(shop.seen(&sms).await? == (1, 1), "{slug}: it was sent again");
    }
    ensure!(shop.database.value::<i64>("SELECT count(*) FROM sms_outbox.look_up", &[]).await? == 0);
    shop.close().await.map(drop)
}

async fn what_it_never_got_is_failed_where_absence_proves_it(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "absent").await?;
    let app = shop.install("sandbox", "").await?;
    let _worker = reconciler(&shop)?.start().await?;
    shop.rule(json!({"behaviour": "reset_after_read", "times": 1})).await?;
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "failed").await?;
    let told = evidence(&shop, &sms).await?;
    let verdicts: Vec<_> = told.iter().map(|piece| piece["verdict"].as_str().unwrap_or_default()).collect();
    // The first comes while the request could still be on its way.
    ensure!(verdicts == ["unclear", "not_sent"], "{told:?}");
    shop.expect_ledger(&sms, &[("not_sent", app)]).await?;
    ensure!(shop.seen(&sms).await? == (1, 0), "it was sent again by itself");
    shop.will_retry(&sms).await?;
    shop.database.sql(&format!("SELECT sms_outbox.retry('{}')", sms.id)).await?;
    shop.wait_for_status(&sms, "sent").await?;
    ensure!(shop.seen(&sms).await? == (2, 1));
    shop.close().await.map(drop)
}

async fn where_absence_proves_nothing_it_stays_unclear(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "unproven").await?;
    shop.install("twilio-sms", "").await?;
    let _worker = reconciler(&shop)?.start().await?;
    shop.rule(json!({"behaviour": "reset_after_read", "times": 1})).await?;
    let sms = shop.queue("").await?;
    for pieces in 1..=3 {
        let told = wait_for_evidence(&shop, &sms, pieces).await?;
        ensure!(told.iter().all(|piece| piece["verdict"] == "unclear" && !piece["detail"].is_null()), "{told:?}");
        hasten(&shop).await?;
    }
    ensure!(
        shop.database.value::<i64>("SELECT count(*) FROM sms_outbox.look_up", &[]).await? == 0,
        "asked without end"
    );
    ensure!(shop.show(&sms, "dispatch_status").await?.as_deref() == Some("dispatch_timeout"));
    ensure!(shop.seen(&sms).await? == (1, 0));
    shop.close().await.map(drop)
}

async fn two_workers_share_the_asking(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "shared").await?;
    shop.install("sandbox", "").await?;
    shop.rule(json!({"behaviour": "accept_then_500"})).await?;
    let _workers = (reconciler(&shop)?.start().await?, reconciler(&shop)?.start().await?);
    // Failures in a row would open the breaker, which is another test's concern.
    let never = "CREATE FUNCTION public.forgive() RETURNS trigger LANGUAGE plpgsql AS $$ BEGIN RETURN NULL; END $$;
                 CREATE TRIGGER forgive BEFORE INSERT ON sms_outbox.app_health FOR EACH ROW EXECUTE FUNCTION public.forgive()";
    shop.database.sql(never).await?;
    let all_sms = shop.queue_many("shop", 60, "").await?;
    let all_sent = "SELECT count(*) = 60 FROM sms_outbox.outbox WHERE dispatch_status = 'sent'";
    shop.database.wait_until("all are sent", all_sent).await?;
    for sms in &all_sms {
        ensure!(evidence(&shop, sms).await?.len() == 1, "'{}' was asked for more than once", sms.text);
    }
    shop.expect_a_request_for_each_attempt().await?;
    shop.close().await.map(drop)
}

async fn a_provider_that_is_away_is_asked_again(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "away").await?;
    let app = shop.install("sandbox", "").await?;
    let good = shop.token("other");
    shop.install_for("other", "sandbox", good, "").await?;
    let worker = reconciler(&shop)?
        .set("SMS_OUTBOX_METRICS_LISTEN", "127.0.0.1:0")
        .set("SMS_OUTBOX_LOG_FORMAT", "json")
        .start()
        .await?;
    shop.rule(json!({"behaviour": "reset_after_accept", "times": 1})).await?;
    // An address where nobody listens, from the moment at which the attempt is over.
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "dispatch_timeout").await?;
    let config = |url: &str| format!(r#"{{"token": "sandbox-account", "base_url": "{url}"}}"#);
    let change = "SELECT sms_outbox.update_app($1, $2::text::jsonb)::text";
    shop.database.admin().query(change, &[&app, &config("http://127.0.0.1:1")]).await?;
    let told = wait_for_evidence(&shop, &sms, 1).await?;
    ensure!(told[0]["verdict"] == "unclear", "{told:?}");
    ensure!(told[0]["detail"].as_str().is_some_and(|detail| detail.contains("connection_refused")), "{told:?}");
    let log = |log: &str| log.split("\"address\":\"").nth(1)?.split('"').next().map(str::to_owned);
    let address = poll("the worker answers scrapes", async || Ok(log(&worker.log())), async || String::new()).await?;
    let now = Scrape::of(&format!("http://{address}/metrics")).await?;
    let counted = |result| now.sum("sms_outbox_worker_look_ups_total", &[("provider", "sandbox"), ("result", result)]);
    ensure!((counted("failed"), counted("accepted")) == (1.0, 0.0), "{}", now.text);
    // Others are served meanwhile.
    let other = shop.queue_for("other", "").await?;
    shop.wait_for_status(&other, "sent").await?;
    let back = config(&format!("{}/sandbox", shop.sandbox.url()));
    shop.database.admin().query(change, &[&app, &back]).await?;
    hasten(&shop).await?;
    shop.wait_for_status(&sms, "sent").await?;
    ensure!(evidence(&shop, &sms).await?.len() == 2);
    ensure!(shop.seen(&sms).await? == (1, 1));
    let shown = worker.log();
    ensure!(!shown.contains(&sms.to[4..]) && !shown.contains(&sms.text), "the log shows a number or a text");
    shop.close().await.map(drop)
}
