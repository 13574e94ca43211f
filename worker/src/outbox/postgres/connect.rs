//! One way to the database for every part of the program: the URL, TLS, time-outs, and errors that name the cure.
//!
//! The URL is libpq's (`postgres://user:password@host:5432/database?sslmode=…`, or `key=value` words). `sslmode`:
//!
//! | value | encrypted | certificate checked |
//! | --- | --- | --- |
//! | `disable` | never | – |
//! | `prefer` (default) | when the server offers it | no |
//! | `require` | always | no |
//! | `verify-full` | always | chain, by `sslrootcert` or the system's store, and host name |
//!
//! A Unix socket is never encrypted, whatever it says, as with libpq.

mod error;
mod tls;

use std::fmt;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, Socket};

pub use self::error::ConnectError;
use self::error::URL_CURE;
pub(super) use self::error::causes;
pub use self::tls::Connector;

/// Oldest PostgreSQL that carries the extension, as `server_version_num` counts.
pub const OLDEST_SERVER: i32 = 150_000;

/// The connection half that must be polled: it carries the bytes and the notifications.
pub type TlsConnection = Connection<Socket, <Connector as MakeTlsConnect<Socket>>::Stream>;

/// Where to connect and how. Made once from the URL, used for every connection.
#[derive(Clone)]
pub struct Target {
    config: tokio_postgres::Config,
    tls: Connector,
    place: String,
}

impl fmt::Debug for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl fmt::Display for Target {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.place)
    }
}

impl Target {
    /// Reads a URL. `application_name` is what `pg_stat_activity` shows, unless the URL says otherwise.
    pub fn parse(url: &str, application_name: &str, connect_timeout: Duration) -> Result<Self, ConnectError> {
        let (url, tls) = tls::split(url)?;
        let mut config: tokio_postgres::Config = url.parse().map_err(|e| ConnectError::invalid_url(&e))?;
        if config.get_hosts().is_empty() && config.get_hostaddrs().is_empty() {
            return Err(ConnectError::InvalidUrl { fault: "names no host".to_owned(), cure: URL_CURE });
        }
        // The rest of a password with a bare @ in it: it must not be shown as the place that cannot be reached.
        if config.get_hosts().iter().any(|host| matches!(host, Host::Tcp(name) if name.contains('@'))) {
            return Err(ConnectError::InvalidUrl { fault: "has more than one @".to_owned(), cure: URL_CURE });
        }
        if config.get_application_name().is_none() {
            config.application_name(application_name);
        }
        if config.get_connect_timeout().is_none() {
            config.connect_timeout(connect_timeout);
        }
        // A peer that vanished without a word is noticed within a minute, not after the system's two hours.
        config.keepalives_idle(Duration::from_secs(30));
        config.keepalives_interval(Duration::from_secs(10));
        config.keepalives_retries(3);
        config.tcp_user_timeout(Duration::from_secs(60));
        let by_socket =
            config.get_hosts().iter().all(|host| matches!(host, Host::Unix(_))) && config.get_hostaddrs().is_empty();
        config.ssl_mode(match tls.mode {
            _ if by_socket => SslMode::Disable,
            tls::Mode::Disable => SslMode::Disable,
            tls::Mode::Prefer => SslMode::Prefer,
            tls::Mode::Require | tls::Mode::VerifyFull => SslMode::Require,
        });
        let place = place(&config);
        Ok(Self { config, tls: tls.connector()?, place })
    }

    /// The parsed settings, for a pool.
    pub fn config(&self) -> &tokio_postgres::Config {
        &self.config
    }

    /// The TLS side, for a pool.
    pub fn tls(&self) -> Connector {
        self.tls.clone()
    }

    /// [`identify`], by a server that may let us in and then say nothing.
    pub async fn identify(&self, client: &Client) -> Result<Server, ConnectError> {
        self.answered(identify(client)).await
    }

    /// [`check`], in the same way.
    pub async fn check(&self, client: &Client) -> Result<Server, ConnectError> {
        self.answered(check(client)).await
    }

    async fn answered<T>(&self, call: impl Future<Output = Result<T, ConnectError>>) -> Result<T, ConnectError> {
        let silent = |_| ConnectError::Silent { target: self.place.clone(), seconds: self.patience().as_secs_f64() };
        tokio::time::timeout(self.patience(), call).await.map_err(silent)?
    }

