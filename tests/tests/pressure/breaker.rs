//! The breaker of an app holds for all workers: one probe over the fleet, and all of them go on when it is answered.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sms_outbox_tests::{Fault, Major};

use crate::measure::{QUIET, seen};
use crate::shop::Shop;

async fn breaker(shop: &Shop) -> Result<String> {
    shop.database.value("SELECT breaker FROM sms_outbox.app_stats", &[]).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn lets_one_probe_of_all_workers_through() -> Result<()> {
    let _shared = QUIET.read().await;
    let mut fault = Fault::new("11", "a provider that fails: its breaker, over two workers", Major::V18);
    let mut shop = Shop::open(Major::V18, "breaker").await?;
    let _workers = [shop.worker()?.start().await?, shop.worker()?.start().await?];
    shop.install("sandbox", "max_in_flight => 4").await?;
    shop.rule(json!({"behaviour": "error_500"})).await?;
    shop.queue_many("shop", 200, "").await?;
    // After five failures: 1, 2, 4 and 8 seconds, with one request at the end of each.
    let failed = shop.database.wait_for("four probes have failed", async || {
        let all = seen(&shop).await?;
        let probes = all.windows(2).filter(|pair| pair[1].at - pair[0].at > 900).count();
        Ok((probes >= 4).then_some(all))
    });
    let failed = failed.await?;
    let opened = failed.windows(2).position(|pair| pair[1].at - pair[0].at > 900).context("it never opened")? + 1;
    // The fifth failure opens it; until it is recorded the four that the limit allows may be under way.
    ensure!(opened <= 5 + 4, "{opened} requests before it was open");
    let gaps: Vec<i64> = failed[opened - 1..].windows(2).map(|pair| pair[1].at - pair[0].at).collect();
    for (gap, least) in gaps.iter().zip([1000, 2000, 4000, 8000]) {
        ensure!(*gap >= least - 50, "the pauses between two requests were {gaps:?} ms");
    }
    ensure!(breaker(&shop).await? == "open", "app_stats shows no open breaker");
    let waits: String = shop.database.value("SELECT DISTINCT waits_for FROM sms_outbox.waiting", &[]).await?;
    ensure!(waits == "breaker_open", "messages wait for {waits}");
    // Only what was asked for is unclear, by id.
    let asked: Vec<&str> = failed.iter().filter_map(|seen| seen.reference.rsplit_once('-')).map(|(id, _)| id).collect();

    shop.sandbox.clear_rules().await?;
    shop.database.sql("UPDATE sms_outbox.app_health SET blocked_until = clock_timestamp()").await?;
    shop.wait_until_settled().await?;
    ensure!(breaker(&shop).await? == "closed", "app_stats shows a breaker that is not closed");
    fault.injected(failed.len() as u64);
    fault.unclear(asked)?;
    // A probe that is answered opens the way for both, one request ahead of all others.
    let after = &seen(&shop).await?[failed.len()..];
    ensure!(after.len() == 200 - failed.len(), "{} requests after it", after.len());
    let workers: i64 = shop
        .database
        .value("SELECT count(DISTINCT worker) FROM sms_outbox.attempt WHERE status = 'accepted'", &[])
        .await?;
    ensure!(workers == 2, "only one worker went on");
    shop.expect_a_request_for_each_attempt().await?;
    shop.close_fault(fault).await.map(drop)
}
