//! One suite for every queue behind the trait [`Outbox`]: the rules of a message's life as small named cases. The
//! memory outbox passes it in the unit tests, the one on PostgreSQL in the `tests` crate (feature `conformance`).
//!
//! No case needs a clock of its own: a [`Subject`] lets the time of one lease, schedule or block be over.

#![cfg(any(test, feature = "conformance"))]

mod breaker;
mod claim;
mod evidence;
mod late;
mod operator;
mod outcome;

use std::collections::{BTreeMap, BTreeSet};
use std::future::Future;
use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};

use super::{
    App, AppState, CLAIM_ANSWER_LOST, Claim, Claimed, Entry, Finish, Finished, Lease, Look, Mark, Outbox, Outcome,
    Range, ReceiptResult, Reconcile, Resolution, Unclear,
};
use crate::message::{AppId, AttemptStatus, DeliveryStatus, DispatchStatus, Evidence, MessageId};

/// Counted attempts that a subject allows a message: more than any case needs but the one that spends them.
pub const MAX_ATTEMPTS: u16 = 4;

/// The slug of the app that most cases use: its provider can be asked what became of an attempt.
pub const FIRST: &str = "sandbox";
/// The slug of a second one, which cannot be asked.
const SECOND: &str = "generic-http";

/// A message to queue.
#[derive(Clone, Debug)]
pub struct Enqueue {
    /// Its tenant.
    pub organization: String,
    /// Recipient, normalized.
    pub mobile: String,
    /// Text.
    pub message: String,
    /// 0 urgent, 1 normal, 2 bulk.
    pub priority: u8,
    /// Provider slug that alone may send it.
    pub pinned: Option<String>,
    /// Due this long from now; `None` is now.
    pub due_in: Option<Duration>,
    /// Not sent later than this from now.
    pub valid_for: Option<Duration>,
    /// `meta.traceparent`.
    pub traceparent: Option<String>,
}

/// An app to install.
#[derive(Clone, Debug)]
pub struct Install {
    /// Its tenant.
    pub organization: String,
    /// Its provider.
    pub slug: String,
    /// Its name; unlike any other of the organization.
    pub name: String,
    /// Whether an unclear end is tried again.
    pub resend_unclear: bool,
}

/// A line of the ledger, as far as cases look at it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LedgerLine {
    /// Number of the attempt.
    pub attempt: i16,
    /// How it ended.
    pub status: AttemptStatus,
    /// The provider's code, or ours.
    pub error_code: Option<String>,
    /// How it became known, where it had ended as unclear.
    pub told_by: Option<Evidence>,
}

/// A message as it stands: what decides its next step, by the table that it is in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// As callers see it.
    pub status: DispatchStatus,
    /// `ready`, `scheduled`, `lease` or `ended`; empty for none, where an attempt was accepted.
    pub table: String,
    /// Attempts that count.
    pub tries: u16,
    /// Apps that refused it for good.
    pub refused_by: BTreeSet<AppId>,
    /// Apps that failed in this round.
    pub avoid: BTreeSet<AppId>,
    /// The ledger, by number.
    pub attempts: Vec<LedgerLine>,
    /// What receipts say, by number of the attempt.
    pub receipts: BTreeMap<i16, DeliveryStatus>,
}

/// A queue under test: an empty one, or one that other cases use too (cases share no organization and no worker).
/// Its `max_attempts` is [`MAX_ATTEMPTS`]; nothing but its own methods runs maintenance.
pub trait Subject: Send + Sync {
    /// The queue as one worker sees it.
    type Outbox: Outbox + Reconcile;
    /// An application's transaction that is open.
    type Transaction: Send;

