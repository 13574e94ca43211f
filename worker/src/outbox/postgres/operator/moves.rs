//! What operators decide of messages: cancel, retry, resolve; by id, or by filter after a count.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{Client, Error};

use super::{row, rows};
use crate::message::{AttemptStatus, Certainty};

/// Ended messages that ended alike: by the attempt that most likely sent them.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Group {
    pub(crate) organization_id: String,
    pub(crate) organization_app_id: Option<i64>,
    pub(crate) provider_slug: Option<String>,
    pub(crate) app: Option<String>,
    pub(crate) error_code: Option<String>,
    pub(crate) certainty: Certainty,
    pub(crate) messages: i64,
    pub(crate) oldest: Timestamp,
    pub(crate) newest: Timestamp,
}

/// What a filter of ended messages matches, most first.
pub(crate) async fn survey(client: &Client, filter: &Value) -> Result<Vec<Group>, Error> {
    let statement = "SELECT pg_catalog.to_json(s) FROM sms_outbox.survey(filter => $1) AS s";
    rows(client, statement, &[(&Json(filter), Type::JSONB)]).await
}

/// How an operator moves a message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Move {
    /// Takes a waiting message back.
    Cancel,
    /// Puts an ended message into the queue again.
    Retry,
    /// Tells what became of a message of which nobody knew whether it was sent.
    Resolve(Resolution),
}

/// What an operator knows of a message, and how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Resolution {
    pub(crate) sent: bool,
    pub(crate) note: String,
}

impl Resolution {
    const fn verdict(&self) -> AttemptStatus {
        if self.sent { AttemptStatus::Accepted } else { AttemptStatus::NotSent }
    }
}

impl Move {
    /// As the command is called.
    pub(crate) const fn verb(&self) -> &'static str {
        match self {
            Self::Cancel => "cancel",
            Self::Retry => "retry",
            Self::Resolve(_) => "resolve",
        }
    }

    /// What a message was after it.
    pub(crate) const fn done(&self) -> &'static str {
        match self {
            Self::Cancel => "canceled",
            Self::Retry => "queued again",
            Self::Resolve(Resolution { sent: true, .. }) => "resolved as sent",
            Self::Resolve(Resolution { sent: false, .. }) => "resolved as not sent",
        }
    }

    /// Whether it is for messages that ended.
    pub(crate) const fn is_of_ended(&self) -> bool {
        matches!(self, Self::Retry | Self::Resolve(_))
    }
}

/// Moves one message; returns its status afterwards.
pub(crate) async fn move_one(client: &Client, what: &Move, id: &str) -> Result<String, Error> {
    let statement = match what {
        Move::Cancel => "SELECT pg_catalog.to_json(sms_outbox.cancel(id => $1))",
        Move::Retry => "SELECT pg_catalog.to_json(sms_outbox.retry(id => $1))",
        Move::Resolve(known) => {
            let statement = "SELECT pg_catalog.to_json(sms_outbox.resolve(
                id => $1::sms_outbox.message_id, verdict => $2::sms_outbox.attempt_status, detail => $3))";
            let verdict = known.verdict().word();
            return row(client, statement, &[(&id, Type::TEXT), (&verdict, Type::TEXT), (&known.note, Type::TEXT)])
                .await;
        }
    };
    row(client, statement, &[(&id, Type::TEXT)]).await
}

/// How many messages a filter matches, and how many were moved.
#[derive(Clone, Copy, Debug, Serialize, Deserialize)]
pub(crate) struct Moved {
    pub(crate) matched: i64,
    pub(crate) moved: i64,
    /// What a retry passes over: messages to numbers on a suppression list.
    #[serde(default)]
    pub(crate) suppressed: i64,
    /// Of those that a retry matches: what may have been sent already.
    #[serde(default)]
    pub(crate) risky: i64,
}

/// Moves at most `most` messages that match a filter, or only counts them.
pub(crate) async fn move_matching(
    client: &Client,
    what: &Move,
    filter: &Value,
    dry_run: bool,
    most: i32,
) -> Result<Moved, Error> {
    let filter = Json(filter);
    let statement = match what {
        Move::Cancel => {
            "SELECT pg_catalog.to_json(m) FROM sms_outbox.cancel(filter => $1, dry_run => $2, max_rows => $3) AS m"
        }
        Move::Retry => {
            "SELECT pg_catalog.to_json(m) FROM sms_outbox.retry(filter => $1, dry_run => $2, max_rows => $3) AS m"
        }
        Move::Resolve(known) => {
            let statement =
                "SELECT pg_catalog.to_json(m) FROM sms_outbox.resolve(filter => $1, dry_run => $2, max_rows => $3,
                verdict => $4::sms_outbox.attempt_status, detail => $5) AS m";
            let verdict = known.verdict().word();
            let parameters: super::Parameters<'_> = &[
                (&filter, Type::JSONB),
                (&dry_run, Type::BOOL),
                (&most, Type::INT4),
                (&verdict, Type::TEXT),
                (&known.note, Type::TEXT),
            ];
            return row(client, statement, parameters).await;
        }
    };
    row(client, statement, &[(&filter, Type::JSONB), (&dry_run, Type::BOOL), (&most, Type::INT4)]).await
}
