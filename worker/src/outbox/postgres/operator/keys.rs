//! API keys.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::{call, row, rows};

/// A key as the view `api_keys` shows it: the database knows its digest, and shows not even that.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Key {
    pub(crate) key_id: String,
    pub(crate) prefix: String,
    pub(crate) organization_id: String,
    pub(crate) name: String,
    pub(crate) scopes: Vec<String>,
    /// By the database's clock, which also judges the key: `active`, `expired` or `revoked`.
    pub(crate) state: String,
    pub(crate) created_at: Timestamp,
    pub(crate) expires_at: Option<Timestamp>,
    pub(crate) last_used_at: Option<Timestamp>,
    pub(crate) revoked_at: Option<Timestamp>,
}

/// All keys, or those of one organization, the newest last.
pub(crate) async fn list(client: &Client, organization: Option<&str>) -> Result<Vec<Key>, Error> {
    let statement = "SELECT pg_catalog.to_json(k) FROM (
        SELECT a.key_id, a.prefix, a.organization_id, a.name, a.scopes,
               CASE WHEN a.revoked_at IS NOT NULL THEN 'revoked'
                    WHEN a.expires_at <= pg_catalog.now() THEN 'expired' ELSE 'active' END AS state,
               a.created_at, a.expires_at, a.last_used_at, a.revoked_at
          FROM sms_outbox.api_keys a
         WHERE $1 IS NULL OR a.organization_id = $1
         ORDER BY a.organization_id, a.created_at, a.key_id) AS k";
    rows(client, statement, &[(&organization, Type::TEXT)]).await
}

/// Makes a key and returns it. Nobody can show it again.
pub(crate) async fn create(
    client: &Client,
    organization: &str,
    name: &str,
    scopes: &[String],
    expires_at: Option<Timestamp>,
) -> Result<String, Error> {
    let statement = "SELECT pg_catalog.to_json(sms_outbox.create_api_key(
        organization_id => $1, name => $2, scopes => $3, expires_at => $4))";
    let parameters: super::Parameters<'_> = &[
        (&organization, Type::TEXT),
        (&name, Type::TEXT),
        (&scopes, Type::TEXT_ARRAY),
        (&expires_at, Type::TIMESTAMPTZ),
    ];
    row(client, statement, parameters).await
}

/// Revokes a key: the next request with it is refused.
pub(crate) async fn revoke(client: &Client, key_id: &str) -> Result<(), Error> {
    call(client, "SELECT sms_outbox.revoke_api_key(key_id => $1)", &[(&key_id, Type::TEXT)]).await
}
