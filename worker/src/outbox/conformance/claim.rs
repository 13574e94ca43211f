//! Cases: what is claimed, by whom, and what a look shows.

use std::time::Duration;

use super::*;

pub(super) async fn a_claim_gives_everything_that_an_attempt_needs<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    bench.expect(id, DispatchStatus::Pending).await?;
    let lease = lease(&outbox, id, app).await?;
    ensure!((lease.id, lease.attempt, lease.app) == (id, 1, app), "the lease is for something else");
    ensure!(&*lease.slug == FIRST, "the slug is {}", lease.slug);
    ensure!(lease.mobile.e164() == "+966501234567", "the recipient is another");
    ensure!(lease.body.text() == bench.message().message, "the text is another");
    ensure!(lease.sender.is_none(), "nobody asked for a sender");
    ensure!(lease.lasts > Duration::ZERO, "the lease is over before it begins");
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "a leased message is still in the log");
    bench.expect(id, DispatchStatus::Sending).await
}

pub(super) async fn a_claim_tells_the_trace_and_the_waiting<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    for (given, taken) in [(Some(trace), Some(trace)), (Some("+966501234567"), None), (None, None)] {
        let message = Enqueue { traceparent: given.map(str::to_owned), ..bench.message() };
        let lease = lease(&outbox, bench.subject.enqueue(message).await?, app).await?;
        let told = lease.traceparent.as_ref().map(|parent| parent.as_str());
        ensure!(told == taken, "of {given:?} the claim told {told:?}");
        ensure!(lease.waited < Duration::from_secs(600), "it waited {:?}", lease.waited);
    }
    Ok(())
}

pub(super) async fn of_two_claims_one_is_leased_and_the_other_gone<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (a, b, app) = (bench.worker("a").await?, bench.worker("b").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    lease(&a, id, app).await?;
    expect_word(&claim(&b, id, Some(app)).await?, "gone")?;
    expect_word(&claim(&a, id, Some(app)).await?, "gone")
}

pub(super) async fn an_id_twice_in_one_claim_is_leased_once<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let (twice, once) = (bench.enqueue().await?, bench.enqueue().await?);
    let wish = |id| Claim { id, app: Some(app) };
    let answers = outbox.claim(&[wish(twice), wish(once), wish(twice)]).await?;
    ensure!(answers.len() == 3, "three claims got {} answers", answers.len());
    let leased = |place: usize| matches!(answers.get(place), Some(Claimed::Leased(_)));
    ensure!(leased(1), "the other message's answer is not in its place");
    ensure!(leased(0) != leased(2), "the message was not leased exactly once");
    Ok(())
}

pub(super) async fn another_organizations_app_is_unavailable<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let outbox = bench.worker("a").await?;
    bench.install(FIRST).await?;
    let foreign = Install {
        organization: format!("{}-b", bench.organization),
        slug: FIRST.to_owned(),
        name: FIRST.to_owned(),
        resend_unclear: false,
    };
    let foreign = bench.subject.install_app(foreign).await?;
    let id = bench.enqueue().await?;
    expect_word(&claim(&outbox, id, Some(foreign)).await?, "app_unavailable")?;
    bench.expect(id, DispatchStatus::Pending).await
}

pub(super) async fn an_unknown_message_is_gone<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let unknown = MessageId(uuid::Uuid::now_v7());
    expect_word(&claim(&outbox, unknown, Some(app)).await?, "gone")?;
    let finished = finish(&outbox, unknown, 1, outcome(AttemptStatus::NotSent)).await?;
    ensure!(!finished.applied && finished.status.is_none(), "an unknown message was finished");
    Ok(())
}

pub(super) async fn no_app_is_refused_while_one_matches<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    bench.subject.set_app_paused(app, true).await?;
    expect_word(&claim(&outbox, id, None).await?, "app_unavailable")?;
    bench.expect(id, DispatchStatus::Pending).await
}

pub(super) async fn no_app_ends_the_message_when_none_matches<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    bench.subject.uninstall_app(app).await?;
    expect_word(&claim(&outbox, id, None).await?, "failed")?;
    bench.expect(id, DispatchStatus::Failed).await?;
    bench.expect_attempts(id, &[]).await
}

