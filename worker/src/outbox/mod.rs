//! The queue as the worker sees it. [`postgres`] is the real one and the only place of the worker with SQL text;
//! [`memory`] is the same life of a message as pure code. Both pass [`conformance`].

pub mod conformance;
pub mod memory;
pub mod postgres;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;
use uuid::Uuid;

use crate::message::{AppId, AttemptStatus, Body, DispatchStatus, MessageId, MobileNumber};
use crate::trace::TraceParent;

/// A tenant's id, shared: one window holds it many times.
pub type OrganizationId = Arc<str>;

/// A full transaction id (`xid8`) as the log of waiting messages carries it.
pub type Xid = u64;

/// A place in the log of one priority. A look reads what lies after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Mark {
    /// Transaction that put the row into the queue.
    pub xid: Xid,
    /// Last row of that transaction that was read.
    pub id: Uuid,
}

/// One stretch of the log to read: one priority, after `after`, before transaction `before`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Range {
    /// 0 urgent, 1 normal, 2 bulk.
    pub priority: u8,
    /// Read what lies behind this place.
    pub after: Mark,
    /// Read no row of this transaction or a later one; `None` is the end of the snapshot.
    pub before: Option<Xid>,
}

/// What to read in one look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Look {
    /// The stretches, each read up to `page` rows.
    pub ranges: Vec<Range>,
    /// Only these organizations; empty means all.
    pub organizations: Vec<OrganizationId>,
    /// Most rows of one range. Fewer rows in the answer mean that the range is exhausted.
    pub page: u32,
}

/// A message that waits and is due, as the log shows it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Entry {
    /// Index of the range of the [`Look`] that found it.
    pub range: usize,
    /// The message.
    pub id: MessageId,
    /// Its tenant.
    pub organization: OrganizationId,
    /// 0 urgent, 1 normal, 2 bulk.
    pub priority: u8,
    /// Transaction that put it into the queue.
    pub xid: Xid,
    /// Provider slug that alone may send it.
    pub pinned: Option<Arc<str>>,
    /// Apps that refused this message for good.
    pub refused_by: Vec<AppId>,
    /// Apps that failed in this round: others first; empty again after the backoff.
    pub avoid: Vec<AppId>,
}

/// Which transactions a look could see: all below `xmax` that are not in `in_progress`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Snapshot {
    /// First transaction id not yet given out.
    pub xmax: Xid,
    /// Transactions that were running, ascending.
    pub in_progress: Vec<Xid>,
}

/// The answer of a look.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Looked {
    /// Which log this is. Another one after a promotion or a restore, whose transaction ids go their own way; and after a crash,
    /// which gives those anew that were not durable.
    pub log: i64,
    /// The snapshot of that very statement.
    pub snapshot: Snapshot,
    /// Rows by range, and in the order of the log within each.
    pub entries: Vec<Entry>,
}

/// Whether an app may be handed messages now.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AppState {
    /// Yes.
    Open,
    /// It, or its organization, is paused by an operator.
    Paused,
    /// Closed for this long by its breaker or by the provider's `Retry-After`.
    Blocked(Duration),
    /// Its breaker lets one message through, to see whether it works again.
    Probe,
}

/// What a rate counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RateUnit {
    /// Each message is one.
    Messages,
    /// Each message is as many as it has segments.
    Segments,
}

/// How much an app may be handed over time, over the whole fleet.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Rate {
    /// So many a second.
    pub per_second: f64,
    /// At most so many at once, after a pause.
    pub burst: u32,
    /// So many of what.
    pub unit: RateUnit,
}

impl Rate {
    /// So many messages a second, and as many at once.
    pub fn of_messages(per_second: f64) -> Self {
        Self { per_second, burst: per_second.ceil().max(1.0) as u32, unit: RateUnit::Messages }
    }
}

/// An organization app as the scheduler needs it: policy, no credentials.
#[derive(Clone, Debug, PartialEq)]
pub struct App {
    /// The app.
    pub id: AppId,
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
    /// Most over time; `None` is no limit.
    pub rate: Option<Rate>,
    /// Whether it may be used now.
    pub state: AppState,
}