    /// The queue as this worker sees it.
    fn worker(&self, name: &str) -> impl Future<Output = Result<Self::Outbox>> + Send;
    /// Queues a message and commits.
    fn enqueue(&self, message: Enqueue) -> impl Future<Output = Result<MessageId>> + Send;
    /// Begins a transaction, whose id is older than that of any that begins later.
    fn begin(&self) -> impl Future<Output = Result<Self::Transaction>> + Send;
    /// Queues a message in a transaction.
    fn enqueue_in(
        &self,
        transaction: &Self::Transaction,
        message: Enqueue,
    ) -> impl Future<Output = Result<MessageId>> + Send;
    /// Commits a transaction, or rolls it back.
    fn end(&self, transaction: Self::Transaction, commit: bool) -> impl Future<Output = Result<()>> + Send;
    /// Installs an app with a configuration that its provider takes.
    fn install_app(&self, app: Install) -> impl Future<Output = Result<AppId>> + Send;
    /// Uninstalls an app.
    fn uninstall_app(&self, app: AppId) -> impl Future<Output = Result<()>> + Send;
    /// Pauses or resumes an app.
    fn set_app_paused(&self, app: AppId, paused: bool) -> impl Future<Output = Result<()>> + Send;
    /// Pauses or resumes an organization.
    fn set_organization_paused(&self, organization: &str, paused: bool) -> impl Future<Output = Result<()>> + Send;
    /// Cancels; false when the message is in no state for it.
    fn cancel(&self, id: MessageId) -> impl Future<Output = Result<bool>> + Send;
    /// Retries; false when the message is in no state for it.
    fn retry(&self, id: MessageId) -> impl Future<Output = Result<bool>> + Send;
    /// Tells what became known of an attempt; false when it corrected nothing.
    fn resolve(
        &self,
        id: MessageId,
        attempt: i16,
        verdict: AttemptStatus,
        evidence: Evidence,
    ) -> impl Future<Output = Result<bool>> + Send;
    /// Records a receipt.
    fn record_receipt(
        &self,
        id: MessageId,
        attempt: i16,
        told: DeliveryStatus,
    ) -> impl Future<Output = Result<ReceiptResult>> + Send;
    /// What receipts say of an attempt that is live or over.
    fn delivery(&self, id: MessageId, attempt: i16) -> impl Future<Output = Result<Option<DeliveryStatus>>> + Send;
    /// Lets the message's live lease be over.
    fn expire_lease(&self, id: MessageId) -> impl Future<Output = Result<()>> + Send;
    /// Lets the message's schedule be due.
    fn make_due(&self, id: MessageId) -> impl Future<Output = Result<()>> + Send;
    /// Lets the message's `valid_until` be past, wherever it is.
    fn pass_validity(&self, id: MessageId) -> impl Future<Output = Result<()>> + Send;
    /// Lets the time of the app's breaker or throttle be over.
    fn pass_block(&self, app: AppId) -> impl Future<Output = Result<()>> + Send;
    /// Runs maintenance until nothing is left to do.
    fn run_maintenance(&self) -> impl Future<Output = Result<()>> + Send;
    /// Where a message is.
    fn status(&self, id: MessageId) -> impl Future<Output = Result<DispatchStatus>> + Send;
    /// The ledger of a message, by number.
    fn attempts(&self, id: MessageId) -> impl Future<Output = Result<Vec<LedgerLine>>> + Send;
    /// How messages stand; `None` for one that is not there, or not committed.
    fn standings(&self, ids: &[MessageId]) -> impl Future<Output = Result<Vec<Option<Standing>>>> + Send;
}

macro_rules! cases {
    ($($module:ident: $($case:ident),+;)+) => {
        /// The names of all cases.
        pub const CASES: &[&str] = &[$($(stringify!($case)),+),+];

        /// Runs one case on a subject.
        ///
        /// # Errors
        /// What the queue did otherwise than the rules say.
        pub async fn run_case<S: Subject>(name: &str, subject: &S) -> Result<()> {
            match name {
                $($(stringify!($case) => $module::$case(&Bench::new(subject, name)).await,)+)+
                _ => bail!("no such case"),
            }
        }
    };
}

