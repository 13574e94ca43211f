//! The rules of a message's life as pure code: no clock, no random source, no input or output. The same rules stand
//! in SQL (`claim`, `finish`, `run_maintenance`, `cancel`, `retry`); the conformance suite holds the two together.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use super::app::{AppRow, Told};
use crate::message::{AppId, AttemptStatus, DeliveryStatus, DispatchStatus, Evidence, MessageId};
use crate::outbox::{AppState, CLAIM_ANSWER_LOST, OrganizationId, Xid};

/// Settings that decide.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Rules {
    /// Counted attempts after which a message is given up.
    pub max_attempts: u16,
    /// How long one attempt may take.
    pub lease_timeout: Duration,
}

impl Default for Rules {
    fn default() -> Self {
        Self { max_attempts: 10, lease_timeout: Duration::from_secs(120) }
    }
}

/// The time-limited right to finish one attempt.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct LeaseRow {
    /// Number of the attempt.
    pub attempt: i16,
    /// The app that makes it.
    pub app: AppId,
    /// The worker that holds it.
    pub worker: Arc<str>,
    /// When it is over.
    pub expires_at: Duration,
}

/// The one place where a message is.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum Place {
    /// Waits and is due, in the log under this transaction.
    Ready(Xid),
    /// Waits until then.
    Scheduled(Duration),
    /// Is being attempted.
    Leased(LeaseRow),
    /// Ended without an accepted attempt, and why.
    Ended(DispatchStatus, &'static str),
    /// An attempt was accepted.
    Accepted,
}

/// One line of the ledger.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct AttemptRow {
    /// The app that made it.
    pub app: Option<AppId>,
    /// How it ended.
    pub status: AttemptStatus,
    /// Who made it.
    pub worker: Arc<str>,
    /// The provider's code, or ours.
    pub error_code: Option<String>,
    /// How it became known, where it had ended as unclear.
    pub told_by: Option<Evidence>,
}

/// What the rules know of a message; its payload is of no concern to them.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct MessageRow {
    /// Its tenant.
    pub organization: OrganizationId,
    /// Provider slug that alone may send it.
    pub pinned: Option<Arc<str>>,
    /// 0 urgent, 1 normal, 2 bulk.
    pub priority: u8,
    /// Not sent before this.
    pub due_at: Option<Duration>,
    /// Not sent after this.
    pub valid_until: Option<Duration>,
    /// Where it is.
    pub place: Place,
    /// Ledger number of its last attempt.
    pub last_attempt: i16,
    /// Counted attempts.
    pub tries: u16,
    /// Apps that refused it for good.
    pub refused_by: BTreeSet<AppId>,
    /// Apps that failed in this round.
    pub avoid: BTreeSet<AppId>,
    /// The ledger, by number.
    pub attempts: BTreeMap<i16, AttemptRow>,
    /// What receipts say, by number of the attempt: also of one that is live.
    pub receipts: BTreeMap<i16, DeliveryStatus>,
}

impl MessageRow {
    /// Derived, with the precedence accepted attempt, end, lease, waiting.
    pub fn status(&self) -> DispatchStatus {
        if self.has_accepted_attempt() {
            return DispatchStatus::Sent;
        }
        match self.place {
            Place::Ready(_) | Place::Scheduled(_) => DispatchStatus::Pending,
            Place::Leased(_) => DispatchStatus::Sending,
            Place::Ended(status, _) => status,
            Place::Accepted => DispatchStatus::Sent,
        }
    }

    pub(super) fn has_accepted_attempt(&self) -> bool {
        self.attempts.values().any(|attempt| attempt.status == AttemptStatus::Accepted)
    }

    pub(super) fn has_unclear_attempt(&self) -> bool {
        self.attempts.values().any(|attempt| attempt.status == AttemptStatus::Unclear)
    }

    fn is_past(&self, now: Duration) -> bool {
        self.valid_until.is_some_and(|end| end <= now)
    }
}

/// What a claim of one message came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ClaimResult {
    /// Leased under this attempt number.
    Leased(i16),
    /// Waits no longer.
    Gone,
    /// The app may not be used now, or not for this message.
    AppUnavailable,
    /// No app matches: ended.
    Failed,
}

/// How an attempt ended, as far as it decides.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Ending<'a> {
    /// The class.
    pub status: AttemptStatus,
    /// The provider's code, or ours.
    pub error_code: Option<&'a str>,
    /// How long the provider asks us to wait.
    pub retry_after: Option<Duration>,
}

