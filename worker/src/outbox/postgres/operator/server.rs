//! The server and the extension in it: install, maintain, and what a doctor asks.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::{Client, Error};

use super::{row, rows};

/// Versions of the extension: in this database, and on the server's disk.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Versions {
    pub(crate) installed: Option<String>,
    /// `None`: the extension's files are not on the server.
    pub(crate) available: Option<String>,
}

/// Which version is installed and which could be.
pub(crate) async fn versions(client: &Client) -> Result<Versions, Error> {
    let statement = "SELECT pg_catalog.to_json(r) FROM (
        SELECT (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'sms_outbox') AS installed,
               (SELECT default_version FROM pg_catalog.pg_available_extensions WHERE name = 'sms_outbox') AS available) AS r";
    row(client, statement, &[]).await
}

/// `CREATE EXTENSION`.
pub(crate) async fn create_extension(client: &Client) -> Result<(), Error> {
    client.batch_execute("CREATE EXTENSION sms_outbox").await
}

/// `ALTER EXTENSION … UPDATE` to the version on the server's disk.
pub(crate) async fn update_extension(client: &Client) -> Result<(), Error> {
    client.batch_execute("ALTER EXTENSION sms_outbox UPDATE").await
}

/// What one task of a maintenance run did.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Maintained {
    pub(crate) task: String,
    pub(crate) moved: i64,
    /// Whether it stopped at its bound with work left.
    pub(crate) more: bool,
}

/// One bounded run of maintenance.
pub(crate) async fn maintain(client: &Client) -> Result<Vec<Maintained>, Error> {
    rows(client, "SELECT pg_catalog.to_json(m) FROM sms_outbox.run_maintenance() AS m", &[]).await
}

/// What can make the server slow, or untruthful about what it has stored.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Facts {
    pub(crate) in_recovery: bool,
    /// `None` where this login may not see it.
    pub(crate) preloaded: Option<bool>,
    pub(crate) fsync: String,
    pub(crate) full_page_writes: String,
    pub(crate) synchronous_commit: String,
    /// Roles and databases for which `synchronous_commit` is set to off.
    pub(crate) asynchronous: Vec<String>,
    /// Seconds after which a commit that did not wait is on the disk at the latest.
    pub(crate) asynchronous_for: f64,
    pub(crate) autovacuum: String,
    pub(crate) wakeup: String,
    pub(crate) default_isolation: String,
    /// Whether this login sees what other logins' sessions do.
    pub(crate) sees_sessions: bool,
    /// Seconds that the oldest transaction of this server is open.
    pub(crate) oldest_transaction: Option<f64>,
    pub(crate) oldest_transaction_pid: Option<i32>,
    /// Transactions that dead rows must outlive, counted from now.
    pub(crate) horizon_age: i64,
    /// Seconds that the oldest prepared transaction is open.
    pub(crate) oldest_prepared: Option<f64>,
    pub(crate) oldest_prepared_gid: Option<String>,
    /// Replication slots that hold the horizon back and that nobody reads.
    pub(crate) idle_slots: Vec<String>,
}

/// Asks the server about itself.
pub(crate) async fn facts(client: &Client) -> Result<Facts, Error> {
    let statement = "SELECT pg_catalog.to_json(r) FROM (SELECT
        pg_catalog.pg_is_in_recovery() AS in_recovery,
        (SELECT 'sms_outbox' = ANY (pg_catalog.regexp_split_to_array(setting, '[\\s,\"'']+'))
           FROM pg_catalog.pg_settings WHERE name = 'shared_preload_libraries') AS preloaded,
        current_setting('fsync') AS fsync,
        current_setting('full_page_writes') AS full_page_writes,
        current_setting('synchronous_commit') AS synchronous_commit,
        ARRAY(SELECT concat_ws(' in ', 'role ' || r.rolname, 'database ' || d.datname) FROM pg_catalog.pg_db_role_setting AS s
                LEFT JOIN pg_catalog.pg_roles AS r ON r.oid = s.setrole LEFT JOIN pg_catalog.pg_database AS d ON d.oid = s.setdatabase
               WHERE 'synchronous_commit=off' = ANY (s.setconfig) AND (d.datname IS NULL OR d.datname = current_database())
               ORDER BY 1) AS asynchronous,
        (SELECT 3 * setting::float8 / 1000 FROM pg_catalog.pg_settings WHERE name = 'wal_writer_delay') AS asynchronous_for,
        current_setting('autovacuum') AS autovacuum,
        sms_outbox.setting('wakeup') AS wakeup,
        current_setting('default_transaction_isolation') AS default_isolation,
        pg_catalog.pg_has_role(current_user, 'pg_read_all_stats', 'USAGE') AS sees_sessions,
        extract(epoch FROM now() - o.xact_start)::float8 AS oldest_transaction,
        o.pid AS oldest_transaction_pid,
        (SELECT coalesce(max(greatest(age(backend_xmin), age(backend_xid))), 0) FROM pg_catalog.pg_stat_activity) AS horizon_age,
        extract(epoch FROM now() - p.prepared)::float8 AS oldest_prepared,
        p.gid AS oldest_prepared_gid,
        ARRAY(SELECT slot_name::text FROM pg_catalog.pg_replication_slots
               WHERE NOT active AND coalesce(xmin, catalog_xmin) IS NOT NULL) AS idle_slots
      FROM (SELECT) AS one
      LEFT JOIN LATERAL (SELECT pid, xact_start FROM pg_catalog.pg_stat_activity
                          WHERE xact_start IS NOT NULL AND backend_type = 'client backend' AND pid <> pg_backend_pid()
                          ORDER BY xact_start LIMIT 1) AS o ON true
      LEFT JOIN LATERAL (SELECT gid, prepared FROM pg_catalog.pg_prepared_xacts ORDER BY prepared LIMIT 1) AS p ON true) AS r";
    row(client, statement, &[]).await
}

