//! Cases: what is learned of an attempt after it ended as unclear, and what receipts say.

use super::late::timed_out;
use super::*;

const REFUSALS: [AttemptStatus; 4] = [
    AttemptStatus::NotSent,
    AttemptStatus::RefusedRecipient,
    AttemptStatus::RefusedContent,
    AttemptStatus::RefusedAccount,
];

/// A message whose first attempt ended as unclear by what the provider answered.
async fn unclear<S: Subject>(bench: &Bench<'_, S>, outbox: &S::Outbox, app: AppId) -> Result<(MessageId, i16)> {
    // Failures count against the app.
    bench.subject.pass_block(app).await?;
    let id = bench.enqueue().await?;
    let finished = attempt(outbox, id, app, AttemptStatus::Unclear).await?;
    bench.expect(id, DispatchStatus::DispatchTimeout).await?;
    Ok((id, finished.attempt))
}

async fn expect_told_by<S: Subject>(
    bench: &Bench<'_, S>,
    id: MessageId,
    expected: &[(AttemptStatus, Option<Evidence>)],
) -> Result<()> {
    let found: Vec<_> = bench.subject.attempts(id).await?;
    let found: Vec<_> = found.iter().map(|line| (line.status, line.told_by)).collect();
    ensure!(found == expected, "the ledger is {found:?}, expected {expected:?}");
    Ok(())
}

pub(super) async fn evidence_of_acceptance_makes_it_sent<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    for evidence in [Evidence::LookUp, Evidence::Receipt, Evidence::Operator] {
        let answered = unclear(bench, &outbox, app).await?;
        bench.subject.pass_block(app).await?;
        for (id, attempt) in [answered, timed_out(bench, &outbox, app).await?] {
            let told = bench.subject.resolve(id, attempt, AttemptStatus::Accepted, evidence).await?;
            ensure!(told, "{evidence} of an acceptance was not taken");
            bench.expect(id, DispatchStatus::Sent).await?;
            expect_told_by(bench, id, &[(AttemptStatus::Accepted, Some(evidence))]).await?;
            let again = bench.subject.resolve(id, attempt, AttemptStatus::NotSent, evidence).await?;
            ensure!(!again, "a sent message was told not to be");
            ensure!(!bench.subject.retry(id).await?, "a sent message was retried");
            bench.expect(id, DispatchStatus::Sent).await?;
        }
    }
    Ok(())
}

pub(super) async fn known_not_sent_is_failed_and_may_be_retried<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    for verdict in REFUSALS {
        let (id, number) = unclear(bench, &outbox, app).await?;
        ensure!(bench.subject.resolve(id, number, verdict, Evidence::LookUp).await?, "{verdict} was not taken");
        // It is not queued again by itself.
        bench.expect(id, DispatchStatus::Failed).await?;
        expect_told_by(bench, id, &[(verdict, Some(Evidence::LookUp))]).await?;
        bench.subject.pass_block(app).await?;
        ensure!(bench.subject.retry(id).await?, "not retried");
        attempt(&outbox, id, app, AttemptStatus::Accepted).await?;
        bench.expect(id, DispatchStatus::Sent).await?;
    }
    Ok(())
}

pub(super) async fn evidence_moves_only_what_is_unclear<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    bench.install(SECOND).await?;
    for status in AttemptStatus::ALL.iter().filter(|status| **status != AttemptStatus::Unclear) {
        bench.subject.pass_block(app).await?;
        let id = bench.enqueue().await?;
        let finished = attempt(&outbox, id, app, *status).await?;
        for verdict in [AttemptStatus::Accepted, AttemptStatus::NotSent] {
            let told = bench.subject.resolve(id, finished.attempt, verdict, Evidence::Operator).await?;
            ensure!(!told, "{status} became {verdict}");
        }
        bench.expect(id, finished.status.context("no status")?).await?;
        expect_told_by(bench, id, &[(*status, None)]).await?;
    }
    bench.subject.pass_block(app).await?;
    let live = bench.enqueue().await?;
    let lease = lease(&outbox, live, app).await?;
    for number in [lease.attempt, lease.attempt + 1] {
        let told = bench.subject.resolve(live, number, AttemptStatus::Accepted, Evidence::LookUp).await?;
        ensure!(!told, "an attempt that is not over was judged");
    }
    bench.expect(live, DispatchStatus::Sending).await?;
    ensure!(finish(&outbox, live, lease.attempt, outcome(AttemptStatus::Accepted)).await?.applied, "the lease is gone");
    Ok(())
}

