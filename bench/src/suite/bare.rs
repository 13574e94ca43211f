//! The floor: a plain table with the same row, plain INSERTs, and a batch loop written by hand, with nothing that a queue must
//! also do (no attempt's record, no time-out, no order that holds against late commits, no checks).

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use sms_outbox_bench::measure::Caller;
use sms_outbox_bench::say;
use sms_outbox_tests::Database;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

use crate::floor::Sender;
use crate::message;

const SCHEMA: &str = "CREATE TABLE bare (
        id uuid PRIMARY KEY DEFAULT uuidv7(),
        created_at timestamptz NOT NULL,
        priority smallint NOT NULL,
        segments smallint NOT NULL,
        encoding text NOT NULL,
        status text NOT NULL DEFAULT 'pending',
        organization_id text NOT NULL,
        mobile text NOT NULL,
        body text NOT NULL,
        sender text,
        idempotency_key text,
        meta jsonb NOT NULL,
        response text
    )";

/// What the loop finds its rows by. Only where it runs: the INSERT is measured without.
const INDEX: &str = "CREATE INDEX bare_pending ON bare (id) WHERE status = 'pending'";

const INSERT: &str = "INSERT INTO bare (created_at, priority, segments, encoding, organization_id, mobile, body, sender, meta) \
    VALUES (clock_timestamp(), 1, 1, 'gsm7', 'shop', $1, $2, 'MyShop', $3::text::jsonb)";

/// Many rows in one statement.
pub(crate) const INSERT_MANY: &str = "INSERT INTO bare (created_at, priority, segments, encoding, organization_id, mobile, body, sender, meta) \
    SELECT clock_timestamp(), 1, 1, 'gsm7', 'shop', m ->> 'mobile', m ->> 'message', m ->> 'sender', m -> 'meta' \
      FROM jsonb_array_elements($1::text::jsonb) AS m";

/// The same rows one by one, in a loop of PL/pgSQL.
pub(crate) const INSERT_LOOP: &str = "DO $$ BEGIN FOR n IN 1..10000 LOOP
        INSERT INTO bare (created_at, priority, segments, encoding, organization_id, mobile, body, sender, meta)
        VALUES (clock_timestamp(), 1, 1, 'gsm7', 'shop', '+9665' || lpad(n::text, 8, '0'),
                rpad('Order ' || n || ' is on its way and arrives between 10 and 12. Reply STOP to hear no more of it. ', 100, '.'), 'MyShop',
                jsonb_build_object('order', n, 'kind', 'delivery'));
    END LOOP; END $$";

/// A database with the table.
pub(crate) async fn create(cluster: &std::sync::Arc<sms_outbox_tests::Cluster>, name: &str) -> Result<Database> {
    let database = Database::create_empty(cluster, name).await?;
    database.sql(SCHEMA).await?;
    Ok(database)
}

/// Inserts one row at each call, by a connection of its own.
pub(crate) struct Inserter {
    client: Client,
    statement: Statement,
    number: u32,
}

impl Inserter {
    /// The callers.
    pub(crate) async fn open(database: &Database, clients: u32) -> Result<Vec<Self>> {
        let mut callers = Vec::new();
        for place in 0..clients {
            let client = sms_outbox_tests::database::connect(&database.url("postgres")).await?;
            let statement = client.prepare(INSERT).await?;
            callers.push(Self { client, statement, number: place * 1_000_000 });
        }
        Ok(callers)
    }

    /// Its connection.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }
}

impl Caller for Inserter {
    async fn call(&mut self) -> Result<()> {
        self.number += 1;
        let number = self.number;
        let parameters = (message::mobile(number), message::text(number), message::meta(number));
        let done = self.client.execute(&self.statement, &[&parameters.0, &parameters.1, &parameters.2]).await?;
        ensure!(done == 1, "nothing was inserted");
        Ok(())
    }
}

/// Queues messages for the loop.
pub(crate) async fn fill(database: &Database, messages: u32) -> Result<()> {
    database.sql(&format!("TRUNCATE bare; DROP INDEX IF EXISTS bare_pending; {INDEX}")).await?;
    let mut first = 0;
    while first < messages {
        let count = message::MANY.min(messages - first);
        database.admin().execute(INSERT_MANY, &[&message::array(first, count)]).await?;
        first += count;
    }
    database.sql("ANALYZE bare").await
}

/// The loop: claim a batch, send it at once, record it. Prints what it did.
pub(crate) async fn drain(url: &str, messages: u32, batch: u32, provider: Option<&str>) -> Result<()> {
    let client = sms_outbox_tests::database::connect(url).await?;
    let claim = client
        .prepare(
            "UPDATE bare SET status = 'sending' WHERE id = ANY (ARRAY(
                SELECT id FROM bare WHERE status = 'pending' ORDER BY id LIMIT $1 FOR UPDATE SKIP LOCKED)) RETURNING id, mobile, body",
        )
        .await?;
    let finish = client.prepare("UPDATE bare SET status = 'sent', response = $2 WHERE id = ANY ($1)").await?;
    let sender = provider.map(Sender::new).transpose()?;
    let response = ".".repeat(200);
    let begun = Instant::now();
    let mut done = 0;
    while done < messages {
        let rows = client.query(&claim, &[&i64::from(batch)]).await?;
        ensure!(!rows.is_empty(), "only {done} of {messages} messages wait");
        let ids: Vec<Uuid> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        if let Some(sender) = &sender {
            let sends = rows.iter().zip(&ids).map(|(row, id)| async move {
                let (mobile, body): (String, String) = (row.try_get(1)?, row.try_get(2)?);
                sender.send(&mobile, &body, &id.to_string()).await
            });
            try_join_all(sends).await?;
        }
        client.execute(&finish, &[&ids, &response]).await?;
        done += u32::try_from(rows.len()).context("too many rows")?;
    }
    say(&serde_json::json!({ "messages": done, "seconds": begun.elapsed().as_secs_f64() }).to_string());
    Ok(())
}
