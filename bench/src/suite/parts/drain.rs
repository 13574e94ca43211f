//! Working off what waits.

use anyhow::Result;

use super::{Bench, drop_peers};
use crate::message::ORGANIZATION;
use crate::ours::{self, SqlWorker};
use crate::peer::{Given, Ready};
use crate::record::Measured;
use crate::server::{Provider, drop_database, floor};
use crate::{OURS, bare, load};

/// What the pretend provider takes, and what the worker's HTTP client alone sends it.
pub(crate) async fn provider(bench: &mut Bench) -> Result<()> {
    const PART: &str = "HTTP alone";
    let (messages, in_flight) = (bench.amounts.messages, bench.amounts.in_flight);
    for number in 0..=bench.amounts.rounds {
        let flooded = flood(&bench.provider, messages * 4);
        bench.recorder.measure(PART, "the provider", number, flooded).await?;
        let sent = client(&bench.provider, messages, in_flight);
        bench.recorder.measure(PART, "our HTTP client", number, sent).await?;
    }
    Ok(())
}

async fn flood(provider: &Provider, messages: u32) -> Result<Measured> {
    let before = load::cpu_us(provider.id())?;
    let rate = floor(&["floor-flood", "--provider", provider.url(), "--messages", &messages.to_string()]).await?;
    let cpu = load::cpu_us(provider.id())? - before;
    provider.take().await?;
    Ok(vec![
        ("takes at most".to_owned(), rate, "requests/s"),
        ("CPU of the provider".to_owned(), cpu / f64::from(messages), "µs/request"),
    ])
}

async fn client(provider: &Provider, messages: u32, in_flight: u32) -> Result<Measured> {
    let (messages, in_flight) = (messages.to_string(), in_flight.to_string());
    let with = ["floor-http", "--provider", provider.url(), "--messages", &messages, "--in-flight", &in_flight];
    let rate = floor(&with).await?;
    provider.take().await?;
    Ok(vec![("sends".to_owned(), rate, "requests/s")])
}

/// One HTTP request for each message.
pub(crate) async fn with_requests(bench: &mut Bench) -> Result<()> {
    const PART: &str = "drain";
    const CASE: &str = "a request each";
    let (messages, in_flight) = (bench.amounts.messages, bench.amounts.in_flight);
    let ours = ours::create(&bench.cluster, "drain_ours", bench.provider.url()).await?;
    let bare = bare::create(&bench.cluster, "drain_bare").await?;
    let mut peers = bench.ready_peers(PART).await?;
    for number in 1..=bench.amounts.rounds {
        let sent = client(&bench.provider, messages, in_flight);
        bench.recorder.measure(PART, "our HTTP client", number, async { Ok(renamed(sent.await?, CASE)) }).await?;

        ours::fill(&ours, ORGANIZATION, messages).await?;
        let drained = async {
            let drained = ours::drain(&ours, &bench.provider, 1, in_flight, messages).await?;
            Ok(vec![
                (CASE.to_owned(), drained.rate, "messages/s"),
                ("CPU of the worker".to_owned(), drained.cpu_us, "µs/message"),
            ])
        };
        bench.recorder.measure(PART, OURS, number, drained).await?;

        bare::fill(&bare, messages).await?;
        bare.sql("CHECKPOINT").await?;
        let url = bare.url("postgres");
        let drained = bare_loop(&url, messages, in_flight, bench.provider.url(), CASE);
        bench.recorder.measure(PART, "bare", number, drained).await?;
        bench.provider.take().await?;

        peer_drain(bench, PART, CASE, number, &mut peers, true).await?;
    }
    drop_database(ours).await?;
    drop_database(bare).await?;
    drop_peers(peers).await
}

/// Messages of a batch where nothing is sent: as many as the other queues take then.
const BATCH: u32 = 500;

/// Claimed and finished, durably, and the ledger kept, but nothing sent.
pub(crate) async fn without_requests(bench: &mut Bench) -> Result<()> {
    const PART: &str = "no request";
    const CASE: &str = "claim and finish";
    let messages = bench.amounts.messages;
    let ours = ours::create(&bench.cluster, "claim_ours", bench.provider.url()).await?;
    let bare = bare::create(&bench.cluster, "claim_bare").await?;
    let mut peers = bench.ready_peers("claim").await?;
    for number in 1..=bench.amounts.rounds {
        ours::fill(&ours, ORGANIZATION, messages).await?;
        ours.sql("CHECKPOINT").await?;
        let drained = async {
            let (mut claimer, recorder) = (SqlWorker::open(&ours).await?, SqlWorker::open(&ours).await?);
            Ok(vec![(CASE.to_owned(), claimer.drain(&recorder, BATCH).await?, "messages/s")])
        };
        bench.recorder.measure(PART, OURS, number, drained).await?;

        bare::fill(&bare, messages).await?;
        bare.sql("CHECKPOINT").await?;
        let url = bare.url("postgres");
        let drained = bare_loop(&url, messages, BATCH, "none", CASE);
        bench.recorder.measure(PART, "bare", number, drained).await?;

        peer_drain(bench, PART, CASE, number, &mut peers, false).await?;
    }
    drop_database(ours).await?;
    drop_database(bare).await?;
    drop_peers(peers).await
}

async fn bare_loop(url: &str, messages: u32, batch: u32, provider: &str, case: &str) -> Result<Measured> {
    let (messages, batch) = (messages.to_string(), batch.to_string());
    let with = ["floor-loop", "--url", url, "--messages", &messages, "--in-flight", &batch, "--provider", provider];
    Ok(vec![(case.to_owned(), floor(&with).await?, "messages/s")])
}

async fn peer_drain(
    bench: &mut Bench,
    part: &str,
    case: &str,
    number: u32,
    peers: &mut Vec<Ready>,
    requests: bool,
) -> Result<()> {
    let (messages, in_flight) = (bench.amounts.messages.to_string(), bench.amounts.in_flight.to_string());
    let ask = async |peer: &Ready, provider: &Provider| {
        peer.setup().await?;
        if let Given::Cannot(reason) = peer.command("fill", &["--messages", &messages]).await? {
            return Ok(Given::Cannot(reason));
        }
        peer.database.sql("CHECKPOINT").await?;
        let provider_url = if requests { provider.url() } else { "none" };
        let with = ["--messages", &messages, "--concurrency", &in_flight, "--provider", provider_url];
        let given = peer.rate("drain", &with).await?;
        provider.take().await?;
        Ok(match given {
            Given::Figure(rate) => Given::Figure(vec![(case.to_owned(), rate, "messages/s")]),
            Given::Cannot(reason) => Given::Cannot(reason),
        })
    };
    bench.measure_peers(part, number, peers, ask).await
}

fn renamed(measured: Measured, case: &str) -> Measured {
    measured.into_iter().map(|(_, value, _)| (case.to_owned(), value, "messages/s")).collect()
}