impl Ending<'_> {
    /// The provider was asked nothing: it counts as no attempt, and says nothing of the app.
    fn is_given_back(&self) -> bool {
        self.status == AttemptStatus::NotSent && self.error_code == Some(CLAIM_ANSWER_LOST)
    }
}

/// One outcome that a worker reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Report<'a> {
    /// The message.
    pub id: MessageId,
    /// The attempt.
    pub attempt: i16,
    /// How it ended.
    pub ending: Ending<'a>,
}

/// 2 s doubled with each counted attempt, at most ten minutes, of which `jitter` (0..1) takes away up to a half.
pub fn backoff(tries: u16, jitter: f64) -> Duration {
    let full = Duration::from_secs((2_u64 << tries.saturating_sub(1).min(9)).min(600));
    full.mul_f64(0.5 + jitter.clamp(0.0, 1.0) / 2.0)
}

/// The whole queue.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct State {
    /// Settings.
    pub rules: Rules,
    /// Every message.
    pub messages: BTreeMap<MessageId, MessageRow>,
    /// Every installed app.
    pub apps: BTreeMap<AppId, AppRow>,
    /// Organizations paused by an operator.
    pub paused: BTreeSet<OrganizationId>,
    pub(super) last_xid: Xid,
    pub(super) running: BTreeSet<Xid>,
}

impl State {
    /// The message, once its transaction has committed.
    pub(super) fn committed(&self, id: MessageId) -> Option<&MessageRow> {
        let message = self.messages.get(&id)?;
        (!matches!(message.place, Place::Ready(xid) if self.running.contains(&xid))).then_some(message)
    }

    fn app_state(&self, now: Duration, app: &AppRow) -> AppState {
        app.state(now, self.paused.contains(&app.organization))
    }

