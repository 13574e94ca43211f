//! `POST /api/v1/sms/outbox/{id}/cancel` and `/retry`.

use axum::Json;
use axum::extract::rejection::PathRejection;
use axum::extract::{Path, State};
use axum::http::HeaderMap;
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::Scope;
use super::codes::Code;
use super::docs::{CancelProblems, RetryProblems};
use super::message::{DispatchStatus, id_of};
use super::problem::Problem;
use super::service::{Effect, Service};
use crate::message::MessageId;
use crate::outbox::postgres::api::Move;

/// A message that was moved.
#[derive(Serialize, ToSchema)]
pub(super) struct Moved {
    /// Its id.
    #[schema(example = "r01jd5x3v7k8q2m4n6p8r0s2t4v", pattern = "^r[0-7][0-9a-hjkmnp-tv-z]{25}$")]
    id: String,
    /// Its state now.
    #[schema(value_type = DispatchStatus, example = "canceled")]
    dispatch_status: String,
}

/// Take a message back
///
/// Only a `pending` one: no request is made for it any more. What is beyond that is refused with its present state.
#[utoipa::path(post, path = "/api/v1/sms/outbox/{id}/cancel", tag = "Messages", operation_id = "cancel",
    params(("id" = String, Path, description = "The id of the message.", example = "r01jd5x3v7k8q2m4n6p8r0s2t4v")),
    responses((status = 200, description = "It is canceled.", body = Moved), CancelProblems))]
pub(super) async fn cancel(
    State(service): State<Service>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Moved>, Problem> {
    moved(&service, &headers, Move::Cancel, id_of(id)).await
}

/// Send an ended message again
///
/// From `failed`, `dispatch_timeout`, `canceled` or `expired`, with its full number of attempts. A `dispatch_timeout` may have been sent
/// already: retrying it risks a second SMS, and so does retrying a message that was one before and was canceled or expired since. A `failed`
/// message was not sent: retrying it risks nothing. Read the message first; this does as it is told.
#[utoipa::path(post, path = "/api/v1/sms/outbox/{id}/retry", tag = "Messages", operation_id = "retry",
    params(("id" = String, Path, description = "The id of the message.", example = "r01jd5x3v7k8q2m4n6p8r0s2t4v")),
    responses((status = 200, description = "It is pending again.", body = Moved), RetryProblems))]
pub(super) async fn retry(
    State(service): State<Service>,
    headers: HeaderMap,
    id: Result<Path<String>, PathRejection>,
) -> Result<Json<Moved>, Problem> {
    moved(&service, &headers, Move::Retry, id_of(id)).await
}

async fn moved(
    service: &Service,
    headers: &HeaderMap,
    what: Move,
    id: Option<MessageId>,
) -> Result<Json<Moved>, Problem> {
    let entry = service.admit(headers, Scope::Operate).await?;
    let Some(id) = id else {
        return Err(service.refuse(&entry, Problem::new(Code::NotFound)).await);
    };
    let moved = service.answered(Effect::Writes, service.database().move_one(&entry, what, id).await)?;
    Ok(Json(Moved { id: id.to_string(), dispatch_status: moved }))
}
