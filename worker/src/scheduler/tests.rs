use futures_util::FutureExt;
use proptest::prelude::*;
use proptest::test_runner::{TestError, TestRunner};

use super::*;
use crate::message::{AttemptStatus, DispatchStatus};
use crate::outbox::memory::{AppRow, Ending, MemoryOutbox, NewMessage, State};
use crate::outbox::{AppState, Outbox, Snapshot, Xid};

fn now<T>(future: impl Future<Output = Result<T, crate::outbox::OutboxError>>) -> Option<T> {
    future.now_or_never().and_then(Result::ok)
}

/// A worker's loop without a dispatcher.
struct Worker {
    outbox: MemoryOutbox,
    scheduler: Scheduler,
    /// Apps of attempts in flight.
    in_flight: Vec<(MessageId, i16, AppId)>,
}

impl Worker {
    fn new(queue: &MemoryOutbox, name: &str, limits: Limits) -> Self {
        Self { outbox: queue.with_worker(name), scheduler: Scheduler::new(name, limits), in_flight: Vec::new() }
    }

    fn look(&mut self, at: &State) -> bool {
        let look = self.scheduler.next_look(self.outbox.now());
        self.scheduler.observe(self.outbox.now(), &look, &at.look(&look))
    }

    fn look_on(&mut self) {
        for _ in 0..1000 {
            if !self.look(&self.outbox.state()) {
                return;
            }
        }
        panic!("there is always more");
    }

    fn read_apps(&mut self) {
        let organizations = self.scheduler.organizations_needing_apps(self.outbox.now());
        if let Some(apps) = now(self.outbox.apps(&organizations)) {
            self.scheduler.set_apps(self.outbox.now(), &organizations, apps);
        }
    }

    fn claim(&mut self, free: usize) -> Vec<Claim> {
        let claims = self.scheduler.plan(self.outbox.now(), free);
        match now(self.outbox.claim(&claims)) {
            Some(answers) => {
                self.scheduler.claimed(self.outbox.now(), &claims, &answers);
                let leases = answers.iter().filter_map(|answer| match answer {
                    Claimed::Leased(lease) => Some((lease.id, lease.attempt, lease.app)),
                    _ => None,
                });
                self.in_flight.extend(leases);
            }
            None => {
                self.scheduler.unasked(self.outbox.now(), &claims);
                self.give_back_lost_leases();
            }
        }
        claims
    }

    /// What was leased by a call whose answer was lost never began.
    fn give_back_lost_leases(&mut self) {
        for (id, attempt) in now(self.outbox.leases()).unwrap_or_default() {
            if !self.in_flight.iter().any(|(known, number, _)| (*known, *number) == (id, attempt)) {
                finish(&self.outbox, id, attempt, AttemptStatus::Throttled);
            }
        }
    }

    fn finish(&mut self, most: usize, status: AttemptStatus) {
        let ended = most.min(self.in_flight.len());
        for (id, attempt, app) in self.in_flight.drain(..ended) {
            finish(&self.outbox, id, attempt, status);
            self.scheduler.released(app);
        }
    }

    fn round(&mut self) {
        self.look_on();
        self.read_apps();
        self.claim(4);
    }
}

fn finish(outbox: &MemoryOutbox, id: MessageId, attempt: i16, status: AttemptStatus) {
    let outcome = crate::outbox::Outcome {
        status,
        http_status: None,
        error_code: None,
        error_message: None,
        response: None,
        provider_message_id: None,
        retry_after: Some(Duration::from_millis(10)),
    };
    now(outbox.finish(&[crate::outbox::Finish { id, attempt, outcome }])).expect("finish");
}

fn install(queue: &MemoryOutbox, organization: &str, slug: &str, max_in_flight: u32) -> AppId {
    let mut row = AppRow::new(organization.into(), slug.into());
    row.max_in_flight = max_in_flight;
    queue.install_app(row, serde_json::Value::Null)
}

/// So small that every path is taken: pages of two, lanes of two, ten messages in all.
const TINY: Limits = Limits { entries: 12, lane: 2, page: 2 };

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
    #![proptest_config(ProptestConfig { cases: 400, ..ProptestConfig::default() })]

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

/// A log too long for the memory outbox: rows by transaction, one each, of organizations by number.
struct LongLog {
    rows: Vec<Option<u16>>,
}

impl LongLog {
    fn id(row: usize) -> MessageId {
        MessageId(uuid::Uuid::from_u128((row as u128 + 1) << 80 | 7 << 76 | row as u128))
    }

