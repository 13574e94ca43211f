//! To whom and in whose name, and who may do it all the same.

use anyhow::{Context, Result};
use serde_json::json;
use sms_outbox_tests::queue::{enqueue, finish, refused};
use sms_outbox_tests::{Major, Queue};

use crate::{call, limit, limits, never};

pub(crate) async fn goes_by_destination(major: Major) -> Result<()> {
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

pub(crate) async fn goes_by_sender(major: Major) -> Result<()> {
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

pub(crate) async fn writes_to_nobody_who_is_suppressed(major: Major) -> Result<()> {
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

pub(crate) async fn retries_nobody_who_is_suppressed(major: Major) -> Result<()> {
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
        assert_eq!(row, [json!({"matched": 1, "moved": moved, "suppressed": 1, "risky": 0})]);
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
pub(crate) async fn lets_an_operator_override(major: Major) -> Result<()> {
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

pub(crate) async fn keeps_limits_apart(major: Major) -> Result<()> {
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
    assert!(enqueue(queue.admin(), "other", "out").await.is_err(), "each has a list of its own");
    Ok(())
}

pub(crate) async fn says_what_is_no_limit(major: Major) -> Result<()> {
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
