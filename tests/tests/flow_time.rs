//! When a message goes: wake-ups, schedule, cancel, expiry, priorities.

mod shop;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::{Major, on_majors};

on_majors! { ends:
    a_commit_wakes_an_idle_worker, without_wake_ups_polling_finds_it, a_scheduled_message_goes_when_it_is_due,
    a_canceled_message_makes_no_request, an_expired_message_makes_no_request, urgent_messages_go_first,
    the_many_do_not_hold_up_the_one,
}

async fn a_commit_wakes_an_idle_worker(major: Major) -> Result<()> {
    for mode in ["coalesced", "trigger"] {
        let mut shop = Shop::open(major, &format!("wakeup_{mode}")).await?;
        shop.set("wakeup", mode).await?;
        shop.install("sandbox", "").await?;
        // Polling comes later than the test's patience ends.
        let mut worker = shop.worker()?.set("SMS_OUTBOX_POLL_INTERVAL", "1min").start().await?;
        shop.database
            .wait_until("it listens", "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE query ILIKE 'LISTEN%' AND datname = current_database())")
            .await?;
        for _ in 0..3 {
            let sms = shop.queue("").await?;
            shop.wait_for_status(&sms, "sent").await.context(mode)?;
        }
        // The connection that listens is killed: another one listens, and what came meanwhile is found.
        shop.database
            .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%' AND datname = current_database()")
            .await?;
        for _ in 0..3 {
            let sms = shop.queue("").await?;
            shop.wait_for_status(&sms, "sent").await.context(mode)?;
        }
        ensure!(worker.drain().await?.success());
        shop.close().await?;
    }
    Ok(())
}

async fn without_wake_ups_polling_finds_it(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "polling").await?;
    shop.set("wakeup", "off").await?;
    shop.install("sandbox", "").await?;
    let _worker =
        shop.worker()?.set("SMS_OUTBOX_NO_LISTEN", "true").set("SMS_OUTBOX_POLL_INTERVAL", "100ms").start().await?;
    let listening: i64 = shop
        .database
        .value(
            "SELECT count(*) FROM pg_stat_activity WHERE query ILIKE 'LISTEN%' AND datname = current_database()",
            &[],
        )
        .await?;
    ensure!(listening == 0);
    for _ in 0..3 {
        let sms = shop.queue("").await?;
        shop.wait_for_status(&sms, "sent").await?;
    }
    shop.close().await.map(drop)
}

async fn a_scheduled_message_goes_when_it_is_due(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "schedule").await?;
    shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.start().await?;
    let sms = shop.queue("datetime => now() + interval '3 seconds'").await?;
    shop.wait_for(&sms, "waits_for", "datetime").await?;
    let at_once = shop.queue("").await?;
    shop.wait_for_status(&at_once, "sent").await?;
    shop.wait_for_status(&sms, "sent").await?;
    let early: bool = shop
        .database
        .value("SELECT claimed_at < datetime FROM sms_outbox.outbox WHERE id = $1::text", &[&sms.id])
        .await?;
    ensure!(!early, "sent before its time");
    shop.close().await.map(drop)
}

async fn a_canceled_message_makes_no_request(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "cancel").await?;
    shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.start().await?;
    let scheduled = shop.queue("datetime => now() + interval '2 seconds'").await?;
    shop.database.sql("SELECT sms_outbox.pause_organization('shop', 'test')").await?;
    let waiting = shop.queue("").await?;
    let kept = shop.queue("").await?;
    for sms in [&scheduled, &waiting] {
        shop.database.sql(&format!("SELECT sms_outbox.cancel('{}')", sms.id)).await?;
    }
    shop.database.sql("SELECT sms_outbox.resume_organization('shop')").await?;
    shop.wait_for_status(&kept, "sent").await?;
    let later = shop.queue("datetime => now() + interval '3 seconds'").await?;
    shop.wait_for_status(&later, "sent").await?;
    for sms in [&scheduled, &waiting] {
        ensure!(shop.show(sms, "dispatch_status").await?.as_deref() == Some("canceled"));
        ensure!(shop.seen(sms).await? == (0, 0));
    }
    ensure!(
        shop.database.sql(&format!("SELECT sms_outbox.cancel('{}')", kept.id)).await.is_err(),
        "a sent one was canceled"
    );
    shop.will_retry(&waiting).await?;
    shop.database.sql(&format!("SELECT sms_outbox.retry('{}')", waiting.id)).await?;
    shop.wait_for_status(&waiting, "sent").await?;
    shop.close().await.map(drop)
}

async fn an_expired_message_makes_no_request(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "expiry").await?;
    let app = shop.install("sandbox", "").await?;
    shop.database.sql(&format!("SELECT sms_outbox.pause_app({app}, 'test')")).await?;
    let _worker = shop.worker()?.start().await?;
    let waiting = shop.queue("valid_until => now() + interval '2 seconds'").await?;
    let kept = shop.queue("valid_until => now() + interval '1 hour'").await?;
    shop.wait_for_status(&waiting, "expired").await?;
    shop.database.sql(&format!("SELECT sms_outbox.resume_app({app})")).await?;
    shop.wait_for_status(&kept, "sent").await?;
    ensure!(shop.seen(&waiting).await? == (0, 0));
    ensure!(shop.show(&waiting, "error_code").await?.as_deref() == Some("valid_until"));
    shop.close().await.map(drop)
}

async fn urgent_messages_go_first(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "urgent").await?;
    shop.install("sandbox", "max_in_flight => 1").await?;
    shop.database.sql("SELECT sms_outbox.pause_organization('shop', 'test')").await?;
    shop.queue_many("shop", 40, "priority => 2").await?;
    shop.queue_many("shop", 40, "priority => 1").await?;
    let urgent = shop.queue_many("shop", 5, "priority => 0").await?;
    shop.database.sql("SELECT sms_outbox.resume_organization('shop')").await?;
    let _worker = shop.worker()?.start().await?;
    shop.wait_until_settled().await?;
    let journal = shop.sandbox.journal()?;
    let first: Vec<&str> = journal.iter().take(10).map(|one| one.body.as_str()).collect();
    ensure!(urgent.iter().all(|sms| first.contains(&sms.text.as_str())), "the first ten were {first:?}");
    shop.close().await.map(drop)
}

async fn the_many_do_not_hold_up_the_one(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "fairness").await?;
    shop.install_for("many", "sandbox", shop.token("many"), "").await?;
    shop.install_for("one", "sandbox", shop.token("one"), "").await?;
    shop.rule(json!({"behaviour": "delay", "account": "many", "delay_ms": 500})).await?;
    shop.queue_many("many", 5000, "").await?;
    let _worker = shop.worker()?.set("SMS_OUTBOX_CONCURRENCY", "8").start().await?;
    shop.database.wait_until("the many are busy", "SELECT count(*) >= 8 FROM sms_outbox.attempt").await?;
    for _ in 0..3 {
        let one = shop.queue_for("one", "").await?;
        shop.wait_for_status(&one, "sent").await?;
    }
    let waiting: i64 =
        shop.database.value("SELECT count(*) FROM sms_outbox.ready WHERE organization_id = 'many'", &[]).await?;
    ensure!(waiting > 4000, "only {waiting} of the many were left when the one's were sent");
    // Sending them all is not the matter here.
    shop.sandbox.clear_rules().await?;
    shop.database.sql("SELECT sms_outbox.cancel('{\"organization_id\": \"many\"}', false, 10000)").await?;
    shop.wait_until_settled().await?;
    shop.close().await.map(drop)
}