/// One wish: this message by this app. No app means 'no installed app matches': the outbox checks it, and ends the message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The message.
    pub id: MessageId,
    /// The app chosen for it.
    pub app: Option<AppId>,
}

/// The right to make one attempt, and everything needed to make it.
#[derive(Clone, Debug)]
pub struct Lease {
    /// The message.
    pub id: MessageId,
    /// Number of the attempt, from 1: with the id the token that proves the lease.
    pub attempt: i16,
    /// The app that makes it.
    pub app: AppId,
    /// Whose app it is.
    pub organization: OrganizationId,
    /// Its provider.
    pub slug: Arc<str>,
    /// How long the lease lasts, counted from the commit of the claim. A worker counts from before its call.
    pub lasts: Duration,
    /// Recipient.
    pub mobile: MobileNumber,
    /// Text.
    pub body: Body,
    /// Sender name asked for; else the app's own.
    pub sender: Option<String>,
    /// The app's configuration as it was at the claim; shared by the leases of one app in one answer.
    pub config: Arc<serde_json::Value>,
    /// The trace that the message belongs to: `meta.traceparent`, where it is one.
    pub traceparent: Option<TraceParent>,
    /// How long it had waited at the claim, from when it was first due.
    pub waited: Duration,
    /// Parts that the text is sent in: what it costs of a rate in segments.
    pub segments: u16,
}

/// What became of one [`Claim`].
#[derive(Clone, Debug)]
pub enum Claimed {
    /// It is ours, durably.
    Leased(Box<Lease>),
    /// It waits no longer: somebody else moved it. Forget it.
    Gone,
    /// Somebody holds its row at this moment. Keep it and ask again.
    Locked,
    /// The app may not be used now, or not for this message. Keep it, and read the apps again.
    AppUnavailable,
    /// No installed app matches, so it ended as `failed`. Forget it.
    Failed,
}

/// What names an attempt at its provider, where one keeps a reference of the client's.
pub fn reference(id: MessageId, attempt: i16) -> String {
    format!("{id}-{attempt}")
}

/// The code of what a worker gives back as not sent that it never began, since it did not get the answer of its claim: such an end
/// counts as no attempt, and says nothing of the app.
pub const CLAIM_ANSWER_LOST: &str = "claim_answer_lost";

/// How one attempt ended, for `finish`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Outcome {
    /// The class, which alone decides what happens next.
    pub status: AttemptStatus,
    /// HTTP status, where there was an answer.
    pub http_status: Option<i16>,
    /// The provider's own code, or ours (`connect`, `timeout`, …).
    pub error_code: Option<String>,
    /// One sentence for a person; no number, body or secret in it.
    pub error_message: Option<String>,
    /// The provider's answer as JSON text, shortened, without secrets.
    pub response: Option<String>,
    /// The provider's id of the message.
    pub provider_message_id: Option<String>,
    /// How long the provider asks us to wait.
    pub retry_after: Option<Duration>,
}

/// One outcome to record.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Finish {
    /// The message.
    pub id: MessageId,
    /// The attempt.
    pub attempt: i16,
    /// How it ended.
    pub outcome: Outcome,
}

/// What `finish` did with one outcome.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Finished {
    /// The message.
    pub id: MessageId,
    /// The attempt.
    pub attempt: i16,
    /// Whether this call recorded it. A repeated or stale outcome is not applied, and does no harm.
    pub applied: bool,
    /// Where the message is now; `None` when it does not exist.
    pub status: Option<DispatchStatus>,
}