cases! {
    claim: a_claim_gives_everything_that_an_attempt_needs, a_claim_tells_the_trace_and_the_waiting, of_two_claims_one_is_leased_and_the_other_gone,
        an_id_twice_in_one_claim_is_leased_once, another_organizations_app_is_unavailable,
        an_unknown_message_is_gone, no_app_is_refused_while_one_matches, no_app_ends_the_message_when_none_matches,
        an_uninstalled_app_is_unavailable, a_pinned_message_goes_by_its_slug_alone,
        a_paused_app_is_unavailable_until_resumed, a_paused_organization_is_unavailable_until_resumed,
        a_scheduled_message_waits_until_due, a_message_past_its_validity_is_gone_and_expires,
        leases_are_the_workers_own_and_live, a_heartbeat_names_the_live_workers,
        a_look_tells_priority_and_reads_on_from_a_mark, a_look_serves_the_organizations_asked_for;
    outcome: accepted_is_sent, refused_recipient_fails_at_once, refused_content_goes_to_the_next_app,
        refused_content_fails_when_no_app_is_left, refused_content_by_a_pinned_slug_fails,
        not_sent_goes_to_the_next_app_at_once, not_sent_by_all_apps_backs_off_and_starts_anew,
        attempts_are_spent, what_was_never_begun_counts_nothing, refused_account_waits_uncounted_and_blocks_the_app,
        throttled_waits_uncounted_and_blocks_for_the_time_asked,
        throttling_again_and_again_blocks_longer_each_time,
        unclear_is_not_sent_again, unclear_is_sent_again_where_opted_in, unclear_with_opt_in_is_spent_as_timeout,
        unclear_of_an_uninstalled_app_is_not_sent_again;
    breaker: a_breaker_opens_and_lets_one_probe_through, only_a_failed_probe_doubles_the_time,
        a_refused_account_stays_closed_when_its_probe_fails, the_time_asked_for_outlasts_the_breaker,
        the_probe_is_the_first_message_that_may_go, a_resumed_app_is_tried_anew;
    late: a_lease_that_runs_out_is_unclear, a_repeated_finish_is_harmless,
        a_stale_finish_changes_nothing_of_a_newer_attempt, another_workers_finish_changes_nothing,
        late_acceptance_after_the_timeout_is_sent, late_acceptance_after_a_retry_drops_the_waiting_try,
        late_acceptance_beside_a_live_lease_shows_both, late_refusal_after_the_timeout_is_failed,
        acceptance_of_a_claim_that_was_lost_is_sent, an_unclear_end_of_a_lost_claim_is_not_sent_again,
        acceptance_of_a_lost_claim_counts_wherever_the_message_is,
        acceptance_of_a_lost_claim_beside_the_first_attempt_drops_the_next_try, a_made_up_lease_changes_nothing;
    evidence: evidence_of_acceptance_makes_it_sent, known_not_sent_is_failed_and_may_be_retried,
        evidence_moves_only_what_is_unclear, evidence_after_a_retry_drops_the_waiting_try,
        evidence_beside_a_live_lease_shows_both, unclear_while_any_attempt_is,
        a_failure_after_an_unclear_attempt_is_unclear, no_app_after_an_unclear_attempt_is_unclear,
        asking_in_vain_changes_nothing, an_acceptance_outranks_what_was_concluded,
        receipts_move_the_status_forwards_only, a_receipt_before_the_end_is_kept,
        a_receipt_proves_that_an_unclear_attempt_was_accepted, a_receipt_for_nothing_changes_nothing,
        a_receipt_leaves_an_answer_as_it_is, what_is_unclear_is_given_out_three_times_to_be_looked_up;
    operator: cancel_takes_a_waiting_message_back, cancel_takes_a_scheduled_message_back,
        cancel_leaves_a_leased_message_alone, retry_queues_every_end_anew,
        retry_leaves_unfinished_and_sent_messages_alone, retry_forgets_refusals_and_keeps_the_ledger,
        retry_of_a_scheduled_message_keeps_its_time;
}

/// Runs all cases, each on a subject of its own.
///
/// # Errors
/// All cases that failed, with what the queue did otherwise than the rules say.
pub async fn run<S: Subject, F: Future<Output = Result<S>>>(subject: impl Fn() -> F) -> Result<()> {
    let mut failures = Vec::new();
    for name in CASES {
        if let Err(failure) = run_case(name, &subject().await?).await {
            failures.push(format!("{name}: {failure:#}"));
        }
    }
    ensure!(failures.is_empty(), "{} of {} cases failed:\n{}", failures.len(), CASES.len(), failures.join("\n"));
    Ok(())
}

/// What cases have in common: names of their own, and the usual moves in one line each.
struct Bench<'a, S> {
    subject: &'a S,
    organization: String,
}

impl<'a, S: Subject> Bench<'a, S> {
    fn new(subject: &'a S, case: &str) -> Self {
        // A tenant's id has at most 64 characters.
        Self { subject, organization: case.chars().take(60).collect() }
    }

    async fn worker(&self, name: &str) -> Result<S::Outbox> {
        self.subject.worker(&format!("{}-{name}", self.organization)).await
    }

    async fn install(&self, slug: &str) -> Result<AppId> {
        self.install_with(slug, false).await
    }

    async fn install_with(&self, slug: &str, resend_unclear: bool) -> Result<AppId> {
        let (organization, slug) = (self.organization.clone(), slug.to_owned());
        self.subject.install_app(Install { organization, name: slug.clone(), slug, resend_unclear }).await
    }

