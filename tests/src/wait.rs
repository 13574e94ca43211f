//! Waiting for what other processes do, with bounded patience.

use std::fmt::Display;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};

/// How long a test waits for something that ought to happen soon. Generous: on a busy machine slow is not wrong.
pub fn patience() -> Duration {
    Duration::from_secs(30)
}

/// Asks `condition` again and again until it gives a value. When patience ends, the error says what was waited for,
/// and `evidence` adds what a person would look at first.
pub async fn poll<T>(
    what: impl Display,
    mut condition: impl AsyncFnMut() -> Result<Option<T>>,
    evidence: impl AsyncFnOnce() -> String,
) -> Result<T> {
    let deadline = Instant::now() + patience();
    loop {
        if let Some(value) = condition().await.with_context(|| format!("while waiting until {what}"))? {
            return Ok(value);
        }
        if Instant::now() > deadline {
            bail!("waited {:?} in vain until {what}\n{}", patience(), evidence().await);
        }
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// [`poll`] for a plain condition without a database. With one, use [`crate::Database::wait_until`].
pub async fn wait_until(what: impl Display, mut condition: impl AsyncFnMut() -> Result<bool>) -> Result<()> {
    poll(what, async || Ok(condition().await?.then_some(())), async || String::new()).await
}
