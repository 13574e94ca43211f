//! How fast applications enqueue: as fast as was asked for, or as the whole can take.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use tokio::sync::Semaphore;

use crate::stage::Stage;

/// So many messages may wait before applications are slowed down, in seconds of what is sent.
const BACKLOG_SECONDS: i64 = 5;

/// Permits for messages.
pub(crate) struct Pace {
    permits: Semaphore,
    wanted: u64,
    /// Messages a second now.
    rate: AtomicU64,
    /// No more than so many in the whole run: the disk is bounded.
    left: AtomicU64,
}

impl Pace {
    pub(crate) fn new(wanted: u64, messages: u64) -> Self {
        Self {
            permits: Semaphore::new(0),
            wanted,
            rate: AtomicU64::new(wanted.min(500)),
            left: AtomicU64::new(messages),
        }
    }

    /// Waits until so many more may be enqueued; `false` when no more may be at all.
    pub(crate) async fn take(&self, messages: u64) -> bool {
        match self.permits.acquire_many(u32::try_from(messages).unwrap_or(u32::MAX)).await {
            Ok(permits) => permits.forget(),
            Err(_) => return false,
        }
        true
    }

    /// Gives permits, and adapts: slower while much waits, faster while little does.
    pub(crate) async fn run(&self, stage: &Stage) -> Result<()> {
        const TICKS: u64 = 10;
        let mut ticks = 0_u64;
        loop {
            tokio::time::sleep(Duration::from_millis(1000 / TICKS)).await;
            let rate = self.rate.load(Ordering::Relaxed);
            let free = u64::try_from(self.permits.available_permits())?;
            // What nobody took is not saved up.
            let given = (rate / TICKS).max(1).min(rate.saturating_sub(free)).min(self.left.load(Ordering::Relaxed));
            if self.left.fetch_sub(given, Ordering::Relaxed) == given {
                self.permits.close();
                return std::future::pending().await;
            }
            self.permits.add_permits(usize::try_from(given)?);
            ticks += 1;
            if ticks.is_multiple_of(TICKS) {
                let limit = i64::try_from(rate)? * BACKLOG_SECONDS;
                let count = format!("SELECT count(*) FROM (SELECT FROM sms_outbox.ready LIMIT {}) AS r", limit + 1);
                // A server that is away takes nothing.
                let waiting = match stage.admin().await?.admin().query_one(&count, &[]).await {
                    Ok(row) => row.get::<_, i64>(0),
                    Err(_) => limit + 1,
                };
                let next = if waiting > limit { rate * 3 / 4 } else { rate + rate / 10 + 10 };
                self.rate.store(next.clamp(50, self.wanted), Ordering::Relaxed);
            }
        }
    }
}
