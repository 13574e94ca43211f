//! What durability, time and another server do to messages.

use anyhow::Result;
use sms_outbox_tests::queue::{claim, finish};
use sms_outbox_tests::{Major, Queue, on_majors};

on_majors! { ends:
    makes_itself_durable, times_out_by_the_clock_of_the_server, expires_what_is_too_old, retries_drop_a_past_validity,
    holds_what_another_server_queued,
}

async fn makes_itself_durable(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let id = queue.enqueue("x").await?;
    let session = queue.connect().await?;
    session.batch_execute("SET synchronous_commit = off").await?;
    let durability =
        async || -> Result<String> { Ok(session.query_one("SHOW synchronous_commit", &[]).await?.try_get(0)?) };
    session.batch_execute("BEGIN").await?;
    assert_eq!(claim(&session, "w", &[&id], queue.app()).await?[0].result, "leased");
    assert_eq!(durability().await?, "on", "until after the commit of the claim");
    session.batch_execute("COMMIT").await?;
    assert_eq!(durability().await?, "off");
    session.batch_execute("BEGIN").await?;
    assert!(finish(&session, "w", &id, 1, "refused_recipient").await?.applied);
    assert_eq!(durability().await?, "on");
    session.batch_execute("COMMIT").await?;
    for call in ["retry('{id}')", "cancel('{id}')", "run_maintenance()", "release_held()"] {
        session.batch_execute(&format!("BEGIN; SELECT sms_outbox.{}", call.replace("{id}", &id))).await?;
        assert_eq!(durability().await?, "on", "{call}");
        session.batch_execute("COMMIT").await?;
        assert_eq!(durability().await?, "off", "{call}");
    }
    // A stronger wish than 'on' stays.
    session.batch_execute("SET synchronous_commit = remote_apply; BEGIN; SELECT sms_outbox.run_maintenance()").await?;
    assert_eq!(durability().await?, "remote_apply");
    Ok(())
}

async fn times_out_by_the_clock_of_the_server(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let name = queue.name();
    queue.sql(&format!("ALTER DATABASE \"{name}\" SET sms_outbox.lease_timeout = '10min'")).await?;
    let worker = queue.connect_as("worker").await?;
    let id = queue.enqueue("x").await?;
    claim(&worker, "w", &[&id], queue.app()).await?;
    let lasts: bool = queue
        .value(
            "SELECT expires_at - started_at BETWEEN interval '10 min' AND interval '10 min 1 s' FROM sms_outbox.lease",
            &[],
        )
        .await?;
    assert!(lasts, "a lease lasts as long as the setting says");
    queue.maintain().await?;
    assert_eq!(queue.status(&id).await?, "sending", "not before its time");
    queue.sql("UPDATE sms_outbox.lease SET expires_at = clock_timestamp()").await?;
    queue.maintain().await?;
    assert_eq!(queue.status(&id).await?, "dispatch_timeout");
    assert_eq!(queue.field(&id, "error_code").await?.as_deref(), Some("lease_expired"));
    assert_eq!(queue.field(&id, "attempt_count").await?.as_deref(), Some("1"));
    assert!(!finish(&worker, "w", &id, 1, "unclear").await?.applied, "known already");
    assert!(!finish(&worker, "another", &id, 1, "accepted").await?.applied, "not its attempt");
    assert!(finish(&worker, "w", &id, 1, "accepted").await?.applied, "a late answer tells");
    assert_eq!(queue.status(&id).await?, "sent");

    // Where the app was told to take the risk, it is tried again; and not for ever.
    queue.sql("SELECT sms_outbox.update_app(app_id, resend_unclear => true) FROM sms_outbox.apps_installed").await?;
    let id = queue.enqueue("y").await?;
    queue.lease(&id).await?;
    queue.sql("UPDATE sms_outbox.lease SET expires_at = clock_timestamp()").await?;
    queue.maintain().await?;
    assert_eq!(queue.field(&id, "waits_for").await?.as_deref(), Some("backoff"));
    queue.sql("UPDATE sms_outbox.scheduled SET tries = 9, due_at = now()").await?;
    queue.maintain().await?;
    assert_eq!(queue.attempt(&id, "unclear").await?, "dispatch_timeout");
    queue.assert_placed().await
}

async fn expires_what_is_too_old(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let valid = async |datetime: &str| -> Result<String> {
        let sql = format!(
            "SELECT id FROM sms_outbox_enqueue('0501234567', 'x', datetime => {datetime}, valid_until => now() + interval '2 hours', organization_id => 'shop')"
        );
        queue.value(&sql, &[]).await
    };
    let (due, later) = (valid("NULL").await?, valid("now() + interval '1 hour'").await?);
    let (old, young, leased) = (queue.enqueue("old").await?, queue.enqueue("young").await?, valid("NULL").await?);
    queue.lease(&leased).await?;
    queue.maintain().await?;
    assert_eq!(queue.count("sms_outbox.ended").await?, 0);
    queue
        .sql(
            "UPDATE sms_outbox.ready SET valid_until = now() WHERE valid_until IS NOT NULL;
             UPDATE sms_outbox.scheduled SET valid_until = now();
             UPDATE sms_outbox.lease SET valid_until = now()",
        )
        .await?;
    assert_eq!(claim(queue.admin(), "w", &[&due], queue.app()).await?[0].result, "gone", "not claimed any more");
    shift(&queue, &old, "8 days").await?;
    shift(&queue, &young, "6 days").await?;
    queue.maintain().await?;
    let old = queue.value::<String>("SELECT id::text FROM sms_outbox.outbox WHERE message = 'old'", &[]).await?;
    let young = queue.value::<String>("SELECT id::text FROM sms_outbox.outbox WHERE message = 'young'", &[]).await?;
    for (id, status, code) in [
        (&due, "expired", Some("valid_until")),
        (&later, "expired", Some("valid_until")),
        (&old, "expired", Some("retention_pending")),
        (&young, "pending", None),
        (&leased, "sending", None),
    ] {
        assert_eq!((queue.status(id).await?.as_str(), queue.field(id, "error_code").await?.as_deref()), (status, code));
    }
    // In flight when its time came: an attempt that was not sent gives it back, and then it expires.
    finish(queue.admin(), "w", &leased, 1, "throttled").await?;
    queue.maintain().await?;
    assert_eq!(queue.status(&leased).await?, "expired");
    queue.assert_placed().await
}

