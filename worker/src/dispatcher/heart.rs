//! Says that the worker lives, and learns who else does.

use std::sync::Arc;
use std::sync::atomic::{AtomicI64, Ordering};
use std::time::Duration;

use tokio::sync::watch;

use crate::logging::Told;
use crate::metrics;
use crate::outbox::{Heartbeat, Outbox};

/// What the worker counts since its start.
#[derive(Debug, Default)]
pub struct Counters {
    in_flight: AtomicI64,
    claimed: AtomicI64,
    sent: AtomicI64,
    failed: AtomicI64,
}

impl Counters {
    pub(super) fn claimed(&self, in_flight: usize) {
        self.claimed.fetch_add(1, Ordering::Relaxed);
        self.in_flight(in_flight);
    }

    pub(super) fn in_flight(&self, in_flight: usize) {
        let in_flight = i64::try_from(in_flight).unwrap_or(i64::MAX);
        self.in_flight.store(in_flight, Ordering::Relaxed);
        metrics::worker::in_flight(in_flight);
    }

    /// Attempts whose outcome is not recorded.
    pub(super) fn unrecorded(&self) -> usize {
        usize::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(0)
    }

    pub(super) fn ended(&self, accepted: bool) {
        let counter = if accepted { &self.sent } else { &self.failed };
        counter.fetch_add(1, Ordering::Relaxed);
    }

    fn beat(&self, host: &str) -> Heartbeat {
        Heartbeat {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            host: host.to_owned(),
            in_flight: i32::try_from(self.in_flight.load(Ordering::Relaxed)).unwrap_or(i32::MAX),
            claimed: self.claimed.load(Ordering::Relaxed),
            sent: self.sent.load(Ordering::Relaxed),
            failed: self.failed.load(Ordering::Relaxed),
        }
    }
}

/// Beats for ever; `workers` always holds the live ones that the last beat told of.
pub(super) async fn run<O: Outbox>(
    outbox: Arc<O>,
    counters: Arc<Counters>,
    host: String,
    every: Duration,
    workers: watch::Sender<Vec<String>>,
) {
    let mut beats = tokio::time::interval(every);
    beats.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    let mut told = Told::default();
    loop {
        beats.tick().await;
        match outbox.heartbeat(&counters.beat(&host)).await {
            Ok(live) => {
                told.is_over();
                workers.send_if_modified(|known| {
                    let changed = *known != live;
                    *known = live;
                    changed
                });
            }
            Err(error) if told.is_news(&error) => {
                tracing::warn!(%error, "heartbeat not recorded; the other workers will count this one as gone");
            }
            Err(_) => {}
        }
    }
}
