//! How much an app can take now from this worker: its part of the fleet's limits, and what its state allows.

use std::time::Duration;

use crate::message::AppId;
use crate::outbox::{App, AppState, OrganizationId, RateUnit};

/// Whether one more message may go by an app.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Opening {
    /// Yes.
    Now,
    /// Its state allows it and its limits do not: when a token comes, or when something in flight ends.
    Full(Option<Duration>),
    /// Its state forbids it, until then if that is known.
    Closed(Option<Duration>),
}

/// This worker's part of a rate. The parts of all workers add up to it.
#[derive(Clone, Copy, Debug, PartialEq)]
struct Flow {
    /// Tokens a second.
    rate: f64,
    /// Most of them at once.
    burst: f64,
    unit: RateUnit,
}

/// One app's room in this worker.
#[derive(Clone, Debug)]
pub(super) struct Room {
    id: AppId,
    organization: OrganizationId,
    limit: u32,
    /// `None` is no limit.
    flow: Option<Flow>,
    state: AppState,
    /// When the state was read.
    read_at: Duration,
    probe_spent: bool,
    in_flight: u32,
    /// Below zero is a debt: a message of many segments goes when there is one token.
    tokens: f64,
    filled_at: Duration,
    /// Segments that the next message is taken to have, until its claim tells: like the largest of late. Too many only means
    /// that fewer are asked for at once.
    expected: Option<f64>,
}

impl Room {
    /// Room of an app that was not known before: its tokens are those that came since the worker's start. So a pause may be
    /// followed by a burst, and a restart is none.
    pub(super) fn new(now: Duration, app: &App, workers: usize, rank: usize) -> Self {
        let mut room = Self {
            id: app.id,
            organization: app.organization.clone(),
            limit: 0,
            flow: None,
            state: app.state.clone(),
            read_at: now,
            probe_spent: false,
            in_flight: 0,
            tokens: 1.0,
            filled_at: Duration::ZERO,
            expected: None,
        };
        room.set_share(app, workers, rank);
        room.fill(now);
        room
    }

    /// Takes in the app as it was read now.
    pub(super) fn read(&mut self, now: Duration, app: &App, workers: usize, rank: usize) {
        self.fill(now);
        self.set_share(app, workers, rank);
        self.state = app.state.clone();
        self.read_at = now;
        self.probe_spent = false;
    }

    /// This worker's part of the fleet's limits. The parts add up to the limits exactly, so with more workers than requests
    /// or tokens at once some get none, and then of both, lest a part lie unused; who does differs from app to app.
    pub(super) fn set_share(&mut self, app: &App, workers: usize, rank: usize) {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let rate = app.rate.filter(|rate| rate.per_second.is_finite() && rate.per_second > 0.0 && rate.burst > 0);
        let serving = workers.min(app.max_in_flight).min(rate.map_or(u32::MAX, |rate| rate.burst)).max(1);
        let place = (rank as u64).wrapping_add(app.id.0.unsigned_abs()) % u64::from(workers);
        let part = |whole: u32| match place < u64::from(serving) {
            true => whole / serving + u32::from(place < u64::from(whole % serving)),
            false => 0,
        };
        self.limit = part(app.max_in_flight);
        self.flow = rate.map(|rate| {
            let burst = f64::from(part(rate.burst));
            Flow { rate: rate.per_second * burst / f64::from(rate.burst), burst, unit: rate.unit }
        });
    }

    fn fill(&mut self, now: Duration) {
        if let Some(flow) = self.flow {
            let since = now.saturating_sub(self.filled_at).as_secs_f64();
            self.tokens = (self.tokens + since * flow.rate).min(flow.burst);
        }
        self.filled_at = self.filled_at.max(now);
    }

    /// Whether one more may go.
    pub(super) fn opening(&mut self, now: Duration) -> Opening {
        self.fill(now);
        let probe = match self.state {
            AppState::Open => false,
            AppState::Probe => true,
            AppState::Paused => return Opening::Closed(None),
            AppState::Blocked(left) if now < self.read_at + left => {
                return Opening::Closed(Some(self.read_at + left));
            }
            // Whether a breaker or a throttle blocked it is not known here: as careful as with a breaker.
            AppState::Blocked(_) => true,
        };
        if probe && self.probe_spent {
            return Opening::Closed(None);
        }
        if self.in_flight >= self.limit {
            return Opening::Full(None);
        }
        match self.flow {
            // A hair less than one is one: sums of fractions fall short of it.
            Some(flow) if self.tokens < 1.0 - 1e-6 => {
                Opening::Full(Some(now + Duration::from_secs_f64(((1.0 - self.tokens) / flow.rate).clamp(1e-3, 1e6))))
            }
            _ => Opening::Now,
        }
    }

    /// One message goes. Returns what it is taken to cost until [`settle`](Self::settle) or [`give_back`](Self::give_back).
    pub(super) fn take(&mut self) -> f64 {
        self.in_flight += 1;
        self.probe_spent = true;
        let charge = match self.flow {
            None => 0.0,
            Some(Flow { unit: RateUnit::Messages, .. }) => 1.0,
            // Where nothing is known yet, this one alone will tell.
            Some(Flow { unit: RateUnit::Segments, burst, .. }) => self.expected.unwrap_or(burst.max(1.0)),
        };
        self.tokens -= charge;
        charge
    }

    /// It went, and has so many segments.
    pub(super) fn settle(&mut self, charge: f64, segments: u16) {
        let Some(flow) = self.flow else { return };
        let mut cost = 1.0;
        if flow.unit == RateUnit::Segments {
            cost = f64::from(segments.max(1));
            self.expected = Some(match self.expected {
                Some(largest) if cost < largest => largest + (cost - largest) / 16.0,
                _ => cost,
            });
        }
        self.tokens = (self.tokens + charge - cost).min(flow.burst);
    }

    /// It did not go after all.
    pub(super) fn give_back(&mut self, charge: f64) {
        self.release();
        if let Some(flow) = self.flow {
            self.tokens = (self.tokens + charge).min(flow.burst);
        }
    }

    /// An attempt ended.
    pub(super) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Which app's it is.
    pub(super) fn id(&self) -> AppId {
        self.id
    }

    /// Whose app it is.
    pub(super) fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// Messages asked for and attempts in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether it has a rate.
    pub(super) fn is_paced(&self) -> bool {
        self.flow.is_some()
    }

    /// Whether forgetting it would give nothing away: nothing in flight, and no token missing.
    pub(super) fn is_fresh(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.in_flight == 0 && self.flow.is_none_or(|flow| self.tokens >= flow.burst)
    }
}

#[cfg(test)]
mod tests;
