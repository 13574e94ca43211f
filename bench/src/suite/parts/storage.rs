//! What a message leaves behind: WAL, and the disk that it keeps.

use std::time::Duration;

use anyhow::{Context, Result};
use sms_outbox_bench::measure::round;
use sms_outbox_tests::process::output;
use sms_outbox_tests::{Cluster, Database};

use super::Bench;
use crate::OURS;
use crate::ours::{self, Enqueuer};
use crate::server::drop_database;

const PART: &str = "storage";

/// While 4 clients enqueue and a worker sends, after both have warmed up.
pub(crate) async fn all(bench: &mut Bench) -> Result<()> {
    let (seconds, in_flight) = (bench.amounts.seconds, bench.amounts.in_flight);
    for number in 1..=bench.amounts.rounds {
        let ours = ours::create(&bench.cluster, "storage_ours", bench.provider.url()).await?;
        let before = kept(&ours).await?;
        let worker = ours::start_worker(&ours, in_flight).await?;
        bench.provider.take().await?;
        let mut messages = load(&ours, Duration::from_secs(1)).await?;
        ours::wait_until_empty(&ours).await?;
        ours.sql("CHECKPOINT").await?;
        let measured = async {
            let from = place(&ours).await?;
            let counted = load(&ours, Duration::from_secs(seconds)).await?;
            messages += counted;
            ours::wait_until_empty(&ours).await?;
            let (records, images) = wal(&bench.cluster, &from, &place(&ours).await?).await?;
            let each = f64::from(counted);
            ours.sql("VACUUM").await?;
            let disk = (kept(&ours).await? - before) as f64 / f64::from(messages);
            Ok(vec![
                ("WAL without page images".to_owned(), records / each, "bytes/message"),
                ("WAL, page images after a checkpoint".to_owned(), images / each, "bytes/message"),
                ("disk".to_owned(), disk, "bytes/message"),
            ])
        };
        bench.recorder.measure(PART, OURS, number, measured).await?;
        drop(worker);
        drop_database(ours).await?;
    }
    Ok(())
}

/// Enqueues for a while; how many messages.
async fn load(ours: &Database, lasts: Duration) -> Result<u32> {
    let before: i64 = ours.value("SELECT count(*) FROM sms_outbox.message", &[]).await?;
    round(Enqueuer::open(ours, 4, None).await?, lasts).await?;
    let after: i64 = ours.value("SELECT count(*) FROM sms_outbox.message", &[]).await?;
    Ok(u32::try_from(after - before)?)
}

/// Bytes of what is kept of messages: their rows, those of their attempts, and both's indexes.
async fn kept(ours: &Database) -> Result<i64> {
    Ok(ours::size_of(ours, "message").await? + ours::size_of(ours, "attempt").await?)
}

/// Where the WAL ends: a record of its own there lets pg_waldump find all before it on disk.
async fn place(ours: &Database) -> Result<String> {
    ours.sql("SELECT pg_logical_emit_message(true, 'bench', '')").await?;
    ours.value("SELECT pg_current_wal_flush_lsn()::text", &[]).await
}

/// Bytes between two places: of records, and of images of whole pages.
async fn wal(cluster: &Cluster, from: &str, until: &str) -> Result<(f64, f64)> {
    let mut command = cluster.tool("pg_waldump")?;
    command.args(["--stats", "--start", from, "--end", until, "--path"]).arg(cluster.data().join("pg_wal"));
    let text = output(command).await?;
    let line = text.lines().find(|line| line.starts_with("Total")).context("pg_waldump printed no total")?;
    // Total, count, record size, [share], image size, [share], combined size, [share].
    let numbers: Vec<f64> = line.split_whitespace().filter_map(|field| field.parse().ok()).collect();
    match numbers.as_slice() {
        [_, records, images, ..] => Ok((*records, *images)),
        _ => Err(anyhow::anyhow!("pg_waldump printed '{line}'")),
    }
}
