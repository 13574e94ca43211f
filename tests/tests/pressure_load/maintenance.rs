//! Maintenance of large tables: each call is bounded in rows, reads no more because more is kept, and holds no lock that an
//! application waits for.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::queue::enqueue;
use sms_outbox_tests::{Cluster, Database, Major, Queue, on_majors};

on_majors! { ends: expires_a_page_at_a_time, asks_a_day_at_the_same_cost_whatever_is_in_it, drops_a_day_that_ended_after_midnight_whole,
    is_bounded_in_rows_and_harmless_twice, folds_within_bounds_and_loses_no_count,
}

/// Rows of a table, its partitions included, that a query reads, with all that its functions read.
async fn rows_read(queue: &Queue, table: &str, query: &str) -> Result<i64> {
    let read = "SELECT coalesce(sum(coalesce(seq_tup_read, 0) + coalesce(idx_tup_fetch, 0)), 0)::bigint FROM pg_stat_xact_all_tables
        WHERE schemaname = 'sms_outbox' AND relname ~ ('^' || $1 || '(_p[0-9]+)?$')";
    // What earlier transactions read is counted among it until it is reported.
    queue.sql("SELECT pg_stat_force_next_flush()").await?;
    queue.sql("BEGIN").await?;
    queue.sql(&format!("SELECT * FROM {query}")).await?;
    let read = queue.value(read, &[&table]).await;
    queue.sql("COMMIT").await?;
    read
}

/// Makes the day so many days ago, and ids of it: `pg_temp.id(n)` is the one of its n-th millisecond.
async fn past_day(queue: &Queue, days: i32) -> Result<()> {
    queue
        .sql(&format!(
            "CREATE OR REPLACE FUNCTION pg_temp.day() RETURNS date LANGUAGE sql AS $$ SELECT (now() AT TIME ZONE 'UTC')::date - {days} $$;
             CREATE OR REPLACE FUNCTION pg_temp.id(n bigint) RETURNS sms_outbox.message_id LANGUAGE sql AS $$
                SELECT (left(sms_outbox.id_floor(pg_temp.day()::timestamp AT TIME ZONE 'UTC' + interval '1 ms' * n)::uuid::text, 13)
                        || right(gen_random_uuid()::text, 23))::uuid::sms_outbox.message_id $$;
             DO $$ DECLARE parent text; leaf text; BEGIN
                FOREACH parent IN ARRAY ARRAY['message', 'attempt'] LOOP
                    leaf := parent || '_p' || to_char(pg_temp.day(), 'YYYYMMDD');
                    EXECUTE format('CREATE TABLE IF NOT EXISTS sms_outbox.%I PARTITION OF sms_outbox.%I (PRIMARY KEY (%s)) FOR VALUES FROM (%L) TO (%L)', leaf, parent,
                        CASE parent WHEN 'message' THEN 'id' ELSE 'id, attempt' END,
                        sms_outbox.id_floor(pg_temp.day()::timestamp AT TIME ZONE 'UTC'), sms_outbox.id_floor((pg_temp.day() + 1)::timestamp AT TIME ZONE 'UTC'));
                    EXECUTE format('ALTER TABLE sms_outbox.%I OWNER TO sms_outbox_owner', leaf);
                END LOOP; END $$"
        ))
        .await
}

/// Fills the past day with sent messages, from the n-th to the m-th, that ended so long after its midnight.
async fn sent(queue: &Queue, from: i64, upto: i64, ended: &str) -> Result<()> {
    queue
        .sql(&format!(
            "CREATE TEMP TABLE new_id AS SELECT pg_temp.id(n) AS id, n FROM generate_series({from}, {upto}) AS n;
             INSERT INTO sms_outbox.message (id, created_at, priority, segments, encoding, organization_id, mobile, body, idempotency_key, meta)
             SELECT id, now(), 1, 1, 'GSM-7', 'shop', '+966501234567', 'm' || n, CASE WHEN n % 100 = 0 THEN 'k' || n END, '{{}}' FROM new_id;
             INSERT INTO sms_outbox.idempotency (organization_id, key, id) SELECT 'shop', 'k' || n, id FROM new_id WHERE n % 100 = 0;
             INSERT INTO sms_outbox.attempt (id, started_at, finished_at, app_id, attempt, status, organization_id, worker)
             SELECT id, e.at, e.at, {app}, 1, 'accepted', 'shop', 'w' FROM new_id, (SELECT pg_temp.day()::timestamp AT TIME ZONE 'UTC' + interval '{ended}' AS at) AS e;
             INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
             SELECT pg_temp.day(), date_trunc('minute', pg_temp.day()::timestamp AT TIME ZONE 'UTC' + interval '{ended}'), 'sent', {upto} - {from} + 1, 'shop';
             DROP TABLE new_id",
            app = queue.app()
        ))
        .await
}

