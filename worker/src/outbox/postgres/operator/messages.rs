//! Messages: enqueue, list, show.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::Value;
use tokio_postgres::types::{Json, Type};
use tokio_postgres::{Client, Error};

use super::rows;
use crate::message::Certainty;

/// What to enqueue; what is `None` is left to the database's defaults.
#[derive(Clone, Debug, Default)]
pub(crate) struct NewMessage {
    pub(crate) mobile: String,
    pub(crate) message: String,
    pub(crate) sender: Option<String>,
    pub(crate) datetime: Option<Timestamp>,
    pub(crate) preferred_provider_slug: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) meta: Option<Value>,
    pub(crate) organization_id: Option<String>,
    pub(crate) priority: Option<i32>,
    pub(crate) valid_until: Option<Timestamp>,
}

/// The answer of an enqueue.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Enqueued {
    pub(crate) id: String,
    pub(crate) dispatch_status: String,
    pub(crate) idempotent_replay: bool,
}

/// Enqueues one message. The function lives in the schema that the extension was created in, wherever that is.
pub(crate) async fn enqueue(client: &mut Client, new: &NewMessage) -> Result<Enqueued, Error> {
    let transaction = client.transaction().await?;
    transaction
        .query_typed(
            "SELECT pg_catalog.set_config('search_path', pg_catalog.quote_ident(n.nspname), true)
               FROM pg_catalog.pg_extension e JOIN pg_catalog.pg_namespace n ON n.oid = e.extnamespace
              WHERE e.extname = 'sms_outbox'",
            &[],
        )
        .await?;
    let statement = "SELECT pg_catalog.to_json(e) FROM sms_outbox_enqueue(
        mobile => $1, message => $2, sender => $3, datetime => $4, preferred_provider_slug => $5,
        idempotency_key => $6, meta => coalesce($7, '{}'), organization_id => $8, priority => $9,
        valid_until => $10) AS e";
    let meta = new.meta.as_ref().map(Json);
    let answer = transaction
        .query_typed_one(
            statement,
            &[
                (&new.mobile, Type::TEXT),
                (&new.message, Type::TEXT),
                (&new.sender, Type::TEXT),
                (&new.datetime, Type::TIMESTAMPTZ),
                (&new.preferred_provider_slug, Type::TEXT),
                (&new.idempotency_key, Type::TEXT),
                (&meta, Type::JSONB),
                (&new.organization_id, Type::TEXT),
                (&new.priority, Type::INT4),
                (&new.valid_until, Type::TIMESTAMPTZ),
            ],
        )
        .await?;
    let enqueued = answer.try_get::<_, Json<Enqueued>>(0)?.0;
    transaction.commit().await?;
    Ok(enqueued)
}

/// A message as the view `outbox` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Message {
    pub(crate) id: String,
    pub(crate) organization_id: String,
    pub(crate) mobile: String,
    pub(crate) message: Option<String>,
    pub(crate) sender: Option<String>,
    pub(crate) datetime: Option<Timestamp>,
    pub(crate) preferred_provider_slug: Option<String>,
    pub(crate) idempotency_key: Option<String>,
    pub(crate) meta: Option<Value>,
    pub(crate) dispatch_status: String,
    pub(crate) provider_slug: Option<String>,
    pub(crate) claimed_organization_app_id: Option<i64>,
    pub(crate) response: Option<Value>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) attempt_count: i64,
    pub(crate) provider_message_id: Option<String>,
    pub(crate) delivery_status: Option<String>,
    pub(crate) encoding: Option<String>,
    pub(crate) segments: Option<i64>,
    pub(crate) priority: i32,
    pub(crate) valid_until: Option<Timestamp>,
    pub(crate) next_attempt_at: Option<Timestamp>,
    pub(crate) waits_for: Option<String>,
    pub(crate) idempotency_mismatch: Option<i64>,
    pub(crate) created_at: Timestamp,
    pub(crate) claimed_at: Option<Timestamp>,
    pub(crate) sent_at: Option<Timestamp>,
    pub(crate) finalized_at: Option<Timestamp>,
}

