//! What a worker counts under traffic, against its ledger and the provider's journal; and the trace of a message.

use anyhow::{Result, ensure};
use serde_json::json;
use sms_outbox_tests::scrape::Scrape;
use sms_outbox_tests::wait::poll;
use sms_outbox_tests::{Major, Worker};
use sms_outbox_worker::metrics::catalog::{Source, WORKER};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpListener;

use crate::shop::Shop;
use crate::{fits_the_list, shows_nobody};

/// A worker that answers scrapes, and where.
pub(crate) async fn counted_worker(shop: &Shop) -> Result<(Worker, String)> {
    let mut worker = shop
        .worker()?
        .set("SMS_OUTBOX_METRICS_LISTEN", "127.0.0.1:0")
        .set("SMS_OUTBOX_HTTP_TIMEOUT", "4s")
        .set("SMS_OUTBOX_LOG_FORMAT", "json")
        .set("SMS_OUTBOX_LOG_LEVEL", "info,sms_outbox_worker::delivery=debug")
        .start()
        .await?;
    let told = |log: &str| log.split("\"address\":\"").nth(1)?.split('"').next().map(str::to_owned);
    let address = poll("the worker answers scrapes", async || Ok(told(&worker.log())), async || String::new()).await?;
    ensure!(worker.process().is_running());
    Ok((worker, format!("http://{address}/metrics")))
}

pub(crate) async fn numbers_add_up_with_what_the_provider_saw(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "counted").await?;
    let good = shop.install("sandbox", "\"position\" => 1").await?;
    let dead = shop.install_dead("").await?;
    shop.rule(json!([{"behaviour": "refuse_recipient", "times": 3}, {"behaviour": "reset_after_accept", "times": 2},
                     {"behaviour": "delay", "delay_ms": 40, "times": 10},
                     {"behaviour": "delay", "delay_ms": 6000, "times": 1}]))
        .await?;
    let (mut worker, url) = counted_worker(&shop).await?;
    let all_sms = shop.queue_many("shop", 60, "").await?;
    shop.wait_until_settled().await?;
    // What is recorded is counted before; what is counted as in flight is taken back a moment later.
    let quiet =
        async || Ok(Some(Scrape::of(&url).await?).filter(|now| now.sum("sms_outbox_worker_in_flight", &[]) == 0.0));
    let now = poll("nothing is in flight", quiet, async || String::new()).await?;

    let ledger = "SELECT status::text, organization_app_id::text, count(*)::float8 FROM sms_outbox.attempts WHERE status IS NOT NULL GROUP BY 1, 2";
    let mut attempts = 0.0;
    for row in shop.database.admin().query(ledger, &[]).await? {
        let (outcome, app, count): (String, String, f64) = (row.get(0), row.get(1), row.get(2));
        let with = [("outcome", outcome.as_str()), ("organization_app_id", &app), ("provider", "sandbox")];
        let counted = now.sum("sms_outbox_worker_attempts_total", &with);
        ensure!(counted == count, "{with:?}: {counted} counted, {count} in the ledger");
        attempts += count;
    }
    let counts = shop.sandbox.counts().await?;
    let of = |outcome| now.sum("sms_outbox_worker_attempts_total", &[("outcome", outcome)]);
    ensure!(now.sum("sms_outbox_worker_attempts_total", &[]) == attempts);
    ensure!(attempts - of("not_sent") == counts.requests as f64, "{counts:?}\n{}", now.text);
    ensure!(of("accepted") + of("unclear") == counts.accepted as f64, "{counts:?}\n{}", now.text);
    ensure!(of("refused_recipient") == 3.0 && of("unclear") == 3.0);
    ensure!(now.sum("sms_outbox_worker_provider_timeouts_total", &[("phase", "answer")]) == 1.0);
    ensure!(of("not_sent") > 0.0, "the dead app was never asked");
    ensure!(now.sum("sms_outbox_worker_claims_total", &[("result", "leased")]) == attempts);
    let first = all_sms.len() as f64;
    ensure!(now.sum("sms_outbox_worker_due_to_request_seconds_count", &[]) == first);
    ensure!(now.sum("sms_outbox_worker_due_to_request_seconds_bucket", &[("le", "+Inf")]) == first);
    ensure!(now.sum("sms_outbox_worker_retries_total", &[]) == attempts - first);
    ensure!(now.sum("sms_outbox_worker_provider_request_seconds_count", &[]) == attempts);
    let answered = now.sum("sms_outbox_worker_provider_request_seconds_sum", &[]);
    ensure!(answered >= 10.0 * 0.04, "ten answers took 40 ms, all together {answered} s");
    ensure!(now.sum("sms_outbox_worker_concurrency", &[]) == 256.0);
    ensure!(now.sum("sms_outbox_worker_listening", &[]) == 1.0);
    ensure!(now.sum("sms_outbox_worker_notifications_total", &[]) >= 1.0);
    ensure!(now.sum("sms_outbox_worker_app_blocks_total", &[("organization_app_id", &dead.to_string())]) >= 1.0);
    ensure!(now.sum("sms_outbox_worker_app_blocks_total", &[("organization_app_id", &good.to_string())]) == 0.0);
    for call in ["look", "apps", "claim", "finish", "heartbeat"] {
        let calls = now.sum("sms_outbox_worker_database_call_seconds_count", &[("call", call)]);
        ensure!(calls >= 1.0, "{call} was not timed");
    }
    for metric in WORKER {
        ensure!(now.families.contains_key(metric.name), "{} is missing", metric.name);
    }
    fits_the_list(&now, &[Source::Worker])?;
    shows_nobody(&now.text)?;
    ensure!(worker.drain().await?.success());
    shop.close().await.map(drop)
}