/// A campaign that was scheduled long ahead, and drains: its ids are old, and none of it is late.
async fn expires_a_page_at_a_time(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    past_day(&queue, 9).await?;
    let campaign = async |from: i64, upto: i64| {
        queue
            .sql(&format!(
                "INSERT INTO sms_outbox.ready (id, since, server, priority, organization_id)
                 SELECT pg_temp.id(n), now(), sms_outbox.server_id(), 2, 'shop' FROM generate_series({from}, {upto}) AS n"
            ))
            .await
    };
    campaign(1, 60_000).await?;
    for call in 1..=2 {
        let read = rows_read(&queue, "ready", "sms_outbox.expire(2000)").await?;
        ensure!(read <= 2010, "call {call} read {read} of 60,000 rows");
    }

    // One among them waits for too long, at the end of all.
    queue
        .sql(
            "INSERT INTO sms_outbox.message (id, created_at, priority, segments, encoding, organization_id, mobile, body, meta)
             SELECT pg_temp.id(70000), now(), 2, 1, 'GSM-7', 'shop', '+966501234567', 'late', '{}';
             INSERT INTO sms_outbox.ready (id, since, server, priority, organization_id)
             SELECT id, now() - interval '8 days', sms_outbox.server_id(), 2, 'shop' FROM sms_outbox.message WHERE body = 'late'",
        )
        .await?;
    let mut calls = 0;
    while queue.count("sms_outbox.ended WHERE reason = 'retention_pending'").await? == 0 {
        let most: i64 = queue.value("SELECT sms_outbox.expire(2000)", &[]).await?;
        ensure!(most <= 1, "{most} expired in one call");
        calls += 1;
        ensure!(calls <= 62, "it was not found within two rounds");
    }
    assert_eq!(queue.count("sms_outbox.ready").await?, 60_000);
    // A backlog that is all too late goes page by page.
    queue.sql("UPDATE sms_outbox.ready SET since = now() - interval '8 days'").await?;
    let most: i64 = queue.value("SELECT sms_outbox.expire(2000)", &[]).await?;
    ensure!((1..=2000).contains(&most), "{most} expired in one call of 2,000");
    Ok(())
}

/// Asked each minute, once more under the lock of the drop, and again for each batch of keys that goes before it.
async fn asks_a_day_at_the_same_cost_whatever_is_in_it(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    past_day(&queue, 40).await?;
    let asked = "sms_outbox.partitions() AS p CROSS JOIN LATERAL sms_outbox.is_day_over(p.lower_id, p.upper_id, now() - interval '30 days') AS o (over)
        WHERE p.day = pg_temp.day()";
    sent(&queue, 1, 60_000, "12 hours").await?;
    ensure!(queue.value::<bool>(&format!("SELECT over FROM {asked}"), &[]).await?, "the day is not over");
    for table in ["message", "attempt"] {
        let read = rows_read(&queue, table, asked).await?;
        ensure!(read <= 10, "{read} rows of {table} were read to know it");
    }

    let session = queue.connect_as("app").await?;
    // Less than it would take to read the day under the lock; more than the drop may wait.
    session.batch_execute("SET lock_timeout = '250ms'").await?;
    let dropped = async || {
        let query = "(SELECT to_regclass('sms_outbox.message_p' || to_char(pg_temp.day(), 'YYYYMMDD')) AS leaf) AS t WHERE leaf IS NULL";
        anyhow::Ok(queue.count(query).await? == 1)
    };
    queue.sql("UPDATE sms_outbox.maintenance SET ran_at = '-infinity'").await?;
    let (mut calls, mut enqueued) = (0, 0);
    while !dropped().await? {
        let (call, one) = tokio::join!(
            queue.value::<bool>("SELECT bool_or(more) FROM sms_outbox.run_maintenance()", &[]),
            enqueue(&session, "shop", "meanwhile"),
        );
        call?;
        one.context("an enqueue waited for retention")?;
        (calls, enqueued) = (calls + 1, enqueued + 1);
        ensure!(calls < 50, "the day was not dropped in {calls} calls");
    }
    assert_eq!(queue.count("sms_outbox.idempotency").await?, 0, "its keys are forgotten");
    assert_eq!(queue.count("sms_outbox.ready").await?, enqueued);
    Ok(())
}

