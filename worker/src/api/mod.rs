//! The HTTP API: it checks the form of a request, calls the SQL of the contract, and answers. It holds no state and no
//! second copy of a rule: what a field may be, who may do what, and whose rows are seen, the database decides.
//!
//! The walk of one request: [`server`] takes the connection, [`layers`] bound and name the request, a handler
//! ([`enqueue`], [`batch`], [`message`], [`list`], [`moves`]) asks [`auth`] who calls and the database to do it; whatever
//! is refused becomes a [`problem`] document.

pub mod auth;
mod batch;
mod body;
pub mod codes;
mod docs;
mod enqueue;
mod health;
mod json;
mod layers;
mod list;
mod message;
mod moves;
mod problem;
mod router;
mod server;
mod service;

use std::time::Duration;

use anyhow::Context;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;

use self::service::Service;
use crate::metrics::api::ApiMetrics;
use crate::outbox::postgres::api::{ApiDatabase, Limits};
use crate::outbox::postgres::connect::Target;
use auth::{AuthSettings, Authenticator};

/// Largest body, in bytes.
pub const LARGEST_BODY: usize = 1024 * 1024;

/// What the API is started with.
#[derive(Clone, Debug)]
pub struct ApiSettings {
    /// The database, and how much of it is taken.
    pub limits: Limits,
    /// Which credentials are taken beside API keys.
    pub auth: AuthSettings,
    /// Most calls that are worked on at once; further ones wait a moment for their turn, then are refused.
    pub max_in_flight: usize,
    /// Most connections of clients at once.
    pub max_connections: usize,
    /// How long a client may take to send the head of a request, and again its body.
    pub read_timeout: Duration,
    /// How long a graceful stop waits for the requests in flight.
    pub drain_timeout: Duration,
}

/// Serves until `shutdown`, then finishes what is in flight; `now` ends that too.
pub async fn serve(
    listener: TcpListener,
    target: Target,
    settings: ApiSettings,
    shutdown: CancellationToken,
    now: CancellationToken,
) -> anyhow::Result<()> {
    let authenticator = Authenticator::new(settings.auth.clone()).context("the keys of session tokens")?;
    let database = ApiDatabase::new(target, settings.limits)?;
    let metrics = ApiMetrics::start(database.target().clone(), database.pool().clone())?;
    let service = Service::new(database, authenticator, metrics);
    let router = router::router(service, &settings);
    server::serve(listener, router, &settings, shutdown, now).await;
    Ok(())
}
