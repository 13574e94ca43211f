//! How much an app can take now from this worker: its share of the fleet's limits, and what its state allows.

use std::time::Duration;

use crate::outbox::{App, AppState, OrganizationId};

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

/// One app's room in this worker.
#[derive(Clone, Debug)]
pub(super) struct Room {
    organization: OrganizationId,
    limit: u32,
    /// Tokens a second, and most of them at once; `None` is no limit.
    rate: Option<(f64, f64)>,
    state: AppState,
    /// When the state was read.
    read_at: Duration,
    probe_spent: bool,
    in_flight: u32,
    tokens: f64,
    filled_at: Duration,
}

impl Room {
    /// Room of an app that was not known before. It starts with one token: a restart is no burst.
    pub(super) fn new(now: Duration, app: &App, workers: usize, rank: usize) -> Self {
        let mut room = Self {
            organization: app.organization.clone(),
            limit: 0,
            rate: None,
            state: AppState::Open,
            read_at: now,
            probe_spent: false,
            in_flight: 0,
            tokens: 1.0,
            filled_at: now,
        };
        room.read(now, app, workers, rank);
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

    /// This worker's part of the fleet's limits. The parts add up to the limit exactly, so with more workers than
    /// requests allowed some get none; who does differs from app to app.
    pub(super) fn set_share(&mut self, app: &App, workers: usize, rank: usize) {
        let workers = u32::try_from(workers).unwrap_or(u32::MAX).max(1);
        let place = (rank as u64).wrapping_add(app.id.0.unsigned_abs()) % u64::from(workers);
        let extra = place < u64::from(app.max_in_flight % workers);
        self.limit = app.max_in_flight / workers + u32::from(extra);
        self.rate = app.rate.filter(|rate| rate.is_finite() && *rate > 0.0).map(|rate| {
            let share = rate / f64::from(workers);
            (share, share.max(1.0))
        });
    }

    fn fill(&mut self, now: Duration) {
        if let Some((rate, burst)) = self.rate {
            let since = now.saturating_sub(self.filled_at).as_secs_f64();
            self.tokens = (self.tokens + since * rate).min(burst);
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
        match self.rate {
            // A hair less than one is one: sums of fractions fall short of it.
            Some((rate, _)) if self.tokens < 1.0 - 1e-6 => {
                Opening::Full(Some(now + Duration::from_secs_f64(((1.0 - self.tokens) / rate).clamp(1e-3, 1e6))))
            }
            _ => Opening::Now,
        }
    }

    /// One message goes.
    pub(super) fn take(&mut self) {
        self.in_flight += 1;
        if self.rate.is_some() {
            self.tokens -= 1.0;
        }
        self.probe_spent = true;
    }

    /// It did not go after all.
    pub(super) fn give_back(&mut self) {
        self.release();
        if let Some((_, burst)) = self.rate {
            self.tokens = (self.tokens + 1.0).min(burst);
        }
    }

    /// An attempt ended.
    pub(super) fn release(&mut self) {
        self.in_flight = self.in_flight.saturating_sub(1);
    }

    /// Whose app it is.
    pub(super) fn organization(&self) -> &OrganizationId {
        &self.organization
    }

    /// Messages asked for and attempts in flight.
    pub(super) fn in_flight(&self) -> u32 {
        self.in_flight
    }

    /// Whether forgetting it would give nothing away: nothing in flight, and no token spent.
    pub(super) fn is_fresh(&mut self, now: Duration) -> bool {
        self.fill(now);
        self.in_flight == 0 && self.rate.is_none_or(|_| self.tokens >= 1.0)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::AppId;

    fn app(max_in_flight: u32, rate: Option<f64>, state: AppState) -> App {
        App {
            id: AppId(7),
            organization: "shop".into(),
            slug: "sandbox".into(),
            position: 100,
            weight: 1,
            max_in_flight,
            rate,
            state,
        }
    }

    const NOW: Duration = Duration::from_secs(1000);

    #[test]
    fn the_parts_of_all_workers_add_up_to_the_limit() {
        for max_in_flight in 0..20 {
            for workers in 1..9 {
                let part = |rank| Room::new(NOW, &app(max_in_flight, None, AppState::Open), workers, rank).limit;
                assert_eq!((0..workers).map(part).sum::<u32>(), max_in_flight);
            }
        }
    }

    #[test]
    fn in_flight_is_bounded_and_a_release_makes_room() {
        let mut room = Room::new(NOW, &app(2, None, AppState::Open), 1, 0);
        for _ in 0..2 {
            assert_eq!(room.opening(NOW), Opening::Now);
            room.take();
        }
        assert_eq!(room.opening(NOW), Opening::Full(None));
        room.release();
        assert_eq!(room.opening(NOW), Opening::Now);
    }

    #[test]
    fn tokens_come_at_the_workers_part_of_the_rate() {
        let mut room = Room::new(NOW, &app(1000, Some(20.0), AppState::Open), 2, 0);
        let mut taken = 0;
        for millisecond in 0..10_000 {
            while room.opening(NOW + Duration::from_millis(millisecond)) == Opening::Now {
                room.take();
                taken += 1;
            }
        }
        assert!((100..=101).contains(&taken), "{taken}");
        assert_eq!(room.opening(NOW + Duration::from_secs(10)), Opening::Now);
        room.take();
        let full = room.opening(NOW + Duration::from_secs(10));
        assert!(matches!(full, Opening::Full(Some(at)) if room.opening(at) == Opening::Now), "{full:?}");
    }

    #[test]
    fn a_block_ends_with_one_probe_until_the_app_is_read_again() {
        let blocked = app(16, None, AppState::Blocked(Duration::from_secs(5)));
        let mut room = Room::new(NOW, &blocked, 1, 0);
        let over = NOW + Duration::from_secs(5);
        assert_eq!(room.opening(NOW), Opening::Closed(Some(over)));
        assert_eq!(room.opening(over), Opening::Now);
        room.take();
        assert_eq!(room.opening(over), Opening::Closed(None));
        room.read(over, &app(16, None, AppState::Open), 1, 0);
        assert_eq!(room.opening(over), Opening::Now);
        room.read(over, &app(16, None, AppState::Paused), 1, 0);
        assert_eq!(room.opening(over), Opening::Closed(None));
    }
}
