//! The queue in memory: the rules of a message's life as pure code ([`life`], [`app`], [`log`]) behind the trait
//! [`Outbox`], with a clock that the caller sets. For tests and models; nothing here is durable.

pub mod app;
mod evidence;
pub mod life;
mod log;
mod look_up;
#[cfg(test)]
mod model;
mod retention;
#[cfg(any(test, feature = "conformance"))]
mod subject;
#[cfg(test)]
mod tests;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use uuid::Uuid;

pub use app::AppRow;
pub use life::{AttemptRow, ClaimResult, Ending, LeaseRow, MessageRow, Place, Report, Rules, State};

use super::{
    App, Claim, Claimed, Finish, Finished, Heartbeat, Lease, Look, Looked, OrganizationId, Outbox, OutboxError,
    ReceiptResult, Reconcile, Resolution, Unclear, Xid,
};
use crate::message::{AppId, AttemptStatus, Body, DeliveryStatus, DispatchStatus, Evidence, MessageId, MobileNumber};
use crate::trace::TraceParent;

/// A worker that has not been heard of for this long is dead.
const WORKER_LIVES: Duration = Duration::from_secs(30);

/// A message to queue.
#[derive(Clone, Debug)]
pub struct NewMessage {
    /// Its tenant.
    pub organization: OrganizationId,
    /// Recipient.
    pub mobile: MobileNumber,
    /// Text.
    pub body: Body,
    /// Sender name asked for.
    pub sender: Option<String>,
    /// 0 urgent, 1 normal, 2 bulk.
    pub priority: u8,
    /// Provider slug that alone may send it.
    pub pinned: Option<Arc<str>>,
    /// Not before this.
    pub due_at: Option<Duration>,
    /// Not after this.
    pub valid_until: Option<Duration>,
    /// The trace that it belongs to.
    pub traceparent: Option<TraceParent>,
    /// Parts that the text is sent in.
    pub segments: u16,
}

impl NewMessage {
    /// A normal message of one organization.
    pub fn of(organization: &str) -> Self {
        Self {
            organization: organization.into(),
            mobile: MobileNumber::new("+966501234567"),
            body: Body::new("Order 123 is ready for pickup"),
            sender: None,
            priority: 1,
            pinned: None,
            due_at: None,
            valid_until: None,
            traceparent: None,
            segments: 1,
        }
    }
}

/// What the rules of a life do not look at.
#[derive(Clone, Debug)]
struct Payload {
    mobile: MobileNumber,
    body: Body,
    sender: Option<String>,
    traceparent: Option<TraceParent>,
    segments: u16,
    /// When it was first due.
    since: Duration,
}

#[derive(Debug, Default)]
struct Queue {
    state: State,
    now: Duration,
    payloads: BTreeMap<MessageId, Payload>,
    configs: BTreeMap<AppId, Arc<serde_json::Value>>,
    last_app: i64,
    last_message: u64,
    draws: u64,
    locked: BTreeSet<MessageId>,
    workers: BTreeMap<String, Duration>,
    away: bool,
    lost_answers: u32,
    /// How often, and when last, unclear attempts were given out to be looked up.
    asked: BTreeMap<(MessageId, i16), (usize, Duration)>,
}

impl Queue {
    /// The next number of a fixed sequence in 0..1: jitter that is the same in every run.
    fn jitter(draws: &mut u64) -> f64 {
        *draws += 1;
        (*draws as f64 * 0.618_033_988_749_895).fract()
    }
}

/// One worker's view of a queue in memory. Clones share the queue.
#[derive(Clone, Debug)]
pub struct MemoryOutbox {
    queue: Arc<Mutex<Queue>>,
    worker: Arc<str>,
}

impl MemoryOutbox {
    /// An empty queue, seen by this worker.
    pub fn new(worker: &str) -> Self {
        Self { queue: Arc::default(), worker: worker.into() }
    }

