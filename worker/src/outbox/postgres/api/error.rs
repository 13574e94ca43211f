//! How a call fails, told apart by what the caller may do next.

use deadpool_postgres::{PoolError, TimeoutType};
use tokio_postgres::Error;

use crate::outbox::postgres::connect;

/// Why a call has no answer.
#[derive(Debug, thiserror::Error)]
pub enum CallError {
    /// There is no connection, or it broke before the statement was sent: nothing was done.
    #[error("{0}")]
    Away(String),
    /// All connections of the pool were at work for as long as a request waits: nothing was done.
    #[error("no free connection in time")]
    Busy,
    /// The connection broke while the statement ran: it may have been committed.
    #[error("{0}")]
    Lost(String),
    /// The database refused; nothing was done.
    #[error("{} (SQLSTATE {})", .0.message, .0.sqlstate)]
    Refused(Box<Refusal>),
    /// The answer is not what this binary expects.
    #[error("{0}")]
    Unexpected(String),
}

/// What the database says about a refusal.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Refusal {
    /// The five characters.
    pub sqlstate: String,
    /// The stable code, where there is one: it travels as the constraint's name.
    pub code: Option<String>,
    /// The field: it travels as the column's name.
    pub field: Option<String>,
    /// What is wrong.
    pub message: String,
    /// More about it, such as `retry_after_seconds: 37`.
    pub detail: Option<String>,
    /// The cure.
    pub hint: Option<String>,
}

impl CallError {
    pub(super) fn of_pool(error: PoolError) -> Self {
        match error {
            // Also where the server refuses our own login: that says nothing about the caller.
            PoolError::Backend(error) => Self::Away(connect::causes(&error)),
            PoolError::Timeout(TimeoutType::Wait) => Self::Busy,
            other => Self::Away(other.to_string()),
        }
    }

    /// Of what comes before the statement itself.
    pub(super) fn before(error: &Error) -> Self {
        Self::refused(error).unwrap_or_else(|| Self::Away(connect::causes(error)))
    }

    /// Of the statement. What the server says about its own end it says before a commit; what only the wire, or a pooler
    /// in between, says leaves the commit open.
    pub(super) fn during(error: &Error) -> Self {
        match Self::refused(error) {
            Some(Self::Refused(refusal)) if is_of_the_wire(&refusal.sqlstate) => Self::Lost(connect::causes(error)),
            Some(refused) => refused,
            None => Self::Lost(connect::causes(error)),
        }
    }

    pub(super) fn no_row() -> Self {
        Self::Unexpected("no row".to_owned())
    }

    fn refused(error: &Error) -> Option<Self> {
        let db = error.as_db_error()?;
        let owned = |text: Option<&str>| text.map(str::to_owned);
        Some(Self::Refused(Box::new(Refusal {
            sqlstate: db.code().code().to_owned(),
            code: owned(db.constraint()),
            field: owned(db.column()),
            message: db.message().to_owned(),
            detail: owned(db.detail()),
            hint: owned(db.hint()),
        })))
    }

    /// Whether the statement was prepared for an extension, or on a connection behind a pooler, that is no longer there.
    pub(super) fn is_of_old_plan(&self) -> bool {
        matches!(self, Self::Refused(refusal) if is_of_old_plan(&refusal.sqlstate))
    }
}

/// 08: connection exception; 40003: statement completion unknown.
fn is_of_the_wire(sqlstate: &str) -> bool {
    sqlstate.starts_with("08") || sqlstate == "40003"
}

/// 0A000: the result type changed; 26000: no such prepared statement; XX000: a type that is gone.
pub(super) fn is_of_old_plan(sqlstate: &str) -> bool {
    matches!(sqlstate, "0A000" | "26000" | "XX000")
}

impl Refusal {
    /// Whether the same call may succeed at once, since a transaction or a cached plan was in its way.
    pub fn is_passing(&self) -> bool {
        matches!(self.sqlstate.as_str(), "40001" | "40P01" | "55P03" | "57014" | "0A000" | "26000")
    }

    /// Whether the server cannot work at this moment: it stops, starts, is a standby, or has no room.
    pub fn is_of_server(&self) -> bool {
        ["08", "57P", "53"].iter().any(|class| self.sqlstate.starts_with(class) && self.sqlstate != "53400")
            || self.sqlstate == "25006"
    }
}
