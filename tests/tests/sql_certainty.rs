//! How sure it is that a message was sent: said in one place, shown by the views, warned of by `retry`, counted by `survey`.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sms_outbox_tests::{Major, Queue, on_majors};

on_majors! { ends:
    says_of_each_end_how_sure_it_is, warns_of_a_retry_that_risks_a_second_sms, counts_what_a_retry_would_move,
    counts_by_the_attempt_that_most_likely_sent, an_operator_speaks_of_messages,
}

/// How attempts end, their error code, and what is known then.
const ENDS: [(&str, &str, &str); 11] = [
    ("accepted", "", "sent"),
    ("not_sent", "connection_refused", "not_sent"),
    ("throttled", "http_429", "not_sent"),
    ("refused_account", "http_401", "not_sent"),
    ("refused_content", "sender_missing", "not_sent"),
    ("refused_recipient", "no_mobile", "not_sent"),
    ("unclear", "lease_expired", "unknown"),
    ("unclear", "timeout", "possible"),
    ("unclear", "http_500", "possible"),
    ("unclear", "", "possible"),
    ("unclear", "unreadable_answer", "likely"),
];

/// Makes one attempt of a message and ends it so; returns the number of the attempt.
async fn attempt(queue: &Queue, id: &str, app: i64, status: &str, code: &str) -> Result<i16> {
    let attempt =
        sms_outbox_tests::queue::claim(queue.admin(), "w", &[id], app).await?[0].attempt.context("a lease")?;
    queue
        .sql(&format!(
            "SELECT sms_outbox.finish('w', '{{{id}}}', '{{{attempt}}}', '{{{status}}}', '{{NULL}}', ARRAY[nullif('{code}', '')],
                                      '{{NULL}}', '{{NULL}}', '{{NULL}}', '{{NULL}}')"
        ))
        .await?;
    // No breaker may open: it is not what is tested.
    queue.sql("UPDATE sms_outbox.app_health SET failures = 0, blocked_until = NULL, blocked_reason = NULL").await?;
    Ok(attempt)
}

/// A message whose only attempt ended so.
async fn ended(queue: &Queue, status: &str, code: &str) -> Result<String> {
    let id = queue.enqueue(&format!("{status} {code}")).await?;
    attempt(queue, &id, queue.app(), status, code).await?;
    Ok(id)
}

async fn says_of_each_end_how_sure_it_is(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    for (status, code, certainty) in ENDS {
        let id = ended(&queue, status, code).await?;
        for view in ["attempts", "masked_attempts"] {
            let rows = queue.rows(&format!("SELECT certainty FROM sms_outbox.{view} WHERE id = '{id}'")).await?;
            assert_eq!(rows, [json!({ "certainty": certainty })], "{view}: {status} {code}");
        }
    }
    let live = queue.enqueue("live").await?;
    queue.lease(&live).await?;
    let rows = queue.rows(&format!("SELECT certainty FROM sms_outbox.attempts WHERE id = '{live}'")).await?;
    assert_eq!(rows, [json!({ "certainty": null })]);
    Ok(())
}

/// Retries in psql; what it says on standard error.
async fn warnings_of_a_retry(queue: &Queue, id: &str) -> Result<String> {
    let mut command = queue.cluster().tool("psql")?;
    command.args(["-Xq", "-d"]).arg(queue.cluster().socket_url(queue.name(), "operator"));
    command.args(["-c", &format!("SELECT sms_outbox.retry('{id}')")]);
    let said = tokio::task::spawn_blocking(move || command.output()).await??;
    anyhow::ensure!(said.status.success(), "{}", String::from_utf8_lossy(&said.stderr));
    Ok(String::from_utf8(said.stderr)?)
}

async fn warns_of_a_retry_that_risks_a_second_sms(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    for (code, certainty) in [("lease_expired", "unknown"), ("timeout", "possible"), ("unreadable_answer", "likely")] {
        let id = ended(&queue, "unclear", code).await?;
        let said = warnings_of_a_retry(&queue, &id).await?;
        let expected = format!("message {id} may have been sent already (certainty: {certainty})");
        assert!(said.starts_with("WARNING:") && said.contains(&expected), "{code}: {said}");
        // Taken back meanwhile: what the first attempt did is as unclear as before.
        queue.sql(&format!("SELECT sms_outbox.cancel('{id}')")).await?;
        assert!(warnings_of_a_retry(&queue, &id).await?.contains(&expected));
    }
    let refused = ended(&queue, "refused_recipient", "no_mobile").await?;
    assert_eq!(warnings_of_a_retry(&queue, &refused).await?, "");
    queue.sql(&format!("SELECT sms_outbox.cancel('{refused}')")).await?;
    assert_eq!(warnings_of_a_retry(&queue, &refused).await?, "");
    queue.assert_placed().await
}