    /// The same queue, seen by another worker.
    pub fn with_worker(&self, worker: &str) -> Self {
        Self { queue: Arc::clone(&self.queue), worker: worker.into() }
    }

    fn queue(&self) -> MutexGuard<'_, Queue> {
        self.queue.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The rules' state as it is, for assertions.
    pub fn state(&self) -> State {
        self.queue().state.clone()
    }

    /// Replaces the settings.
    pub fn set_rules(&self, rules: Rules) {
        self.queue().state.rules = rules;
    }

    /// The queue's clock.
    pub fn now(&self) -> Duration {
        self.queue().now
    }

    /// Lets time pass.
    pub fn advance(&self, by: Duration) {
        self.queue().now += by;
    }

    /// From now on every call finds the database away, or back again.
    pub fn set_away(&self, away: bool) {
        self.queue().away = away;
    }

    /// The next `calls` calls take effect, but their answers are lost.
    pub fn lose_answers(&self, calls: u32) {
        self.queue().lost_answers = calls;
    }

    /// Another session holds the message's row, or lets it go.
    pub fn set_locked(&self, id: MessageId, locked: bool) {
        let mut queue = self.queue();
        if locked {
            queue.locked.insert(id);
        } else {
            queue.locked.remove(&id);
        }
    }

    /// Queues a message in a transaction of its own.
    pub fn enqueue(&self, message: NewMessage) -> MessageId {
        let xid = self.queue().state.next_xid();
        self.enqueue_in(xid, message)
    }

    /// Starts a transaction that stays open until [`commit`](Self::commit) or [`rollback`](Self::rollback).
    pub fn begin(&self) -> Xid {
        self.queue().state.begin()
    }

    /// Queues a message in an open transaction.
    pub fn enqueue_in(&self, xid: Xid, new: NewMessage) -> MessageId {
        let mut queue = self.queue();
        queue.last_message += 1;
        let id = message_id(queue.last_message);
        let place = match new.due_at {
            Some(due_at) if due_at > queue.now => Place::Scheduled(due_at),
            _ => Place::Ready(xid),
        };
        let row = MessageRow {
            organization: new.organization,
            pinned: new.pinned,
            priority: new.priority,
            due_at: new.due_at,
            valid_until: new.valid_until,
            place,
            last_attempt: 0,
            tries: 0,
            refused_by: BTreeSet::new(),
            avoid: BTreeSet::new(),
            attempts: BTreeMap::new(),
            receipts: BTreeMap::new(),
        };
        queue.state.messages.insert(id, row);
        let since = new.due_at.unwrap_or_default().max(queue.now);
        let NewMessage { mobile, body, sender, traceparent, segments, .. } = new;
        queue.payloads.insert(id, Payload { mobile, body, sender, traceparent, segments, since });
        id
    }

    /// Commits an open transaction.
    pub fn commit(&self, xid: Xid) {
        self.queue().state.commit(xid);
    }

    /// Rolls an open transaction back.
    pub fn rollback(&self, xid: Xid) {
        self.queue().state.rollback(xid);
    }

    /// Installs an app.
    pub fn install_app(&self, app: AppRow, config: serde_json::Value) -> AppId {
        let mut queue = self.queue();
        queue.last_app += 1;
        let id = AppId(queue.last_app);
        queue.state.apps.insert(id, app);
        queue.configs.insert(id, Arc::new(config));
        id
    }

    /// Uninstalls an app. Live attempts go on.
    pub fn uninstall_app(&self, app: AppId) {
        self.queue().state.apps.remove(&app);
    }

    /// Pauses or resumes an app.
    pub fn set_app_paused(&self, app: AppId, paused: bool) {
        if let Some(row) = self.queue().state.apps.get_mut(&app) {
            row.set_paused(paused);
        }
    }

    /// Pauses or resumes an organization.
    pub fn set_organization_paused(&self, organization: &str, paused: bool) {
        let mut queue = self.queue();
        if paused {
            queue.state.paused.insert(organization.into());
        } else {
            queue.state.paused.remove(organization);
        }
    }

