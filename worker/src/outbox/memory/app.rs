//! One installed app: what it may be used for now, and how outcomes open and close it.

use std::sync::Arc;
use std::time::Duration;

use crate::message::AttemptStatus;
use crate::outbox::{AppState, OrganizationId};

/// Consecutive failures that open the breaker.
const FAILURES_TO_OPEN: u32 = 5;
/// Longest time between two probes.
const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// Longest `Retry-After` that is believed.
const LONGEST_THROTTLE: Duration = Duration::from_secs(3600);
/// Where a provider asks to slow down and does not say for how long.
const DEFAULT_THROTTLE: Duration = Duration::from_secs(1);

/// An open breaker: when it lets the next message through, and how long it then closes again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Breaker {
    probe_at: Duration,
    interval: Duration,
}

/// An installed app as an operator set it, and its health.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AppRow {
    /// Its tenant.
    pub organization: OrganizationId,
    /// Its provider.
    pub slug: Arc<str>,
    /// Order of preference: lower first.
    pub position: i32,
    /// Share among apps of the same position.
    pub weight: u32,
    /// Most requests in flight over the whole fleet.
    pub max_in_flight: u32,
    /// Most messages a second, as the bits of an `f64`: so that states can be compared and hashed.
    pub rate_bits: Option<u64>,
    /// Whether an unclear end is tried again.
    pub resend_unclear: bool,
    /// Whether its provider can be asked what became of an attempt.
    pub looks_up: bool,
    /// Paused by an operator.
    pub paused: bool,
    failures: u32,
    throttles: u32,
    breaker: Option<Breaker>,
    throttled_until: Duration,
}

impl AppRow {
    /// A healthy app with the defaults of `install_app`.
    pub fn new(organization: OrganizationId, slug: Arc<str>) -> Self {
        Self {
            organization,
            slug,
            position: 100,
            weight: 1,
            max_in_flight: 16,
            rate_bits: None,
            resend_unclear: false,
            looks_up: false,
            paused: false,
            failures: 0,
            throttles: 0,
            breaker: None,
            throttled_until: Duration::ZERO,
        }
    }

    /// Whether a message pinned to `pinned` may go by this app.
    pub fn matches(&self, pinned: Option<&Arc<str>>) -> bool {
        pinned.is_none_or(|slug| *slug == self.slug)
    }

    /// Whether it may be used at `now`.
    pub fn state(&self, now: Duration, organization_paused: bool) -> AppState {
        let probe_at = self.breaker.map_or(Duration::ZERO, |breaker| breaker.probe_at);
        let closed_until = probe_at.max(self.throttled_until);
        if self.paused || organization_paused {
            AppState::Paused
        } else if now < closed_until {
            AppState::Blocked(closed_until - now)
        } else if self.breaker.is_some() {
            AppState::Probe
        } else {
            AppState::Open
        }
    }

    /// A claim goes through: of an open breaker this is the probe, and the next one comes an interval later.
    pub(super) fn claimed(&mut self, now: Duration) {
        if let Some(breaker) = &mut self.breaker {
            breaker.probe_at = now + breaker.interval;
        }
    }

    /// An attempt ended: opens, closes or slows the app.
    pub(super) fn observe(&mut self, now: Duration, status: AttemptStatus, retry_after: Option<Duration>) {
        match status {
            AttemptStatus::Accepted | AttemptStatus::RefusedRecipient | AttemptStatus::RefusedContent => {
                self.failures = 0;
                self.throttles = 0;
                self.breaker = None;
            }
            AttemptStatus::NotSent | AttemptStatus::Unclear => {
                self.failures = self.failures.saturating_add(1);
                if let Some(over) = self.failures.checked_sub(FAILURES_TO_OPEN) {
                    self.open(now, Duration::from_secs(1 << over.min(6)).min(LONGEST_PROBE));
                }
            }
            AttemptStatus::RefusedAccount => self.open(now, LONGEST_PROBE),
            AttemptStatus::Throttled => {
                let asked = retry_after.unwrap_or(DEFAULT_THROTTLE).min(LONGEST_THROTTLE);
                // Asked again in vain: longer each time, whatever the provider says.
                self.throttles = (self.throttles + 1).min(7);
                let again = Duration::from_secs(if self.throttles > 1 { 1 << (self.throttles - 1) } else { 0 });
                self.throttled_until = self.throttled_until.max(now + asked.max(again.min(LONGEST_PROBE)));
            }
        }
    }

    fn open(&mut self, now: Duration, interval: Duration) {
        self.breaker = Some(Breaker { probe_at: now + interval, interval });
    }

    /// Lets the time of its breaker or throttle be over.
    pub(super) fn pass_block(&mut self, now: Duration) {
        if let Some(breaker) = &mut self.breaker {
            breaker.probe_at = now;
        }
        self.throttled_until = Duration::ZERO;
    }
}
