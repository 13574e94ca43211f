//! What operators read: counts that are true, reasons for every waiting message, and health with its cures.

use anyhow::{Context, Result};
use serde_json::json;
use sms_outbox_tests::queue::{claim, finish};
use sms_outbox_tests::{Cluster, Database, Major, Queue, on_majors};

on_majors! { ends:
    counts_what_a_full_count_counts, shows_breaker_and_throttle, says_why_each_message_waits, names_each_condition_and_its_cure,
}

/// `queue_stats` against a count of every message by its derived status.
const DIFFERENCES: &str = "
    SELECT s.organization_id, k.status, k.counted, coalesce(o.messages, 0) AS true_count
      FROM sms_outbox.queue_stats AS s
     CROSS JOIN LATERAL (VALUES ('pending', s.pending), ('sending', s.sending), ('sent', s.sent), ('failed', s.failed),
                                ('dispatch_timeout', s.dispatch_timeout), ('canceled', s.canceled), ('expired', s.expired)) AS k (status, counted)
      LEFT JOIN (SELECT organization_id, dispatch_status::text AS status, count(*) AS messages FROM sms_outbox.outbox GROUP BY 1, 2) AS o
             ON o.organization_id = s.organization_id AND o.status = k.status
     WHERE k.counted <> coalesce(o.messages, 0)";

async fn counts_what_a_full_count_counts(major: Major) -> Result<()> {
    const OUTCOMES: [&str; 7] =
        ["accepted", "refused_recipient", "refused_content", "not_sent", "unclear", "throttled", "refused_account"];
    let queue = Queue::new(major).await?;
    let other = queue.install("other", "main").await?;
    // A pseudo-random walk, the same in each run.
    let mut seed = 42_u64;
    let mut random = move |below: usize| {
        seed = seed.wrapping_mul(6_364_136_223_846_793_005).wrapping_add(1_442_695_040_888_963_407);
        (seed >> 33) as usize % below
    };
    let mut ids: Vec<(String, i64, Vec<i16>)> = Vec::new();
    for step in 0..400 {
        let late = ids.len() > 5 && random(4) > 0;
        if !late {
            let (organization, app) = if random(3) == 0 { ("other", other) } else { ("shop", queue.app()) };
            ids.push((sms_outbox_tests::queue::enqueue(queue.admin(), organization, "x").await?, app, Vec::new()));
            continue;
        }
        let place = random(ids.len());
        let (id, app, attempts) = &mut ids[place];
        match random(8) {
            0 => drop(queue.sql(&format!("SELECT sms_outbox.cancel('{id}')")).await),
            1 => drop(queue.sql(&format!("SELECT sms_outbox.retry('{id}')")).await),
            2 => queue.sql(&format!("UPDATE sms_outbox.lease SET expires_at = now() WHERE id = '{id}'")).await?,
            3 => queue.sql(&format!("UPDATE sms_outbox.ready SET valid_until = now() WHERE id = '{id}'; UPDATE sms_outbox.scheduled SET due_at = now() WHERE id = '{id}'")).await?,
            4 | 5 => {
                if let Some(attempt) = claim(queue.admin(), "w", &[id], *app).await?.remove(0).attempt {
                    attempts.push(attempt);
                }
            }
            _ => {
                if !attempts.is_empty() {
                    let attempt = attempts[random(attempts.len())];
                    finish(queue.admin(), "w", id, attempt, OUTCOMES[random(OUTCOMES.len())]).await?;
                }
            }
        }
        queue.sql("UPDATE sms_outbox.app_health SET failures = 0, blocked_until = NULL, blocked_reason = NULL").await?;
        if step % 10 == 0 {
            queue.maintain_all().await?;
        }
        if step % 40 == 0 {
            assert_eq!(queue.rows(DIFFERENCES).await?, Vec::<serde_json::Value>::new(), "after step {step}");
        }
    }
    queue.maintain_all().await?;
    assert_eq!(queue.rows(DIFFERENCES).await?, Vec::<serde_json::Value>::new());
    let statuses: i64 = queue.value("SELECT count(DISTINCT dispatch_status) FROM sms_outbox.outbox", &[]).await?;
    assert!(statuses >= 6, "the walk came to most states: {statuses}");
    let apps = "SELECT s.organization_app_id FROM sms_outbox.app_stats AS s JOIN (
                    SELECT organization_app_id, count(*) FILTER (WHERE status = 'accepted') AS sent, count(*) FILTER (WHERE status = 'unclear') AS unclear,
                           count(*) FILTER (WHERE status IS NULL) AS in_flight FROM sms_outbox.attempts GROUP BY 1) AS a USING (organization_app_id)
                 WHERE s.in_flight <> a.in_flight";
    assert_eq!(queue.rows(apps).await?, Vec::<serde_json::Value>::new());
    Ok(())
}