/// Some messages of every busy day end after its midnight. That must not make maintenance delete the day row by row.
async fn drops_a_day_that_ended_after_midnight_whole(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    past_day(&queue, 5).await?;
    sent(&queue, 1, 6000, "12 hours").await?;
    sent(&queue, 6001, 6001, "24 hours 10 minutes").await?;
    let retain_until = async |after_midnight: &str| {
        let minutes: i32 = queue
            .value(
                &format!(
                    "SELECT (extract(epoch FROM now() - (pg_temp.day() + 1)::timestamp AT TIME ZONE 'UTC' - interval '{after_midnight}') / 60)::integer"
                ),
                &[],
            )
            .await?;
        queue
            .sql(&format!(
                "SET sms_outbox.retention_sent = '{minutes}min'; SET sms_outbox.retention_failed = '{minutes}min'"
            ))
            .await?;
        queue.maintain_all().await
    };
    retain_until("5 minutes").await?;
    assert_eq!(queue.count("sms_outbox.attempt").await?, 6001, "nothing is deleted row by row");
    retain_until("20 minutes").await?;
    assert_eq!(queue.count("sms_outbox.attempt").await?, 0);
    assert_eq!(queue.count("sms_outbox.partitions() WHERE day = pg_temp.day()").await?, 0, "the day is dropped");
    Ok(())
}

/// Two sessions run everything at once, with more to do than one call may do.
async fn is_bounded_in_rows_and_harmless_twice(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    past_day(&queue, 1).await?;
    queue
        .sql(&format!(
            "CREATE TEMP TABLE new_id AS SELECT pg_temp.id(n) AS id, n FROM generate_series(1, 15000) AS n;
             INSERT INTO sms_outbox.message (id, created_at, priority, segments, encoding, organization_id, mobile, body, meta)
             SELECT id, now(), 1, 1, 'GSM-7', 'shop', '+966501234567', 'm' || n, '{{}}' FROM new_id;
             INSERT INTO sms_outbox.lease (id, app_id, started_at, expires_at, since, server, attempt, priority, tries, organization_id, worker)
             SELECT id, {app}, now(), now(), now(), sms_outbox.server_id(), 1, 1, 0, 'shop', 'w' FROM new_id WHERE n % 3 = 0;
             INSERT INTO sms_outbox.scheduled (id, due_at, since, server, priority, organization_id, reason)
             SELECT id, now(), now(), sms_outbox.server_id(), 1, 'shop', 'datetime' FROM new_id WHERE n % 3 = 1;
             INSERT INTO sms_outbox.ready (id, since, valid_until, server, priority, organization_id)
             SELECT id, now(), now(), sms_outbox.server_id(), 1, 'shop' FROM new_id WHERE n % 3 = 2;
             DROP TABLE new_id",
            app = queue.app()
        ))
        .await?;
    let run = async || {
        let session = queue.connect().await?;
        let mut moved = [0_i64; 3];
        loop {
            let rows = session.query("SELECT task, moved, more FROM sms_outbox.run_maintenance()", &[]).await?;
            for (sum, task) in moved.iter_mut().zip(["time_out", "expire", "stage_due"]) {
                let row = rows.iter().find(|row| row.get::<_, &str>(0) == task).context("no such task")?;
                let once: i64 = row.get(1);
                ensure!(once <= 2000, "{task} moved {once} rows in one call");
                *sum += once;
            }
            if !rows.iter().any(|row| row.get(2)) {
                return Ok(moved);
            }
        }
    };
    let (one, other) = tokio::join!(run(), run());
    let (one, other) = (one?, other?);
    let both: Vec<i64> = one.iter().zip(other).map(|(one, other)| one + other).collect();
    assert_eq!(both, [5000, 5000, 5000], "each message is moved once");
    assert_eq!(queue.count("sms_outbox.attempt").await?, 5000);
    queue.assert_placed().await
}

