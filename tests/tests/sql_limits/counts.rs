//! How many: by minute, day, recipient and segments, alone, in batches and at once.

use anyhow::Result;
use serde_json::{Value, json};
use sms_outbox_tests::queue::{enqueue, refused};
use sms_outbox_tests::{Cluster, Database, Major, Queue};
use tokio_postgres::Client;

use crate::{call, in_one_minute, later, limit, limits, never};

pub(crate) async fn counts_by_minute(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    limit(&queue, "messages_per_minute => 3").await?;
    in_one_minute(&queue).await?;
    for n in 1..=3 {
        queue.enqueue("in").await?;
        assert_eq!(limits(&queue).await?["messages_this_minute"], json!(n));
    }
    let error = refused(queue.admin(), &call("out", "")).await?;
    let (state, code, column, seconds) = later(&error)?;
    assert_eq!((state, code, column), ("53400", "messages_per_minute", None));
    assert!((1..=60).contains(&seconds), "{seconds}");
    // In a session that has read no sum yet, too.
    assert_eq!(later(&refused(&queue.connect().await?, &call("out", "")).await?)?.1, "messages_per_minute");
    // What is rolled back does not count, although this session remembers it.
    limit(&queue, "messages_per_minute => 6").await?;
    for _ in 0..3 {
        queue.sql("BEGIN").await?;
        for _ in 0..3 {
            queue.enqueue("rolled back").await?;
        }
        queue.sql("ROLLBACK").await?;
    }
    assert_eq!(queue.count("sms_outbox.outbox").await?, 3);
    // The next minute is another one: as if these had come a minute ago.
    queue.sql("UPDATE sms_outbox.usage SET at = at - interval '1 minute'").await?;
    limit(&queue, "messages_per_minute => 2").await?;
    let session = queue.connect().await?;
    enqueue(&session, "shop", "in").await?;
    enqueue(&session, "shop", "in").await?;
    assert_eq!(later(&refused(&session, &call("out", "")).await?)?.1, "messages_per_minute");
    limit(&queue, "messages_per_minute => 0").await?;
    enqueue(&session, "shop", "no limit").await?;
    let row = limits(&queue).await?;
    assert_eq!((&row["messages_per_minute"], &row["messages_this_minute"]), (&Value::Null, &Value::Null));
    Ok(())
}

/// The day ends at midnight of the organization, wherever the server's clock is.
pub(crate) async fn counts_by_day_of_the_zone(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    for zone in ["Asia/Riyadh", "Pacific/Kiritimati", "Pacific/Pago_Pago"] {
        queue.sql("DELETE FROM sms_outbox.usage; DELETE FROM sms_outbox.usage_day").await?;
        limit(&queue, &format!("time_zone => '{zone}', messages_per_day => 2")).await?;
        let session = queue.connect().await?;
        enqueue(&session, "shop", "in").await?;
        enqueue(&session, "shop", "in").await?;
        let error = refused(&session, &call("out", "")).await?;
        let (state, code, _, seconds) = later(&error)?;
        assert_eq!((state, code), ("53400", "messages_per_day"));
        let midnight: f64 = queue
            .value(
                &format!(
                    "SELECT extract(epoch FROM date_trunc('day', now() AT TIME ZONE '{zone}') + interval '1 day' - now() AT TIME ZONE '{zone}')::float8"
                ),
                &[],
            )
            .await?;
        assert!((seconds as f64 - midnight).abs() < 30.0, "{zone}: {seconds} and {midnight}");
        // These are of yesterday: a second before this day began.
        queue
            .sql(&format!(
                "UPDATE sms_outbox.usage SET day = day - 1, at = (date_trunc('day', now() AT TIME ZONE '{zone}') AT TIME ZONE '{zone}') - interval '1 s'"
            ))
            .await?;
        assert_eq!(limits(&queue).await?["messages_today"], json!(0), "{zone}");
        queue.maintain().await?;
        assert_eq!(limits(&queue).await?["messages_today"], json!(0), "{zone}: folded");
        enqueue(&session, "shop", "in").await?;
        assert_eq!(limits(&queue).await?["messages_today"], json!(1), "{zone}");
    }
    Ok(())
}

