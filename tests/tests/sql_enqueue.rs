//! `sms_outbox_enqueue()` in the caller's transaction: queued with it or not at all, with ids that sort by time.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::json;
use sms_outbox_tests::process::{Signal, signal_process};
use sms_outbox_tests::queue::{enqueue, refused};
use sms_outbox_tests::{Major, Queue, on_majors};
use tokio_postgres::Client;

on_majors! { ends:
    lives_and_dies_with_its_transaction, is_queued_by_commit_prepared, goes_with_a_killed_backend, sorts_by_time,
    needs_a_partition_but_not_of_today, waits_for_its_datetime, stores_number_and_segments, shows_what_was_given,
    takes_defaults_from_settings, queues_many_or_none, works_for_the_application_alone,
}

async fn lives_and_dies_with_its_transaction(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let session = queue.connect_as("app").await?;
    session.batch_execute("BEGIN").await?;
    let kept = enqueue(&session, "shop", "kept").await?;
    session.batch_execute("SAVEPOINT one").await?;
    enqueue(&session, "shop", "rolled back to savepoint").await?;
    session.batch_execute("ROLLBACK TO one; SAVEPOINT two").await?;
    let released = enqueue(&session, "shop", "released").await?;
    session.batch_execute("RELEASE two").await?;
    let seen: i64 = session.query_one("SELECT count(*) FROM sms_outbox.outbox", &[]).await?.try_get(0)?;
    assert_eq!(seen, 2, "visible to its own transaction");
    assert_eq!(queue.count("sms_outbox.outbox").await?, 0, "and to no other");
    session.batch_execute("COMMIT; BEGIN").await?;
    enqueue(&session, "shop", "rolled back").await?;
    session.batch_execute("ROLLBACK").await?;

    let texts = queue.rows("SELECT id::text, message, dispatch_status FROM sms_outbox.outbox ORDER BY id").await?;
    assert_eq!(
        texts,
        [
            json!({ "id": kept, "message": "kept", "dispatch_status": "pending" }),
            json!({ "id": released, "message": "released", "dispatch_status": "pending" }),
        ]
    );
    assert_eq!(queue.count("sms_outbox.ready").await?, 2);
    queue.assert_placed().await
}

async fn is_queued_by_commit_prepared(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let session = queue.connect().await?;
    session.batch_execute("BEGIN").await?;
    let id = enqueue(&session, "shop", "prepared").await?;
    let name = queue.name();
    session.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).await?;
    assert_eq!(queue.count("sms_outbox.outbox").await?, 0);
    // A reader's mark passes it, remembers the transaction, and finds it once that has ended.
    let look =
        "SELECT coalesce(string_agg(l.id::text, ','), '') FROM sms_outbox.look(ARRAY[1::smallint], ARRAY['0'::xid8],
                    ARRAY[sms_outbox.id_floor('epoch')], ARRAY[NULL::xid8], 100) AS l";
    assert_eq!(queue.value::<String>(look, &[]).await?, "");
    queue.sql(&format!("COMMIT PREPARED '{name}'")).await?;
    assert_eq!(queue.value::<String>(look, &[]).await?, id);
    assert_eq!(queue.attempt(&id, "accepted").await?, "sent");
    queue.assert_placed().await
}

async fn goes_with_a_killed_backend(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let session = queue.connect().await?;
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
    session.batch_execute("BEGIN").await?;
    enqueue(&session, "shop", "never committed").await?;
    signal_process(pid.try_into()?, Signal::TERM)?;
    queue
        .wait_until(
            "the backend is gone",
            &format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {pid})"),
        )
        .await?;
    assert!(session.batch_execute("COMMIT").await.is_err());
    for table in ["message", "ready", "idempotency"] {
        assert_eq!(queue.count(&format!("sms_outbox.{table}")).await?, 0, "{table}");
    }
    Ok(())
}

async fn sorts_by_time(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let in_a_burst: Vec<String> = ids(
        queue.admin(),
        "SELECT e.id FROM generate_series(1, 2000) AS n, sms_outbox_enqueue('0501234567', 'n' || n, organization_id => 'shop') AS e",
    )
    .await?;
    assert!(in_a_burst.is_sorted(), "one session's ids never go back");
    assert_eq!(in_a_burst.iter().collect::<BTreeSet<_>>().len(), 2000);
    assert!(in_a_burst.iter().all(|id| id.len() == 27 && id.starts_with('r')));
    let other = queue.connect().await?;
    for session in [&other, queue.admin(), &other] {
        session.batch_execute("SELECT pg_sleep(0.002)").await?;
        let later = enqueue(session, "shop", "later").await?;
        let below: i64 = queue.count(&format!("sms_outbox.outbox WHERE id > '{later}'")).await?;
        assert_eq!(below, 0, "another session's ids of another millisecond sort behind");
    }
    let off: i64 = queue
        .count(
            "sms_outbox.message WHERE abs(extract(epoch FROM created_at) * 1000
                - ('x' || left(replace(id::uuid::text, '-', ''), 12))::bit(48)::bigint) > 2000",
        )
        .await?;
    assert_eq!(off, 0, "an id holds the time of its making");
    Ok(())
}

