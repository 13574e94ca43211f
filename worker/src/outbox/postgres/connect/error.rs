//! Why there is no usable connection, and what to do about it.

use tokio_postgres::error::SqlState;

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
    /// The login was taken, and then nothing came.
    #[error(
        "{target} let us in and did not say within {seconds} s who it is; look for a server that stands still or is \
         overloaded, for a pooler before it that has no server to give, and for a firewall that swallows packets"
    )]
    Silent {
        /// Where we are.
        target: String,
        /// How long we waited.
        seconds: f64,
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

pub(super) const URL_CURE: &str =
    "write postgres://user:password@host:5432/database and percent-encode special characters in user and password";

impl ConnectError {
    /// What it means that no connection to this place came about.
    pub(super) fn explained(target: String, error: &tokio_postgres::Error) -> Self {
        if let Some(db) = error.as_db_error() {
            let fault = db.message().to_owned();
            let code = db.code();
            if *code == SqlState::INVALID_PASSWORD || *code == SqlState::INVALID_AUTHORIZATION_SPECIFICATION {
                return Self::Login { target, fault };
            }
            let cure = match code {
                c if *c == SqlState::UNDEFINED_DATABASE => "; create the database or correct its name in database_url",
                c if *c == SqlState::TOO_MANY_CONNECTIONS => "; raise max_connections or close idle connections",
                c if *c == SqlState::CANNOT_CONNECT_NOW => "; try again when it has started",
                _ => "",
            };
            return Self::Refused { target, fault, cure };
        }
        let fault = causes(error);
        if fault.contains("password missing") || fault.contains("authentication") {
            return Self::Login { target, fault };
        }
        if fault.contains("TLS") || fault.contains("certificate") {
            return Self::Handshake { target, fault };
        }
        Self::Unreachable { target, fault }
    }

    /// The parser's words may quote a piece of a password that was not percent-encoded: only options that we know are repeated.
    pub(super) fn invalid_url(error: &tokio_postgres::Error) -> Self {
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
        Self::InvalidUrl { fault, cure: URL_CURE }
    }
}

/// The innermost causes in words: the outer layers only say 'db error' or 'error connecting to server'. Of what the
/// server said the message alone: its detail may quote a row.
pub(in crate::outbox::postgres) fn causes(error: &tokio_postgres::Error) -> String {
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