pub(super) async fn evidence_after_a_retry_drops_the_waiting_try<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (id, number) = unclear(bench, &outbox, app).await?;
    ensure!(bench.subject.retry(id).await?, "not retried");
    ensure!(bench.subject.resolve(id, number, AttemptStatus::Accepted, Evidence::LookUp).await?, "not taken");
    bench.expect(id, DispatchStatus::Sent).await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "the next try still waits");
    // Known not sent drops nothing.
    let (id, number) = unclear(bench, &outbox, app).await?;
    ensure!(bench.subject.retry(id).await?, "not retried");
    ensure!(bench.subject.resolve(id, number, AttemptStatus::NotSent, Evidence::LookUp).await?, "not taken");
    bench.expect(id, DispatchStatus::Pending).await?;
    bench.subject.pass_block(app).await?;
    attempt(&outbox, id, app, AttemptStatus::Accepted).await.map(drop)
}

pub(super) async fn evidence_beside_a_live_lease_shows_both<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (id, number) = unclear(bench, &outbox, app).await?;
    ensure!(bench.subject.retry(id).await?, "not retried");
    let newer = lease(&outbox, id, app).await?;
    ensure!(bench.subject.resolve(id, number, AttemptStatus::Accepted, Evidence::Operator).await?, "not taken");
    bench.expect(id, DispatchStatus::Sent).await?;
    ensure!(outbox.leases().await? == [(id, newer.attempt)], "the live lease did not stay");
    ensure!(finish(&outbox, id, newer.attempt, outcome(AttemptStatus::Accepted)).await?.applied, "not applied");
    bench.expect_attempts(id, &[AttemptStatus::Accepted, AttemptStatus::Accepted]).await
}

pub(super) async fn unclear_while_any_attempt_is<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (id, first) = unclear(bench, &outbox, app).await?;
    ensure!(bench.subject.retry(id).await?, "not retried");
    let second = attempt(&outbox, id, app, AttemptStatus::Unclear).await?;
    // By the worker itself, and by evidence.
    let late = finish(&outbox, id, second.attempt, outcome(AttemptStatus::NotSent)).await?;
    ensure!(late.applied && late.status == Some(DispatchStatus::DispatchTimeout), "{late:?}");
    ensure!(bench.subject.resolve(id, first, AttemptStatus::NotSent, Evidence::LookUp).await?, "not taken");
    bench.expect(id, DispatchStatus::Failed).await?;
    let expected =
        [(AttemptStatus::NotSent, Some(Evidence::LookUp)), (AttemptStatus::NotSent, Some(Evidence::LateAnswer))];
    expect_told_by(bench, id, &expected).await
}

pub(super) async fn a_failure_after_an_unclear_attempt_is_unclear<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    for status in [AttemptStatus::RefusedRecipient, AttemptStatus::RefusedContent] {
        let (id, number) = unclear(bench, &outbox, app).await?;
        ensure!(bench.subject.retry(id).await?, "not retried");
        let second = attempt(&outbox, id, app, status).await?;
        ensure!(second.status == Some(DispatchStatus::DispatchTimeout), "the first may have been sent: {second:?}");
        bench.expect(id, DispatchStatus::DispatchTimeout).await?;
        ensure!(bench.subject.resolve(id, number, AttemptStatus::NotSent, Evidence::Operator).await?, "not taken");
        bench.expect(id, DispatchStatus::Failed).await?;
    }
    Ok(())
}

pub(super) async fn no_app_after_an_unclear_attempt_is_unclear<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (id, number) = unclear(bench, &outbox, app).await?;
    ensure!(bench.subject.retry(id).await?, "not retried");
    bench.subject.uninstall_app(app).await?;
    expect_word(&claim(&outbox, id, None).await?, "failed")?;
    bench.expect(id, DispatchStatus::DispatchTimeout).await?;
    ensure!(bench.subject.resolve(id, number, AttemptStatus::Accepted, Evidence::Operator).await?, "not taken");
    bench.expect(id, DispatchStatus::Sent).await
}

pub(super) async fn asking_in_vain_changes_nothing<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (id, number) = unclear(bench, &outbox, app).await?;
    for _ in 0..2 {
        let told = bench.subject.resolve(id, number, AttemptStatus::Unclear, Evidence::LookUp).await?;
        ensure!(!told, "nothing was told, and it was taken");
    }
    bench.expect(id, DispatchStatus::DispatchTimeout).await?;
    expect_told_by(bench, id, &[(AttemptStatus::Unclear, None)]).await
}