pub(super) async fn an_uninstalled_app_is_unavailable<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, gone) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let left = bench.install(SECOND).await?;
    let (waiting, leased) = (bench.enqueue().await?, bench.enqueue().await?);
    let lease = lease(&outbox, leased, gone).await?;
    bench.subject.uninstall_app(gone).await?;
    let listed = outbox.apps(&[bench.organization.as_str().into()]).await?;
    ensure!(listed.iter().map(|app| app.id).collect::<Vec<_>>() == [left], "the uninstalled app is listed");
    expect_word(&claim(&outbox, waiting, Some(gone)).await?, "app_unavailable")?;
    let finished = finish(&outbox, leased, lease.attempt, outcome(AttemptStatus::Accepted)).await?;
    ensure!(finished.applied, "uninstalling ended a live attempt");
    bench.expect(leased, DispatchStatus::Sent).await
}

pub(super) async fn a_pinned_message_goes_by_its_slug_alone<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, first) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let second = bench.install(SECOND).await?;
    let pinned = Enqueue { pinned: Some(SECOND.to_owned()), ..bench.message() };
    let id = bench.subject.enqueue(pinned).await?;
    let entry = bench.waiting(&outbox, id).await?.context("the message is not in the log")?;
    ensure!(entry.pinned.as_deref() == Some(SECOND), "the log does not show the slug");
    expect_word(&claim(&outbox, id, Some(first)).await?, "app_unavailable")?;
    attempt(&outbox, id, second, AttemptStatus::NotSent).await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "another slug's app counted as the next one");
    bench.expect(id, DispatchStatus::Pending).await
}

pub(super) async fn a_paused_app_is_unavailable_until_resumed<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    bench.subject.set_app_paused(app, true).await?;
    ensure!(bench.app_state(&outbox, app).await? == AppState::Paused, "the app is not shown as paused");
    expect_word(&claim(&outbox, id, Some(app)).await?, "app_unavailable")?;
    bench.subject.set_app_paused(app, false).await?;
    lease(&outbox, id, app).await.map(drop)
}

pub(super) async fn a_paused_organization_is_unavailable_until_resumed<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let id = bench.enqueue().await?;
    bench.subject.set_organization_paused(&bench.organization, true).await?;
    ensure!(bench.app_state(&outbox, app).await? == AppState::Paused, "the app is not shown as paused");
    expect_word(&claim(&outbox, id, Some(app)).await?, "app_unavailable")?;
    bench.subject.set_organization_paused(&bench.organization, false).await?;
    lease(&outbox, id, app).await.map(drop)
}

pub(super) async fn a_scheduled_message_waits_until_due<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let later = Enqueue { due_in: Some(Duration::from_secs(3600)), ..bench.message() };
    let id = bench.subject.enqueue(later).await?;
    bench.subject.run_maintenance().await?;
    ensure!(bench.waiting(&outbox, id).await?.is_none(), "a scheduled message is in the log");
    expect_word(&claim(&outbox, id, Some(app)).await?, "gone")?;
    bench.subject.make_due(id).await?;
    bench.subject.run_maintenance().await?;
    ensure!(bench.waiting(&outbox, id).await?.is_some(), "a due message is not in the log");
    lease(&outbox, id, app).await.map(drop)
}

pub(super) async fn a_message_past_its_validity_is_gone_and_expires<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (outbox, app) = (bench.worker("a").await?, bench.install(FIRST).await?);
    let valid = Enqueue { valid_for: Some(Duration::from_secs(3600)), ..bench.message() };
    let (kept, past) = (bench.subject.enqueue(valid.clone()).await?, bench.subject.enqueue(valid).await?);
    bench.subject.pass_validity(past).await?;
    expect_word(&claim(&outbox, past, Some(app)).await?, "gone")?;
    bench.subject.run_maintenance().await?;
    bench.expect(past, DispatchStatus::Expired).await?;
    lease(&outbox, kept, app).await.map(drop)
}

