//! Cases: leases that run out, and outcomes that come late, twice or from another.

use super::*;

/// A message whose first lease ran out, and its attempt's number.
pub(super) async fn timed_out<S: Subject>(
    bench: &Bench<'_, S>,
    outbox: &S::Outbox,
    app: AppId,
) -> Result<(MessageId, i16)> {
    let id = bench.enqueue().await?;
    let lease = lease(outbox, id, app).await?;
    bench.subject.expire_lease(id).await?;
    bench.subject.run_maintenance().await?;
    bench.expect(id, DispatchStatus::DispatchTimeout).await?;
    Ok((id, lease.attempt))
}

pub(super) async fn a_lease_that_runs_out_is_unclear<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let live = bench.enqueue().await?;
    lease(&outbox, live, app).await?;
    let (id, attempt) = timed_out(bench, &outbox, app).await?;
    let expected = LedgerLine {
        attempt,
        status: AttemptStatus::Unclear,
        error_code: Some("lease_expired".to_owned()),
        told_by: None,
    };
    let found = bench.subject.attempts(id).await?;
    ensure!(found == [expected], "the ledger is {found:?}");
    bench.expect(live, DispatchStatus::Sending).await
}

pub(super) async fn a_repeated_finish_is_harmless<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    bench.install(SECOND).await?;
    for status in AttemptStatus::ALL {
        bench.subject.pass_block(app).await?;
        let id = bench.enqueue().await?;
        let first = attempt(&outbox, id, app, *status).await?;
        let again = finish(&outbox, id, first.attempt, outcome(*status)).await?;
        ensure!(!again.applied, "{status} was applied twice");
        ensure!(again.status == first.status, "{status}: {:?} became {:?}", first.status, again.status);
        bench.expect_attempts(id, &[*status]).await?;
    }
    Ok(())
}

pub(super) async fn a_stale_finish_changes_nothing_of_a_newer_attempt<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let next = bench.install(SECOND).await?;
    let id = bench.enqueue().await?;
    let stale = attempt(&outbox, id, app, AttemptStatus::NotSent).await?;
    let newer = lease(&outbox, id, next).await?;
    ensure!(newer.attempt > stale.attempt, "attempt numbers do not grow");
    let late = finish(&outbox, id, stale.attempt, outcome(AttemptStatus::RefusedRecipient)).await?;
    ensure!(!late.applied, "a stale outcome was applied");
    bench.expect(id, DispatchStatus::Sending).await?;
    let finished = finish(&outbox, id, newer.attempt, outcome(AttemptStatus::Accepted)).await?;
    ensure!(finished.applied, "the newer lease is gone");
    bench.expect_attempts(id, &[AttemptStatus::NotSent, AttemptStatus::Accepted]).await
}

pub(super) async fn another_workers_finish_changes_nothing<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (a, b, app) = (bench.worker("a").await?, bench.worker("b").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    let lease = lease(&a, id, app).await?;
    let foreign = finish(&b, id, lease.attempt, outcome(AttemptStatus::NotSent)).await?;
    ensure!(!foreign.applied, "another worker's outcome was applied");
    bench.expect(id, DispatchStatus::Sending).await?;
    let own = finish(&a, id, lease.attempt, outcome(AttemptStatus::Accepted)).await?;
    ensure!(own.applied, "the lease is gone");
    Ok(())
}

pub(super) async fn late_acceptance_after_the_timeout_is_sent<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (a, b, app) = (bench.worker("a").await?, bench.worker("b").await?, bench.install(FIRST).await?);
    let (id, attempt) = timed_out(bench, &a, app).await?;
    let foreign = finish(&b, id, attempt, outcome(AttemptStatus::Accepted)).await?;
    ensure!(!foreign.applied, "a worker that never held the lease knows better");
    let late = finish(&a, id, attempt, outcome(AttemptStatus::Accepted)).await?;
    ensure!(late.applied && late.status == Some(DispatchStatus::Sent), "late acceptance: {late:?}");
    bench.expect(id, DispatchStatus::Sent).await?;
    bench.expect_attempts(id, &[AttemptStatus::Accepted]).await
}

