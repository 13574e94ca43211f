//! Moves that meet: one of them moves the message, the other is told, and it is in one place after all.

use anyhow::Result;
use futures_util::future::{join, try_join_all};
use sms_outbox_tests::fault::Fault;
use sms_outbox_tests::queue::{Claimed, claim, finish};
use sms_outbox_tests::{Major, Queue, on_majors};
use tokio_postgres::{Client, Error};

on_majors! { ends:
    claims_each_message_once, cancels_or_claims, cancels_or_stages, cancels_once, retries_once, settles_a_late_acceptance,
    maintains_twice_at_once, finishes_or_times_out,
}

/// How many messages the two sides of a race fight over, one race each.
const RACES: usize = 60;

async fn enqueue_many(queue: &Queue, count: usize) -> Result<Vec<String>> {
    let rows = queue
        .admin()
        .query(
            "SELECT e.id FROM generate_series(1, $1::bigint) AS n, sms_outbox_enqueue('0501234567', 'm' || n, organization_id => 'shop') AS e",
            &[&i64::try_from(count)?],
        )
        .await?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// SQLSTATE of a call that may be refused.
fn state<T>(result: &Result<T, Error>) -> &str {
    result.as_ref().err().and_then(|error| error.code()).map_or("00000", |code| code.code())
}

async fn run(client: &Client, call: &str, id: &str) -> Result<String, Error> {
    client.query_one(&format!("SELECT sms_outbox.{call}('{id}')::text"), &[]).await?.try_get(0)
}

/// Races of a group of faults that went as they should: each message is in one place.
async fn close(queue: &Queue, major: Major, group: &str, case: &str, races: usize) -> Result<()> {
    queue.assert_placed().await?;
    let mut fault = Fault::new(group, case, major);
    fault.injected(u64::try_from(races)?);
    fault.asserted(usize::try_from(queue.count("sms_outbox.message").await?)?)
}

/// Many failures in a row would block the app.
async fn close_breaker(queue: &Queue) -> Result<()> {
    queue.sql("DELETE FROM sms_outbox.app_health").await
}

async fn claims_each_message_once(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let ids = enqueue_many(&queue, 1600).await?;
    let mut workers = Vec::new();
    for worker in 0..16 {
        let session = queue.connect_as("worker").await?;
        let (ids, app) = (&ids, queue.app());
        workers.push(async move {
            let mut leased = Vec::new();
            // Everybody wants everything, each from another place on, some ids twice in a call.
            for chunk in 0..16 {
                let from = (chunk + worker) % 16 * 100;
                let mut wanted: Vec<&str> = ids[from..from + 100].iter().map(String::as_str).collect();
                wanted.extend_from_within(..10);
                for Claimed { id, result, attempt } in claim(&session, &format!("w{worker}"), &wanted, app).await? {
                    match result.as_str() {
                        "leased" => leased.push((id, attempt)),
                        other => assert!(matches!(other, "gone" | "locked"), "{other}"),
                    }
                }
            }
            Ok::<_, Error>(leased)
        });
    }
    let mut leased: Vec<_> = try_join_all(workers).await?.into_iter().flatten().collect();
    leased.sort();
    let expected: Vec<_> = ids.iter().map(|id| (id.clone(), Some(1))).collect();
    assert_eq!(leased, expected, "every message once");
    assert_eq!((queue.count("sms_outbox.lease").await?, queue.count("sms_outbox.ready").await?), (1600, 0));
    queue.assert_placed().await
}

async fn cancels_or_claims(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (worker, operator) = (queue.connect_as("worker").await?, queue.connect_as("operator").await?);
    for id in enqueue_many(&queue, RACES).await? {
        let wanted = [id.as_str()];
        let (claimed, canceled) = join(claim(&worker, "w", &wanted, queue.app()), run(&operator, "cancel", &id)).await;
        let result = claimed?.remove(0).result;
        match state(&canceled) {
            "00000" => assert!(matches!(result.as_str(), "gone" | "locked"), "canceled and {result}"),
            other => assert_eq!((other, result.as_str()), ("55000", "leased")),
        }
    }
    close(&queue, major, "26", "a cancel and a claim at once", RACES).await
}

async fn cancels_or_stages(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let operator = queue.connect_as("operator").await?;
    let ids = enqueue_many(&queue, RACES).await?;
    for id in &ids {
        queue
            .sql(&format!(
                "WITH moved AS (DELETE FROM sms_outbox.ready WHERE id = '{id}' RETURNING *)
                 INSERT INTO sms_outbox.scheduled (id, due_at, since, server, priority, organization_id, reason)
                 SELECT id, now(), since, server, priority, organization_id, 'datetime' FROM moved"
            ))
            .await?;
        let (staged, canceled) = join(queue.maintain(), run(&operator, "cancel", id)).await;
        staged?;
        assert_eq!(canceled?, "canceled", "wherever the message was, it was waiting");
    }
    assert_eq!(queue.count("sms_outbox.ended WHERE status = 'canceled'").await?, i64::try_from(RACES)?);
    close(&queue, major, "26", "a cancel, and its time comes", RACES).await
}

async fn cancels_once(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (one, other) = (queue.connect_as("operator").await?, queue.connect_as("operator").await?);
    for id in enqueue_many(&queue, RACES).await? {
        let (first, second) = join(run(&one, "cancel", &id), run(&other, "cancel", &id)).await;
        let mut states = [state(&first), state(&second)];
        states.sort_unstable();
        assert_eq!(states, ["00000", "55000"]);
    }
    assert_eq!(queue.count("sms_outbox.ended WHERE status = 'canceled'").await?, i64::try_from(RACES)?);
    close(&queue, major, "26", "two cancels at once", RACES).await
}

async fn retries_once(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (one, other) = (queue.connect_as("operator").await?, queue.connect_as("operator").await?);
    for id in enqueue_many(&queue, RACES).await? {
        queue.attempt(&id, "refused_recipient").await?;
        let (first, second) = join(run(&one, "retry", &id), run(&other, "retry", &id)).await;
        let mut states = [state(&first), state(&second)];
        states.sort_unstable();
        assert_eq!(states, ["00000", "55000"]);
    }
    assert_eq!(queue.count("sms_outbox.ready").await?, i64::try_from(RACES)?);
    close(&queue, major, "26", "two retries at once", RACES).await
}

async fn settles_a_late_acceptance(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (early, late) = (queue.connect_as("worker").await?, queue.connect_as("worker").await?);
    for (round, id) in enqueue_many(&queue, RACES).await?.into_iter().enumerate() {
        close_breaker(&queue).await?;
        assert_eq!(queue.attempt(&id, "unclear").await?, "dispatch_timeout");
        run(queue.admin(), "retry", &id).await?;
        close_breaker(&queue).await?;
        assert_eq!(queue.lease(&id).await?, 2);
        // The first attempt turns out to be accepted while the second one ends, in whatever way.
        let second = ["not_sent", "unclear", "throttled", "refused_content", "refused_recipient"][round % 5];
        let (first, ended) = join(finish(&early, "w", &id, 1, "accepted"), finish(&late, "w", &id, 2, second)).await;
        assert!(first?.applied && ended?.applied);
        assert_eq!(queue.status(&id).await?, "sent", "{second}");
        let again = finish(&early, "w", &id, 1, "accepted").await?;
        assert_eq!(
            (again.applied, again.dispatch_status.as_deref()),
            (false, Some("sent")),
            "repeated, it does no harm"
        );
    }
    assert_eq!(
        queue.count("sms_outbox.ready").await? + queue.count("sms_outbox.scheduled").await?,
        0,
        "nothing is tried again"
    );
    let sent: i64 = queue.value("SELECT sent FROM sms_outbox.queue_stats", &[]).await?;
    assert_eq!(sent, i64::try_from(RACES)?, "each counts once");
    close(&queue, major, "28", "a late acceptance as the next try ends", RACES).await
}

async fn maintains_twice_at_once(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let ids = enqueue_many(&queue, 3000).await?;
    let wanted: Vec<&str> = ids.iter().map(String::as_str).collect();
    claim(queue.admin(), "w", &wanted[..2000], queue.app()).await?;
    queue
        .sql(
            "UPDATE sms_outbox.lease SET expires_at = now();
             UPDATE sms_outbox.ready SET valid_until = now() WHERE id IN (SELECT id FROM sms_outbox.ready ORDER BY id LIMIT 500);
             WITH moved AS (DELETE FROM sms_outbox.ready WHERE valid_until IS NULL RETURNING *)
             INSERT INTO sms_outbox.scheduled (id, due_at, since, server, priority, organization_id, reason)
             SELECT id, now(), since, server, priority, organization_id, 'backoff' FROM moved",
        )
        .await?;
    let mut runs = Vec::new();
    for _ in 0..4 {
        let session = queue.connect().await?;
        runs.push(async move {
            while session
                .query_one("SELECT bool_or(more) FROM sms_outbox.run_maintenance()", &[])
                .await?
                .try_get::<_, bool>(0)?
            {}
            Ok::<_, Error>(())
        });
    }
    try_join_all(runs).await?;
    queue.maintain().await?;
    let places = queue
        .rows(
            "SELECT (SELECT count(*) FROM sms_outbox.attempt) AS attempts, (SELECT count(*) FROM sms_outbox.ready) AS ready,
                    dispatch_timeout, expired FROM sms_outbox.queue_stats",
        )
        .await?;
    assert_eq!(
        places,
        [serde_json::json!({ "attempts": 2000, "ready": 500, "dispatch_timeout": 2000, "expired": 500 })]
    );
    close(&queue, major, "10", "four maintenance runs at once", 4).await
}

async fn finishes_or_times_out(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let worker = queue.connect_as("worker").await?;
    for id in enqueue_many(&queue, RACES).await? {
        close_breaker(&queue).await?;
        let attempt = queue.lease(&id).await?;
        queue.sql("UPDATE sms_outbox.lease SET expires_at = now()").await?;
        let (maintained, finished) = join(queue.maintain(), finish(&worker, "w", &id, attempt, "accepted")).await;
        maintained?;
        let finished = finished?;
        assert_eq!(
            (finished.applied, finished.dispatch_status.as_deref()),
            (true, Some("sent")),
            "in time or late, it is recorded"
        );
        assert_eq!(queue.status(&id).await?, "sent");
    }
    assert_eq!(queue.count("sms_outbox.attempt").await?, i64::try_from(RACES)?);
    let sent: i64 = queue.value("SELECT sent FROM sms_outbox.queue_stats", &[]).await?;
    assert_eq!(sent, i64::try_from(RACES)?);
    close(&queue, major, "10", "an outcome as its lease runs out", RACES).await
}