pub(super) async fn leases_are_the_workers_own_and_live<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (a, b, app) = (bench.worker("a").await?, bench.worker("b").await?, bench.install(FIRST).await?);
    let (own, done, foreign) = (bench.enqueue().await?, bench.enqueue().await?, bench.enqueue().await?);
    let lease_of_own = lease(&a, own, app).await?;
    attempt(&a, done, app, AttemptStatus::Accepted).await?;
    lease(&b, foreign, app).await?;
    ensure!(a.leases().await? == [(own, lease_of_own.attempt)], "the leases are others");
    let given_back = finish(&a, own, lease_of_own.attempt, outcome(AttemptStatus::NotSent)).await?;
    ensure!(given_back.applied, "a lease that never began was not given back");
    ensure!(a.leases().await?.is_empty(), "a finished lease is listed");
    Ok(())
}

pub(super) async fn a_heartbeat_names_the_live_workers<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let (a, b) = (bench.worker("a").await?, bench.worker("b").await?);
    let beat = crate::outbox::Heartbeat { version: "0.1.0".to_owned(), host: "here".to_owned(), ..Default::default() };
    let names = |workers: Vec<String>| -> Vec<String> {
        let own = workers.into_iter().filter(|name| name.starts_with(&bench.organization));
        let mut own: Vec<_> = own.collect();
        own.sort();
        own
    };
    let [name_a, name_b] = ["a", "b"].map(|name| format!("{}-{name}", bench.organization));
    ensure!(names(a.heartbeat(&beat).await?) == [name_a.as_str()], "a worker alone does not see itself alone");
    ensure!(names(b.heartbeat(&beat).await?) == [name_a, name_b], "the second does not see both");
    Ok(())
}

pub(super) async fn a_look_tells_priority_and_reads_on_from_a_mark<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let outbox = bench.worker("a").await?;
    bench.install(FIRST).await?;
    let of = |priority| Enqueue { priority, ..bench.message() };
    let mut normal = Vec::new();
    for _ in 0..3 {
        normal.push(bench.subject.enqueue(of(1)).await?);
    }
    let urgent = bench.subject.enqueue(of(0)).await?;
    let log = bench.log(&outbox).await?;
    let found: Vec<_> = log.iter().map(|entry| (entry.priority, entry.range, entry.id)).collect();
    ensure!(found == [(0, 0, urgent), (1, 1, normal[0]), (1, 1, normal[1]), (1, 1, normal[2])], "the log is {found:?}");
    let mark = |entry: &Entry| Mark { xid: entry.xid, id: entry.id.0 };
    let of_normal = |after, before| Range { priority: 1, after, before };
    let look = |range| Look { ranges: vec![range], organizations: vec![bench.organization.as_str().into()], page: 1 };
    let next = outbox.look(&look(of_normal(mark(&log[1]), None))).await?;
    ensure!(next.entries.iter().map(|entry| entry.id).collect::<Vec<_>>() == [normal[1]], "the next page is another");
    ensure!(next.snapshot.xmax > log[3].xid, "the snapshot does not cover what it shows");
    let exact = Mark { xid: log[2].xid, id: uuid::Uuid::nil() };
    let exact = outbox.look(&look(of_normal(exact, Some(log[2].xid + 1)))).await?;
    ensure!(exact.entries.iter().map(|entry| entry.id).collect::<Vec<_>>() == [normal[1]], "an exact xid is not read");
    let none = outbox.look(&look(of_normal(mark(&log[3]), None))).await?;
    ensure!(none.entries.is_empty(), "something lies behind the last row");
    Ok(())
}

pub(super) async fn a_look_serves_the_organizations_asked_for<S: Subject>(bench: &Bench<'_, S>) -> Result<()> {
    let outbox = bench.worker("a").await?;
    bench.install(FIRST).await?;
    let other = format!("{}-b", bench.organization);
    let install =
        Install { organization: other.clone(), slug: FIRST.into(), name: FIRST.into(), resend_unclear: false };
    bench.subject.install_app(install).await?;
    let own = bench.enqueue().await?;
    bench.subject.enqueue(Enqueue { organization: other, ..bench.message() }).await?;
    let log = bench.log(&outbox).await?;
    ensure!(log.iter().map(|entry| entry.id).collect::<Vec<_>>() == [own], "the log shows another's message");
    Ok(())
}
