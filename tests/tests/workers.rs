//! Workers that come, go, stop and are killed: nothing is lost and nobody gets two, counted at the provider.

mod shop;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::process::Signal;
use sms_outbox_tests::{Fault, Major, on_majors};

on_majors! { ends:
    a_killed_worker_leaves_only_what_was_in_flight_unclear, a_late_answer_lands_on_its_own_attempt,
    a_stopping_worker_drains, a_second_signal_stops_at_once, workers_killed_at_random_send_nothing_twice,
    a_worker_waits_for_the_first_app,
}

async fn with_status(shop: &Shop, status: &str) -> Result<Vec<String>> {
    let query = "SELECT id::text FROM sms_outbox.outbox WHERE dispatch_status = $1::text::sms_outbox.dispatch_status ORDER BY id";
    Ok(shop.database.admin().query(query, &[&status]).await?.iter().map(|row| row.get(0)).collect())
}

async fn a_killed_worker_leaves_only_what_was_in_flight_unclear(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "killed").await?;
    shop.shorten_leases().await?;
    shop.install("sandbox", "max_in_flight => 10").await?;
    shop.rule(json!({"behaviour": "stall_after_headers"})).await?;
    let all = shop.queue_many("shop", 60, "").await?;
    let mut killed = shop.quick_worker().await?;
    shop.wait_until_requests(10).await?;
    let mut fault = Fault::new("6", "killed after bytes went out", major);
    killed.kill().await?;
    fault.injected(1);
    let since = Instant::now();
    let in_flight = shop.leased().await?;
    ensure!(in_flight.len() == 10, "{} in flight", in_flight.len());
    fault.unclear(&in_flight)?;
    shop.sandbox.clear_rules().await?;
    let _other = shop.quick_worker().await?;
    shop.database
        .wait_until("the other sends", "SELECT EXISTS (SELECT FROM sms_outbox.attempt WHERE status = 'accepted')")
        .await?;
    fault.recovered_in(since.elapsed());
    shop.wait_until_settled().await?;
    let code: i64 = shop
        .database
        .value(
            "SELECT count(*) FROM sms_outbox.attempts WHERE status = 'unclear' AND error_code = 'lease_expired'",
            &[],
        )
        .await?;
    ensure!(code == 10);
    let balance = shop.close_fault(fault).await?;
    ensure!(balance.by_status["sent"] == all.len() - 10 && balance.accepted == all.len(), "{balance}");
    Ok(())
}

async fn a_late_answer_lands_on_its_own_attempt(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "late").await?;
    shop.shorten_leases().await?;
    let app = shop.install("sandbox", "").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 2000, "times": 1})).await?;
    let sms = shop.queue("").await?;
    let mut worker = shop.quick_worker().await?;
    shop.wait_until_requests(1).await?;
    let mut fault = Fault::new("7", "stopped past its lease, then continued", major);
    worker.pause()?;
    fault.injected(1);
    // Meanwhile the provider answers, and the lease ends.
    shop.wait_for_status(&sms, "dispatch_timeout").await?;
    shop.expect_ledger(&sms, &[("unclear", app)]).await?;
    worker.resume()?;
    shop.wait_for_status(&sms, "sent").await?;
    shop.expect_ledger(&sms, &[("accepted", app)]).await?;
    let next = shop.queue("").await?;
    shop.wait_for_status(&next, "sent").await?;
    ensure!(shop.seen(&sms).await? == (1, 1));
    ensure!(worker.drain().await?.success());
    shop.close_fault(fault).await.map(drop)
}