async fn needs_a_partition_but_not_of_today(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let session = queue.connect().await?;
    enqueue(&session, "shop", "the session knows the partitions").await?;
    queue.sql("DELETE FROM sms_outbox.ready; TRUNCATE sms_outbox.message").await?;
    for (what, day) in
        [("the days ahead ran out", "now() - interval '3 days'"), ("the clock went back", "now() + interval '3 days'")]
    {
        drop_partitions(&queue).await?;
        queue.sql(&partition(day)).await?;
        let first = enqueue(&session, "shop", what).await?;
        let second = enqueue(&session, "shop", what).await?;
        assert!(first < second, "{what}: clamped ids sort too");
        let inside: bool = queue
            .value(
                &format!("SELECT bool_and(id >= sms_outbox.id_floor(({day})::date::timestamp AT TIME ZONE 'UTC')
                    AND id < sms_outbox.id_floor((({day})::date + 1)::timestamp AT TIME ZONE 'UTC')) FROM sms_outbox.message"),
                &[],
            )
            .await?;
        assert!(inside, "{what}: ids are clamped into the partition that there is");
        assert_eq!(queue.attempt(&first, "accepted").await?, "sent");
    }
    drop_partitions(&queue).await?;
    let fault = refused(&session, "SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')").await?;
    assert_eq!((fault.code().code(), fault.message()), ("55000", "sms_outbox has no partition for messages"));
    assert!(fault.hint().context("a hint")?.contains("sms_outbox.prepare_partitions()"));
    queue.sql("SELECT sms_outbox.prepare_partitions()").await?;
    enqueue(&session, "shop", "mended").await?;
    Ok(())
}

async fn drop_partitions(queue: &Queue) -> Result<()> {
    queue
        .sql(
            "DO $$ DECLARE leaf record; BEGIN
                DELETE FROM sms_outbox.ready;
                FOR leaf IN SELECT inhrelid::regclass AS name FROM pg_inherits
                             WHERE inhparent IN ('sms_outbox.message'::regclass, 'sms_outbox.attempt'::regclass) LOOP
                    EXECUTE 'DROP TABLE ' || leaf.name;
                END LOOP; END $$",
        )
        .await
}

