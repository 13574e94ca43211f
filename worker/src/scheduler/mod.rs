//! Which waiting message goes next, and by which app. Pure: the time since some start is passed in, nothing is read
//! or written, and the same calls give the same answers.
//!
//! The loop around it: [`next_look`](Scheduler::next_look) → `Outbox::look` → [`observe`](Scheduler::observe);
//! [`organizations_needing_apps`](Scheduler::organizations_needing_apps) → `Outbox::apps` →
//! [`set_apps`](Scheduler::set_apps); [`plan`](Scheduler::plan) → `Outbox::claim` → [`claimed`](Scheduler::claimed),
//! or [`unasked`](Scheduler::unasked) where the call failed; [`released`](Scheduler::released) when an attempt ends.

mod choice;
mod fairness;
pub(crate) mod marks;
mod room;
mod share;
#[cfg(test)]
mod tests;
mod window;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use choice::{Choice, choose};
use fairness::Turns;
use marks::{Marks, lasts, reached};
use room::{Opening, Room};
use share::Share;
use window::{LaneKey, Window};

use crate::message::{AppId, MessageId, PRIORITIES};
use crate::outbox::{App, Claim, Claimed, Entry, Look, Looked, Mark, OrganizationId, Range};

/// What is known of an organization's apps is read again after this long, while messages of it wait.
const APPS_LAST: Duration = Duration::from_secs(1);
/// A message whose row somebody held is asked for again after this.
const LOCKED_REST: Duration = Duration::from_millis(200);
/// A message that its app could not take is asked for again after this: by then its apps have been read anew.
const UNAVAILABLE_REST: Duration = Duration::from_secs(1);
/// Few large claims beat many small ones, and one never holds back more than this from other workers.
const LARGEST_CLAIM: usize = 256;
/// An app may have at most so many times as many requests in flight as the worker has free places: one that hangs gets four
/// fifths of them, and two such leave a ninth, so that there is always a place for the others'.
const MOST_FOR_EACH_FREE: usize = 4;
/// Most organizations named in one call.
const MOST_ORGANIZATIONS: usize = 256;

/// Bounds of a scheduler's memory.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// Most messages held, a third of them for each priority; about 250 bytes each.
    pub entries: usize,
    /// Most messages of one organization, priority and pinned slug; less where many share the room.
    pub lane: usize,
    /// Rows of one range of a look.
    pub page: u32,
}

impl Default for Limits {
    fn default() -> Self {
        Self { entries: 50_000, lane: 1000, page: 1000 }
    }
}

/// The apps of one organization, as they were read.
#[derive(Clone, Debug)]
struct Apps {
    list: Vec<App>,
    read_at: Duration,
    /// A claim contradicted it: nothing is planned until it has been read anew.
    contradicted: bool,
}

/// One worker's view of the queue, and its policy.
#[derive(Clone, Debug)]
pub struct Scheduler {
    limits: Limits,
    share: Share,
    marks: Marks,
    window: Window,
    turns: Turns,
    apps: BTreeMap<OrganizationId, Apps>,
    rooms: BTreeMap<AppId, Room>,
    /// The app of each claim under way, and what the message was taken to cost of its rate.
    asked: BTreeMap<MessageId, Option<(AppId, f64)>>,
    /// Organizations that wait for free places of the worker alone.
    crowded: BTreeSet<OrganizationId>,
    /// The last look read lanes on: the next one follows the log.
    follow_next: bool,
    /// Which log was read last.
    log: Option<i64>,
}

impl Scheduler {
    /// A scheduler that knows nothing yet, for the worker of this name.
    pub fn new(worker: impl Into<String>, limits: Limits) -> Self {
        Self {
            limits,
            share: Share::new(worker.into()),
            marks: Marks::default(),
            window: Window::new(limits.entries, limits.lane),
            turns: Turns::default(),
            apps: BTreeMap::new(),
            rooms: BTreeMap::new(),
            asked: BTreeMap::new(),
            crowded: BTreeSet::new(),
            follow_next: true,
            log: None,
        }
    }

