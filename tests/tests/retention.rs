//! Days of messages: made ahead, dropped whole when all in them is over, and never in the way of an enqueue.

use anyhow::Result;
use serde_json::json;
use sms_outbox_tests::queue::{age, enqueue, finish};
use sms_outbox_tests::{Fault, Major, Queue, on_majors};

on_majors! { ends:
    drops_a_day_when_all_is_over, keeps_a_day_for_an_unfinished_message, waits_for_readers_without_making_others_wait,
    keeps_the_ends_apart, sends_what_is_scheduled_for_later_than_anything_is_kept,
}

/// Messages that are kept: texts, and the counts of `queue_stats`, which must agree with them.
async fn kept(queue: &Queue) -> Result<Vec<String>> {
    let rows = queue.rows("SELECT message AS text FROM sms_outbox.outbox ORDER BY 1").await?;
    let differs = "SELECT * FROM sms_outbox.queue_stats AS s WHERE organization_id = 'shop' AND (pending, sending, sent, failed, dispatch_timeout, canceled, expired) <> (
        SELECT count(*) FILTER (WHERE dispatch_status = 'pending'), count(*) FILTER (WHERE dispatch_status = 'sending'), count(*) FILTER (WHERE dispatch_status = 'sent'),
               count(*) FILTER (WHERE dispatch_status = 'failed'), count(*) FILTER (WHERE dispatch_status = 'dispatch_timeout'),
               count(*) FILTER (WHERE dispatch_status = 'canceled'), count(*) FILTER (WHERE dispatch_status = 'expired')
          FROM sms_outbox.outbox WHERE organization_id = 'shop')";
    assert_eq!(queue.rows(differs).await?, Vec::<serde_json::Value>::new(), "counts are those of what is kept");
    queue.assert_placed().await?;
    Ok(rows.iter().filter_map(|row| row["text"].as_str().map(str::to_owned)).collect())
}

/// Days that there are and that ended longer ago than anything is kept by default.
async fn old_days(queue: &Queue) -> Result<i64> {
    queue.count("sms_outbox.partitions() WHERE day < (now() AT TIME ZONE 'UTC')::date - 31").await
}

