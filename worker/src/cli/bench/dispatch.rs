//! The worker's side, by the worker's own calls: claim and finish without a request between them, and the way from a
//! commit to the claim.

use std::time::Duration;

use anyhow::{Context, bail};
use serde::Serialize;
use tokio::sync::{Notify, mpsc};
use tokio::time::{Instant, sleep, timeout};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use crate::message::{AppId, AttemptStatus};
use crate::outbox::postgres::PostgresOutbox;
use crate::outbox::postgres::operator::bench::{self, Load};
use crate::outbox::{Claim, Claimed, Entry, Finish, Look, Mark, OrganizationId, Outbox, Outcome, Range};

/// Messages of one claim: what a worker with 256 places asks for.
const BATCH: u32 = 256;
/// Batches that wait to be recorded, while the next is claimed.
const AHEAD: usize = 2;
/// How long commits are timed altogether: where workers only poll, few are enough.
const WAITING: Duration = Duration::from_secs(15);
/// A worker looks at least so often.
const POLL: Duration = Duration::from_secs(1);
/// What a provider answers, as it is kept.
const RESPONSE: &str = r#"{"id":"0f6b3c1e9d2a4b8c","status":"accepted","to":"+966500000000","segments":1,"price":"0.0450","currency":"SAR","queued_at":"2026-11-28T09:00:00Z","reference":"r01jdexample00000000000000-1"}"#;

/// What claiming and recording came to.
pub(super) struct Dispatched {
    pub(super) messages: u64,
    /// Messages a second.
    pub(super) rate: f64,
    pub(super) wal_bytes: f64,
}

/// How long messages waited from the answer to their commit until they were claimed, in milliseconds.
#[derive(Debug, Serialize)]
pub(super) struct Waited {
    pub(super) messages: usize,
    pub(super) p50_ms: f64,
    pub(super) p99_ms: f64,
    pub(super) greatest_ms: f64,
}

/// Claims and finishes all that waits: one connection claims, another records.
pub(super) async fn drain(
    control: &Client,
    outbox: &PostgresOutbox,
    organization: &OrganizationId,
    app: AppId,
    stop: &CancellationToken,
) -> anyhow::Result<Dispatched> {
    let before = bench::wal(control).await?;
    let start = Instant::now();
    let (claimed, mut batches) = mpsc::channel(AHEAD);
    let claiming = async move {
        let mut mark = Mark::default();
        while !stop.is_cancelled() {
            let entries = look(outbox, organization, mark).await?;
            let Some(last) = entries.last() else { break };
            mark = Mark { xid: last.xid, id: last.id.0 };
            if claimed.send(claim(outbox, &entries, app).await?).await.is_err() {
                break;
            }
        }
        anyhow::Ok(())
    };
    let recording = async {
        let mut messages = 0;
        while let Some(batch) = batches.recv().await {
            messages += finish(outbox, &batch).await?;
        }
        anyhow::Ok(messages)
    };
    let ((), messages) = tokio::try_join!(claiming, recording)?;
    let seconds = start.elapsed().as_secs_f64();
    let wal_bytes = (bench::wal(control).await? - before) as f64 / messages.max(1) as f64;
    Ok(Dispatched { messages, rate: messages as f64 / seconds, wal_bytes })
}

/// Enqueues one message after the other, each when the one before is done, and claims it as soon as it is heard of.
pub(super) async fn wait(
    outbox: &PostgresOutbox,
    load: &Load,
    organization: &OrganizationId,
    app: AppId,
    samples: u64,
    stop: &CancellationToken,
) -> anyhow::Result<Waited> {
    let wake = Notify::new();
    let timed = async {
        // The first wake-up says that the connection listens.
        wake.notified().await;
        let (start, mut mark, mut waited) = (Instant::now(), Mark::default(), Vec::new());
        for number in 0..samples {
            if stop.is_cancelled() || start.elapsed() > WAITING {
                break;
            }
            // Not in step with anything.
            sleep(Duration::from_millis(3 + number * 7 % 11)).await;
            load.enqueue(number).await?;
            let committed = Instant::now();
            let entries = loop {
                // Nothing to do about a wake-up that does not come but what a worker does: look.
                let _ = timeout(POLL, wake.notified()).await;
                let entries = look(outbox, organization, mark).await?;
                if !entries.is_empty() {
                    break entries;
                }
            };
            let leased = claim(outbox, &entries, app).await?;
            waited.push(committed.elapsed().as_secs_f64() * 1000.0);
            finish(outbox, &leased).await?;
            mark = entries.last().map_or(mark, |last| Mark { xid: last.xid, id: last.id.0 });
        }
        anyhow::Ok(waited)
    };
    let mut waited = tokio::select! {
        Err(error) = outbox.listen(&wake) => return Err(error).context("cannot listen for wake-ups"),
        waited = timed => waited?,
    };
    waited.sort_by(f64::total_cmp);
    let share = |share: f64| waited.get((waited.len() as f64 * share) as usize).copied().unwrap_or_default();
    Ok(Waited {
        messages: waited.len(),
        p50_ms: share(0.5),
        p99_ms: share(0.99),
        greatest_ms: waited.last().copied().unwrap_or_default(),
    })
}

async fn look(outbox: &PostgresOutbox, organization: &OrganizationId, after: Mark) -> anyhow::Result<Vec<Entry>> {
    let ranges = vec![Range { priority: 1, after, before: None }];
    // Of its own organization alone: whatever else comes meanwhile is none of its business.
    Ok(outbox.look(&Look { ranges, organizations: vec![organization.clone()], page: BATCH }).await?.entries)
}

async fn claim(outbox: &PostgresOutbox, entries: &[Entry], app: AppId) -> anyhow::Result<Vec<Finish>> {
    let claims: Vec<Claim> = entries.iter().map(|entry| Claim { id: entry.id, app: Some(app) }).collect();
    let outcome = Outcome {
        status: AttemptStatus::Accepted,
        http_status: Some(200),
        error_code: None,
        error_message: None,
        response: Some(RESPONSE.to_owned()),
        provider_message_id: Some("0f6b3c1e9d2a4b8c".to_owned()),
        retry_after: None,
    };
    let mut leased = Vec::with_capacity(claims.len());
    for claimed in outbox.claim(&claims).await? {
        let Claimed::Leased(lease) = claimed else {
            bail!(
                "somebody else took messages of the measurement: a worker must have come alive; stop it and begin anew"
            );
        };
        leased.push(Finish { id: lease.id, attempt: lease.attempt, outcome: outcome.clone() });
    }
    Ok(leased)
}

async fn finish(outbox: &PostgresOutbox, batch: &[Finish]) -> anyhow::Result<u64> {
    let finished = outbox.finish(batch).await?;
    Ok(finished.iter().filter(|finished| finished.applied).count() as u64)
}