pub(crate) async fn counts_segments(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    limit(&queue, "segments_per_day => 5, messages_per_day => 100").await?;
    queue.sql(&call(&"م".repeat(71), "")).await?; // 2
    queue.sql(&call(&"a".repeat(161), "")).await?; // 2
    let error = refused(queue.admin(), &call(&"a".repeat(161), "")).await?;
    assert_eq!(later(&error)?.1, "segments_per_day");
    queue.sql(&call("one fits", "")).await?;
    assert_eq!(later(&refused(queue.admin(), &call("no more", "")).await?)?.1, "segments_per_day");
    let row = limits(&queue).await?;
    assert_eq!((&row["segments_today"], &row["messages_today"]), (&json!(5), &json!(3)));
    Ok(())
}

pub(crate) async fn counts_by_recipient(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let old = queue.enqueue("before there was a limit").await?;
    limit(&queue, "messages_per_recipient_hour => 2").await?;
    queue.sql(&call("in", "")).await?;
    let error = refused(queue.admin(), &call("out", ", datetime => now() + interval '5 h'")).await?;
    let (state, code, column, seconds) = later(&error)?;
    assert_eq!((state, code, column), ("53400", "recipient_per_hour", Some("mobile")));
    assert!((3500..=3600).contains(&seconds), "{seconds}");
    // Another number, and another organization, are not concerned.
    queue.sql("SELECT sms_outbox_enqueue('0501234568', 'in', organization_id => 'shop')").await?;
    queue.install("other", "main").await?;
    enqueue(queue.admin(), "other", "in").await?;
    // However it is written.
    let again = "SELECT sms_outbox_enqueue('٠٠٩٦٦ ٥٠ ١٢٣ ٤٥٦٧', 'out', organization_id => 'shop')";
    assert_eq!(later(&refused(queue.admin(), again).await?)?.1, "recipient_per_hour");
    // The first one grows old.
    queue
        .sql(&format!(
            "INSERT INTO sms_outbox.message SELECT (m).* FROM (SELECT jsonb_populate_record(m, jsonb_build_object('id',
                 (sms_outbox.id_floor(greatest(date_trunc('day', now(), 'UTC'), now() - interval '61 min')))::text)) AS m FROM sms_outbox.message AS m WHERE m.id = '{old}') AS aged;
             DELETE FROM sms_outbox.ready WHERE id = '{old}'; DELETE FROM sms_outbox.message WHERE id = '{old}'"
        ))
        .await?;
    let hour_is_over: bool =
        queue.value("SELECT now() - interval '61 min' > date_trunc('day', now(), 'UTC')", &[]).await?;
    if hour_is_over {
        queue.sql(&call("in", "")).await?;
    }
    assert_eq!(later(&refused(queue.admin(), &call("out", "")).await?)?.1, "recipient_per_hour");
    // One number many times in one batch, from the first to the last.
    queue.sql("SELECT sms_outbox_enqueue_many('[{\"mobile\": \"0501234569\", \"message\": \"a\"}, {\"mobile\": \"0501234569\", \"message\": \"b\"}]', 'shop')").await?;
    for (first, place) in [("0501234568", 3), ("0501234577", 4)] {
        let batch = format!(
            "SELECT sms_outbox_enqueue_many('[{{\"mobile\": \"0501234566\", \"message\": \"in\"}}, {{\"mobile\": \"{first}\", \"message\": \"in\"}},
                {{\"mobile\": \"0501234566\", \"message\": \"in\"}}, {{\"mobile\": \"{first}\", \"message\": \"out\"}}, {{\"mobile\": \"+966501234566\", \"message\": \"out\"}}]', 'shop')"
        );
        let error = refused(queue.admin(), &batch).await?;
        assert!(error.message().starts_with(&format!("messages[{place}].mobile: ")), "{error}");
        assert_eq!(later(&error)?.1, "recipient_per_hour");
    }
    Ok(())
}

fn batch(messages: usize) -> String {
    format!(
        "SELECT sms_outbox_enqueue_many((SELECT jsonb_agg(jsonb_build_object('mobile', '05012' || (34567 + n), 'message', repeat('a', CASE WHEN n % 2 = 0 THEN 161 ELSE 1 END)))
           FROM generate_series(0, {messages} - 1) AS n), 'shop')"
    )
}

