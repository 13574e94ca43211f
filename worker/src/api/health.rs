//! Whether the process lives, whether it can do its work, and how much of it it did.

use axum::Json;
use axum::extract::State;
use axum::response::Response;
use serde::Serialize;
use utoipa::ToSchema;

use super::docs::ProbeProblems;
use super::problem::Problem;
use super::service::{Effect, Service};

/// A good answer of a probe.
#[derive(Serialize, ToSchema)]
pub(super) struct Health {
    /// Always `ok`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Whether the process lives
///
/// Asks nobody: an orchestrator that restarts what fails here does not restart for a database that is away.
#[utoipa::path(get, path = "/healthz", tag = "Probes", operation_id = "healthz",
    responses((status = 200, description = "It lives.", body = Health)))]
pub(super) async fn healthz() -> Json<Health> {
    Json(Health { status: "ok" })
}

/// Whether requests can be served
///
/// Asks the database, and compares the version of its extension.
#[utoipa::path(get, path = "/readyz", tag = "Probes", operation_id = "readyz",
    responses((status = 200, description = "The database answers, and its extension fits.", body = Health), ProbeProblems))]
pub(super) async fn readyz(State(service): State<Service>) -> Result<Json<Health>, Problem> {
    service.answered(Effect::Reads, service.database().check().await)?;
    Ok(Json(Health { status: "ok" }))
}

/// Numbers for Prometheus
///
/// Of this process, and of the queue in the database.
#[utoipa::path(get, path = "/metrics", tag = "Probes", operation_id = "metrics",
    responses((status = 200, description = "The numbers in Prometheus' text format.", body = String, content_type = "text/plain")))]
pub(super) async fn metrics(State(service): State<Service>) -> Response {
    service.metrics().answer().await
}
