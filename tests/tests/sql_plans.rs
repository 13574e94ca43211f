//! Everything that happens once a message finds its rows by index, whatever the statistics say.

use std::collections::BTreeMap;

use anyhow::Result;
use sms_outbox_tests::queue::{claim, finish};
use sms_outbox_tests::{Cluster, Database, Major, Queue, on_majors};
use tokio_postgres::Client;

on_majors! { ends: reads_no_table_with_missing_statistics, reads_no_table_with_stale_statistics, reads_no_table_with_true_statistics }

/// Messages that wait or are being sent; as many more are sent, and as many failed.
const ROWS: i64 = 100_000;

async fn reads_no_table_with_missing_statistics(major: Major) -> Result<()> {
    let queue = empty(major).await?;
    fill(&queue).await?;
    finds_by_index(&queue).await
}

async fn reads_no_table_with_stale_statistics(major: Major) -> Result<()> {
    let queue = empty(major).await?;
    // As autovacuum does after the queue was drained: empty, says the catalog.
    queue.ended("the only one", "accepted").await?;
    queue.sql("ANALYZE").await?;
    fill(&queue).await?;
    finds_by_index(&queue).await
}

async fn reads_no_table_with_true_statistics(major: Major) -> Result<()> {
    let queue = empty(major).await?;
    fill(&queue).await?;
    queue.sql("ANALYZE").await?;
    finds_by_index(&queue).await
}

/// A server on which nothing mends the statistics.
async fn empty(major: Major) -> Result<Queue> {
    let cluster = Cluster::options(major)
        .without_preload()
        .set("autovacuum", "off")
        .set("shared_buffers", "64MB")
        .start()
        .await?;
    Queue::on(Database::create(&cluster, "shop").await?).await
}

async fn fill(queue: &Queue) -> Result<()> {
    queue
        .sql(&format!(
            "CREATE TABLE public.new_id AS
                SELECT n, (left(sms_outbox.id_floor(date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + interval '1 ms' * n)::uuid::text, 13)
                           || right(gen_random_uuid()::text, 23))::uuid::sms_outbox.message_id AS id
                  FROM generate_series(1, 3 * {ROWS}) AS n;
             INSERT INTO sms_outbox.message (id, created_at, priority, segments, encoding, organization_id, mobile, body, meta)
             SELECT id, now(), 1, 1, 'GSM-7', 'shop', '+966501234567', 'm' || n, '{{}}' FROM public.new_id;
             INSERT INTO sms_outbox.ready (id, since, server, priority, organization_id)
             SELECT id, now(), sms_outbox.server_id(), 1, 'shop' FROM public.new_id WHERE n % 3 = 0 AND n > 15000;
             INSERT INTO sms_outbox.lease (id, app_id, started_at, expires_at, since, server, attempt, priority, tries, organization_id, worker)
             SELECT id, {app}, now(), now() + interval '1 h', now(), sms_outbox.server_id(), 1, 1, 0, 'shop', 'other' FROM public.new_id WHERE n % 3 = 0 AND n <= 15000;
             INSERT INTO sms_outbox.idempotency (organization_id, key, id) SELECT 'shop', 'key ' || n, id FROM public.new_id;
             INSERT INTO sms_outbox.attempt (id, started_at, finished_at, app_id, attempt, status, organization_id, worker)
             SELECT id, now(), now(), {app}, 1, CASE n % 3 WHEN 1 THEN 'accepted' ELSE 'refused_recipient' END::sms_outbox.attempt_status, 'shop', 'w' FROM public.new_id WHERE n % 3 > 0;
             INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
             SELECT id, now(), 'failed', 1, 'shop', 'recipient_refused' FROM public.new_id WHERE n % 3 = 2;
             CREATE TABLE public.orders AS SELECT n AS number, id::text AS sms_id FROM public.new_id;
             ALTER TABLE public.orders ADD PRIMARY KEY (number)",
            app = queue.app()
        ))
        .await
}

