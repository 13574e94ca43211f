//! The messages that this worker knows to wait, by organization and priority, at most so many of each.
//!
//! A *lane* holds the messages of one organization, priority and pinned slug (so messages that wait for one provider
//! stand in nobody's way). Where a lane has more in the log than it may hold, its place `unread` tells where to read
//! on; what other workers are to take first is passed over, and looked at again when it has been seen waiting for a
//! second. Nothing is ever dropped without one of these two.
//!
//! Memory: about 250 bytes a message and 300 a lane, app lists aside.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::Duration;

use uuid::Uuid;

use crate::message::{AppId, MessageId, PRIORITIES};
use crate::outbox::{Entry, Mark, OrganizationId, Xid};

/// A lane never gets less room than this, while there is any.
const LEAST_LANE: usize = 8;
/// How long another worker's message must have been seen waiting before this one takes it.
const PATIENCE: Duration = Duration::from_secs(1);

/// An organization's messages of one pinned slug, or of none.
pub(super) type LaneKey = (OrganizationId, Option<Arc<str>>);

/// What the choice of an app needs of a waiting message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Waiting {
    pub(super) refused_by: Box<[AppId]>,
    pub(super) avoid: Box<[AppId]>,
}

/// A message in the hands of the scheduler's user: claimed, and not yet answered.
#[derive(Clone, Debug)]
pub(super) struct Asked {
    pub(super) priority: u8,
    pub(super) lane: LaneKey,
    mark: Mark,
    waiting: Waiting,
    /// The same message queued anew, seen while the claim was under way.
    newer: Option<Entry>,
}

/// A stretch of the log in which messages were passed over, since when.
#[derive(Clone, Copy, Debug)]
struct Span {
    from: Mark,
    upto: Mark,
    since: Duration,
}

#[derive(Clone, Debug, Default)]
pub(super) struct Lane {
    pub(super) due: BTreeMap<Mark, Waiting>,
    /// Rows behind this place are not in the lane, though the mark of the priority has passed them.
    unread: Option<Mark>,
    /// Passed over of late.
    passed: Option<Span>,
    /// Passed over at least a second ago.
    settled: Option<Span>,
    /// When it was last read on, as a count of such looks.
    read_on: u64,
}

impl Lane {
    /// From where to read on, if there is a need.
    fn start(&self) -> Option<Mark> {
        match (self.unread, self.settled) {
            (Some(unread), Some(settled)) => Some(unread.min(settled.from)),
            (unread, settled) => unread.or(settled.map(|span| span.from)),
        }
    }

    fn lower_unread(&mut self, mark: Mark) {
        self.unread = Some(self.unread.map_or(mark, |unread| unread.min(mark)));
    }

    fn is_idle(&self) -> bool {
        self.due.is_empty() && self.unread.is_none() && self.passed.is_none() && self.settled.is_none()
    }

    fn pass_over(&mut self, now: Duration, mark: Mark) {
        let span = self.passed.get_or_insert(Span { from: just_before(mark), upto: mark, since: now });
        span.from = span.from.min(just_before(mark));
        span.upto = span.upto.max(mark);
    }

    /// What was passed over within one stretch of patience settles when the last of it has waited as long.
    fn settle(&mut self, now: Duration) {
        if self.settled.is_none() && self.passed.is_some_and(|span| span.since + PATIENCE * 2 <= now) {
            self.settled = self.passed.take();
        }
    }
}

#[derive(Clone, Copy, Debug)]
enum Place {
    Due,
    Resting(Duration),
    Asked,
}

/// What a look that reads lanes on has taken out of them, until its end is known.
pub(super) struct Reading {
    priority: u8,
    lanes: BTreeMap<LaneKey, (Option<Mark>, Option<Span>)>,
}