/// Settings and counts that decide how fast the server can be.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Speed {
    /// Bytes.
    pub(crate) shared_buffers: i64,
    /// Bytes.
    pub(crate) max_wal_size: i64,
    /// Seconds.
    pub(crate) checkpoint_timeout: i64,
    pub(crate) wal_compression: String,
    /// Whether statements are compiled that the planner takes for costly.
    pub(crate) jit: bool,
    pub(crate) max_connections: i64,
    /// Connections that ordinary logins cannot have.
    pub(crate) reserved_connections: i64,
    /// Connections of now, to all databases.
    pub(crate) connections: i64,
    pub(crate) workers: i64,
    /// Checkpoints since the statistics began, by time and for other reasons.
    pub(crate) checkpoints_timed: i64,
    pub(crate) checkpoints_requested: i64,
}

/// Asks the server, of this `server_version_num`, what makes it fast or slow.
pub(crate) async fn speed(client: &Client, version_num: i32) -> Result<Speed, Error> {
    const SETTINGS: &str = "
        pg_catalog.pg_size_bytes(current_setting('shared_buffers')) AS shared_buffers,
        pg_catalog.pg_size_bytes(current_setting('max_wal_size')) AS max_wal_size,
        (SELECT setting::int8 FROM pg_catalog.pg_settings WHERE name = 'checkpoint_timeout') AS checkpoint_timeout,
        current_setting('wal_compression') AS wal_compression,
        current_setting('jit')::bool AND pg_catalog.pg_jit_available() AS jit,
        current_setting('max_connections')::int8 AS max_connections,
        (SELECT sum(setting::int8)::int8 FROM pg_catalog.pg_settings
          WHERE name IN ('superuser_reserved_connections', 'reserved_connections')) AS reserved_connections,
        (SELECT sum(numbackends)::int8 FROM pg_catalog.pg_stat_database) AS connections,
        (SELECT count(*) FROM sms_outbox.worker_stats WHERE alive) AS workers";
    // The counts moved to a view of their own.
    let (checkpoints, view) = if version_num >= 170_000 {
        ("num_timed AS checkpoints_timed, num_requested AS checkpoints_requested", "pg_stat_checkpointer")
    } else {
        ("checkpoints_timed, checkpoints_req AS checkpoints_requested", "pg_stat_bgwriter")
    };
    let statement =
        format!("SELECT pg_catalog.to_json(r) FROM (SELECT {SETTINGS}, {checkpoints} FROM pg_catalog.{view}) AS r");
    row(client, &statement, &[]).await
}

/// The database's clock.
pub(crate) async fn now(client: &Client) -> Result<Timestamp, Error> {
    row(client, "SELECT pg_catalog.to_json(pg_catalog.now())", &[]).await
}

/// Process id of the server process that serves this connection at this moment.
pub(crate) async fn backend_pid(client: &Client) -> Result<i32, Error> {
    row(client, "SELECT pg_catalog.to_json(pg_catalog.pg_backend_pid())", &[]).await
}

/// Listens on a channel of our own, which wakes no worker.
pub(crate) async fn listen_doctor(client: &Client) -> Result<(), Error> {
    client.batch_execute("LISTEN sms_outbox_doctor").await
}

/// Notifies that channel.
pub(crate) async fn notify_doctor(client: &Client) -> Result<(), Error> {
    client.batch_execute("NOTIFY sms_outbox_doctor").await
}
