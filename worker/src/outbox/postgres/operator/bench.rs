//! What the command `bench` asks and tells the database: whether it may, its own places and their end, and its load.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error, Statement};
use uuid::Uuid;

use super::{call, row, rows};

/// Marks the schema as this command's own, to be dropped.
const MADE_BY: &str = "made by sms-outbox bench, which removes it when it ends";

/// What decides whether a measurement may begin.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Situation {
    pub(crate) in_recovery: bool,
    /// `*`, or the one organization that this login is bound to.
    pub(crate) organization: Option<String>,
    /// Whether this login may create schemas here.
    pub(crate) may_create: bool,
    /// Group roles that this login would have to be a member of.
    pub(crate) missing_roles: Vec<String>,
    /// Whether the schema `sms_outbox_bench` is there and was made by somebody else.
    pub(crate) is_taken: bool,
    /// Messages that wait or are being sent, of other organizations than those of a measurement.
    pub(crate) waiting: i64,
    pub(crate) sending: i64,
    /// Workers that are alive.
    pub(crate) workers: Vec<String>,
    /// Organizations that a measurement left behind.
    pub(crate) left: Vec<String>,
}

/// Looks, and changes nothing.
pub(crate) async fn situation(client: &Client) -> Result<Situation, Error> {
    let statement = "SELECT pg_catalog.to_json(r) FROM (SELECT
        pg_catalog.pg_is_in_recovery() AS in_recovery,
        sms_outbox.visible_organization() AS organization,
        pg_catalog.has_database_privilege(current_database(), 'CREATE') AS may_create,
        ARRAY(SELECT DISTINCT n.role
                FROM (VALUES ('sms_outbox_operator', 'forget_bench'), ('sms_outbox_worker', 'claim'), ('sms_outbox_app', 'sms_outbox_enqueue')) AS n (role, name)
               WHERE NOT EXISTS (SELECT FROM pg_catalog.pg_proc AS p
                                  JOIN pg_catalog.pg_depend AS d ON d.classid = 'pg_catalog.pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
                                  JOIN pg_catalog.pg_extension AS e ON e.oid = d.refobjid AND e.extname = 'sms_outbox'
                                 WHERE p.proname = n.name AND p.pronamespace <> 'sms_outbox_api'::regnamespace
                                   AND pg_catalog.has_function_privilege(p.oid, 'EXECUTE'))
               ORDER BY 1) AS missing_roles,
        EXISTS (SELECT FROM pg_catalog.pg_namespace AS n WHERE n.nspname = 'sms_outbox_bench'
                   AND pg_catalog.obj_description(n.oid, 'pg_namespace') IS DISTINCT FROM $1) AS is_taken,
        coalesce(q.waiting, 0) AS waiting, coalesce(q.sending, 0) AS sending,
        ARRAY(SELECT w.name FROM sms_outbox.worker_stats AS w WHERE w.alive ORDER BY 1) AS workers,
        ARRAY(SELECT o.organization_id FROM sms_outbox.organizations AS o
               WHERE o.organization_id ~ '^sms-outbox-bench:[0-9a-f]{12}$' ORDER BY 1) AS \"left\"
      FROM (SELECT sum(s.pending)::int8 AS waiting, sum(s.sending)::int8 AS sending FROM sms_outbox.queue_stats AS s
             WHERE s.organization_id !~ '^sms-outbox-bench:[0-9a-f]{12}$') AS q) AS r";
    row(client, statement, &[(&MADE_BY, Type::TEXT)]).await
}

/// Takes the place of the one measurement that runs in this database, until the connection ends. False: somebody has it.
pub(crate) async fn begin(client: &Client) -> Result<bool, Error> {
    row(
        client,
        "SELECT pg_catalog.to_json(pg_catalog.pg_try_advisory_lock('sms_outbox.message'::regclass::oid::int4, 2))",
        &[],
    )
    .await
}

/// Makes the table of the bare INSERT: the columns of a message and its key.
pub(crate) async fn create_floor(client: &Client) -> Result<(), Error> {
    client
        .batch_execute(&format!(
            "BEGIN;
             CREATE SCHEMA sms_outbox_bench;
             COMMENT ON SCHEMA sms_outbox_bench IS '{MADE_BY}';
             CREATE TABLE sms_outbox_bench.bare (
                 id uuid PRIMARY KEY, created_at timestamptz NOT NULL, due_at timestamptz, valid_until timestamptz,
                 priority smallint NOT NULL, segments smallint NOT NULL, encoding text NOT NULL, organization_id text NOT NULL,
                 mobile text NOT NULL, body text NOT NULL, sender text, preferred_provider_slug text, idempotency_key text,
                 meta jsonb NOT NULL);
             COMMIT"
        ))
        .await
}

