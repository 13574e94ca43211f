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

mod tls;

use std::fmt;
use std::time::Duration;

use tokio_postgres::config::{Host, SslMode};
use tokio_postgres::error::SqlState;
use tokio_postgres::tls::MakeTlsConnect;
use tokio_postgres::{Client, Connection, Socket};
use tokio_postgres_rustls::MakeRustlsConnect;

/// Oldest PostgreSQL that carries the extension, as `server_version_num` counts.
pub const OLDEST_SERVER: i32 = 150_000;

/// The connection half that must be polled: it carries the bytes and the notifications.
pub type TlsConnection = Connection<Socket, <MakeRustlsConnect as MakeTlsConnect<Socket>>::Stream>;

/// Why there is no usable connection. No variant can hold the password.
#[derive(Debug, thiserror::Error)]
pub enum ConnectError {
    /// No URL was given.
    #[error(
        "database_url: not set; give --database-url, DATABASE_URL or database_url in the configuration file, \
         like postgres://user:password@host:5432/database"
    )]
    MissingUrl,
    /// The URL cannot be read.
    #[error("database_url: {fault}; {cure}")]
    InvalidUrl {
        /// What is wrong with it, without quoting it.
        fault: String,
        /// How to write it.
        cure: &'static str,
    },
    /// TLS cannot be set up on this side.
    #[error("database_url: {0}")]
    Tls(String),
    /// Nobody answered, or the conversation broke before it began.
    #[error(
        "cannot reach {target}: {fault}; check host and port, that the server runs and listens, and firewalls between"
    )]
    Unreachable {
        /// Where we tried to go.
        target: String,
        /// What the network said.
        fault: String,
    },
    /// TLS was asked for and did not come about.
    #[error(
        "no TLS with {target}: {fault}; turn ssl on at the server (or sslmode=prefer allows a connection without); \
         sslmode=verify-full needs the server's CA as sslrootcert=/path/ca.pem and the host name of its certificate"
    )]
    Handshake {
        /// Where we tried to go.
        target: String,
        /// What went wrong.
        fault: String,
    },
    /// The server does not let this login in.
    #[error(
        "{target} refused the login: {fault}; check user and password in database_url, and pg_hba.conf on the server"
    )]
    Login {
        /// Where we tried to go.
        target: String,
        /// What the server said.
        fault: String,
    },
    /// The server is there and refused for another reason, such as a database that does not exist.
    #[error("{target} refused the connection: {fault}{cure}")]
    Refused {
        /// Where we tried to go.
        target: String,
        /// What the server said.
        fault: String,
        /// What to do about it, if we know.
        cure: &'static str,
    },
    /// A PostgreSQL that the extension does not support.
    #[error("PostgreSQL {found} is too old: sms_outbox needs 15 or newer; upgrade the server")]
    ServerTooOld {
        /// Its version.
        found: String,
    },
    /// No `CREATE EXTENSION sms_outbox` in this database.
    #[error(
        "the extension sms_outbox is not in database {database}; run: sms-outbox install (or connect to the right database)"
    )]
    NoExtension {
        /// The database that we are in.
        database: String,
    },
    /// The database speaks a newer contract than this binary knows.
    #[error(
        "the extension in database {database} is {found}, newer than this sms-outbox {binary}; upgrade the sms-outbox binary"
    )]
    ExtensionNewer {
        /// The database that we are in.
        database: String,
        /// The extension's version.
        found: String,
        /// This binary's version.
        binary: &'static str,
    },
    /// The database has not been brought to this binary's version yet.
    #[error(
        "the extension in database {database} is {found}, older than this sms-outbox {binary}; run: sms-outbox install"
    )]
    ExtensionOlder {
        /// The database that we are in.
        database: String,
        /// The extension's version.
        found: String,
        /// This binary's version.
        binary: &'static str,
    },
    /// The connection broke while we asked who is there.
    #[error("asking the server for its version failed")]
    Query(#[from] tokio_postgres::Error),
}

const URL_CURE: &str =
    "write postgres://user:password@host:5432/database and percent-encode special characters in user and password";

