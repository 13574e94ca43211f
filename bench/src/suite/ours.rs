//! Our own side: applications that enqueue, workers that drain, and a second worker of plain SQL.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sms_outbox_bench::measure::Caller;
use sms_outbox_tests::worker::Worker;
use sms_outbox_tests::{Cluster, Database};
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::load;
use crate::message::{self, ORGANIZATION};
use crate::server::Provider;

const ENQUEUE: &str =
    "SELECT id FROM sms_outbox_enqueue($1, $2, 'MyShop', meta => $3::text::jsonb, organization_id => $4)";
const ENQUEUE_KEY: &str = "SELECT id FROM sms_outbox_enqueue($1, $2, 'MyShop', meta => $3::text::jsonb, organization_id => $4, \
    idempotency_key => $5)";

/// Many messages in one call.
pub(crate) const ENQUEUE_MANY: &str = "SELECT count(*) FROM sms_outbox_enqueue_many($1::text::jsonb, $2)";

/// As many, one by one, in a loop of PL/pgSQL.
pub(crate) const ENQUEUE_LOOP: &str = "DO $$ BEGIN FOR n IN 1..10000 LOOP
        PERFORM sms_outbox_enqueue('+9665' || lpad(n::text, 8, '0'),
                rpad('Order ' || n || ' is on its way and arrives between 10 and 12. Reply STOP to hear no more of it. ', 100, '.'), 'MyShop',
                meta => jsonb_build_object('order', n, 'kind', 'delivery'), organization_id => 'shop');
    END LOOP; END $$";

/// A database with the extension, in which one organization has one app.
pub(crate) async fn create(cluster: &Arc<Cluster>, name: &str, provider: &str) -> Result<Database> {
    let database = Database::create(cluster, name).await?;
    install_app(&database, ORGANIZATION, provider).await?;
    Ok(database)
}

/// Installs an app that limits nothing.
pub(crate) async fn install_app(database: &Database, organization: &str, provider: &str) -> Result<i64> {
    let config = json!({ "token": "t", "base_url": provider, "allow_http": true });
    let install = "SELECT sms_outbox.install_app($1, 'sandbox', 'main', $2, max_in_flight => 10000)";
    database.value(install, &[&organization, &config]).await
}

/// Enqueues one message at each call, by a connection of its own.
pub(crate) struct Enqueuer {
    client: Client,
    statement: Statement,
    organization: String,
    number: u32,
    keys: Option<String>,
}

impl Enqueuer {
    /// So many callers. Keys are new ones: `keys` tells those of several rounds apart.
    pub(crate) async fn open(database: &Database, clients: u32, keys: Option<&str>) -> Result<Vec<Self>> {
        let mut callers = Vec::new();
        for place in 0..clients {
            callers.push(Self::one(database, ORGANIZATION, place, keys).await?);
        }
        Ok(callers)
    }

    /// One of them, for an organization.
    pub(crate) async fn one(database: &Database, organization: &str, place: u32, keys: Option<&str>) -> Result<Self> {
        let client = sms_outbox_tests::database::connect(&database.url("app")).await?;
        let statement = client.prepare(if keys.is_some() { ENQUEUE_KEY } else { ENQUEUE }).await?;
        let keys = keys.map(str::to_owned);
        Ok(Self { client, statement, organization: organization.to_owned(), number: place * 1_000_000, keys })
    }

    /// Its connection.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Enqueues the next message and commits; returns its id.
    pub(crate) async fn enqueue(&mut self) -> Result<String> {
        self.number += 1;
        let (mobile, text, meta) =
            (message::mobile(self.number), message::text(self.number), message::meta(self.number));
        let row = match &self.keys {
            Some(keys) => {
                let key = format!("{keys}-{}", self.number);
                self.client.query_one(&self.statement, &[&mobile, &text, &meta, &self.organization, &key]).await?
            }
            None => self.client.query_one(&self.statement, &[&mobile, &text, &meta, &self.organization]).await?,
        };
        Ok(row.try_get(0)?)
    }
}

impl Caller for Enqueuer {
    async fn call(&mut self) -> Result<()> {
        self.enqueue().await.map(drop)
    }
}

