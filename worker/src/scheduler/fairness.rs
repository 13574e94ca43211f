//! Who goes next: urgent first, organizations in turn within a priority. An organization that cannot go now is not
//! in the round at all until something changes for it, so it costs the others nothing.

use std::collections::{BTreeMap, BTreeSet};
use std::ops::Bound;
use std::sync::Arc;
use std::time::Duration;

use crate::message::PRIORITIES;
use crate::outbox::OrganizationId;

/// One claim in so many serves the lower priorities first, so that urgent ones alone cannot starve them.
const LOWER_FIRST_EVERY: u64 = 16;

/// The round of one priority.
#[derive(Clone, Debug, Default)]
struct Round {
    waiting: BTreeSet<OrganizationId>,
    last: Option<OrganizationId>,
}

/// The rounds of all priorities.
#[derive(Clone, Debug, Default)]
pub(super) struct Turns {
    rounds: [Round; PRIORITIES],
    /// Organizations for which time changes something, and when: one time each.
    alarms: BTreeSet<(Duration, OrganizationId)>,
    alarm_of: BTreeMap<OrganizationId, Duration>,
    served: u64,
}

impl Turns {
    /// The organization has something that may go.
    pub(super) fn join(&mut self, priority: u8, organization: &OrganizationId) {
        if let Some(round) = self.rounds.get_mut(usize::from(priority)) {
            round.waiting.insert(Arc::clone(organization));
        }
    }

    /// Something changed for the organization as a whole: it is asked again in every priority.
    pub(super) fn wake(&mut self, organization: &OrganizationId) {
        for round in &mut self.rounds {
            round.waiting.insert(Arc::clone(organization));
        }
        if let Some(at) = self.alarm_of.remove(organization) {
            self.alarms.remove(&(at, Arc::clone(organization)));
        }
    }

    /// Those whose time has come are asked again.
    pub(super) fn wake_due(&mut self, now: Duration) {
        while let Some((at, organization)) = self.alarms.first().cloned() {
            if at > now {
                break;
            }
            self.wake(&organization);
        }
    }

    /// The organization cannot go now: out of the round, until `until` or until something else changes.
    pub(super) fn park(&mut self, priority: u8, organization: &OrganizationId, until: Option<Duration>) {
        if let Some(round) = self.rounds.get_mut(usize::from(priority)) {
            round.waiting.remove(organization);
        }
        let Some(until) = until else { return };
        let earlier = self.alarm_of.get(organization).copied();
        if earlier.is_none_or(|earlier| until < earlier) {
            if let Some(earlier) = earlier {
                self.alarms.remove(&(earlier, Arc::clone(organization)));
            }
            self.alarms.insert((until, Arc::clone(organization)));
            self.alarm_of.insert(Arc::clone(organization), until);
        }
    }

    /// When time next changes something.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        self.alarms.first().map(|(at, _)| *at)
    }

    /// In which order the next claim asks the priorities.
    pub(super) fn order(&self) -> [u8; PRIORITIES] {
        let turn = self.served + 1;
        if !turn.is_multiple_of(LOWER_FIRST_EVERY) {
            [0, 1, 2]
        } else if (turn / LOWER_FIRST_EVERY).is_multiple_of(2) {
            [2, 1, 0]
        } else {
            [1, 2, 0]
        }
    }

    /// Whose turn it is within a priority.
    pub(super) fn next(&self, priority: u8) -> Option<OrganizationId> {
        let round = self.rounds.get(usize::from(priority))?;
        let behind = round.last.as_ref().and_then(|last| {
            round.waiting.range::<OrganizationId, _>((Bound::Excluded(last), Bound::Unbounded)).next()
        });
        behind.or_else(|| round.waiting.first()).cloned()
    }

    /// The organization had its turn.
    pub(super) fn served(&mut self, priority: u8, organization: OrganizationId) {
        self.served += 1;
        if let Some(round) = self.rounds.get_mut(usize::from(priority)) {
            round.last = Some(organization);
        }
    }
}