/// Where to connect and how. Made once from the URL, used for every connection.
#[derive(Clone)]
pub struct Target {
    config: tokio_postgres::Config,
    tls: MakeRustlsConnect,
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
        let mut config: tokio_postgres::Config = url.parse().map_err(|e| invalid_url(&e))?;
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
        config.ssl_mode(match tls.mode {
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
    pub fn tls(&self) -> MakeRustlsConnect {
        self.tls.clone()
    }

    /// Opens a connection; the caller polls its second half. For LISTEN, where notifications arrive there.
    pub async fn open(&self) -> Result<(Client, TlsConnection), ConnectError> {
        // tokio-postgres bounds the TCP connect alone: a server that accepts and then says nothing must not hang us.
        let limit = self.config.get_connect_timeout().copied().unwrap_or(Duration::from_secs(5)) * 2;
        match tokio::time::timeout(limit, self.config.connect(self.tls.clone())).await {
            Ok(connected) => connected.map_err(|e| self.explain(&e)),
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

    fn explain(&self, error: &tokio_postgres::Error) -> ConnectError {
        let target = self.place.clone();
        if let Some(db) = error.as_db_error() {
            let fault = db.message().to_owned();
            let code = db.code();
            if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
                return ConnectError::Login { target, fault };
            }
            let cure = match code {
                c if *c == SqlState::UNDEFINED_DATABASE => "; create the database or correct its name in database_url",
                c if *c == SqlState::TOO_MANY_CONNECTIONS => "; raise max_connections or close idle connections",
                c if *c == SqlState::CANNOT_CONNECT_NOW => "; try again when it has started",
                _ => "",
            };
            return ConnectError::Refused { target, fault, cure };
        }
        let fault = causes(error);
        if fault.contains("password missing") || fault.contains("authentication") {
            return ConnectError::Login { target, fault };
        }
        if fault.contains("TLS") || fault.contains("certificate") {
            return ConnectError::Handshake { target, fault };
        }
        ConnectError::Unreachable { target, fault }
    }
}

/// The innermost causes in words: the outer layers only say 'db error' or 'error connecting to server'. Of what the
/// server said the message alone: its detail may quote a row.
pub(super) fn causes(error: &tokio_postgres::Error) -> String {
    if let Some(db) = error.as_db_error() {
        return format!("{} (SQLSTATE {})", db.message(), db.code().code());
    }
    let mut text = error.to_string();
    let mut source = std::error::Error::source(error);
    while let Some(cause) = source {
        let cause_text = cause.to_string();
        if !text.contains(&cause_text) {
            text = format!("{text}: {cause_text}");
        }
        source = cause.source();
    }
    text.strip_prefix("error connecting to server: ").map(str::to_owned).unwrap_or(text)
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

/// The parser's words may quote a piece of a password that was not percent-encoded: only options that we know are repeated.
fn invalid_url(error: &tokio_postgres::Error) -> ConnectError {
    const KNOWN: &[&str] = &[
        "port",
        "connect_timeout",
        "tcp_user_timeout",
        "keepalives",
        "keepalives_idle",
        "keepalives_interval",
        "keepalives_retries",
        "target_session_attrs",
        "channel_binding",
        "load_balance_hosts",
        "hostaddr",
        "sslnegotiation",
        "gssencmode",
        "passfile",
        "service",
        "sslcert",
        "sslkey",
        "fallback_application_name",
        "client_encoding",
        "sslcrl",
        "krbsrvname",
        "sslcompression",
    ];
    let words = std::error::Error::source(error).map(ToString::to_string).unwrap_or_default();
    let option = words.split('`').nth(1).filter(|name| KNOWN.contains(name));
    let fault = match option {
        Some(name) if words.starts_with("unknown") => {
            format!("option {name} is not supported; leave it out")
        }
        Some(name) => format!("option {name} has an invalid value"),
        None => "is no PostgreSQL URL".to_owned(),
    };
    ConnectError::InvalidUrl { fault, cure: URL_CURE }
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
pub async fn identify(client: &Client) -> Result<Server, ConnectError> {
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