/// Queues so many messages of an organization.
pub(crate) async fn fill(database: &Database, organization: &str, messages: u32) -> Result<()> {
    let client = sms_outbox_tests::database::connect(&database.url("app")).await?;
    let statement = client.prepare(ENQUEUE_MANY).await?;
    let mut first = 0;
    while first < messages {
        let count = message::MANY.min(messages - first);
        client.query_one(&statement, &[&message::array(first, count), &organization]).await?;
        first += count;
    }
    Ok(())
}

/// What a drain by workers took.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Drained {
    /// Messages a second, from the first claim to the last recorded end.
    pub(crate) rate: f64,
    /// CPU of all workers, in microseconds a message.
    pub(crate) cpu_us: f64,
}

/// Lets so many workers work on all that waits.
pub(crate) async fn drain(
    database: &Database,
    provider: &Provider,
    workers: u32,
    in_flight: u32,
    messages: u32,
) -> Result<Drained> {
    provider.take().await?;
    // By the database's clock, as the moments that are compared with it.
    database.sql("CHECKPOINT; CREATE TEMP TABLE IF NOT EXISTS drain (began timestamptz); TRUNCATE drain; INSERT INTO drain VALUES (clock_timestamp())").await?;
    let mut running = Vec::new();
    for _ in 0..workers {
        running.push(start_worker(database, in_flight).await?);
    }
    wait_until_drained(database, provider, messages).await?;
    let seconds: f64 = database
        .value(
            "SELECT extract(epoch FROM max(a.finished_at) - min(a.started_at))::float8 FROM sms_outbox.attempt AS a, drain AS d
              WHERE a.started_at >= d.began",
            &[],
        )
        .await?;
    let mut cpu_us = 0.0;
    for worker in &mut running {
        cpu_us += load::cpu_us(worker.process().id())?;
        worker.drain().await?;
    }
    Ok(Drained { rate: f64::from(messages) / seconds, cpu_us: cpu_us / f64::from(messages) })
}

/// A worker with so many messages in flight.
pub(crate) async fn start_worker(database: &Database, in_flight: u32) -> Result<Worker> {
    Worker::options(database)?
        .set("SMS_OUTBOX_CONCURRENCY", &in_flight.to_string())
        .set("SMS_OUTBOX_LOG_LEVEL", "warn")
        .start()
        .await
}

