//! Workers side by side, a slow provider, and a worker's memory.

use std::time::Duration;

use anyhow::Result;

use super::Bench;
use crate::OURS;
use crate::message::ORGANIZATION;
use crate::ours;
use crate::server::{Provider, drop_database};

const PART: &str = "workers";

/// What a slow provider takes for an answer.
const SLOW: Duration = Duration::from_millis(100);

/// All of it.
pub(crate) async fn all(bench: &mut Bench) -> Result<()> {
    side_by_side(bench).await?;
    slow_provider(bench).await?;
    memory(bench).await
}

/// One, two and four workers on one backlog.
async fn side_by_side(bench: &mut Bench) -> Result<()> {
    let (messages, in_flight) = (bench.amounts.messages, bench.amounts.in_flight);
    let ours = ours::create(&bench.cluster, "workers_ours", bench.provider.url()).await?;
    for number in 1..=bench.amounts.rounds {
        for workers in [1, 2, 4] {
            ours::fill(&ours, ORGANIZATION, messages).await?;
            let case = format!("{workers} worker{}", if workers == 1 { "" } else { "s" });
            let drained = async {
                let drained = ours::drain(&ours, &bench.provider, workers, in_flight, messages).await?;
                Ok(vec![(case, drained.rate, "messages/s")])
            };
            bench.recorder.measure(PART, OURS, number, drained).await?;
        }
    }
    drop_database(ours).await
}

/// More in flight against a provider that takes its time.
async fn slow_provider(bench: &mut Bench) -> Result<()> {
    let slow = Provider::start("127.0.0.1:0", SLOW).await?;
    let ours = ours::create(&bench.cluster, "slow_ours", slow.url()).await?;
    for number in 1..=bench.amounts.rounds {
        for in_flight in [64, 128, 256, 512] {
            // Five seconds of the best that can be.
            let messages = in_flight * 50;
            ours::fill(&ours, ORGANIZATION, messages).await?;
            let drained = async {
                let drained = ours::drain(&ours, &slow, 1, in_flight, messages).await?;
                Ok(vec![(format!("100 ms an answer, {in_flight} in flight"), drained.rate, "messages/s")])
            };
            bench.recorder.measure(PART, OURS, number, drained).await?;
        }
    }
    drop_database(ours).await
}

/// The most that a worker has in memory, with a small and with a large backlog, 256 in flight.
async fn memory(bench: &mut Bench) -> Result<()> {
    const IN_FLIGHT: u32 = 256;
    for (backlog, case) in [(10_000, "memory at 10k"), (bench.amounts.backlog, "memory at the large backlog")] {
        let ours = ours::create(&bench.cluster, "memory_ours", bench.provider.url()).await?;
        ours::fill(&ours, ORGANIZATION, backlog).await?;
        let measured = async {
            bench.provider.take().await?;
            let mut worker = ours::start_worker(&ours, IN_FLIGHT).await?;
            // Its window is filled long before.
            let enough = u64::from(backlog.min(bench.amounts.messages));
            while bench.provider.count().await? < enough {
                tokio::time::sleep(Duration::from_millis(50)).await;
            }
            let most = crate::load::memory_mib(worker.process().id(), "VmHWM")?;
            worker.drain().await?;
            Ok(vec![(case.to_owned(), most, "MiB")])
        };
        bench.recorder.measure(PART, OURS, 1, measured).await?;
        drop_database(ours).await?;
    }
    Ok(())
}