pub(crate) async fn counts_a_batch_as_its_messages(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    limit(&queue, "messages_per_day => 10").await?;
    queue.sql(&batch(4)).await?;
    queue.sql(&batch(6)).await?;
    assert_eq!(queue.count("sms_outbox.usage").await?, 2, "a row for each call");
    limit(&queue, "messages_per_day => 20, segments_per_day => 25").await?;
    let error = refused(queue.admin(), &batch(7)).await?; // 15 of 25 are used, this is 2 1 2 1 2 1 2
    assert_eq!(later(&error)?.1, "segments_per_day");
    assert!(error.message().starts_with("messages[6]: "), "{error}");
    limit(&queue, "messages_per_day => 15, segments_per_day => 0").await?;
    let error = refused(queue.admin(), &batch(7)).await?;
    assert_eq!(later(&error)?.1, "messages_per_day");
    assert!(error.message().starts_with("messages[5]: "), "{error}");
    assert_eq!(queue.count("sms_outbox.message").await?, 10, "all or nothing");
    limit(&queue, "messages_per_day => 0, messages_per_minute => 5").await?;
    let error = refused(&queue.connect().await?, &batch(6)).await?;
    assert!(error.hint().is_some_and(|hint| hint.contains("this call alone has more")), "{error:?}");
    queue.sql("SELECT sms_outbox_enqueue_many('[]', 'shop')").await?;
    Ok(())
}

pub(crate) async fn replays_for_nothing(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    limit(&queue, "messages_per_day => 2, messages_per_recipient_hour => 2, allowed_senders => '{MyShop}'").await?;
    let keyed = |key: &str| call("once", &format!(", idempotency_key => '{key}'"));
    queue.sql(&keyed("a")).await?;
    queue.sql(&keyed("b")).await?;
    queue.sql("SELECT sms_outbox.suppress('shop', '0501234567')").await?;
    limit(&queue, "blocked_destinations => '{SA}'").await?;
    for _ in 0..3 {
        queue.sql(&keyed("a")).await?;
        queue.sql("SELECT sms_outbox_enqueue_many('[{\"mobile\": \"0501234567\", \"message\": \"once\", \"idempotency_key\": \"b\"}]', 'shop')").await?;
    }
    assert_eq!(limits(&queue).await?["messages_today"], json!(2));
    assert_eq!(never(&refused(queue.admin(), &keyed("c")).await?).0, "42501");
    assert_eq!(queue.count("sms_outbox.idempotency").await?, 2, "a refused key is free");
    Ok(())
}

/// Open transactions of one organization do not wait for each other, and so do not see each other: what is open at a time is
/// what a limit can be exceeded by, and no more than that comes in once they are over.
pub(crate) async fn makes_nobody_wait_and_overshoots_by_what_is_open(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    limit(&queue, "messages_per_day => 5, messages_per_recipient_hour => 5").await?;
    let mut sessions = Vec::new();
    for _ in 0..4 {
        let session = queue.connect().await?;
        session.batch_execute("SET lock_timeout = '1ms'; BEGIN").await?;
        sessions.push(session);
    }
    let mut let_in = 0;
    for session in &sessions {
        for _ in 0..5 {
            enqueue(session, "shop", "in").await?;
            let_in += 1;
        }
        let error = refused(session, &format!("SAVEPOINT s; {}", call("out", ""))).await?;
        assert_eq!(later(&error)?.1, "recipient_per_hour");
        session.batch_execute("ROLLBACK TO s").await?;
    }
    for session in &sessions {
        session.batch_execute("COMMIT").await?;
    }
    assert_eq!(let_in, 20);
    for session in &sessions {
        assert_eq!(later(&refused(session, &call("out", "")).await?)?.0, "53400");
    }
    assert_eq!(limits(&queue).await?["messages_today"], json!(20));

    // With nothing open, sessions that take turns overshoot by nothing: near the limit each call reads anew.
    limit(&queue, "messages_per_day => 60, messages_per_recipient_hour => 0").await?;
    let mut refusals = 0;
    for turn in 0..60 {
        let session: &Client = &sessions[turn % sessions.len()];
        refusals += usize::from(enqueue(session, "shop", "turn").await.is_err());
    }
    assert_eq!(refusals, 20);
    assert_eq!(limits(&queue).await?["messages_today"], json!(60));
    Ok(())
}

