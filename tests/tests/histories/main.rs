//! The same generated histories on the rules in memory and on the real SQL: every call must give the same answer, and
//! after every step each message and each app must stand the same. A difference is shrunk to a short history.
//!
//! `CASES=5000 SEED=7 make test-flow TEST=histories` plays more of them, and others.

mod broken;
mod side;
mod step;
#[path = "../subject/mod.rs"]
mod subject;

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};

use anyhow::{Context, Result, bail, ensure};
use proptest::test_runner::{Config, RngAlgorithm, TestCaseError, TestError, TestRng, TestRunner};
use sms_outbox_tests::{Major, on_majors};
use sms_outbox_worker::outbox::conformance::{MAX_ATTEMPTS, Subject};
use sms_outbox_worker::outbox::memory::{MemoryOutbox, Place, Rules};
use sms_outbox_worker::outbox::postgres::PostgresOutbox;
use subject::Queue;
use tokio::runtime::Handle;

use crate::side::{Fact, Side, WORKERS};
use crate::step::{Step, histories};

on_majors! { ends: memory_and_sql_stand_the_same }

/// Histories that are played, and the seed of their choice; both from the environment where they are set there.
fn number(name: &str, otherwise: u32) -> Result<u32> {
    match std::env::var(name) {
        // make hands on what is not set as well, empty.
        Ok(text) if !text.is_empty() => text.parse().with_context(|| format!("{name}: {text:?} is no number")),
        _ => Ok(otherwise),
    }
}

async fn memory_and_sql_stand_the_same(major: Major) -> Result<()> {
    let players = Arc::new(Players::new(major).await?);
    let cases = number("CASES", 60)?;
    match players.explore(40, cases, number("SEED", 1)?).await? {
        None => Ok(()),
        Some((reason, history)) => bail!("{reason}\nafter the history {history:#?}"),
    }
}

/// The real queue, which many histories share: each has organizations of its own.
struct Players {
    queue: Queue,
    workers: [PostgresOutbox; 2],
    played: AtomicU32,
}

impl Players {
    async fn new(major: Major) -> Result<Self> {
        let queue = Queue::start(major).await?;
        let workers = [queue.worker(WORKERS[0]).await?, queue.worker(WORKERS[1]).await?];
        Ok(Self { queue, workers, played: AtomicU32::new(0) })
    }

    /// Plays histories of up to so many steps; the shortest one that shows a difference, where one does, and what it is.
    async fn explore(self: &Arc<Self>, longest: usize, cases: u32, seed: u32) -> Result<Option<(String, Vec<Step>)>> {
        let (players, handle) = (Arc::clone(self), Handle::current());
        // The same histories in every run: a difference that comes up is a change's doing.
        let mut bytes = [0; 32];
        bytes[..4].copy_from_slice(&seed.to_le_bytes());
        let config = Config {
            cases,
            failure_persistence: None,
            max_shrink_iters: 300,
            max_shrink_time: 60_000,
            ..Config::default()
        };
        let mut runner = TestRunner::new_with_rng(config, TestRng::from_seed(RngAlgorithm::ChaCha, &bytes));
        let found = tokio::task::spawn_blocking(move || {
            runner.run(&histories(longest), |history| {
                handle
                    .block_on(players.play(&history))
                    .map_err(|difference| TestCaseError::fail(format!("{difference:#}")))
            })
        });
        match found.await? {
            Ok(()) => Ok(None),
            Err(TestError::Fail(reason, history)) => Ok(Some((reason.message().to_owned(), history))),
            Err(TestError::Abort(reason)) => bail!("the histories could not be played: {reason}"),
        }
    }

    /// Plays one history on both.
    async fn play(&self, history: &[Step]) -> Result<()> {
        let case = self.played.fetch_add(1, Ordering::Relaxed);
        let memory = MemoryOutbox::new("operator");
        memory.set_rules(Rules { max_attempts: MAX_ATTEMPTS, ..Rules::default() });
        let mut rules = Side::new(&memory, WORKERS.map(|name| memory.with_worker(name)), case).await?;
        let mut sql = Side::new(&self.queue, self.workers.clone(), case).await?;
        for (number, step) in history.iter().enumerate() {
            let facts = facts(&rules).await?;
            let expected = rules.play(step, &facts).await.context("in memory")?;
            let answer = sql.play(step, &facts).await.with_context(|| format!("step {number} on PostgreSQL"))?;
            ensure!(
                answer == expected,
                "step {number} is answered otherwise:\nthe rules say {expected}\nPostgreSQL says {answer}"
            );
            self.queue.stop_time().await?;
            let (expected, found) = (rules.standing().await?, sql.standing().await?);
            ensure!(
                found == expected,
                "after step {number} they stand otherwise:\nby the rules:\n{expected}\nin PostgreSQL:\n{found}"
            );
        }
        sql.close().await
    }
}

/// What the rules know of each message; nothing of one that is not committed.
async fn facts(rules: &Side<'_, MemoryOutbox>) -> Result<Vec<Option<Fact>>> {
    let state = rules.subject.state();
    let standings = rules.subject.standings(&rules.ids).await?;
    let fact = |id| {
        let row = state.messages.get(id)?;
        let holder = match &row.place {
            Place::Leased(lease) => WORKERS.iter().position(|worker| **worker == *lease.worker),
            _ => None,
        };
        let scheduled = matches!(row.place, Place::Scheduled(_));
        Some(Fact { last_attempt: row.last_attempt, holder, scheduled, has_end: row.valid_until.is_some() })
    };
    Ok(rules.ids.iter().zip(standings).map(|(id, standing)| standing.and_then(|_| fact(id))).collect())
}
