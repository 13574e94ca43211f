//! The OpenAPI document beyond the calls themselves, and the pages that show it: all from this binary, nothing from
//! elsewhere.

use std::collections::BTreeMap;

use axum::Router;
use axum::extract::Request;
use axum::http::{HeaderValue, header};
use axum::middleware::{self, Next};
use axum::response::Response;
use serde_json::json;
use utoipa::openapi::header::Header;
use utoipa::openapi::security::{HttpAuthScheme, HttpBuilder, SecurityRequirement, SecurityScheme};
use utoipa::openapi::tag::TagBuilder;
use utoipa::openapi::{
    Components, Content, Info, License, OpenApi, OpenApiBuilder, Ref, RefOr, Response as Described, ResponseBuilder,
    Server, Type, schema,
};
use utoipa::{IntoResponses, PartialSchema, ToSchema};
use utoipa_swagger_ui::{Config, SwaggerUi};

use super::codes::{Code, OF_BODIES, OF_ENQUEUE, OF_EVERY_CALL};
use super::problem::{Document, FieldError};

const ABOUT: &str = "\
Queue SMS messages, and see what became of each. A message is queued in the database before it is answered; a worker hands it to one of the \
organization's installed SMS apps.\n\n\
Every call needs an API key: `Authorization: Bearer smsk_…`. Press **Authorize**, paste the key, and every call on this page is made with it. \
An operator makes keys with `sms-outbox key create`. Session tokens (JWT) are taken where the operator has configured them.\n\n\
Refusals are problem documents (RFC 9457) with a stable `code`.";

/// Scripts and styles of our own alone; images also as the page's own data. No frame of others around it.
const CONTENT_SECURITY_POLICY: &str = "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; img-src 'self' data:; \
     font-src 'self'; connect-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'";

/// The head of the document.
pub(super) fn about() -> OpenApi {
    let mut info = Info::new("sms_outbox", env!("CARGO_PKG_VERSION"));
    info.description = Some(ABOUT.to_owned());
    info.license = Some(License::new("Apache-2.0"));
    let key = HttpBuilder::new()
        .scheme(HttpAuthScheme::Bearer)
        .description(Some("An API key (`smsk_…`) or a session token. A key is also taken bare, without `Bearer`."));
    let mut components = Components::new();
    components.add_security_scheme("key", SecurityScheme::Http(key.build()));
    OpenApiBuilder::new()
        .info(info)
        .servers(Some([Server::new("/")]))
        .components(Some(components))
        .tags(Some([
            TagBuilder::new().name("Messages").description(Some("Queue, look, take back.")).build(),
            TagBuilder::new().name("Probes").description(Some("For orchestrators; without a key.")).build(),
        ]))
        .build()
}

/// Adds what is the same for every call.
pub(super) fn finished(mut document: OpenApi) -> OpenApi {
    if let Some(components) = &mut document.components {
        components.schemas.insert("Problem".to_owned(), Document::schema());
        components.schemas.insert(FieldError::name().into_owned(), FieldError::schema());
    }
    // Without examples: the page would send them, and a stranger's organization is not called shop.
    let organization = json!({
        "name": "X-Organization-ID", "in": "header", "required": false,
        "description": "The organization to act for: one of those that the token is good for. With an API key it may be left out; given, it must be the key's.",
        "schema": {"type": "string", "maxLength": 64, "pattern": "^[A-Za-z0-9_.:-]*$"},
    });
    for (path, item) in &mut document.paths.paths {
        if !path.starts_with("/api/") {
            continue;
        }
        for operation in [&mut item.get, &mut item.post].into_iter().flatten() {
            operation.security = Some(vec![SecurityRequirement::new::<_, [&str; 0], _>("key", [])]);
            if let Ok(parameter) = serde_json::from_value(organization.clone()) {
                operation.parameters.get_or_insert_default().push(parameter);
            }
        }
    }
    // An empty time means none, which is no date-time.
    let gets = document.paths.paths.values_mut().filter_map(|item| item.get.as_mut());
    for parameter in gets.flat_map(|get| get.parameters.iter_mut().flatten()) {
        if let RefOr::T(parameter) = parameter
            && parameter.name.starts_with("created_")
            && let Some(time) = parameter.schema.take()
        {
            let empty = schema::ObjectBuilder::new().schema_type(Type::String).max_length(Some(0));
            parameter.schema = Some(schema::AnyOfBuilder::new().item(time).item(empty).into());
        }
    }
    document
}

