//! `POST /api/v1/sms/outbox`: one message.

use axum::extract::State;
use axum::http::{HeaderMap, StatusCode};
use axum::{Extension, Json};
use serde::Serialize;
use serde_json::Value;
use utoipa::ToSchema;

use super::auth::Scope;
use super::body::Received;
use super::codes::Code;
use super::docs::EnqueueProblems;
use super::json::{self, Fields};
use super::message::DispatchStatus;
use super::problem::Problem;
use super::service::{Effect, Service};
use crate::outbox::postgres::api as database;

/// Key under which a trace is carried in `meta`.
const TRACEPARENT: &str = "traceparent";

/// Most bytes of `meta`; nothing is added to one that is nearly as large.
const ROOM_IN_META: usize = 16 * 1024 - 80;

/// The fields of a message, in the order of [`NewMessage`].
pub(super) const FIELDS: [&str; 9] = [
    "mobile",
    "message",
    "sender",
    "datetime",
    "preferred_provider_slug",
    "idempotency_key",
    "meta",
    "priority",
    "valid_until",
];

/// A message to send. An empty string or `null` in an optional field means: not given.
#[derive(Serialize, ToSchema)]
#[serde(deny_unknown_fields)]
pub(super) struct NewMessage {
    /// The recipient, in any usual writing: `0501234567`, `+966 50 123 4567`, `00966…`; without a country code it is one of the organization's region.
    #[schema(example = "966501234567", min_length = 1, max_length = 64)]
    mobile: String,
    /// The text. More than 160 characters, or 70 with letters outside GSM-7, travel in several segments.
    #[schema(example = "Order 123 is ready for pickup", min_length = 1, max_length = 1600)]
    message: String,
    /// The sender that the recipient sees: a name of up to 11 characters with at least one letter, or a number. The app's own by default.
    #[schema(example = "MyShop", max_length = 16)]
    sender: Option<String>,
    /// When to send it: RFC 3339, or `YYYY-MM-DD HH:MM[:SS]` (also with `T`) in the organization's time zone. Now by default.
    #[schema(example = "", max_length = 64)]
    datetime: Option<String>,
    /// Send it through an installed app of this provider alone. Any app of the organization by default.
    #[schema(example = "", max_length = 64)]
    preferred_provider_slug: Option<String>,
    /// Your own key of this message: the same key again gives the same message, and sends nothing. It makes repeating a request safe.
    #[schema(example = "order-123-ready", max_length = 255)]
    idempotency_key: Option<String>,
    /// Anything of yours, kept with the message: an object of at most 16 KiB.
    #[schema(value_type = Option<std::collections::HashMap<String, Value>>, example = json!({"order_id": "123"}))]
    meta: Option<Value>,
    /// 0 urgent, such as one-time codes; 1 normal; 2 bulk. 1 by default.
    #[schema(example = 1, minimum = 0, maximum = 2)]
    priority: Option<i32>,
    /// Not sent after this: the message then ends as `expired`. Written like `datetime`.
    #[schema(example = "", max_length = 64)]
    valid_until: Option<String>,
}

/// What became of a message.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Enqueued {
    /// The id of the message. Ids sort by time.
    #[schema(example = "r01jd5x3v7k8q2m4n6p8r0s2t4v", pattern = "^r[0-7][0-9a-hjkmnp-tv-z]{25}$")]
    pub(super) id: String,
    /// Its state: `pending` for a new one, the present one for a replay.
    #[schema(value_type = DispatchStatus, example = "pending")]
    pub(super) dispatch_status: String,
    /// Whether its idempotency key stood for an earlier message already, which this is.
    #[schema(example = false)]
    pub(super) idempotent_replay: bool,
}

impl From<database::Enqueued> for Enqueued {
    fn from(from: database::Enqueued) -> Self {
        let database::Enqueued { id, dispatch_status, idempotent_replay } = from;
        Self { id, dispatch_status, idempotent_replay }
    }
}

