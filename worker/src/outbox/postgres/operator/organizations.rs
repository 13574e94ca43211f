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

/// Makes an organization or changes it; what is `None` stays.
pub(crate) async fn set(
    client: &Client,
    organization: &str,
    region: Option<&str>,
    time_zone: Option<&str>,
) -> Result<(), Error> {
    let statement = "SELECT sms_outbox.set_organization(organization_id => $1, default_region => $2, time_zone => $3)";
    call(client, statement, &[(&organization, Type::TEXT), (&region, Type::TEXT), (&time_zone, Type::TEXT)]).await
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
