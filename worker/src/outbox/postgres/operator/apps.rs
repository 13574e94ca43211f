//! Installed apps.

use std::collections::BTreeMap;

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{Client, Error};

use super::{call, row, rows};

/// An installed app as the view `apps_installed` shows it: which fields of its configuration are set, never their values.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct App {
    pub(crate) app_id: i64,
    pub(crate) organization_id: String,
    pub(crate) provider_slug: String,
    pub(crate) name: String,
    pub(crate) position: i32,
    pub(crate) weight: i32,
    pub(crate) max_in_flight: i32,
    pub(crate) rate: Option<f64>,
    pub(crate) rate_unit: String,
    pub(crate) burst: Option<i32>,
    pub(crate) resend_unclear: bool,
    pub(crate) paused: bool,
    pub(crate) paused_reason: Option<String>,
    pub(crate) state: String,
    pub(crate) config_set: Vec<String>,
    /// How each secret field holds its credential: `sealed KEY`, `env`, `file` or `plain`.
    pub(crate) credentials: BTreeMap<String, String>,
    /// Where its requests go, when that is not the provider's own address.
    pub(crate) address: Option<String>,
    pub(crate) installed_at: Timestamp,
}

/// All installed apps, or those of one organization, in the order in which they are tried.
pub(crate) async fn list(client: &Client, organization: Option<&str>) -> Result<Vec<App>, Error> {
    let statement = "SELECT pg_catalog.to_json(a) FROM sms_outbox.apps_installed a
                      WHERE $1 IS NULL OR a.organization_id = $1 ORDER BY a.organization_id, a.position, a.app_id";
    rows(client, statement, &[(&organization, Type::TEXT)]).await
}

/// Order, limits and flags of an app; what is `None` takes the default at install and is kept at update.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Policy {
    pub(crate) position: Option<i32>,
    pub(crate) weight: Option<i32>,
    pub(crate) max_in_flight: Option<i32>,
    pub(crate) rate: Option<f64>,
    pub(crate) rate_unit: Option<String>,
    pub(crate) burst: Option<i32>,
    pub(crate) resend_unclear: Option<bool>,
}

impl Policy {
    /// Whether it says nothing.
    pub(crate) fn is_empty(&self) -> bool {
        *self == Self::default()
    }
}

/// Installs an app and returns its id.
pub(crate) async fn install(
    client: &Client,
    organization: &str,
    slug: &str,
    name: &str,
    config: &Value,
    policy: &Policy,
) -> Result<i64, Error> {
    let statement = "SELECT pg_catalog.to_json(sms_outbox.install_app(
        organization_id => $1, provider_slug => $2, name => $3, config => $4, \"position\" => coalesce($5, 100),
        weight => coalesce($6, 1), max_in_flight => coalesce($7, 16), rate => $8, resend_unclear => coalesce($9, false),
        rate_unit => coalesce($10, 'messages'), burst => $11))";
    let parameters: super::Parameters<'_> = &[
        (&organization, Type::TEXT),
        (&slug, Type::TEXT),
        (&name, Type::TEXT),
        (&Json(config), Type::JSONB),
        (&policy.position, Type::INT4),
        (&policy.weight, Type::INT4),
        (&policy.max_in_flight, Type::INT4),
        (&policy.rate, Type::FLOAT8),
        (&policy.resend_unclear, Type::BOOL),
        (&policy.rate_unit, Type::TEXT),
        (&policy.burst, Type::INT4),
    ];
    row(client, statement, parameters).await
}

/// Changes an app; what is `None` stays.
pub(crate) async fn update(
    client: &Client,
    app: i64,
    name: Option<&str>,
    config: Option<&Value>,
    policy: &Policy,
) -> Result<(), Error> {
    let statement = "SELECT sms_outbox.update_app(
        app_id => $1, name => $2, config => $3, \"position\" => $4, weight => $5, max_in_flight => $6, rate => $7,
        resend_unclear => $8, rate_unit => $9, burst => $10)";
    let parameters: super::Parameters<'_> = &[
        (&app, Type::INT8),
        (&name, Type::TEXT),
        (&config.map(Json), Type::JSONB),
        (&policy.position, Type::INT4),
        (&policy.weight, Type::INT4),
        (&policy.max_in_flight, Type::INT4),
        (&policy.rate, Type::FLOAT8),
        (&policy.resend_unclear, Type::BOOL),
        (&policy.rate_unit, Type::TEXT),
        (&policy.burst, Type::INT4),
    ];
    call(client, statement, parameters).await
}

/// An app's configuration, credentials included.
#[derive(Deserialize)]
pub(crate) struct Credentials {
    pub(crate) app_id: i64,
    pub(crate) organization_id: String,
    pub(crate) provider_slug: String,
    pub(crate) config: Value,
    /// The same as the database writes it, to see whether it is still the same.
    text: String,
}

/// The configurations of all installed apps, or of those of one organization.
pub(crate) async fn credentials(client: &Client, organization: Option<&str>) -> Result<Vec<Credentials>, Error> {
    let statement = "SELECT pg_catalog.json_build_object('app_id', c.app_id, 'organization_id', c.organization_id,
                            'provider_slug', c.provider_slug, 'config', c.config, 'text', c.config::text)
                       FROM sms_outbox.app_credentials() AS c
                      WHERE $1 IS NULL OR c.organization_id = $1 ORDER BY c.app_id";
    rows(client, statement, &[(&organization, Type::TEXT)]).await
}

/// Replaces fields of a configuration, unless it was changed meanwhile; says whether it was not.
pub(crate) async fn replace_credentials(client: &Client, app: &Credentials, fields: &Value) -> Result<bool, Error> {
    // app_credentials() of one app locks it until the end of the statement.
    let statement = "SELECT sms_outbox.update_app(app_id => c.app_id, config => c.config || $2)
                       FROM sms_outbox.app_credentials($1) AS c WHERE c.config::text = $3";
    let parameters: super::Parameters<'_> =
        &[(&app.app_id, Type::INT8), (&Json(fields), Type::JSONB), (&app.text, Type::TEXT)];
    Ok(!client.query_typed(statement, parameters).await?.is_empty())
}

/// Uninstalls an app: its live attempts finish, its history stays.
pub(crate) async fn uninstall(client: &Client, app: i64) -> Result<(), Error> {
    call(client, "SELECT sms_outbox.uninstall_app(app_id => $1)", &[(&app, Type::INT8)]).await
}

/// Pauses an app: its messages wait, or go to the organization's other apps.
pub(crate) async fn pause(client: &Client, app: i64, reason: Option<&str>) -> Result<(), Error> {
    let statement = "SELECT sms_outbox.pause_app(app_id => $1, reason => $2)";
    call(client, statement, &[(&app, Type::INT8), (&reason, Type::TEXT)]).await
}

/// Ends a pause, and closes the breaker.
pub(crate) async fn resume(client: &Client, app: i64) -> Result<(), Error> {
    call(client, "SELECT sms_outbox.resume_app(app_id => $1)", &[(&app, Type::INT8)]).await
}
