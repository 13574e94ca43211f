//! What must not grow with the days that are kept, and what must hold when a late acceptance meets a live attempt.

use std::time::Duration;

use anyhow::{Context, Result};
use sms_outbox_tests::queue::{claim, finish};
use sms_outbox_tests::{Major, Queue, on_majors};
use tokio::time::sleep;

on_majors! { ends: opens_one_day_only, counts_two_acceptances_once }

/// The executor locks the keys of the partitions that it opens: of one day, while eight exist. (The planner locks all of them,
/// once in a session.)
async fn opens_one_day_only(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (planned_again, again) = (queue.enqueue("fails").await?, queue.enqueue("fails too").await?);
    for id in [&planned_again, &again] {
        queue.attempt(id, "not_sent").await?;
    }
    queue.sql("UPDATE sms_outbox.scheduled SET due_at = now()").await?;
    queue.maintain().await?;
    let (planned_first, first) = (queue.enqueue("new").await?, queue.enqueue("new too").await?);
    assert_eq!(queue.count("sms_outbox.partitions()").await?, 8);
    let worker = queue.connect_as("worker").await?;
    for (id, planned) in [(planned_first, false), (planned_again, false), (first, true), (again, true)] {
        worker.batch_execute("BEGIN").await?;
        let attempt = claim(&worker, "w", &[&id], queue.app()).await?[0].attempt.context("not leased")?;
        finish(&worker, "w", &id, attempt, "accepted").await?;
        if !planned {
            worker.batch_execute("COMMIT").await?;
            continue;
        }
        for keys in ["message_p%pkey", "attempt_p%pkey"] {
            let opened = worker
                .query_one(
                    "SELECT count(*) FROM pg_locks AS k JOIN pg_class AS c ON c.oid = k.relation
                      WHERE k.pid = pg_backend_pid() AND c.relname LIKE $1",
                    &[&keys],
                )
                .await?;
            let opened: i64 = opened.try_get(0)?;
            // An insert lets go of the key at once.
            let inserts_only = keys.starts_with("attempt") && attempt == 1;
            assert_eq!(opened, i64::from(!inserts_only), "{keys} of attempt {attempt}");
        }
        worker.batch_execute("COMMIT").await?;
    }
    Ok(())
}

async fn counts_two_acceptances_once(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let id = queue.ended("twice", "unclear").await?;
    queue.sql(&format!("SELECT sms_outbox.retry('{id}'::sms_outbox.message_id)")).await?;
    let attempt = queue.lease(&id).await?;
    let (late, live) = (queue.connect_as("worker").await?, queue.connect_as("worker").await?);
    late.batch_execute("BEGIN").await?;
    assert!(finish(&late, "w", &id, 1, "accepted").await?.applied);
    let (finished, committed) = tokio::join!(finish(&live, "w", &id, attempt, "accepted"), async {
        sleep(Duration::from_millis(300)).await;
        late.batch_execute("COMMIT").await
    });
    committed?;
    assert!(finished?.applied);
    let counted: i64 =
        queue.value("SELECT sum(messages)::bigint FROM sms_outbox.tally WHERE status = 'sent'", &[]).await?;
    assert_eq!(counted, 1, "one message, however many SMS");
    queue.assert_placed().await
}