/// The partitions of one day, as an installation of long ago left them.
fn partition(day: &str) -> String {
    format!(
        "DO $$ DECLARE day date := {day}; parent text; BEGIN
            FOREACH parent IN ARRAY ARRAY['message', 'attempt'] LOOP
                EXECUTE format('CREATE TABLE sms_outbox.%I PARTITION OF sms_outbox.%I FOR VALUES FROM (%L) TO (%L)',
                    parent || '_p' || to_char(day, 'YYYYMMDD'), parent,
                    sms_outbox.id_floor(day::timestamp AT TIME ZONE 'UTC'), sms_outbox.id_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
                EXECUTE format('ALTER TABLE sms_outbox.%I OWNER TO sms_outbox_owner', parent || '_p' || to_char(day, 'YYYYMMDD'));
            END LOOP; END $$"
    )
}

async fn waits_for_its_datetime(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let with = async |datetime: &str| -> Result<String> {
        let sql = format!(
            "SELECT id FROM sms_outbox_enqueue('0501234567', 'x', datetime => {datetime}, organization_id => 'shop')"
        );
        queue.value(&sql, &[]).await
    };
    let later = with("now() + interval '1 hour'").await?;
    let now = with("NULL").await?;
    let past = with("now() - interval '1 hour'").await?;
    assert_eq!(queue.field(&later, "waits_for").await?.as_deref(), Some("datetime"));
    assert_eq!(queue.field(&later, "(next_attempt_at = datetime)").await?.as_deref(), Some("true"));
    for id in [&now, &past] {
        assert_eq!(queue.field(id, "waits_for").await?.as_deref(), Some("worker"));
        assert_eq!(queue.field(id, "next_attempt_at").await?, None);
    }
    queue.maintain().await?;
    assert_eq!(queue.count("sms_outbox.scheduled").await?, 1, "not before its time");
    queue.sql("UPDATE sms_outbox.scheduled SET due_at = now()").await?;
    queue.maintain().await?;
    assert_eq!(queue.field(&later, "waits_for").await?.as_deref(), Some("worker"));
    assert_eq!(queue.attempt(&later, "accepted").await?, "sent");
    queue.assert_placed().await
}

async fn stores_number_and_segments(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.install("emirates", "main").await?;
    queue.sql("SELECT sms_outbox.set_organization('emirates', default_region => 'AE')").await?;
    for (organization, written, stored) in [
        ("shop", "0501234567", "+966501234567"),
        ("shop", "966501234567", "+966501234567"),
        ("shop", "00966 50-123 4567", "+966501234567"),
        ("shop", "+966 (50) 123.4567", "+966501234567"),
        ("shop", "٠٥٠١٢٣٤٥٦٧", "+966501234567"),
        ("shop", "+14155552671", "+14155552671"),
        ("emirates", "0501234567", "+971501234567"),
    ] {
        let sql = format!("SELECT id FROM sms_outbox_enqueue('{written}', 'x', organization_id => '{organization}')");
        let id: String = queue.value(&sql, &[]).await?;
        assert_eq!(queue.field(&id, "mobile").await?.as_deref(), Some(stored), "{organization}: {written}");
    }
    for (text, encoding, segments) in [
        ("a".repeat(160), "GSM-7", "1"),
        ("a".repeat(161), "GSM-7", "2"),
        ("€".repeat(81), "GSM-7", "2"),
        ("م".repeat(70), "UCS-2", "1"),
        ("م".repeat(71), "UCS-2", "2"),
        ("🎉".repeat(36), "UCS-2", "2"),
    ] {
        let id = queue.enqueue(&text).await?;
        let shown = (queue.field(&id, "encoding").await?, queue.field(&id, "segments").await?);
        assert_eq!(
            shown,
            (Some(encoding.to_owned()), Some(segments.to_owned())),
            "{} characters",
            text.chars().count()
        );
    }
    Ok(())
}

async fn shows_what_was_given(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let id: String = queue
        .value(
            "SELECT id FROM sms_outbox_enqueue(mobile => '0501234567', message => 'مرحبا', sender => 'MyShop', datetime => NULL,
                preferred_provider_slug => 'sandbox', idempotency_key => 'order-1', meta => '{\"order\": 1.50}',
                organization_id => 'shop', priority => 0, valid_until => '2100-01-01')",
            &[],
        )
        .await?;
    let shown = queue
        .rows(&format!(
            "SELECT mobile, message, sender, datetime, preferred_provider_slug, idempotency_key, meta, priority,
                    valid_until = '2100-01-01' AS valid, dispatch_status, delivery_status, attempt_count, idempotency_mismatch,
                    waits_for, provider_slug, response, error_code, claimed_at, sent_at, finalized_at
               FROM sms_outbox.outbox WHERE id = '{id}'"
        ))
        .await?;
    let expected = json!({
        "mobile": "+966501234567", "message": "مرحبا", "sender": "MyShop", "datetime": null, "preferred_provider_slug": "sandbox",
        "idempotency_key": "order-1", "meta": { "order": 1.5 }, "priority": 0, "valid": true, "dispatch_status": "pending",
        "delivery_status": "unknown", "attempt_count": 0, "idempotency_mismatch": 0, "waits_for": "worker", "provider_slug": null,
        "response": null, "error_code": null, "claimed_at": null, "sent_at": null, "finalized_at": null,
    });
    assert_eq!(shown, [expected]);
    let empty: String = queue
        .value(
            "SELECT id FROM sms_outbox_enqueue('0501234567', 'x', sender => '', preferred_provider_slug => '', idempotency_key => '',
                meta => NULL, organization_id => 'shop')",
            &[],
        )
        .await?;
    let given = queue
        .value::<bool>(
            "SELECT sender IS NULL AND preferred_provider_slug IS NULL AND idempotency_key IS NULL AND meta = '{}' AND priority = 1
               FROM sms_outbox.outbox WHERE id = $1::text",
            &[&empty],
        )
        .await?;
    assert!(given, "empty strings mean 'not given'");
    Ok(())
}

async fn takes_defaults_from_settings(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.install("other", "main").await?;
    let session = queue.connect_as("app").await?;
    session.batch_execute("SET sms_outbox.organization_id = 'other'").await?;
    let id: String =
        session.query_one("SELECT id FROM sms_outbox_enqueue('0501234567', 'x')", &[]).await?.try_get(0)?;
    assert_eq!(queue.field(&id, "organization_id").await?.as_deref(), Some("other"));
    let error = refused(&session, "SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')").await?;
    assert_eq!((error.code().code(), error.constraint()), ("42501", Some("organization_mismatch")));

    let name = queue.name();
    queue.sql(&format!("ALTER DATABASE \"{name}\" SET sms_outbox.default_region = 'EG'; ALTER DATABASE \"{name}\" SET sms_outbox.schedule_limit = '1d'")).await?;
    let session = queue.connect_as("app").await?;
    let id: String = session
        .query_one("SELECT id FROM sms_outbox_enqueue('01001234567', 'x', organization_id => 'shop')", &[])
        .await?
        .try_get(0)?;
    assert_eq!(queue.field(&id, "mobile").await?.as_deref(), Some("+201001234567"));
    let fault = refused(
        &session,
        "SELECT sms_outbox_enqueue('01001234567', 'x', datetime => now() + interval '25 hours', organization_id => 'shop')",
    )
    .await?;
    assert_eq!((fault.code().code(), fault.column()), ("22023", Some("datetime")));
    Ok(())
}

