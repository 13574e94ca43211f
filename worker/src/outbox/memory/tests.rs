use proptest::prelude::*;

use super::*;
use crate::outbox::conformance::{self, MAX_ATTEMPTS};

fn subject() -> MemoryOutbox {
    let outbox = MemoryOutbox::new("operator");
    outbox.set_rules(Rules { max_attempts: MAX_ATTEMPTS, ..Rules::default() });
    outbox
}

#[tokio::test]
async fn passes_the_conformance_suite() -> anyhow::Result<()> {
    conformance::run(|| async { Ok(subject()) }).await
}

/// The suite runs on one shared queue too, as it does on a cluster.
#[tokio::test]
async fn cases_do_not_disturb_each_other() -> anyhow::Result<()> {
    let shared = subject();
    conformance::run(|| async { Ok(shared.clone()) }).await
}

#[test]
fn backoff_doubles_to_ten_minutes_and_jitter_takes_at_most_half() {
    let full: Vec<u64> = (1..=11).map(|tries| life::backoff(tries, 1.0).as_secs()).collect();
    assert_eq!(full, [2, 4, 8, 16, 32, 64, 128, 256, 512, 600, 600]);
    assert_eq!(life::backoff(3, 0.0), Duration::from_secs(4));
    assert_eq!(life::backoff(u16::MAX, 1.0), Duration::from_secs(600));
}

#[test]
fn an_uncommitted_message_is_neither_seen_nor_claimed_and_a_rolled_back_one_never_was() {
    let outbox = MemoryOutbox::new("w");
    let app = outbox.install_app(AppRow::new("shop".into(), "sandbox".into()), serde_json::Value::Null);
    let (late, lost) = (outbox.begin(), outbox.begin());
    let id = outbox.enqueue_in(late, NewMessage::of("shop"));
    let never = outbox.enqueue_in(lost, NewMessage::of("shop"));
    let whole = Look {
        ranges: vec![super::super::Range { priority: 1, after: Default::default(), before: None }],
        organizations: Vec::new(),
        page: 10,
    };
    let mut state = outbox.state();
    assert_eq!(state.look(&whole).snapshot.in_progress, [late, lost]);
    assert!(state.look(&whole).entries.is_empty());
    assert_eq!(state.claim(Duration::ZERO, &"w".into(), id, Some(app)), ClaimResult::Gone);
    outbox.rollback(lost);
    outbox.commit(late);
    let seen = outbox.state().look(&whole);
    assert_eq!(seen.entries.iter().map(|entry| (entry.id, entry.xid)).collect::<Vec<_>>(), [(id, late)]);
    assert_eq!(outbox.status(never), None);
}

