//! Nobody waits behind another's million, nor behind an app that hangs.

use anyhow::{Result, ensure};
use serde_json::json;
use sms_outbox_tests::{Fault, Major};

use crate::measure::{QUIET, cancel_all, time_to_request};
use crate::shop::Shop;

/// Of each situation the median of so many.
const TIMES: usize = 15;
/// Below so many milliseconds the time on an idle system is that of the machine's scheduler, and stands for so many.
const LEAST: f64 = 10.0;

fn is_fair(what: &str, idle: f64, took: f64) -> Result<()> {
    #[expect(clippy::print_stdout, reason = "what was measured is read with --nocapture")]
    {
        println!("{what}: {took:.1} ms from enqueue to request, {idle:.1} on an idle system");
    }
    ensure!(took <= 3.0 * idle.max(LEAST), "{what}: {took:.1} ms, on an idle system {idle:.1}");
    Ok(())
}

async fn one_beside_the_many(name: &str, many: i32) -> Result<()> {
    let _alone = QUIET.write().await;
    let mut fault = Fault::new("22", &format!("{many} of another organization wait"), Major::V18);
    let mut shop = Shop::open(Major::V18, name).await?;
    let app = shop.install_for("many", "sandbox", shop.token("many"), "max_in_flight => 4").await?;
    shop.install_for("one", "sandbox", shop.token("one"), "").await?;
    shop.rule(json!({"behaviour": "delay", "account": "many", "delay_ms": 200})).await?;
    let _worker = shop.worker()?.start().await?;
    let idle = time_to_request(&mut shop, "one", "", TIMES).await?;

    shop.queue_many("many", many, "").await?;
    shop.database.wait_until("the many are being sent", "SELECT count(*) > 40 FROM sms_outbox.attempt").await?;
    for (what, more) in [("urgent beside the many", "priority => 0"), ("of the same priority as the many", "")] {
        is_fair(what, idle, time_to_request(&mut shop, "one", more, TIMES).await?)?;
    }
    shop.database.sql(&format!("SELECT sms_outbox.pause_app({app}, 'test')")).await?;
    shop.database
        .wait_until("none of the many is in flight", "SELECT NOT EXISTS (SELECT FROM sms_outbox.lease)")
        .await?;
    for (what, more) in [("urgent, the many paused", "priority => 0"), ("of the same priority, the many paused", "")] {
        is_fair(what, idle, time_to_request(&mut shop, "one", more, TIMES).await?)?;
    }
    let left: i64 = shop.database.value("SELECT count(*) FROM sms_outbox.ready", &[]).await?;
    ensure!(left > i64::from(many) * 9 / 10, "only {left} of the many were left");
    fault.injected(1);
    cancel_all(&shop, "many").await?;
    shop.wait_until_settled().await?;
    shop.close_fault(fault).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_waits_behind_no_hundred_thousand() -> Result<()> {
    one_beside_the_many("hundred_thousand", 100_000).await
}

#[ignore = "a million messages: make faults"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn one_waits_behind_no_million() -> Result<()> {
    one_beside_the_many("million", 1_000_000).await
}

/// An app hangs on each request, with more of them allowed than the worker has places.
async fn beside_one_that_hangs(name: &str, seconds: u64) -> Result<()> {
    let alone = QUIET.write().await;
    let mut shop = Shop::open(Major::V18, name).await?;
    shop.install_account("hangs", "max_in_flight => 1000").await?;
    shop.install("mora-sms", "\"position\" => 200").await?;
    shop.install_for("other", "sandbox", shop.token("other"), "").await?;
    let _worker = shop.worker()?.set("SMS_OUTBOX_HTTP_TIMEOUT", "60s").start().await?;
    let idle = time_to_request(&mut shop, "other", "", TIMES).await?;

    shop.rule(json!({"behaviour": "delay", "account": "hangs", "delay_ms": seconds * 1000})).await?;
    shop.queue_many("shop", 400, "preferred_provider_slug => 'sandbox'").await?;
    let hang = "SELECT count(*) > 200 FROM sms_outbox.lease";
    shop.database.wait_until("four fifths of the worker's 256 places hang", hang).await?;
    is_fair("another organization's", idle, time_to_request(&mut shop, "other", "", TIMES).await?)?;
    let pinned = "preferred_provider_slug => 'mora-sms'";
    is_fair(
        "the same organization's, by its other app",
        idle,
        time_to_request(&mut shop, "shop", pinned, TIMES).await?,
    )?;
    is_fair("the same organization's, by any app", idle, time_to_request(&mut shop, "shop", "", TIMES).await?)?;
    let hanging: bool = shop.database.value(hang, &[]).await?;
    ensure!(hanging, "it hung no longer while the others were measured");
    drop(alone);
    cancel_all(&shop, "shop").await?;
    shop.wait_until_settled().await?;
    shop.close().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_app_that_hangs_delays_no_other() -> Result<()> {
    beside_one_that_hangs("hangs", 20).await
}
