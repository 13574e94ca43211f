//! `sms_outbox.metrics()`: true numbers, counters that never fall, labels with a bound, and who may read it.

use anyhow::{Result, ensure};
use serde_json::Value;
use sms_outbox_tests::queue::refused;
use sms_outbox_tests::{Major, Queue, on_majors};
use sms_outbox_worker::metrics::catalog::{DATABASE, Kind};

on_majors! { ends:
    tells_what_there_is, counters_never_fall, labels_are_bounded, tells_conditions, is_read_by_those_who_see_all,
}

/// Name, labels and value of each.
async fn numbers(queue: &Queue) -> Result<Vec<(String, Value, f64)>> {
    let rows = queue.admin().query("SELECT m.name, m.labels, m.value FROM sms_outbox.metrics() AS m", &[]).await?;
    Ok(rows.iter().map(|row| (row.get(0), row.get(1), row.get(2))).collect())
}

/// The sum of those of this name, less its prefix, that have these labels.
async fn sum(queue: &Queue, name: &str, with: &[(&str, &str)]) -> Result<f64> {
    let of_it = |(is, labels, _): &&(String, Value, f64)| {
        is.strip_prefix("sms_outbox_") == Some(name) && with.iter().all(|(label, value)| labels[label] == *value)
    };
    let numbers = numbers(queue).await?;
    ensure!(numbers.iter().any(|number| of_it(&number)), "there is no {name} with {with:?}");
    Ok(numbers.iter().filter(of_it).map(|(.., value)| value).sum())
}

async fn tells_what_there_is(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    for outcome in ["accepted", "refused_recipient", "unclear", "accepted"] {
        queue.ended(outcome, outcome).await?;
    }
    let sending = queue.enqueue("being sent").await?;
    queue.lease(&sending).await?;
    let old = queue.enqueue("waits for long").await?;
    queue.sql(&format!("UPDATE sms_outbox.ready SET since = now() - interval '1 hour' WHERE id = '{old}'")).await?;
    let urgent = "SELECT sms_outbox_enqueue('+966501234567', 'x', organization_id => 'shop', priority => 0)";
    queue.sql(urgent).await?;
    queue.sql(&format!("{}, datetime => now() + interval '1 day')", urgent.trim_end_matches(')'))).await?;
    let held = queue.enqueue("of another server").await?;
    queue.sql(&format!("UPDATE sms_outbox.ready SET server = server + 1 WHERE id = '{held}'")).await?;
    for (status, priority, messages) in [
        ("pending", "normal", 1.0),
        ("pending", "urgent", 1.0),
        ("pending", "bulk", 0.0),
        ("scheduled", "urgent", 1.0),
        ("sending", "normal", 1.0),
        ("held", "normal", 1.0),
    ] {
        let with = [("status", status), ("priority", priority)];
        let counted = sum(&queue, "queue_messages", &with).await?;
        ensure!(counted == messages, "{with:?}: {counted}");
    }
    let oldest = sum(&queue, "queue_oldest_seconds", &[("status", "pending"), ("priority", "normal")]).await?;
    ensure!((3600.0..7200.0).contains(&oldest), "{oldest}");
    for (status, messages) in
        [("sent", 2.0), ("failed", 1.0), ("dispatch_timeout", 1.0), ("canceled", 0.0), ("expired", 0.0)]
    {
        for name in ["ended_messages", "ended_last_hour_messages"] {
            ensure!(sum(&queue, name, &[("status", status)]).await? == messages, "{name} {status}");
        }
    }
    let app = queue.app().to_string();
    for (outcome, attempts) in [("accepted", 2.0), ("unclear", 1.0), ("throttled", 0.0)] {
        let with = [("outcome", outcome), ("organization_app_id", &app), ("provider", "sandbox")];
        ensure!(sum(&queue, "app_attempts_total", &with).await? == attempts, "{outcome}");
    }
    ensure!(sum(&queue, "app_in_flight", &[]).await? == 1.0);
    // What it tells is what the list says, and all of it.
    let numbers = numbers(&queue).await?;
    for (name, labels, value) in &numbers {
        let metric = DATABASE.iter().find(|metric| metric.name == name);
        let mut listed = metric.map(|metric| metric.labels.to_vec()).unwrap_or_default();
        listed.sort_unstable();
        let mut told: Vec<&str> = labels.as_object().into_iter().flatten().map(|(name, _)| name.as_str()).collect();
        told.sort_unstable();
        ensure!(metric.is_some() && listed == told && *value >= 0.0, "{name} {labels} {value}");
    }
    queue.maintain().await?;
    let numbers = self::numbers(&queue).await?;
    for metric in DATABASE {
        ensure!(numbers.iter().any(|(name, ..)| name == metric.name), "{} is not told", metric.name);
    }
    Ok(())
}