    /// How long nothing may be heard while a connection begins.
    fn patience(&self) -> Duration {
        self.config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(5)) * 2
    }

    /// Opens a connection; the caller polls its second half. For LISTEN, where notifications arrive there.
    pub async fn open(&self) -> Result<(Client, TlsConnection), ConnectError> {
        // tokio-postgres bounds the TCP connect alone: a server that accepts and then says nothing must not hang us.
        let limit = self.patience();
        match tokio::time::timeout(limit, self.config.connect(self.tls.clone())).await {
            Ok(connected) => connected.map_err(|e| ConnectError::explained(self.place.clone(), &e)),
            Err(_) => Err(ConnectError::Unreachable {
                target: self.place.clone(),
                fault: format!("no answer within {} s", limit.as_secs()),
            }),
        }
    }

    /// Opens a connection that is served in the background until the client is dropped.
    pub async fn connect(&self) -> Result<Client, ConnectError> {
        let (client, connection) = self.open().await?;
        tokio::spawn(async move {
            // Every call on the client reports the loss itself.
            if let Err(error) = connection.await {
                tracing::debug!(%error, "connection to the database ended");
            }
        });
        Ok(client)
    }
}

/// `host:port/database as user`: everything worth showing of a URL, without the password.
fn place(config: &tokio_postgres::Config) -> String {
    let mut hosts: Vec<String> = config
        .get_hosts()
        .iter()
        .map(|host| match host {
            Host::Tcp(name) => name.clone(),
            #[cfg(unix)]
            Host::Unix(path) => path.display().to_string(),
        })
        .collect();
    if hosts.is_empty() {
        hosts = config.get_hostaddrs().iter().map(ToString::to_string).collect();
    }
    let ports = config.get_ports();
    let places: Vec<String> = hosts
        .iter()
        .enumerate()
        .map(|(n, host)| format!("{host}:{}", ports.get(n).or(ports.first()).copied().unwrap_or(5432)))
        .collect();
    let user = config.get_user().unwrap_or("the system user");
    format!("{}/{} as {user}", places.join(","), config.get_dbname().unwrap_or(user))
}

/// What the database is.
#[derive(Clone, Debug)]
pub struct Server {
    /// `server_version_num`.
    pub version_num: i32,
    /// As PostgreSQL writes it.
    pub version: String,
    /// Name of the database.
    pub database: String,
    /// The extension's version; `None` where it is not installed.
    pub extension: Option<String>,
}

/// Asks who is there; refuses a server that is too old.
async fn identify(client: &Client) -> Result<Server, ConnectError> {
    let row = client
        .query_typed_one(
            "SELECT current_setting('server_version_num')::int4, current_setting('server_version'), \
             current_database()::text, (SELECT extversion FROM pg_catalog.pg_extension WHERE extname = 'sms_outbox')",
            &[],
        )
        .await?;
    let server = Server {
        version_num: row.try_get(0)?,
        version: row.try_get(1)?,
        database: row.try_get(2)?,
        extension: row.try_get(3)?,
    };
    if server.version_num < OLDEST_SERVER {
        return Err(ConnectError::ServerTooOld { found: server.version });
    }
    Ok(server)
}

/// Refuses a database whose extension this binary cannot work with: worker and CLI call it before anything else.
pub async fn check(client: &Client) -> Result<Server, ConnectError> {
    let server = identify(client).await?;
    let binary = env!("CARGO_PKG_VERSION");
    let database = server.database.clone();
    let Some(found) = server.extension.clone() else {
        return Err(ConnectError::NoExtension { database });
    };
    match release(&found).cmp(&release(binary)) {
        std::cmp::Ordering::Equal => Ok(server),
        std::cmp::Ordering::Greater => Err(ConnectError::ExtensionNewer { database, found, binary }),
        std::cmp::Ordering::Less => Err(ConnectError::ExtensionOlder { database, found, binary }),
    }
}

/// Whether a version of the extension belongs to a later release than this binary.
pub fn is_newer(version: &str) -> bool {
    release(version) > release(env!("CARGO_PKG_VERSION"))
}

/// Major and minor number. Patch releases change no SQL contract: `0.1.0` and `0.1.3` work together.
fn release(version: &str) -> (u32, u32) {
    let mut numbers = version.split(['.', '-', '+']).map(|part| part.parse().unwrap_or(0));
    (numbers.next().unwrap_or(0), numbers.next().unwrap_or(0))
}

#[cfg(test)]
mod tests;