async fn shows_breaker_and_throttle(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let app = async |columns: &str| queue.rows(&format!("SELECT {columns} FROM sms_outbox.app_stats")).await;
    for n in 0..5 {
        assert_eq!(
            app("breaker, blocked_by").await?,
            [json!({ "breaker": "closed", "blocked_by": null })],
            "after {n} failures"
        );
        queue.ended(&format!("fails {n}"), "unclear").await?;
    }
    assert_eq!(
        app("breaker, blocked_by, last_error_code, unclear").await?,
        [json!({ "breaker": "open", "blocked_by": "breaker_open", "last_error_code": "test", "unclear": 5 })]
    );
    let (first, second) = (queue.enqueue("first").await?, queue.enqueue("second").await?);
    let result = async |id: &str| -> Result<String> {
        Ok(claim(queue.admin(), "w", &[id], queue.app()).await?.remove(0).result)
    };
    assert_eq!(result(&first).await?, "app_unavailable");
    queue.sql("UPDATE sms_outbox.app_health SET blocked_until = clock_timestamp()").await?;
    assert_eq!(app("breaker").await?, [json!({ "breaker": "half_open" })]);
    assert_eq!(result(&first).await?, "leased", "one probe");
    assert_eq!(result(&second).await?, "app_unavailable", "and no other meanwhile");
    finish(queue.admin(), "w", &first, 1, "accepted").await?;
    assert_eq!(
        app("breaker, blocked_by, sent").await?,
        [json!({ "breaker": "closed", "blocked_by": null, "sent": 1 })]
    );
    queue.attempt(&second, "throttled").await?;
    assert_eq!(app("breaker, blocked_by").await?, [json!({ "breaker": "closed", "blocked_by": "throttled" })]);
    queue.sql("UPDATE sms_outbox.app_health SET blocked_until = clock_timestamp()").await?;
    assert_eq!(queue.attempt(&second, "refused_account").await?, "pending");
    assert_eq!(app("breaker, blocked_by").await?, [json!({ "breaker": "open", "blocked_by": "account_refused" })]);
    assert_eq!(queue.field(&second, "attempt_count").await?.as_deref(), Some("0"), "neither was counted");
    queue.sql(&format!("SELECT sms_outbox.update_app({}, config => '{{\"token\": \"new\"}}')", queue.app())).await?;
    assert_eq!(
        app("breaker, blocked_by").await?,
        [json!({ "breaker": "closed", "blocked_by": null })],
        "new credentials, new try"
    );
    assert!(app("p50_ms").await?[0]["p50_ms"].as_f64().context("a latency")? >= 1.0);
    Ok(())
}

