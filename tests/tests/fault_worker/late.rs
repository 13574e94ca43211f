//! A late answer says that the message was accepted, and an operator has meanwhile asked for another try.

use anyhow::{Result, ensure};
use serde_json::json;
use sms_outbox_tests::{Fault, Worker};

use crate::MAJOR;
use crate::shop::{Shop, Sms};

/// A worker that stands still with the provider's answer, until its lease is over, and the message that it holds.
async fn with_the_answer(shop: &mut Shop) -> Result<(Worker, Sms)> {
    shop.shorten_leases().await?;
    let mut worker = shop.worker_at("answered=1*sleep(5000)")?.start().await?;
    let sms = shop.queue("").await?;
    worker.wait_until_held("answered", 1).await?;
    worker.pause()?;
    ensure!(worker.visits("answered") == (1, 0), "the machine was too slow: it was not stopped there");
    shop.wait_for_status(&sms, "dispatch_timeout").await?;
    Ok((worker, sms))
}

async fn retry(shop: &mut Shop, sms: &Sms) -> Result<()> {
    shop.will_retry(sms).await?;
    shop.database.sql(&format!("SELECT sms_outbox.retry('{}')", sms.id)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_next_try_that_waits_is_dropped() -> Result<()> {
    let mut shop = Shop::open(MAJOR, "late_waiting").await?;
    let app = shop.install("sandbox", "").await?;
    let mut fault = Fault::new("28", "accepted after all, the operator's retry waits", MAJOR);
    let (mut worker, sms) = with_the_answer(&mut shop).await?;
    shop.database.sql("SELECT sms_outbox.pause_organization('shop', 'test')").await?;
    retry(&mut shop, &sms).await?;
    ensure!(shop.show(&sms, "dispatch_status").await?.as_deref() == Some("pending"));
    worker.resume()?;
    fault.injected(1);
    shop.wait_for_status(&sms, "sent").await?;
    shop.database.sql("SELECT sms_outbox.resume_organization('shop')").await?;
    let next = shop.queue("").await?;
    shop.wait_for_status(&next, "sent").await?;
    shop.wait_until_settled().await?;
    shop.expect_ledger(&sms, &[("accepted", app)]).await?;
    ensure!(shop.seen(&sms).await? == (1, 1));
    ensure!(worker.drain().await?.success());
    shop.close_fault(fault).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_next_try_in_flight_is_shown_and_warned_of() -> Result<()> {
    let mut shop = Shop::open(MAJOR, "late_in_flight").await?;
    let app = shop.install("sandbox", "").await?;
    let mut fault = Fault::new("28", "accepted after all, the operator's retry is in flight", MAJOR);
    let (mut worker, sms) = with_the_answer(&mut shop).await?;
    // Nearly as long as its worker waits: the first worker is heard before.
    shop.rule(json!({"behaviour": "delay", "delay_ms": 3500, "times": 1})).await?;
    let _other = shop.quick_worker().await?;
    retry(&mut shop, &sms).await?;
    shop.wait_for_requests(2).await?;
    worker.resume()?;
    fault.injected(1);
    shop.wait_for_status(&sms, "sent").await?;
    ensure!(shop.leased().await? == [sms.id.clone()], "the second answer was faster: the machine was too slow");
    ensure!(shop.attempts(&sms).await? == [Some("accepted".to_owned()), None], "{:?}", shop.attempts(&sms).await?);
    let warned = "SELECT status <> 'ok' AND detail ~ $1 FROM sms_outbox.health WHERE \"check\" = 'sent_twice'";
    let warns = async |of: &str| shop.database.value::<bool>(warned, &[&format!("^1 message .* {of}").as_str()]).await;
    ensure!(warns("is in flight").await?, "nothing warns of the one in flight");
    shop.wait_until_settled().await?;
    shop.expect_ledger(&sms, &[("accepted", app), ("accepted", app)]).await?;
    ensure!(shop.seen(&sms).await? == (2, 2));
    ensure!(warns("accepted two attempts").await?, "nothing warns of the two");
    ensure!(worker.drain().await?.success());
    shop.close_fault(fault).await.map(drop)
}
