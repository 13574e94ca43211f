//! Routes, and the OpenAPI document that is made of them.

use std::sync::Arc;

use axum::http::header;
use axum::routing::get;
use axum::{Router, middleware};
use tokio::sync::Semaphore;
use tower_http::catch_panic::CatchPanicLayer;
use utoipa::openapi::OpenApi;
use utoipa_axum::router::OpenApiRouter;
use utoipa_axum::routes;

use super::service::Service;
use super::{ApiSettings, batch, body, docs, enqueue, health, layers, list, message, moves};
use crate::metrics::api::measure;

/// The calls on messages, with their descriptions.
fn calls() -> OpenApiRouter<Service> {
    OpenApiRouter::with_openapi(docs::about())
        .routes(routes!(enqueue::enqueue, list::list))
        .routes(routes!(batch::batch))
        .routes(routes!(message::show))
        .routes(routes!(moves::cancel))
        .routes(routes!(moves::retry))
}

/// Those that tell about the process.
fn probes() -> OpenApiRouter<Service> {
    OpenApiRouter::new()
        .routes(routes!(health::healthz))
        .routes(routes!(health::readyz))
        .routes(routes!(health::metrics))
}

/// The OpenAPI document of the API.
fn openapi() -> OpenApi {
    let mut document = calls().into_openapi();
    document.merge(probes().into_openapi());
    docs::finished(document)
}

/// The whole API.
pub(super) fn router(service: Service, settings: &ApiSettings) -> Router {
    let document = docs::written(&openapi());
    let places = Arc::new(Semaphore::new(settings.max_in_flight));
    let (calls, _) = calls().split_for_parts();
    let (probes, _) = probes().split_for_parts();
    // From the inside out: the body is read before a place among those in flight is taken. Probes are never shed.
    let calls = calls
        .layer(middleware::from_fn_with_state(places, layers::admit))
        .layer(middleware::from_fn_with_state(settings.read_timeout, body::receive));
    Router::new()
        .merge(calls)
        .merge(probes)
        .route("/openapi.json", get(async || ([(header::CONTENT_TYPE, "application/json")], document)))
        .merge(docs::pages())
        .method_not_allowed_fallback(layers::method_not_allowed)
        .fallback(layers::unknown_path)
        .layer(CatchPanicLayer::custom(layers::panicked))
        .layer(middleware::from_fn(layers::observe))
        .layer(middleware::from_fn(layers::identify))
        .layer(middleware::from_fn(measure))
        .with_state(service)
}