/// `survey` of a filter, without its times.
async fn survey(queue: &Queue, filter: &Value) -> Result<Vec<Value>> {
    let columns = "organization_app_id AS app, error_code AS code, certainty, messages";
    queue.rows(&format!("SELECT {columns} FROM sms_outbox.survey('{filter}')")).await
}

/// What a retry of a filter would move, and how much of that is risky.
async fn dry_run(queue: &Queue, filter: &Value) -> Result<(i64, i64)> {
    let row =
        queue.rows(&format!("SELECT matched, risky FROM sms_outbox.retry(filter => '{filter}')")).await?.remove(0);
    Ok((row["matched"].as_i64().context("matched")?, row["risky"].as_i64().context("risky")?))
}

async fn counts_what_a_retry_would_move(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (main, second) = (queue.app(), queue.install("shop", "second").await?);
    for (app, code) in [(main, "timeout"), (main, "timeout"), (main, "unreadable_answer"), (second, "timeout")] {
        let id = queue.enqueue("x").await?;
        attempt(&queue, &id, app, "unclear", code).await?;
    }
    let other = queue.install("other", "main").await?;
    let foreign = sms_outbox_tests::queue::enqueue(queue.admin(), "other", "x").await?;
    attempt(&queue, &foreign, other, "unclear", "lease_expired").await?;
    let group = |app: i64, code: &str, certainty: &str, messages: i64| json!({ "app": app, "code": code, "certainty": certainty, "messages": messages });
    let cases = [
        (
            json!({}),
            vec![
                group(main, "timeout", "possible", 2),
                group(other, "lease_expired", "unknown", 1),
                group(main, "unreadable_answer", "likely", 1),
                group(second, "timeout", "possible", 1),
            ],
        ),
        (json!({ "organization_id": "other" }), vec![group(other, "lease_expired", "unknown", 1)]),
        (json!({ "organization_app_id": second }), vec![group(second, "timeout", "possible", 1)]),
        (json!({ "error_code": "timeout", "organization_app_id": main }), vec![group(main, "timeout", "possible", 2)]),
        (json!({ "certainty": "likely" }), vec![group(main, "unreadable_answer", "likely", 1)]),
        (json!({ "certainty": "not_sent" }), vec![]),
        (json!({ "created_before": "2026-01-01" }), vec![]),
    ];
    for (mut filter, groups) in cases {
        filter["dispatch_status"] = json!("dispatch_timeout");
        assert_eq!(survey(&queue, &filter).await?, groups, "{filter}");
        let messages: i64 = groups.iter().filter_map(|group| group["messages"].as_i64()).sum();
        assert_eq!(dry_run(&queue, &filter).await?, (messages, messages), "{filter}");
    }
    let times = queue
        .rows("SELECT bool_and(oldest <= newest AND newest <= now() AND app = 'main') AS sound FROM sms_outbox.survey('{\"dispatch_status\": \"dispatch_timeout\", \"organization_id\": \"other\"}')")
        .await?;
    assert_eq!(times, [json!({ "sound": true })]);
    let unclear: String =
        queue.value("SELECT status || ': ' || detail FROM sms_outbox.health WHERE \"check\" = 'unclear'", &[]).await?;
    let said = format!(
        "3 by app {main} (sandbox), 1 by app {second} (sandbox), 1 by app {other} (sandbox); how to decide: docs/guides/unclear.md"
    );
    assert!(
        unclear.starts_with("warn: 5 messages may have been sent or not, the first since ") && unclear.ends_with(&said),
        "{unclear}"
    );
    queue.assert_placed().await
}