async fn folds_within_bounds_and_loses_no_count(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue
        .sql(
            "INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
             SELECT current_date, date_trunc('minute', now()) - interval '1 min' * (n % 91), 'sent', n % 7 + 1, 'shop' || n % 5 FROM generate_series(1, 50000) AS n;
             INSERT INTO sms_outbox.app_tally (app_id, minute, status, latency_bucket, attempts)
             SELECT n % 5, date_trunc('minute', now()) - interval '1 min' * (n % 91), 'accepted', n % 9, 1 FROM generate_series(1, 30000) AS n",
        )
        .await?;
    let sums = "SELECT jsonb_build_array((SELECT jsonb_object_agg(o, s) FROM (SELECT organization_id AS o, sum(messages) AS s FROM sms_outbox.tally GROUP BY 1) AS t),
                       (SELECT max(minute) FROM sms_outbox.tally), (SELECT sum(attempts) FROM sms_outbox.app_tally))";
    let before: Value = queue.value(sums, &[]).await?;
    let mut calls = 0;
    loop {
        let folded: i64 = queue.value("SELECT sms_outbox.fold_tallies(20000)", &[]).await?;
        ensure!(folded <= 20_000, "{folded} rows in one call");
        calls += 1;
        if folded == 0 {
            break;
        }
        ensure!(calls < 10, "it never ends");
    }
    assert_eq!(queue.value::<Value>(sums, &[]).await?, before);
    // Sixty or sixty-one minutes, and what was before them, of five organizations.
    let (left, apps) = (queue.count("sms_outbox.tally").await?, queue.count("sms_outbox.app_tally").await?);
    ensure!((300..=310).contains(&left) && apps <= 5 * 9 * 62, "{left} and {apps} rows are left");
    queue
        .sql(
            "INSERT INTO sms_outbox.tally SELECT day, minute, status, -messages, organization_id FROM sms_outbox.tally",
        )
        .await?;
    queue.value::<i64>("SELECT sms_outbox.fold_tallies(20000)", &[]).await?;
    assert_eq!(queue.count("sms_outbox.tally").await?, 0, "what adds up to nothing goes");
    Ok(())
}

/// Ten million rows of one day, sent, and a million that were scheduled long ahead: what each call takes, and how long an
/// application waits while they are made.
#[ignore = "ten million rows, half an hour and 10 GB: make pressure"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_million_rows() -> Result<()> {
    let cluster =
        Cluster::options(Major::V18).without_preload().set("shared_buffers", "256MB").set("max_wal_size", "4GB");
    let queue = Queue::on(Database::create(&cluster.start().await?, "shop").await?).await?;
    past_day(&queue, 40).await?;
    for part in 0..20_i64 {
        sent(&queue, part * 500_000 + 1, (part + 1) * 500_000, "12 hours").await?;
    }
    queue.sql("ANALYZE").await?;
    queue
        .sql(
            "INSERT INTO sms_outbox.ready (id, since, server, priority, organization_id)
             SELECT (left(sms_outbox.id_floor(now() - interval '9 days' + interval '1 ms' * n)::uuid::text, 13) || right(gen_random_uuid()::text, 23))::uuid::sms_outbox.message_id,
                    now(), sms_outbox.server_id(), 2, 'shop' FROM generate_series(1, 1000000) AS n",
        )
        .await?;
    let (session, runner) = (queue.connect_as("app").await?, queue.connect().await?);
    session.batch_execute("SET lock_timeout = '250ms'").await?;
    let enqueues = async |times: u32| {
        let mut longest = Duration::ZERO;
        for _ in 0..times {
            let began = Instant::now();
            enqueue(&session, "shop", "meanwhile").await.context("an enqueue waited for maintenance")?;
            longest = longest.max(began.elapsed());
        }
        anyhow::Ok(longest)
    };
    let alone = enqueues(500).await?;
    runner.batch_execute("UPDATE sms_outbox.maintenance SET ran_at = '-infinity'").await?;
    let (mut calls, mut longest_call, mut longest) = (0, Duration::ZERO, Duration::ZERO);
    let leaf = "SELECT to_regclass('sms_outbox.message_p' || to_char((now() AT TIME ZONE 'UTC')::date - 40, 'YYYYMMDD')) IS NULL";
    while !queue.value::<bool>(leaf, &[]).await? {
        let began = Instant::now();
        let (call, waited) =
            tokio::join!(runner.query("SELECT task, moved FROM sms_outbox.run_maintenance()", &[]), enqueues(5));
        for row in call? {
            let (task, moved): (&str, i64) = (row.get(0), row.get(1));
            ensure!(moved <= 20_000, "{task} moved {moved} rows in one call");
        }
        (calls, longest_call, longest) = (calls + 1, longest_call.max(began.elapsed()), longest.max(waited?));
        // Of a day's messages, the keys are forgotten 20,000 messages at a time before it is dropped.
        ensure!(calls <= 10_000_000 / 20_000 + 50, "the day was not dropped in {calls} calls");
    }
    #[expect(clippy::print_stdout, reason = "what was measured is read with --nocapture")]
    {
        println!(
            "{calls} calls of run_maintenance, the longest {longest_call:?}; the longest enqueue {longest:?}, {alone:?} alone"
        );
    }
    Ok(())
}