/// Waits until the provider has taken so many messages, and nothing waits or is in flight any more.
pub(crate) async fn wait_until_drained(database: &Database, provider: &Provider, messages: u32) -> Result<()> {
    // Far below any rate that would be worth a figure.
    let deadline = Instant::now() + Duration::from_secs(120 + u64::from(messages) / 100);
    loop {
        let taken = provider.count().await?;
        if taken >= u64::from(messages)
            && database.value::<bool>("SELECT NOT EXISTS (SELECT FROM sms_outbox.lease)", &[]).await?
        {
            ensure!(taken == u64::from(messages), "{taken} requests for {messages} messages");
            return Ok(());
        }
        ensure!(Instant::now() < deadline, "{taken} of {messages} messages are sent\n{}", database.evidence().await);
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
}

/// Waits until nothing waits or is in flight any more, after applications have ended.
pub(crate) async fn wait_until_empty(database: &Database) -> Result<()> {
    const EMPTY: &str =
        "SELECT NOT EXISTS (SELECT FROM sms_outbox.ready) AND NOT EXISTS (SELECT FROM sms_outbox.lease)";
    let deadline = Instant::now() + Duration::from_secs(600);
    while !database.value::<bool>(EMPTY, &[]).await? {
        ensure!(Instant::now() < deadline, "messages still wait\n{}", database.evidence().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    Ok(())
}

/// A worker of plain SQL: looks, claims and finishes, and sends nothing. One connection, one call at a time.
pub(crate) struct SqlWorker {
    client: Client,
    backend: u32,
    app: i64,
    after: (String, Uuid),
    look: Statement,
    claim: Statement,
    finish: Statement,
}

const LOOK: &str = "SELECT l.id::uuid, l.xid::text FROM sms_outbox.look('{1}', ARRAY[$1::text::xid8], \
    ARRAY[$2::uuid::sms_outbox.message_id], ARRAY[NULL::xid8], $3) AS l WHERE l.id IS NOT NULL";
const CLAIM: &str = "SELECT c.id::uuid, c.attempt, c.mobile, c.message FROM sms_outbox.claim('bench', \
    $1::uuid[]::sms_outbox.message_id[], array_fill($2::bigint, ARRAY[cardinality($1)])) AS c WHERE c.result = 'leased'";
const FINISH: &str = "SELECT count(*) FROM sms_outbox.finish('bench', $1::uuid[]::sms_outbox.message_id[], $2::smallint[], \
    array_fill('accepted'::sms_outbox.attempt_status, ARRAY[cardinality($1)]), array_fill(200::smallint, ARRAY[cardinality($1)]), \
    array_fill(NULL::text, ARRAY[cardinality($1)]), array_fill(NULL::text, ARRAY[cardinality($1)]), \
    array_fill($3::text, ARRAY[cardinality($1)]), $1::text[], array_fill(NULL::float8, ARRAY[cardinality($1)])) AS f WHERE f.applied";

impl SqlWorker {
    /// Connects, with the rights of a worker.
    pub(crate) async fn open(database: &Database) -> Result<Self> {
        let client = sms_outbox_tests::database::connect(&database.url("worker")).await?;
        let backend: i32 = client.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
        let app = database
            .value("SELECT app_id FROM sms_outbox.organization_app WHERE organization_id = 'shop'", &[])
            .await?;
        Ok(Self {
            backend: u32::try_from(backend)?,
            app,
            after: ("0".to_owned(), Uuid::nil()),
            look: client.prepare(LOOK).await?,
            claim: client.prepare(CLAIM).await?,
            finish: client.prepare(FINISH).await?,
            client,
        })
    }

    /// Its connection.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// The process that works for it.
    pub(crate) fn backend(&self) -> u32 {
        self.backend
    }

    /// The next ids behind its mark. No other worker and no open transaction may be there: it passes late commits.
    pub(crate) async fn look(&mut self, page: u32) -> Result<Vec<Uuid>> {
        let rows = self.client.query(&self.look, &[&self.after.0, &self.after.1, &i32::try_from(page)?]).await?;
        if let Some(last) = rows.last() {
            self.after = (last.try_get(1)?, last.try_get(0)?);
        }
        rows.iter().map(|row| Ok(row.try_get(0)?)).collect()
    }

    /// Claims messages.
    pub(crate) async fn claim(&self, ids: &[Uuid]) -> Result<Vec<(Uuid, i16)>> {
        let rows = self.client.query(&self.claim, &[&ids, &self.app]).await?;
        let claimed: Vec<(Uuid, i16)> =
            rows.iter().map(|row| Ok((row.try_get(0)?, row.try_get(1)?))).collect::<Result<_>>()?;
        ensure!(claimed.len() == ids.len(), "{} of {} messages were claimed", claimed.len(), ids.len());
        Ok(claimed)
    }

    /// Records that they were accepted.
    pub(crate) async fn finish(&self, claimed: &[(Uuid, i16)]) -> Result<()> {
        let (ids, attempts): (Vec<Uuid>, Vec<i16>) = claimed.iter().copied().unzip();
        let response = format!("{{\"id\":\"p\",\"status\":\"accepted\",\"note\":\"{}\"}}", ".".repeat(157));
        let applied: i64 = self.client.query_one(&self.finish, &[&ids, &attempts, &response]).await?.try_get(0)?;
        ensure!(applied == i64::try_from(claimed.len())?, "{applied} of {} ends were recorded", claimed.len());
        Ok(())
    }

    /// Claims and finishes all that waits, in batches, the next claim while the last is being recorded: messages a second.
    pub(crate) async fn drain(&mut self, recorder: &Self, batch: u32) -> Result<f64> {
        let begun = Instant::now();
        let mut done = 0;
        let mut last = Vec::new();
        loop {
            let ids = self.look(batch).await?;
            let (claimed, ()) = tokio::try_join!(
                async { if ids.is_empty() { Ok(Vec::new()) } else { self.claim(&ids).await } },
                async { if last.is_empty() { Ok(()) } else { recorder.finish(&last).await } },
            )?;
            done += claimed.len();
            if claimed.is_empty() {
                let seconds = begun.elapsed().as_secs_f64();
                return Ok(done as f64 / seconds);
            }
            last = claimed;
        }
    }
}

/// The size of a table with its partitions and indexes, in bytes.
pub(crate) async fn size_of(database: &Database, table: &str) -> Result<i64> {
    database
        .value(
            &format!("SELECT coalesce(sum(pg_total_relation_size(relid)), 0)::bigint FROM pg_partition_tree('sms_outbox.{table}')"),
            &[],
        )
        .await
        .with_context(|| format!("the size of {table}"))
}