/// A provider that keeps the request, to be looked at.
pub(crate) async fn the_trace_is_logged_and_not_given_away(major: Major) -> Result<()> {
    const TRACE: &str = "0af7651916cd43dd8448eb211c80319c";
    let mut shop = Shop::open(major, "traced").await?;
    let provider = TcpListener::bind("127.0.0.1:0").await?;
    let url = format!("http://{}", provider.local_addr()?);
    shop.install_for("shop", "sandbox", json!({"token": "kept", "base_url": url, "allow_http": true}), "").await?;
    let (mut worker, _) = counted_worker(&shop).await?;
    let meta = format!("meta => '{{\"traceparent\": \"00-{TRACE}-b7ad6b7169203331-01\"}}'");
    let sms = shop.queue(&meta).await?;
    let (mut stream, _) = provider.accept().await?;
    let mut request = vec![0; 8192];
    let mut length = 0;
    while !String::from_utf8_lossy(&request[..length]).contains("text 1") {
        length += stream.read(&mut request[length..]).await?;
    }
    let request = String::from_utf8_lossy(&request[..length]).to_lowercase();
    ensure!(!request.contains("traceparent") && !request.contains(TRACE), "the provider was told:\n{request}");
    stream.write_all(b"HTTP/1.1 500 Oops\r\ncontent-length: 0\r\nconnection: close\r\n\r\n").await?;
    shop.wait_for_status(&sms, "dispatch_timeout").await?;
    let logged = async || {
        let log = worker.log();
        Ok(log.lines().any(|line| line.contains("attempt over") && line.contains(TRACE)).then_some(()))
    };
    poll("the trace is in the log", logged, async || worker.log()).await?;
    ensure!(worker.drain().await?.success());
    Ok(())
}

/// Each connection of the worker is ended by the server, and opened again.
pub(crate) async fn lost_connections_are_counted(major: Major) -> Result<()> {
    let shop = Shop::open(major, "reconnects").await?;
    shop.install("sandbox", "").await?;
    let (_worker, url) = counted_worker(&shop).await?;
    let connections = async |purpose: &str, at_least: f64| {
        let opened = async || {
            let now = Scrape::of(&url).await?;
            let listens = now.sum("sms_outbox_worker_listening", &[]) == 1.0;
            let count = now.sum("sms_outbox_worker_database_connections_total", &[("purpose", purpose)]);
            Ok((listens && count >= at_least).then_some(count))
        };
        poll(format!("{at_least} connections to {purpose}"), opened, async || String::new()).await
    };
    let (queue, listen) = (connections("queue", 1.0).await?, connections("listen", 1.0).await?);
    shop.database
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker' AND datname = current_database()")
        .await?;
    connections("queue", queue + 1.0).await?;
    connections("listen", listen + 1.0).await.map(drop)
}
