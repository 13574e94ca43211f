//! Organizations, and messages held after a restore, a clone or a promotion.

use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::{call, row, rows};

/// A tenant as the view `organizations` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Organization {
    pub(crate) organization_id: String,
    pub(crate) default_region: Option<String>,
    pub(crate) time_zone: Option<String>,
    pub(crate) paused: bool,
    pub(crate) paused_reason: Option<String>,
}

/// All organizations.
pub(crate) async fn list(client: &Client) -> Result<Vec<Organization>, Error> {
    rows(client, "SELECT pg_catalog.to_json(o) FROM sms_outbox.organizations o ORDER BY o.organization_id", &[]).await
}

/// What `organization set` can set; `None` stays, and 0 or an empty list takes a limit away.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Settings<'a> {
    pub(crate) default_region: Option<&'a str>,
    pub(crate) time_zone: Option<&'a str>,
    pub(crate) messages_per_minute: Option<i32>,
    pub(crate) messages_per_day: Option<i32>,
    pub(crate) messages_per_recipient_hour: Option<i32>,
    pub(crate) segments_per_day: Option<i32>,
    pub(crate) allowed_destinations: Option<&'a [String]>,
    pub(crate) blocked_destinations: Option<&'a [String]>,
    pub(crate) allowed_senders: Option<&'a [String]>,
}

/// Makes an organization or changes it.
pub(crate) async fn set(client: &Client, organization: &str, settings: &Settings<'_>) -> Result<(), Error> {
    let statement = "SELECT sms_outbox.set_organization(organization_id => $1, default_region => $2, time_zone => $3,
        messages_per_minute => $4, messages_per_day => $5, messages_per_recipient_hour => $6, segments_per_day => $7,
        allowed_destinations => $8, blocked_destinations => $9, allowed_senders => $10)";
    let parameters: super::Parameters<'_> = &[
        (&organization, Type::TEXT),
        (&settings.default_region, Type::TEXT),
        (&settings.time_zone, Type::TEXT),
        (&settings.messages_per_minute, Type::INT4),
        (&settings.messages_per_day, Type::INT4),
        (&settings.messages_per_recipient_hour, Type::INT4),
        (&settings.segments_per_day, Type::INT4),
        (&settings.allowed_destinations, Type::TEXT_ARRAY),
        (&settings.blocked_destinations, Type::TEXT_ARRAY),
        (&settings.allowed_senders, Type::TEXT_ARRAY),
    ];
    call(client, statement, parameters).await
}

/// Pauses all apps of an organization: its messages wait.
pub(crate) async fn pause(client: &Client, organization: &str, reason: Option<&str>) -> Result<(), Error> {
    let statement = "SELECT sms_outbox.pause_organization(organization_id => $1, reason => $2)";
    call(client, statement, &[(&organization, Type::TEXT), (&reason, Type::TEXT)]).await
}

/// Ends the pause of an organization.
pub(crate) async fn resume(client: &Client, organization: &str) -> Result<(), Error> {
    call(client, "SELECT sms_outbox.resume_organization(organization_id => $1)", &[(&organization, Type::TEXT)]).await
}

/// Gives messages that another server queued to this one; returns how many.
pub(crate) async fn release_held(client: &Client) -> Result<i64, Error> {
    row(client, "SELECT pg_catalog.to_json(sms_outbox.release_held())", &[]).await
}
