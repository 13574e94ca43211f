//! What becomes known of an unclear attempt, and receipts, at the level of SQL: who may tell what, what is kept, and what two
//! sessions at once do.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sms_outbox_tests::queue::{claim, finish, refused};
use sms_outbox_tests::{Major, Queue, on_majors};

on_majors! { ends:
    keeps_what_the_ledger_had_said, a_worker_tells_what_it_looked_up_and_no_more, an_operator_tells_of_its_organization_alone,
    a_receipt_and_the_end_of_its_attempt_wait_for_each_other, receipts_at_once_are_one_row,
    tells_which_other_attempts_the_provider_may_mean, the_report_of_a_lost_claim_meets_no_new_attempt,
}

async fn resolve(queue: &Queue, id: &str, verdict: &str, evidence: &str) -> Result<(bool, String)> {
    let query = "SELECT applied, dispatch_status::text FROM sms_outbox.resolve($1::text, 1, $2::text::sms_outbox.attempt_status, $3)";
    let row = queue.admin().query_one(query, &[&id, &verdict, &evidence]).await?;
    Ok((row.try_get(0)?, row.try_get(1)?))
}

async fn keeps_what_the_ledger_had_said(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let id = queue.ended("told", "unclear").await?;
    assert_eq!(resolve(&queue, &id, "unclear", "operator").await?, (false, "dispatch_timeout".to_owned()));
    assert_eq!(resolve(&queue, &id, "not_sent", "operator").await?, (true, "failed".to_owned()));
    assert_eq!(resolve(&queue, &id, "not_sent", "operator").await?, (false, "failed".to_owned()));
    let rows = queue.rows("SELECT status, error_code, error_message, evidence FROM sms_outbox.attempts").await?;
    assert_eq!(rows.len(), 1);
    assert_eq!((&rows[0]["status"], &rows[0]["error_code"]), (&json!("not_sent"), &json!("test")));
    assert_eq!(rows[0]["error_message"], "not sent, as became known by operator");
    let told = rows[0]["evidence"].as_array().context("an array")?;
    let facts: Vec<[&Value; 4]> =
        told.iter().map(|one| [&one["verdict"], &one["source"], &one["by"], &one["was_error_code"]]).collect();
    let operator = |verdict: &str, was: Value| [json!(verdict), json!("operator"), json!("postgres"), was];
    let expected = [operator("unclear", Value::Null), operator("not_sent", json!("test"))];
    assert_eq!(facts, expected.each_ref().map(|one| one.each_ref()));
    // The counts follow.
    let counts = queue.rows("SELECT failed, dispatch_timeout, sent FROM sms_outbox.queue_stats").await?;
    assert_eq!(counts, [json!({"failed": 1, "dispatch_timeout": 0, "sent": 0})]);
    queue.sql(&format!("SELECT sms_outbox.record_receipt('{id}', 1, 'undelivered', 'UNDELIV', '2026-01-01')")).await?;
    let counts = queue.rows("SELECT failed, dispatch_timeout, sent FROM sms_outbox.queue_stats").await?;
    assert_eq!(counts, [json!({"failed": 0, "dispatch_timeout": 0, "sent": 1})]);
    assert_eq!(queue.field(&id, "delivery_status").await?.as_deref(), Some("undelivered"));
    let receipt =
        queue.rows("SELECT delivery_status, delivery_code, delivery_at::date AS day FROM sms_outbox.attempts").await?;
    assert_eq!(receipt, [json!({"delivery_status": "undelivered", "delivery_code": "UNDELIV", "day": "2026-01-01"})]);
    queue.assert_placed().await
}

async fn a_worker_tells_what_it_looked_up_and_no_more(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let id = queue.ended("asked", "unclear").await?;
    let worker = queue.connect_as("worker").await?;
    for evidence in ["operator", "receipt"] {
        let told = format!("SELECT * FROM sms_outbox.resolve('{id}', 1, 'not_sent', '{evidence}')");
        let error = refused(&worker, &told).await?;
        assert_eq!((error.code().code(), error.column()), ("42501", Some("evidence")));
    }
    assert_eq!(queue.status(&id).await?, "dispatch_timeout");
    let told = format!("SELECT * FROM sms_outbox.resolve('{id}', 1, 'accepted', 'look-up', 'SM1', 'listed', 'w/1')");
    worker.batch_execute(&told).await?;
    assert_eq!(queue.status(&id).await?, "sent");
    let by = queue.rows("SELECT told_by, detail FROM sms_outbox.evidence").await?;
    assert_eq!(by, [json!({"told_by": "w/1", "detail": "listed"})]);
    // The name is a look-up's alone: an operator is who is logged in.
    let id = queue.ended("found out", "unclear").await?;
    let operator = queue.connect_as("operator").await?;
    let told = format!("SELECT * FROM sms_outbox.resolve('{id}', 1, 'accepted', 'operator', worker => 'somebody')");
    operator.batch_execute(&told).await?;
    assert_eq!(queue.count("sms_outbox.evidence WHERE told_by = 'operator' AND source = 'operator'").await?, 1);
    Ok(())
}