async fn a_stopping_worker_drains(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "drain").await?;
    shop.install("sandbox", "max_in_flight => 50").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 300})).await?;
    let mut worker = shop.worker()?.start().await?;
    let all = shop.queue_many("shop", 1000, "").await?;
    shop.wait_until_requests(100).await?;
    let mut fault = Fault::new("8", "SIGTERM under load", major);
    fault.injected(1);
    let since = Instant::now();
    let status = worker.drain().await?;
    ensure!(status.success(), "{status}: {}", worker.log());
    ensure!(shop.leased().await?.is_empty(), "it left leases behind");
    ensure!(with_status(&shop, "dispatch_timeout").await?.is_empty());
    let sent = with_status(&shop, "sent").await?.len();
    ensure!(sent == shop.sandbox.journal()?.len() && sent < all.len(), "{sent} sent");
    let gone: bool = shop.database.value("SELECT NOT EXISTS (SELECT FROM sms_outbox.worker_stats)", &[]).await?;
    ensure!(gone, "it said no goodbye");
    shop.sandbox.clear_rules().await?;
    let _next = shop.worker()?.start().await?;
    let goes_on = format!("SELECT count(*) > {sent} FROM sms_outbox.attempt");
    shop.database.wait_until("the next worker sends", &goes_on).await?;
    fault.recovered_in(since.elapsed());
    shop.wait_until_settled().await?;
    shop.expect_a_request_for_each_attempt().await?;
    ensure!(shop.close_fault(fault).await?.by_status["sent"] == 1000);
    Ok(())
}

async fn a_second_signal_stops_at_once(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "abort").await?;
    shop.install("sandbox", "").await?;
    shop.rule(json!({"behaviour": "stall_after_headers"})).await?;
    let mut worker = shop.worker()?.set("SMS_OUTBOX_HTTP_TIMEOUT", "100s").start().await?;
    let held = shop.queue_many("shop", 3, "").await?;
    shop.wait_until_requests(3).await?;
    worker.process().signal(Signal::TERM)?;
    let heard = async || Ok(worker.log().contains("stopping").then_some(()));
    shop.database.wait_for("the first signal is heard", heard).await?;
    ensure!(worker.process().is_running(), "it did not drain");
    worker.process().signal(Signal::INT)?;
    let status = worker.process().wait(Duration::from_secs(10)).await?;
    ensure!(status.code() == Some(1), "{status}");
    ensure!(worker.log().contains("3 attempts in flight"), "{}", worker.log());
    ensure!(shop.leased().await?.len() == 3);
    shop.close_leaving(&held).await.map(drop)
}

async fn workers_killed_at_random_send_nothing_twice(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "random").await?;
    shop.shorten_leases().await?;
    shop.install_account("north", "max_in_flight => 100").await?;
    shop.install_account("south", "max_in_flight => 100").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 50})).await?;
    let mut fault = Fault::new("6", "killed at random under load", major);
    let mut workers = vec![shop.quick_worker().await?, shop.quick_worker().await?];
    for round in 0..6 {
        shop.queue_many("shop", 500, "").await?;
        shop.wait_until_requests(400 * (round + 1)).await?;
        // In turn, so that two and three workers live at a time.
        if round % 2 == 0 {
            workers.push(shop.quick_worker().await?);
        }
        let mut victim = workers.remove(0);
        victim.kill().await?;
        fault.injected(1);
        fault.unclear(shop.left_by(&victim).await?)?;
        if workers.len() < 2 {
            workers.push(shop.quick_worker().await?);
        }
    }
    shop.wait_until_settled().await?;
    for mut worker in workers {
        let status = worker.drain().await?;
        ensure!(status.success(), "{status}: {}", worker.log());
    }
    let counts = shop.close_fault(fault).await?;
    ensure!(counts.by_status["sent"] + counts.unclear_expected == 3000, "{counts}");
    ensure!(counts.accepted == counts.by_status["sent"] + counts.accepted_unclear, "{counts}");
    Ok(())
}

async fn a_worker_waits_for_the_first_app(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "first").await?;
    let mut worker = shop.worker()?.start().await?;
    shop.install("sandbox", "").await?;
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "sent").await?;
    ensure!(worker.drain().await?.success());
    shop.close().await.map(drop)
}
