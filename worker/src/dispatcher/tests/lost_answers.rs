//! Leases that live on after the worker believes that it is done with them.

use std::sync::atomic::{AtomicBool, Ordering};

use super::*;
use crate::outbox::{App, Claim, Finished, Heartbeat, Look, Looked, OrganizationId};

/// The queue in memory, where one outcome is refused and the answer of a claim is lost when told so.
struct Faulty {
    inner: MemoryOutbox,
    refused: MessageId,
    lose_claim: Arc<AtomicBool>,
    stop_then: CancellationToken,
}

impl Outbox for Faulty {
    async fn claim(&self, claims: &[Claim]) -> Result<Vec<Claimed>, OutboxError> {
        let answers = self.inner.claim(claims).await;
        if self.lose_claim.swap(false, Ordering::SeqCst) {
            self.stop_then.cancel();
            return Err(OutboxError::Unavailable("no answer in time".into()));
        }
        answers
    }

    async fn finish(&self, outcomes: &[Finish]) -> Result<Vec<Finished>, OutboxError> {
        let refused = |finish: &Finish| finish.id == self.refused && finish.outcome.status == AttemptStatus::Accepted;
        if outcomes.iter().any(refused) {
            return Err(OutboxError::Refused { sqlstate: "22003".into(), message: "as told".into() });
        }
        self.inner.finish(outcomes).await
    }

    async fn look(&self, look: &Look) -> Result<Looked, OutboxError> {
        self.inner.look(look).await
    }

    async fn apps(&self, organizations: &[OrganizationId]) -> Result<Vec<App>, OutboxError> {
        self.inner.apps(organizations).await
    }

    async fn leases(&self) -> Result<Vec<(MessageId, i16)>, OutboxError> {
        self.inner.leases().await
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<Vec<String>, OutboxError> {
        self.inner.heartbeat(beat).await
    }
}

struct Running {
    provider: Arc<Pretend>,
    lose_claim: Arc<AtomicBool>,
    shutdown: CancellationToken,
    worker: tokio::task::JoinHandle<usize>,
}

fn start_faulty(outbox: &MemoryOutbox, refused: MessageId, lose_claim: bool, stop_with_claim: bool) -> Running {
    let provider = Arc::new(Pretend::default());
    let lose_claim = Arc::new(AtomicBool::new(lose_claim));
    let shutdown = CancellationToken::new();
    let (live, workers) = watch::channel(vec!["w1".to_owned()]);
    let faulty = Faulty {
        inner: outbox.with_worker("w1"),
        refused,
        lose_claim: lose_claim.clone(),
        stop_then: if stop_with_claim { shutdown.clone() } else { CancellationToken::new() },
    };
    let signals = Signals {
        wake: Arc::default(),
        workers,
        shutdown: shutdown.clone(),
        abort: CancellationToken::new(),
        counters: Arc::default(),
    };
    let options =
        Options { concurrency: 10, poll_interval: Duration::from_millis(20), drain_timeout: Duration::from_secs(5) };
    let scheduler = Scheduler::new("w1", scheduler::Limits::default());
    let dispatcher = Dispatcher::new(Arc::new(faulty), provider.clone(), scheduler, options, signals);
    let worker = tokio::spawn(async move {
        let left = dispatcher.run().await;
        drop(live);
        left
    });
    Running { provider, lose_claim, shutdown, worker }
}

/// The provider took it, the database does not take that: its lease must not be given back as never begun.
#[tokio::test]
async fn what_was_sent_is_not_sent_again_because_its_outcome_was_refused() {
    let (outbox, ids) = queue(1);
    let running = start_faulty(&outbox, ids[0], false, false);
    until("it was handed over", || running.provider.asked(ids[0]) == 1).await;
    tokio::time::sleep(Duration::from_millis(100)).await;
    // The worker looks for leases that it does not know of.
    running.lose_claim.store(true, Ordering::SeqCst);
    let next = outbox.enqueue(NewMessage::of("shop"));
    until("the next one is sent", || {
        outbox.advance(Duration::from_millis(100));
        outbox.run_maintenance();
        outbox.status(next) == Some(DispatchStatus::Sent)
    })
    .await;
    assert_eq!(outbox.status(ids[0]), Some(DispatchStatus::Sending));
    assert_eq!(running.provider.asked(ids[0]), 1);
    running.shutdown.cancel();
    assert_eq!(running.worker.await.unwrap(), 0);
}

#[tokio::test]
async fn a_stop_gives_back_what_was_claimed_unknowingly() {
    let (outbox, ids) = queue(3);
    let running = start_faulty(&outbox, MessageId(uuid::Uuid::nil()), true, true);
    assert_eq!(running.worker.await.unwrap(), 0);
    assert!(all(&outbox, &ids, DispatchStatus::Pending));
    assert!(ids.iter().all(|id| running.provider.asked(*id) == 0));
}
