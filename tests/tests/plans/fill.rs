//! A queue of a few messages, and one of a million, with every kind of statistics.

use anyhow::Result;
use sms_outbox_tests::{Cluster, Database, Major, Queue};
use tokio_postgres::Client;

/// What the catalog says of the tables.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Statistics {
    /// What is there.
    True,
    /// What was there before the tables grew to a million rows, or shrank to a few.
    Stale,
    /// How large the tables are, and nothing of what is in them.
    Missing,
    /// Nothing, as of a table that was never vacuumed and never analyzed.
    Cold,
}

impl Statistics {
    /// Makes them so. Stale ones are those that stand there.
    pub(crate) async fn make(self, queue: &Queue) -> Result<()> {
        let forget = "SET allow_system_table_mods = on;
            DELETE FROM pg_statistic WHERE starelid IN (SELECT oid FROM pg_class WHERE relnamespace = 'sms_outbox'::regnamespace)";
        match self {
            Self::True => queue.sql("ANALYZE").await,
            Self::Stale => Ok(()),
            Self::Missing => queue.sql(forget).await,
            Self::Cold => {
                queue
                    .sql(&format!(
                        "{forget};
                         UPDATE pg_class SET relpages = 0, reltuples = -1, relallvisible = 0
                          WHERE relnamespace = 'sms_outbox'::regnamespace AND relkind IN ('r', 'i', 't')"
                    ))
                    .await
            }
        }
    }
}

/// A server on which nothing mends the statistics.
pub(crate) async fn empty(major: Major) -> Result<Queue> {
    let cluster = Cluster::options(major)
        .without_preload()
        .set("autovacuum", "off")
        .set("shared_buffers", "256MB")
        .set("max_wal_size", "4GB")
        .start()
        .await?;
    let queue = Queue::on(Database::create(&cluster, "plans").await?).await?;
    queue
        .sql("CREATE TABLE public.orders (number bigint GENERATED ALWAYS AS IDENTITY PRIMARY KEY, sms_id text)")
        .await?;
    Ok(queue)
}

/// Adds so many messages that wait, and for each eight of them one that is sent, one that failed, and one with an idempotency key.
pub(crate) async fn fill(queue: &Queue, rows: i64) -> Result<()> {
    queue
        .sql(&format!(
            "CREATE TABLE public.made AS
                SELECT n, n % 10 AS place,
                       (left(sms_outbox.id_floor(date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + interval '1 ms' * n)::uuid::text, 13)
                        || right(gen_random_uuid()::text, 23))::uuid::sms_outbox.message_id AS id
                  FROM generate_series(1, {rows} / 8 * 10) AS n;
             INSERT INTO sms_outbox.message (id, created_at, priority, segments, encoding, organization_id, mobile, body, meta)
             SELECT id, now(), 1, 1, 'GSM-7', 'shop', '+966501234567', 'm', '{{}}' FROM made;
             INSERT INTO sms_outbox.ready (id, since, server, priority, organization_id)
             SELECT id, now(), sms_outbox.server_id(), 1, 'shop' FROM made WHERE place < 8;
             INSERT INTO sms_outbox.attempt (id, started_at, finished_at, app_id, attempt, status, organization_id, worker)
             SELECT id, now(), now(), {app}, 1, CASE place WHEN 8 THEN 'accepted' ELSE 'refused_recipient' END::sms_outbox.attempt_status, 'shop', 'other'
               FROM made WHERE place > 7;
             INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
             SELECT id, now(), 'failed', 1, 'shop', 'recipient_refused' FROM made WHERE place = 9;
             INSERT INTO sms_outbox.idempotency (organization_id, key, id) SELECT 'shop', 'made ' || n, id FROM made WHERE place = 0;
             INSERT INTO public.orders (sms_id) SELECT id::text FROM made WHERE place = 0;
             DROP TABLE made",
            app = queue.app()
        ))
        .await
}

/// Puts so many rows, of a thousand organizations, into every place of the queue and takes them out again while somebody's snapshot
/// keeps what is dead of them, and lets statistics say that nothing is there.
/// The snapshot lasts as long as the session that is returned.
pub(crate) async fn leave_dead(queue: &Queue, rows: i64) -> Result<Client> {
    let reader = queue.connect().await?;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sms_outbox.organization").await?;
    queue
        .sql(&format!(
            "CREATE TEMP TABLE made AS
                SELECT 'shop ' || n % 1000 AS organization_id, sms_outbox.server_id() AS server, now() - interval '1 hour' AS past,
                       (left(sms_outbox.id_floor(date_trunc('day', now() AT TIME ZONE 'UTC') AT TIME ZONE 'UTC' + interval '1 ms' * n)::uuid::text, 13)
                        || right(gen_random_uuid()::text, 23))::uuid::sms_outbox.message_id AS id
                  FROM generate_series(1, {rows}) AS n;
             INSERT INTO sms_outbox.ready (id, since, valid_until, server, priority, organization_id)
             SELECT id, past, past, server, 1, organization_id FROM made;
             INSERT INTO sms_outbox.scheduled (id, due_at, since, valid_until, server, priority, organization_id, reason)
             SELECT id, past, past, past, server, 1, organization_id, 'datetime' FROM made;
             INSERT INTO sms_outbox.lease (id, app_id, started_at, expires_at, since, server, attempt, priority, tries, organization_id, worker)
             SELECT id, {app}, past, past, past, server, 1, 1, 0, organization_id, 'w' FROM made;
             INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
             SELECT id, past, 'failed', 1, organization_id, 'recipient_refused' FROM made;
             DROP TABLE made",
            app = queue.app()
        ))
        .await?;
    let tables = ["ready", "scheduled", "lease", "ended"].map(|table| format!("sms_outbox.{table}"));
    for table in &tables {
        queue.sql(&format!("DELETE FROM {table}")).await?;
    }
    queue.sql(&format!("VACUUM ANALYZE {}", tables.join(", "))).await?;
    Ok(reader)
}

/// Drains it, as workers would have.
pub(crate) async fn drain(queue: &Queue) -> Result<()> {
    queue.sql("TRUNCATE sms_outbox.message, sms_outbox.attempt, sms_outbox.idempotency, public.orders, sms_outbox.ready, sms_outbox.scheduled, sms_outbox.lease, sms_outbox.ended").await
}
