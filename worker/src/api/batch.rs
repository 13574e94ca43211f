//! `POST /api/v1/sms/outbox/batch`: up to 1000 messages, all or none.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::value::RawValue;
use utoipa::ToSchema;

use super::auth::Scope;
use super::body::Received;
use super::docs::EnqueueProblems;
use super::enqueue::{self, Enqueued, FIELDS, NewMessage};
use super::json::{self, Fields};
use super::problem::Problem;
use super::service::{Effect, Service};
use crate::outbox::postgres::api as database;

/// Most messages of one batch.
const MOST: usize = 1000;

/// Several messages, queued together or not at all.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewBatch {
    /// The messages.
    #[schema(min_items = 1, max_items = 1000)]
    messages: Vec<NewMessage>,
}

/// What became of the messages of a batch.
#[derive(Serialize, ToSchema)]
pub(super) struct EnqueuedBatch {
    /// One for each message, in their order.
    #[schema(min_items = 1, max_items = 1000)]
    data: Vec<Enqueued>,
    /// How many they are.
    #[schema(example = 1, minimum = 1, maximum = 1000)]
    count: usize,
}

/// Queue up to 1000 messages
///
/// All or none: one bad message refuses the batch, and the error names its place, counted from 0, as in `messages[17].mobile`. For safe
/// repeating give each message its own `idempotency_key`.
#[utoipa::path(post, path = "/api/v1/sms/outbox/batch", tag = "Messages", operation_id = "enqueue_batch",
    params(
        ("traceparent" = Option<String>, Header, description = "W3C trace context: kept as `meta.traceparent` of each message that has none."),
    ),
    request_body(content = NewBatch, description = "The messages."),
    responses(
        (status = 201, description = "The messages are queued; those that were replays are marked.", body = EnqueuedBatch),
        (status = 200, description = "All idempotency keys stood for earlier messages. Nothing was queued.", body = EnqueuedBatch),
        EnqueueProblems,
    ))]
pub(super) async fn batch(
    State(service): State<Service>,
    headers: HeaderMap,
    Extension(received): Extension<Received>,
) -> Result<(StatusCode, Json<EnqueuedBatch>), Problem> {
    let entry = service.admit(&headers, Scope::Enqueue).await?;
    let messages = match received.json(&headers).and_then(|body| read(body, &headers)) {
        Ok(messages) => messages,
        Err(problem) => return Err(service.refuse(&entry, problem).await),
    };
    let enqueued = service.answered(Effect::Writes, service.database().enqueue_many(&entry, messages).await)?;
    let replays = enqueued.iter().all(|one| one.idempotent_replay);
    let status = if replays { StatusCode::OK } else { StatusCode::CREATED };
    let data: Vec<Enqueued> = enqueued.into_iter().map(Enqueued::from).collect();
    Ok((status, Json(EnqueuedBatch { count: data.len(), data })))
}

/// The array for the database: of each message what was read of it, and nothing else.
fn read(body: &[u8], headers: &HeaderMap) -> Result<String, Problem> {
    if headers.contains_key("idempotency-key") {
        let fault =
            "the header Idempotency-Key stands for one message; give each of a batch its own field idempotency_key";
        return Err(Problem::invalid("idempotency_key", fault));
    }
    let mut fields = Fields::read(json::checked(body)?, &["messages"], "")?;
    let messages = fields.array("messages");
    fields.end()?;
    let messages = messages.unwrap_or_default();
    if !(1..=MOST).contains(&messages.len()) {
        let fault = format!("has {} messages; give 1 to {MOST}", messages.len());
        return Err(Problem::invalid("messages", fault));
    }
    let trace = enqueue::traceparent(headers);
    let mut array = String::with_capacity(body.len() + 2);
    for (index, message) in messages.iter().enumerate() {
        let fields = Fields::read(message.get(), &FIELDS, &format!("messages[{index}]"))?;
        let mut new = enqueue::message_of(fields)?;
        new.meta = enqueue::with_trace(trace, new.meta);
        array.push(if index == 0 { '[' } else { ',' });
        array.push_str(&written(new));
    }
    array.push(']');
    Ok(array)
}

/// One element: `meta` as it was, so that no number loses a digit.
#[derive(Serialize)]
struct Element {
    #[serde(skip_serializing_if = "Option::is_none")]
    mobile: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    message: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    sender: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    datetime: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    preferred_provider_slug: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    idempotency_key: Option<String>,
    #[serde(skip_serializing_if = "Option::is_none")]
    meta: Option<Box<RawValue>>,
    #[serde(skip_serializing_if = "Option::is_none")]
    priority: Option<i32>,
    #[serde(skip_serializing_if = "Option::is_none")]
    valid_until: Option<String>,
}

fn written(new: database::NewMessage) -> String {
    let element = Element {
        mobile: new.mobile,
        message: new.message,
        sender: new.sender,
        datetime: new.datetime,
        preferred_provider_slug: new.preferred_provider_slug,
        idempotency_key: new.idempotency_key,
        // It was read as JSON a moment ago.
        meta: new.meta.and_then(|meta| RawValue::from_string(meta).ok()),
        priority: new.priority,
        valid_until: new.valid_until,
    };
    serde_json::to_string(&element).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::super::codes::Code;
    use super::*;

    fn refused(body: &str) -> (Code, String) {
        let problem = read(body.as_bytes(), &HeaderMap::new()).expect_err("must be refused");
        (problem.code, problem.errors()[0].field.clone())
    }

    #[test]
    fn what_goes_to_the_database_is_what_was_read() {
        let body = r#"{"messages":[{"mobile":"05","meta":{"n":1.000000000000000000000001},"priority":2.0},{"message":"é","sender":null}]}"#;
        let read = read(body.as_bytes(), &HeaderMap::new()).unwrap();
        assert_eq!(read, r#"[{"mobile":"05","meta":{"n":1.000000000000000000000001},"priority":2},{"message":"é"}]"#);
    }

    #[test]
    fn a_bad_message_is_named_by_its_place() {
        for (body, code, field) in [
            (r#"{"messages":[]}"#, Code::InvalidField, "messages"),
            (r#"{}"#, Code::InvalidField, "messages"),
            (r#"{"messages":{}}"#, Code::InvalidField, "messages"),
            (r#"[]"#, Code::InvalidField, "body"),
            (r#"{"messages":[{},7]}"#, Code::InvalidField, "messages[1]"),
            (r#"{"messages":[{},{"mobil":"1"}]}"#, Code::UnknownField, "messages[1].mobil"),
            (r#"{"messages":[{"mobile":"1","mobile":"1"}]}"#, Code::DuplicateField, "messages[0].mobile"),
            (r#"{"messages":[{"mobile":1}]}"#, Code::InvalidField, "messages[0].mobile"),
        ] {
            assert_eq!(refused(body), (code, field.to_owned()), "{body}");
        }
        let many = format!(r#"{{"messages":[{}{{}}]}}"#, "{},".repeat(1000));
        assert_eq!(refused(&many).1, "messages");
    }
}
