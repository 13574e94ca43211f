//! Limits against abuse: each at its last allowed message and at the first refused one.

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sms_outbox_tests::queue::{claim, enqueue, finish, refused};
use sms_outbox_tests::{Major, Queue, on_majors};
use tokio_postgres::Client;
use tokio_postgres::error::DbError;

on_majors! { ends:
    counts_by_minute, counts_by_day_of_the_zone, counts_segments, counts_by_recipient, counts_a_batch_as_its_messages,
    replays_for_nothing, goes_by_destination, goes_by_sender, writes_to_nobody_who_is_suppressed,
    retries_nobody_who_is_suppressed, lets_an_operator_override, makes_nobody_wait_and_overshoots_by_what_is_open,
    folds_what_it_counts, keeps_limits_apart, says_what_is_no_limit,
}

async fn limit(queue: &Queue, limits: &str) -> Result<()> {
    queue.sql(&format!("SELECT sms_outbox.set_organization('shop', {limits})")).await
}

/// Not at the end of a minute: the count would begin anew in the middle of the test.
async fn in_one_minute(queue: &Queue) -> Result<()> {
    queue.sql("SELECT pg_sleep(CASE WHEN extract(second FROM clock_timestamp()) > 40 THEN 60.1 - extract(second FROM clock_timestamp()) ELSE 0 END)").await
}

fn call(text: &str, arguments: &str) -> String {
    format!("SELECT sms_outbox_enqueue('0501234567', '{text}', organization_id => 'shop'{arguments})")
}

/// SQLSTATE, code and field of a refusal that is none for ever: it says after how many seconds to come back.
fn later(error: &DbError) -> Result<(&str, &str, Option<&str>, i64)> {
    let detail = error.detail().context("a detail")?;
    let seconds = detail.strip_prefix("retry_after_seconds: ").context("nothing else")?.parse()?;
    ensure!(error.hint().is_some(), "a hint");
    ensure!(!error.message().contains("05012") && !error.message().contains("96650"), "no number in an error");
    Ok((error.code().code(), error.constraint().context("a code")?, error.column(), seconds))
}

/// SQLSTATE, code, field and message of a refusal for good.
fn never(error: &DbError) -> (&str, Option<&str>, Option<&str>) {
    assert!(!format!("{error:?}").contains("50123"), "no number in an error: {error:?}");
    (error.code().code(), error.constraint(), error.column())
}

async fn limits(queue: &Queue) -> Result<Value> {
    queue.rows("SELECT * FROM sms_outbox.limits WHERE organization_id = 'shop'").await?.pop().context("a row")
}