    /// Installed apps that may ever send this message.
    fn matching<'a>(&'a self, message: &'a MessageRow) -> impl Iterator<Item = (&'a AppId, &'a AppRow)> {
        self.apps.iter().filter(|(id, app)| {
            app.organization == message.organization
                && app.matches(message.pinned.as_ref())
                && !message.refused_by.contains(id)
        })
    }

    /// Takes one message out of the queue for one attempt.
    pub fn claim(&mut self, now: Duration, worker: &Arc<str>, id: MessageId, app_id: Option<AppId>) -> ClaimResult {
        let waits = |message: &&MessageRow| matches!(message.place, Place::Ready(_)) && !message.is_past(now);
        let Some(message) = self.committed(id).filter(waits) else {
            return ClaimResult::Gone;
        };
        let Some(app_id) = app_id else {
            if self.matching(message).next().is_some() {
                return ClaimResult::AppUnavailable;
            }
            self.end(id, DispatchStatus::Failed, "no_app");
            return ClaimResult::Failed;
        };
        let usable = self.matching(message).any(|(candidate, app)| {
            *candidate == app_id && matches!(self.app_state(now, app), AppState::Open | AppState::Probe)
        });
        if !usable {
            return ClaimResult::AppUnavailable;
        }
        if let Some(app) = self.apps.get_mut(&app_id) {
            app.claimed(now, id);
        }
        let expires_at = now + self.rules.lease_timeout;
        let Some(message) = self.messages.get_mut(&id) else {
            return ClaimResult::Gone;
        };
        let attempt = message.last_attempt + 1;
        message.last_attempt = attempt;
        message.place = Place::Leased(LeaseRow { attempt, app: app_id, worker: Arc::clone(worker), expires_at });
        ClaimResult::Leased(attempt)
    }

    /// Records how one attempt ended. True if this call did it.
    pub fn finish(
        &mut self,
        now: Duration,
        worker: &Arc<str>,
        id: MessageId,
        attempt: i16,
        ending: &Ending<'_>,
        jitter: f64,
    ) -> bool {
        let report = Report { id, attempt, ending: ending.clone() };
        self.finish_all(now, worker, &[report], || jitter).first().is_some_and(|(applied, _)| *applied)
    }

    /// Records how attempts ended, in one call: for each, whether this call did it and where the message then was. Those
    /// with a live lease come first and then the late ones, each by id; of an attempt that is named twice the first
    /// outcome counts. What they say of the apps is taken in together, at the end.
    pub fn finish_all(
        &mut self,
        now: Duration,
        worker: &Arc<str>,
        reports: &[Report<'_>],
        mut jitter: impl FnMut() -> f64,
    ) -> Vec<(bool, Option<DispatchStatus>)> {
        let mut distinct = BTreeMap::new();
        for report in reports {
            distinct.entry((report.id, report.attempt)).or_insert(&report.ending);
        }
        let mut answers = BTreeMap::new();
        let mut told = BTreeMap::new();
        let live: Vec<_> = distinct.keys().filter_map(|key| Some((*key, self.lease(worker, *key)?))).collect();
        for (key, lease) in &live {
            if let Some(ending) = distinct.remove(key) {
                self.settle(now, key.0, lease, ending, jitter(), &mut told);
                answers.insert(*key, (true, self.status(key.0)));
            }
        }
        for ((id, attempt), ending) in distinct {
            let applied = self.committed(id).is_some() && self.finish_late(worker, id, attempt, ending);
            answers.insert((id, attempt), (applied, self.status(id)));
        }
        self.observe(now, &told);
        let answer = |report: &Report<'_>| answers.get(&(report.id, report.attempt)).copied().unwrap_or_default();
        reports.iter().map(answer).collect()
    }

    fn status(&self, id: MessageId) -> Option<DispatchStatus> {
        self.committed(id).map(MessageRow::status)
    }

    /// The live lease of this attempt, where this worker holds it.
    fn lease(&self, worker: &Arc<str>, (id, attempt): (MessageId, i16)) -> Option<LeaseRow> {
        match &self.messages.get(&id)?.place {
            Place::Leased(lease) if lease.attempt == attempt && lease.worker == *worker => Some(lease.clone()),
            _ => None,
        }
    }

    fn observe(&mut self, now: Duration, told: &BTreeMap<AppId, Vec<Told>>) {
        for (id, told) in told {
            if let Some(app) = self.apps.get_mut(id) {
                app.observe(now, told);
            }
        }
    }

    /// The lease is live: the outcome moves the message. `told` collects what it says of the app.
    fn settle(
        &mut self,
        now: Duration,
        id: MessageId,
        lease: &LeaseRow,
        ending: &Ending<'_>,
        jitter: f64,
        told: &mut BTreeMap<AppId, Vec<Told>>,
    ) {
        if !ending.is_given_back() {
            told.entry(lease.app).or_default().push(Told {
                id,
                status: ending.status,
                retry_after: ending.retry_after,
            });
        }
        let Some(message) = self.messages.get_mut(&id) else {
            return;
        };
        // A receipt that came before proves what the answer did not tell.
        let proven = ending.status == AttemptStatus::Unclear && message.receipts.contains_key(&lease.attempt);
        message.attempts.insert(
            lease.attempt,
            AttemptRow {
                app: Some(lease.app),
                status: if proven { AttemptStatus::Accepted } else { ending.status },
                worker: Arc::clone(&lease.worker),
                error_code: ending.error_code.filter(|_| !proven).map(str::to_owned),
                told_by: proven.then_some(Evidence::Receipt),
            },
        );
        // Accepted by this attempt, or by an earlier one whose answer came late: there is nothing left to try.
        if message.has_accepted_attempt() {
            message.place = Place::Accepted;
            return;
        }
        let resend = self.apps.get(&lease.app).is_some_and(|app| app.resend_unclear);
        match ending.status {
            AttemptStatus::Accepted => message.place = Place::Accepted,
            AttemptStatus::RefusedRecipient => self.end(id, DispatchStatus::Failed, "recipient_refused"),
            AttemptStatus::RefusedContent => {
                message.refused_by.insert(lease.app);
                let spent = self.count_try(id);
                let app_left = self.messages.get(&id).is_some_and(|row| self.matching(row).next().is_some());
                match (app_left, spent) {
                    (false, _) => self.end(id, DispatchStatus::Failed, "refused"),
                    (true, true) => self.end(id, DispatchStatus::Failed, "attempts_spent"),
                    (true, false) => self.requeue(id),
                }
            }
            AttemptStatus::NotSent if ending.is_given_back() => self.requeue(id),
            AttemptStatus::NotSent => {
                message.avoid.insert(lease.app);
                if self.count_try(id) {
                    self.end(id, DispatchStatus::Failed, "attempts_spent");
                } else if self.has_other_app(now, id) {
                    self.requeue(id);
                } else {
                    self.back_off(now, id, jitter);
                }
            }
            AttemptStatus::RefusedAccount | AttemptStatus::Throttled => self.requeue(id),
            AttemptStatus::Unclear if !resend => self.end(id, DispatchStatus::DispatchTimeout, "unclear"),
            AttemptStatus::Unclear => {
                if self.count_try(id) {
                    self.end(id, DispatchStatus::DispatchTimeout, "attempts_spent");
                } else {
                    self.back_off(now, id, jitter);
                }
            }
        }
    }

    /// Takes a waiting message back. False if it does not wait.
    pub fn cancel(&mut self, id: MessageId) -> bool {
        let waits =
            self.committed(id).is_some_and(|message| matches!(message.place, Place::Ready(_) | Place::Scheduled(_)));
        if waits {
            self.end(id, DispatchStatus::Canceled, "canceled");
        }
        waits
    }

    /// Queues an ended message anew. False if it has not ended.
    pub fn retry(&mut self, now: Duration, id: MessageId) -> bool {
        let Some(message) = self.messages.get_mut(&id) else {
            return false;
        };
        if !matches!(message.place, Place::Ended(..)) {
            return false;
        }
        message.tries = 0;
        message.refused_by.clear();
        message.avoid.clear();
        if message.is_past(now) {
            message.valid_until = None;
        }
        // One that was taken back before its time keeps its time.
        match message.due_at {
            Some(due_at) if due_at > now => message.place = Place::Scheduled(due_at),
            _ => self.requeue(id),
        }
        true
    }

    /// Ends leases past their time, then expires what is past its validity, then queues what is due.
    pub fn run_maintenance(&mut self, now: Duration, jitter: f64) {
        let ids: Vec<MessageId> = self.messages.keys().copied().collect();
        let mut told = BTreeMap::new();
        for id in &ids {
            if let Some(Place::Leased(lease)) = self.messages.get(id).map(|message| message.place.clone())
                && lease.expires_at <= now
            {
                let ending =
                    Ending { status: AttemptStatus::Unclear, error_code: Some("lease_expired"), retry_after: None };
                self.settle(now, *id, &lease, &ending, jitter, &mut told);
            }
        }
        self.observe(now, &told);
        for id in ids {
            let Some(message) = self.messages.get(&id) else {
                continue;
            };
            let past = message.is_past(now);
            match message.place {
                Place::Ready(xid) if past && !self.running.contains(&xid) => {
                    self.end(id, DispatchStatus::Expired, "valid_until");
                }
                Place::Scheduled(_) if past => self.end(id, DispatchStatus::Expired, "valid_until"),
                Place::Scheduled(due_at) if due_at <= now => self.requeue(id),
                _ => {}
            }
        }
    }

    /// Counts an attempt; true when it was the last one allowed.
    fn count_try(&mut self, id: MessageId) -> bool {
        let most = self.rules.max_attempts;
        self.messages.get_mut(&id).is_none_or(|message| {
            message.tries += 1;
            message.tries >= most
        })
    }

    /// Whether an app that has not failed in this round may be used at once.
    fn has_other_app(&self, now: Duration, id: MessageId) -> bool {
        self.messages.get(&id).is_some_and(|message| {
            self.matching(message)
                .any(|(app_id, app)| !message.avoid.contains(app_id) && self.app_state(now, app) == AppState::Open)
        })
    }

    fn requeue(&mut self, id: MessageId) {
        let xid = self.next_xid();
        if let Some(message) = self.messages.get_mut(&id) {
            message.place = Place::Ready(xid);
        }
    }

    fn back_off(&mut self, now: Duration, id: MessageId, jitter: f64) {
        if let Some(message) = self.messages.get_mut(&id) {
            message.avoid.clear();
            message.place = Place::Scheduled(now + backoff(message.tries, jitter));
        }
    }

    fn end(&mut self, id: MessageId, status: DispatchStatus, reason: &'static str) {
        if let Some(message) = self.messages.get_mut(&id) {
            // Failed means that no provider accepted it.
            message.place = match status {
                DispatchStatus::Failed if message.has_unclear_attempt() => {
                    Place::Ended(DispatchStatus::DispatchTimeout, "unclear_before")
                }
                _ => Place::Ended(status, reason),
            };
        }
    }
}