/// Rows that sequential scans have read so far, by table of the queue; partitions count as their parent.
async fn scanned(observer: &Client) -> Result<BTreeMap<String, i64>> {
    let query = "SELECT regexp_replace(relname, '_p[0-9]{8}$', ''), sum(seq_tup_read)::bigint FROM pg_stat_user_tables
                  WHERE schemaname = 'sms_outbox' AND relname ~ '^(message|attempt|ready|scheduled|lease|ended|idempotency)(_p[0-9]+)?$' GROUP BY 1";
    let rows = observer.query(query, &[]).await?;
    rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect()
}

async fn finds_by_index(queue: &Queue) -> Result<()> {
    let id = async |remainder: i32, offset: i32| -> Result<String> {
        queue.value(&format!("SELECT sms_id FROM public.orders WHERE number > 15000 AND number % 3 = {remainder} ORDER BY number OFFSET {offset} LIMIT 1"), &[]).await
    };
    let ids: Vec<String> = {
        let rows = queue
            .admin()
            .query(
                "SELECT sms_id FROM public.orders WHERE number > 15000 AND number % 3 = 0 ORDER BY number LIMIT 300",
                &[],
            )
            .await?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?
    };
    let (cancel, retry, sent) = (id(0, 400).await?, id(2, 0).await?, id(1, 0).await?);
    let observer = queue.connect().await?;
    let session = queue.connect().await?;
    let mut faults = Vec::new();
    for what in ["look", "claim", "finish", "cancel", "retry", "status", "joined", "replay", "maintenance"] {
        let before = scanned(&observer).await?;
        match what {
            "look" => session.batch_execute("SELECT * FROM sms_outbox.look(ARRAY[1::smallint], ARRAY['0'::xid8], ARRAY[sms_outbox.id_floor('epoch')], ARRAY[NULL::xid8], 100)").await?,
            "claim" => {
                for batch in ids.chunks(100) {
                    let wanted: Vec<&str> = batch.iter().map(String::as_str).collect();
                    let claimed = claim(&session, "w", &wanted, queue.app()).await?;
                    assert!(claimed.iter().all(|claimed| claimed.result == "leased"), "{claimed:?}");
                }
            }
            "finish" => {
                for (id, outcome) in ids.iter().zip(["accepted", "throttled", "refused_content", "refused_recipient"].iter().cycle()).take(100) {
                    assert!(finish(&session, "w", id, 1, outcome).await?.applied);
                }
                assert!(!finish(&session, "w", &ids[0], 1, "accepted").await?.applied, "late, or repeated");
            }
            "cancel" => session.batch_execute(&format!("SELECT sms_outbox.cancel('{cancel}')")).await?,
            "retry" => session.batch_execute(&format!("SELECT sms_outbox.retry('{retry}')")).await?,
            "status" => {
                for id in [&ids[0], &ids[200], &cancel, &retry, &sent] {
                    session.query("SELECT * FROM sms_outbox.outbox WHERE id = $1::text::sms_outbox.message_id", &[id]).await?;
                    session.query("SELECT * FROM sms_outbox.attempts WHERE id = $1::text::sms_outbox.message_id", &[id]).await?;
                    session.batch_execute(&format!("SELECT * FROM sms_outbox.outbox WHERE id = '{id}'; SELECT sms_outbox.status_of('{id}')")).await?;
                }
            }
            "joined" => session.batch_execute("SELECT o.number, s.* FROM public.orders AS o JOIN sms_outbox.outbox AS s ON s.id = o.sms_id WHERE o.number = 299998").await?,
            "replay" => {
                for _ in 0..2 {
                    session.batch_execute("SELECT sms_outbox_enqueue('0501234567', 'x', idempotency_key => 'k', organization_id => 'shop')").await?;
                }
            }
            _ => {
                session.batch_execute("UPDATE sms_outbox.maintenance SET ran_at = now(); SELECT sms_outbox.run_maintenance(); SELECT sms_outbox.run_maintenance()").await?;
            }
        }
        session.batch_execute("SELECT pg_stat_force_next_flush()").await?;
        let after = scanned(&observer).await?;
        for (table, read) in after {
            let more = read - before.get(&table).copied().unwrap_or(0);
            // Never larger than what is in flight: without statistics a join may as well read it whole.
            if more > 0 && (what, table.as_str()) != ("joined", "lease") {
                faults.push(format!("{what}: {more} rows of {table} were read one after the other"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    queue.assert_placed().await
}