    /// What to read next: what came into the log since the marks and what committed late; or, every other time, more
    /// for organizations that have more than they were given room for.
    pub fn next_look(&mut self, now: Duration) -> Look {
        let page = self.limits.page.max(1);
        let hungry = if self.follow_next { None } else { self.window.hungry(now, MOST_ORGANIZATIONS) };
        self.follow_next = hungry.is_some();
        match hungry {
            Some((priority, after, organizations)) => {
                Look { ranges: vec![Range { priority, after, before: None }], organizations, page }
            }
            None => Look { ranges: self.marks.ranges(), organizations: Vec::new(), page },
        }
    }

    /// Takes in the answer of a look. True if another one would find more at once.
    pub fn observe(&mut self, now: Duration, look: &Look, looked: &Looked) -> bool {
        if self.log.replace(looked.log).is_some_and(|log| log != looked.log) {
            self.forget_log();
            return true;
        }
        let lasts = lasts(look, looked);
        let more = lasts.iter().any(Option::is_some);
        self.marks.note_ended(&looked.snapshot);
        match look.ranges.as_slice() {
            [range] if !look.organizations.is_empty() => {
                let reached = reached(lasts.first().copied().flatten(), &looked.snapshot);
                let got_on = self.observe_reading_on(now, look, range, looked, reached);
                more || (got_on && self.window.is_hungry()) || self.marks.has_ended_late()
            }
            ranges => {
                for entry in &looked.entries {
                    let own = self.share.is_own(entry.id);
                    self.offer(now, entry, own);
                }
                for (range, last) in ranges.iter().zip(lasts) {
                    self.marks.observe(range, last, &looked.snapshot);
                }
                more || self.window.is_hungry() || self.marks.has_ended_late()
            }
        }
    }

    /// The places in one log mean nothing in another, where the same transaction ids may have queued other messages: it is
    /// read from its beginning.
    fn forget_log(&mut self) {
        self.marks = Marks::default();
        self.window = Window::new(self.limits.entries, self.limits.lane);
        self.turns = Turns::default();
        self.follow_next = true;
    }

    fn observe_reading_on(
        &mut self,
        now: Duration,
        look: &Look,
        range: &Range,
        looked: &Looked,
        reached: Mark,
    ) -> bool {
        let reading = self.window.begin_reading(range.priority, range.after, &look.organizations);
        for entry in &looked.entries {
            let take = self.share.is_own(entry.id) || reading.is_settled(entry);
            self.offer(now, entry, take);
        }
        self.marks.pass(range.priority, range.after, reached, &looked.snapshot);
        self.window.end_reading(reading, reached, self.marks.of(range.priority))
    }

    fn offer(&mut self, now: Duration, entry: &Entry, take: bool) {
        if usize::from(entry.priority) < PRIORITIES && self.window.offer(now, entry, take) {
            self.turns.join(entry.priority, &entry.organization);
        }
    }

    /// Takes the names of the live workers, this one among them: limits and messages are divided among them.
    pub fn set_workers(&mut self, names: &[String]) {
        self.share.set_workers(names);
        let (workers, rank) = (self.share.workers(), self.share.rank());
        for (organization, apps) in &self.apps {
            for app in &apps.list {
                if let Some(room) = self.rooms.get_mut(&app.id) {
                    room.set_share(app, workers, rank);
                }
            }
            self.turns.wake(organization);
        }
    }

    /// Organizations with waiting messages whose apps are unknown, were contradicted by a claim, or were read more
    /// than a second ago. Old ones that nothing waits for are forgotten.
    pub fn organizations_needing_apps(&mut self, now: Duration) -> Vec<OrganizationId> {
        let (window, rooms) = (&self.window, &mut self.rooms);
        self.apps.retain(|organization, apps| {
            let fresh = |app: &App| rooms.get_mut(&app.id).is_none_or(|room| room.is_fresh(now));
            let is_old = apps.read_at + APPS_LAST <= now;
            let forget = is_old && !window.has_lane(organization) && apps.list.iter().all(fresh);
            if forget {
                for app in &apps.list {
                    rooms.remove(&app.id);
                }
            }
            !forget
        });
        let mut organizations: Vec<OrganizationId> = self.window.organizations().map(Arc::clone).collect();
        organizations.sort();
        organizations.dedup();
        let needs = |apps: Option<&Apps>| apps.is_none_or(|apps| apps.contradicted || apps.read_at + APPS_LAST <= now);
        organizations.retain(|organization| needs(self.apps.get(organization)));
        organizations.sort_by_key(|organization| self.apps.get(organization).map(|apps| apps.read_at));
        organizations.truncate(MOST_ORGANIZATIONS);
        organizations
    }

