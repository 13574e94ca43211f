//! Lists at a million messages: each kind of question reads a few pages of one index, for a large organization and for a small
//! one whose messages lie among the large one's, with statistics and without.

use anyhow::{Context, Result};
use serde_json::Value;
use sms_outbox_tests::{Cluster, Database, Major, Queue, on_majors};
use tokio_postgres::Client;

on_majors! { ends: read_a_page_whatever_there_is }

const MESSAGES: i64 = 1_000_000;

/// One in so many messages is the small organization's.
const SMALL_SHARE: i64 = 5_000;

/// Most buffers of one list: a page of rows with their index entries, and the top of the index in each day that exists.
const MOST_BUFFERS: i64 = 250;

async fn filled(major: Major) -> Result<Queue> {
    let cluster =
        Cluster::options(major).without_preload().set("autovacuum", "off").set("max_wal_size", "4GB").start().await?;
    let queue = Queue::on(Database::create(&cluster, "lists").await?).await?;
    queue.install("small", "app").await?;
    queue
        .sql(&format!(
            "CREATE TABLE public.made AS
                SELECT n, CASE WHEN n % {SMALL_SHARE} < 5 THEN 'small' ELSE 'shop' END AS organization, n % 5 AS place,
                       (left(sms_outbox.id_floor(date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + interval '1 ms' * n)::uuid::text, 13)
                        || right(gen_random_uuid()::text, 23))::uuid::sms_outbox.message_id AS id
                  FROM generate_series(1, {MESSAGES}) AS n;
             INSERT INTO sms_outbox.message (id, created_at, priority, segments, encoding, organization_id, mobile, body, meta)
             SELECT id, now(), 1, 1, 'GSM-7', organization, '+9665' || lpad((n % 1000000)::text, 8, '0'), 'm', '{{}}' FROM made;
             INSERT INTO sms_outbox.ready (id, since, server, priority, organization_id)
             SELECT id, now(), sms_outbox.server_id(), 1, organization FROM made WHERE place = 0;
             INSERT INTO sms_outbox.scheduled (id, since, due_at, server, priority, organization_id, reason)
             SELECT id, now(), now(), sms_outbox.server_id(), 1, organization, 'datetime' FROM made WHERE place = 1;
             INSERT INTO sms_outbox.attempt (id, started_at, finished_at, app_id, attempt, status, organization_id, worker)
             SELECT id, now(), now(), 1, 1, CASE place WHEN 2 THEN 'accepted' ELSE 'refused_recipient' END::sms_outbox.attempt_status, organization, 'w'
               FROM made WHERE place IN (2, 3);
             INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
             SELECT id, now(), CASE place WHEN 3 THEN 'failed' ELSE 'expired' END::sms_outbox.dispatch_status, 1, organization, 'r' FROM made WHERE place IN (3, 4)"
        ))
        .await?;
    Ok(queue)
}

/// The rows and buffers of one list.
async fn read(session: &Client, arguments: &str) -> Result<(i64, i64)> {
    let call = format!("SELECT * FROM sms_outbox.page({arguments})");
    // Plans and catalogs are read once in a session.
    session.batch_execute(&call).await.context(call.clone())?;
    let row = session
        .query_one(&format!("EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, SUMMARY OFF, FORMAT JSON) {call}"), &[])
        .await?;
    let plan: Value = row.try_get(0)?;
    let plan = &plan[0]["Plan"];
    let count = |field: &str| plan[field].as_f64().with_context(|| format!("{field}: {plan}"));
    Ok((count("Actual Rows")? as i64, (count("Shared Hit Blocks")? + count("Shared Read Blocks")?) as i64))
}

async fn reads_little(queue: &Queue, what: &str) -> Result<()> {
    // A new session: nothing is planned yet.
    let session = queue.connect_as("operator").await?;
    let middle: String = queue.value(&format!("SELECT id::text FROM made WHERE n = {}", MESSAGES / 2), &[]).await?;
    let number: String =
        queue.value("SELECT mobile FROM sms_outbox.message WHERE organization_id = 'small' LIMIT 1", &[]).await?;
    let mut faults = Vec::new();
    for organization in ["shop", "small"] {
        for (condition, expected) in [
            (String::new(), 21),
            (format!(", before_id => '{middle}'"), 21),
            (", dispatch_status => 'pending'".to_owned(), 21),
            (", dispatch_status => 'sending'".to_owned(), 0),
            (format!(", dispatch_status => 'sent', before_id => '{middle}'"), 21),
            (", dispatch_status => 'failed'".to_owned(), 21),
            (", dispatch_status => 'expired'".to_owned(), 21),
            (", dispatch_status => 'canceled'".to_owned(), 0),
            (format!(", mobile => '{number}'"), i64::from(organization == "small")),
            (", created_after => now() + interval '2 days'".to_owned(), 0),
            (", created_before => now() - interval '2 days'".to_owned(), 0),
        ] {
            let (rows, buffers) = read(&session, &format!("'{organization}', rows => 21{condition}")).await?;
            if rows != expected || buffers > MOST_BUFFERS {
                faults.push(format!("{what}: {organization}{condition}: {rows} rows of {expected}, {buffers} buffers"));
            }
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

async fn read_a_page_whatever_there_is(major: Major) -> Result<()> {
    let queue = filled(major).await?;
    reads_little(&queue, "without statistics").await?;
    queue.sql("ANALYZE").await?;
    reads_little(&queue, "with statistics").await
}