async fn an_operator_tells_of_its_organization_alone(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let id = queue.ended("of the shop", "unclear").await?;
    let role = format!("bound_{}", queue.name());
    queue
        .sql(&format!(
            "CREATE ROLE {role} LOGIN IN ROLE sms_outbox_operator; SELECT sms_outbox.bind_role('{role}', 'other')"
        ))
        .await?;
    let bound = queue.connect_as(&role).await?;
    let told = format!("SELECT * FROM sms_outbox.resolve('{id}', 1, 'accepted', 'operator')");
    assert_eq!(refused(&bound, &told).await?.code().code(), "P0002");
    let receipt = format!("SELECT result FROM sms_outbox.record_receipt('{id}', 1, 'delivered')");
    assert_eq!(bound.query_one(&receipt, &[]).await?.get::<_, &str>(0), "unknown");
    assert_eq!(queue.status(&id).await?, "dispatch_timeout");
    assert_eq!(queue.count("sms_outbox.receipt").await?, 0);
    drop(bound);
    queue.sql(&format!("SELECT sms_outbox.unbind_role('{role}'); DROP ROLE {role}")).await
}

/// Whichever comes first, the other finds it: neither can pass by unseen.
async fn a_receipt_and_the_end_of_its_attempt_wait_for_each_other(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    for receipt_first in [true, false] {
        let id = queue.enqueue("raced").await?;
        let attempt = queue.lease(&id).await?;
        let (one, other) = (queue.connect().await?, queue.connect().await?);
        one.batch_execute("BEGIN").await?;
        let receipt = format!("SELECT result FROM sms_outbox.record_receipt('{id}', {attempt}, 'delivered')");
        let waiting: i32 = other.query_one("SELECT pg_backend_pid()", &[]).await?.get(0);
        let blocked = format!("SELECT cardinality(pg_blocking_pids({waiting})) > 0");
        let both = if receipt_first {
            one.batch_execute(&receipt).await?;
            let second = async { finish(&other, "w", &id, attempt, "unclear").await.map(|_| ()).context("finish") };
            let first = async {
                queue.wait_until("the end waits for the receipt", &blocked).await?;
                one.batch_execute("COMMIT").await.context("commit")
            };
            tokio::try_join!(first, second)
        } else {
            finish(&one, "w", &id, attempt, "unclear").await?;
            let second = async { other.batch_execute(&receipt).await.context("receipt") };
            let first = async {
                queue.wait_until("the receipt waits for the end", &blocked).await?;
                one.batch_execute("COMMIT").await.context("commit")
            };
            tokio::try_join!(first, second)
        };
        both?;
        assert_eq!(queue.status(&id).await?, "sent", "receipt first: {receipt_first}");
        assert_eq!(queue.field(&id, "delivery_status").await?.as_deref(), Some("delivered"));
        queue.sql("DELETE FROM sms_outbox.app_health").await?;
    }
    queue.assert_placed().await
}

async fn receipts_at_once_are_one_row(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let id = queue.ended("raced", "accepted").await?;
    let mut sessions = Vec::new();
    for _ in 0..8 {
        sessions.push(queue.connect().await?);
    }
    let words = ["queued", "delivered", "unknown", "undelivered"];
    let calls = sessions.iter().enumerate().map(|(n, session)| {
        let call = format!("SELECT result FROM sms_outbox.record_receipt('{id}', 1, '{}')", words[n % words.len()]);
        async move { session.query_one(&call, &[]).await.map(|row| row.get::<_, String>(0)) }
    });
    let results = futures_util::future::try_join_all(calls).await?;
    let recorded = results.iter().filter(|result| *result == "recorded").count();
    assert!((1..=3).contains(&recorded), "{results:?}");
    assert_eq!(queue.count("sms_outbox.receipt WHERE delivery_status IN ('delivered', 'undelivered')").await?, 1);
    assert_eq!(queue.count("sms_outbox.receipt").await?, 1);
    Ok(())
}

