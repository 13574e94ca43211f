//! Cases: what each class of outcome does with the message and with the app.

use std::time::Duration;

use super::*;

pub(super) async fn accepted_is_sent<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    let finished = attempt(&outbox, id, app, AttemptStatus::Accepted).await?;
    ensure!(finished.status == Some(DispatchStatus::Sent), "finish says {:?}", finished.status);
    bench.expect(id, DispatchStatus::Sent).await?;
    bench.expect_attempts(id, &[AttemptStatus::Accepted]).await
}

pub(super) async fn refused_recipient_fails_at_once<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    bench.install(SECOND).await?;
    let id = bench.enqueue().await?;
    attempt(&outbox, id, app, AttemptStatus::RefusedRecipient).await?;
    bench.expect(id, DispatchStatus::Failed).await?;
    ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "the app is not untouched");
    Ok(())
}

pub(super) async fn refused_content_goes_to_the_next_app<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let next = bench.install(SECOND).await?;
    let id = bench.enqueue().await?;
    attempt(&outbox, id, app, AttemptStatus::RefusedContent).await?;
    let entry = bench.waiting(&outbox, id).await?.context("the message does not wait for the next app")?;
    ensure!(entry.refused_by == [app], "the log does not show who refused");
    expect_word(&claim(&outbox, id, Some(app)).await?, "app_unavailable")?;
    ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "the app is not untouched");
    attempt(&outbox, id, next, AttemptStatus::Accepted).await?;
    bench.expect(id, DispatchStatus::Sent).await?;
    bench.expect_attempts(id, &[AttemptStatus::RefusedContent, AttemptStatus::Accepted]).await
}

pub(super) async fn refused_content_fails_when_no_app_is_left<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let next = bench.install(SECOND).await?;
    let id = bench.enqueue().await?;
    attempt(&outbox, id, app, AttemptStatus::RefusedContent).await?;
    attempt(&outbox, id, next, AttemptStatus::RefusedContent).await?;
    bench.expect(id, DispatchStatus::Failed).await
}

pub(super) async fn refused_content_by_a_pinned_slug_fails<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    bench.install(SECOND).await?;
    let id = bench.subject.enqueue(Enqueue { pinned: Some(FIRST.to_owned()), ..bench.message() }).await?;
    attempt(&outbox, id, app, AttemptStatus::RefusedContent).await?;
    bench.expect(id, DispatchStatus::Failed).await
}

pub(super) async fn not_sent_goes_to_the_next_app_at_once<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let next = bench.install(SECOND).await?;
    let id = bench.enqueue().await?;
    attempt(&outbox, id, app, AttemptStatus::NotSent).await?;
    let entry = bench.waiting(&outbox, id).await?.context("the message does not wait for the next app")?;
    ensure!(entry.avoid == [app] && entry.refused_by.is_empty(), "the log does not show who failed");
    attempt(&outbox, id, next, AttemptStatus::Accepted).await?;
    bench.expect_attempts(id, &[AttemptStatus::NotSent, AttemptStatus::Accepted]).await
}

pub(super) async fn not_sent_by_all_apps_backs_off_and_starts_anew<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let next = bench.install(SECOND).await?;
    let id = bench.enqueue().await?;
    attempt(&outbox, id, app, AttemptStatus::NotSent).await?;
    attempt(&outbox, id, next, AttemptStatus::NotSent).await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "the message does not back off");
    bench.expect(id, DispatchStatus::Pending).await?;
    bench.subject.make_due(id).await?;
    bench.subject.run_maintenance().await?;
    let entry = bench.waiting(&outbox, id).await?.context("the message does not come back")?;
    ensure!(entry.avoid.is_empty(), "a new round still avoids {:?}", entry.avoid);
    attempt(&outbox, id, app, AttemptStatus::Accepted).await.map(drop)
}

/// Ends attempts like this until nothing is left, and tells how many it took.
async fn spend<S: Subject>(
    bench: &Bench<'_, S>,
    outbox: &S::Outbox,
    id: MessageId,
    app: AppId,
    status: AttemptStatus,
) -> Result<u16> {
    for tries in 1..=MAX_ATTEMPTS + 1 {
        attempt(outbox, id, app, status).await?;
        if bench.subject.status(id).await? != DispatchStatus::Pending {
            return Ok(tries);
        }
        bench.subject.make_due(id).await?;
        bench.subject.run_maintenance().await?;
    }
    bail!("the message is tried for ever")
}

/// The answer of the claim was lost, again and again: the provider was asked nothing.
pub(super) async fn what_was_never_begun_counts_nothing<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    // More than the attempts of a message, and than the failures that open a breaker.
    let times = MAX_ATTEMPTS.max(5) + 1;
    for _ in 0..times {
        let lease = lease(&outbox, id, app).await?;
        let never_begun = Outcome { error_code: Some(CLAIM_ANSWER_LOST.to_owned()), ..outcome(AttemptStatus::NotSent) };
        ensure!(finish(&outbox, id, lease.attempt, never_begun).await?.applied, "it was not given back");
        ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "the app is not untouched");
        let entry = bench.waiting(&outbox, id).await?.context("the message does not wait")?;
        ensure!(entry.avoid.is_empty(), "the app is passed over");
    }
    let standing = bench.subject.standings(&[id]).await?.pop().flatten().context("no standing")?;
    ensure!(standing.tries == 0, "{} attempts were counted", standing.tries);
    attempt(&outbox, id, app, AttemptStatus::NotSent).await?;
    ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "what was given back counted after all");
    bench.expect(id, DispatchStatus::Pending).await
}