/// The document as text.
pub(super) fn written(document: &OpenApi) -> String {
    let mut document = serde_json::to_value(document).unwrap_or_default();
    // utoipa has no word for it: an empty parameter is one that is not given.
    if let Some(parameters) = document.pointer_mut("/paths/~1api~1v1~1sms~1outbox/get/parameters") {
        for parameter in parameters.as_array_mut().into_iter().flatten() {
            if parameter["in"] == "query" {
                parameter["allowEmptyValue"] = json!(true);
            }
        }
    }
    serde_json::to_string_pretty(&document).unwrap_or_default()
}

/// The refusals of a call, by status, each with its codes.
fn problems(groups: &[&[Code]]) -> BTreeMap<String, RefOr<Described>> {
    let mut by_status: BTreeMap<u16, Vec<Code>> = BTreeMap::new();
    for code in Code::ALL.iter().filter(|code| groups.iter().any(|group| group.contains(code))) {
        by_status.entry(code.status().as_u16()).or_default().push(*code);
    }
    by_status.into_iter().map(|(status, codes)| (status.to_string(), RefOr::T(refusal(&codes)))).collect()
}

fn refusal(codes: &[Code]) -> Described {
    let described: Vec<String> = codes.iter().map(|code| format!("- `{}`: {}", code.text(), code.meaning())).collect();
    let mut content = Content::new(Some(RefOr::Ref(Ref::from_schema_name("Problem"))));
    content.example = codes.first().map(|code| example(*code));
    let text = |description: &str| {
        let mut header = Header::new(schema::Object::with_type(Type::String));
        header.description = Some(description.to_owned());
        header
    };
    let mut response = ResponseBuilder::new()
        .description(described.join("\n"))
        .content("application/problem+json", content)
        .header("X-Request-ID", text("The id of this request, as in the document."));
    match codes.first().map(|code| code.status().as_u16()) {
        Some(401) => response = response.header("WWW-Authenticate", text("Always `Bearer`.")),
        Some(429 | 503) => response = response.header("Retry-After", text("Seconds to wait before the next try.")),
        _ => {}
    }
    response.build()
}

fn example(code: Code) -> serde_json::Value {
    let mut example = json!({
        "type": "about:blank",
        "title": code.status().canonical_reason(),
        "status": code.status().as_u16(),
        "code": code.text(),
        "detail": code.meaning(),
        "request_id": "8d1a9d1e-6ed7-4d52-9a3c-6a2f0b4f1f0e",
    });
    if code == Code::InvalidField {
        example["errors"] = json!([{"field": "mobile", "message": "is no valid mobile number"}]);
    }
    example
}

macro_rules! refusals {
    ($($name:ident: $($group:expr),+;)+) => {
        $(
            /// The refusals of a call.
            pub(super) struct $name;

            impl IntoResponses for $name {
                fn responses() -> BTreeMap<String, RefOr<Described>> {
                    problems(&[$($group),+])
                }
            }
        )+
    };
}

refusals! {
    EnqueueProblems: OF_EVERY_CALL, OF_BODIES, OF_ENQUEUE, &[Code::IdempotencyKeyConflict];
    ShowProblems: OF_EVERY_CALL, &[Code::NotFound];
    ListProblems: OF_EVERY_CALL, &[Code::InvalidField, Code::UnknownField, Code::DuplicateField];
    CancelProblems: OF_EVERY_CALL, &[Code::NotFound, Code::WrongState, Code::OutcomeUnknown];
    RetryProblems: OF_EVERY_CALL, &[Code::NotFound, Code::RecipientSuppressed, Code::WrongState, Code::OutcomeUnknown];
    ProbeProblems: &[Code::DatabaseUnavailable];
}

/// `/docs`: Swagger UI.
pub(super) fn pages<S: Clone + Send + Sync + 'static>() -> Router<S> {
    let config = Config::new(["/openapi.json"])
        .persist_authorization(true)
        .try_it_out_enabled(true)
        .display_request_duration(true)
        .doc_expansion("list")
        .validator_url("none");
    Router::from(SwaggerUi::new("/docs").config(config)).layer(middleware::from_fn(guarded))
}

async fn guarded(request: Request, next: Next) -> Response {
    let mut response = next.run(request).await;
    let headers = response.headers_mut();
    headers.insert(header::CONTENT_SECURITY_POLICY, HeaderValue::from_static(CONTENT_SECURITY_POLICY));
    headers.insert(header::REFERRER_POLICY, HeaderValue::from_static("no-referrer"));
    response
}