/// All lanes of all priorities.
#[derive(Clone, Debug)]
pub(super) struct Window {
    capacity: usize,
    most_of_a_lane: usize,
    lanes: [BTreeMap<LaneKey, Lane>; PRIORITIES],
    held: [usize; PRIORITIES],
    known: HashMap<MessageId, (Xid, Place)>,
    asked: HashMap<MessageId, Asked>,
    /// Locked or refused a moment ago, by the time at which they are due again.
    resting: BTreeMap<(Duration, MessageId), Asked>,
    read_on: u64,
}

impl Window {
    /// Room for `entries` messages in all, a third of it for each priority.
    pub(super) fn new(entries: usize, most_of_a_lane: usize) -> Self {
        Self {
            capacity: (entries / PRIORITIES).max(1),
            most_of_a_lane,
            lanes: Default::default(),
            held: [0; PRIORITIES],
            known: HashMap::new(),
            asked: HashMap::new(),
            resting: BTreeMap::new(),
            read_on: 0,
        }
    }

    pub(super) fn lanes(&self, priority: u8) -> &BTreeMap<LaneKey, Lane> {
        &self.lanes[usize::from(priority) % PRIORITIES]
    }

    fn lanes_mut(&mut self, priority: u8) -> &mut BTreeMap<LaneKey, Lane> {
        &mut self.lanes[usize::from(priority) % PRIORITIES]
    }

    /// Messages held, those in the hands of the user included.
    pub(super) fn held(&self) -> usize {
        self.held.iter().sum()
    }

    /// Whether the organization has a lane of any priority.
    pub(super) fn has_lane(&self, organization: &OrganizationId) -> bool {
        let first = (Arc::clone(organization), None);
        self.lanes.iter().any(|lanes| lanes.range(&first..).next().is_some_and(|((found, _), _)| found == organization))
    }

    /// Organizations with a message that could be picked.
    pub(super) fn organizations(&self) -> impl Iterator<Item = &OrganizationId> {
        self.lanes.iter().flatten().filter(|(_, lane)| !lane.due.is_empty()).map(|((organization, _), _)| organization)
    }

    /// Takes in a row of a look. `take` is false for a message that another worker is to take first. True if it can
    /// now be picked.
    pub(super) fn offer(&mut self, now: Duration, entry: &Entry, take: bool) -> bool {
        let mark = Mark { xid: entry.xid, id: entry.id.0 };
        let key = (Arc::clone(&entry.organization), entry.pinned.clone());
        if let Some((xid, place)) = self.known.get(&entry.id).copied() {
            if xid >= entry.xid {
                return false;
            }
            let old = Mark { xid, id: entry.id.0 };
            match place {
                // It was queued anew while somebody's claim of the older row is being answered.
                Place::Asked => {
                    if let Some(asked) = self.asked.get_mut(&entry.id) {
                        asked.newer = Some(entry.clone());
                    }
                    return false;
                }
                Place::Due => drop(self.lanes_mut(entry.priority).get_mut(&key).and_then(|lane| lane.due.remove(&old))),
                Place::Resting(until) => drop(self.resting.remove(&(until, entry.id))),
            }
            self.forget(entry.priority, entry.id);
        }
        let lane = self.lanes_mut(entry.priority).entry(key.clone()).or_default();
        if lane.unread.is_some_and(|unread| mark > unread) {
            return false;
        }
        if !take {
            lane.pass_over(now, mark);
            return false;
        }
        if !self.make_room(entry.priority, &key) {
            if let Some(lane) = self.lanes_mut(entry.priority).get_mut(&key) {
                lane.lower_unread(just_before(mark));
            }
            return false;
        }
        let waiting = Waiting {
            refused_by: entry.refused_by.clone().into_boxed_slice(),
            avoid: entry.avoid.clone().into_boxed_slice(),
        };
        self.held[usize::from(entry.priority) % PRIORITIES] += 1;
        self.known.insert(entry.id, (entry.xid, Place::Due));
        if let Some(lane) = self.lanes_mut(entry.priority).get_mut(&key) {
            lane.due.insert(mark, waiting);
        }
        true
    }

