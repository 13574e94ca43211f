//! A database of a private cluster, with the extension unless asked otherwise.

use std::fmt::Display;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};

use anyhow::{Context, Result};
use serde_json::Value;
use tokio_postgres::types::{FromSqlOwned, ToSql};
use tokio_postgres::{Client, Config, NoTls};

use crate::Cluster;
use crate::process::{output, output_of_input, tail};
use crate::wait::poll;

/// Logins that [`Database::create`] makes, each a member of the extension's group role of that name.
pub const LOGINS: [&str; 5] = ["api", "app", "worker", "operator", "monitor"];

/// Opens a connection and keeps it going in the background.
pub async fn connect(config: &str) -> Result<Client> {
    let config: Config = config.parse()?;
    let (client, connection) = config.connect(NoTls).await.context("cannot connect")?;
    tokio::spawn(connection);
    Ok(client)
}

/// A database.
#[derive(Debug)]
pub struct Database {
    cluster: Arc<Cluster>,
    name: String,
    admin: Client,
    logs: Mutex<Vec<PathBuf>>,
}

impl Database {
    /// Creates database `name` with the extension, and the [`LOGINS`]. The names of databases are the test's own.
    pub async fn create(cluster: &Arc<Cluster>, name: &str) -> Result<Self> {
        let database = Self::create_empty(cluster, name).await?;
        database.sql("CREATE EXTENSION sms_outbox").await?;
        database.create_logins().await?;
        Ok(database)
    }

    /// Creates database `name` without the extension.
    pub async fn create_empty(cluster: &Arc<Cluster>, name: &str) -> Result<Self> {
        let maintenance = connect(&cluster.socket_url("postgres", "postgres")).await?;
        maintenance.batch_execute(&format!("CREATE DATABASE \"{name}\"")).await?;
        Self::open(cluster, name).await
    }

    /// An existing database: after a restart (its connections are lost), or one that a test restored.
    pub async fn open(cluster: &Arc<Cluster>, name: &str) -> Result<Self> {
        let admin = connect(&cluster.socket_url(name, "postgres")).await?;
        Ok(Self { cluster: Arc::clone(cluster), name: name.to_owned(), admin, logs: Mutex::default() })
    }

    /// Connects anew after the server was restarted, or as soon as one that lost a process has restarted by itself.
    pub async fn reconnect(&mut self) -> Result<()> {
        let again = async || Ok(if self.admin.is_closed() { self.connect().await.ok() } else { None });
        let admin = poll("the server takes connections again", again, async || self.cluster.log_tail()).await?;
        self.admin = admin;
        Ok(())
    }

    /// Makes the [`LOGINS`], for a test that created the extension in a way of its own.
    pub async fn create_logins(&self) -> Result<()> {
        for login in LOGINS {
            let password = self.cluster.password();
            self.sql(&format!(
                "DO $$ BEGIN
                    IF NOT EXISTS (SELECT FROM pg_roles WHERE rolname = '{login}') THEN
                        CREATE ROLE {login} LOGIN PASSWORD '{password}' IN ROLE sms_outbox_{login};
                    END IF;
                EXCEPTION WHEN duplicate_object OR unique_violation THEN
                    NULL; -- another test on the same server was faster
                END $$"
            ))
            .await?;
        }
        Ok(())
    }

    /// The server.
    pub fn cluster(&self) -> &Arc<Cluster> {
        &self.cluster
    }

    /// Its name.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// A superuser's connection that is always there.
    pub fn admin(&self) -> &Client {
        &self.admin
    }

    /// Another connection of the superuser.
    pub async fn connect(&self) -> Result<Client> {
        self.connect_as("postgres").await
    }

    /// A connection of one of the [`LOGINS`], or of a login that the test made.
    pub async fn connect_as(&self, role: &str) -> Result<Client> {
        connect(&self.cluster.socket_url(&self.name, role)).await
    }

    /// Connection string by TCP.
    pub fn url(&self, role: &str) -> String {
        self.cluster.url(&self.name, role)
    }

    /// Runs statements as superuser.
    pub async fn sql(&self, statements: &str) -> Result<()> {
        self.admin.batch_execute(statements).await.with_context(|| statements.to_owned())
    }

    /// The one value of a query's one row.
    pub async fn value<T: FromSqlOwned>(&self, query: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<T> {
        let row = self.admin.query_one(query, parameters).await.with_context(|| query.to_owned())?;
        Ok(row.try_get(0)?)
    }

    /// The rows of a query, each a JSON object.
    pub async fn rows(&self, query: &str) -> Result<Vec<Value>> {
        let rows: Value =
            self.value(&format!("SELECT coalesce(jsonb_agg(to_jsonb(row)), '[]') FROM ({query}) AS row"), &[]).await?;
        serde_json::from_value(rows).context("not an array")
    }

    /// What psql prints for a script, unaligned and without headers, as superuser.
    pub async fn psql(&self, script: &str) -> Result<String> {
        self.psql_as("postgres", script).await
    }

    /// The same as another role.
    pub async fn psql_as(&self, role: &str, script: &str) -> Result<String> {
        let mut command = self.cluster.tool("psql")?;
        command.args(["-XqAt", "-v", "ON_ERROR_STOP=1", "-f", "-", "-d"]);
        command.arg(self.cluster.socket_url(&self.name, role));
        output_of_input(command, script).await
    }

    /// The whole database as `pg_dump` writes it in plain SQL.
    pub async fn dump(&self, options: &[&str]) -> Result<String> {
        let mut command = self.cluster.tool("pg_dump")?;
        command.args(options).arg("-d").arg(self.cluster.socket_url(&self.name, "postgres"));
        output(command).await
    }

    /// Waits until a query gives `true`. When patience ends, the error holds the views and the tails of the logs.
    pub async fn wait_until(&self, what: impl Display, query: &str) -> Result<()> {
        self.wait_for(what, async || Ok(self.value::<bool>(query, &[]).await?.then_some(()))).await
    }

    /// Waits until `condition` gives a value, with the same evidence.
    pub async fn wait_for<T>(
        &self,
        what: impl Display,
        condition: impl AsyncFnMut() -> Result<Option<T>>,
    ) -> Result<T> {
        poll(what, condition, async || self.evidence().await).await
    }

    /// What a person would look at first: the views, and the last lines of every log.
    pub async fn evidence(&self) -> String {
        let mut text = String::new();
        for view in ["outbox", "attempts", "queue_stats", "app_stats", "worker_stats", "health"] {
            // A database without the extension, or a server that is down, has nothing to show.
            for row in self.rows(&format!("SELECT * FROM sms_outbox.{view} LIMIT 20")).await.unwrap_or_default() {
                text.push_str(&format!("{view}: {row}\n"));
            }
        }
        for log in self.logs() {
            text.push_str(&format!("-- {}\n{}\n", log.display(), tail(&log)));
        }
        text + &self.cluster.log_tail()
    }

    /// The logs of the workers that run, or ran, on it.
    pub fn logs(&self) -> Vec<PathBuf> {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).clone()
    }

    /// Adds a log to the evidence.
    pub(crate) fn add_log(&self, log: PathBuf) {
        self.logs.lock().unwrap_or_else(PoisonError::into_inner).push(log);
    }
}
