//! The queue driven by plain SQL, one call at a time: for tests that need every step in their own hands.

use std::ops::Deref;
use std::sync::{Arc, Weak};

use anyhow::{Context, Result, bail};
use tokio_postgres::error::DbError;
use tokio_postgres::{Client, Error};

use crate::{Cluster, Database, Major, run};

static SHARED: tokio::sync::Mutex<Vec<Weak<Cluster>>> = tokio::sync::Mutex::const_new(Vec::new());

/// The server that the tests of this process share which need none of their own: without preload, so that nothing
/// happens in it by itself. The last test that uses it ends it.
pub async fn shared_cluster(major: Major) -> Result<Arc<Cluster>> {
    let mut shared = SHARED.lock().await;
    if let Some(cluster) = shared.iter().filter_map(Weak::upgrade).find(|cluster| cluster.major() == major) {
        return Ok(cluster);
    }
    let cluster = Cluster::options(major).without_preload().start().await?;
    shared.push(Arc::downgrade(&cluster));
    Ok(cluster)
}

/// A database with the extension in which nobody but the test is at work: no background worker, no worker process.
/// Organization `shop` has one app, [`Queue::app`].
#[derive(Debug)]
pub struct Queue {
    database: Database,
    app: i64,
}

/// How [`claim`] answered for one message.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the columns of claim()")]
pub struct Claimed {
    pub id: String,
    pub result: String,
    pub attempt: Option<i16>,
}

/// How [`finish`] answered for one attempt.
#[derive(Clone, Debug, PartialEq, Eq)]
#[allow(missing_docs, reason = "the columns of finish()")]
pub struct Finished {
    pub applied: bool,
    pub dispatch_status: Option<String>,
}

impl Queue {
    /// A new database on the shared server.
    pub async fn new(major: Major) -> Result<Self> {
        let cluster = shared_cluster(major).await?;
        Self::on(Database::create(&cluster, &format!("queue_{}", run::number()?)).await?).await
    }

    /// A database that a test made.
    pub async fn on(database: Database) -> Result<Self> {
        let mut queue = Self { database, app: 0 };
        queue.app = queue.install("shop", "main").await?;
        Ok(queue)
    }

    /// The app of organization `shop`.
    pub fn app(&self) -> i64 {
        self.app
    }

    /// Installs a sandbox app.
    pub async fn install(&self, organization: &str, name: &str) -> Result<i64> {
        self.value(
            "SELECT sms_outbox.install_app($1, 'sandbox', $2, '{\"token\": \"t\"}')",
            &[&organization.to_owned(), &name.to_owned()],
        )
        .await
    }

    /// Queues a message of `shop`.
    pub async fn enqueue(&self, text: &str) -> Result<String> {
        Ok(enqueue(self.admin(), "shop", text).await?)
    }

    /// Queues, claims and finishes a message of `shop`.
    pub async fn ended(&self, text: &str, status: &str) -> Result<String> {
        let id = self.enqueue(text).await?;
        self.attempt(&id, status).await?;
        Ok(id)
    }

    /// Claims a message for [`Queue::app`] and finishes the attempt; returns where the message then is.
    pub async fn attempt(&self, id: &str, status: &str) -> Result<String> {
        let attempt = self.lease(id).await?;
        let finished = finish(self.admin(), "w", id, attempt, status).await?;
        finished.dispatch_status.context("a status")
    }

    /// Claims a message for [`Queue::app`] by worker `w`; returns the number of the attempt.
    pub async fn lease(&self, id: &str) -> Result<i16> {
        let claimed = claim(self.admin(), "w", &[id], self.app).await?;
        match claimed.as_slice() {
            [Claimed { attempt: Some(attempt), .. }] => Ok(*attempt),
            other => bail!("not leased: {other:?}"),
        }
    }

    /// A message's `dispatch_status`.
    pub async fn status(&self, id: &str) -> Result<String> {
        self.field(id, "dispatch_status").await?.with_context(|| format!("{id} is nowhere"))
    }

    /// One column of view `outbox`, as text.
    pub async fn field(&self, id: &str, column: &str) -> Result<Option<String>> {
        self.value(&format!("SELECT {column}::text FROM sms_outbox.outbox WHERE id = '{id}'"), &[]).await
    }

    /// How many rows a table or a query has.
    pub async fn count(&self, from: &str) -> Result<i64> {
        self.value(&format!("SELECT count(*) FROM {from}"), &[]).await
    }

    /// Every message is in exactly one place.
    pub async fn assert_placed(&self) -> Result<()> {
        let misplaced = self.rows("SELECT * FROM sms_outbox.misplaced").await?;
        assert!(misplaced.is_empty(), "{misplaced:?}");
        Ok(())
    }

    /// Runs maintenance until nothing is left to do.
    pub async fn maintain(&self) -> Result<()> {
        while self.value::<bool>("SELECT bool_or(more) FROM sms_outbox.run_maintenance()", &[]).await? {}
        Ok(())
    }

    /// Lets the tasks that maintenance runs once a minute be due now.
    pub async fn maintain_all(&self) -> Result<()> {
        self.sql("UPDATE sms_outbox.maintenance SET ran_at = '-infinity'").await?;
        self.maintain().await
    }
}