async fn tells_which_other_attempts_the_provider_may_mean(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let unclear = async || -> Result<Vec<Value>> {
        queue.sql("UPDATE sms_outbox.look_up SET asked = 0").await?;
        // The harness gives an id with whatever end.
        queue.sql("UPDATE sms_outbox.attempt SET provider_message_id = NULL WHERE status <> 'accepted'").await?;
        queue.rows("SELECT id::text, taken_ids, has_twin FROM sms_outbox.unclear('0', 100) ORDER BY id").await
    };
    let fact = |id: &str, taken: Value, twin: bool| json!({"id": id, "taken_ids": taken, "has_twin": twin});
    let alone = queue.ended("once", "unclear").await?;
    assert_eq!(unclear().await?, [fact(&alone, json!([]), false)]);
    resolve(&queue, &alone, "accepted", "operator").await?;

    // The same text to the same number: one that was accepted with its id, and then one that is in flight.
    let sent = queue.ended("twice", "accepted").await?;
    let known = format!("p-{sent}");
    let again = queue.ended("twice", "unclear").await?;
    assert_eq!(unclear().await?, [fact(&again, json!([known]), false)]);
    let third = queue.enqueue("twice").await?;
    claim(queue.admin(), "w", &[&third], queue.app()).await?;
    assert_eq!(unclear().await?, [fact(&again, json!([known]), true)]);
    finish(queue.admin(), "w", &third, 1, "refused_content").await?;
    assert_eq!(unclear().await?, [fact(&again, json!([known]), false)], "one that was refused is no twin");
    let twin = queue.ended("twice", "unclear").await?;
    assert_eq!(unclear().await?, [fact(&again, json!([known]), true), fact(&twin, json!([known]), true)]);
    // Of another organization, or by another app, it is not at the same provider's account.
    let other = queue.install("other", "main").await?;
    queue.sql(&format!("UPDATE sms_outbox.attempt SET app_id = {other} WHERE id = '{twin}'")).await?;
    queue.sql(&format!("DELETE FROM sms_outbox.look_up WHERE id = '{twin}'")).await?;
    assert_eq!(unclear().await?, [fact(&again, json!([known]), false)]);
    // An app that is gone has no credentials to ask with.
    queue.sql(&format!("SELECT sms_outbox.uninstall_app({})", queue.app())).await?;
    assert_eq!(unclear().await?, Vec::<Value>::new());
    Ok(())
}

/// A failover lost the claim of attempt 1, the message was let go and claimed anew, and the first worker lives on.
async fn the_report_of_a_lost_claim_meets_no_new_attempt(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (waits, held_lease) = (queue.enqueue("waits").await?, queue.enqueue("leased over the promotion").await?);
    queue.lease(&held_lease).await?;
    for table in ["ready", "lease"] {
        queue.sql(&format!("UPDATE sms_outbox.{table} SET server = server + 1")).await?;
    }
    assert_eq!(queue.value::<i64>("SELECT sms_outbox.release_held()", &[]).await?, 1);
    assert!(finish(queue.admin(), "w", &held_lease, 1, "throttled").await?.applied);
    queue.sql("SELECT sms_outbox.resume_app(app_id) FROM sms_outbox.apps_installed").await?;
    // Of the first the claim of attempt 1 is lost, of the second that of attempt 2.
    for (id, lost, again) in [(&waits, 1, 11), (&held_lease, 2, 12)] {
        assert_eq!(queue.lease(id).await?, again);
        let told = finish(queue.admin(), "survivor", id, lost, "accepted").await?;
        assert!(told.applied && told.dispatch_status.as_deref() == Some("sent"), "{told:?}");
        let health = "SELECT status || ': ' || detail FROM sms_outbox.health WHERE \"check\" = 'sent_twice'";
        let warned: String = queue.value(health, &[]).await?;
        assert!(warned.contains("while another is in flight") && warned.ends_with(id.as_str()), "{warned}");
        assert!(finish(queue.admin(), "w", id, again, "accepted").await?.applied);
        let warned: String = queue.value(health, &[]).await?;
        assert!(warned.contains("accepted two attempts") && warned.contains(id.as_str()), "{warned}");
        let attempts = queue
            .rows(&format!("SELECT attempt, worker, error_code FROM sms_outbox.attempts WHERE id = '{id}' AND status = 'accepted' ORDER BY 1"))
            .await?;
        let expected = [
            json!({"attempt": lost, "worker": "survivor", "error_code": "claim_lost"}),
            json!({"attempt": again, "worker": "w", "error_code": null}),
        ];
        assert_eq!(attempts, expected);
    }
    queue.assert_placed().await
}
