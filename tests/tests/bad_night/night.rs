//! The night itself: what waits, what stands in the way, and a worker that drains it.

use std::collections::BTreeMap;
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sms_outbox_tests::{Cluster, Database, Major, Queue};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

/// Messages of one claim.
pub(crate) const BATCH: usize = 500;

/// Messages of one look.
const PAGE: usize = 10_000;

/// Messages of one transaction of the application.
const ENQUEUED_AT_ONCE: usize = 1000;

/// One in so many is refused by its provider.
pub(crate) const REFUSED: usize = 20;

/// After so many claims comes what happens every few seconds.
const CLAIMS_BETWEEN_BEATS: usize = 10;

const ENQUEUE: &str = "SELECT count(*) FROM sms_outbox_enqueue_many((
    SELECT jsonb_agg(jsonb_build_object('mobile', '05' || lpad((n % 100000000)::text, 8, '0'), 'message', 'Order ' || n))
      FROM generate_series($1::bigint, $2::bigint) AS n), 'shop')";

const LOOK: &str = "SELECT l.id::uuid, l.xid::text
      FROM sms_outbox.look(ARRAY[1::smallint], ARRAY[$1::text::xid8], ARRAY[$2::uuid::sms_outbox.message_id], ARRAY[NULL::xid8], $3) AS l
     WHERE l.id IS NOT NULL";

const CLAIM: &str = "SELECT count(*) FILTER (WHERE c.result = 'leased')
      FROM sms_outbox.claim('w', $1::uuid[]::sms_outbox.message_id[], array_fill($2::bigint, ARRAY[cardinality($1)])) AS c";

const FINISH: &str = "WITH told AS (
    SELECT $1::uuid[]::sms_outbox.message_id[] AS ids, ARRAY[cardinality($1)] AS size,
           ARRAY(SELECT CASE WHEN n % $2 = 0 THEN 'refused_recipient' ELSE 'accepted' END::sms_outbox.attempt_status FROM generate_series(1, cardinality($1)) AS n) AS statuses)
    SELECT count(*) FILTER (WHERE f.applied)
      FROM told CROSS JOIN LATERAL sms_outbox.finish('w', ids, array_fill(1::smallint, size), statuses, array_fill(200::smallint, size),
               array_fill(NULL::text, size), array_fill(NULL::text, size), array_fill('{\"status\": \"queued\"}'::text, size),
               array_fill('p'::text, size), array_fill(NULL::float8, size)) AS f";

/// The calls that are measured.
pub(crate) const KINDS: [&str; 7] = ["look", "claim", "finish", "apps", "leases", "heartbeat", "run_maintenance"];

/// Buffers by kind of call, and calls.
pub(crate) type Reading = BTreeMap<String, (f64, f64)>;

pub(crate) struct Night {
    pub(crate) queue: Queue,
    worker: Client,
    statements: [Statement; 3],
    messages: usize,
    mark: (String, Uuid),
    waiting: Vec<Uuid>,
    drained: usize,
    claims: usize,
    /// Sessions that stay open: the snapshot, and the writer in the other database.
    reader: Client,
    writer: Client,
}

impl Night {
    pub(crate) async fn fall(major: Major, messages: usize) -> Result<Self> {
        let cluster = Cluster::options(major)
            .without_preload()
            .set("shared_preload_libraries", "pg_stat_statements")
            .set("autovacuum", "off")
            .set("shared_buffers", "256MB")
            .set("max_wal_size", "2GB")
            .start()
            .await?;
        let queue = Queue::on(Database::create(&cluster, "night").await?).await?;
        let other = Database::create_empty(&cluster, "other").await?;
        // Leases are over soon: maintenance must not be slow for those that ended long before.
        queue
            .sql("CREATE EXTENSION pg_stat_statements; ALTER DATABASE night SET sms_outbox.lease_timeout = '10s'")
            .await?;
        let reader = queue.connect().await?;
        reader
            .batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sms_outbox.organization")
            .await?;
        let writer = other.connect().await?;
        writer.batch_execute("BEGIN; CREATE TABLE unfinished ()").await?;

        let application = queue.connect_as("app").await?;
        let enqueue = application.prepare(ENQUEUE).await?;
        for first in (1..=messages).step_by(ENQUEUED_AT_ONCE) {
            let last = messages.min(first + ENQUEUED_AT_ONCE - 1);
            application.query_one(&enqueue, &[&i64::try_from(first)?, &i64::try_from(last)?]).await?;
        }
        let worker = queue.connect_as("worker").await?;
        let statements = [worker.prepare(LOOK).await?, worker.prepare(CLAIM).await?, worker.prepare(FINISH).await?];
        let mut night = Self {
            queue,
            worker,
            statements,
            messages,
            mark: ("0".to_owned(), Uuid::nil()),
            waiting: Vec::new(),
            drained: 0,
            claims: 0,
            reader,
            writer,
        };
        // The first calls of a session read catalogs and plan.
        night.drain(BATCH).await?;
        night.beat().await?;
        Ok(night)
    }