async fn drops_a_day_when_all_is_over(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    assert_eq!(queue.count("sms_outbox.partitions()").await?, 8, "made by install_app: today and seven days ahead");
    queue.sql("DO $$ DECLARE leaf record; BEGIN FOR leaf IN SELECT message, attempt FROM sms_outbox.partitions() WHERE day > now() + interval '3 days' LOOP
                   EXECUTE format('DROP TABLE %s, %s', leaf.message, leaf.attempt); END LOOP; END $$").await?;
    queue.maintain_all().await?;
    assert_eq!(queue.count("sms_outbox.partitions()").await?, 8, "made again by maintenance");

    let with_key =
        "SELECT id FROM sms_outbox_enqueue('0501234567', 'keyed', idempotency_key => 'k', organization_id => 'shop')";
    let keyed: String = queue.value(with_key, &[]).await?;
    queue.attempt(&keyed, "accepted").await?;
    let sent = queue.ended("sent", "accepted").await?;
    let failed = queue.ended("failed", "unclear").await?;
    queue.sql(&format!("SELECT sms_outbox.resolve('{failed}', 1, 'not_sent', 'operator')")).await?;
    let told = queue.ended("told", "unclear").await?;
    for id in [&sent, &keyed, &told] {
        queue.sql(&format!("SELECT sms_outbox.record_receipt('{id}', 1, 'delivered')")).await?;
    }
    age(&queue, 29).await?;
    queue.maintain_all().await?;
    assert_eq!(kept(&queue).await?, ["failed", "keyed", "sent", "told"], "not before their time");
    assert_eq!((queue.count("sms_outbox.receipt").await?, queue.count("sms_outbox.evidence").await?), (3, 2));
    age(&queue, 3).await?;
    queue.maintain_all().await?;
    assert_eq!(kept(&queue).await?, Vec::<String>::new());
    assert_eq!(old_days(&queue).await?, 0, "whole days are dropped");
    assert_eq!(queue.count("sms_outbox.idempotency").await?, 0, "and their keys forgotten");
    assert_eq!(queue.count("sms_outbox.tally").await?, 0);
    assert_eq!((queue.count("sms_outbox.receipt").await?, queue.count("sms_outbox.evidence").await?), (0, 0));
    assert_eq!(queue.count("sms_outbox.look_up").await?, 0);
    assert_eq!(queue.count("sms_outbox.maintenance WHERE task LIKE 'sweep %'").await?, 0, "and nothing is left to do");
    let again: String = queue.value(with_key, &[]).await?;
    assert_ne!(again, keyed);
    Ok(())
}

async fn keeps_a_day_for_an_unfinished_message(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.sql("SET sms_outbox.retention_pending = '3650d'").await?;
    let waiting = queue.enqueue("waiting").await?;
    let leased = queue.enqueue("leased").await?;
    queue.lease(&leased).await?;
    let later = "SELECT id FROM sms_outbox_enqueue('0501234567', 'later', datetime => now() + interval '89 days', organization_id => 'shop')";
    queue.value::<String>(later, &[]).await?;
    queue.ended("sent", "accepted").await?;
    queue.ended("failed", "refused_recipient").await?;
    age(&queue, 40).await?;
    let mut fault = Fault::new("17", "retention meets unfinished messages", major);
    fault.injected(3);
    queue.maintain_all().await?;
    assert_eq!(kept(&queue).await?, ["later", "leased", "waiting"], "what is over goes, what is not stays");
    assert_eq!(old_days(&queue).await?, 1, "and its day with it");
    queue.sql("UPDATE sms_outbox.ready SET since = now() - interval '1 minute'").await?;
    let id = async |text: &str| {
        queue.value::<String>(&format!("SELECT id::text FROM sms_outbox.outbox WHERE message = '{text}'"), &[]).await
    };
    assert_ne!(id("waiting").await?, waiting);
    queue.attempt(&id("waiting").await?, "accepted").await?;
    finish(queue.admin(), "w", &id("leased").await?, 1, "accepted").await?;
    queue.sql(&format!("SELECT sms_outbox.cancel('{}')", id("later").await?)).await?;
    queue.maintain_all().await?;
    assert_eq!(kept(&queue).await?.len(), 3, "kept from their end on");
    age(&queue, 31).await?;
    queue.maintain_all().await?;
    assert_eq!((kept(&queue).await?.len(), old_days(&queue).await?), (0, 0));
    fault.asserted(3)
}

async fn waits_for_readers_without_making_others_wait(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.ended("old", "accepted").await?;
    age(&queue, 40).await?;
    let partition: String = queue
        .value(
            "SELECT min(message::text) FROM sms_outbox.partitions() WHERE day < (now() AT TIME ZONE 'UTC')::date - 39",
            &[],
        )
        .await?;
    let session = queue.connect_as("app").await?;
    // Who waits for a lock for so long waits behind a DROP.
    session.batch_execute("SET lock_timeout = '250ms'").await?;
    let name = queue.name();
    let mut fault = Fault::new("17", "retention meets readers that last", major);
    for (who, begin, end) in [
        ("a reader of the day", format!("BEGIN; SELECT count(*) FROM {partition}"), "COMMIT".to_owned()),
        (
            "a cursor of a dump",
            "BEGIN ISOLATION LEVEL REPEATABLE READ; DECLARE c CURSOR FOR SELECT * FROM sms_outbox.outbox; FETCH 1 FROM c".to_owned(),
            "COMMIT".to_owned(),
        ),
        (
            "an open enqueue of today",
            "BEGIN; SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop'); SELECT pg_sleep(0.1)"
                .to_owned(),
            "ROLLBACK".to_owned(),
        ),
        (
            "a prepared transaction",
            format!("BEGIN; SELECT count(*) FROM sms_outbox.message; PREPARE TRANSACTION '{name}'"),
            format!("ROLLBACK PREPARED '{name}'"),
        ),
    ] {
        let holder = queue.connect().await?;
        holder.batch_execute(&begin).await?;
        for _ in 0..5 {
            let (maintained, enqueued) = tokio::join!(queue.maintain_all(), enqueue(&session, "shop", "meanwhile"));
            maintained?;
            enqueued?;
            assert_eq!(
                queue.count(&format!("(SELECT to_regclass('{partition}')) AS t (leaf) WHERE leaf IS NOT NULL")).await?,
                1,
                "{who}"
            );
        }
        holder.batch_execute(&end).await?;
        fault.injected(1);
    }
    queue.maintain_all().await?;
    assert_eq!(
        queue.count(&format!("(SELECT to_regclass('{partition}')) AS t (leaf) WHERE leaf IS NOT NULL")).await?,
        0,
        "in the end it goes"
    );
    assert_eq!(old_days(&queue).await?, 0);
    fault.asserted(usize::try_from(queue.count("sms_outbox.message").await?)?)
}

async fn keeps_the_ends_apart(major: Major) -> Result<()> {
    for (sent, failed, first_to_go, stays) in [("10d", "60d", "sent", "failed"), ("60d", "10d", "failed", "sent")] {
        let queue = Queue::new(major).await?;
        queue
            .sql(&format!("SET sms_outbox.retention_sent = '{sent}'; SET sms_outbox.retention_failed = '{failed}'"))
            .await?;
        for n in 0..3 {
            queue.ended(&format!("sent {n}"), "accepted").await?;
            queue.ended(&format!("failed {n}"), "refused_recipient").await?;
        }
        age(&queue, 20).await?;
        queue.maintain_all().await?;
        let left = kept(&queue).await?;
        assert!(
            left.len() == 3 && left.iter().all(|text| text.starts_with(stays)),
            "{first_to_go} goes first: {left:?}"
        );
        age(&queue, 42).await?;
        queue.maintain_all().await?;
        assert_eq!((kept(&queue).await?.len(), old_days(&queue).await?), (0, 0));
        assert_eq!(
            queue.rows("SELECT pending, sent, failed FROM sms_outbox.queue_stats").await?,
            [json!({ "pending": 0, "sent": 0, "failed": 0 })]
        );
    }
    Ok(())
}

/// Retention counts from the end, and waiting from when a message is due: both may be shorter than the longest schedule.
async fn sends_what_is_scheduled_for_later_than_anything_is_kept(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue
        .sql("SET sms_outbox.retention_sent = '1h'; SET sms_outbox.retention_failed = '1h'; SET sms_outbox.retention_pending = '1h'")
        .await?;
    let later = "SELECT id FROM sms_outbox_enqueue('0501234567', 'later', datetime => now() + interval '60 days', organization_id => 'shop')";
    queue.value::<String>(later, &[]).await?;
    queue.ended("sent", "accepted").await?;
    for _ in 0..2 {
        age(&queue, 29).await?;
        queue.sql("UPDATE sms_outbox.scheduled SET due_at = due_at - interval '29 days'").await?;
        queue.maintain_all().await?;
        assert_eq!(kept(&queue).await?, ["later"], "what is over is gone long since, what is to come is kept");
    }
    queue.sql("UPDATE sms_outbox.scheduled SET due_at = now(), since = now()").await?;
    queue.maintain_all().await?;
    let id: String = queue.value("SELECT id::text FROM sms_outbox.outbox", &[]).await?;
    assert_eq!(queue.attempt(&id, "accepted").await?, "sent");
    queue.maintain_all().await?;
    assert_eq!(kept(&queue).await?, ["later"], "kept for its hour, whatever the day of its id");
    queue
        .sql(
            "UPDATE sms_outbox.attempt SET finished_at = finished_at - interval '2 hours';
             UPDATE sms_outbox.tally SET minute = minute - interval '2 hours'",
        )
        .await?;
    queue.maintain_all().await?;
    assert_eq!((kept(&queue).await?.len(), old_days(&queue).await?), (0, 0));
    Ok(())
}
