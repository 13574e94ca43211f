//! The server's clock is set back: nothing is lost, nothing goes twice, and what was planned comes later by as much.

use anyhow::Result;
use sms_outbox_tests::queue::{claim, finish};
use sms_outbox_tests::{Major, Queue, on_majors};

on_majors! { ends: a_clock_set_back_loses_and_repeats_nothing, a_clock_set_back_stops_no_maintenance }

/// Sets the server's clock back by an hour, as the queue sees it: everything that was written is an hour later.
async fn set_clock_back(queue: &Queue) -> Result<()> {
    queue
        .sql(
            "CREATE FUNCTION pg_temp.later(id sms_outbox.message_id) RETURNS sms_outbox.message_id LANGUAGE sql AS $$
                SELECT (lpad(to_hex(('x' || left(h, 12))::bit(48)::bigint + 3600000), 12, '0') || right(h, 20))::uuid::sms_outbox.message_id
                  FROM (SELECT replace(id::uuid::text, '-', '') AS h) AS x $$;
             UPDATE sms_outbox.message SET id = pg_temp.later(id), created_at = created_at + interval '1 hour';
             UPDATE sms_outbox.attempt SET id = pg_temp.later(id), started_at = started_at + interval '1 hour', finished_at = finished_at + interval '1 hour';
             UPDATE sms_outbox.ready SET id = pg_temp.later(id), since = since + interval '1 hour';
             UPDATE sms_outbox.scheduled SET id = pg_temp.later(id), since = since + interval '1 hour', due_at = due_at + interval '1 hour';
             UPDATE sms_outbox.lease SET id = pg_temp.later(id), started_at = started_at + interval '1 hour', expires_at = expires_at + interval '1 hour';
             UPDATE sms_outbox.ended SET id = pg_temp.later(id), ended_at = ended_at + interval '1 hour';
             UPDATE sms_outbox.maintenance SET ran_at = ran_at + interval '1 hour';
             UPDATE sms_outbox.tally SET minute = minute + interval '1 hour'",
        )
        .await
}

/// The message of this text, whose id the move of the clock has changed.
async fn id(queue: &Queue, text: &str) -> Result<String> {
    queue.value(&format!("SELECT id::text FROM sms_outbox.outbox WHERE message = '{text}'"), &[]).await
}

async fn a_clock_set_back_loses_and_repeats_nothing(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    for text in ["answered", "dead"] {
        queue.lease(&queue.enqueue(text).await?).await?;
    }
    queue.enqueue("waiting").await?;
    queue.ended("unclear", "unclear").await?;
    queue.ended("backoff", "not_sent").await?;
    queue.maintain_all().await?;

    set_clock_back(&queue).await?;
    queue.enqueue("new").await?;
    queue.maintain_all().await?;
    // What was due is due, what was planned waits for longer, and no lease ends before its time.
    for (text, status) in [
        ("new", "pending"),
        ("waiting", "pending"),
        ("backoff", "pending"),
        ("answered", "sending"),
        ("dead", "sending"),
    ] {
        assert_eq!(queue.status(&id(&queue, text).await?).await?, status, "{text}");
    }
    let log: Vec<String> = queue
        .rows("SELECT m.message FROM sms_outbox.look(ARRAY[1::smallint], ARRAY['0'::xid8], ARRAY[sms_outbox.id_floor('epoch')], ARRAY[NULL::xid8], 10) AS l
                 JOIN sms_outbox.outbox AS m ON m.id = l.id ORDER BY l.xid, l.id")
        .await?
        .iter()
        .filter_map(|row| row["message"].as_str().map(str::to_owned))
        .collect();
    assert_eq!(log, ["waiting", "new"], "in the order of their commits, not of their ids");
    for text in ["new", "waiting"] {
        assert_eq!(queue.attempt(&id(&queue, text).await?, "accepted").await?, "sent", "{text}");
        let again = claim(queue.admin(), "w", &[&id(&queue, text).await?], queue.app()).await?;
        assert_eq!(again[0].result, "gone", "{text}");
    }
    let answered = id(&queue, "answered").await?;
    assert!(finish(queue.admin(), "w", &answered, 1, "accepted").await?.applied, "its answer is taken");
    let took: f64 = queue
        .value("SELECT extract(epoch FROM finished_at - started_at)::float8 FROM sms_outbox.attempts WHERE id = $1::text::sms_outbox.message_id", &[&answered])
        .await?;
    assert!(took < 0.0, "the attempt seems to have ended before it began, and is recorded all the same");

    // An hour and some minutes later.
    queue.sql("UPDATE sms_outbox.lease SET expires_at = now(); UPDATE sms_outbox.scheduled SET due_at = now()").await?;
    queue.maintain_all().await?;
    for (text, status) in [("dead", "dispatch_timeout"), ("unclear", "dispatch_timeout"), ("answered", "sent")] {
        assert_eq!(queue.status(&id(&queue, text).await?).await?, status, "{text}");
    }
    assert_eq!(queue.attempt(&id(&queue, "backoff").await?, "accepted").await?, "sent");
    let accepted =
        "(SELECT id FROM sms_outbox.attempts WHERE status = 'accepted' GROUP BY id HAVING count(*) = 1) AS once";
    assert_eq!(queue.count(accepted).await?, 4);
    queue.assert_placed().await
}

async fn a_clock_set_back_stops_no_maintenance(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    // As after a server that began with a clock years ahead.
    queue.maintain_all().await?;
    queue.sql("UPDATE sms_outbox.maintenance SET ran_at = now() + interval '4 years'").await?;
    queue
        .sql("DO $$ DECLARE leaf record; BEGIN FOR leaf IN SELECT message, attempt FROM sms_outbox.partitions() WHERE day > now() + interval '3 days' LOOP
                  EXECUTE format('DROP TABLE %s, %s', leaf.message, leaf.attempt); END LOOP; END $$")
        .await?;
    queue.maintain().await?;
    assert_eq!(queue.count("sms_outbox.partitions()").await?, 8, "made ahead again");
    assert_eq!(queue.count("sms_outbox.maintenance WHERE ran_at > now()").await?, 0);
    Ok(())
}