pub(super) async fn attempts_are_spent<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    let tries = spend(bench, &outbox, id, app, AttemptStatus::NotSent).await?;
    ensure!(tries == MAX_ATTEMPTS, "spent after {tries}");
    bench.expect(id, DispatchStatus::Failed).await
}

pub(super) async fn refused_account_waits_uncounted_and_blocks_the_app<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    // More often than attempts are allowed: none of them counts.
    for _ in 0..=MAX_ATTEMPTS {
        attempt(&outbox, id, app, AttemptStatus::RefusedAccount).await?;
        ensure!(bench.waiting(&outbox, id).await?.is_some(), "the message does not wait");
        let state = bench.app_state(&outbox, app).await?;
        ensure!(
            matches!(&state, AppState::Blocked(left) if (50..=60).contains(&left.as_secs())),
            "the app is {state:?}, expected blocked for a minute"
        );
        expect_word(&claim(&outbox, id, Some(app)).await?, "app_unavailable")?;
        bench.subject.pass_block(app).await?;
        ensure!(bench.app_state(&outbox, app).await? == AppState::Probe, "no probe after the block");
    }
    attempt(&outbox, id, app, AttemptStatus::Accepted).await?;
    ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "a good probe does not close the breaker");
    bench.expect(id, DispatchStatus::Sent).await
}

pub(super) async fn throttled_waits_uncounted_and_blocks_for_the_time_asked<S: Subject>(
    bench: &Bench<'_, S>,
) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    for _ in 0..=MAX_ATTEMPTS {
        let lease = lease(&outbox, id, app).await?;
        let asked = Some(Duration::from_secs(30));
        let throttled = Outcome { retry_after: asked, ..outcome(AttemptStatus::Throttled) };
        ensure!(finish(&outbox, id, lease.attempt, throttled).await?.applied, "the outcome was not applied");
        ensure!(bench.waiting(&outbox, id).await?.is_some(), "the message does not wait");
        let state = bench.app_state(&outbox, app).await?;
        ensure!(
            matches!(&state, AppState::Blocked(left) if (20..=30).contains(&left.as_secs())),
            "the app is {state:?}, expected blocked for 30 s"
        );
        expect_word(&claim(&outbox, id, Some(app)).await?, "app_unavailable")?;
        bench.subject.pass_block(app).await?;
        ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "a throttled app needs no probe");
    }
    attempt(&outbox, id, app, AttemptStatus::Accepted).await.map(drop)
}

pub(super) async fn throttling_again_and_again_blocks_longer_each_time<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    for expected in [1, 2, 4, 8] {
        attempt(&outbox, id, app, AttemptStatus::Throttled).await?;
        let state = bench.app_state(&outbox, app).await?;
        let (expected, slack) = (Duration::from_secs(expected), Duration::from_millis(900));
        ensure!(
            matches!(&state, AppState::Blocked(left) if *left <= expected && *left + slack > expected),
            "the app is {state:?}, expected blocked for {expected:?}"
        );
        bench.subject.pass_block(app).await?;
    }
    attempt(&outbox, id, app, AttemptStatus::Accepted).await?;
    attempt(&outbox, bench.enqueue().await?, app, AttemptStatus::Throttled).await?;
    let state = bench.app_state(&outbox, app).await?;
    ensure!(
        matches!(&state, AppState::Blocked(left) if left.as_secs() <= 1),
        "the app is {state:?}: an acceptance does not begin anew"
    );
    Ok(())
}

pub(super) async fn unclear_is_not_sent_again<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    bench.install(SECOND).await?;
    let id = bench.enqueue().await?;
    attempt(&outbox, id, app, AttemptStatus::Unclear).await?;
    bench.expect(id, DispatchStatus::DispatchTimeout).await?;
    bench.subject.run_maintenance().await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "an unclear message waits again");
    expect_word(&claim(&outbox, id, Some(app)).await?, "gone")
}

pub(super) async fn unclear_is_sent_again_where_opted_in<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install_with(FIRST, true).await?);
    let id = bench.enqueue().await?;
    attempt(&outbox, id, app, AttemptStatus::Unclear).await?;
    bench.expect(id, DispatchStatus::Pending).await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "the message does not back off");
    bench.subject.make_due(id).await?;
    bench.subject.run_maintenance().await?;
    attempt(&outbox, id, app, AttemptStatus::Accepted).await?;
    bench.expect_attempts(id, &[AttemptStatus::Unclear, AttemptStatus::Accepted]).await
}

pub(super) async fn unclear_with_opt_in_is_spent_as_timeout<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install_with(FIRST, true).await?);
    let id = bench.enqueue().await?;
    let tries = spend(bench, &outbox, id, app, AttemptStatus::Unclear).await?;
    ensure!(tries == MAX_ATTEMPTS, "spent after {tries}");
    bench.expect(id, DispatchStatus::DispatchTimeout).await
}

pub(super) async fn unclear_of_an_uninstalled_app_is_not_sent_again<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install_with(FIRST, true).await?);
    bench.install(SECOND).await?;
    let id = bench.enqueue().await?;
    let lease = lease(&outbox, id, app).await?;
    // Nobody has opted in for the app that is left.
    bench.subject.uninstall_app(app).await?;
    ensure!(finish(&outbox, id, lease.attempt, outcome(AttemptStatus::Unclear)).await?.applied, "not applied");
    bench.expect(id, DispatchStatus::DispatchTimeout).await
}
