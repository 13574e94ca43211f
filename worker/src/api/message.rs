//! A message as the API shows it, and `GET /api/v1/sms/outbox/{id}`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use jiff::Timestamp;
use serde::{Deserialize, Serialize, Serializer};
use serde_json::json;
use serde_json::value::RawValue;
use utoipa::ToSchema;
use utoipa::openapi::schema::SchemaType;
use utoipa::openapi::{Object, ObjectBuilder};

use super::auth::Scope;
use super::codes::Code;
use super::docs::ShowProblems;
use super::problem::Problem;
use super::service::{Effect, Service};
use crate::message::MessageId;

/// Where a message is.
#[derive(Serialize, ToSchema)]
#[schema(example = "pending")]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes the words that the database writes")]
pub(super) enum DispatchStatus {
    Pending,
    Sending,
    Sent,
    Failed,
    DispatchTimeout,
    Canceled,
    Expired,
}

/// What the provider's receipts said.
#[derive(Serialize, ToSchema)]
#[schema(example = "unknown")]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "it describes the words that the database writes")]
pub(super) enum DeliveryStatus {
    Unknown,
    Queued,
    Delivered,
    Undelivered,
    Rejected,
    Expired,
}

/// A message. Times are RFC 3339 in UTC; what is absent is `null`.
#[derive(Serialize, Deserialize, ToSchema)]
pub(super) struct Message {
    /// Its id. Ids sort by time.
    #[schema(example = "r01jd5x3v7k8q2m4n6p8r0s2t4v", pattern = "^r[0-7][0-9a-hjkmnp-tv-z]{25}$")]
    id: String,
    /// Whose message it is.
    #[schema(example = "shop", min_length = 1, max_length = 64)]
    organization_id: String,
    /// The recipient: country code and number, digits alone.
    #[serde(serialize_with = "digits")]
    #[schema(example = "966501234567", pattern = "^[1-9][0-9]{4,14}$")]
    mobile: String,
    /// The text.
    #[schema(required, example = "Order 123 is ready for pickup", max_length = 1600)]
    message: Option<String>,
    /// The sender that was asked for.
    #[schema(required, example = "MyShop", max_length = 16)]
    sender: Option<String>,
    /// When it was asked to be sent; `null` for at once.
    #[schema(required, value_type = Option<String>, format = DateTime, example = "2026-11-23T18:58:58.123456Z")]
    datetime: Option<Timestamp>,
    /// The provider to which it is pinned.
    #[schema(required, example = json!(null))]
    preferred_provider_slug: Option<String>,
    /// The caller's own key of it.
    #[schema(required, example = "order-123-ready", max_length = 255)]
    idempotency_key: Option<String>,
    /// What the caller keeps with it.
    #[schema(required, value_type = Option<std::collections::HashMap<String, serde_json::Value>>, example = json!({"order_id": "123"}))]
    meta: Option<Box<RawValue>>,
    /// Where it is.
    #[schema(value_type = DispatchStatus, example = "sent")]
    dispatch_status: String,
    /// The provider that has it, or had it last.
    #[schema(required, example = "taqnyat-sms")]
    provider_slug: Option<String>,
    /// The organization app that has it, or had it last.
    #[schema(required, example = 1)]
    claimed_organization_app_id: Option<i64>,
    /// What the provider answered: JSON where it was JSON.
    #[schema(required, schema_with = any_json)]
    response: Option<Box<RawValue>>,
    /// Why it was not sent, or not yet.
    #[schema(required, example = json!(null))]
    error_code: Option<String>,
    /// The same in words.
    #[schema(required, example = json!(null))]
    error_message: Option<String>,
    /// Attempts that counted.
    #[schema(example = 1, minimum = 0)]
    attempt_count: i64,
    /// The provider's id of it.
    #[schema(required, example = "4711")]
    provider_message_id: Option<String>,
    /// What receipts said.
    #[schema(required, value_type = Option<DeliveryStatus>, example = "unknown")]
    delivery_status: Option<String>,
    /// How the text travels: `GSM-7` or `UCS-2`.
    #[schema(required, example = "GSM-7")]
    encoding: Option<String>,
    /// How many SMS the text takes.
    #[schema(required, example = 1, minimum = 1)]
    segments: Option<i64>,
    /// 0 urgent, 1 normal, 2 bulk.
    #[schema(example = 1, minimum = 0, maximum = 2)]
    priority: i32,
    /// Not sent after this.
    #[schema(required, value_type = Option<String>, format = DateTime, example = json!(null))]
    valid_until: Option<Timestamp>,
    /// When it is tried next, where that is known.
    #[schema(required, value_type = Option<String>, format = DateTime, example = json!(null))]
    next_attempt_at: Option<Timestamp>,
    /// Why a pending one waits: `datetime`, `backoff`, `worker`, `app_paused`, ….
    #[schema(required, example = json!(null))]
    waits_for: Option<String>,
    /// How often its idempotency key came again with another content, which was not sent.
    #[schema(example = 0, minimum = 0)]
    idempotency_mismatch: i64,
    /// When it was queued.
    #[schema(value_type = String, format = DateTime, example = "2026-11-23T18:58:58.123456Z")]
    created_at: Timestamp,
    /// When its last attempt began.
    #[schema(required, value_type = Option<String>, format = DateTime, example = "2026-11-23T18:58:58.223456Z")]
    claimed_at: Option<Timestamp>,
    /// When the provider accepted it.
    #[schema(required, value_type = Option<String>, format = DateTime, example = "2026-11-23T18:58:58.323456Z")]
    sent_at: Option<Timestamp>,
    /// When it came to its end.
    #[schema(required, value_type = Option<String>, format = DateTime, example = "2026-11-23T18:58:58.323456Z")]
    finalized_at: Option<Timestamp>,
}

