//! Keeps one LISTEN connection alive. A notification is a hint that saves waiting for the next poll; polling is the truth.

use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::logging::Told;
use crate::metrics;
use crate::outbox::postgres::PostgresOutbox;

const FIRST_PAUSE: Duration = Duration::from_millis(200);
const LONGEST_PAUSE: Duration = Duration::from_secs(10);

/// Listens for ever, reconnecting; `wake` is notified at each hint, and whenever listening begins anew.
pub async fn run(outbox: PostgresOutbox, wake: Arc<Notify>) {
    let mut pause = FIRST_PAUSE;
    let mut told = Told::default();
    loop {
        let began = tokio::time::Instant::now();
        let Err(error) = outbox.listen(&wake).await;
        metrics::worker::not_listening();
        if began.elapsed() > LONGEST_PAUSE {
            pause = FIRST_PAUSE;
            told.is_over();
        }
        if told.is_news(&error) {
            tracing::warn!(%error, "not listening; polling finds the messages meanwhile");
        }
        tokio::time::sleep(pause).await;
        pause = (pause * 2).min(LONGEST_PAUSE);
    }
}