    fn message(&self) -> Enqueue {
        Enqueue {
            organization: self.organization.clone(),
            mobile: "+966501234567".to_owned(),
            message: "Order 123 is ready for pickup".to_owned(),
            priority: 1,
            pinned: None,
            due_in: None,
            valid_for: None,
            traceparent: None,
        }
    }

    async fn enqueue(&self) -> Result<MessageId> {
        self.subject.enqueue(self.message()).await
    }

    async fn app_state(&self, outbox: &S::Outbox, app: AppId) -> Result<AppState> {
        let apps: Vec<App> = outbox.apps(&[self.organization.as_str().into()]).await?;
        let found = apps.into_iter().find(|candidate| candidate.id == app);
        Ok(found.context("the app is not listed")?.state)
    }

    async fn expect(&self, id: MessageId, status: DispatchStatus) -> Result<()> {
        let found = self.subject.status(id).await?;
        ensure!(found == status, "the message is {found}, expected {status}");
        Ok(())
    }

    async fn expect_attempts(&self, id: MessageId, expected: &[AttemptStatus]) -> Result<()> {
        let found: Vec<_> = self.subject.attempts(id).await?;
        let found: Vec<_> = found.iter().map(|line| (line.attempt, line.status)).collect();
        let expected: Vec<_> = (1..).zip(expected.iter().copied()).collect();
        ensure!(found == expected, "the ledger is {found:?}, expected {expected:?}");
        Ok(())
    }

    /// The message as the log shows it to workers; `None` when it is not in the log.
    async fn waiting(&self, outbox: &S::Outbox, id: MessageId) -> Result<Option<Entry>> {
        Ok(self.log(outbox).await?.into_iter().find(|entry| entry.id == id))
    }

    /// This case's part of the log, by priority.
    async fn log(&self, outbox: &S::Outbox) -> Result<Vec<Entry>> {
        let from_the_bottom = |priority| Range { priority, after: Mark::default(), before: None };
        let look = Look {
            ranges: (0..3).map(from_the_bottom).collect(),
            organizations: vec![self.organization.as_str().into()],
            page: 100,
        };
        Ok(outbox.look(&look).await?.entries)
    }
}

async fn claim(outbox: &impl Outbox, id: MessageId, app: Option<AppId>) -> Result<Claimed> {
    let mut answers = outbox.claim(&[Claim { id, app }]).await?;
    ensure!(answers.len() == 1, "one claim got {} answers", answers.len());
    answers.pop().context("no answer")
}

async fn lease(outbox: &impl Outbox, id: MessageId, app: AppId) -> Result<Lease> {
    match claim(outbox, id, Some(app)).await? {
        Claimed::Leased(lease) => Ok(*lease),
        other => bail!("the claim is {}, expected leased", word(&other)),
    }
}

async fn finish(outbox: &impl Outbox, id: MessageId, attempt: i16, outcome: Outcome) -> Result<Finished> {
    let mut answers = outbox.finish(&[Finish { id, attempt, outcome }]).await?;
    ensure!(answers.len() == 1, "one outcome got {} answers", answers.len());
    let answer = answers.pop().context("no answer")?;
    ensure!((answer.id, answer.attempt) == (id, attempt), "the answer is for another attempt");
    Ok(answer)
}

/// Claims, and ends the attempt like this; the outcome must be applied.
async fn attempt(outbox: &impl Outbox, id: MessageId, app: AppId, status: AttemptStatus) -> Result<Finished> {
    let lease = lease(outbox, id, app).await?;
    let answer = finish(outbox, id, lease.attempt, outcome(status)).await?;
    ensure!(answer.applied, "a live lease's outcome was not applied");
    Ok(answer)
}

fn outcome(status: AttemptStatus) -> Outcome {
    Outcome {
        status,
        http_status: Some(200),
        error_code: None,
        error_message: None,
        response: Some(r#"{"by":"conformance"}"#.to_owned()),
        provider_message_id: None,
        retry_after: None,
    }
}

/// The class of an answer; a lease's own text would show a body.
fn word(claimed: &Claimed) -> &'static str {
    match claimed {
        Claimed::Leased(_) => "leased",
        Claimed::Gone => "gone",
        Claimed::Locked => "locked",
        Claimed::AppUnavailable => "app_unavailable",
        Claimed::Failed => "failed",
    }
}

fn expect_word(claimed: &Claimed, expected: &str) -> Result<()> {
    ensure!(word(claimed) == expected, "the claim is {}, expected {expected}", word(claimed));
    Ok(())
}