    /// Takes a waiting message back; false if it does not wait.
    pub fn cancel(&self, id: MessageId) -> bool {
        self.queue().state.cancel(id)
    }

    /// Queues an ended message anew; false if it has not ended.
    pub fn retry(&self, id: MessageId) -> bool {
        let mut queue = self.queue();
        let now = queue.now;
        if let Some(payload) = queue.payloads.get_mut(&id) {
            payload.since = now;
        }
        queue.state.retry(now, id)
    }

    /// Tells what became known of an attempt; false if it corrected nothing.
    pub fn resolve(&self, id: MessageId, attempt: i16, verdict: AttemptStatus, evidence: Evidence) -> bool {
        self.queue().state.resolve(id, attempt, verdict, evidence)
    }

    /// Records what a receipt says of an attempt.
    pub fn record_receipt(&self, id: MessageId, attempt: i16, told: DeliveryStatus) -> ReceiptResult {
        self.queue().state.record_receipt(id, attempt, told)
    }

    /// Ends leases past their time, queues what is due, expires what is past its validity.
    pub fn run_maintenance(&self) {
        let mut queue = self.queue();
        let (now, jitter) = (queue.now, Queue::jitter(&mut queue.draws));
        queue.state.run_maintenance(now, jitter);
    }

    /// Where a message is; `None` when it does not exist.
    pub fn status(&self, id: MessageId) -> Option<DispatchStatus> {
        self.queue().state.messages.get(&id).map(MessageRow::status)
    }

    /// Lets the lease or the schedule of a message be over now.
    pub fn pass_time_of(&self, id: MessageId) {
        let mut queue = self.queue();
        let now = queue.now;
        let Some(message) = queue.state.messages.get_mut(&id) else {
            return;
        };
        match &mut message.place {
            Place::Leased(lease) => lease.expires_at = now,
            Place::Scheduled(due_at) => {
                *due_at = now;
                message.due_at = message.due_at.map(|due_at| due_at.min(now));
            }
            Place::Ready(_) | Place::Ended(..) | Place::Accepted => {}
        }
    }

    /// Lets the validity of a message be over now, wherever it is.
    pub fn pass_validity_of(&self, id: MessageId) {
        let mut queue = self.queue();
        let now = queue.now;
        if let Some(message) = queue.state.messages.get_mut(&id) {
            message.valid_until = Some(now);
        }
    }

    /// Lets the time of an app's breaker or throttle be over now.
    pub fn pass_block_of(&self, app: AppId) {
        let mut queue = self.queue();
        let now = queue.now;
        if let Some(row) = queue.state.apps.get_mut(&app) {
            row.pass_block(now);
        }
    }

    /// One round trip: away, or carried out, with the answer given or lost.
    fn call<T>(&self, work: impl FnOnce(&mut Queue) -> T) -> Result<T, OutboxError> {
        let mut queue = self.queue();
        if queue.away {
            return Err(away());
        }
        let answer = work(&mut queue);
        if queue.lost_answers > 0 {
            queue.lost_answers -= 1;
            return Err(away());
        }
        Ok(answer)
    }
}

fn away() -> OutboxError {
    OutboxError::Unavailable("the connection was closed".into())
}

/// Ids that sort by time and whose low bits look random, like UUIDs of version 7.
fn message_id(number: u64) -> MessageId {
    let random = number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 2;
    let bits = (u128::from(number) << 80) | (7 << 76) | (2 << 62) | u128::from(random);
    MessageId(Uuid::from_u128(bits))
}

impl Outbox for MemoryOutbox {
    async fn look(&self, look: &Look) -> Result<Looked, OutboxError> {
        self.call(|queue| queue.state.look(look))
    }