async fn says_why_each_message_waits(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let id = queue.enqueue("x").await?;
    let app = queue.app();
    for (change, reason) in [
        ("SELECT", "worker"),
        ("SELECT sms_outbox.pause_app({app})", "app_paused"),
        ("SELECT sms_outbox.pause_organization('shop')", "organization_paused"),
        ("SELECT sms_outbox.resume_organization('shop'); SELECT sms_outbox.resume_app({app})", "worker"),
        (
            "INSERT INTO sms_outbox.app_health (app_id, blocked_until, blocked_reason) VALUES ({app}, now() + interval '1 h', 'failing')",
            "breaker_open",
        ),
        ("UPDATE sms_outbox.app_health SET blocked_until = now()", "worker"),
        (
            "UPDATE sms_outbox.app_health SET blocked_until = now() + interval '1 h', blocked_reason = 'throttled'",
            "throttled",
        ),
        ("UPDATE sms_outbox.app_health SET blocked_reason = 'account'", "account_refused"),
        ("UPDATE sms_outbox.ready SET server = server + 1", "release_held"),
        ("SELECT sms_outbox.release_held(); SELECT sms_outbox.uninstall_app({app})", "no_app"),
    ] {
        queue.sql(&change.replace("{app}", &app.to_string())).await?;
        assert_eq!(queue.field(&id, "waits_for").await?.as_deref(), Some(reason), "{change}");
        let waiting = queue.rows("SELECT organization_id, waits_for, messages FROM sms_outbox.waiting").await?;
        assert_eq!(waiting, [json!({ "organization_id": "shop", "waits_for": reason, "messages": 1 })], "{change}");
    }
    queue.install("shop", "again").await?;
    queue.sql(&format!("SELECT sms_outbox.cancel('{id}')")).await?;
    queue.sql("SELECT sms_outbox_enqueue('0501234567', 'x', datetime => now() + interval '1 h', organization_id => 'shop')").await?;
    let again = queue.value::<i64>("SELECT max(app_id) FROM sms_outbox.apps_installed", &[]).await?;
    let failing = queue.enqueue("fails").await?;
    claim(queue.admin(), "w", &[&failing], again).await?;
    finish(queue.admin(), "w", &failing, 1, "not_sent").await?;
    let waiting = queue.rows("SELECT waits_for, messages FROM sms_outbox.waiting ORDER BY 1").await?;
    assert_eq!(
        waiting,
        [json!({ "waits_for": "backoff", "messages": 1 }), json!({ "waits_for": "datetime", "messages": 1 })]
    );
    Ok(())
}