    /// Takes in the apps of the organizations that were asked for; one that is not among `apps` is not installed.
    pub fn set_apps(&mut self, now: Duration, organizations: &[OrganizationId], apps: Vec<App>) {
        let (workers, rank) = (self.share.workers(), self.share.rank());
        let mut by_organization: BTreeMap<OrganizationId, Vec<App>> =
            organizations.iter().map(|organization| (Arc::clone(organization), Vec::new())).collect();
        for app in apps {
            match self.rooms.get_mut(&app.id) {
                Some(room) => room.read(now, &app, workers, rank),
                None => drop(self.rooms.insert(app.id, Room::new(now, &app, workers, rank))),
            }
            by_organization.entry(Arc::clone(&app.organization)).or_default().push(app);
        }
        for (organization, mut list) in by_organization {
            list.sort_by_key(|app| (app.position, app.id));
            self.turns.wake(&organization);
            let known = Apps { list, read_at: now, contradicted: false };
            let Some(before) = self.apps.insert(organization.clone(), known) else { continue };
            for app in before.list {
                let installed = self.apps[&organization].list.iter().any(|left| left.id == app.id);
                if !installed && self.rooms.get(&app.id).is_some_and(|room| room.in_flight() == 0) {
                    self.rooms.remove(&app.id);
                }
            }
        }
    }

    /// Messages to claim now, each with an app that has room for it, where the worker has so many free places. They count
    /// as in flight until [`claimed`](Self::claimed) or [`unasked`](Self::unasked) tells what became of them.
    pub fn plan(&mut self, now: Duration, free: usize) -> Vec<Claim> {
        self.turns.wake_due(now);
        for organization in std::mem::take(&mut self.crowded) {
            self.turns.wake(&organization);
        }
        for (priority, organization) in self.window.end_rests(now) {
            self.turns.join(priority, &organization);
        }
        let mut claims = Vec::new();
        while claims.len() < free.min(LARGEST_CLAIM) {
            let left = free - claims.len();
            let Some(claim) = self.turns.order().into_iter().find_map(|priority| self.pick(now, priority, left)) else {
                break;
            };
            claims.push(claim);
        }
        claims
    }

    /// The next message of one priority; organizations that cannot go are parked on the way.
    fn pick(&mut self, now: Duration, priority: u8, free: usize) -> Option<Claim> {
        while let Some(organization) = self.turns.next(priority) {
            match self.pick_of(now, priority, &organization, free) {
                Ok((key, mark, app)) => {
                    let claim = Claim { id: MessageId(mark.id), app };
                    self.window.ask(priority, &key, mark);
                    let charge = |room: &mut Room| (room.id(), room.take());
                    self.asked.insert(claim.id, app.and_then(|app| self.rooms.get_mut(&app)).map(charge));
                    self.turns.served(priority, organization);
                    return Some(claim);
                }
                Err(until) => self.turns.park(priority, &organization, until),
            }
        }
        None
    }

    /// The organization's oldest message that can go now, and by which app; else when to ask again, if time matters.
    fn pick_of(
        &mut self,
        now: Duration,
        priority: u8,
        organization: &OrganizationId,
        free: usize,
    ) -> Result<(LaneKey, Mark, Option<AppId>), Option<Duration>> {
        let apps = self.apps.get(organization).filter(|apps| !apps.contradicted).ok_or(None)?;
        let (rooms, mut crowded) = (&mut self.rooms, false);
        let mut opening = |app: &App| {
            let Some(room) = rooms.get_mut(&app.id) else { return Opening::Closed(None) };
            let opening = room.opening(now);
            if opening == Opening::Now && room.in_flight() as usize >= free.saturating_mul(MOST_FOR_EACH_FREE) {
                crowded = true;
                return Opening::Full(None);
            }
            opening
        };
        let openings: Vec<(&App, Opening)> = apps.list.iter().map(|app| (app, opening(app))).collect();

        let first = (Arc::clone(organization), None);
        let lanes = self.window.lanes(priority).range(&first..).take_while(|((of, _), _)| of == organization);
        let mut lanes: Vec<_> = lanes.filter(|(_, lane)| !lane.due.is_empty()).collect();
        lanes.sort_by_key(|(_, lane)| lane.due.keys().next().copied());
        let (mut until, mut stuck) = (None::<Duration>, Vec::new());
        for (key, lane) in lanes {
            let pinned = key.1.as_deref();
            let has_room = openings
                .iter()
                .any(|(app, opening)| *opening == Opening::Now && pinned.is_none_or(|slug| slug == &*app.slug));
            // Without any room the first tells for all; a message that no app is left for is found when it comes first.
            let tried = if has_room { usize::MAX } else { 1 };
            for (mark, waiting) in lane.due.iter().take(tried) {
                match choose(MessageId(mark.id), pinned, waiting, &openings) {
                    Choice::Go(app) => return Ok((key.clone(), *mark, Some(app))),
                    Choice::Never => return Ok((key.clone(), *mark, None)),
                    Choice::Wait(at) => until = until.into_iter().chain(at).min(),
                }
            }
            if has_room {
                stuck.push(key.clone());
            }
        }
        for key in stuck {
            self.window.set_aside(now, priority, &key);
        }
        if crowded {
            self.crowded.insert(Arc::clone(organization));
        }
        Err(until)
    }