    async fn apps(&self, organizations: &[OrganizationId]) -> Result<Vec<App>, OutboxError> {
        self.call(|queue| queue.state.apps_of(queue.now, organizations))
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Vec<Claimed>, OutboxError> {
        let mut asked = BTreeSet::new();
        let mut answer = |queue: &mut Queue, claim: &Claim| match asked.insert(claim.id) {
            true => claim_one(queue, &self.worker, *claim),
            // The first wish for a message counts.
            false => Claimed::Gone,
        };
        self.call(|queue| claims.iter().map(|claim| answer(queue, claim)).collect())
    }

    async fn finish(&self, outcomes: &[Finish]) -> Result<Vec<Finished>, OutboxError> {
        self.call(|queue| {
            let reports: Vec<Report<'_>> = outcomes
                .iter()
                .map(|finish| Report {
                    id: finish.id,
                    attempt: finish.attempt,
                    ending: Ending {
                        status: finish.outcome.status,
                        error_code: finish.outcome.error_code.as_deref(),
                        retry_after: finish.outcome.retry_after,
                    },
                })
                .collect();
            let Queue { state, now, draws, .. } = queue;
            let answers = state.finish_all(*now, &self.worker, &reports, || Queue::jitter(draws));
            let told = |(finish, (applied, status)): (&Finish, (bool, Option<DispatchStatus>))| Finished {
                id: finish.id,
                attempt: finish.attempt,
                applied,
                status,
            };
            outcomes.iter().zip(answers).map(told).collect()
        })
    }

    async fn leases(&self) -> Result<Vec<(MessageId, i16)>, OutboxError> {
        self.call(|queue| {
            let own = |(id, message): (&MessageId, &MessageRow)| match &message.place {
                Place::Leased(lease) if lease.worker == self.worker => Some((*id, lease.attempt)),
                _ => None,
            };
            queue.state.messages.iter().filter_map(own).collect()
        })
    }

    async fn heartbeat(&self, _beat: &Heartbeat) -> Result<Vec<String>, OutboxError> {
        self.call(|queue| {
            let now = queue.now;
            queue.workers.insert(self.worker.to_string(), now);
            queue.workers.retain(|_, heard| now < *heard + WORKER_LIVES);
            queue.workers.keys().cloned().collect()
        })
    }
}

impl Reconcile for MemoryOutbox {
    async fn unclear(&self, after: Duration, most: u32) -> Result<Vec<Unclear>, OutboxError> {
        self.call(|queue| look_up::take(queue, after, most as usize))
    }

    async fn resolve(&self, resolution: &Resolution) -> Result<bool, OutboxError> {
        let Resolution { id, attempt, verdict, .. } = *resolution;
        self.call(|queue| queue.state.resolve(id, attempt, verdict, Evidence::LookUp))
    }
}

fn claim_one(queue: &mut Queue, worker: &Arc<str>, claim: Claim) -> Claimed {
    if queue.locked.contains(&claim.id) {
        return Claimed::Locked;
    }
    match queue.state.claim(queue.now, worker, claim.id, claim.app) {
        ClaimResult::Gone => Claimed::Gone,
        ClaimResult::AppUnavailable => Claimed::AppUnavailable,
        ClaimResult::Failed => Claimed::Failed,
        ClaimResult::Leased(attempt) => {
            lease(queue, claim, attempt).map_or(Claimed::Gone, |lease| Claimed::Leased(Box::new(lease)))
        }
    }
}

fn lease(queue: &Queue, claim: Claim, attempt: i16) -> Option<Lease> {
    let app = claim.app?;
    let Payload { mobile, body, sender, traceparent, segments, since } = queue.payloads.get(&claim.id)?.clone();
    Some(Lease {
        id: claim.id,
        attempt,
        app,
        organization: queue.state.apps.get(&app)?.organization.clone(),
        slug: queue.state.apps.get(&app)?.slug.clone(),
        lasts: queue.state.rules.lease_timeout,
        mobile,
        body,
        sender,
        config: Arc::clone(queue.configs.get(&app)?),
        traceparent,
        waited: queue.now.saturating_sub(since),
        segments,
    })
}
