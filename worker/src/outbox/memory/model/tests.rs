use std::collections::{BTreeSet, HashMap};
use std::io::Write;
use std::time::Instant;

use stateright::{Checker, HasDiscoveries, Model};

use super::setup::*;
use super::*;

/// Past what a test captures: the size of what was explored is a result.
fn say(line: &str) {
    let _ = std::io::stderr().write_all(format!("{line}\n").as_bytes());
}

fn steps(checker: &impl Checker<Setup>, property: &'static str) -> Option<Vec<Step>> {
    checker.discovery(property).map(|path| path.into_actions())
}

/// Explores everything within the setup's bounds; all properties must hold, and all states that it names be reached.
fn explore(setup: &Setup) {
    let (name, began) = (setup.name, Instant::now());
    let checker = setup.clone().checker().spawn_bfs().join();
    for property in checker.model().properties() {
        let found = steps(&checker, property.name);
        if property.expectation.discovery_is_failure() {
            assert!(found.is_none(), "{name}: broken: {}\n{:#?}", property.name, found);
        } else {
            assert!(found.is_some(), "{name}: {} is never reached", property.name);
        }
    }
    say(&format!(
        "model {name:<32} {:>9} states  {:>9} steps  depth {:>2}  {:>2} properties  {:>6.1} s",
        checker.unique_state_count(),
        checker.state_count(),
        checker.max_depth(),
        checker.model().properties().len(),
        began.elapsed().as_secs_f64()
    ));
}

/// Explores a broken twin, deeper each time, until the property breaks: so the counterexample is the shortest there is.
fn catch(twin: Twin, property: &'static str, setup: Setup) {
    let twin_setup = Setup { twin: Some(twin), ..setup };
    let found = (2..=LONGEST).find_map(|depth| {
        let deepest = HasDiscoveries::AnyOf(BTreeSet::from([property]));
        let checker = twin_setup.clone().checker().target_max_depth(depth).finish_when(deepest).spawn_bfs().join();
        steps(&checker, property)
    });
    let found = found.unwrap_or_else(|| panic!("{twin:?} does not break \"{property}\" within {LONGEST} steps"));
    say(&format!("model twin {twin:?} breaks \"{property}\" in {} steps", found.len()));
}

/// Longest counterexample that a person reads.
const LONGEST: usize = 16;

macro_rules! explored {
    ($($test:ident: $setup:ident;)+) => { $(#[test] fn $test() { explore(&$setup); })+ };
}

explored! {
    crashes_and_lost_answers: CRASH;
    failover_to_the_next_app: FAILOVER;
    two_messages_at_once: TWO_MESSAGES;
    cancel_and_retry: OPERATOR;
    expiry_and_retry: EXPIRY;
    late_commits_are_found: LATE_COMMITS;
    late_commits_are_found_after_a_crash: LATE_COMMITS_CRASH;
    a_deduplicating_provider: DEDUPLICATES;
    an_app_that_opted_in: RESENDS;
    throttled_attempts: THROTTLES;
    receipts_and_look_ups: RECEIPTS_AND_LOOK_UPS;
    retention_of_days: RETENTION;
}

#[test]
#[ignore = "minutes: make model"]
fn larger_bounds() {
    for setup in LARGE {
        explore(setup);
    }
}

macro_rules! caught {
    ($($test:ident: $twin:ident by $property:ident in $setup:expr;)+) => { $(#[test] fn $test() { catch(Twin::$twin, property::$property, $setup); })+ };
}

caught! {
    two_retries_that_both_queue: TwoRetriesQueue by ONE_LEASE in Setup { budget: Budget { retries: 2, cancels: 1, ..NOTHING }, ..OPERATOR };
    a_look_that_forgets_what_is_in_progress: ForgetfulLook by TRIED in LATE_COMMITS;
    resend_on_timeout: ResendOnTimeout by ACCEPTED_ONCE in CRASH;
    finish_without_lease_check: FinishWithoutLease by STALE in OPERATOR;
    claim_committed_after_sending: ClaimAfterSending by CLAIM_FIRST in CRASH;
    lease_by_wall_clock: LeaseByWallClock by ONE_LEASE in CRASH;
    receipt_that_moves_backwards: ReceiptMovesBackwards by RECEIPTS in RECEIPTS_AND_LOOK_UPS;
    day_dropped_by_age_alone: DropByAge by DROPPED in RETENTION;
    day_dropped_before_its_writers: DropBeforeLock by DROPPED in RETENTION;
    gives_back_what_it_began: GivesBackWhatItBegan by ACCEPTED_ONCE in CRASH;
    late_answer_ignored: IgnoresLateAnswer by REPORTED in CRASH;
    cancel_anywhere: CancelsAnywhere by TAKEN_BACK in OPERATOR;
    failover_on_unclear: FailoverOnUnclear by ACCEPTED_ONCE in FAILOVER;
    failed_beside_an_unclear_attempt: FailsBesideUnclear by FAILED in OPERATOR;
    retry_that_counts_anew: RetryCountsAnew by ONE_LEASE in OPERATOR;
}

/// A run that could go round for ever would never come to rest, and the checker would not see it.
#[test]
fn every_run_comes_to_rest() {
    for setup in [CRASH, OPERATOR, THROTTLES, LATE_COMMITS] {
        let Some(begin) = setup.init_states().pop() else { continue };
        // Depth first; false while what follows a state is being visited.
        let mut is_done: HashMap<World, bool> = HashMap::from([(begin.clone(), false)]);
        let mut path = vec![(begin.clone(), setup.next_states(&begin))];
        while let Some((world, next)) = path.last_mut() {
            let Some(follows) = next.pop() else {
                is_done.insert(world.clone(), true);
                path.pop();
                continue;
            };
            match is_done.get(&follows) {
                Some(is_done) => assert!(is_done, "{}: goes round", setup.name),
                None => {
                    is_done.insert(follows.clone(), false);
                    let next = setup.next_states(&follows);
                    path.push((follows, next));
                }
            }
        }
    }
}