/// Drops it, where it is there.
pub(crate) async fn drop_floor(client: &Client) -> Result<(), Error> {
    client.batch_execute("DROP TABLE IF EXISTS sms_outbox_bench.bare; DROP SCHEMA IF EXISTS sms_outbox_bench").await
}

/// Forgets the next messages of a measurement, and at the end its organization: 0 then.
pub(crate) async fn forget(client: &Client, organization: &str) -> Result<i64, Error> {
    let statement = "SELECT pg_catalog.to_json(sms_outbox.forget_bench(organization_id => $1))";
    row(client, statement, &[(&organization, Type::TEXT)]).await
}

/// How many other connections of this command the server still serves.
pub(crate) async fn others(client: &Client) -> Result<i64, Error> {
    let statement = "SELECT pg_catalog.to_json(count(*)) FROM pg_catalog.pg_stat_activity
        WHERE datname = current_database() AND usename = current_user AND pid <> pg_catalog.pg_backend_pid()
          AND application_name = current_setting('application_name')";
    row(client, statement, &[]).await
}

/// How much WAL the server has written since it was made, in bytes.
pub(crate) async fn wal(client: &Client) -> Result<i64, Error> {
    let statement =
        "SELECT pg_catalog.to_json(pg_catalog.pg_wal_lsn_diff(pg_catalog.pg_current_wal_insert_lsn(), '0/0')::int8)";
    row(client, statement, &[]).await
}

/// Bytes of the queue on the disk, with its indexes.
pub(crate) async fn size(client: &Client) -> Result<i64, Error> {
    let statement = "SELECT pg_catalog.to_json(sum(pg_catalog.pg_total_relation_size(c.oid))::int8)
        FROM pg_catalog.pg_class AS c WHERE c.relnamespace = 'sms_outbox'::regnamespace AND c.relkind = 'r'";
    row(client, statement, &[]).await
}

/// The least that a statement can do: to the server and back.
pub(crate) async fn nothing(client: &Client) -> Result<(), Error> {
    call(client, "SELECT", &[]).await
}

/// One connection of the load, with its statements prepared.
pub(crate) struct Load {
    client: Client,
    bare: Statement,
    enqueue: Statement,
    organization: String,
}

const BODY: &str =
    "Order 4711 is ready for pickup at the counter until nine tonight. Bring this text with you. Thank you!";

impl Load {
    /// Prepares the statements. The function lives in the schema that the extension was created in, wherever that is.
    pub(crate) async fn prepare(client: Client, organization: &str) -> Result<Self, Error> {
        let schemas: Vec<String> = rows(
            &client,
            "SELECT pg_catalog.to_json(pg_catalog.quote_ident(n.nspname)) FROM pg_catalog.pg_extension e
               JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace WHERE e.extname = 'sms_outbox'",
            &[],
        )
        .await?;
        let schema = schemas.into_iter().next().unwrap_or_default();
        let bare = "INSERT INTO sms_outbox_bench.bare (id, created_at, priority, segments, encoding, organization_id, mobile, body, meta)
                    VALUES ($1, pg_catalog.clock_timestamp(), 1, 1, 'gsm7', $2, $3, $4, '{}')";
        let enqueue = format!(
            "SELECT e.id FROM {schema}.sms_outbox_enqueue(mobile => $1, message => $2, organization_id => $3) AS e"
        );
        Ok(Self {
            bare: client.prepare(bare).await?,
            enqueue: client.prepare_typed(&enqueue, &[Type::TEXT, Type::TEXT, Type::TEXT]).await?,
            organization: organization.to_owned(),
            client,
        })
    }

    /// One bare INSERT, committed.
    pub(crate) async fn insert(&self, number: u64) -> Result<(), Error> {
        let id = Uuid::now_v7();
        self.client.execute(&self.bare, &[&id, &self.organization, &mobile(number), &BODY]).await.map(drop)
    }

    /// One enqueue, committed.
    pub(crate) async fn enqueue(&self, number: u64) -> Result<(), Error> {
        self.client.execute(&self.enqueue, &[&mobile(number), &BODY, &self.organization]).await.map(drop)
    }

    /// Whether commits of this connection wait for the disk: not, or as the login's settings have it.
    pub(crate) async fn wait_for_disk(&self, wait: bool) -> Result<(), Error> {
        self.client.batch_execute(if wait { "RESET synchronous_commit" } else { "SET synchronous_commit = off" }).await
    }
}

/// A number that the numbering plan knows. Nobody is ever asked to write to it.
fn mobile(number: u64) -> String {
    format!("+96650{:07}", number % 10_000_000)
}
