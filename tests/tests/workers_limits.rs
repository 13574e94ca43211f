//! Limits that hold over the whole fleet, measured at the provider, and the worker's own: its memory.

mod shop;

use std::fs;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::{Major, Worker, on_majors};

on_majors! { ends: max_in_flight_holds_over_two_workers, rate_holds_over_two_workers }

/// Two workers that know of each other: each has reported after the other had begun.
async fn two_workers(shop: &Shop) -> Result<[Worker; 2]> {
    let start = async || shop.worker()?.set("SMS_OUTBOX_HEARTBEAT_INTERVAL", "1s").start().await;
    let workers = [start().await?, start().await?];
    let met =
        "SELECT count(*) = 2 AND min(heartbeat) > max(started_at) + interval '100 ms' FROM sms_outbox.worker_stats";
    shop.database.wait_until("both workers know of each other", met).await?;
    Ok(workers)
}

/// When the requests came, in milliseconds, in order.
async fn arrivals(shop: &Shop) -> Result<Vec<i64>> {
    let requests = shop.sandbox.requests().await?;
    let at = |request: &serde_json::Value| -> Result<i64> {
        Ok(request["at"].as_str().context("no time")?.parse::<Timestamp>()?.as_millisecond())
    };
    let mut arrivals = requests.iter().map(at).collect::<Result<Vec<_>>>()?;
    arrivals.sort_unstable();
    Ok(arrivals)
}

/// Most of them within any stretch of so many milliseconds.
fn most_within(arrivals: &[i64], stretch: i64) -> usize {
    let within = |first: &i64| arrivals.iter().filter(|at| (*first..first + stretch).contains(at)).count();
    arrivals.iter().map(within).max().unwrap_or(0)
}

async fn max_in_flight_holds_over_two_workers(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "in_flight").await?;
    let _workers = two_workers(&shop).await?;
    shop.install("sandbox", "max_in_flight => 5").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 200})).await?;
    shop.queue_many("shop", 100, "").await?;
    shop.wait_until_settled().await?;
    // Each is in flight for 200 ms at least: more than five arrivals in less are more than five at once.
    let most = most_within(&arrivals(&shop).await?, 195);
    ensure!(most == 5, "{most} at once");
    let workers: i64 = shop.database.value("SELECT count(DISTINCT worker) FROM sms_outbox.attempt", &[]).await?;
    ensure!(workers == 2, "one worker did it all");
    shop.close().await.map(drop)
}

async fn rate_holds_over_two_workers(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "rate").await?;
    let _workers = two_workers(&shop).await?;
    shop.install("sandbox", "max_in_flight => 100, rate => 20").await?;
    shop.queue_many("shop", 100, "").await?;
    shop.wait_until_settled().await?;
    let arrivals = arrivals(&shop).await?;
    let took = arrivals.last().context("none")? - arrivals[0];
    // A token each to begin with, and at most a second's worth saved up by a worker that stumbled.
    ensure!(took >= (100 - 2 - 20) * 1000 / 20, "100 messages at 20 a second took {took} ms");
    ensure!(most_within(&arrivals, 1000) <= 42, "a burst of {}", most_within(&arrivals, 1000));
    shop.close().await.map(drop)
}

/// Resident memory of a process, in KiB.
fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim_end_matches("kB").trim().parse()?)
}

/// The backlog lies in the database: of it a worker holds a window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_the_backlog() -> Result<()> {
    let shop = Shop::open(Major::V18, "memory").await?;
    for number in 0..20 {
        let organization = format!("shop{number}");
        shop.install_for(&organization, "sandbox", shop.token("all"), "max_in_flight => 2").await?;
    }
    shop.rule(json!({"behaviour": "delay", "delay_ms": 200})).await?;
    let queue = "SELECT count(*) FROM generate_series(1, $1::int) AS n,
        sms_outbox_enqueue(mobile => '+96650' || lpad(n::text, 7, '0'), message => 'text ' || n, organization_id => 'shop' || n % 20)";
    let mut measured = Vec::new();
    for backlog in [1000, 199_000] {
        shop.database.value::<i64>(queue, &[&backlog]).await?;
        let mut worker = shop.worker()?.start().await?;
        let before: i64 = shop.database.value("SELECT count(*) FROM sms_outbox.attempt", &[]).await?;
        shop.database
            .wait_until(
                "it has worked for a while",
                &format!("SELECT count(*) > {before} + 300 FROM sms_outbox.attempt"),
            )
            .await?;
        measured.push(resident(worker.process().id())?);
        ensure!(worker.drain().await?.success());
    }
    ensure!(measured[1] < measured[0] * 3, "KiB with 1,000 and 200,000 waiting: {measured:?}");
    Ok(())
}