    /// Room for one more in this lane: its share is free, or the longest lane gives up its newest.
    fn make_room(&mut self, priority: u8, key: &LaneKey) -> bool {
        let share = self.capacity / self.lanes(priority).len().max(1);
        let own = self.lanes(priority).get(key).map_or(0, |lane| lane.due.len());
        if own >= self.most_of(share) {
            return false;
        }
        if self.held[usize::from(priority) % PRIORITIES] < self.capacity {
            return true;
        }
        let lanes = self.lanes_mut(priority);
        let Some((_, longest)) = lanes.iter_mut().max_by_key(|(_, lane)| lane.due.len()) else { return false };
        let keep = share.max(own + 1);
        let mut evicted = Vec::new();
        while longest.due.len() > keep {
            let Some((mark, _)) = longest.due.pop_last() else { break };
            longest.lower_unread(just_before(mark));
            evicted.push(MessageId(mark.id));
        }
        for id in &evicted {
            self.forget(priority, *id);
        }
        !evicted.is_empty()
    }

    fn forget(&mut self, priority: u8, id: MessageId) {
        self.known.remove(&id);
        self.held[usize::from(priority) % PRIORITIES] -= 1;
    }

    /// Hands a message out to be claimed.
    pub(super) fn ask(&mut self, priority: u8, key: &LaneKey, mark: Mark) {
        let Some(lane) = self.lanes_mut(priority).get_mut(key) else { return };
        let Some(waiting) = lane.due.remove(&mark) else { return };
        if lane.is_idle() {
            self.lanes_mut(priority).remove(key);
        }
        let id = MessageId(mark.id);
        self.known.insert(id, (mark.xid, Place::Asked));
        self.asked.insert(id, Asked { priority, lane: key.clone(), mark, waiting, newer: None });
    }

    /// Whose message is in the hands of the user.
    pub(super) fn organization_of(&self, id: MessageId) -> Option<OrganizationId> {
        self.asked.get(&id).map(|asked| Arc::clone(&asked.lane.0))
    }

    /// The claim moved the message, or somebody else had: forget it. Tells who has one more to pick, where it has
    /// been queued anew since.
    pub(super) fn drop_asked(&mut self, now: Duration, id: MessageId) -> Option<(u8, OrganizationId)> {
        let asked = self.asked.remove(&id)?;
        self.forget(asked.priority, id);
        self.offer(now, &asked.newer?, true).then_some((asked.priority, asked.lane.0))
    }

    /// The claim did not move the message: it waits on, from `rest_until` if that is given. Tells who has one more to
    /// pick.
    pub(super) fn put_back(
        &mut self,
        now: Duration,
        id: MessageId,
        rest_until: Option<Duration>,
    ) -> Option<(u8, OrganizationId)> {
        let mut asked = self.asked.remove(&id)?;
        let picked_by = (asked.priority, Arc::clone(&asked.lane.0));
        if let Some(entry) = asked.newer.take() {
            self.forget(asked.priority, id);
            return self.offer(now, &entry, true).then_some(picked_by);
        }
        if let Some(until) = rest_until {
            self.known.insert(id, (asked.mark.xid, Place::Resting(until)));
            self.resting.insert((until, id), asked);
            return None;
        }
        self.make_due(asked);
        Some(picked_by)
    }

    fn make_due(&mut self, asked: Asked) {
        self.known.insert(MessageId(asked.mark.id), (asked.mark.xid, Place::Due));
        self.lanes_mut(asked.priority).entry(asked.lane).or_default().due.insert(asked.mark, asked.waiting);
    }

    /// Those whose rest is over are due again: whose, and of which priority.
    pub(super) fn end_rests(&mut self, now: Duration) -> Vec<(u8, OrganizationId)> {
        let mut ended = Vec::new();
        while let Some(rest) = self.resting.first_entry() {
            if rest.key().0 > now {
                break;
            }
            let asked = rest.remove();
            ended.push((asked.priority, Arc::clone(&asked.lane.0)));
            self.make_due(asked);
        }
        ended
    }