/// Which messages to list.
#[derive(Clone, Debug, Default)]
pub(crate) struct Listing {
    pub(crate) organization_id: Option<String>,
    pub(crate) dispatch_status: Option<Vec<String>>,
    pub(crate) since: Option<Timestamp>,
    pub(crate) limit: i64,
}

/// The newest messages that match.
pub(crate) async fn list(client: &Client, listing: &Listing) -> Result<Vec<Message>, Error> {
    let statement = "SELECT pg_catalog.to_json(m) FROM (
        SELECT o.* FROM sms_outbox.outbox o
         WHERE ($1 IS NULL OR o.organization_id = $1)
           AND ($2 IS NULL OR o.dispatch_status = ANY ($2::sms_outbox.dispatch_status[]))
           AND ($3 IS NULL OR o.created_at >= $3)
         ORDER BY o.id DESC LIMIT $4) AS m";
    let parameters: super::Parameters<'_> = &[
        (&listing.organization_id, Type::TEXT),
        (&listing.dispatch_status, Type::TEXT_ARRAY),
        (&listing.since, Type::TIMESTAMPTZ),
        (&listing.limit, Type::INT8),
    ];
    rows(client, statement, parameters).await
}

/// One message, if it exists and may be seen.
pub(crate) async fn get(client: &Client, id: &str) -> Result<Option<Message>, Error> {
    let statement = "SELECT pg_catalog.to_json(o) FROM sms_outbox.outbox o WHERE o.id = $1::sms_outbox.message_id";
    rows(client, statement, &[(&id, Type::TEXT)]).await.map(|found| found.into_iter().next())
}

/// One attempt as the view `attempts` shows it, with what people call its app while it is installed.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Attempt {
    pub(crate) attempt: i64,
    pub(crate) organization_app_id: Option<i64>,
    pub(crate) provider_slug: Option<String>,
    pub(crate) app: Option<String>,
    /// Whether workers ask the provider what became of it.
    pub(crate) looks_up: Option<bool>,
    pub(crate) status: Option<String>,
    pub(crate) started_at: Option<Timestamp>,
    pub(crate) finished_at: Option<Timestamp>,
    pub(crate) http_status: Option<i64>,
    pub(crate) error_code: Option<String>,
    pub(crate) error_message: Option<String>,
    pub(crate) response: Option<Value>,
    pub(crate) provider_message_id: Option<String>,
    pub(crate) worker: Option<String>,
    /// `None` while it is live.
    pub(crate) certainty: Option<Certainty>,
    pub(crate) delivery_status: Option<String>,
    pub(crate) delivery_code: Option<String>,
    pub(crate) delivery_at: Option<Timestamp>,
    pub(crate) evidence: Option<Vec<Evidence>>,
}

/// What somebody told of an attempt that had ended as unclear.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Evidence {
    pub(crate) at: Timestamp,
    /// `late answer`, `look-up`, `receipt` or `operator`.
    pub(crate) source: String,
    /// `unclear`: asked in vain.
    pub(crate) verdict: String,
    pub(crate) by: String,
    pub(crate) detail: Option<String>,
    /// How the ledger had it before; `None` where this corrected nothing.
    pub(crate) was_finished_at: Option<Timestamp>,
    pub(crate) was_error_code: Option<String>,
}

/// The attempts of a message, in order.
pub(crate) async fn attempts(client: &Client, id: &str) -> Result<Vec<Attempt>, Error> {
    let statement = "SELECT pg_catalog.to_json(r) FROM (
        SELECT a.*, (SELECT i.name FROM sms_outbox.apps_installed i WHERE i.app_id = a.organization_app_id) AS app,
               (SELECT p.looks_up FROM sms_outbox.provider p WHERE p.slug = a.provider_slug) AS looks_up
          FROM sms_outbox.attempts a WHERE a.id = $1::sms_outbox.message_id ORDER BY a.attempt) AS r";
    rows(client, statement, &[(&id, Type::TEXT)]).await
}
