//! Every committed message is picked in the end, whatever applications, workers, operators and poolers do.

use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use super::*;
use crate::message::DispatchStatus;
use crate::outbox::Xid;
use crate::outbox::memory::NewMessage;

#[derive(Clone, Debug)]
enum Step {
    Begin,
    Enqueue { transaction: Option<u8>, organization: u8, priority: u8, pinned: Option<bool> },
    End { transaction: u8, commit: bool },
    Remember,
    StaleLook(u8),
    Look(u8),
    Claim(u8, u8),
    Finish(u8, u8, bool),
    LoseAnswer(u8),
    Lock(u8),
    Pause(u8),
    Resume(u8),
    Pass(u16),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let enqueue =
        (proptest::option::weighted(0.7, 0..8_u8), 0..3_u8, 0..3_u8, proptest::option::weighted(0.2, any::<bool>()))
            .prop_map(|(transaction, organization, priority, pinned)| Step::Enqueue {
                transaction,
                organization,
                priority,
                pinned,
            });
    let step = prop_oneof![
        3 => Just(Step::Begin),
        12 => enqueue,
        3 => (0..8_u8, proptest::bool::weighted(0.8))
            .prop_map(|(transaction, commit)| Step::End { transaction, commit }),
        1 => Just(Step::Remember),
        1 => (0..3_u8).prop_map(Step::StaleLook),
        6 => (0..3_u8).prop_map(Step::Look),
        4 => (0..3_u8, 1..6_u8).prop_map(|(worker, free)| Step::Claim(worker, free)),
        3 => (0..3_u8, 1..6_u8, any::<bool>()).prop_map(|(worker, most, good)| Step::Finish(worker, most, good)),
        1 => (0..3_u8).prop_map(Step::LoseAnswer),
        1 => (0..40_u8).prop_map(Step::Lock),
        1 => (0..3_u8).prop_map(Step::Pause),
        1 => (0..3_u8).prop_map(Step::Resume),
        2 => (0..1500_u16).prop_map(Step::Pass),
    ];
    proptest::collection::vec(step, 1..120)
}

const ORGANIZATIONS: [&str; 3] = ["shop", "bank", "clinic"];

/// Plays a history with three workers, lets two of them die, and sees whether the last one finds all that is left.
fn play(history: &[Step], forgetful: bool) -> Result<(), TestCaseError> {
    let queue = MemoryOutbox::new("application");
    for organization in ORGANIZATIONS {
        install(&queue, organization, "sandbox", 4);
        install(&queue, organization, "mora-sms", 2);
    }
    let names = ["a", "b", "c"].map(str::to_owned);
    let mut workers: Vec<Worker> = names.iter().map(|name| Worker::new(&queue, name, TINY)).collect();
    for worker in &mut workers {
        worker.scheduler.set_workers(&names);
        worker.scheduler.marks.forgetful = forgetful;
    }
    let (mut open, mut ids): (Vec<Xid>, Vec<MessageId>) = (Vec::new(), Vec::new());
    let mut old = queue.state();
    for step in history {
        match step.clone() {
            Step::Begin => open.push(queue.begin()),
            Step::Enqueue { transaction, organization, priority, pinned } => {
                let pinned = pinned.map(|first| if first { "sandbox" } else { "mora-sms" }.into());
                let message =
                    NewMessage { priority, pinned, ..NewMessage::of(ORGANIZATIONS[usize::from(organization)]) };
                ids.push(match transaction.and_then(|number| open.get(usize::from(number) % open.len().max(1))) {
                    Some(xid) => queue.enqueue_in(*xid, message),
                    None => queue.enqueue(message),
                });
            }
            Step::End { transaction, commit } if !open.is_empty() => {
                let xid = open.remove(usize::from(transaction) % open.len());
                if commit { queue.commit(xid) } else { queue.rollback(xid) }
            }
            Step::End { .. } => {}
            Step::Remember => old = queue.state(),
            Step::StaleLook(worker) => drop(workers[usize::from(worker)].look(&old)),
            Step::Look(worker) => drop(workers[usize::from(worker)].look(&queue.state())),
            Step::Claim(worker, free) => {
                workers[usize::from(worker)].read_apps();
                workers[usize::from(worker)].claim(free.into());
            }
            Step::Finish(worker, most, good) => {
                let status = if good { AttemptStatus::Accepted } else { AttemptStatus::NotSent };
                workers[usize::from(worker)].finish(most.into(), status);
            }
            Step::LoseAnswer(worker) => {
                let worker = &mut workers[usize::from(worker)];
                worker.read_apps();
                queue.lose_answers(1);
                worker.claim(4);
            }
            Step::Lock(number) => {
                if let Some(id) = ids.get(usize::from(number)) {
                    queue.set_locked(*id, true);
                }
            }
            Step::Pause(organization) => queue.set_organization_paused(ORGANIZATIONS[usize::from(organization)], true),
            Step::Resume(organization) => {
                queue.set_organization_paused(ORGANIZATIONS[usize::from(organization)], false);
            }
            Step::Pass(milliseconds) => {
                queue.advance(Duration::from_millis(milliseconds.into()));
                queue.run_maintenance();
            }
        }
        for worker in &workers {
            prop_assert!(worker.scheduler.held() <= TINY.entries);
        }
    }
    for xid in open {
        queue.commit(xid);
    }
    for organization in ORGANIZATIONS {
        queue.set_organization_paused(organization, false);
    }
    for id in &ids {
        queue.set_locked(*id, false);
    }
    for worker in &mut workers {
        worker.finish(usize::MAX, AttemptStatus::Accepted);
    }
    let mut last = workers.swap_remove(0);
    last.scheduler.set_workers(&["a".to_owned()]);
    let left = |queue: &MemoryOutbox| {
        ids.iter().filter(|id| queue.status(**id).is_some_and(|status| status == DispatchStatus::Pending)).count()
    };
    // Backoffs and breakers may take minutes; so does this loop, in its own time.
    for _ in 0..2000 {
        if left(&queue) == 0 {
            break;
        }
        last.round();
        last.finish(usize::MAX, AttemptStatus::Accepted);
        queue.advance(Duration::from_millis(500));
        queue.run_maintenance();
    }
    prop_assert_eq!(left(&queue), 0, "messages were forgotten");
    for _ in 0..20 {
        last.round();
        last.finish(usize::MAX, AttemptStatus::Accepted);
        queue.advance(Duration::from_millis(500));
    }
    prop_assert_eq!((last.scheduler.held(), last.scheduler.marks.remembered()), (0, 0), "something stays for ever");
    prop_assert!(last.scheduler.rooms.values().all(|room| room.in_flight() == 0));
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 1000, ..ProptestConfig::default() })]

    #[test]
    fn every_committed_message_is_picked_in_the_end(history in steps()) {
        play(&history, false)?;
    }
}

#[test]
fn without_remembering_late_transactions_some_are_forgotten() {
    let config = ProptestConfig { cases: 400, failure_persistence: None, ..ProptestConfig::default() };
    let found = TestRunner::new_with_rng(config, proptest::test_runner::TestRng::deterministic_rng(Default::default()))
        .run(&steps(), |history| play(&history, true));
    assert!(matches!(found, Err(TestError::Fail(..))), "the model does not notice: {found:?}");
}