async fn queues_many_or_none(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.sql("SELECT sms_outbox.set_organization('shop', time_zone => 'Asia/Riyadh')").await?;
    let first: String = queue
        .value(
            "SELECT id FROM sms_outbox_enqueue('0501234567', 'k0', idempotency_key => 'k0', organization_id => 'shop')",
            &[],
        )
        .await?;
    let many: Vec<String> = ids(
        queue.admin(),
        "SELECT e.id FROM sms_outbox_enqueue_many('[
                        {\"mobile\": \"0501234567\", \"message\": \"plain\"},
                        {\"mobile\": \"0501234567\", \"message\": \"k2\", \"idempotency_key\": \"k2\"},
                        {\"mobile\": \"0501234567\", \"message\": \"k0\", \"idempotency_key\": \"k0\"},
                        {\"mobile\": \"0501234567\", \"message\": \"k2\", \"idempotency_key\": \"k2\"},
                        {\"mobile\": \"0501234567\", \"message\": \"k1\", \"idempotency_key\": \"k1\", \"priority\": 2},
                        {\"mobile\": \"0501234567\", \"message\": \"another k1\", \"idempotency_key\": \"k1\"}]', 'shop') AS e ORDER BY e.ordinality",
    )
    .await?;
    assert_eq!(many.len(), 6);
    assert!(
        many[2] == first && many[1] == many[3] && many[4] == many[5] && many[0] < many[1] && many[1] < many[4],
        "{many:?}"
    );
    let rows = queue.rows("SELECT message, idempotency_mismatch, priority FROM sms_outbox.outbox ORDER BY id").await?;
    let expected = [("k0", 0, 1), ("plain", 0, 1), ("k2", 0, 1), ("k1", 1, 2)].map(|(message, mismatch, priority)| {
        json!({ "message": message, "idempotency_mismatch": mismatch, "priority": priority })
    });
    assert_eq!(rows, expected);
    let replayed: Vec<String> = ids(
        queue.admin(),
        "SELECT e.id FROM sms_outbox_enqueue_many('[{\"mobile\": \"0501234567\", \"message\": \"k0\", \"idempotency_key\": \"k0\"},
            {\"mobile\": \"0501234567\", \"message\": \"new\"}]', 'shop') AS e ORDER BY e.ordinality",
    )
    .await?;
    assert_eq!((replayed[0].as_str(), replayed.len()), (first.as_str(), 2));

    let before = queue.count("sms_outbox.message").await?;
    let bad = "SELECT sms_outbox_enqueue_many('[{\"mobile\": \"0501234567\", \"message\": \"good\", \"idempotency_key\": \"new\"},
                                                {\"mobile\": \"0112345678\", \"message\": \"bad\"}]', 'shop')";
    let fault = refused(queue.admin(), bad).await?;
    assert_eq!(fault.message(), "messages[1].mobile: is a landline, which cannot receive an SMS");
    assert_eq!(queue.count("sms_outbox.message").await?, before);
    assert_eq!(queue.count("sms_outbox.idempotency WHERE key = 'new'").await?, 0);

    let local: String = queue
        .value(
            "SELECT id FROM sms_outbox_enqueue_many(jsonb_build_array(jsonb_build_object('mobile', '0501234567', 'message', 'x', 'datetime',
                to_char((now() + interval '1 day') AT TIME ZONE 'Asia/Riyadh', 'YYYY-MM-DD HH24:MI'))), 'shop')",
            &[],
        )
        .await?;
    assert_eq!(
        queue.field(&local, "(datetime = date_trunc('minute', now() + interval '1 day'))").await?.as_deref(),
        Some("true")
    );
    assert_eq!(queue.count("sms_outbox_enqueue_many('[]', 'shop')").await?, 0);
    queue.assert_placed().await
}

async fn works_for_the_application_alone(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    assert_eq!(queue.value::<String>("SHOW shared_preload_libraries", &[]).await?, "", "works without preload");
    enqueue(&queue.connect_as("app").await?, "shop", "allowed").await?;
    for role in ["worker", "monitor"] {
        let session = queue.connect_as(role).await?;
        let fault =
            refused(&session, "SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')").await?;
        assert_eq!(fault.code().code(), "42501", "{role}");
    }
    Ok(())
}

async fn ids(client: &Client, query: &str) -> Result<Vec<String>> {
    client.query(query, &[]).await?.iter().map(|row| Ok(row.try_get(0)?)).collect()
}
