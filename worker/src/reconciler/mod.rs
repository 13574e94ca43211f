//! Asks providers what became of attempts that ended as unclear, and tells the outbox what they know. Beside the dispatcher and
//! never in its way: a few look-ups at once, and a pause between them. A look-up is a read, and sends nothing.

mod look_up;
#[cfg(test)]
mod tests;

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::join_all;

pub use self::look_up::{Answer, LookUps};
use crate::logging::Told;
use crate::metrics;
use crate::outbox::{OutboxError, Reconcile, Unclear};

/// Look-ups made at once. With the pause between rounds the most that a provider gets to see of a worker, even after an outage.
const BATCH: u32 = 16;

/// Pause while there is more to ask, and after an error of the database.
const SHORT_PAUSE: Duration = Duration::from_secs(1);

/// Longest pause between two questions whether anything is due.
const LONG_PAUSE: Duration = Duration::from_secs(15);

/// One question to a provider.
pub trait LookUp: Send + Sync + 'static {
    /// Asks it once, and says what it knows.
    fn look_up(&self, unclear: &Unclear) -> impl Future<Output = Answer> + Send;
}

/// Asks for ever. `after` is the pause from an attempt's end to the first look-up: the outbox keeps the schedule.
pub async fn run<O: Reconcile, L: LookUp>(outbox: Arc<O>, look_up: Arc<L>, after: Duration) {
    let idle = (after / 4).clamp(SHORT_PAUSE, LONG_PAUSE);
    let mut told = Told::default();
    loop {
        let pause = match round(&*outbox, &*look_up, after).await {
            Ok(asked) => {
                if told.is_over() {
                    tracing::info!("unclear attempts are looked up again");
                }
                if asked < BATCH as usize { idle } else { SHORT_PAUSE }
            }
            Err(error) => {
                if told.is_news(&error) {
                    tracing::warn!(%error, "the outbox does not say which attempts are to be looked up");
                }
                idle
            }
        };
        tokio::time::sleep(pause).await;
    }
}

/// Asks about what is due now; returns about how many attempts.
async fn round<O: Reconcile, L: LookUp>(outbox: &O, look_up: &L, after: Duration) -> Result<usize, OutboxError> {
    let due = outbox.unclear(after, BATCH).await?;
    join_all(due.iter().map(|unclear| ask(outbox, look_up, unclear))).await;
    Ok(due.len())
}

async fn ask<O: Reconcile, L: LookUp>(outbox: &O, look_up: &L, unclear: &Unclear) {
    let answer = look_up.look_up(unclear).await;
    metrics::worker::looked_up(&unclear.slug, answer.word());
    tracing::info!(
        message_id = %unclear.id,
        attempt = unclear.attempt,
        app_id = %unclear.app,
        slug = %unclear.slug,
        result = answer.word(),
        "unclear attempt looked up"
    );
    let resolution = answer.resolution(unclear);
    // What a provider told is not asked for again because the database was away for a moment.
    while let Err(error) = outbox.resolve(&resolution).await {
        if matches!(error, OutboxError::Refused { .. }) {
            tracing::warn!(message_id = %unclear.id, attempt = unclear.attempt, %error, "the look-up could not be recorded");
            return;
        }
        tokio::time::sleep(SHORT_PAUSE).await;
    }
}
