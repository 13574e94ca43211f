//! Order, fairness, room and shares.

use proptest::prelude::*;

use super::*;
use crate::message::DispatchStatus;
use crate::outbox::Snapshot;
use crate::outbox::memory::{Ending, NewMessage};

#[test]
fn urgent_goes_first_but_for_one_claim_in_sixteen() {
    let queue = MemoryOutbox::new("application");
    install(&queue, "shop", "sandbox", 1000);
    for priority in [2, 1, 0] {
        for _ in 0..100 {
            queue.enqueue(NewMessage { priority, ..NewMessage::of("shop") });
        }
    }
    let mut worker = Worker::new(&queue, "a", Limits::default());
    worker.look_on();
    worker.read_apps();
    let claims = worker.claim(100);
    let state = queue.state();
    let priorities: Vec<u8> = claims.iter().map(|claim| state.messages[&claim.id].priority).collect();
    let lower: Vec<(usize, u8)> = (1..=64).zip(priorities).filter(|(_, priority)| *priority != 0).collect();
    assert_eq!(lower, [(16, 1), (32, 2), (48, 1), (64, 2)]);
}

#[test]
fn organizations_take_turns() {
    let queue = MemoryOutbox::new("application");
    for (organization, messages) in [("a", 50), ("b", 3), ("c", 50)] {
        install(&queue, organization, "sandbox", 1000);
        for _ in 0..messages {
            queue.enqueue(NewMessage::of(organization));
        }
    }
    let mut worker = Worker::new(&queue, "w", Limits::default());
    worker.look_on();
    worker.read_apps();
    let state = queue.state();
    let order: String =
        worker.claim(30).iter().take(12).map(|claim| state.messages[&claim.id].organization.to_string()).collect();
    assert_eq!(order, "abcabcabcaca");
}

#[test]
fn a_paused_organization_stands_in_nobodys_way_and_goes_on_when_resumed() {
    let queue = MemoryOutbox::new("application");
    for organization in ["paused", "shop"] {
        install(&queue, organization, "sandbox", 1000);
        for _ in 0..3 {
            queue.enqueue(NewMessage::of(organization));
        }
    }
    queue.set_organization_paused("paused", true);
    let mut worker = Worker::new(&queue, "w", Limits::default());
    worker.round();
    assert_eq!(worker.in_flight.len(), 3);
    assert!(worker.claim(10).is_empty());
    queue.set_organization_paused("paused", false);
    let wake = worker.scheduler.next_wake().expect("its apps are read again");
    queue.advance(wake - queue.now());
    worker.read_apps();
    assert_eq!(worker.claim(10).len(), 3);
}

#[test]
fn messages_pinned_to_a_paused_app_do_not_hold_up_the_organizations_others() {
    let queue = MemoryOutbox::new("application");
    let paused = install(&queue, "shop", "mora-sms", 16);
    install(&queue, "shop", "sandbox", 16);
    queue.set_app_paused(paused, true);
    for _ in 0..20 {
        queue.enqueue(NewMessage { pinned: Some("mora-sms".into()), ..NewMessage::of("shop") });
    }
    let free = queue.enqueue(NewMessage::of("shop"));
    let mut worker = Worker::new(&queue, "w", TINY);
    worker.round();
    assert_eq!(worker.in_flight.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [free]);
}

#[test]
fn messages_that_only_a_paused_app_may_still_send_are_set_aside_for_those_behind_them() {
    let queue = MemoryOutbox::new("application");
    let (paused, open) = (install(&queue, "shop", "mora-sms", 16), install(&queue, "shop", "sandbox", 16));
    let refused: Vec<MessageId> = (0..8).map(|_| queue.enqueue(NewMessage::of("shop"))).collect();
    for id in &refused {
        let claims = [Claim { id: *id, app: Some(open) }];
        now(queue.claim(&claims)).expect("claim");
        finish(&queue, *id, 1, AttemptStatus::RefusedContent);
    }
    queue.set_app_paused(paused, true);
    let behind = queue.enqueue(NewMessage::of("shop"));
    let mut worker = Worker::new(&queue, "w", TINY);
    for _ in 0..10 {
        worker.round();
    }
    assert_eq!(worker.in_flight.iter().map(|(id, ..)| *id).collect::<Vec<_>>(), [behind]);
    queue.set_app_paused(paused, false);
    for _ in 0..20 {
        queue.advance(Duration::from_secs(1));
        worker.round();
    }
    assert_eq!(worker.in_flight.len(), 9);
}

#[test]
fn an_organization_without_any_app_has_its_message_ended() {
    let queue = MemoryOutbox::new("application");
    let id = queue.enqueue(NewMessage::of("shop"));
    let mut worker = Worker::new(&queue, "w", Limits::default());
    worker.look_on();
    assert!(worker.claim(10).is_empty(), "nothing is known of its apps yet");
    worker.read_apps();
    assert_eq!(worker.claim(10), [Claim { id, app: None }]);
    assert_eq!(queue.status(id), Some(DispatchStatus::Failed));
    assert_eq!(worker.scheduler.held(), 0);
}

#[test]
fn a_locked_message_rests_and_an_unavailable_app_is_read_again() {
    let queue = MemoryOutbox::new("application");
    let app = install(&queue, "shop", "sandbox", 16);
    let id = queue.enqueue(NewMessage::of("shop"));
    let mut worker = Worker::new(&queue, "w", Limits::default());
    queue.set_locked(id, true);
    worker.round();
    assert!(worker.claim(10).is_empty(), "it rests");
    queue.set_locked(id, false);
    queue.set_app_paused(app, true);
    queue.advance(worker.scheduler.next_wake().expect("its rest ends") - queue.now());
    assert_eq!(worker.claim(10).len(), 1);
    assert!(worker.in_flight.is_empty());
    queue.set_app_paused(app, false);
    queue.advance(Duration::from_secs(1));
    assert!(worker.claim(10).is_empty(), "its app is to be read first");
    worker.read_apps();
    assert_eq!(worker.claim(10), [Claim { id, app: Some(app) }]);
    assert_eq!(worker.in_flight.len(), 1);
}