/// Queue a message
///
/// It is sent as soon as a worker takes it, or at its `datetime`. With an `idempotency_key` the request can be repeated safely: the first
/// message is answered again, with its present state.
#[utoipa::path(post, path = "/api/v1/sms/outbox", tag = "Messages", operation_id = "enqueue",
    params(
        ("Idempotency-Key" = Option<String>, Header, description = "Stands in for the field `idempotency_key`. Given both, they must be equal.", max_length = 255),
        ("traceparent" = Option<String>, Header, description = "W3C trace context: kept as `meta.traceparent`, and carried to the call of the provider. One that is not valid is passed over."),
    ),
    request_body(content = NewMessage, description = "The message."),
    responses(
        (status = 201, description = "The message is queued.", body = Enqueued, links(
            ("show" = (operation_id = "show", parameters(("id" = "$response.body#/id")))),
            ("cancel" = (operation_id = "cancel", parameters(("id" = "$response.body#/id")))),
            ("retry" = (operation_id = "retry", parameters(("id" = "$response.body#/id")))),
        )),
        (status = 200, description = "The idempotency key stood for an earlier message, which is answered. Nothing was queued.", body = Enqueued),
        EnqueueProblems,
    ))]
pub(super) async fn enqueue(
    State(service): State<Service>,
    headers: HeaderMap,
    Extension(received): Extension<Received>,
) -> Result<(StatusCode, Json<Enqueued>), Problem> {
    let entry = service.admit(&headers, Scope::Enqueue).await?;
    let new = match received.json(&headers).and_then(|body| read(body, &headers)) {
        Ok(new) => new,
        Err(problem) => return Err(service.refuse(&entry, problem).await),
    };
    let enqueued = service.answered(Effect::Writes, service.database().enqueue(&entry, new).await)?;
    let status = if enqueued.idempotent_replay { StatusCode::OK } else { StatusCode::CREATED };
    Ok((status, Json(enqueued.into())))
}

fn read(body: &[u8], headers: &HeaderMap) -> Result<database::NewMessage, Problem> {
    let mut new = message_of(Fields::read(json::checked(body)?, &FIELDS, "")?)?;
    new.idempotency_key = idempotency_key(headers, new.idempotency_key)?;
    new.meta = with_trace(traceparent(headers), new.meta);
    Ok(new)
}

/// The fields of one message, each of its kind. What they may be the database judges.
pub(super) fn message_of(mut fields: Fields<'_>) -> Result<database::NewMessage, Problem> {
    let new = database::NewMessage {
        mobile: fields.text("mobile"),
        message: fields.text("message"),
        sender: fields.text("sender"),
        datetime: fields.text("datetime"),
        preferred_provider_slug: fields.text("preferred_provider_slug"),
        idempotency_key: fields.text("idempotency_key"),
        meta: fields.object("meta").map(str::to_owned),
        priority: fields.integer("priority"),
        valid_until: fields.text("valid_until"),
    };
    fields.end().map(|()| new)
}

/// The header stands in for the field.
fn idempotency_key(headers: &HeaderMap, field: Option<String>) -> Result<Option<String>, Problem> {
    let field = field.filter(|key| !key.is_empty());
    let mut key: Option<String> = None;
    for value in headers.get_all("idempotency-key") {
        let text = std::str::from_utf8(value.as_bytes())
            .map_err(|_| Problem::invalid("idempotency_key", "is not UTF-8 in the header Idempotency-Key"))?;
        if text.is_empty() {
            continue;
        }
        if key.as_deref().or(field.as_deref()).is_some_and(|other| other != text) {
            let fault = "differs from the header Idempotency-Key; give one of them, or both equal";
            return Err(Problem::of_field(Code::IdempotencyKeyConflict, "idempotency_key", fault));
        }
        key = Some(text.to_owned());
    }
    Ok(key.or(field))
}

/// The header, where it is a trace: version 00, lower-case hexadecimal, ids that are not zero.
pub(super) fn traceparent(headers: &HeaderMap) -> Option<&str> {
    let text = headers.get(TRACEPARENT)?.to_str().ok()?;
    let parts: Vec<&str> = text.split('-').collect();
    let [version, trace, span, flags] = parts[..] else { return None };
    let hex = |text: &str, length: usize| {
        text.len() == length && text.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
    };
    let zero = |text: &str| text.bytes().all(|byte| byte == b'0');
    let valid = version == "00" && hex(trace, 32) && hex(span, 16) && hex(flags, 2) && !zero(trace) && !zero(span);
    valid.then_some(text)
}