/// What an application, a worker, an operator or time may do to one of two messages by one of two apps.
#[derive(Clone, Debug)]
enum Step {
    Claim { worker: bool, message: bool, app: bool },
    Finish { worker: bool, message: bool, attempt: i16, status: AttemptStatus },
    Resolve { message: bool, attempt: i16, verdict: AttemptStatus, evidence: Evidence },
    Receipt { message: bool, attempt: i16, told: DeliveryStatus },
    Cancel(bool),
    Retry(bool),
    Pause(bool, bool),
    Pass(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let status = proptest::sample::select(AttemptStatus::ALL);
    let step = prop_oneof![
        4 => any::<(bool, bool, bool)>().prop_map(|(worker, message, app)| Step::Claim { worker, message, app }),
        4 => (any::<(bool, bool)>(), 1..6_i16, status)
            .prop_map(|((worker, message), attempt, status)| Step::Finish { worker, message, attempt, status }),
        1 => (any::<bool>(), 1..6_i16, proptest::sample::select(AttemptStatus::ALL), proptest::sample::select(Evidence::ALL))
            .prop_map(|(message, attempt, verdict, evidence)| Step::Resolve { message, attempt, verdict, evidence }),
        1 => (any::<bool>(), 1..6_i16, proptest::sample::select(DeliveryStatus::ALL))
            .prop_map(|(message, attempt, told)| Step::Receipt { message, attempt, told }),
        1 => any::<bool>().prop_map(Step::Cancel),
        1 => any::<bool>().prop_map(Step::Retry),
        1 => any::<(bool, bool)>().prop_map(|(app, on)| Step::Pause(app, on)),
        2 => (0..150_u16).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 0..60)
}

proptest! {
    /// Whatever happens in whatever order: nothing is lost, the ledger only grows, a lease is granted once, a message
    /// with an accepted attempt is `sent` and never waits, one that may have been sent never `failed`, and a lease that is not
    /// live moves no message of a newer one.
    #[test]
    fn any_history_keeps_the_invariants(history in steps()) {
        let workers: [Arc<str>; 2] = ["a".into(), "b".into()];
        let outbox = MemoryOutbox::new("a");
        let apps: Vec<AppId> = ["sandbox", "mora-sms"]
            .iter()
            .map(|slug| outbox.install_app(AppRow::new("shop".into(), (*slug).into()), serde_json::Value::Null))
            .collect();
        let ids = [outbox.enqueue(NewMessage::of("shop")), outbox.enqueue(NewMessage::of("shop"))];
        let mut state = outbox.state();
        state.rules.max_attempts = 3;
        let mut now = Duration::ZERO;
        for step in history {
            let before = state.clone();
            match step {
                Step::Claim { worker, message, app } => {
                    let id = ids[usize::from(message)];
                    let result = state.claim(now, &workers[usize::from(worker)], id, Some(apps[usize::from(app)]));
                    if let ClaimResult::Leased(attempt) = result {
                        prop_assert!(matches!(before.messages[&id].place, Place::Ready(_)));
                        prop_assert!(!before.messages[&id].attempts.contains_key(&attempt));
                    } else {
                        prop_assert_eq!(&before.messages, &state.messages);
                    }
                }
                Step::Finish { worker, message, attempt, status } => {
                    let (id, worker) = (ids[usize::from(message)], &workers[usize::from(worker)]);
                    let ending = Ending { status, error_code: None, retry_after: None };
                    let applied = state.finish(now, worker, id, attempt, &ending, 0.5);
                    let (old, new) = (&before.messages[&id], &state.messages[&id]);
                    prop_assert!(applied || old == new);
                    if let Place::Leased(lease) = &old.place
                        && (lease.attempt != attempt || lease.worker != *worker)
                    {
                        prop_assert_eq!(&old.place, &new.place);
                    }
                    prop_assert!(!state.finish(now, worker, id, attempt, &ending, 0.5), "a repeat applies");
                }
                Step::Resolve { message, attempt, verdict, evidence } => {
                    let id = ids[usize::from(message)];
                    let applied = state.resolve(id, attempt, verdict, evidence);
                    let (old, new) = (&before.messages[&id], &state.messages[&id]);
                    prop_assert!(applied || old == new);
                    prop_assert!(!matches!(old.place, Place::Leased(_)) || old.place == new.place);
                    prop_assert!(!state.resolve(id, attempt, verdict, evidence), "a repeat applies");
                }
                Step::Receipt { message, attempt, told } => {
                    let id = ids[usize::from(message)];
                    let result = state.record_receipt(id, attempt, told);
                    let (old, new) = (&before.messages[&id], &state.messages[&id]);
                    prop_assert!(result != ReceiptResult::Unknown || old == new);
                    prop_assert!(new.attempts.get(&attempt).is_none_or(|row| row.status != AttemptStatus::Unclear)
                        || result == ReceiptResult::Unknown);
                    let again = state.clone().record_receipt(id, attempt, told);
                    prop_assert!(again != ReceiptResult::Recorded, "a repeat tells something");
                }
                Step::Cancel(message) => {
                    let id = ids[usize::from(message)];
                    let waited = before.messages[&id].status() == DispatchStatus::Pending;
                    prop_assert_eq!(state.cancel(id), waited);
                }
                Step::Retry(message) => {
                    state.retry(now, ids[usize::from(message)]);
                }
                Step::Pause(app, on) => {
                    if let Some(row) = state.apps.get_mut(&apps[usize::from(app)]) {
                        row.paused = on;
                    }
                }
                Step::Pass(seconds) => {
                    now += Duration::from_secs(seconds.into());
                    state.run_maintenance(now, 0.5);
                    for message in state.messages.values() {
                        if let Place::Leased(lease) = &message.place {
                            prop_assert!(lease.expires_at > now);
                        }
                    }
                }
            }
            for (id, message) in &state.messages {
                let old = &before.messages[id];
                prop_assert!(old.attempts.keys().all(|attempt| message.attempts.contains_key(attempt)));
                prop_assert!(old.status() != DispatchStatus::Sent || message.status() == DispatchStatus::Sent);
                prop_assert!(message.tries <= state.rules.max_attempts);
                if message.status() == DispatchStatus::Failed {
                    prop_assert!(!message.has_unclear_attempt());
                }
                if message.status() == DispatchStatus::Sent {
                    prop_assert!(matches!(message.place, Place::Accepted | Place::Leased(_)));
                }
            }
        }
    }
}
