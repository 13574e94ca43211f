//! What may happen to a queue. Numbers are taken modulo of what there is, so that any part of a history is one too.

use proptest::prelude::*;
use sms_outbox_worker::message::{AttemptStatus, DeliveryStatus, Evidence};

/// A message to queue.
#[derive(Clone, Debug)]
pub(crate) struct Message {
    /// Of the second organization.
    pub(crate) bank: bool,
    pub(crate) priority: u8,
    /// Pinned to the first or the second provider.
    pub(crate) pinned: Option<bool>,
    /// Due in two days.
    pub(crate) later: bool,
    /// Valid for three days.
    pub(crate) valid: bool,
}

/// Which attempt of a message somebody talks about.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Attempt {
    /// The last that was claimed: live, or over.
    Last,
    /// The one before.
    Stale,
    /// One that was never claimed.
    MadeUp,
}

#[derive(Clone, Debug)]
pub(crate) struct End {
    pub(crate) message: u8,
    pub(crate) attempt: Attempt,
    pub(crate) status: AttemptStatus,
    /// Not sent, since it was never begun.
    pub(crate) given_back: bool,
}

#[derive(Clone, Debug)]
pub(crate) enum Step {
    Enqueue(Vec<Message>),
    /// An application's transaction that stays open, with a message of each.
    Begin(Vec<Message>),
    Commit(u8),
    Rollback(u8),
    /// One of two readers of the log reads on from its marks.
    Look(u8),
    Claim {
        worker: u8,
        /// Message and app; none says that no app matches.
        wishes: Vec<(u8, Option<u8>)>,
    },
    Finish {
        /// None is the worker that holds the first message, where one does.
        worker: Option<u8>,
        ends: Vec<End>,
    },
    Leases(u8),
    Resolve(u8, Attempt, AttemptStatus, Evidence),
    Receipt(u8, Attempt, DeliveryStatus),
    Cancel(u8),
    Retry(u8),
    PauseApp(u8, bool),
    PauseOrganization(bool, bool),
    Uninstall(u8),
    ExpireLease(u8),
    MakeDue(u8),
    PassValidity(u8),
    PassBlock(u8),
    Maintain,
}

/// Few, so that steps meet: a message is claimed, finished, retried and talked about late in one short history.
fn number() -> impl Strategy<Value = u8> {
    0..6_u8
}

/// Mostly the first.
fn app() -> impl Strategy<Value = u8> {
    prop_oneof![3 => Just(0), 1 => 1..3_u8]
}

fn message() -> impl Strategy<Value = Message> {
    let pinned = proptest::option::weighted(0.2, any::<bool>());
    let rare = proptest::bool::weighted;
    (rare(0.1), 0..3_u8, pinned, rare(0.1), rare(0.2)).prop_map(|(bank, priority, pinned, later, valid)| Message {
        bank,
        priority,
        pinned,
        later,
        valid,
    })
}

fn attempt() -> impl Strategy<Value = Attempt> {
    prop_oneof![8 => Just(Attempt::Last), 2 => Just(Attempt::Stale), 1 => Just(Attempt::MadeUp)]
}

fn end() -> impl Strategy<Value = End> {
    (number(), attempt(), proptest::sample::select(AttemptStatus::ALL), proptest::bool::weighted(0.3))
        .prop_map(|(message, attempt, status, given_back)| End { message, attempt, status, given_back })
}

/// Histories of up to this many steps.
pub(crate) fn histories(longest: usize) -> impl Strategy<Value = Vec<Step>> {
    let messages = || proptest::collection::vec(message(), 1..4);
    // In open transactions nothing is scheduled: the rules in memory do not hide such a row until the commit.
    let now = || messages().prop_map(|many| many.into_iter().map(|one| Message { later: false, ..one }).collect());
    let wish = (number(), proptest::option::weighted(0.9, app()));
    let claim =
        (0..2_u8, proptest::collection::vec(wish, 1..5)).prop_map(|(worker, wishes)| Step::Claim { worker, wishes });
    let finish = (proptest::option::weighted(0.3, 0..2_u8), proptest::collection::vec(end(), 1..4))
        .prop_map(|(worker, ends)| Step::Finish { worker, ends });
    let resolve = (number(), attempt(), proptest::sample::select(VERDICTS), proptest::sample::select(EVIDENCE))
        .prop_map(|(message, attempt, verdict, evidence)| Step::Resolve(message, attempt, verdict, evidence));
    let receipt = (number(), attempt(), proptest::sample::select(DeliveryStatus::ALL))
        .prop_map(|(message, attempt, status)| Step::Receipt(message, attempt, status));
    let step = prop_oneof![
        4 => messages().prop_map(Step::Enqueue),
        1 => now().prop_map(Step::Begin),
        2 => number().prop_map(Step::Commit),
        1 => number().prop_map(Step::Rollback),
        4 => (0..2_u8).prop_map(Step::Look),
        12 => claim,
        12 => finish,
        1 => (0..2_u8).prop_map(Step::Leases),
        2 => resolve,
        2 => receipt,
        1 => number().prop_map(Step::Cancel),
        4 => number().prop_map(Step::Retry),
        1 => (app(), proptest::bool::weighted(0.4)).prop_map(|(app, paused)| Step::PauseApp(app, paused)),
        1 => (any::<bool>(), proptest::bool::weighted(0.4)).prop_map(|(bank, paused)| Step::PauseOrganization(bank, paused)),
        1 => app().prop_map(Step::Uninstall),
        2 => number().prop_map(Step::ExpireLease),
        3 => number().prop_map(Step::MakeDue),
        2 => number().prop_map(Step::PassValidity),
        3 => app().prop_map(Step::PassBlock),
        4 => Just(Step::Maintain),
    ];
    proptest::collection::vec(step, 1..longest)
}

/// A look-up cannot find that a provider asks to slow down.
const VERDICTS: &[AttemptStatus] = &[
    AttemptStatus::Accepted,
    AttemptStatus::NotSent,
    AttemptStatus::RefusedRecipient,
    AttemptStatus::RefusedContent,
    AttemptStatus::Unclear,
];
/// A late answer is a worker's, by `finish`.
const EVIDENCE: &[Evidence] = &[Evidence::LookUp, Evidence::Operator];
