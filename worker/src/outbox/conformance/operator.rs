//! Cases: cancel and retry.

use std::time::Duration;

use super::*;

pub(super) async fn cancel_takes_a_waiting_message_back<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    ensure!(bench.subject.cancel(id).await?, "a waiting message was not canceled");
    bench.expect(id, DispatchStatus::Canceled).await?;
    expect_word(&claim(&outbox, id, Some(app)).await?, "gone")?;
    ensure!(!bench.subject.cancel(id).await?, "a canceled message was canceled again");
    bench.expect_attempts(id, &[]).await
}

pub(super) async fn cancel_takes_a_scheduled_message_back<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    bench.install(FIRST).await?;
    let later = Enqueue { due_in: Some(Duration::from_secs(3600)), ..bench.message() };
    let id = bench.subject.enqueue(later).await?;
    ensure!(bench.subject.cancel(id).await?, "a scheduled message was not canceled");
    bench.subject.run_maintenance().await?;
    bench.expect(id, DispatchStatus::Canceled).await
}

pub(super) async fn cancel_leaves_a_leased_message_alone<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    let lease = lease(&outbox, id, app).await?;
    ensure!(!bench.subject.cancel(id).await?, "a leased message was canceled");
    bench.expect(id, DispatchStatus::Sending).await?;
    finish(&outbox, id, lease.attempt, outcome(AttemptStatus::Accepted)).await?;
    ensure!(!bench.subject.cancel(id).await?, "a sent message was canceled");
    bench.expect(id, DispatchStatus::Sent).await
}

pub(super) async fn retry_queues_every_end_anew<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (failed, unclear, canceled) = (bench.enqueue().await?, bench.enqueue().await?, bench.enqueue().await?);
    let valid = Enqueue { valid_for: Some(Duration::from_secs(3600)), ..bench.message() };
    let expired = bench.subject.enqueue(valid).await?;
    attempt(&outbox, failed, app, AttemptStatus::RefusedRecipient).await?;
    attempt(&outbox, unclear, app, AttemptStatus::Unclear).await?;
    bench.subject.cancel(canceled).await?;
    bench.subject.pass_validity(expired).await?;
    bench.subject.run_maintenance().await?;
    let ends = [
        (failed, DispatchStatus::Failed),
        (unclear, DispatchStatus::DispatchTimeout),
        (canceled, DispatchStatus::Canceled),
        (expired, DispatchStatus::Expired),
    ];
    for (id, end) in ends {
        bench.expect(id, end).await?;
        ensure!(bench.subject.retry(id).await?, "{end} was not retried");
        bench.expect(id, DispatchStatus::Pending).await?;
        bench.subject.run_maintenance().await?;
        attempt(&outbox, id, app, AttemptStatus::Accepted).await?;
        bench.expect(id, DispatchStatus::Sent).await?;
    }
    Ok(())
}

pub(super) async fn retry_leaves_unfinished_and_sent_messages_alone<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    ensure!(!bench.subject.retry(id).await?, "a waiting message was retried");
    let lease = lease(&outbox, id, app).await?;
    ensure!(!bench.subject.retry(id).await?, "a leased message was retried");
    finish(&outbox, id, lease.attempt, outcome(AttemptStatus::Accepted)).await?;
    ensure!(!bench.subject.retry(id).await?, "a sent message was retried");
    bench.expect(id, DispatchStatus::Sent).await
}

pub(super) async fn retry_forgets_refusals_and_keeps_the_ledger<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    attempt(&outbox, id, app, AttemptStatus::RefusedContent).await?;
    bench.expect(id, DispatchStatus::Failed).await?;
    ensure!(bench.subject.retry(id).await?, "a failed message was not retried");
    let entry = bench.waiting(&outbox, id).await?.context("the message does not wait")?;
    ensure!(entry.refused_by.is_empty(), "the refusal still counts");
    let next = lease(&outbox, id, app).await?;
    ensure!(next.attempt == 2, "the next attempt is number {}", next.attempt);
    finish(&outbox, id, next.attempt, outcome(AttemptStatus::Accepted)).await?;
    bench.expect_attempts(id, &[AttemptStatus::RefusedContent, AttemptStatus::Accepted]).await
}

pub(super) async fn retry_of_a_scheduled_message_keeps_its_time<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let later = Enqueue { due_in: Some(Duration::from_secs(3600)), ..bench.message() };
    let id = bench.subject.enqueue(later).await?;
    bench.subject.cancel(id).await?;
    ensure!(bench.subject.retry(id).await?, "a canceled message was not retried");
    bench.subject.run_maintenance().await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "it waits before its time");
    bench.subject.make_due(id).await?;
    bench.subject.run_maintenance().await?;
    attempt(&outbox, id, app, AttemptStatus::Accepted).await.map(drop)
}