    /// When the next rest or patience ends.
    pub(super) fn next_wake(&self) -> Option<Duration> {
        let rest = self.resting.keys().next().map(|(until, _)| *until);
        let lanes = self.lanes.iter().flatten().filter(|(_, lane)| lane.settled.is_none());
        let passed = lanes.filter_map(|(_, lane)| lane.passed);
        passed.map(|span| span.since + PATIENCE * 2).chain(rest).min()
    }

    /// Nothing in this lane can go now, though its organization has room: set it aside, so that what lies behind is
    /// read, and look at it again later. Nothing happens where nothing lies behind.
    pub(super) fn set_aside(&mut self, now: Duration, priority: u8, key: &LaneKey) {
        let Some(lane) = self.lanes_mut(priority).get_mut(key).filter(|lane| lane.unread.is_some()) else { return };
        let stuck = std::mem::take(&mut lane.due);
        for mark in stuck.keys() {
            lane.pass_over(now, *mark);
        }
        for mark in stuck.keys() {
            self.forget(priority, MessageId(mark.id));
        }
    }

    /// Which lanes to read on: priority, place, organizations (at most `most`). First the one that has waited
    /// longest for it, and with it those that lie behind its place.
    pub(super) fn hungry(&mut self, now: Duration, most: usize) -> Option<(u8, Mark, Vec<OrganizationId>)> {
        let mut first: Option<(u64, u8, Mark, OrganizationId)> = None;
        for priority in 0..PRIORITIES as u8 {
            for lane in self.lanes_mut(priority).values_mut() {
                lane.settle(now);
            }
            for (key, lane, start) in self.hungry_lanes(priority) {
                let rank = (lane.read_on, priority, start);
                if first.as_ref().is_none_or(|best| rank < (best.0, best.1, best.2)) {
                    first = Some((lane.read_on, priority, start, Arc::clone(&key.0)));
                }
            }
        }
        let (_, priority, start, longest_waiting) = first?;
        let mut organizations: Vec<OrganizationId> = Vec::new();
        for (key, _, own_start) in self.hungry_lanes(priority) {
            if own_start >= start && organizations.last() != Some(&key.0) {
                organizations.push(Arc::clone(&key.0));
            }
        }
        // The one that has waited longest must be among them.
        let place = organizations.iter().position(|organization| *organization == longest_waiting).unwrap_or(0);
        organizations.swap(0, place);
        organizations.truncate(most);
        Some((priority, start, organizations))
    }

    /// Whether any lane has more in the log, and room for it.
    pub(super) fn is_hungry(&self) -> bool {
        (0..PRIORITIES as u8).any(|priority| self.hungry_lanes(priority).next().is_some())
    }

    fn hungry_lanes(&self, priority: u8) -> impl Iterator<Item = (&LaneKey, &Lane, Mark)> {
        let lanes = self.lanes(priority);
        let share = self.capacity / lanes.len().max(1);
        let most = self.most_of(share);
        let longest = lanes.values().map(|lane| lane.due.len()).max().unwrap_or(0);
        let is_full = self.held[usize::from(priority) % PRIORITIES] >= self.capacity;
        // Half of its share is free; and the priority is not full, or another lane would have to make room.
        let has_room = move |lane: &Lane| {
            let own = lane.due.len();
            own * 2 <= most && (!is_full || longest > share.max(own + 1))
        };
        let hungry = move |(_, lane): &(&LaneKey, &Lane)| has_room(lane);
        lanes.iter().filter(hungry).filter_map(|(key, lane)| lane.start().map(|start| (key, lane, start)))
    }

    fn most_of(&self, share: usize) -> usize {
        share.clamp(LEAST_LANE.min(self.most_of_a_lane), self.most_of_a_lane)
    }