pub(super) async fn late_acceptance_after_a_retry_drops_the_waiting_try<S: Subject>(
    bench: &Bench<'_, S>,
) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (id, attempt) = timed_out(bench, &outbox, app).await?;
    ensure!(bench.subject.retry(id).await?, "the message was not retried");
    bench.expect(id, DispatchStatus::Pending).await?;
    ensure!(finish(&outbox, id, attempt, outcome(AttemptStatus::Accepted)).await?.applied, "not applied");
    bench.expect(id, DispatchStatus::Sent).await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "the next try still waits");
    expect_word(&claim(&outbox, id, Some(app)).await?, "gone")
}

pub(super) async fn late_acceptance_beside_a_live_lease_shows_both<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (id, attempt) = timed_out(bench, &outbox, app).await?;
    ensure!(bench.subject.retry(id).await?, "the message was not retried");
    let newer = lease(&outbox, id, app).await?;
    ensure!(finish(&outbox, id, attempt, outcome(AttemptStatus::Accepted)).await?.applied, "not applied");
    bench.expect(id, DispatchStatus::Sent).await?;
    ensure!(outbox.leases().await? == [(id, newer.attempt)], "the live lease did not stay");
    // Its own end is recorded and queues nothing: the message is sent.
    ensure!(finish(&outbox, id, newer.attempt, outcome(AttemptStatus::NotSent)).await?.applied, "not applied");
    bench.subject.run_maintenance().await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "a sent message waits");
    ensure!(!bench.subject.retry(id).await?, "a sent message was retried");
    bench.expect(id, DispatchStatus::Sent).await?;
    bench.expect_attempts(id, &[AttemptStatus::Accepted, AttemptStatus::NotSent]).await
}

pub(super) async fn late_refusal_after_the_timeout_is_failed<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    for status in AttemptStatus::ALL {
        if matches!(status, AttemptStatus::Accepted | AttemptStatus::Unclear) {
            continue;
        }
        let (id, attempt) = timed_out(bench, &outbox, app).await?;
        let late = finish(&outbox, id, attempt, outcome(*status)).await?;
        ensure!(late.applied && late.status == Some(DispatchStatus::Failed), "late {status}: {late:?}");
        bench.expect_attempts(id, &[*status]).await?;
        // The time-outs themselves count against the app.
        bench.subject.pass_block(app).await?;
    }
    Ok(())
}

pub(super) async fn acceptance_of_a_claim_that_was_lost_is_sent<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    // As after an asynchronous promotion: the worker holds attempt 1, the database has never heard of it.
    let other = finish(&outbox, id, 1, outcome(AttemptStatus::NotSent)).await?;
    ensure!(!other.applied, "an attempt that was never claimed ended as not_sent");
    bench.expect(id, DispatchStatus::Pending).await?;
    let accepted = finish(&outbox, id, 1, outcome(AttemptStatus::Accepted)).await?;
    ensure!(accepted.applied && accepted.status == Some(DispatchStatus::Sent), "{accepted:?}");
    expect_word(&claim(&outbox, id, Some(app)).await?, "gone")?;
    bench.expect_attempts(id, &[AttemptStatus::Accepted]).await
}

pub(super) async fn an_unclear_end_of_a_lost_claim_is_not_sent_again<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    let unclear = finish(&outbox, id, 1, outcome(AttemptStatus::Unclear)).await?;
    ensure!(unclear.applied && unclear.status == Some(DispatchStatus::DispatchTimeout), "{unclear:?}");
    expect_word(&claim(&outbox, id, Some(app)).await?, "gone")?;
    let again = finish(&outbox, id, 1, outcome(AttemptStatus::Unclear)).await?;
    ensure!(!again.applied, "it was applied twice");
    ensure!(finish(&outbox, id, 1, outcome(AttemptStatus::Accepted)).await?.applied, "the late answer was not applied");
    bench.expect(id, DispatchStatus::Sent).await?;
    bench.expect_attempts(id, &[AttemptStatus::Accepted]).await
}

