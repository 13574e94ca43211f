//! What a large backlog costs, and a snapshot that pins the horizon.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sms_outbox_tests::Database;

use super::Bench;
use crate::message::{MANY, ORGANIZATION};
use crate::ours::{self, SqlWorker};
use crate::record::Measured;
use crate::server::drop_database;
use crate::{OURS, load};

const PART: &str = "backlog";

/// Messages of a claim.
const BATCH: u32 = 100;

/// Claims of a round, and so what the small backlog must hold.
const CLAIMS: u32 = 10;

/// Both.
pub(crate) async fn all(bench: &mut Bench) -> Result<()> {
    claims(bench).await?;
    pinned(bench).await
}

/// CPU of the server in one claim, with what it looks at before, at a small and at a large backlog.
async fn claims(bench: &mut Bench) -> Result<()> {
    let small = ours::create(&bench.cluster, "small_ours", bench.provider.url()).await?;
    let large = ours::create(&bench.cluster, "large_ours", bench.provider.url()).await?;
    ours::fill(&large, ORGANIZATION, bench.amounts.backlog).await?;
    let (mut at_small, mut at_large) = (SqlWorker::open(&small).await?, SqlWorker::open(&large).await?);
    for number in 0..=bench.amounts.rounds {
        // What round `number` takes, so that as many wait at the start of each.
        ours::fill(&small, ORGANIZATION, CLAIMS * BATCH).await?;
        let measured = claim_cpu(&mut at_small, "at 1k");
        bench.recorder.measure(PART, OURS, number, measured).await?;
        let measured = claim_cpu(&mut at_large, "at the large backlog");
        bench.recorder.measure(PART, OURS, number, measured).await?;
    }
    drop((at_small, at_large));
    drop_database(small).await?;
    drop_database(large).await
}

async fn claim_cpu(worker: &mut SqlWorker, case: &str) -> Result<Measured> {
    let mut micros = 0.0;
    for _ in 0..CLAIMS {
        let before = load::cpu_us(worker.backend())?;
        let ids = worker.look(BATCH).await?;
        let claimed = worker.claim(&ids).await?;
        micros += load::cpu_us(worker.backend())? - before;
        ensure!(claimed.len() == BATCH as usize, "only {} messages wait", claimed.len());
        worker.finish(&claimed).await?;
    }
    Ok(vec![(format!("look and claim of {BATCH}, {case}"), micros / f64::from(CLAIMS), "µs of CPU")])
}

/// The rate while somebody's report holds a snapshot, and as much is enqueued as is worked off.
async fn pinned(bench: &mut Bench) -> Result<()> {
    let ours = ours::create(&bench.cluster, "pinned_ours", bench.provider.url()).await?;
    ours::fill(&ours, ORGANIZATION, bench.amounts.backlog).await?;
    let report = ours.connect().await?;
    report.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sms_outbox.organization").await?;
    let measured = pinned_rates(&ours, bench.amounts.pinned_seconds, bench.amounts.in_flight);
    bench.recorder.measure(PART, OURS, 1, measured).await?;
    report.batch_execute("ROLLBACK").await?;
    drop(report);
    drop_database(ours).await
}

async fn pinned_rates(ours: &Database, seconds: u64, batch: u32) -> Result<Measured> {
    let mut worker = SqlWorker::open(ours).await?;
    let end = Duration::from_secs(seconds);
    let tenth = Duration::from_secs(10).min(end / 3);
    let (mut first, mut last, mut worked_off) = (0, 0, 0);
    // Of what is refilled between, the time does not count.
    let mut worked = Duration::ZERO;
    while worked < end {
        let begun = Instant::now();
        let ids = worker.look(batch).await?;
        let claimed = worker.claim(&ids).await?;
        worker.finish(&claimed).await?;
        if worked < tenth {
            first += claimed.len();
        } else if worked >= end - tenth {
            last += claimed.len();
        }
        worked += begun.elapsed();
        worked_off += u32::try_from(claimed.len())?;
        if worked_off >= MANY {
            ours::fill(ours, ORGANIZATION, MANY).await?;
            worked_off -= MANY;
        }
    }
    Ok(vec![
        ("snapshot pinned, at first".to_owned(), first as f64 / tenth.as_secs_f64(), "messages/s"),
        ("snapshot pinned, at last".to_owned(), last as f64 / tenth.as_secs_f64(), "messages/s"),
    ])
}