async fn counts_by_the_attempt_that_most_likely_sent(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (main, second) = (queue.app(), queue.install("shop", "second").await?);
    // Never tried.
    let id = queue.enqueue("never tried").await?;
    queue.sql(&format!("SELECT sms_outbox.cancel('{id}')")).await?;
    let canceled = json!({ "dispatch_status": "canceled" });
    assert_eq!(
        survey(&queue, &canceled).await?,
        [json!({ "app": null, "code": null, "certainty": "not_sent", "messages": 1 })]
    );
    assert_eq!(dry_run(&queue, &canceled).await?, (1, 0));
    // Unclear, sent again by an operator, given back by another app, taken back: the first attempt still may have sent it.
    let id = queue.enqueue("tried twice").await?;
    attempt(&queue, &id, main, "unclear", "timeout").await?;
    queue.sql(&format!("SELECT sms_outbox.retry('{id}')")).await?;
    attempt(&queue, &id, second, "throttled", "http_429").await?;
    queue.sql(&format!("SELECT sms_outbox.cancel('{id}')")).await?;
    let mut groups = survey(&queue, &canceled).await?;
    groups.retain(|group| group["app"] != Value::Null);
    assert_eq!(groups, [json!({ "app": main, "code": "timeout", "certainty": "possible", "messages": 1 })]);
    assert_eq!(dry_run(&queue, &canceled).await?, (2, 1));
    Ok(())
}

async fn an_operator_speaks_of_messages(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let session = queue.connect_as("operator").await?;
    let resolve = async |id: &str, verdict: &str| -> Result<String> {
        let call = format!("SELECT sms_outbox.resolve('{id}', '{verdict}', 'asked them')::text");
        Ok(session.query_one(&call, &[]).await?.try_get(0)?)
    };
    // Three attempts: what most likely sent it is what was sent, the others stay as they are.
    let thrice = async || -> Result<String> {
        let id = queue.enqueue("thrice").await?;
        for code in ["timeout", "unreadable_answer", "lease_expired"] {
            attempt(&queue, &id, queue.app(), "unclear", code).await?;
            queue.sql(&format!("SELECT sms_outbox.retry('{id}')")).await?;
        }
        queue.sql(&format!("SELECT sms_outbox.cancel('{id}')")).await?;
        Ok(id)
    };
    let certainties = async |id: &str| -> Result<Vec<Value>> {
        let rows = queue
            .rows(&format!("SELECT certainty FROM sms_outbox.attempts WHERE id = '{id}' ORDER BY attempt"))
            .await?;
        Ok(rows.into_iter().map(|mut row| row["certainty"].take()).collect())
    };
    let id = thrice().await?;
    assert_eq!(certainties(&id).await?, [json!("possible"), json!("likely"), json!("unknown")]);
    assert_eq!(resolve(&id, "accepted").await?, "sent");
    assert_eq!(certainties(&id).await?, [json!("possible"), json!("sent"), json!("unknown")]);
    // Not sent is said of all; it was a mistake, and the last one had sent it.
    let id = thrice().await?;
    assert_eq!(resolve(&id, "not_sent").await?, "canceled");
    assert_eq!(certainties(&id).await?, [json!("not_sent"), json!("not_sent"), json!("not_sent")]);
    assert_eq!(warnings_of_a_retry(&queue, &id).await?, "");
    assert_eq!(resolve(&id, "accepted").await?, "sent");
    assert_eq!(certainties(&id).await?, [json!("not_sent"), json!("not_sent"), json!("sent")]);
    let told = queue.rows(&format!("SELECT evidence -> 0 ->> 'by' AS by, evidence -> 1 ->> 'detail' AS detail FROM sms_outbox.attempts WHERE id = '{id}' AND attempt = 3")).await?;
    assert!(
        told[0]["by"].as_str().is_some_and(|by| by.starts_with("operator")) && told[0]["detail"] == "asked them",
        "{told:?}"
    );
    // By filter: what cannot have been sent is not spoken of, also where the filter matches it.
    let (unclear, never) = (thrice().await?, queue.enqueue("never tried").await?);
    queue.sql(&format!("SELECT sms_outbox.cancel('{never}')")).await?;
    let by_filter = |dry_run: bool| {
        format!(
            "SELECT * FROM sms_outbox.resolve('{{\"dispatch_status\": \"canceled\"}}'::jsonb, 'accepted', 'assumed', dry_run => {dry_run})"
        )
    };
    assert_eq!(queue.rows(&by_filter(true)).await?, [json!({ "matched": 1, "moved": 0 })]);
    assert_eq!(queue.status(&unclear).await?, "canceled");
    assert_eq!(queue.rows(&by_filter(false)).await?, [json!({ "matched": 1, "moved": 1 })]);
    assert_eq!(
        (queue.status(&unclear).await?, queue.status(&never).await?),
        ("sent".to_owned(), "canceled".to_owned())
    );
    queue.assert_placed().await
}
