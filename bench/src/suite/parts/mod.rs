//! What is measured, a file for each kind. Each part makes databases of its own and removes them.

pub(crate) mod backlog;
pub(crate) mod budget;
pub(crate) mod drain;
pub(crate) mod enqueue;
pub(crate) mod latency;
pub(crate) mod retention;
pub(crate) mod storage;
pub(crate) mod worker;

use std::sync::Arc;
use std::time::Duration;

use anyhow::Result;
use clap::ValueEnum;
use sms_outbox_tests::Cluster;

use crate::peer::{Given, Peer, Ready};
use crate::record::{Measured, Recorder};
use crate::server::{self, Provider};

/// A part of the suite.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(crate) enum Part {
    /// What the pretend provider takes, and the worker's HTTP client alone against it
    Provider,
    /// One message a transaction, 1 and 16 clients, without and with an idempotency key
    Enqueue,
    /// Many messages in one transaction
    Transaction,
    /// Waiting messages sent, an HTTP request each
    Drain,
    /// Waiting messages claimed and finished, with no request
    Claim,
    /// From commit to the request at the provider: idle, at half load, beside another organization's backlog
    Latency,
    /// WAL of a message, and the disk that it keeps
    Storage,
    /// CPU of a claim in a large backlog against a small one; the rate under a pinned snapshot
    Backlog,
    /// A day of ended messages goes when it has been kept for long enough
    Retention,
    /// The cost budget of one message: CPU, WAL and buffers of each step
    Budget,
    /// One, two and four workers; a slow provider; the worker's memory
    Worker,
}

/// How much of it.
#[derive(Clone, Debug)]
pub(crate) struct Amounts {
    pub(crate) rounds: u32,
    pub(crate) seconds: u64,
    pub(crate) messages: u32,
    pub(crate) backlog: u32,
    pub(crate) pinned_seconds: u64,
    pub(crate) in_flight: u32,
    /// Most that is waited, in all, for others on the machine to be quiet.
    pub(crate) patience: Duration,
}

/// What the parts share.
pub(crate) struct Bench {
    pub(crate) cluster: Arc<Cluster>,
    pub(crate) provider: Provider,
    pub(crate) recorder: Recorder,
    pub(crate) amounts: Amounts,
    pub(crate) peers: Vec<Peer>,
}

impl Bench {
    /// Runs a part.
    pub(crate) async fn run(&mut self, part: Part) -> Result<()> {
        match part {
            Part::Provider => drain::provider(self).await,
            Part::Enqueue => enqueue::one_a_transaction(self).await,
            Part::Transaction => enqueue::in_one_transaction(self).await,
            Part::Drain => drain::with_requests(self).await,
            Part::Claim => drain::without_requests(self).await,
            Part::Latency => latency::all(self).await,
            Part::Storage => storage::all(self).await,
            Part::Backlog => backlog::all(self).await,
            Part::Retention => retention::all(self).await,
            Part::Budget => budget::all(self).await,
            Part::Worker => worker::all(self).await,
        }
    }

    /// The peers with a database each for this part. One that has none of it tells so when it is asked.
    pub(crate) async fn ready_peers(&self, part: &str) -> Result<Vec<Ready>> {
        let mut ready = Vec::new();
        for peer in &self.peers {
            ready.push(peer.create(&self.cluster, &format!("{part}_{}", peer.name)).await?);
        }
        Ok(ready)
    }

    /// Measures one command of every peer that can, after `setup` and whatever `before` asks of it. One that cannot is left
    /// out from then on; one that fails too, and the row says so.
    pub(crate) async fn measure_peers(
        &mut self,
        part: &str,
        round: u32,
        peers: &mut Vec<Ready>,
        work: impl AsyncFn(&Ready, &Provider) -> Result<Given<Measured>>,
    ) -> Result<()> {
        let mut able = Vec::new();
        let provider = &self.provider;
        for peer in std::mem::take(peers) {
            let mut cannot = None;
            let measured = async {
                Ok(match work(&peer, provider).await {
                    Ok(Given::Figure(measured)) => measured,
                    Ok(Given::Cannot(reason)) => {
                        cannot = Some(reason);
                        Measured::new()
                    }
                    Err(error) => {
                        cannot = Some(format!("it failed: {}", first_line(&error)));
                        Measured::new()
                    }
                })
            };
            self.recorder.measure(part, &peer.peer.name, round, measured).await?;
            match cannot {
                Some(reason) => {
                    self.recorder.absent(part, &peer.peer.name, &reason)?;
                    server::drop_database(peer.database).await?;
                }
                None => able.push(peer),
            }
        }
        *peers = able;
        Ok(())
    }
}

/// Removes the databases of peers.
pub(crate) async fn drop_peers(peers: Vec<Ready>) -> Result<()> {
    for peer in peers {
        server::drop_database(peer.database).await?;
    }
    Ok(())
}

fn first_line(error: &anyhow::Error) -> String {
    let text = format!("{error:#}");
    text.lines().next().unwrap_or_default().chars().take(300).collect()
}

/// The value at this share of sorted values.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let place = (sorted.len() as f64 * share) as usize;
    sorted.get(place.min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}