impl Message {
    /// Its id, as the database wrote it.
    pub(super) fn id(&self) -> Option<MessageId> {
        self.id.parse().ok()
    }
}

/// Whatever the provider answered, or `null`.
fn any_json() -> Object {
    ObjectBuilder::new()
        .schema_type(SchemaType::AnyValue)
        .description(Some("What the provider answered: JSON where it was JSON."))
        .examples([json!({"messageId": "4711"})])
        .build()
}

fn digits<S: Serializer>(mobile: &str, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_str(mobile.trim_start_matches('+'))
}

/// Show a message
///
/// With where it is, what was tried last, and why it waits or failed.
#[utoipa::path(get, path = "/api/v1/sms/outbox/{id}", tag = "Messages", operation_id = "show",
    params(("id" = String, Path, description = "The id of the message.", example = "r01jd5x3v7k8q2m4n6p8r0s2t4v")),
    responses((status = 200, description = "The message.", body = Message), ShowProblems))]
pub(super) async fn show(
    State(service): State<Service>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Message>, Problem> {
    let entry = service.admit(&headers, Scope::Read).await?;
    let Some(id) = id_of(id) else {
        return Err(service.refuse(&entry, Problem::new(Code::NotFound)).await);
    };
    let found = service.answered(Effect::Reads, service.database().get(&entry, id).await)?;
    found.map(Json).ok_or(Problem::new(Code::NotFound))
}

/// The id in a path. What is no id, or not even text, is no message's id.
pub(super) fn id_of(path: Result<Path<String>, PathRejection>) -> Option<MessageId> {
    path.ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_message_is_shown_as_the_contract_says() {
        let row = r#"{"id":"r01m84wd39be94sbg97t2cw9nr4","organization_id":"shop","mobile":"+966501234567","message":"x","sender":null,
            "datetime":"2026-11-23T21:00:00.5+03:00","preferred_provider_slug":null,"idempotency_key":null,"meta":{"n": 1.00000000000000000001},
            "dispatch_status":"pending","provider_slug":null,"claimed_organization_app_id":null,"response":null,"error_code":null,
            "error_message":null,"attempt_count":0,"provider_message_id":null,"delivery_status":"unknown","encoding":"GSM-7","segments":1,
            "priority":1,"valid_until":null,"next_attempt_at":null,"waits_for":"worker","idempotency_mismatch":0,
            "created_at":"2026-11-23T18:00:00+00:00","claimed_at":null,"sent_at":null,"finalized_at":null,"more":1}"#;
        let message: Message = serde_json::from_str(row).unwrap();
        let shown = serde_json::to_string(&message).unwrap();
        assert!(shown.contains(r#""mobile":"966501234567""#), "{shown}");
        assert!(shown.contains(r#""datetime":"2026-11-23T18:00:00.5Z""#), "{shown}");
        assert!(shown.contains(r#""created_at":"2026-11-23T18:00:00Z""#), "{shown}");
        assert!(shown.contains(r#""meta":{"n": 1.00000000000000000001}"#), "{shown}");
        let fields: serde_json::Map<String, serde_json::Value> = serde_json::from_str(&shown).unwrap();
        let names: Vec<&str> = fields.keys().map(String::as_str).collect();
        assert_eq!(
            names.join(", "),
            "id, organization_id, mobile, message, sender, datetime, preferred_provider_slug, idempotency_key, meta, \
             dispatch_status, provider_slug, claimed_organization_app_id, response, error_code, error_message, \
             attempt_count, provider_message_id, delivery_status, encoding, segments, priority, valid_until, \
             next_attempt_at, waits_for, idempotency_mismatch, created_at, claimed_at, sent_at, finalized_at"
        );
    }
}