    fn look(&self, look: &Look) -> Looked {
        let snapshot = Snapshot { xmax: self.rows.len() as Xid + 1, in_progress: Vec::new() };
        let mut looked = Looked { snapshot, entries: Vec::new() };
        for (number, range) in look.ranges.iter().enumerate().filter(|(_, range)| range.priority == 1) {
            let from = match (range.after.xid as usize).checked_sub(1) {
                Some(row) if mark_of(row) <= range.after => row + 1,
                row => row.unwrap_or(0),
            };
            let rows = self.rows.iter().enumerate().skip(from).filter_map(|(row, of)| of.map(|of| (row, of)));
            let entries = rows.map(|(row, of)| Entry {
                range: number,
                id: Self::id(row),
                organization: format!("o{of}").into(),
                priority: 1,
                xid: row as Xid + 1,
                pinned: None,
                refused_by: Vec::new(),
                avoid: Vec::new(),
            });
            let asked =
                |entry: &Entry| look.organizations.is_empty() || look.organizations.contains(&entry.organization);
            looked.entries.extend(entries.filter(asked).take(look.page as usize));
        }
        looked
    }
}

fn mark_of(row: usize) -> Mark {
    Mark { xid: row as Xid + 1, id: LongLog::id(row).0 }
}

fn read_all(scheduler: &mut Scheduler, log: &LongLog) -> usize {
    for looks in 1..100_000 {
        let look = scheduler.next_look(Duration::ZERO);
        if !scheduler.observe(Duration::ZERO, &look, &log.look(&look)) {
            return looks;
        }
    }
    panic!("there is always more");
}

fn open_apps(organizations: impl IntoIterator<Item = u16>) -> (Vec<OrganizationId>, Vec<App>) {
    let app = |of: u16| App {
        id: AppId(of.into()),
        organization: format!("o{of}").into(),
        slug: "sandbox".into(),
        position: 100,
        weight: 1,
        max_in_flight: u32::MAX,
        rate: None,
        state: AppState::Open,
    };
    let apps: Vec<App> = organizations.into_iter().map(app).collect();
    (apps.iter().map(|app| app.organization.clone()).collect(), apps)
}

#[test]
fn behind_a_million_of_one_organization_the_others_message_is_in_the_first_plan() {
    let mut rows = vec![Some(0); 1_000_000];
    rows.push(Some(1));
    let mut log = LongLog { rows };
    let limits = Limits::default();
    let mut scheduler = Scheduler::new("a", limits);
    read_all(&mut scheduler, &log);
    assert_eq!(scheduler.held(), limits.lane + 1);
    let (organizations, apps) = open_apps([0, 1]);
    scheduler.set_apps(Duration::ZERO, &organizations, apps);
    let mut picked = 0;
    for turn in 0..50 {
        let claims = scheduler.plan(Duration::ZERO, 100);
        if turn == 0 {
            assert!(claims[..2].iter().any(|claim| claim.id == LongLog::id(1_000_000)));
        }
        for claim in &claims {
            let row = (claim.id.0.as_u128() >> 80) as usize - 1;
            assert!(log.rows[row].take().is_some(), "claimed twice");
        }
        picked += claims.len();
        scheduler.claimed(Duration::ZERO, &claims, &vec![Claimed::Gone; claims.len()]);
        read_all(&mut scheduler, &log);
        assert!(scheduler.held() <= limits.lane + 1);
    }
    // The big one is read on as its window empties, and in order.
    assert_eq!(picked, 5000);
    assert!(log.rows[..4999].iter().all(Option::is_none));
}

#[test]
fn memory_stays_within_its_bound_and_every_organization_has_a_part_of_it() {
    // 40,000 rows of 300 organizations, the first of which comes with half of them.
    let rows = (0..40_000_u32).map(|row| Some(if row % 2 == 0 { 0 } else { (row / 2 % 299) as u16 + 1 })).collect();
    let log = LongLog { rows };
    let limits = Limits { entries: 3000, lane: 1000, page: 500 };
    let mut scheduler = Scheduler::new("a", limits);
    read_all(&mut scheduler, &log);
    assert!(scheduler.held() <= 1000, "{}", scheduler.held());
    let waiting = scheduler.organizations_needing_apps(Duration::ZERO);
    assert_eq!(waiting.len(), MOST_ORGANIZATIONS);
    assert_eq!(scheduler.window.organizations().count(), 300);
}

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
    let claims = worker.claim(64);
    let state = queue.state();
    let priorities: Vec<u8> = claims.iter().map(|claim| state.messages[&claim.id].priority).collect();
    let lower: Vec<(usize, u8)> = (1..).zip(priorities).filter(|(_, priority)| *priority != 0).collect();
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
        worker.claim(12).iter().map(|claim| state.messages[&claim.id].organization.to_string()).collect();
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
