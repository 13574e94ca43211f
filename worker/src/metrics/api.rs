//! What an API process counts, and what its `/metrics` answers.

use std::sync::Arc;
use std::time::Instant;

use axum::extract::{MatchedPath, Request};
use axum::http::{Method, header};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use deadpool_postgres::Pool;
use metrics::{counter, gauge, histogram};

use super::Exporter;
use super::catalog::{
    API, API_IN_FLIGHT, API_POOL, API_POOL_SIZE, API_POOL_TIMEOUTS, API_POOL_WAITING, API_REQUESTS, API_SECONDS,
    API_SHED,
};
use super::database::DatabaseMetrics;
use crate::outbox::postgres::connect::Target;

/// The text format of Prometheus.
pub(super) const TEXT: &str = "text/plain; version=0.0.4; charset=utf-8";

/// The numbers of an API process and of its database.
#[derive(Debug)]
pub struct ApiMetrics {
    exporter: Exporter,
    database: DatabaseMetrics,
    pool: Pool,
}

impl ApiMetrics {
    /// Begins to count. The database is asked by a connection of its own: a pool that is exhausted must not hide that.
    pub fn start(target: Target, pool: Pool) -> anyhow::Result<Arc<Self>> {
        let exporter = Exporter::start("api", API)?;
        Ok(Arc::new(Self { exporter, database: DatabaseMetrics::new(target), pool }))
    }

    /// The answer of `GET /metrics`. The database is asked once in some seconds, however often this is.
    pub async fn answer(&self) -> Response {
        let database = self.database.text().await;
        self.look_at_pool();
        let text = self.exporter.render() + &database;
        ([(header::CONTENT_TYPE, TEXT), (header::CACHE_CONTROL, "no-store")], text).into_response()
    }

    fn look_at_pool(&self) {
        let status = self.pool.status();
        let idle = status.available.min(status.size);
        gauge!(API_POOL.name, "state" => "idle").set(idle as f64);
        gauge!(API_POOL.name, "state" => "in_use").set((status.size - idle) as f64);
        gauge!(API_POOL_SIZE.name).set(status.max_size as f64);
        gauge!(API_POOL_WAITING.name).set(status.waiting as f64);
    }
}

/// Counts and times each request: `axum::middleware::from_fn(measure)` as the outermost layer of the router, where the
/// route is known. A request that no route matches is counted as one of the route `unmatched`.
pub async fn measure(request: Request, next: Next) -> Response {
    let route = request.extensions().get::<MatchedPath>().map_or("unmatched", |path| path.as_str());
    let served = Served::begin(route.to_owned(), method(request.method()));
    let response = next.run(request).await;
    served.end(response.status().as_u16());
    response
}

/// A request was refused as overloaded, before it reached [`measure`] or after.
pub fn shed() {
    counter!(API_SHED.name).increment(1);
}

/// A request got no connection of the pool in time.
pub fn pool_timed_out() {
    counter!(API_POOL_TIMEOUTS.name).increment(1);
}

/// A caller may invent methods; labels may not.
fn method(method: &Method) -> &'static str {
    const KNOWN: [Method; 7] =
        [Method::GET, Method::POST, Method::PUT, Method::PATCH, Method::DELETE, Method::HEAD, Method::OPTIONS];
    const WORDS: [&str; 7] = ["GET", "POST", "PUT", "PATCH", "DELETE", "HEAD", "OPTIONS"];
    KNOWN.iter().position(|known| known == method).map_or("other", |place| WORDS[place])
}

/// One request while it is served. Dropped before its end, the caller went away.
struct Served {
    route: String,
    method: &'static str,
    begun: Instant,
    status: Option<u16>,
}

impl Served {
    fn begin(route: String, method: &'static str) -> Self {
        gauge!(API_IN_FLIGHT.name).increment(1.0);
        Self { route, method, begun: Instant::now(), status: None }
    }

    fn end(mut self, status: u16) {
        self.status = Some(status);
    }
}

impl Drop for Served {
    fn drop(&mut self) {
        gauge!(API_IN_FLIGHT.name).decrement(1.0);
        let route = std::mem::take(&mut self.route);
        let status = self.status.map_or_else(|| "canceled".to_owned(), |status| status.to_string());
        histogram!(API_SECONDS.name, "route" => route.clone(), "method" => self.method).record(self.begun.elapsed());
        counter!(API_REQUESTS.name, "route" => route, "method" => self.method, "status" => status).increment(1);
    }
}

#[cfg(test)]
mod tests {
    use axum::Router;
    use axum::body::Body;
    use axum::http::StatusCode;
    use axum::routing::post;
    use metrics_exporter_prometheus::PrometheusBuilder;
    use tower::ServiceExt;

    use super::*;

    #[tokio::test]
    async fn requests_are_counted_by_route_not_by_path() {
        let recorder = PrometheusBuilder::new().build_recorder();
        let handle = recorder.handle();
        let _recording = metrics::set_default_local_recorder(&recorder);
        let router = Router::new()
            .route("/outbox/{id}/cancel", post(async || StatusCode::CONFLICT))
            .route("/slow", post(std::future::pending::<()>))
            .layer(axum::middleware::from_fn(measure));
        for (method, path) in [("POST", "/outbox/r01/cancel"), ("POST", "/outbox/r02/cancel"), ("BREW", "/r03")] {
            let request = Request::builder().method(method).uri(path).body(Body::empty()).unwrap();
            drop(router.clone().oneshot(request).await.unwrap());
        }
        let slow = Request::builder().method("POST").uri("/slow").body(Body::empty()).unwrap();
        assert!(futures_util::poll!(Box::pin(router.oneshot(slow))).is_pending());
        let text = handle.render();
        for line in [
            r#"sms_outbox_api_requests_total{route="/outbox/{id}/cancel",method="POST",status="409"} 2"#,
            r#"sms_outbox_api_requests_total{route="unmatched",method="other",status="404"} 1"#,
            r#"sms_outbox_api_requests_total{route="/slow",method="POST",status="canceled"} 1"#,
            "sms_outbox_api_in_flight 0",
        ] {
            assert!(text.lines().any(|it| it == line), "{line} is missing in\n{text}");
        }
        assert!(!text.contains("r01"));
    }
}