    pub(crate) async fn begin_part(&self) -> Result<()> {
        self.queue.sql("SELECT pg_stat_statements_reset()").await
    }

    /// Drains until so many messages are over; returns the seconds that it took.
    pub(crate) async fn drain(&mut self, upto: usize) -> Result<f64> {
        let began = Instant::now();
        while self.drained < upto {
            if self.waiting.len() < BATCH {
                self.look().await?;
            }
            let batch: Vec<Uuid> = self.waiting.drain(..BATCH.min(self.waiting.len())).collect();
            ensure!(!batch.is_empty(), "{} messages wait, and look() shows none", self.messages - self.drained);
            let expected = i64::try_from(batch.len())?;
            let [_, claim, finish] = &self.statements;
            let leased: i64 = self.worker.query_one(claim, &[&batch, &self.queue.app()]).await?.try_get(0)?;
            ensure!(leased == expected, "{leased} leased of {expected}");
            let refused = i32::try_from(REFUSED)?;
            let applied: i64 = self.worker.query_one(finish, &[&batch, &refused]).await?.try_get(0)?;
            ensure!(applied == expected, "{applied} outcomes recorded of {expected}");
            self.drained += batch.len();
            self.claims += 1;
            if self.claims.is_multiple_of(CLAIMS_BETWEEN_BEATS) {
                self.beat().await?;
            }
        }
        Ok(began.elapsed().as_secs_f64())
    }

    async fn look(&mut self) -> Result<()> {
        let rows = self.worker.query(&self.statements[0], &[&self.mark.0, &self.mark.1, &i32::try_from(PAGE)?]).await?;
        for row in &rows {
            self.waiting.push(row.try_get(0)?);
        }
        if let Some(last) = rows.last() {
            self.mark = (last.try_get(1)?, last.try_get(0)?);
        }
        Ok(())
    }

    /// What workers and the server do every few seconds, whatever waits.
    async fn beat(&self) -> Result<()> {
        self.worker
            .batch_execute(
                "SELECT * FROM sms_outbox.heartbeat('w', '1', 'host', 0, 0, 0, 0);
                 SELECT * FROM sms_outbox.leases('w');
                 SELECT * FROM sms_outbox.apps(ARRAY['shop'])",
            )
            .await?;
        self.queue.sql("SELECT * FROM sms_outbox.run_maintenance()").await
    }

    pub(crate) async fn read(&self) -> Result<Reading> {
        let rows = self
            .queue
            .admin()
            .query(
                "SELECT k.kind, sum(s.shared_blks_hit + s.shared_blks_read)::float8, sum(s.calls)::float8
                   FROM unnest($1::text[]) AS k (kind) JOIN pg_stat_statements AS s ON s.query ~ (' sms_outbox.' || k.kind || '\\(')
                  GROUP BY k.kind",
                &[&KINDS.as_slice()],
            )
            .await?;
        rows.iter().map(|row| Ok((row.try_get(0)?, (row.try_get(1)?, row.try_get(2)?)))).collect()
    }

    /// The night was as bad as it should be, and nothing is left of it.
    pub(crate) async fn end(self) -> Result<()> {
        self.queue.sql("VACUUM sms_outbox.ready").await?;
        let dead: i64 = self
            .queue
            .value("SELECT n_dead_tup FROM pg_stat_all_tables WHERE relid = 'sms_outbox.ready'::regclass", &[])
            .await?;
        ensure!(usize::try_from(dead)? >= self.messages, "the horizon was not pinned: {dead} dead rows");
        for (session, what) in [(&self.reader, "the snapshot"), (&self.writer, "the writer")] {
            session.batch_execute("COMMIT").await.with_context(|| format!("{what} did not last"))?;
        }
        let left = self.queue.count("sms_outbox.ready").await? + self.queue.count("sms_outbox.lease").await?;
        ensure!(left == 0, "{left} messages are left");
        let refused = self.queue.count("sms_outbox.ended").await?;
        ensure!(refused == i64::try_from(self.messages / REFUSED)?, "{refused} were refused");
        Ok(())
    }
}