async fn counts_by_minute(major: Major) -> Result<()> {
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
async fn counts_by_day_of_the_zone(major: Major) -> Result<()> {
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

async fn counts_segments(major: Major) -> Result<()> {
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

async fn counts_by_recipient(major: Major) -> Result<()> {
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

async fn counts_a_batch_as_its_messages(major: Major) -> Result<()> {
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

async fn replays_for_nothing(major: Major) -> Result<()> {
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

async fn goes_by_destination(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let to = |mobile: &str| format!("SELECT sms_outbox_enqueue('{mobile}', 'x', organization_id => 'shop')");
    for (rules, mobile, passes) in [
        ("allowed_destinations => '{SA}'", "0501234567", true),
        ("allowed_destinations => '{SA}'", "+971501234567", false),
        ("allowed_destinations => '{+9665, AE}'", "+971501234567", true),
        ("allowed_destinations => '{+96650}'", "0501234567", true),
        ("allowed_destinations => '{+96650}'", "0541234567", false),
        ("allowed_destinations => '{US}'", "+12015550123", true),
        ("allowed_destinations => '{US}'", "+14165550123", false),
        ("allowed_destinations => '{+1}', blocked_destinations => '{CA}'", "+14165550123", false),
        ("allowed_destinations => '{+1}', blocked_destinations => '{CA}'", "+12015550123", true),
        ("blocked_destinations => '{+96650}'", "0501234567", false),
        ("blocked_destinations => '{+96650}'", "0541234567", true),
        ("allowed_destinations => '{+966501234567}', blocked_destinations => '{SA}'", "0501234567", false),
        ("blocked_destinations => '{KZ}'", "+77012345678", false),
        ("blocked_destinations => '{RU}'", "+77012345678", true),
    ] {
        limit(&queue, "allowed_destinations => '{}', blocked_destinations => '{}'").await?;
        limit(&queue, rules).await?;
        if passes {
            queue.sql(&to(mobile)).await.context(rules)?;
            continue;
        }
        let error = refused(queue.admin(), &to(mobile)).await.context(rules)?;
        assert_eq!(
            (error.code().code(), error.constraint(), error.column()),
            ("42501", Some("destination_not_allowed"), Some("mobile"))
        );
        assert!(!error.message().contains(mobile.trim_start_matches('0')));
    }
    let error = refused(queue.admin(), "SELECT sms_outbox_enqueue_many('[{\"mobile\": \"0501234567\", \"message\": \"in\"}, {\"mobile\": \"+77012345678\", \"message\": \"in\"}, {\"mobile\": \"+12015550123\", \"message\": \"in\"}]', 'shop')").await;
    assert!(error.is_err(), "Russia is blocked, Kazakhstan is not");
    limit(&queue, "blocked_destinations => '{US}'").await?;
    let error = refused(queue.admin(), "SELECT sms_outbox_enqueue_many('[{\"mobile\": \"0501234567\", \"message\": \"in\"}, {\"mobile\": \"+12015550123\", \"message\": \"out\"}]', 'shop')").await?;
    assert!(error.message().starts_with("messages[1].mobile: "), "{error}");
    Ok(())
}

async fn goes_by_sender(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    limit(&queue, "allowed_senders => '{MyShop,My Shop.,966500000000}'").await?;
    for sender in ["NULL", "''", "'MyShop'", "'myshop'", "'MY SHOP.'", "'966500000000'"] {
        queue.sql(&call("in", &format!(", sender => {sender}"))).await.context(sender)?;
    }
    for sender in ["'YourShop'", "'MyShop2'", "'966500000001'"] {
        let error = refused(queue.admin(), &call("out", &format!(", sender => {sender}"))).await?;
        assert_eq!(never(&error), ("42501", Some("sender_not_allowed"), Some("sender")));
    }
    limit(&queue, "allowed_senders => '{}'").await?;
    queue.sql(&call("in", ", sender => 'Anybody'")).await
}

async fn writes_to_nobody_who_is_suppressed(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.install("other", "main").await?;
    let waiting = queue.enqueue("waits").await?;
    let scheduled: String = queue.value("SELECT id FROM sms_outbox_enqueue('0501234567', 'later', datetime => now() + interval '1 h', organization_id => 'shop')", &[]).await?;
    let theirs = enqueue(queue.admin(), "other", "waits").await?;
    let flying: Vec<String> =
        vec![queue.enqueue("fails").await?, queue.enqueue("arrives").await?, queue.enqueue("unclear").await?];
    for id in &flying {
        queue.lease(id).await?;
    }
    let canceled: i64 =
        queue.value("SELECT sms_outbox.suppress('shop', '050 123 4567', 'asked us to stop')", &[]).await?;
    assert_eq!(canceled, 2);
    assert_eq!(
        (queue.status(&waiting).await?, queue.status(&scheduled).await?),
        ("canceled".into(), "canceled".into())
    );
    assert_eq!(queue.status(&theirs).await?, "pending", "another organization's list is another one");
    let error = refused(queue.admin(), &call("out", "")).await?;
    assert_eq!(never(&error), ("42501", Some("recipient_suppressed"), Some("mobile")));
    let error = refused(queue.admin(), "SELECT sms_outbox_enqueue_many('[{\"mobile\": \"0501234568\", \"message\": \"in\"}, {\"mobile\": \"0501234567\", \"message\": \"out\"}]', 'shop')").await?;
    assert!(error.message().starts_with("messages[1].mobile: "), "{error}");
    // An attempt in flight cannot be taken back, but nothing follows it.
    for (id, outcome, status) in [
        (&flying[0], "not_sent", "canceled"),
        (&flying[1], "accepted", "sent"),
        (&flying[2], "unclear", "dispatch_timeout"),
    ] {
        let finished = finish(queue.admin(), "w", id, 1, outcome).await?;
        assert_eq!(finished.dispatch_status.as_deref(), Some(status), "{outcome}");
    }
    assert_eq!(queue.field(&flying[0], "error_code").await?.as_deref(), Some("recipient_suppressed"));
    queue.assert_placed().await?;

    let listed = queue.rows("SELECT organization_id, mobile, reason FROM sms_outbox.suppressed").await?;
    assert_eq!(listed, [json!({"organization_id": "shop", "mobile": "+966501234567", "reason": "asked us to stop"})]);
    assert_eq!(limits(&queue).await?["suppressed_numbers"], json!(1));
    let again: i64 = queue.value("SELECT sms_outbox.suppress('shop', '+966501234567')", &[]).await?;
    assert_eq!(again, 0);
    assert_eq!(queue.value::<String>("SELECT reason FROM sms_outbox.suppressed", &[]).await?, "asked us to stop");
    assert!(queue.value::<bool>("SELECT sms_outbox.unsuppress('shop', '0501234567')", &[]).await?);
    assert!(!queue.value::<bool>("SELECT sms_outbox.unsuppress('shop', '0501234567')", &[]).await?);
    queue.enqueue("in again").await?;
    for (call, state, column) in [
        ("suppress('nobody', '0501234567')", "P0002", "organization_id"),
        ("suppress('shop', 'not a number')", "22023", "mobile"),
        ("suppress('shop', NULL)", "22023", "mobile"),
        ("unsuppress('shop', '')", "22023", "mobile"),
    ] {
        let error = refused(queue.admin(), &format!("SELECT sms_outbox.{call}")).await?;
        assert_eq!((error.code().code(), error.column()), (state, Some(column)), "{call}");
    }
    Ok(())
}

async fn retries_nobody_who_is_suppressed(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let failed = queue.ended("failed", "refused_recipient").await?;
    let other: String =
        queue.value("SELECT id FROM sms_outbox_enqueue('0501234568', 'other', organization_id => 'shop')", &[]).await?;
    queue.attempt(&other, "refused_recipient").await?;
    queue.sql("SELECT sms_outbox.suppress('shop', '0501234567')").await?;
    let error = refused(queue.admin(), &format!("SELECT sms_outbox.retry('{failed}')")).await?;
    assert_eq!(never(&error), ("42501", Some("recipient_suppressed"), Some("mobile")));
    let filter = r#"'{"dispatch_status": "failed"}'::jsonb"#;
    for (dry_run, moved) in [(true, 0), (false, 1)] {
        let row = queue.rows(&format!("SELECT * FROM sms_outbox.retry({filter}, dry_run => {dry_run})")).await?;
        assert_eq!(row, [json!({"matched": 1, "moved": moved, "suppressed": 1})]);
    }
    assert_eq!((queue.status(&failed).await?, queue.status(&other).await?), ("failed".into(), "pending".into()));
    let row = queue
        .rows(&format!("SELECT * FROM set_config('sms_outbox.override_limits', 'on', false), sms_outbox.retry({filter}, dry_run => false)"))
        .await?;
    assert_eq!((&row[0]["moved"], &row[0]["suppressed"]), (&json!(1), &json!(0)));
    assert_eq!(queue.status(&failed).await?, "pending");
    queue.attempt(&failed, "refused_recipient").await?;
    queue.sql(&format!("SELECT sms_outbox.retry('{failed}')")).await?;
    queue.assert_placed().await
}

/// For an operator who says so, in whatever role acts; nobody else's word counts.
async fn lets_an_operator_override(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    limit(
        &queue,
        "messages_per_day => 1, messages_per_recipient_hour => 1, segments_per_day => 1, allowed_senders => '{MyShop}'",
    )
    .await?;
    queue.enqueue("in").await?;
    queue.sql("SELECT sms_outbox.suppress('shop', '0501234567')").await?;
    let operator = queue.connect_as("operator").await?;
    let app = queue.connect_as("app").await?;
    let urgent = call("urgent", ", sender => 'Else'");
    for session in [&operator, &app] {
        assert_eq!(never(&refused(session, &urgent).await?).0, "42501");
        session.batch_execute("SET sms_outbox.override_limits = on").await?;
    }
    assert_eq!(never(&refused(&app, &urgent).await?).0, "42501", "an application's word does not count");
    operator.batch_execute(&urgent).await?;
    assert_eq!(limits(&queue).await?["messages_today"], json!(2), "it is counted all the same");
    operator.batch_execute("RESET sms_outbox.override_limits").await?;
    assert_eq!(never(&refused(&operator, &urgent).await?).0, "42501");
    // By the role that acts, not by what the login could be.
    let name = queue.name();
    queue
        .sql(&format!("CREATE ROLE \"both_{name}\" LOGIN NOINHERIT IN ROLE sms_outbox_app, sms_outbox_operator"))
        .await?;
    let both = queue.connect_as(&format!("both_{name}")).await?;
    both.batch_execute("SET sms_outbox.override_limits = on; SET ROLE sms_outbox_app").await?;
    assert_eq!(never(&refused(&both, &urgent).await?).0, "42501");
    both.batch_execute("SET ROLE sms_outbox_operator").await?;
    both.batch_execute(&urgent).await?;
    queue.sql("SET ROLE sms_outbox_app").await?;
    queue.sql("SET sms_outbox.override_limits = on").await?;
    assert_eq!(
        never(&refused(queue.admin(), &urgent).await?).0,
        "42501",
        "nor is a superuser who acts as somebody else"
    );
    queue.sql("RESET ROLE").await?;
    drop(both);
    queue.sql(&format!("DROP ROLE \"both_{name}\"")).await
}

/// Open transactions of one organization do not wait for each other, and so do not see each other: what is open at a time is
/// what a limit can be exceeded by, and no more than that comes in once they are over.
async fn makes_nobody_wait_and_overshoots_by_what_is_open(major: Major) -> Result<()> {
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

async fn folds_what_it_counts(major: Major) -> Result<()> {
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

async fn keeps_limits_apart(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.install("other", "main").await?;
    limit(&queue, "messages_per_day => 1").await?;
    queue.sql("SELECT sms_outbox.suppress('shop', '0501234567', 'theirs')").await?;
    enqueue(queue.admin(), "other", "in").await?;
    assert_eq!(queue.count("sms_outbox.usage").await?, 0, "who has no limit leaves no row");
    let name = queue.name();
    queue
        .sql(&format!(
            "CREATE ROLE \"theirs_{name}\" LOGIN IN ROLE sms_outbox_operator; SELECT sms_outbox.bind_role('theirs_{name}', 'other')"
        ))
        .await?;
    let theirs = queue.connect_as(&format!("theirs_{name}")).await?;
    for (view, rows) in [("limits", 1), ("suppressed", 0)] {
        let seen = theirs.query(&format!("SELECT organization_id FROM sms_outbox.{view}"), &[]).await?;
        assert_eq!(seen.len(), rows, "{view}");
    }
    for call in [
        "suppress('shop', '0501234567')",
        "unsuppress('shop', '0501234567')",
        "set_organization('shop', messages_per_day => 0)",
    ] {
        let error = refused(&theirs, &format!("SELECT sms_outbox.{call}")).await?;
        assert_eq!((error.code().code(), error.constraint()), ("42501", Some("organization_mismatch")), "{call}");
    }
    theirs.batch_execute("SELECT sms_outbox.suppress('other', '0501234567')").await?;
    drop(theirs);
    queue.sql(&format!("DROP ROLE \"theirs_{name}\"")).await?;
    let app = queue.connect_as("app").await?;
    assert_eq!(refused(&app, "SELECT * FROM sms_outbox.suppressed").await?.code().code(), "42501");
    assert_eq!(refused(&app, "SELECT sms_outbox.suppress('shop', '0501234567')").await?.code().code(), "42501");
    // A message that was leased before it was suppressed, by whichever worker.
    let id = enqueue(queue.admin(), "other", "out").await;
    assert!(id.is_err(), "suppressed there too now");
    assert!(claim(queue.admin(), "w", &[], queue.app()).await?.is_empty());
    Ok(())
}

async fn says_what_is_no_limit(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let many = format!("ARRAY(SELECT '+' || n FROM generate_series(1000, {}) AS n)", 1500);
    for (argument, column, message) in [
        ("messages_per_minute => -1", "messages_per_minute", "messages_per_minute: it must be at least 1"),
        ("segments_per_day => -1", "segments_per_day", "segments_per_day: it must be at least 1"),
        (
            "allowed_destinations => '{SA,966}'",
            "allowed_destinations",
            "allowed_destinations: entry 2 is neither a prefix nor a region",
        ),
        (
            "allowed_destinations => '{sa}'",
            "allowed_destinations",
            "allowed_destinations: entry 1 is neither a prefix nor a region",
        ),
        (
            "allowed_destinations => '{XX}'",
            "allowed_destinations",
            "allowed_destinations: entry 1 is neither a prefix nor a region",
        ),
        (
            "blocked_destinations => '{NULL}'",
            "blocked_destinations",
            "blocked_destinations: entry 1 is neither a prefix nor a region",
        ),
        (
            "blocked_destinations => '{+0}'",
            "blocked_destinations",
            "blocked_destinations: entry 1 is neither a prefix nor a region",
        ),
        (
            "allowed_senders => '{ok,My Shop Is Too Long}'",
            "allowed_senders",
            "allowed_senders: entry 2 is neither a sender name nor a number",
        ),
        (
            "allowed_senders => '{\"a,b\"}'",
            "allowed_senders",
            "allowed_senders: entry 1 is neither a sender name nor a number",
        ),
        (
            &format!("blocked_destinations => {many}"),
            "blocked_destinations",
            "blocked_destinations: it has more than 500 entries",
        ),
    ] {
        let error = refused(queue.admin(), &format!("SELECT sms_outbox.set_organization('shop', {argument})")).await?;
        assert_eq!(
            (error.code().code(), error.column(), error.message()),
            ("22023", Some(column), message),
            "{argument}"
        );
        assert!(error.hint().is_some(), "{argument}");
    }
    // NULL leaves each as it is.
    limit(&queue, "messages_per_minute => 1, messages_per_day => 2, messages_per_recipient_hour => 3, segments_per_day => 4, allowed_destinations => '{SA}', blocked_destinations => '{+1}', allowed_senders => '{A}'").await?;
    limit(&queue, "default_region => 'AE'").await?;
    let expected = json!({"organization_id": "shop", "messages_per_minute": 1, "messages_this_minute": 0, "messages_per_day": 2, "messages_today": 0,
        "messages_per_recipient_hour": 3, "segments_per_day": 4, "segments_today": 0, "allowed_destinations": ["SA"], "blocked_destinations": ["+1"],
        "allowed_senders": ["A"], "suppressed_numbers": 0});
    assert_eq!(limits(&queue).await?, expected);
    Ok(())
}
