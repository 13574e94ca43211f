//! How long after its commit a message reaches the provider.

use std::collections::HashMap;
use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use sms_outbox_tests::Database;

use super::{Bench, drop_peers, percentile};
use crate::OURS;
use crate::message::ORGANIZATION;
use crate::ours::{self, Enqueuer};
use crate::peer::{Given, Ready};
use crate::provider::wall_clock_us;
use crate::record::Measured;
use crate::server::{Provider, drop_database};

const PART: &str = "latency";

/// Messages a second of a queue that is idle between them.
const IDLE: u32 = 50;

/// What another organization has waiting, at most.
const BACKLOG: u32 = 1_000_000;

/// Idle, at half of the greatest load, and beside another organization's backlog.
pub(crate) async fn all(bench: &mut Bench) -> Result<()> {
    idle(bench).await?;
    loaded(bench).await?;
    quiet(bench).await
}

/// How many messages a latency is taken of.
fn messages(bench: &Bench, rate: u32) -> u32 {
    rate * u32::try_from(bench.amounts.seconds).unwrap_or(1).max(4)
}

async fn idle(bench: &mut Bench) -> Result<()> {
    let ours = ours::create(&bench.cluster, "latency_ours", bench.provider.url()).await?;
    let mut peers = bench.ready_peers(PART).await?;
    let count = messages(bench, IDLE);
    let mut worker = ours::start_worker(&ours, bench.amounts.in_flight).await?;
    for number in 1..=bench.amounts.rounds {
        let measured = produce(&ours, &bench.provider, ORGANIZATION, IDLE, count, "idle");
        bench.recorder.measure(PART, OURS, number, measured).await?;
        let (messages, rate) = (count.to_string(), IDLE.to_string());
        let ask = async |peer: &Ready, provider: &Provider| {
            peer.setup().await?;
            provider.take().await?;
            let with = ["--messages", &messages, "--rate", &rate, "--provider", provider.url()];
            Ok(match peer.latency(&with).await? {
                Given::Figure(committed) => Given::Figure(joined(&committed, &provider.take().await?, "idle")?),
                Given::Cannot(reason) => Given::Cannot(reason),
            })
        };
        bench.measure_peers(PART, number, &mut peers, ask).await?;
    }
    worker.drain().await?;
    drop_database(ours).await?;
    drop_peers(peers).await
}

/// At half of the rate that one worker drains with.
async fn loaded(bench: &mut Bench) -> Result<()> {
    let in_flight = bench.amounts.in_flight;
    let ours = ours::create(&bench.cluster, "loaded_ours", bench.provider.url()).await?;
    for number in 1..=bench.amounts.rounds {
        // What one worker can while applications enqueue at the same time is less than what it drains.
        let greatest = greatest_load(bench, &ours, in_flight).await?;
        let rate = (greatest / 2.0) as u32;
        let count = messages(bench, rate);
        let mut worker = ours::start_worker(&ours, in_flight).await?;
        let measured = produce(&ours, &bench.provider, ORGANIZATION, rate, count, "half load");
        bench.recorder.measure(PART, OURS, number, measured).await?;
        worker.drain().await?;
    }
    drop_database(ours).await
}

/// Messages a second that go through while 4 clients enqueue as fast as they can.
async fn greatest_load(bench: &Bench, ours: &Database, in_flight: u32) -> Result<f64> {
    bench.provider.take().await?;
    let callers = Enqueuer::open(ours, 4, None).await?;
    let mut worker = ours::start_worker(ours, in_flight).await?;
    let begun = Instant::now();
    let (_, counted) = sms_outbox_bench::measure::round(callers, Duration::from_secs(bench.amounts.seconds)).await?;
    let sent = bench.provider.count().await? as f64 / begun.elapsed().as_secs_f64();
    // What waits would be counted as latency.
    ours::wait_until_empty(ours).await?;
    worker.drain().await?;
    Ok(sent.min(counted.rate))
}