impl Deref for Queue {
    type Target = Database;

    fn deref(&self) -> &Database {
        &self.database
    }
}

/// Queues a message in the session's transaction.
pub async fn enqueue(client: &Client, organization: &str, text: &str) -> Result<String, Error> {
    let row = client
        .query_one(
            "SELECT id FROM sms_outbox_enqueue('0501234567', $1, organization_id => $2)",
            &[&text, &organization],
        )
        .await?;
    row.try_get(0)
}

/// Claims messages for one app.
pub async fn claim(client: &Client, worker: &str, ids: &[&str], app: i64) -> Result<Vec<Claimed>, Error> {
    let rows = client
        .query(
            "SELECT c.id::text, c.result, c.attempt
               FROM sms_outbox.claim($1, $2::text[]::sms_outbox.message_id[], array_fill($3::bigint, ARRAY[cardinality($2::text[])])) AS c",
            &[&worker, &ids, &app],
        )
        .await?;
    rows.iter()
        .map(|row| Ok(Claimed { id: row.try_get(0)?, result: row.try_get(1)?, attempt: row.try_get(2)? }))
        .collect()
}

/// Finishes one attempt; a failed one has error code `test`.
pub async fn finish(client: &Client, worker: &str, id: &str, attempt: i16, status: &str) -> Result<Finished, Error> {
    let row = client
        .query_one(
            "SELECT f.applied, f.dispatch_status::text
               FROM sms_outbox.finish($1, ARRAY[$2::text::sms_outbox.message_id], ARRAY[$3::smallint], ARRAY[$4::text::sms_outbox.attempt_status],
                                      ARRAY[200::smallint], ARRAY[CASE WHEN $4::text <> 'accepted' THEN 'test' END], ARRAY[NULL::text],
                                      ARRAY['{\"ok\": true}'], ARRAY['p-' || $2::text], ARRAY[NULL::double precision]) AS f",
            &[&worker, &id, &attempt, &status],
        )
        .await?;
    Ok(Finished { applied: row.try_get(0)?, dispatch_status: row.try_get(1)? })
}

/// The error of statements that must fail.
pub async fn refused(client: &Client, statements: &str) -> Result<DbError> {
    match client.batch_execute(statements).await {
        Ok(()) => bail!("this was not refused: {statements}"),
        Err(error) => error.as_db_error().cloned().with_context(|| format!("{statements}: {error}")),
    }
}

/// Lets so many days pass over every row.
pub async fn age(database: &Database, days: i32) -> Result<()> {
    database
        .sql(&format!(
            "CREATE OR REPLACE FUNCTION pg_temp.older(id sms_outbox.message_id) RETURNS sms_outbox.message_id LANGUAGE sql AS $$
                SELECT (lpad(to_hex(('x' || left(h, 12))::bit(48)::bigint - {days} * 86400000::bigint), 12, '0') || right(h, 20))::uuid::sms_outbox.message_id
                  FROM (SELECT replace(id::uuid::text, '-', '') AS h) AS x $$;
             DO $$ DECLARE past date; parent text; leaf text; BEGIN
                FOR past IN SELECT day - {days} FROM sms_outbox.partitions() LOOP
                    FOREACH parent IN ARRAY ARRAY['message', 'attempt'] LOOP
                        leaf := parent || '_p' || to_char(past, 'YYYYMMDD');
                        CONTINUE WHEN to_regclass('sms_outbox.' || leaf) IS NOT NULL;
                        EXECUTE format('CREATE TABLE sms_outbox.%I PARTITION OF sms_outbox.%I (PRIMARY KEY (%s)) FOR VALUES FROM (%L) TO (%L)', leaf, parent,
                            CASE parent WHEN 'message' THEN 'id' ELSE 'id, attempt' END,
                            sms_outbox.id_floor(past::timestamp AT TIME ZONE 'UTC'), sms_outbox.id_floor((past + 1)::timestamp AT TIME ZONE 'UTC'));
                        EXECUTE format('ALTER TABLE sms_outbox.%I OWNER TO sms_outbox_owner', leaf);
                    END LOOP;
                END LOOP; END $$;
             UPDATE sms_outbox.message SET id = pg_temp.older(id), created_at = created_at - interval '{days} days';
             UPDATE sms_outbox.attempt SET id = pg_temp.older(id), started_at = started_at - interval '{days} days', finished_at = finished_at - interval '{days} days';
             UPDATE sms_outbox.ready SET id = pg_temp.older(id), since = since - interval '{days} days';
             UPDATE sms_outbox.scheduled SET id = pg_temp.older(id), since = since - interval '{days} days';
             UPDATE sms_outbox.lease SET id = pg_temp.older(id), started_at = started_at - interval '{days} days';
             UPDATE sms_outbox.ended SET id = pg_temp.older(id), ended_at = ended_at - interval '{days} days';
             UPDATE sms_outbox.idempotency SET id = pg_temp.older(id);
             UPDATE sms_outbox.evidence SET id = pg_temp.older(id);
             UPDATE sms_outbox.receipt SET id = pg_temp.older(id);
             UPDATE sms_outbox.look_up SET id = pg_temp.older(id);
             UPDATE sms_outbox.tally SET day = day - {days}, minute = minute - interval '{days} days'"
        ))
        .await
}