/// Makes a waiting message older, its id included.
async fn shift(queue: &Queue, id: &str, by: &str) -> Result<()> {
    queue
        .sql(&format!(
            "DO $$ DECLARE
                day date := (now() - interval '{by}')::date;
                older sms_outbox.message_id := (left(sms_outbox.id_floor(now() - interval '{by}')::uuid::text, 13)
                                                || right('{id}'::sms_outbox.message_id::uuid::text, 23))::uuid;
             BEGIN
                EXECUTE format('CREATE TABLE sms_outbox.%I PARTITION OF sms_outbox.message FOR VALUES FROM (%L) TO (%L)', 'message_p' || to_char(day, 'YYYYMMDD'),
                    sms_outbox.id_floor(day::timestamp AT TIME ZONE 'UTC'), sms_outbox.id_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
                UPDATE sms_outbox.message SET id = older, created_at = created_at - interval '{by}' WHERE id = '{id}';
                UPDATE sms_outbox.ready SET id = older, since = since - interval '{by}' WHERE id = '{id}';
             END $$"
        ))
        .await
}

async fn retries_drop_a_past_validity(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let sql = "SELECT id FROM sms_outbox_enqueue('0501234567', 'x', valid_until => now() + interval '1 hour', organization_id => 'shop')";
    let id: String = queue.value(sql, &[]).await?;
    queue.sql(&format!("SELECT sms_outbox.cancel('{id}'); SELECT sms_outbox.retry('{id}')")).await?;
    assert_eq!(queue.count("sms_outbox.ready WHERE valid_until IS NOT NULL").await?, 1, "still valid");
    queue
        .sql(&format!(
            "UPDATE sms_outbox.message SET valid_until = now(); SELECT sms_outbox.cancel('{id}'); SELECT sms_outbox.retry('{id}')"
        ))
        .await?;
    assert_eq!(
        queue.count("sms_outbox.ready WHERE valid_until IS NULL").await?,
        1,
        "an operator wants it all the same"
    );
    queue.maintain().await?;
    assert_eq!(queue.attempt(&id, "accepted").await?, "sent");
    Ok(())
}

async fn holds_what_another_server_queued(major: Major) -> Result<()> {
    const LOOK: &str = "SELECT count(*) - 1 FROM sms_outbox.look(ARRAY[1::smallint], ARRAY['0'::xid8], ARRAY[sms_outbox.id_floor('epoch')], ARRAY[NULL::xid8], 100)";
    let queue = Queue::new(major).await?;
    let due = queue.enqueue("due").await?;
    let later: String = queue
        .value("SELECT id FROM sms_outbox_enqueue('0501234567', 'later', datetime => now() + interval '1 hour', organization_id => 'shop')", &[])
        .await?;
    let leased = queue.enqueue("leased").await?;
    queue.lease(&leased).await?;
    // As after a restore, a clone or a promotion.
    queue.sql("UPDATE sms_outbox.ready SET server = server + 1; UPDATE sms_outbox.scheduled SET server = server + 1; UPDATE sms_outbox.lease SET server = server + 1").await?;
    assert_eq!(queue.value::<i64>(LOOK, &[]).await?, 0);
    assert_eq!(claim(queue.admin(), "w", &[&due], queue.app()).await?[0].result, "gone");
    for id in [&due, &later] {
        assert_eq!(queue.field(id, "waits_for").await?.as_deref(), Some("release_held"));
    }
    let health = "SELECT status || ': ' || detail FROM sms_outbox.health WHERE \"check\" = 'held'";
    assert!(queue.value::<String>(health, &[]).await?.starts_with("warn: 2 messages were queued by another server"));
    assert_eq!(queue.value::<i64>("SELECT held FROM sms_outbox.queue_stats", &[]).await?, 2);
    let fresh = queue.enqueue("fresh").await?;
    assert_eq!(queue.value::<i64>(LOOK, &[]).await?, 1, "what is queued now is served");

    assert_eq!(queue.value::<i64>("SELECT sms_outbox.release_held()", &[]).await?, 2);
    assert_eq!(queue.value::<i64>(LOOK, &[]).await?, 2);
    assert_eq!(queue.value::<String>(health, &[]).await?, "ok: none");
    for id in [&due, &fresh] {
        assert_eq!(queue.attempt(id, "accepted").await?, "sent");
    }
    assert_eq!(queue.field(&later, "waits_for").await?.as_deref(), Some("datetime"));
    // An attempt that was in flight over the promotion gives its message back to this server.
    finish(queue.admin(), "w", &leased, 1, "throttled").await?;
    assert_eq!(queue.value::<i64>(LOOK, &[]).await?, 1);
    assert_eq!(queue.value::<i64>("SELECT sms_outbox.release_held()", &[]).await?, 0);
    queue.assert_placed().await
}