/// Puts a trace into `meta`, unless the caller's has one, or no room.
pub(super) fn with_trace(trace: Option<&str>, meta: Option<String>) -> Option<String> {
    let Some(trace) = trace else { return meta };
    let Some(meta) = meta else { return Some(format!(r#"{{"{TRACEPARENT}":"{trace}"}}"#)) };
    let fields: Result<std::collections::BTreeMap<String, &serde_json::value::RawValue>, _> =
        serde_json::from_str(&meta);
    match (fields, meta.strip_prefix('{')) {
        (Ok(fields), Some(rest)) if !fields.contains_key(TRACEPARENT) && meta.len() <= ROOM_IN_META => {
            let comma = if fields.is_empty() { "" } else { "," };
            Some(format!(r#"{{"{TRACEPARENT}":"{trace}"{comma}{rest}"#))
        }
        _ => Some(meta),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TRACE: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn headers(all: &[(&'static str, &str)]) -> HeaderMap {
        let mut headers = HeaderMap::new();
        for (name, value) in all {
            headers.append(*name, value.parse().expect("a value"));
        }
        headers
    }

    #[test]
    fn the_description_has_the_fields_that_are_read() {
        let schema = serde_json::to_value(<NewMessage as utoipa::PartialSchema>::schema()).unwrap();
        let described: Vec<&String> = schema["properties"].as_object().unwrap().keys().collect();
        let mut read = FIELDS.to_vec();
        read.sort_unstable();
        let mut described: Vec<&str> = described.iter().map(|name| name.as_str()).collect();
        described.sort_unstable();
        assert_eq!(described, read);
        assert_eq!(schema["additionalProperties"], false);
    }

    #[test]
    fn the_example_of_the_contract_is_read() {
        let body = br#"{"mobile":"966501234567","message":"Order 123 is ready for pickup","sender":"MyShop","datetime":"","preferred_provider_slug":"",
 "idempotency_key":"order-123-ready","meta":{"order_id":"123"}}"#;
        let new = read(body, &HeaderMap::new()).unwrap();
        assert_eq!(new.mobile.as_deref(), Some("966501234567"));
        assert_eq!(new.datetime.as_deref(), Some(""));
        assert_eq!(new.meta.as_deref(), Some(r#"{"order_id":"123"}"#));
        assert_eq!(new.priority, None);
    }

    #[test]
    fn header_and_field_of_the_key_agree() {
        let key = |all: &[(&'static str, &str)], field: &str| {
            idempotency_key(&headers(all), Some(field.to_owned())).map_err(|problem| problem.code)
        };
        assert_eq!(key(&[], ""), Ok(None));
        assert_eq!(key(&[("idempotency-key", "k")], ""), Ok(Some("k".to_owned())));
        assert_eq!(key(&[("idempotency-key", "k")], "k"), Ok(Some("k".to_owned())));
        assert_eq!(key(&[("idempotency-key", "")], "k"), Ok(Some("k".to_owned())));
        assert_eq!(key(&[("idempotency-key", "k")], "l"), Err(Code::IdempotencyKeyConflict));
        assert_eq!(key(&[("idempotency-key", "k"), ("idempotency-key", "l")], ""), Err(Code::IdempotencyKeyConflict));
    }

    #[test]
    fn a_trace_goes_into_meta_once() {
        let trace = traceparent(&headers(&[("traceparent", TRACE)])).map(str::to_owned);
        assert_eq!(trace.as_deref(), Some(TRACE));
        let added = |meta: &str| with_trace(trace.as_deref(), Some(meta.to_owned())).unwrap();
        assert_eq!(with_trace(Some("t"), None).as_deref(), Some(r#"{"traceparent":"t"}"#));
        assert_eq!(added("{ }"), format!(r#"{{"traceparent":"{TRACE}" }}"#));
        assert_eq!(added(r#"{"a":1.10}"#), format!(r#"{{"traceparent":"{TRACE}","a":1.10}}"#));
        assert_eq!(added(r#"{"traceparent":"mine"}"#), r#"{"traceparent":"mine"}"#);
        let full = format!(r#"{{"a":"{}"}}"#, "x".repeat(16_370));
        assert_eq!(added(&full), full);
        for bad in [
            "",
            "00-0-0-01",
            &TRACE.to_uppercase(),
            &TRACE.replace("0af7651916cd43dd8448eb211c80319c", &"0".repeat(32)),
            "01-x",
        ] {
            assert_eq!(traceparent(&headers(&[("traceparent", bad)])), None, "{bad}");
        }
    }
}