async fn names_each_condition_and_its_cure(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.sql("SELECT sms_outbox.heartbeat('w', '1', 'h', 0, 0, 0, 0)").await?;
    let check = async |name: &str| -> Result<String> {
        queue
            .value(&format!("SELECT status || ': ' || detail FROM sms_outbox.health WHERE \"check\" = '{name}'"), &[])
            .await
    };
    let names = queue.rows("SELECT \"check\" FROM sms_outbox.health").await?;
    let expected = [
        "worker_alive",
        "old_pending",
        "stuck_sending",
        "background_worker",
        "partitions_ahead",
        "retention",
        "held",
        "unclear",
        "sent_twice",
        "apps",
        "credentials",
        "horizon",
        "notifications",
    ];
    assert_eq!(names, expected.map(|name| json!({ "check": name })));
    // Each: what is fine, what breaks it, what is said then.
    let old = "INSERT INTO sms_outbox.ready (id, since, server, priority, organization_id)
               VALUES ('r00000000000000000000000000', now() - interval '{age}', sms_outbox.server_id(), 1, 'shop')";
    for (name, fine, breakage, broken) in [
        (
            "worker_alive",
            "ok: 1 alive",
            "UPDATE sms_outbox.worker SET heartbeat_at = now() - interval '21 s'",
            "warn: no worker has reported in the last 10 s; start one",
        ),
        (
            "old_pending",
            "ok: nothing waits",
            &old.replace("{age}", "6 min"),
            "warn: the oldest due message waits for 00:06:0",
        ),
        (
            "worker_alive",
            "critical: no worker",
            "SELECT",
            "critical: no worker has reported in the last 10 s; start one",
        ),
        (
            "old_pending",
            "warn: ",
            "UPDATE sms_outbox.ready SET since = now() - interval '2 h'",
            "critical: the oldest due message waits for 02:00:0",
        ),
        (
            "stuck_sending",
            "ok: none",
            "INSERT INTO sms_outbox.lease SELECT id, 1, now(), now() - interval '31 s', since, NULL, server, 1, 1, 0, 'shop', 'w' FROM sms_outbox.ready",
            "critical: 1 lease over for more than 30 s; maintenance does not run",
        ),
        (
            "held",
            "ok: none",
            "UPDATE sms_outbox.ready SET server = server + 1",
            "warn: 1 message was queued by another server",
        ),
        (
            "apps",
            "ok: no breaker is open",
            "INSERT INTO sms_outbox.app_health (app_id, blocked_until, blocked_reason) SELECT app_id, now() + interval '1 h', 'account' FROM sms_outbox.apps_installed",
            "warn: apps with an open breaker: ",
        ),
        ("partitions_ahead", "ok: made up to ", "{drop 2}", "warn: made up to "),
        ("partitions_ahead", "warn: ", "{drop 0}", "critical: made up to "),
        ("retention", "ok: up to date", "{make 40}", "warn: the partition of "),
        (
            "background_worker",
            "warn: sms_outbox is not in shared_preload_libraries: no wake-ups on commit",
            "SELECT",
            "warn: ",
        ),
    ] {
        let before = check(name).await?;
        assert!(before.starts_with(fine), "{name}: {before}");
        queue.sql(&breakage_of(breakage)).await?;
        let after = check(name).await?;
        assert!(after.starts_with(broken), "{name}: {after}");
    }
    let retention = check("retention").await?;
    queue.sql(&format!("ALTER DATABASE \"{}\" SET sms_outbox.retention_sent = '1000h'", queue.name())).await?;
    let fresh = queue.connect().await?;
    let longer: String =
        fresh.query_one("SELECT status FROM sms_outbox.health WHERE \"check\" = 'retention'", &[]).await?.try_get(0)?;
    assert_eq!(longer, "ok", "hours count as well as days; before: {retention}");

    assert_eq!(check("horizon").await?, "ok: no long transaction");

    let cluster = Cluster::start_new(major).await?;
    let preloaded = Database::create(&cluster, "shop").await?;
    let alive = "SELECT status = 'ok' FROM sms_outbox.health WHERE \"check\" = 'background_worker'";
    preloaded.wait_until("the background worker is alive", alive).await
}

/// `{drop n}`: partitions beyond today + n go; `{make n}`: one of n days ago comes.
fn breakage_of(breakage: &str) -> String {
    let Some((verb, days)) = breakage.strip_prefix('{').and_then(|rest| rest.trim_end_matches('}').split_once(' '))
    else {
        return breakage.to_owned();
    };
    if verb == "drop" {
        format!(
            "DO $$ DECLARE leaf regclass; BEGIN
                FOR leaf IN SELECT message FROM sms_outbox.partitions() WHERE day > (now() AT TIME ZONE 'UTC')::date + {days} LOOP
                    EXECUTE 'DROP TABLE ' || leaf;
                END LOOP; END $$"
        )
    } else {
        format!(
            "DO $$ DECLARE day date := (now() AT TIME ZONE 'UTC')::date - {days}; BEGIN
                EXECUTE format('CREATE TABLE sms_outbox.%I PARTITION OF sms_outbox.message FOR VALUES FROM (%L) TO (%L)', 'message_p' || to_char(day, 'YYYYMMDD'),
                    sms_outbox.id_floor(day::timestamp AT TIME ZONE 'UTC'), sms_outbox.id_floor((day + 1)::timestamp AT TIME ZONE 'UTC'));
             END $$"
        )
    }
}
