//! Records outcomes, as many at once as have come while the last were being recorded.

use std::slice::from_ref;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;
use tokio::time::{Instant, sleep_until};

use super::heart::Counters;
use super::{Gather, Token};
use crate::failpoint::{self, Point};
use crate::logging::Told;
use crate::message::AttemptStatus;
use crate::outbox::{Finish, Outbox, OutboxError, Outcome};

/// Attempts whose outcomes are dealt with.
#[derive(Debug, Default)]
pub(super) struct Settled {
    pub(super) over: Vec<Token>,
    /// Those of them whose outcome the database does not know: their leases live on.
    pub(super) lost: Vec<Token>,
}

const LARGEST_BATCH: usize = 500;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs until no attempt can end any more. Each outcome is held until the database has it, however long that is away:
/// what a provider said is known here alone. Few wait for more, a moment.
pub(super) async fn run<O: Outbox>(
    outbox: Arc<O>,
    mut ended: mpsc::Receiver<Finish>,
    settled: mpsc::Sender<Settled>,
    counters: Arc<Counters>,
    gather: Gather,
) {
    let mut finishes = Vec::with_capacity(LARGEST_BATCH);
    let mut next_small = Instant::now();
    while ended.recv_many(&mut finishes, LARGEST_BATCH).await > 0 {
        // Where nothing else is in flight, nothing will join.
        while finishes.len() < gather.enough.min(LARGEST_BATCH).min(counters.unrecorded()) {
            let room = LARGEST_BATCH - finishes.len();
            tokio::select! {
                biased;
                more = ended.recv_many(&mut finishes, room) => if more == 0 { break },
                () = sleep_until(next_small) => break,
            }
        }
        next_small = Instant::now() + gather.patience;
        failpoint::reach(Point::Finish).await;
        let lost = record(&*outbox, &finishes).await;
        failpoint::reach(Point::Finished).await;
        for finish in &finishes {
            counters.ended(finish.outcome.status == AttemptStatus::Accepted);
        }
        let over = finishes.drain(..).map(|finish| (finish.id, finish.attempt)).collect();
        if settled.send(Settled { over, lost }).await.is_err() {
            return;
        }
    }
}

/// Records all of them, and returns those that the database cannot take. Such a one must hold back neither the others nor,
/// of itself, the fact that it was sent.
async fn record<O: Outbox>(outbox: &O, finishes: &[Finish]) -> Vec<Token> {
    let Err(refusal) = until_answered(outbox, finishes).await else { return Vec::new() };
    let mut lost = Vec::new();
    tracing::error!(%refusal, outcomes = finishes.len(), "outcomes not recorded together; recording them one by one");
    for finish in finishes {
        if until_answered(outbox, from_ref(finish)).await.is_ok() {
            continue;
        }
        if let Err(refusal) = until_answered(outbox, from_ref(&without_texts(finish))).await {
            tracing::error!(message_id = %finish.id, attempt = finish.attempt, status = %finish.outcome.status, %refusal,
                "this outcome is lost; the message will end as dispatch_timeout");
            lost.push((finish.id, finish.attempt));
        }
    }
    lost
}

/// The outcome without what a provider wrote: only that can be to a database's dislike.
fn without_texts(finish: &Finish) -> Finish {
    let outcome = Outcome { error_message: None, response: None, provider_message_id: None, ..finish.outcome.clone() };
    Finish { outcome, ..*finish }
}

/// Asks until the database has taken these outcomes, or refuses them for good.
async fn until_answered<O: Outbox>(outbox: &O, finishes: &[Finish]) -> Result<(), OutboxError> {
    let mut pause = FIRST_PAUSE;
    let mut told = Told::default();
    loop {
        match outbox.finish(finishes).await {
            Ok(answers) => {
                for stale in answers.iter().filter(|answer| !answer.applied) {
                    tracing::info!(message_id = %stale.id, attempt = stale.attempt, dispatch_status = ?stale.status,
                        "outcome was recorded already, or came too late");
                }
                return Ok(());
            }
            Err(refusal @ OutboxError::Refused { .. }) => return Err(refusal),
            Err(error) => {
                if told.is_news(&error) {
                    tracing::warn!(%error, outcomes = finishes.len(), "outcomes not recorded yet; trying again");
                }
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

#[cfg(test)]
mod tests;
