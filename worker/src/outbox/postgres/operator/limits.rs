//! Limits against abuse, and suppression lists.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::{row, rows};

/// What an organization may enqueue and has enqueued, as the view `limits` shows it.
#[derive(Debug, Serialize, Deserialize)]
#[allow(missing_docs, reason = "the columns of the view")]
pub(crate) struct Limits {
    pub(crate) organization_id: String,
    pub(crate) messages_per_minute: Option<i64>,
    pub(crate) messages_this_minute: Option<i64>,
    pub(crate) messages_per_day: Option<i64>,
    pub(crate) messages_today: Option<i64>,
    pub(crate) segments_per_day: Option<i64>,
    pub(crate) segments_today: Option<i64>,
    pub(crate) messages_per_recipient_hour: Option<i64>,
    pub(crate) allowed_destinations: Option<Vec<String>>,
    pub(crate) blocked_destinations: Option<Vec<String>>,
    pub(crate) allowed_senders: Option<Vec<String>>,
    pub(crate) suppressed_numbers: i64,
}

/// The limits of all organizations, or of one.
pub(crate) async fn list(client: &Client, organization: Option<&str>) -> Result<Vec<Limits>, Error> {
    let statement = "SELECT pg_catalog.to_json(l) FROM sms_outbox.limits AS l
                      WHERE $1 IS NULL OR l.organization_id = $1 ORDER BY l.organization_id";
    rows(client, statement, &[(&organization, Type::TEXT)]).await
}

/// A number that an organization must not write to.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Suppressed {
    pub(crate) organization_id: String,
    pub(crate) mobile: String,
    pub(crate) reason: Option<String>,
    pub(crate) created_at: Timestamp,
}

/// The suppression lists of all organizations, or of one.
pub(crate) async fn suppressed(client: &Client, organization: Option<&str>) -> Result<Vec<Suppressed>, Error> {
    let statement = "SELECT pg_catalog.to_json(s) FROM sms_outbox.suppressed AS s
                      WHERE $1 IS NULL OR s.organization_id = $1 ORDER BY s.organization_id, s.created_at, s.mobile";
    rows(client, statement, &[(&organization, Type::TEXT)]).await
}

/// Puts a number on the list; returns how many waiting messages that canceled.
pub(crate) async fn suppress(
    client: &Client,
    organization: &str,
    mobile: &str,
    reason: Option<&str>,
) -> Result<i64, Error> {
    let statement = "SELECT pg_catalog.to_json(sms_outbox.suppress(organization_id => $1, mobile => $2, reason => $3))";
    row(client, statement, &[(&organization, Type::TEXT), (&mobile, Type::TEXT), (&reason, Type::TEXT)]).await
}

/// Takes a number off the list; says whether it was on it.
pub(crate) async fn unsuppress(client: &Client, organization: &str, mobile: &str) -> Result<bool, Error> {
    let statement = "SELECT pg_catalog.to_json(sms_outbox.unsuppress(organization_id => $1, mobile => $2))";
    row(client, statement, &[(&organization, Type::TEXT), (&mobile, Type::TEXT)]).await
}
