//! One installed app: what it may be used for now, and how outcomes open and close it.

use std::sync::Arc;
use std::time::Duration;

use crate::message::{AttemptStatus, MessageId};
use crate::outbox::{AppState, OrganizationId};

/// Consecutive failures that open the breaker.
const FAILURES_TO_OPEN: u32 = 5;
/// Failures beyond which the time between two probes grows no more.
const MOST_FAILURES: u32 = 11;
/// Longest time between two probes, and the time that one in flight is given.
const LONGEST_PROBE: Duration = Duration::from_secs(60);
/// Shortest `Retry-After`.
const SHORTEST_THROTTLE: Duration = Duration::from_millis(100);
/// Longest `Retry-After` that is believed.
const LONGEST_THROTTLE: Duration = Duration::from_secs(3600);
/// Where a provider asks to slow down and does not say for how long.
const DEFAULT_THROTTLE: Duration = Duration::from_secs(1);

/// Why an app is closed. The first two are an open breaker, which ends by a probe.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Reason {
    Account,
    Failing,
    Throttled,
}

/// A closed app: until when, why, and the message that was let through to see whether it works again.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Block {
    until: Duration,
    reason: Reason,
    probe: Option<MessageId>,
}

/// An attempt that ended, as far as it tells something of its app.
#[derive(Clone, Copy, Debug)]
pub(super) struct Told {
    pub(super) id: MessageId,
    pub(super) status: AttemptStatus,
    pub(super) retry_after: Option<Duration>,
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
    block: Option<Block>,
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
            block: None,
        }
    }

    /// Whether a message pinned to `pinned` may go by this app.
    pub fn matches(&self, pinned: Option<&Arc<str>>) -> bool {
        pinned.is_none_or(|slug| *slug == self.slug)
    }

    /// Whether it may be used at `now`.
    pub fn state(&self, now: Duration, organization_paused: bool) -> AppState {
        if self.paused || organization_paused {
            return AppState::Paused;
        }
        match self.block {
            Some(block) if now < block.until => AppState::Blocked(block.until - now),
            Some(block) if block.reason != Reason::Throttled => AppState::Probe,
            _ => AppState::Open,
        }
    }

    /// A claim goes through: of an open breaker this is the probe, and until it tells something there is no other.
    pub(super) fn claimed(&mut self, now: Duration, id: MessageId) {
        if let Some(block) = self.block.as_mut().filter(|block| block.reason != Reason::Throttled) {
            block.until = now + LONGEST_PROBE;
            block.probe = Some(id);
        }
    }

    /// Attempts ended, in one call: opens, closes or slows the app.
    pub(super) fn observe(&mut self, now: Duration, told: &[Told]) {
        let any = |statuses: &[AttemptStatus]| told.iter().any(|one| statuses.contains(&one.status));
        let failed = |one: &&Told| matches!(one.status, AttemptStatus::NotSent | AttemptStatus::Unclear);
        let failures = u32::try_from(told.iter().filter(failed).count()).unwrap_or(u32::MAX);
        let breaker = self.block.filter(|block| block.reason != Reason::Throttled);
        if any(&[AttemptStatus::RefusedAccount]) {
            self.close(now + LONGEST_PROBE, Reason::Account);
        } else if any(&[AttemptStatus::Accepted, AttemptStatus::RefusedRecipient, AttemptStatus::RefusedContent]) {
            self.failures = 0;
            self.throttles = 0;
            self.block = self.block.filter(|block| block.reason == Reason::Throttled && now < block.until);
        } else if let Some(breaker) = breaker {
            // Only the probe tells something new; others that fail were in flight before.
            if told.iter().filter(failed).any(|one| breaker.probe == Some(one.id)) {
                self.failures = (self.failures + 1).min(MOST_FAILURES);
                let doubled = Duration::from_secs(1 << self.failures.saturating_sub(FAILURES_TO_OPEN));
                let interval = if breaker.reason == Reason::Account { LONGEST_PROBE } else { doubled };
                self.block =
                    Some(Block { until: now + interval.min(LONGEST_PROBE), reason: breaker.reason, probe: None });
            }
        } else if failures > 0 {
            self.failures = self.failures.saturating_add(failures).min(FAILURES_TO_OPEN);
            if self.failures == FAILURES_TO_OPEN {
                self.close(now + Duration::from_secs(1), Reason::Failing);
            }
        }
        let throttled = told.iter().filter(|one| one.status == AttemptStatus::Throttled);
        let asked = throttled.map(|one| one.retry_after.unwrap_or(DEFAULT_THROTTLE)).max();
        if let Some(asked) = asked {
            // Asked again in vain: longer each time, whatever the provider says.
            self.throttles = (self.throttles + 1).min(7);
            let again = Duration::from_secs(if self.throttles > 1 { 1 << (self.throttles - 1) } else { 0 });
            let pause = asked.clamp(SHORTEST_THROTTLE, LONGEST_THROTTLE).max(again.min(LONGEST_PROBE));
            match &mut self.block {
                Some(block) => block.until = block.until.max(now + pause),
                None => self.block = Some(Block { until: now + pause, reason: Reason::Throttled, probe: None }),
            }
        }
    }

    /// Closed for this reason from now on, and for as long as was asked for before.
    fn close(&mut self, until: Duration, reason: Reason) {
        let until = self.block.map_or(until, |block| block.until.max(until));
        self.block = Some(Block { until, reason, probe: None });
    }

    /// An operator pauses it, or lets it go on: then it is tried anew, whatever was known of it.
    pub(super) fn set_paused(&mut self, paused: bool) {
        self.paused = paused;
        if !paused {
            (self.failures, self.throttles, self.block) = (0, 0, None);
        }
    }

    /// Lets the time of its breaker or throttle be over.
    pub(super) fn pass_block(&mut self, now: Duration) {
        if let Some(block) = &mut self.block {
            block.until = now;
        }
    }
}
