//! Wall clocks of workers that are an hour behind, an hour ahead, and set while requests are in flight: all goes by the
//! database's clock and by time that passes.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::{Value, json};
use sms_outbox_tests::scrape::Scrape;
use sms_outbox_tests::worker::Options;
use sms_outbox_tests::{Fault, Worker, run};

use crate::MAJOR;
use crate::shop::Shop;

const LIBRARY: &str = "/usr/lib/x86_64-linux-gnu/faketime/libfaketimeMT.so.1";

const HOUR: i64 = 3600;

/// A worker whose wall clock is off by what a file says; the time that passes is true.
fn with_clock<'a>(options: Options<'a>, file: &Path) -> Result<Options<'a>> {
    ensure!(fs::exists(LIBRARY)?, "{LIBRARY} does not exist: run 'make setup', or install libfaketime");
    Ok(options
        .set("LD_PRELOAD", LIBRARY)
        .set("FAKETIME_TIMESTAMP_FILE", &file.to_string_lossy())
        .set("FAKETIME_NO_CACHE", "1")
        .set("FAKETIME_DONT_FAKE_MONOTONIC", "1")
        .set("SMS_OUTBOX_HTTP_TIMEOUT", "4s")
        .set("SMS_OUTBOX_HEARTBEAT_INTERVAL", "1s")
        .set("SMS_OUTBOX_METRICS_LISTEN", "127.0.0.1:0")
        .set("SMS_OUTBOX_LOG_FORMAT", "json"))
}

/// By how many seconds the last line of its log is off.
fn off(worker: &Worker, now: Timestamp) -> Result<i64> {
    let log = worker.log();
    let line: Value = serde_json::from_str(log.lines().last().context("no line")?)?;
    let written: Timestamp = line["timestamp"].as_str().context("no time")?.parse()?;
    Ok(written.as_second() - now.as_second())
}

async fn scrape(worker: &Worker) -> Result<Scrape> {
    let log = worker.log();
    let address = log.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next()).context("no address")?;
    Scrape::of(&format!("http://{address}/metrics")).await
}

/// The requests for a recipient.
fn of<'a>(requests: &'a [Value], to: &'a str) -> impl Iterator<Item = &'a Value> {
    requests.iter().filter(move |request| request["to"].as_str().is_some_and(|seen| to.ends_with(seen)))
}

fn at(request: &Value) -> Result<Timestamp> {
    Ok(request["at"].as_str().context("no time")?.parse()?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_wall_clock_has_no_effect() -> Result<()> {
    let mut shop = Shop::open(MAJOR, "clock").await?;
    shop.shorten_leases().await?;
    let mut fault = Fault::new("9", "wall clocks an hour behind, an hour ahead, and set in flight", MAJOR);
    let mut workers = Vec::new();
    let mut files = Vec::new();
    for clock in ["-1h", "+1h", "-1h"] {
        let file = run::fresh("clock")?;
        fs::write(&file, clock)?;
        workers.push(with_clock(shop.worker()?, &file)?.start().await?);
        files.push(file);
    }
    let now: String = shop.database.value("SELECT to_json(now()) #>> '{}'", &[]).await?;
    for (worker, expected) in workers.iter().zip([-HOUR, HOUR, -HOUR]) {
        let off = off(worker, now.parse()?)?;
        // It may have started a while ago.
        ensure!((off - expected).abs() < HOUR / 2, "its clock is off by {off} s, not by {expected}");
        fault.injected(1);
    }
    let met =
        "SELECT count(*) = 3 AND min(heartbeat) > max(started_at) + interval '100 ms' FROM sms_outbox.worker_stats";
    shop.database.wait_until("the workers know of each other", met).await?;

    shop.install("sandbox", "max_in_flight => 100, rate => 20").await?;
    // Another organization's breaker opens for its first app, and its messages go by the second.
    shop.install_for(
        "other",
        "sandbox",
        json!({"token": "dead", "base_url": "http://127.0.0.1:1"}),
        "\"position\" => 1",
    )
    .await?;
    shop.install_for("other", "sandbox", shop.token("second"), "").await?;
    shop.rule(
        json!([{"behaviour": "delay", "delay_ms": 300}, {"behaviour": "throttle", "retry_after": 2, "times": 1}]),
    )
    .await?;
    let limited = shop.queue_many("shop", 100, "").await?;
    shop.queue_many("other", 20, "").await?;
    let scheduled = shop.queue_for("other", "datetime => now() + interval '4 s'").await?;
    let due: String = shop
        .database
        .value("SELECT to_json(datetime) #>> '{}' FROM sms_outbox.outbox WHERE id = $1::text", &[&scheduled.id])
        .await?;
    shop.wait_until_requests(30).await?;
    fs::write(&files[2], "+1h")?;
    fault.injected(1);
    shop.wait_until_settled().await?;

    let requests = shop.sandbox.requests().await?;
    let first = of(&requests, &scheduled.to).next().context("never sent")?;
    ensure!(at(first)? >= due.parse()?, "sent before it was due");
    let mut arrivals = limited.iter().flat_map(|sms| of(&requests, &sms.to)).map(at).collect::<Result<Vec<_>>>()?;
    arrivals.sort_unstable();
    let took = arrivals.last().context("none")?.as_millisecond() - arrivals[0].as_millisecond();
    // A token each to begin with, and at most a second's worth saved up by a worker that stumbled.
    ensure!(took >= (100 - 3 - 20) * 1000 / 20, "100 messages at 20 a second took {took} ms");
    let odd = "SELECT count(*) FROM sms_outbox.attempts WHERE finished_at < started_at OR finished_at > now() + interval '1 minute'
        OR status NOT IN ('accepted', 'throttled') AND error_code <> 'connection_refused'";
    ensure!(shop.database.value::<i64>(odd, &[]).await? == 0, "{}", shop.database.evidence().await);
    let breaker = "SELECT last_error_code = 'connection_refused' FROM sms_outbox.app_stats WHERE failed > 0 AND last_error_code IS NOT NULL LIMIT 1";
    ensure!(shop.database.value::<bool>(breaker, &[]).await?, "the dead app was not asked");

    for worker in &mut workers {
        let counted = scrape(worker).await?;
        for name in ["due_to_request", "provider_request", "database_call"] {
            let family = format!("sms_outbox_worker_{name}_seconds");
            let (sum, count) =
                (counted.sum(&format!("{family}_sum"), &[]), counted.sum(&format!("{family}_count"), &[]));
            ensure!(count > 0.0 && (0.0..600.0).contains(&(sum / count)), "{family}: {sum} s of {count}");
        }
        let status = worker.drain().await?;
        ensure!(status.success(), "{status}: {}", worker.log());
    }
    let now: String = shop.database.value("SELECT to_json(now()) #>> '{}'", &[]).await?;
    let off = off(&workers[2], now.parse()?)?;
    ensure!((off - HOUR).abs() < HOUR / 2, "its clock was not set: it is off by {off} s");
    shop.expect_a_request_for_each_attempt().await?;
    shop.close_fault(fault).await.map(drop)
}
