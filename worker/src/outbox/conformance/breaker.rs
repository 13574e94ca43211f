//! Cases: an app that is closed by what its attempts said, and how it opens again.

use std::time::Duration;

use super::*;

/// Messages leased for the app while it is open.
async fn in_flight<S: Subject>(
    bench: &Bench<'_, S>,
    outbox: &S::Outbox,
    app: AppId,
    most: usize,
) -> Result<Vec<Lease>> {
    let mut leases = Vec::new();
    for _ in 0..most {
        leases.push(lease(outbox, bench.enqueue().await?, app).await?);
    }
    Ok(leases)
}

async fn end(outbox: &impl Outbox, lease: &Lease, status: AttemptStatus, retry_after: Option<u64>) -> Result<()> {
    let told = Outcome { retry_after: retry_after.map(Duration::from_secs), ..outcome(status) };
    ensure!(finish(outbox, lease.id, lease.attempt, told).await?.applied, "a live lease's outcome was not applied");
    Ok(())
}

async fn expect_blocked<S: Subject>(
    bench: &Bench<'_, S>,
    outbox: &S::Outbox,
    app: AppId,
    seconds: std::ops::RangeInclusive<u64>,
) -> Result<()> {
    let state = bench.app_state(outbox, app).await?;
    ensure!(
        matches!(&state, AppState::Blocked(left) if seconds.contains(&left.as_secs())),
        "the app is {state:?}, expected blocked for {seconds:?} s"
    );
    Ok(())
}

pub(super) async fn a_breaker_opens_and_lets_one_probe_through<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    for failures in 0..5 {
        ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "open only {failures} failures");
        attempt(&outbox, bench.enqueue().await?, app, AttemptStatus::Unclear).await?;
    }
    let state = bench.app_state(&outbox, app).await?;
    ensure!(matches!(state, AppState::Blocked(_)), "after five failures the app is {state:?}");
    let (first, second) = (bench.enqueue().await?, bench.enqueue().await?);
    // The next interval, until which the second claim is refused, is a second at first: let it grow.
    for _ in 0..4 {
        bench.subject.pass_block(app).await?;
        attempt(&outbox, bench.enqueue().await?, app, AttemptStatus::Unclear).await?;
    }
    bench.subject.pass_block(app).await?;
    ensure!(bench.app_state(&outbox, app).await? == AppState::Probe, "no probe after the block");
    let wish = |id| Claim { id, app: Some(app) };
    let answers = outbox.claim(&[wish(first), wish(second)]).await?;
    let leased = answers.iter().filter(|answer| word(answer) == "leased").count();
    let unavailable = answers.iter().filter(|answer| word(answer) == "app_unavailable").count();
    ensure!((leased, unavailable) == (1, 1), "of two probes {leased} went through");
    let Some(Claimed::Leased(probe)) = answers.into_iter().find(|answer| word(answer) == "leased") else {
        bail!("no probe")
    };
    finish(&outbox, probe.id, probe.attempt, outcome(AttemptStatus::RefusedContent)).await?;
    ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "an answering app stays closed");
    // Closed and counted from zero: one more failure does not open it again.
    attempt(&outbox, bench.enqueue().await?, app, AttemptStatus::Unclear).await?;
    ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "the count was not zeroed");
    Ok(())
}

pub(super) async fn only_a_failed_probe_doubles_the_time<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let leases = in_flight(bench, &outbox, app, 12).await?;
    for lease in &leases {
        end(&outbox, lease, AttemptStatus::NotSent, None).await?;
    }
    // The seven that failed after it was closed were in flight before, and tell nothing new.
    let state = bench.app_state(&outbox, app).await?;
    ensure!(
        matches!(&state, AppState::Probe) || matches!(&state, AppState::Blocked(left) if left.as_secs() < 2),
        "the app is {state:?}, expected blocked for a second"
    );
    for seconds in [2_u64, 4, 8, 16, 32, 60, 60] {
        bench.subject.pass_block(app).await?;
        let probe = lease(&outbox, bench.enqueue().await?, app).await?;
        // While it is in flight there is no other.
        expect_blocked(bench, &outbox, app, 45..=60).await?;
        end(&outbox, &probe, AttemptStatus::Unclear, None).await?;
        // The shorter ones might be over before they are seen.
        if seconds > 8 {
            expect_blocked(bench, &outbox, app, seconds / 2 + 1..=seconds).await?;
        }
    }
    Ok(())
}

pub(super) async fn a_refused_account_stays_closed_when_its_probe_fails<S: Subject>(
    bench: &Bench<'_, S>,
) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    attempt(&outbox, bench.enqueue().await?, app, AttemptStatus::RefusedAccount).await?;
    for status in [AttemptStatus::NotSent, AttemptStatus::Unclear, AttemptStatus::RefusedAccount] {
        bench.subject.pass_block(app).await?;
        attempt(&outbox, bench.enqueue().await?, app, status).await?;
        expect_blocked(bench, &outbox, app, 45..=60).await?;
    }
    Ok(())
}

pub(super) async fn the_time_asked_for_outlasts_the_breaker<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    // Asked to wait, and then five in a row fail; or the account is refused; or the other way round.
    for first_throttled in [true, false] {
        for status in [AttemptStatus::NotSent, AttemptStatus::RefusedAccount] {
            let leases = in_flight(bench, &outbox, app, 6).await?;
            for (number, lease) in leases.iter().enumerate() {
                let throttled = number == if first_throttled { 0 } else { 5 };
                let status = if throttled { AttemptStatus::Throttled } else { status };
                end(&outbox, lease, status, throttled.then_some(600)).await?;
            }
            expect_blocked(bench, &outbox, app, 500..=600).await?;
            bench.subject.pass_block(app).await?;
            ensure!(bench.app_state(&outbox, app).await? == AppState::Probe, "the breaker was forgotten");
            attempt(&outbox, bench.enqueue().await?, app, AttemptStatus::Accepted).await?;
            ensure!(bench.app_state(&outbox, app).await? == AppState::Open, "an answering app stays closed");
        }
    }
    Ok(())
}

pub(super) async fn the_probe_is_the_first_message_that_may_go<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    attempt(&outbox, bench.enqueue().await?, app, AttemptStatus::RefusedAccount).await?;
    bench.subject.pass_block(app).await?;
    let valid = Enqueue { valid_for: Some(Duration::from_secs(3600)), ..bench.message() };
    let past = bench.subject.enqueue(valid).await?;
    bench.subject.pass_validity(past).await?;
    let pinned = Enqueue { pinned: Some(SECOND.to_owned()), ..bench.message() };
    bench.install(SECOND).await?;
    let elsewhere = bench.subject.enqueue(pinned).await?;
    let (later, sooner) = (bench.enqueue().await?, bench.enqueue().await?);
    let wishes = [past, elsewhere, sooner, later].map(|id| Claim { id, app: Some(app) });
    let answers: Vec<_> = outbox.claim(&wishes).await?.iter().map(word).collect();
    ensure!(answers == ["gone", "app_unavailable", "leased", "app_unavailable"], "the claims are {answers:?}");
    Ok(())
}

pub(super) async fn a_resumed_app_is_tried_anew<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    for status in [AttemptStatus::RefusedAccount, AttemptStatus::Throttled] {
        attempt(&outbox, bench.enqueue().await?, app, status).await?;
        for paused in [true, false] {
            bench.subject.set_app_paused(app, paused).await?;
        }
        let state = bench.app_state(&outbox, app).await?;
        ensure!(state == AppState::Open, "{status}: the resumed app is {state:?}");
    }
    Ok(())
}
