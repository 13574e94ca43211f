//! Bodies of requests: at most 1 MiB, in bounded time, and read before a place among the calls in flight is taken, so that
//! a slow client holds up nobody but itself.

use std::time::Duration;

use axum::body::{Body, Bytes};
use axum::extract::{Request, State};
use axum::http::{HeaderMap, header};
use axum::middleware::Next;
use axum::response::Response;
use futures_util::StreamExt;
use tokio::time::{Instant, timeout_at};

use super::LARGEST_BODY;
use super::codes::Code;
use super::problem::Problem;
use super::server::Place;

/// What is still read of a body that is refused, so that the client reads the refusal instead of a broken connection.
const PATIENCE: (usize, Duration) = (4 * LARGEST_BODY, Duration::from_secs(2));

/// The body of a request, or why there is none.
#[derive(Clone)]
pub(super) struct Received(Result<Bytes, Problem>);

impl Received {
    /// The body, if it says that it is JSON.
    pub(super) fn json(&self, headers: &HeaderMap) -> Result<&[u8], Problem> {
        let body = self.0.as_ref().map_err(Clone::clone)?;
        let kind = headers.get(header::CONTENT_TYPE).and_then(|value| value.to_str().ok()).unwrap_or_default();
        let kind = kind.split(';').next().unwrap_or_default().trim();
        if !kind.eq_ignore_ascii_case("application/json") {
            return Err(Problem::new(Code::UnsupportedMediaType));
        }
        Ok(body)
    }
}

/// Reads the body before anything else is done with the request.
pub(super) async fn receive(State(read_timeout): State<Duration>, request: Request, next: Next) -> Response {
    let (mut parts, body) = request.into_parts();
    // Whoever shows no credential gets no megabyte of memory.
    let most = if parts.headers.contains_key(header::AUTHORIZATION) { LARGEST_BODY } else { 0 };
    let received = read(body, &parts.headers, most, read_timeout).await;
    if let Some(place) = parts.extensions.get::<Place>() {
        place.keep();
    }
    parts.extensions.insert(Received(received));
    next.run(Request::from_parts(parts, Body::empty())).await
}

async fn read(body: Body, headers: &HeaderMap, most: usize, patience: Duration) -> Result<Bytes, Problem> {
    let length = headers.get(header::CONTENT_LENGTH).and_then(|value| value.to_str().ok()?.parse::<usize>().ok());
    let mut kept = Vec::with_capacity(length.unwrap_or(0).min(most).min(64 * 1024));
    let mut too_large = length.is_some_and(|length| length > most);
    let mut seen = 0usize;
    let mut deadline = Instant::now() + patience;
    let mut chunks = body.into_data_stream();
    loop {
        if too_large {
            deadline = deadline.min(Instant::now() + PATIENCE.1);
        }
        let chunk = match timeout_at(deadline, chunks.next()).await {
            Err(_) if too_large => return Err(Problem::new(Code::TooLarge)),
            Err(_) => return Err(Problem::new(Code::RequestTimeout)),
            Ok(None) if too_large => return Err(Problem::new(Code::TooLarge)),
            Ok(None) => return Ok(kept.into()),
            // Nobody is left to read an answer.
            Ok(Some(Err(_))) => return Err(Problem::new(Code::RequestTimeout)),
            Ok(Some(Ok(chunk))) => chunk,
        };
        seen += chunk.len();
        too_large |= seen > most;
        if seen > PATIENCE.0 {
            return Err(Problem::new(Code::TooLarge));
        }
        if too_large {
            kept = Vec::new();
        } else {
            kept.extend_from_slice(&chunk);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    async fn received(body: Body, length: Option<usize>) -> Result<usize, Code> {
        let mut headers = HeaderMap::new();
        if let Some(length) = length {
            headers.insert(header::CONTENT_LENGTH, length.into());
        }
        let body = read(body, &headers, LARGEST_BODY, Duration::from_millis(200)).await;
        body.map(|body| body.len()).map_err(|problem| problem.code)
    }

    #[tokio::test]
    async fn a_body_has_an_end_a_size_and_a_time() {
        assert_eq!(received(Body::from("{}"), Some(2)).await, Ok(2));
        assert_eq!(received(Body::from(vec![b' '; LARGEST_BODY]), None).await, Ok(LARGEST_BODY));
        assert_eq!(received(Body::from(vec![b' '; LARGEST_BODY + 1]), None).await, Err(Code::TooLarge));
        assert_eq!(received(Body::from("{}"), Some(2 * LARGEST_BODY)).await, Err(Code::TooLarge));
        let endless = futures_util::stream::repeat_with(|| Ok::<_, std::io::Error>(Bytes::from_static(&[b' '; 4096])));
        assert_eq!(received(Body::from_stream(endless), None).await, Err(Code::TooLarge));
        let silent = futures_util::stream::pending::<Result<Bytes, std::io::Error>>();
        assert_eq!(received(Body::from_stream(silent), Some(2)).await, Err(Code::RequestTimeout));
    }
}