pub(crate) async fn folds_what_it_counts(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    limit(&queue, "messages_per_minute => 1000, messages_per_day => 1000").await?;
    in_one_minute(&queue).await?;
    for _ in 0..7 {
        queue.enqueue("in").await?;
    }
    queue.sql("SELECT pg_sleep(1.1)").await?;
    queue.maintain().await?;
    assert_eq!(queue.count("sms_outbox.usage").await?, 0);
    assert_eq!(queue.count("sms_outbox.usage_day").await?, 1);
    // A transaction that was open for longer than a second: not seen until the next fold.
    let session = queue.connect().await?;
    session.batch_execute("BEGIN").await?;
    enqueue(&session, "shop", "slow").await?;
    queue.enqueue("in").await?;
    let row = limits(&queue).await?;
    assert_eq!((&row["messages_this_minute"], &row["messages_today"]), (&json!(8), &json!(8)));
    queue.sql("SELECT pg_sleep(1.1)").await?;
    queue.maintain().await?;
    session.batch_execute("COMMIT").await?;
    queue.maintain().await?;
    let row = limits(&queue).await?;
    assert_eq!((&row["messages_this_minute"], &row["messages_today"]), (&json!(9), &json!(9)));
    assert_eq!(queue.count("sms_outbox.usage").await?, 0);
    limit(&queue, "messages_per_day => 9").await?;
    assert_eq!(later(&refused(queue.admin(), &call("out", "")).await?)?.1, "messages_per_day");
    // Days that are long over go.
    queue.sql("UPDATE sms_outbox.usage_day SET day = day - 4").await?;
    queue.maintain_all().await?;
    assert_eq!(queue.count("sms_outbox.usage_day").await?, 0);
    Ok(())
}

/// Refused calls roll back, and are counted all the same, by the server that looks after it.
pub(crate) async fn counts_what_it_refuses(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let row =
        "SELECT refused_today FROM sms_outbox.refusals WHERE organization_id = 'shop' AND code = 'messages_per_day'";
    assert_eq!(queue.rows(row).await?, [json!({ "refused_today": null })], "not counted without preload");

    let cluster = Cluster::start_new(major).await?;
    let queue = Queue::on(Database::create(&cluster, "counted").await?).await?;
    let codes = |column: &str| {
        format!(
            "SELECT jsonb_object_agg(code, {column}) FILTER (WHERE {column} > 0) FROM sms_outbox.refusals WHERE organization_id = 'shop'"
        )
    };
    limit(&queue, "messages_per_day => 1, blocked_destinations => '{AE}'").await?;
    queue.enqueue("in").await?;
    for n in 0..5 {
        let session = queue.connect_as("app").await?;
        session.batch_execute("BEGIN").await?;
        later(&refused(&session, &call("out", "")).await?)?;
        session.batch_execute("ROLLBACK").await?;
        if n % 2 == 0 {
            refused(&session, "SELECT sms_outbox_enqueue('+971501234567', 'out', organization_id => 'shop')").await?;
        }
    }
    let expected = "{\"messages_per_day\": 5, \"destination_not_allowed\": 3}";
    for column in ["refused_today", "refused_in_30_days"] {
        queue.wait_until(column, &format!("SELECT coalesce(({}) = '{expected}', false)", codes(column))).await?;
    }
    // Yesterday's, and those of long ago.
    queue.sql("UPDATE sms_outbox.refusal SET day = day - 1; INSERT INTO sms_outbox.refusal VALUES ('shop', current_date - 40, 'messages_per_day', 7)").await?;
    assert_eq!(queue.rows(&codes("refused_today")).await?, [json!({ "jsonb_object_agg": null })]);
    queue.maintain_all().await?;
    queue
        .wait_until(
            "the old ones went",
            &format!("SELECT coalesce(({}) = '{expected}', false)", codes("refused_in_30_days")),
        )
        .await
}
