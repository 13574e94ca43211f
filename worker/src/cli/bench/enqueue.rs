//! Enqueues beside bare INSERTs of the same row, in turns: what both suffer cancels out.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use futures_util::future::try_join_all;
use indicatif::ProgressBar;
use serde::Serialize;
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::site::alone;
use super::{BenchArgs, CONNECTIONS};
use crate::outbox::postgres::operator::bench::{self, Load};

/// Rounds of each number of connections; the middle one counts.
const ROUNDS: usize = 3;
/// Both kinds in each round, for one connection and for many, and what is measured beside.
pub(super) const STEPS: u64 = 4 * ROUNDS as u64 + 1;
/// Round trips that are timed.
const TRIPS: usize = 200;

#[derive(Clone, Copy)]
enum Kind {
    Bare,
    Enqueue,
}

/// What came of a number of connections. Rates are calls a second, each a transaction.
#[derive(Debug, Serialize)]
pub(super) struct Rates {
    pub(super) connections: usize,
    pub(super) bare_insert: f64,
    pub(super) enqueue: f64,
    /// Of the middle round, and of the rounds with the least and the greatest.
    pub(super) ratio: f64,
    pub(super) least_ratio: f64,
    pub(super) greatest_ratio: f64,
}

/// What was measured.
pub(super) struct Enqueued {
    pub(super) rates: Vec<Rates>,
    /// Milliseconds of a round trip to the server.
    pub(super) round_trip: f64,
    /// Bare INSERTs a second of one connection that does not wait for the disk.
    pub(super) without_disk: f64,
    pub(super) wal_bytes: f64,
}

pub(super) async fn measure(
    control: &Client,
    loads: &[Load],
    args: &BenchArgs,
    stop: &CancellationToken,
    progress: &ProgressBar,
) -> anyhow::Result<Enqueued> {
    let most = args.max_messages / (2 * ROUNDS as u64);
    let one = loads.get(..1).unwrap_or_default();
    let slice = async |loads: &[Load], kind, share: u32| {
        alone(control, stop).await?;
        let slice = Slice {
            deadline: Instant::now() + args.duration / share,
            most: most / u64::from(share),
            stop,
            begun: AtomicU64::new(0),
        };
        let rate = slice.run(loads, kind).await?;
        anyhow::Ok((rate, slice.calls()))
    };
    // Plans, caches and the first pages are not what is asked about. A tenth counts in no round.
    for kind in [Kind::Bare, Kind::Enqueue] {
        slice(loads, kind, 10).await?;
    }
    let mut trips = Vec::with_capacity(TRIPS);
    for _ in 0..TRIPS {
        let asked = Instant::now();
        bench::nothing(control).await?;
        trips.push(asked.elapsed().as_secs_f64() * 1000.0);
    }
    let (mut wal, mut calls) = (0, 0);
    let mut rates = Vec::new();
    for loads in [one, loads] {
        let mut rounds = Vec::new();
        for _ in 0..ROUNDS {
            let (bare, _) = slice(loads, Kind::Bare, 1).await?;
            progress.inc(1);
            let before = bench::wal(control).await?;
            let (enqueue, enqueued) = slice(loads, Kind::Enqueue, 1).await?;
            wal += bench::wal(control).await? - before;
            calls += enqueued;
            progress.inc(1);
            rounds.push((bare, enqueue));
        }
        rates.push(Rates::of(loads.len(), rounds));
    }
    for load in one {
        load.wait_for_disk(false).await?;
    }
    let (without_disk, _) = slice(one, Kind::Bare, 1).await?;
    for load in one {
        load.wait_for_disk(true).await?;
    }
    progress.inc(1);
    alone(control, stop).await?;
    Ok(Enqueued { rates, round_trip: middle(trips), without_disk, wal_bytes: wal as f64 / calls.max(1) as f64 })
}

impl Rates {
    fn of(connections: usize, mut rounds: Vec<(f64, f64)>) -> Self {
        let ratio = |(bare, enqueue): &(f64, f64)| enqueue / bare;
        rounds.sort_by(|a, b| ratio(a).total_cmp(&ratio(b)));
        let ratios: Vec<f64> = rounds.iter().map(ratio).collect();
        let (bare_insert, enqueue) = rounds.get(rounds.len() / 2).copied().unwrap_or_default();
        Self {
            connections,
            bare_insert,
            enqueue,
            ratio: enqueue / bare_insert,
            least_ratio: ratios.first().copied().unwrap_or_default(),
            greatest_ratio: ratios.last().copied().unwrap_or_default(),
        }
    }

    pub(super) fn is_of_many(&self) -> bool {
        self.connections == CONNECTIONS
    }
}

/// All connections at once repeat their call, until it is time or there are enough.
struct Slice<'a> {
    deadline: Instant,
    most: u64,
    stop: &'a CancellationToken,
    begun: AtomicU64,
}

impl Slice<'_> {
    /// Calls a second.
    async fn run(&self, loads: &[Load], kind: Kind) -> Result<f64, tokio_postgres::Error> {
        let start = Instant::now();
        try_join_all(loads.iter().map(async |load| {
            while let Some(number) = self.next() {
                match kind {
                    Kind::Bare => load.insert(number).await?,
                    Kind::Enqueue => load.enqueue(number).await?,
                }
            }
            Ok(())
        }))
        .await?;
        Ok(self.calls() as f64 / start.elapsed().max(Duration::from_micros(1)).as_secs_f64())
    }

    fn next(&self) -> Option<u64> {
        if self.stop.is_cancelled() || Instant::now() >= self.deadline {
            return None;
        }
        let number = self.begun.fetch_add(1, Ordering::Relaxed);
        (number < self.most).then_some(number)
    }

    fn calls(&self) -> u64 {
        self.begun.load(Ordering::Relaxed).min(self.most)
    }
}

/// The middle one.
fn middle(mut values: Vec<f64>) -> f64 {
    values.sort_by(f64::total_cmp);
    values.get(values.len() / 2).copied().unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_middle_round_counts() {
        let rates = Rates::of(1, vec![(100.0, 90.0), (10.0, 5.0), (100.0, 80.0)]);
        assert_eq!((rates.bare_insert, rates.enqueue, rates.ratio), (100.0, 80.0, 0.8));
        assert_eq!((rates.least_ratio, rates.greatest_ratio), (0.5, 0.9));
    }

    #[test]
    fn a_slice_ends_at_its_time_at_its_number_and_at_a_signal() {
        let stop = CancellationToken::new();
        let slice = |seconds| Slice {
            deadline: Instant::now() + Duration::from_secs(seconds),
            most: 2,
            stop: &stop,
            begun: AtomicU64::new(0),
        };
        let full = slice(60);
        assert_eq!([full.next(), full.next(), full.next(), full.next()], [Some(0), Some(1), None, None]);
        assert_eq!(full.calls(), 2);
        assert_eq!(slice(0).next(), None);
        let stopped = slice(60);
        stop.cancel();
        assert_eq!(stopped.next(), None);
    }
}