/// Beside what another organization has waiting, against alone.
async fn quiet(bench: &mut Bench) -> Result<()> {
    let ours = ours::create(&bench.cluster, "quiet_ours", bench.provider.url()).await?;
    ours::install_app(&ours, "quiet", bench.provider.url()).await?;
    let count = messages(bench, IDLE);
    for number in 1..=bench.amounts.rounds {
        let mut worker = ours::start_worker(&ours, bench.amounts.in_flight).await?;
        let measured = produce(&ours, &bench.provider, "quiet", IDLE, count, "alone");
        bench.recorder.measure(PART, OURS, number, measured).await?;
        worker.drain().await?;
        ours::fill(&ours, ORGANIZATION, bench.amounts.backlog.min(BACKLOG)).await?;
        let mut worker = ours::start_worker(&ours, bench.amounts.in_flight).await?;
        let measured = produce(&ours, &bench.provider, "quiet", IDLE, count, "beside a backlog");
        bench.recorder.measure(PART, OURS, number, measured).await?;
        let waits: bool =
            ours.value("SELECT EXISTS (SELECT FROM sms_outbox.ready WHERE organization_id = 'shop')", &[]).await?;
        if !waits {
            bench.recorder.absent(
                PART,
                OURS,
                "the backlog was over before the quiet organization was: take a larger --backlog",
            )?;
        }
        worker.drain().await?;
        ours.sql("TRUNCATE sms_outbox.ready, sms_outbox.lease").await?;
    }
    drop_database(ours).await
}

/// Commits messages at a steady rate, and joins them with what the provider saw.
async fn produce(
    ours: &Database,
    provider: &Provider,
    organization: &str,
    rate: u32,
    count: u32,
    case: &str,
) -> Result<Measured> {
    provider.take().await?;
    // More than one where one could not commit so many.
    let lanes = rate.div_ceil(500).min(8);
    let begun = Instant::now();
    let producers = (0..lanes).map(async |lane| {
        let mut enqueuer = Enqueuer::one(ours, organization, lane, None).await?;
        let mut committed = HashMap::new();
        for number in (lane..count).step_by(lanes as usize) {
            tokio::time::sleep_until((begun + Duration::from_secs_f64(f64::from(number) / f64::from(rate))).into())
                .await;
            let id = enqueuer.enqueue().await?;
            committed.insert(id, wall_clock_us());
        }
        anyhow::Ok(committed)
    });
    let committed: HashMap<String, u64> =
        futures_util::future::try_join_all(producers).await?.into_iter().flatten().collect();
    let deadline = Instant::now() + Duration::from_secs(30);
    let mut arrived = HashMap::new();
    while committed.keys().any(|id| !arrived.contains_key(id)) {
        ensure!(Instant::now() < deadline, "some of {count} messages did not reach the provider");
        tokio::time::sleep(Duration::from_millis(50)).await;
        for (reference, at) in provider.take().await? {
            // Message, and number of the attempt.
            if let Some((id, _)) = reference.rsplit_once('-') {
                arrived.entry(id.to_owned()).or_insert(at);
            }
        }
    }
    joined(&committed, &arrived, case)
}

fn joined(committed: &HashMap<String, u64>, arrived: &HashMap<String, u64>, case: &str) -> Result<Measured> {
    let mut took: Vec<f64> = committed
        .iter()
        .filter_map(|(id, at)| Some((arrived.get(id)?, at)))
        // A request may be there before its commit has been answered.
        .map(|(arrived, committed)| arrived.saturating_sub(*committed) as f64 / 1000.0)
        .collect();
    ensure!(
        !took.is_empty() && took.len() == committed.len(),
        "{} of {} messages reached the provider",
        took.len(),
        committed.len()
    );
    took.sort_by(f64::total_cmp);
    Ok(vec![
        (format!("{case}, p50"), percentile(&took, 0.5), "ms"),
        (format!("{case}, p99"), percentile(&took, 0.99), "ms"),
    ])
}