/// Folding, retention, corrections, and apps that go.
async fn counters_never_fall(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let gone = queue.install("shop", "gone").await?;
    let unclear = queue.ended("unclear", "unclear").await?;
    for outcome in ["accepted", "refused_recipient", "not_sent"] {
        queue.attempt(&queue.enqueue(outcome).await?, outcome).await?;
    }
    let mut before: Vec<(String, Value, f64)> = Vec::new();
    for change in [
        "SELECT",
        "SELECT sms_outbox.fold_tallies(10000)",
        &format!("SELECT sms_outbox.retry('{unclear}')"),
        "UPDATE sms_outbox.app_tally SET minute = minute - interval '2 hours'; SELECT sms_outbox.fold_tallies(10000)",
        &format!("SELECT sms_outbox.uninstall_app({gone})"),
        "DELETE FROM sms_outbox.tally",
        &format!("SELECT sms_outbox.uninstall_app({})", queue.app()),
    ] {
        queue.sql(change).await?;
        let now = numbers(&queue).await?;
        for (name, labels, value) in &before {
            let counter = DATABASE.iter().any(|metric| metric.name == name && metric.kind == Kind::Counter);
            let is = now.iter().find(|(other, with, _)| other == name && with == labels).map(|(.., value)| *value);
            ensure!(
                !counter || *value == 0.0 || is >= Some(*value),
                "after {change} {name} {labels} fell from {value} to {is:?}"
            );
        }
        before = now;
    }
    ensure!(sum(&queue, "app_attempts_total", &[]).await? == 4.0);
    Ok(())
}

async fn labels_are_bounded(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue
        .sql("SELECT sms_outbox.install_app('shop', 'sandbox', 'a' || n, '{\"token\": \"t\"}') FROM generate_series(1, 130) AS n")
        .await?;
    let last: i64 = queue.value("SELECT max(app_id) FROM sms_outbox.organization_app", &[]).await?;
    queue.sql(&format!("INSERT INTO sms_outbox.app_tally VALUES ({last}, now(), 'accepted', 3, 5)")).await?;
    let apps: i64 =
        queue.value("SELECT count(DISTINCT labels ->> 'organization_app_id') FROM sms_outbox.metrics()", &[]).await?;
    ensure!(apps == 101, "{apps} values");
    let others = [("organization_app_id", "other"), ("provider", "sandbox"), ("outcome", "accepted")];
    ensure!(sum(&queue, "app_attempts_total", &others).await? == 5.0);
    queue.sql(&format!("SELECT sms_outbox.pause_app({last}), sms_outbox.pause_app({last} - 1)")).await?;
    ensure!(sum(&queue, "app_paused", &others[..1]).await? == 2.0);
    let shown: i64 = queue
        .value("SELECT count(*) FROM sms_outbox.metrics() WHERE labels::text LIKE '%shop%' OR name LIKE '%shop%'", &[])
        .await?;
    ensure!(shown == 0, "an organization is shown");
    Ok(())
}

async fn tells_conditions(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    ensure!(sum(&queue, "workers_alive", &[]).await? == 0.0);
    queue.sql("SELECT sms_outbox.heartbeat('w', '1', 'h', 0, 0, 0, 0)").await?;
    ensure!(sum(&queue, "workers_alive", &[]).await? == 1.0);
    // Never run, then run.
    queue.sql("DELETE FROM sms_outbox.maintenance; UPDATE sms_outbox.organization SET created_at = now() - interval '1 hour'").await?;
    ensure!(sum(&queue, "maintenance_age_seconds", &[]).await? > 3000.0);
    queue.maintain().await?;
    ensure!(sum(&queue, "maintenance_age_seconds", &[]).await? < 3000.0);
    ensure!(sum(&queue, "partitions_ahead", &[]).await? == 7.0);
    queue.sql("UPDATE sms_outbox.maintenance SET ran_at = '-infinity' WHERE task = 'prune'").await?;
    ensure!(sum(&queue, "maintenance_last_run_timestamp_seconds", &[]).await? > 1e9);
    let id = queue.enqueue("stuck").await?;
    queue.lease(&id).await?;
    queue.sql("UPDATE sms_outbox.lease SET expires_at = now() - interval '1 minute'").await?;
    ensure!(sum(&queue, "leases_overdue", &[]).await? == 1.0);
    queue
        .sql(&format!("INSERT INTO sms_outbox.app_health (app_id, blocked_reason) VALUES ({}, 'account')", queue.app()))
        .await?;
    ensure!(sum(&queue, "app_breakers_open", &[("reason", "account_refused")]).await? == 1.0);
    ensure!(sum(&queue, "app_breakers_open", &[("reason", "breaker_open")]).await? == 0.0);
    let other = queue.connect().await?;
    other.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT FROM sms_outbox.ready").await?;
    tokio::time::sleep(std::time::Duration::from_millis(300)).await;
    ensure!(sum(&queue, "horizon_age_seconds", &[("holder", "session")]).await? >= 0.3);
    ensure!(sum(&queue, "horizon_age_seconds", &[("holder", "prepared")]).await? == 0.0);
    Ok(())
}

async fn is_read_by_those_who_see_all(major: Major) -> Result<()> {
    const ASK: &str = "SELECT count(*) FROM sms_outbox.metrics()";
    let queue = Queue::new(major).await?;
    for login in ["api", "operator", "monitor"] {
        queue.connect_as(login).await?.query_one(ASK, &[]).await?;
    }
    for login in ["app", "worker"] {
        let error = refused(&queue.connect_as(login).await?, ASK).await?;
        ensure!(error.code().code() == "42501", "{login}: {error}");
    }
    // A login of one organization must not see the numbers of all.
    queue.sql("CREATE ROLE metrics_of_one LOGIN IN ROLE sms_outbox_monitor; SELECT sms_outbox.bind_role('metrics_of_one', 'shop')").await?;
    let error = refused(queue.admin(), &format!("SET SESSION AUTHORIZATION metrics_of_one; {ASK}")).await;
    queue
        .sql("RESET SESSION AUTHORIZATION; SELECT sms_outbox.unbind_role('metrics_of_one'); DROP ROLE metrics_of_one")
        .await?;
    ensure!(error?.constraint() == Some("organization_mismatch"));
    Ok(())
}
