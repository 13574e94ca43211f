//! What surrounds every handler: the id of the request, the log, problem documents, panics, and the limit of what is in
//! flight. Logs hold the route, never the path or the query, where ids and numbers stand.

use std::any::Any;
use std::sync::Arc;
use std::time::{Duration, Instant};

use axum::extract::{MatchedPath, Request, State};
use axum::http::{HeaderName, HeaderValue, Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use tokio::sync::Semaphore;
use tokio::time::timeout;
use tracing::Instrument;
use uuid::Uuid;

use super::codes::Code;
use super::problem::Problem;
use crate::metrics::api::shed;

/// The header with the id of the request.
pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Longest id that is taken over from a client or a proxy.
const LONGEST_ID: usize = 64;

/// A client's own id is kept where it can do no harm in a log; the others get a new one.
pub(super) async fn identify(mut request: Request, next: Next) -> Response {
    let harmless = |value: &HeaderValue| {
        (1..=LONGEST_ID).contains(&value.len())
            && value.as_bytes().iter().all(|byte| byte.is_ascii_alphanumeric() || b"-_.".contains(byte))
    };
    let id = match request.headers().get(REQUEST_ID).filter(|value| harmless(value)) {
        Some(id) => id.clone(),
        None => HeaderValue::try_from(Uuid::new_v4().to_string()).unwrap_or(HeaderValue::from_static("none")),
    };
    request.headers_mut().insert(REQUEST_ID, id.clone());
    let mut response = next.run(request).await;
    response.headers_mut().insert(REQUEST_ID, id);
    response
}

/// Writes problems as documents, and logs the request.
pub(super) async fn observe(request: Request, next: Next) -> Response {
    let started = Instant::now();
    let route = request.extensions().get::<MatchedPath>().map_or("none", MatchedPath::as_str).to_owned();
    let method = method_name(request.method());
    let id = request.headers().get(REQUEST_ID).and_then(|id| id.to_str().ok()).unwrap_or_default().to_owned();
    let span = tracing::info_span!("request", request_id = %id, method, route);
    async {
        let mut response = next.run(request).await;
        let headers = response.headers_mut();
        headers.insert(header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff"));
        headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
        let problem = response.extensions_mut().remove::<Problem>();
        let code = problem.as_ref().map(|problem| problem.code.text());
        if let Some(problem) = problem {
            let (kind, body) = problem.write(&id);
            response.headers_mut().insert(header::CONTENT_TYPE, kind);
            response.headers_mut().remove(header::CONTENT_LENGTH);
            *response.body_mut() = body;
        }
        let (status, took_ms) = (response.status().as_u16(), started.elapsed().as_secs_f64() * 1000.0);
        tracing::debug!(status, code, took_ms, "answered");
        response
    }
    .instrument(span)
    .await
}

/// Any word can be a method: only those that we know go into the log.
fn method_name(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::POST => "POST",
        _ => "other",
    }
}

/// What a panic is answered with. Its words may hold anything: they are not repeated.
pub(super) fn panicked(_: Box<dyn Any + Send + 'static>) -> Response {
    tracing::error!("a handler panicked");
    Problem::new(Code::InternalError).into_response()
}

/// How long a connection, and then its request, waits for a place. They get places in the order in which they came: a
/// caller has its turn even beside many that ask again and again, while one that cannot be served soon learns that soon.
pub(super) const WAIT_FOR_PLACE: Duration = Duration::from_millis(250);

/// Holds a place while the request is served, or refuses it as overloaded.
pub(super) async fn admit(State(places): State<Arc<Semaphore>>, request: Request, next: Next) -> Response {
    let Ok(Ok(_place)) = timeout(WAIT_FOR_PLACE, places.acquire()).await else {
        shed();
        return Problem::new(Code::Overloaded).into_response();
    };
    next.run(request).await
}

/// No such path.
pub(super) async fn unknown_path() -> Problem {
    Problem::new(Code::UnknownPath)
}

/// A path, but not by this method.
pub(super) async fn method_not_allowed() -> Problem {
    Problem::new(Code::MethodNotAllowed)
}
