//! A transaction that pins the horizon while a large backlog drains: dead rows stay, and a claim costs what it cost.

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::queue::finish;
use sms_outbox_tests::{Cluster, Database, Fault, Major, Queue};
use tokio_postgres::Client;

use crate::measure::{QUIET, percentile};

/// Messages of one claim.
const BATCH: usize = 100;

/// Pages read by claims of a batch each, and milliseconds of CPU: what a busy machine does not change.
#[derive(Debug, Default)]
struct Cost {
    pages: Vec<f64>,
    cpu: Vec<f64>,
}

/// Milliseconds that a process has run.
fn cpu(pid: i32) -> Result<f64> {
    let schedstat = fs::read_to_string(format!("/proc/{pid}/schedstat"))?;
    let nanoseconds: f64 = schedstat.split(' ').next().unwrap_or_default().parse()?;
    Ok(nanoseconds / 1e6)
}

/// Claims so many batches from the front of the queue, as a worker that knows their ids does, and finishes them.
async fn drain(worker: &Client, ids: &mut std::vec::IntoIter<String>, app: i64, batches: usize) -> Result<Cost> {
    let claim = "SELECT sms_outbox.claim('w', $1::text[]::sms_outbox.message_id[], array_fill($2::bigint, ARRAY[cardinality($1::text[])]))";
    let claim = worker.prepare(&format!("EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) {claim}")).await?;
    let pid: i32 = worker.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
    let mut cost = Cost::default();
    for _ in 0..batches {
        let batch: Vec<String> = ids.by_ref().take(BATCH).collect();
        ensure!(batch.len() == BATCH, "the backlog is used up");
        let before = cpu(pid)?;
        let plan: Value = worker.query_one(&claim, &[&batch, &app]).await?.try_get(0)?;
        cost.cpu.push(cpu(pid)? - before);
        let read = |field: &str| plan[0]["Plan"][field].as_f64().context("no such number in the plan");
        cost.pages.push(read("Shared Hit Blocks")? + read("Shared Read Blocks")?);
        // One in ten goes through finish(), which inserts the attempt; the others' leases stay.
        for id in batch.iter().step_by(10) {
            ensure!(finish(worker, "w", id, 1, "accepted").await?.applied, "not leased");
        }
    }
    Ok(cost)
}

async fn pinned(batches: usize) -> Result<()> {
    let _alone = QUIET.write().await;
    let mut fault = Fault::new("16", "a pinned horizon while a backlog drains", Major::V18);
    let cluster =
        Cluster::options(Major::V18).without_preload().set("shared_buffers", "128MB").set("autovacuum_naptime", "1s");
    let queue = Queue::on(Database::create(&cluster.start().await?, "shop").await?).await?;
    let backlog = i32::try_from((batches * 11 / 10 + 3) * BATCH)?;
    let fill = "SELECT count(*) FROM generate_series(1, $1::int) AS n, sms_outbox_enqueue('0501234567', 'text ' || n, organization_id => 'shop')";
    queue.value::<i64>(fill, &[&backlog]).await?;
    let ids: Vec<String> = queue
        .admin()
        .query("SELECT id::text FROM sms_outbox.ready ORDER BY id", &[])
        .await?
        .iter()
        .map(|row| row.get(0))
        .collect();
    let mut ids = ids.into_iter();
    let worker = queue.connect_as("worker").await?;
    let some = batches / 10;
    // The first ones plan.
    drain(&worker, &mut ids, queue.app(), 3).await?;
    let before = drain(&worker, &mut ids, queue.app(), some).await?;
    let reader = queue.connect().await?;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sms_outbox.organization").await?;
    drain(&worker, &mut ids, queue.app(), batches - some).await?;
    let after = drain(&worker, &mut ids, queue.app(), some).await?;
    // What was claimed since the pin is dead, and cannot be removed: that is the fault.
    queue.sql("VACUUM sms_outbox.ready").await?;
    let dead: i64 = queue
        .value("SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = 'sms_outbox.ready'::regclass", &[])
        .await?;
    ensure!(dead >= i64::try_from((batches - some) * BATCH)?, "the horizon was not pinned: {dead} dead rows");
    fault.injected(1);
    reader.batch_execute("COMMIT").await?;
    let (pages, cpu_times) = (
        (percentile(&before.pages, 99), percentile(&after.pages, 99)),
        (percentile(&before.cpu, 90), percentile(&after.cpu, 90)),
    );
    #[expect(clippy::print_stdout, reason = "what was measured is read with --nocapture")]
    {
        println!(
            "claims of {BATCH}: pages at p99 {pages:?}, ms of CPU at p90 {cpu_times:?}, before the pin and at its end; {dead} dead rows"
        );
    }
    ensure!(pages.1 <= 2.0 * pages.0, "pages of a claim at p99, before the pin and at its end: {pages:?}");
    ensure!(
        cpu_times.1 <= 2.0 * cpu_times.0 + 2.0,
        "ms of CPU of a claim at p90, before the pin and at its end: {cpu_times:?}"
    );
    queue.assert_placed().await?;
    fault.asserted(usize::try_from(backlog)?)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_cost_the_same_while_the_horizon_is_pinned() -> Result<()> {
    pinned(200).await
}

#[ignore = "two hundred thousand messages: make faults"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn claims_cost_the_same_while_the_horizon_is_pinned_for_minutes() -> Result<()> {
    pinned(2000).await
}