#[test]
fn another_workers_message_is_taken_when_it_has_waited_a_second() {
    let queue = MemoryOutbox::new("application");
    install(&queue, "shop", "sandbox", 1000);
    for _ in 0..100 {
        queue.enqueue(NewMessage::of("shop"));
    }
    let mut worker = Worker::new(&queue, "a", Limits::default());
    worker.scheduler.set_workers(&["a".to_owned(), "asleep".to_owned()]);
    worker.look_on();
    worker.read_apps();
    worker.claim(1000);
    let own = worker.in_flight.len();
    assert!((30..70).contains(&own), "{own}");
    queue.advance(Duration::from_millis(999));
    worker.look_on();
    worker.claim(1000);
    assert_eq!(worker.in_flight.len(), own);
    while let Some(wake) = worker.scheduler.next_wake() {
        queue.advance(wake.saturating_sub(queue.now()).max(Duration::from_millis(1)));
        worker.look_on();
        worker.read_apps();
        worker.claim(1000);
        assert!(queue.now() < Duration::from_secs(3));
    }
    assert_eq!(worker.in_flight.len(), 100);
}

#[test]
fn apps_that_hang_leave_places_for_the_others() {
    let queue = MemoryOutbox::new("application");
    for organization in ["hangs", "hangs-too"] {
        install(&queue, organization, "sandbox", 1000);
        for _ in 0..200 {
            queue.enqueue(NewMessage::of(organization));
        }
    }
    let mut worker = Worker::new(&queue, "w", Limits::default());
    let round = |worker: &mut Worker| {
        worker.look_on();
        worker.read_apps();
        worker.claim(90 - worker.in_flight.len())
    };
    for _ in 0..5 {
        round(&mut worker);
    }
    assert_eq!(worker.in_flight.len(), 80, "a ninth is free");
    let app = install(&queue, "shop", "sandbox", 1000);
    let id = queue.enqueue(NewMessage::of("shop"));
    assert_eq!(round(&mut worker), [Claim { id, app: Some(app) }]);
    worker.finish(10, AttemptStatus::Accepted);
    round(&mut worker);
    assert_eq!(worker.in_flight.len(), 81, "whoever waited for places goes on when some come free");
}

proptest! {
    /// Over a whole fleet, whatever is asked, given back and released.
    #[test]
    fn room_is_never_exceeded(
        workers in 1..5_usize,
        max_in_flight in 1..9_u32,
        turns in proptest::collection::vec((0..5_usize, 0..6_usize, 0..4_usize), 1..60),
    ) {
        let queue = MemoryOutbox::new("application");
        install(&queue, "shop", "sandbox", max_in_flight);
        for _ in 0..100 {
            queue.enqueue(NewMessage::of("shop"));
        }
        let names: Vec<String> = (0..workers).map(|number| format!("w{number}")).collect();
        let mut fleet: Vec<Worker> = names.iter().map(|name| Worker::new(&queue, name, Limits::default())).collect();
        for worker in &mut fleet {
            worker.scheduler.set_workers(&names);
        }
        for (number, free, ended) in turns {
            let worker = &mut fleet[number % workers];
            worker.look_on();
            worker.read_apps();
            worker.claim(free);
            let in_flight: usize = fleet.iter().map(|worker| worker.in_flight.len()).sum();
            prop_assert!(in_flight <= max_in_flight as usize, "{} in flight", in_flight);
            fleet[number % workers].finish(ended, AttemptStatus::Accepted);
        }
    }
}

/// A message that was queued anew while a claim of its older row was under way is not forgotten with that row.
#[test]
fn a_message_queued_anew_during_its_claim_is_kept() {
    let queue = MemoryOutbox::new("application");
    let app = install(&queue, "shop", "sandbox", 16);
    let id = queue.enqueue(NewMessage::of("shop"));
    let mut worker = Worker::new(&queue, "w", Limits::default());
    worker.look_on();
    worker.read_apps();
    let claims = worker.scheduler.plan(queue.now(), 1);
    let mut other = queue.state();
    other.claim(queue.now(), &"other".into(), id, Some(app));
    let throttled = Ending { status: AttemptStatus::Throttled, error_code: None, retry_after: None };
    other.finish(queue.now(), &"other".into(), id, 1, &throttled, 0.0);
    worker.look(&other);
    worker.scheduler.claimed(queue.now(), &claims, &[Claimed::Gone]);
    assert_eq!(worker.scheduler.plan(queue.now(), 1), [Claim { id, app: Some(app) }]);
}

#[test]
fn another_log_is_read_from_its_beginning() {
    let mut scheduler = Scheduler::new("w", Limits::default());
    let mut look = |log, xmax| {
        let look = scheduler.next_look(Duration::ZERO);
        let snapshot = Snapshot { xmax, in_progress: vec![xmax - 1] };
        let again = scheduler.observe(Duration::ZERO, &look, &Looked { log, snapshot, entries: Vec::new() });
        (again, scheduler.next_look(Duration::ZERO).ranges)
    };
    let (_, ranges) = look(1, 100);
    assert_eq!((ranges[0].after.xid, ranges.len()), (100, 2 * PRIORITIES));
    // A crash took back what was not durable, and others have got those numbers since.
    let (again, ranges) = look(2, 120);
    assert!(again);
    assert_eq!((ranges[0].after, ranges.len()), (Mark::default(), PRIORITIES));
}