    /// A look that read these organizations on from `start` is answered: its rows are offered until
    /// [`end_reading`](Self::end_reading).
    pub(super) fn begin_reading(&mut self, priority: u8, start: Mark, organizations: &[OrganizationId]) -> Reading {
        self.read_on += 1;
        let read_on = self.read_on;
        let asked_for: BTreeSet<&OrganizationId> = organizations.iter().collect();
        let mut reading = Reading { priority, lanes: BTreeMap::new() };
        for (key, lane) in self.lanes_mut(priority) {
            if asked_for.contains(&key.0) && lane.start().is_some_and(|own| own >= start) {
                lane.read_on = read_on;
                reading.lanes.insert(key.clone(), (lane.unread.take(), lane.settled.take()));
            }
        }
        reading
    }

    /// The look has read up to `reached`; the priority's own mark stands at `mark`. True if a lane got on.
    pub(super) fn end_reading(&mut self, reading: Reading, reached: Mark, mark: Mark) -> bool {
        let mut got_on = false;
        for (key, (unread, settled)) in reading.lanes {
            let lane = self.lanes_mut(reading.priority).entry(key.clone()).or_default();
            // What lies behind is read on from here, or by following the log. Rows may have been dropped meanwhile,
            // before or behind this place: the lower one counts.
            let read_to = unread.map(|unread| reached.max(unread)).filter(|read_to| *read_to < mark);
            if let Some(read_to) = read_to {
                lane.lower_unread(read_to);
            }
            if let Some(span) = settled.filter(|span| reached < span.upto) {
                lane.settled = Some(Span { from: span.from.max(reached), ..span });
            }
            got_on |= lane.unread != unread || lane.settled.is_none() && settled.is_some();
            if lane.is_idle() {
                self.lanes_mut(reading.priority).remove(&key);
            }
        }
        got_on
    }
}

impl Reading {
    /// Whether the message has been seen waiting for as long as another worker's must.
    pub(super) fn is_settled(&self, entry: &Entry) -> bool {
        let mark = Mark { xid: entry.xid, id: entry.id.0 };
        // The key is cloned for the look-up: two counts, no text.
        let key = (Arc::clone(&entry.organization), entry.pinned.clone());
        let span = self.lanes.get(&key).and_then(|(_, settled)| *settled);
        span.is_some_and(|span| span.from < mark && mark <= span.upto)
    }
}

/// The place from which this row would be the next one. Ids are never nil.
fn just_before(mark: Mark) -> Mark {
    Mark { xid: mark.xid, id: Uuid::from_u128(mark.id.as_u128().saturating_sub(1)) }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn entry(organization: &str, pinned: Option<&str>, xid: Xid) -> Entry {
        Entry {
            range: 0,
            id: MessageId(Uuid::from_u128(u128::from(xid))),
            organization: organization.into(),
            priority: 1,
            xid,
            pinned: pinned.map(Into::into),
            refused_by: Vec::new(),
            avoid: Vec::new(),
        }
    }

    /// A lane whose late row found no room holds later ones. If such a one has to go while the lane is read on by a
    /// page that ends before the late row, the late row's place is the one to keep.
    #[test]
    fn a_message_evicted_while_its_lane_is_read_on_hides_no_earlier_one() {
        let mut window = Window::new(12, 2);
        for row in [entry("bank", None, 13), entry("bank", None, 19), entry("shop", None, 6), entry("clinic", None, 21)]
        {
            assert!(window.offer(Duration::ZERO, &row, true));
        }
        let late = entry("bank", None, 15);
        assert!(!window.offer(Duration::ZERO, &late, true), "its lane is full");
        let start = Mark { xid: 15, id: Uuid::from_u128(14) };
        let reading = window.begin_reading(1, start, &["bank".into()]);
        assert!(window.offer(Duration::ZERO, &entry("bank", Some("sandbox"), 8), true), "19 makes room");
        window.end_reading(reading, start, Mark { xid: 23, id: Uuid::nil() });

        window.ask(1, &("bank".into(), None), Mark { xid: 13, id: Uuid::from_u128(13) });
        window.drop_asked(Duration::ZERO, MessageId(Uuid::from_u128(13)));
        assert_eq!(window.hungry(Duration::ZERO, 10), Some((1, start, vec!["bank".into()])));
    }
}
