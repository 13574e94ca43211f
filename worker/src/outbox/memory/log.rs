//! The log of waiting messages: transaction ids, snapshots and the look, as PostgreSQL would show them.

use std::time::Duration;

use super::life::{MessageRow, Place, State};
use crate::message::MessageId;
use crate::outbox::{App, Entry, Look, Looked, Mark, OrganizationId, Rate, Snapshot, Xid};

impl State {
    /// A transaction that writes and commits within the call.
    pub(super) fn next_xid(&mut self) -> Xid {
        self.last_xid += 1;
        self.last_xid
    }

    /// Starts a transaction that stays open.
    pub fn begin(&mut self) -> Xid {
        let xid = self.next_xid();
        self.running.insert(xid);
        xid
    }

    /// Makes the rows of an open transaction visible.
    pub fn commit(&mut self, xid: Xid) {
        self.running.remove(&xid);
    }

    /// Ends an open transaction as if it had never been.
    pub fn rollback(&mut self, xid: Xid) {
        self.running.remove(&xid);
        self.messages.retain(|_, message| message.place != Place::Ready(xid));
    }

    /// Which transactions a statement would see now.
    pub fn snapshot(&self) -> Snapshot {
        Snapshot { xmax: self.last_xid + 1, in_progress: self.running.iter().copied().collect() }
    }

    /// Reads what waits behind the given places.
    pub fn look(&self, look: &Look) -> Looked {
        let mut log: Vec<(Mark, &MessageRow)> = self
            .messages
            .iter()
            .filter_map(|(id, message)| match message.place {
                Place::Ready(xid) if !self.running.contains(&xid) => Some((Mark { xid, id: id.0 }, message)),
                _ => None,
            })
            .collect();
        log.sort_by_key(|(mark, _)| *mark);
        let mut looked = Looked { log: 0, snapshot: self.snapshot(), entries: Vec::new() };
        for (range_number, range) in look.ranges.iter().enumerate() {
            let rows = log
                .iter()
                .filter(|(mark, message)| {
                    message.priority == range.priority
                        && *mark > range.after
                        && range.before.is_none_or(|before| mark.xid < before)
                        && (look.organizations.is_empty() || look.organizations.contains(&message.organization))
                })
                .take(look.page as usize);
            looked.entries.extend(rows.map(|(mark, message)| Entry {
                range: range_number,
                id: MessageId(mark.id),
                organization: message.organization.clone(),
                priority: message.priority,
                xid: mark.xid,
                pinned: message.pinned.clone(),
                refused_by: message.refused_by.iter().copied().collect(),
                avoid: message.avoid.iter().copied().collect(),
            }));
        }
        looked
    }

    /// The apps installed for these organizations.
    pub fn apps_of(&self, now: Duration, organizations: &[OrganizationId]) -> Vec<App> {
        let asked = self.apps.iter().filter(|(_, app)| organizations.contains(&app.organization));
        asked
            .map(|(id, app)| App {
                id: *id,
                organization: app.organization.clone(),
                slug: app.slug.clone(),
                position: app.position,
                weight: app.weight,
                max_in_flight: app.max_in_flight,
                rate: app.rate_bits.map(f64::from_bits).map(Rate::of_messages),
                state: app.state(now, self.paused.contains(&app.organization)),
            })
            .collect()
    }
}
