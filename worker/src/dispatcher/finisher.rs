//! Records outcomes, as many at once as have come while the last were being recorded.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::mpsc;

use super::Token;
use super::heart::Counters;
use crate::message::AttemptStatus;
use crate::outbox::{Finish, Outbox, OutboxError};

const LARGEST_BATCH: usize = 500;
const FIRST_PAUSE: Duration = Duration::from_millis(100);
const LONGEST_PAUSE: Duration = Duration::from_secs(5);

/// Runs until no attempt can end any more. Each outcome is held until the database has it, however long that is away:
/// what a provider said is known here alone.
pub(super) async fn run<O: Outbox>(
    outbox: Arc<O>,
    mut ended: mpsc::Receiver<Finish>,
    recorded: mpsc::Sender<Vec<Token>>,
    counters: Arc<Counters>,
) {
    let mut finishes = Vec::with_capacity(LARGEST_BATCH);
    while ended.recv_many(&mut finishes, LARGEST_BATCH).await > 0 {
        record(&*outbox, &finishes).await;
        for finish in &finishes {
            counters.ended(finish.outcome.status == AttemptStatus::Accepted);
        }
        let tokens = finishes.drain(..).map(|finish| (finish.id, finish.attempt)).collect();
        if recorded.send(tokens).await.is_err() {
            return;
        }
    }
}

async fn record<O: Outbox>(outbox: &O, finishes: &[Finish]) {
    let mut pause = FIRST_PAUSE;
    loop {
        match outbox.finish(finishes).await {
            Ok(answers) => {
                for stale in answers.iter().filter(|answer| !answer.applied) {
                    tracing::info!(id = %stale.id, attempt = stale.attempt, status = ?stale.status, "outcome was recorded already, or came too late");
                }
                return;
            }
            Err(OutboxError::Refused { sqlstate, message }) => {
                return record_one_by_one(outbox, finishes, &sqlstate, &message).await;
            }
            Err(error) => {
                tracing::warn!(%error, outcomes = finishes.len(), "outcomes not recorded yet; trying again");
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(LONGEST_PAUSE);
            }
        }
    }
}

/// One outcome that the database cannot take must not hold back the others, nor the fact that it was sent.
async fn record_one_by_one<O: Outbox>(outbox: &O, finishes: &[Finish], sqlstate: &str, message: &str) {
    tracing::error!(
        sqlstate,
        message,
        outcomes = finishes.len(),
        "the database refuses these outcomes; recording them one by one, without the providers' texts"
    );
    for finish in finishes {
        let mut bare = finish.clone();
        bare.outcome.response = None;
        bare.outcome.error_message = None;
        let mut pause = FIRST_PAUSE;
        loop {
            match outbox.finish(std::slice::from_ref(&bare)).await {
                Ok(_) => break,
                Err(OutboxError::Refused { sqlstate, message }) => {
                    tracing::error!(id = %bare.id, attempt = bare.attempt, status = %bare.outcome.status, sqlstate, message,
                        "this outcome is lost; the message will end as dispatch_timeout");
                    break;
                }
                Err(_) => {
                    tokio::time::sleep(pause).await;
                    pause = (pause * 2).min(LONGEST_PAUSE);
                }
            }
        }
    }
}