pub(super) async fn an_acceptance_outranks_what_was_concluded<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    for evidence in [Evidence::LookUp, Evidence::Operator] {
        let (id, number) = unclear(bench, &outbox, app).await?;
        ensure!(bench.subject.resolve(id, number, AttemptStatus::NotSent, evidence).await?, "not taken");
        let refused = finish(&outbox, id, number, outcome(AttemptStatus::RefusedContent)).await?;
        ensure!(!refused.applied, "one way of not being sent became another");
        let accepted = finish(&outbox, id, number, outcome(AttemptStatus::Accepted)).await?;
        ensure!(accepted.applied && accepted.status == Some(DispatchStatus::Sent), "{evidence}: {accepted:?}");
        expect_told_by(bench, id, &[(AttemptStatus::Accepted, Some(Evidence::LateAnswer))]).await?;

        let (id, number) = unclear(bench, &outbox, app).await?;
        ensure!(bench.subject.resolve(id, number, AttemptStatus::NotSent, evidence).await?, "not taken");
        bench.subject.record_receipt(id, number, DeliveryStatus::Queued).await?;
        bench.expect(id, DispatchStatus::Sent).await?;
    }
    // What the worker itself heard stands.
    let (id, number) = unclear(bench, &outbox, app).await?;
    ensure!(finish(&outbox, id, number, outcome(AttemptStatus::NotSent)).await?.applied, "not applied");
    let told = bench.subject.resolve(id, number, AttemptStatus::Accepted, Evidence::Operator).await?;
    ensure!(!told, "an answer was overruled");
    bench.expect(id, DispatchStatus::Failed).await
}

pub(super) async fn receipts_move_the_status_forwards_only<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    for first in DeliveryStatus::ALL {
        for second in DeliveryStatus::ALL {
            let id = bench.enqueue().await?;
            let number = attempt(&outbox, id, app, AttemptStatus::Accepted).await?.attempt;
            let mut expected = None;
            for told in [first, second, first] {
                let before = expected;
                let after = expected.map_or(*told, |known: DeliveryStatus| known.advanced_by(*told));
                expected = Some(after);
                let result = bench.subject.record_receipt(id, number, *told).await?;
                let news = if before == expected { ReceiptResult::Repeated } else { ReceiptResult::Recorded };
                ensure!(result == news, "{told} after {before:?} is {result:?}");
                let found = bench.subject.delivery(id, number).await?;
                ensure!(found == expected, "{first}, {second}: {found:?}, expected {expected:?}");
            }
            bench.expect(id, DispatchStatus::Sent).await?;
        }
    }
    Ok(())
}

pub(super) async fn a_receipt_before_the_end_is_kept<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let resending = bench.install_with(SECOND, true).await?;
    for (app, expire) in [(app, true), (app, false), (resending, false)] {
        bench.subject.pass_block(app).await?;
        let id = bench.enqueue().await?;
        let lease = lease(&outbox, id, app).await?;
        let result = bench.subject.record_receipt(id, lease.attempt, DeliveryStatus::Delivered).await?;
        ensure!(result == ReceiptResult::Recorded, "{result:?}");
        bench.expect(id, DispatchStatus::Sending).await?;
        if expire {
            bench.subject.expire_lease(id).await?;
            bench.subject.run_maintenance().await?;
        } else {
            let finished = finish(&outbox, id, lease.attempt, outcome(AttemptStatus::Unclear)).await?;
            ensure!(finished.applied && finished.status == Some(DispatchStatus::Sent), "{finished:?}");
        }
        bench.expect(id, DispatchStatus::Sent).await?;
        expect_told_by(bench, id, &[(AttemptStatus::Accepted, Some(Evidence::Receipt))]).await?;
        ensure!(bench.subject.delivery(id, lease.attempt).await? == Some(DeliveryStatus::Delivered), "it was lost");
        ensure!(bench.waiting(&outbox, id).await?.is_none(), "a sent message waits");
    }
    let id = bench.enqueue().await?;
    bench.subject.pass_block(app).await?;
    let lease = lease(&outbox, id, app).await?;
    bench.subject.record_receipt(id, lease.attempt, DeliveryStatus::Queued).await?;
    ensure!(finish(&outbox, id, lease.attempt, outcome(AttemptStatus::Accepted)).await?.applied, "not applied");
    expect_told_by(bench, id, &[(AttemptStatus::Accepted, None)]).await?;
    ensure!(bench.subject.delivery(id, lease.attempt).await? == Some(DeliveryStatus::Queued), "it was lost");
    Ok(())
}