    /// Takes in the answers of a claim, in its order.
    pub fn claimed(&mut self, now: Duration, claims: &[Claim], answers: &[Claimed]) {
        for (claim, answer) in claims.iter().zip(answers) {
            let Some(charged) = self.asked.remove(&claim.id) else { continue };
            match (answer, charged) {
                (Claimed::Leased(lease), Some((app, charge))) => {
                    if let Some(room) = self.rooms.get_mut(&app) {
                        room.settle(charge, lease.segments);
                    }
                }
                _ => self.give_back(charged),
            }
            match answer {
                Claimed::Leased(_) | Claimed::Gone | Claimed::Failed => self.drop_asked(now, claim.id),
                Claimed::Locked => self.put_back(now, claim.id, Some(now + LOCKED_REST)),
                Claimed::AppUnavailable => {
                    if let Some(organization) = self.window.organization_of(claim.id)
                        && let Some(apps) = self.apps.get_mut(&organization)
                    {
                        apps.contradicted = true;
                    }
                    self.put_back(now, claim.id, Some(now + UNAVAILABLE_REST));
                }
            }
        }
        // An answer that is short of some claims tells nothing of them.
        self.unasked(now, claims.get(answers.len()..).unwrap_or_default());
    }

    /// The call of these claims failed: whatever became of them, they may be asked for again.
    pub fn unasked(&mut self, now: Duration, claims: &[Claim]) {
        for claim in claims {
            if let Some(charged) = self.asked.remove(&claim.id) {
                self.give_back(charged);
                self.put_back(now, claim.id, None);
            }
        }
    }

    /// An attempt of this app ended.
    pub fn released(&mut self, app: AppId) {
        let Some(room) = self.rooms.get_mut(&app) else { return };
        room.release();
        self.turns.wake(room.organization());
    }

    /// When time alone next makes something possible; `None` while only looks and answers can.
    pub fn next_wake(&self) -> Option<Duration> {
        let apps = self.window.organizations().filter_map(|organization| self.apps.get(organization));
        let apps = apps.map(|apps| apps.read_at + APPS_LAST);
        apps.chain(self.turns.next_wake()).chain(self.window.next_wake()).min()
    }

    /// Whether the log holds more for an organization whose messages in memory run short: a look need not wait.
    pub fn runs_short(&self) -> bool {
        self.window.is_hungry()
    }

    /// Whether an app of those that wait has a rate.
    pub fn is_paced(&self) -> bool {
        self.rooms.values().any(Room::is_paced)
    }

    /// Messages held in memory.
    pub fn held(&self) -> usize {
        self.window.held()
    }

    fn drop_asked(&mut self, now: Duration, id: MessageId) {
        if let Some((priority, organization)) = self.window.drop_asked(now, id) {
            self.turns.join(priority, &organization);
        }
    }

    fn put_back(&mut self, now: Duration, id: MessageId, rest_until: Option<Duration>) {
        if let Some((priority, organization)) = self.window.put_back(now, id, rest_until) {
            self.turns.join(priority, &organization);
        }
    }

    fn give_back(&mut self, charged: Option<(AppId, f64)>) {
        let Some((app, charge)) = charged else { return };
        if let Some(room) = self.rooms.get_mut(&app) {
            room.give_back(charge);
            self.turns.wake(room.organization());
        }
    }
}
