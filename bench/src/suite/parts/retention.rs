//! A day whose messages have been kept for long enough goes: what that does to those who enqueue, and what it leaves.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sms_outbox_tests::Database;
use sms_outbox_tests::queue::age;

use super::Bench;
use crate::OURS;
use crate::message::ORGANIZATION;
use crate::ours::{self, Enqueuer, SqlWorker};
use crate::record::Measured;
use crate::server::drop_database;

const PART: &str = "retention";

/// Longer than anything is kept by default.
const DAYS: i32 = 40;

/// Messages of the day, at most.
const MOST: u32 = 1_000_000;

/// One day, once: it is the same in every round.
pub(crate) async fn all(bench: &mut Bench) -> Result<()> {
    let ours = ours::create(&bench.cluster, "retention_ours", bench.provider.url()).await?;
    let messages = bench.amounts.backlog.min(MOST);
    ours::fill(&ours, ORGANIZATION, messages).await?;
    let (mut claimer, recorder) = (SqlWorker::open(&ours).await?, SqlWorker::open(&ours).await?);
    claimer.drain(&recorder, bench.amounts.in_flight).await?;
    drop((claimer, recorder));
    // Nothing goes before all is set up.
    reload(&ours, "ALTER SYSTEM SET sms_outbox.retention_sent = '90d'").await?;
    age(&ours, DAYS).await?;
    // Ageing moves rows out of the partition of today, which must not count with what they left there.
    ours.sql("VACUUM FULL").await?;
    // The former leaves the count of dead rows as it was.
    ours.sql("VACUUM").await?;
    let measured = retain(&ours);
    bench.recorder.measure(PART, OURS, 1, measured).await?;
    drop_database(ours).await
}

async fn retain(ours: &Database) -> Result<Measured> {
    let before = kept(ours).await?;
    let is_over = Arc::new(AtomicBool::new(false));
    let mut enqueuer = Enqueuer::one(ours, ORGANIZATION, 0, None).await?;
    let meanwhile = tokio::spawn({
        let is_over = Arc::clone(&is_over);
        async move {
            let mut longest = Duration::ZERO;
            while !is_over.load(Ordering::Relaxed) {
                let begun = Instant::now();
                enqueuer.enqueue().await?;
                longest = longest.max(begun.elapsed());
                tokio::time::sleep(Duration::from_millis(2)).await;
            }
            anyhow::Ok(longest)
        }
    });
    reload(ours, "ALTER SYSTEM RESET sms_outbox.retention_sent").await?;
    ours.sql("UPDATE sms_outbox.maintenance SET ran_at = '-infinity'").await?;
    let begun = Instant::now();
    let old = format!(
        "SELECT count(*) FROM sms_outbox.partitions() WHERE day < (now() AT TIME ZONE 'UTC')::date - {}",
        DAYS - 2
    );
    while ours.value::<i64>(&old, &[]).await? > 0
        || ours.value::<bool>("SELECT bool_or(more) FROM sms_outbox.run_maintenance()", &[]).await?
    {
        ensure!(begun.elapsed() < Duration::from_secs(600), "the day is still there after ten minutes");
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    let took = begun.elapsed();
    ensure!(kept(ours).await? < before / 2, "the day was gone before it was to go, or is still there");
    is_over.store(true, Ordering::Relaxed);
    let longest = meanwhile.await??;
    let dead: i64 = ours
        .value(
            "SELECT coalesce(sum(n_dead_tup), 0)::bigint FROM pg_stat_user_tables
              WHERE schemaname = 'sms_outbox' AND (relname LIKE 'message%' OR relname LIKE 'attempt%')",
            &[],
        )
        .await?;
    Ok(vec![
        ("longest enqueue meanwhile".to_owned(), longest.as_secs_f64() * 1000.0, "ms"),
        ("until all is gone".to_owned(), took.as_secs_f64(), "s"),
        ("dead rows left".to_owned(), dead as f64, "rows"),
        ("disk left".to_owned(), 100.0 * kept(ours).await? as f64 / before as f64, "% of what it was"),
    ])
}

/// Changes a setting for all sessions.
async fn reload(ours: &Database, setting: &str) -> Result<()> {
    ours.sql(setting).await?;
    ours.sql("SELECT pg_reload_conf()").await
}

async fn kept(ours: &Database) -> Result<i64> {
    Ok(ours::size_of(ours, "message").await? + ours::size_of(ours, "attempt").await?)
}