pub(super) async fn acceptance_of_a_lost_claim_counts_wherever_the_message_is<S: Subject>(
    bench: &Bench<'_, S>,
) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let canceled = bench.enqueue().await?;
    ensure!(bench.subject.cancel(canceled).await?, "not canceled");
    let timed_out = timed_out(bench, &outbox, app).await?.0;
    let leased = bench.enqueue().await?;
    let live = lease(&outbox, leased, app).await?;
    for (id, attempt) in [(canceled, 1), (timed_out, 2), (leased, live.attempt + 1)] {
        let accepted = finish(&outbox, id, attempt, outcome(AttemptStatus::Accepted)).await?;
        ensure!(accepted.applied && accepted.status == Some(DispatchStatus::Sent), "{accepted:?}");
        let again = finish(&outbox, id, attempt, outcome(AttemptStatus::Accepted)).await?;
        ensure!(!again.applied, "it was applied twice");
        // Nothing more can have been lost of a message that is sent.
        let made_up = finish(&outbox, id, attempt + 7, outcome(AttemptStatus::Accepted)).await?;
        ensure!(!made_up.applied && made_up.status == Some(DispatchStatus::Sent), "{made_up:?}");
    }
    ensure!(outbox.leases().await? == [(leased, live.attempt)], "the live lease did not stay");
    // Its own end is recorded and queues nothing, although it is the first attempt that the database knows of.
    let ended = finish(&outbox, leased, live.attempt, outcome(AttemptStatus::NotSent)).await?;
    ensure!(ended.applied && ended.status == Some(DispatchStatus::Sent), "{ended:?}");
    ensure!(bench.waiting(&outbox, leased).await?.is_none(), "a sent message waits");
    Ok(())
}

pub(super) async fn acceptance_of_a_lost_claim_beside_the_first_attempt_drops_the_next_try<S: Subject>(
    bench: &Bench<'_, S>,
) -> Result<()> {
    let (lost, outbox) = (bench.worker("a").await?, bench.worker("b").await?);
    let app = bench.install(FIRST).await?;
    for status in [AttemptStatus::NotSent, AttemptStatus::Throttled, AttemptStatus::Unclear] {
        let id = bench.enqueue().await?;
        // Two claims are lost in a promotion, the message is let go and claimed for the first time, as it seems.
        let first = lease(&outbox, id, app).await?;
        let accepted = finish(&lost, id, first.attempt + 1, outcome(AttemptStatus::Accepted)).await?;
        ensure!(accepted.applied && accepted.status == Some(DispatchStatus::Sent), "{accepted:?}");
        let ended = finish(&outbox, id, first.attempt, outcome(status)).await?;
        ensure!(ended.applied && ended.status == Some(DispatchStatus::Sent), "{status}: {ended:?}");
        bench.subject.run_maintenance().await?;
        ensure!(bench.waiting(&outbox, id).await?.is_none(), "{status}: a sent message waits");
        bench.subject.pass_block(app).await?;
    }
    Ok(())
}

pub(super) async fn a_made_up_lease_changes_nothing<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (waiting, leased) = (bench.enqueue().await?, bench.enqueue().await?);
    let live = lease(&outbox, leased, app).await?;
    let unknown = MessageId(uuid::Uuid::nil());
    let before = bench.subject.standings(&[waiting, leased]).await?;
    for status in AttemptStatus::ALL {
        // An acceptance, or an unclear end, of an attempt that might have been is believed: its claim may be lost.
        let numbers: &[i16] = match status {
            AttemptStatus::Accepted | AttemptStatus::Unclear => &[0, -1, i16::MIN],
            _ => &[0, -1, 1, 2, i16::MAX],
        };
        for number in numbers {
            let nowhere = finish(&outbox, unknown, *number, outcome(*status)).await?;
            ensure!(!nowhere.applied && nowhere.status.is_none(), "{status} of no message: {nowhere:?}");
            let never = finish(&outbox, waiting, *number, outcome(*status)).await?;
            ensure!(!never.applied && never.status == Some(DispatchStatus::Pending), "{status}: {never:?}");
            if *number != live.attempt {
                let other = finish(&outbox, leased, *number, outcome(*status)).await?;
                ensure!(!other.applied && other.status == Some(DispatchStatus::Sending), "{status}: {other:?}");
            }
        }
    }
    let nowhere = finish(&outbox, unknown, 1, outcome(AttemptStatus::Accepted)).await?;
    ensure!(!nowhere.applied && nowhere.status.is_none(), "accepted, of no message: {nowhere:?}");
    let after = bench.subject.standings(&[waiting, leased]).await?;
    ensure!(after == before, "{before:?} became {after:?}");
    Ok(())
}