/// An attempt that ended as unclear and is due to be looked up at its provider, with everything needed for that.
#[derive(Clone, Debug)]
pub struct Unclear {
    /// The message.
    pub id: MessageId,
    /// The attempt.
    pub attempt: i16,
    /// The app that made it.
    pub app: AppId,
    /// Whose app it is.
    pub organization: OrganizationId,
    /// Its provider.
    pub slug: Arc<str>,
    /// The app's configuration as it is now; shared by the attempts of one app in one answer.
    pub config: Arc<serde_json::Value>,
    /// Recipient.
    pub mobile: MobileNumber,
    /// Text.
    pub body: Body,
    /// Sender name asked for.
    pub sender: Option<String>,
    /// When it began, by the database's clock.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// How long ago that was.
    pub age: Duration,
    /// The provider's ids of other attempts of the app with the same number and text.
    pub taken_ids: Vec<String>,
    /// Whether there is such an attempt whose id is not known.
    pub has_twin: bool,
}

/// What became known of an unclear attempt by a look-up.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Resolution {
    /// The message.
    pub id: MessageId,
    /// The attempt.
    pub attempt: i16,
    /// What it came to; unclear where it told nothing.
    pub verdict: AttemptStatus,
    /// The provider's id of the message.
    pub provider_message_id: Option<String>,
    /// How it is known, or why it is not, in a few words of our own.
    pub detail: Option<String>,
}

/// What became of a receipt.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ReceiptResult {
    /// It told something new.
    Recorded,
    /// It told nothing new.
    Repeated,
    /// There is no such attempt; nothing is kept.
    Unknown,
}

/// What a worker says of itself at each heartbeat. Counters count from its start.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Heartbeat {
    /// Version of the binary.
    pub version: String,
    /// Host name.
    pub host: String,
    /// Attempts in flight now.
    pub in_flight: i32,
    /// Messages claimed.
    pub claimed: i64,
    /// Attempts accepted.
    pub sent: i64,
    /// Attempts that ended otherwise.
    pub failed: i64,
}

/// Why the outbox did not do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum OutboxError {
    /// The database cannot serve the call now: out of reach, gone in the middle, or in a state that somebody must mend.
    /// Nothing is known of the call's effect. Ask again.
    #[error("the database cannot serve now: {0}")]
    Unavailable(#[source] Box<dyn std::error::Error + Send + Sync>),
    /// The database refused the values of the call; asking again changes nothing.
    #[error("the database refused: {message} (SQLSTATE {sqlstate})")]
    Refused {
        /// Its SQLSTATE.
        sqlstate: String,
        /// Its message, which holds no number and no body.
        message: String,
    },
}

/// The queue. Each call is one round trip, set-based, and harmless when repeated.
pub trait Outbox: Send + Sync + 'static {
    /// Reads what waits behind the given places. Changes nothing.
    fn look(&self, look: &Look) -> impl Future<Output = Result<Looked, OutboxError>> + Send;

    /// The apps installed for these organizations.
    fn apps(&self, organizations: &[OrganizationId]) -> impl Future<Output = Result<Vec<App>, OutboxError>> + Send;

    /// Takes messages out of the queue, one attempt each; committed durably when it returns. Answers in the order of `claims`.
    fn claim(&self, claims: &[Claim]) -> impl Future<Output = Result<Vec<Claimed>, OutboxError>> + Send;

    /// Records how attempts ended. Answers in the order of `outcomes`.
    fn finish(&self, outcomes: &[Finish]) -> impl Future<Output = Result<Vec<Finished>, OutboxError>> + Send;

    /// This worker's live leases: what to give back when the answer of a claim was lost.
    fn leases(&self) -> impl Future<Output = Result<Vec<(MessageId, i16)>, OutboxError>> + Send;

    /// Says that this worker lives, and learns which workers do (itself included).
    fn heartbeat(&self, beat: &Heartbeat) -> impl Future<Output = Result<Vec<String>, OutboxError>> + Send;
}

/// The queue as the reconciler sees it.
pub trait Reconcile: Send + Sync + 'static {
    /// Unclear attempts that are due to be looked up, for the first time this long after their end. Each is given to one worker
    /// at a time, and three times at most.
    fn unclear(&self, after: Duration, most: u32) -> impl Future<Output = Result<Vec<Unclear>, OutboxError>> + Send;

    /// Records what a look-up told. True if it corrected the ledger.
    fn resolve(&self, resolution: &Resolution) -> impl Future<Output = Result<bool, OutboxError>> + Send;
}