pub(super) async fn a_receipt_proves_that_an_unclear_attempt_was_accepted<S: Subject>(
    bench: &Bench<'_, S>,
) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    // Also one that says that it did not arrive: the provider had taken it.
    for told in DeliveryStatus::ALL {
        let (id, number) = unclear(bench, &outbox, app).await?;
        let result = bench.subject.record_receipt(id, number, *told).await?;
        ensure!(result == ReceiptResult::Recorded, "{told}: {result:?}");
        bench.expect(id, DispatchStatus::Sent).await?;
        expect_told_by(bench, id, &[(AttemptStatus::Accepted, Some(Evidence::Receipt))]).await?;
        let late = finish(&outbox, id, number, outcome(AttemptStatus::NotSent)).await?;
        ensure!(!late.applied && late.status == Some(DispatchStatus::Sent), "{late:?}");
    }
    let (id, number) = unclear(bench, &outbox, app).await?;
    ensure!(bench.subject.retry(id).await?, "not retried");
    bench.subject.record_receipt(id, number, DeliveryStatus::Delivered).await?;
    bench.expect(id, DispatchStatus::Sent).await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "the next try still waits");
    Ok(())
}

pub(super) async fn a_receipt_for_nothing_changes_nothing<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let waiting = bench.enqueue().await?;
    let leased = bench.enqueue().await?;
    let lease = lease(&outbox, leased, app).await?;
    let unknown = MessageId(uuid::Uuid::nil());
    for (id, number) in [(waiting, 1), (leased, lease.attempt + 1), (leased, 0), (unknown, 1)] {
        let result = bench.subject.record_receipt(id, number, DeliveryStatus::Delivered).await?;
        ensure!(result == ReceiptResult::Unknown, "attempt {number}: {result:?}");
    }
    bench.expect(waiting, DispatchStatus::Pending).await?;
    bench.expect(leased, DispatchStatus::Sending).await?;
    ensure!(bench.subject.delivery(waiting, 1).await?.is_none(), "it was kept");
    ensure!(bench.waiting(&outbox, waiting).await?.is_some(), "the message waits no longer");
    Ok(())
}

pub(super) async fn a_receipt_leaves_an_answer_as_it_is<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    let number = attempt(&outbox, id, app, AttemptStatus::RefusedRecipient).await?.attempt;
    let result = bench.subject.record_receipt(id, number, DeliveryStatus::Delivered).await?;
    ensure!(result == ReceiptResult::Recorded, "{result:?}");
    bench.expect(id, DispatchStatus::Failed).await?;
    expect_told_by(bench, id, &[(AttemptStatus::RefusedRecipient, None)]).await
}

pub(super) async fn what_is_unclear_is_given_out_three_times_to_be_looked_up<S: Subject>(
    bench: &Bench<'_, S>,
) -> Result<()> {
    let (a, b) = (bench.worker("a").await?, bench.worker("b").await?);
    let (app, mute) = (bench.install(FIRST).await?, bench.install(SECOND).await?);
    let (first, number) = unclear(bench, &a, app).await?;
    let (second, _) = unclear(bench, &a, app).await?;
    let (never, _) = unclear(bench, &a, mute).await?;
    let told = unclear(bench, &a, app).await?;
    ensure!(bench.subject.resolve(told.0, told.1, AttemptStatus::Accepted, Evidence::Operator).await?, "not taken");
    let later = a.unclear(Duration::from_secs(3600), 10_000).await?;
    ensure!(later.iter().all(|unclear| ![first, second].contains(&unclear.id)), "given out before its time");
    let mut given = Vec::new();
    for outbox in [&a, &b, &a, &b] {
        let due: Vec<Unclear> = outbox.unclear(Duration::ZERO, 10_000).await?;
        if let Some(unclear) = due.iter().find(|unclear| unclear.id == first) {
            let has_all = unclear.app == app
                && unclear.attempt == number
                && *unclear.organization == *bench.organization
                && &*unclear.slug == FIRST
                && unclear.mobile.e164() == bench.message().mobile
                && unclear.body.text() == bench.message().message;
            ensure!(has_all, "{unclear:?}");
        }
        given.extend(due.into_iter().map(|unclear| unclear.id));
        // The second becomes known after it was given out once.
        let found = Resolution {
            id: second,
            attempt: 1,
            verdict: AttemptStatus::Accepted,
            provider_message_id: Some("sb-1".to_owned()),
            detail: None,
        };
        outbox.resolve(&found).await?;
    }
    let times = |id| given.iter().filter(|given| **given == id).count();
    ensure!((times(first), times(second)) == (3, 1), "{} and {} times", times(first), times(second));
    ensure!((times(never), times(told.0)) == (0, 0), "what cannot be asked, or is known, was given out");
    bench.expect(first, DispatchStatus::DispatchTimeout).await?;
    bench.expect(second, DispatchStatus::Sent).await?;
    expect_told_by(bench, second, &[(AttemptStatus::Accepted, Some(Evidence::LookUp))]).await
}
