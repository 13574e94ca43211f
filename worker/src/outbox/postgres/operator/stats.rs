//! Counts: queue, apps, workers, health, and why what waits waits.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use tokio_postgres::types::Type;
use tokio_postgres::{Client, Error};

use super::rows;

/// One organization's queue, as the view `queue_stats` counts it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Queue {
    pub(crate) organization_id: String,
    /// Scheduled and held ones included.
    pub(crate) pending: i64,
    pub(crate) scheduled: i64,
    pub(crate) held: i64,
    pub(crate) sending: i64,
    pub(crate) sent: i64,
    pub(crate) failed: i64,
    pub(crate) dispatch_timeout: i64,
    pub(crate) canceled: i64,
    pub(crate) expired: i64,
    /// Seconds.
    pub(crate) oldest_pending_age: Option<f64>,
    pub(crate) sent_last_hour: i64,
    pub(crate) failed_last_hour: i64,
}

/// Counts by organization.
pub(crate) async fn queues(client: &Client, organization: Option<&str>) -> Result<Vec<Queue>, Error> {
    let statement = "SELECT pg_catalog.to_json(r) FROM (
        SELECT q.organization_id, q.pending, q.scheduled, q.held, q.sending, q.sent, q.failed, q.dispatch_timeout, q.canceled, q.expired,
               extract(epoch FROM q.oldest_pending_age)::float8 AS oldest_pending_age, q.sent_last_hour, q.failed_last_hour
          FROM sms_outbox.queue_stats q WHERE $1 IS NULL OR q.organization_id = $1 ORDER BY q.organization_id) AS r";
    rows(client, statement, &[(&organization, Type::TEXT)]).await
}

/// A group of messages that wait for the same thing.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Waiting {
    pub(crate) organization_id: String,
    /// One of the words of the function `waits_for`, `datetime` or `backoff`.
    pub(crate) waits_for: String,
    pub(crate) messages: i64,
    /// Seconds.
    pub(crate) oldest_age: Option<f64>,
}

impl Waiting {
    /// Whether these were queued on another server, before a restore, a clone or a promotion.
    pub(crate) fn is_held(&self) -> bool {
        self.waits_for == "release_held"
    }
}

/// Why each group of waiting messages waits, oldest first.
pub(crate) async fn waiting(client: &Client, organization: Option<&str>) -> Result<Vec<Waiting>, Error> {
    let statement = "SELECT pg_catalog.to_json(r) FROM (
        SELECT w.organization_id, w.waits_for, w.messages, extract(epoch FROM w.oldest_age)::float8 AS oldest_age
          FROM sms_outbox.waiting w WHERE $1 IS NULL OR w.organization_id = $1 ORDER BY w.oldest_age DESC NULLS LAST) AS r";
    rows(client, statement, &[(&organization, Type::TEXT)]).await
}

/// A worker, as the view `worker_stats` shows it.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Worker {
    pub(crate) name: String,
    pub(crate) version: String,
    pub(crate) host: String,
    pub(crate) heartbeat: Timestamp,
    pub(crate) alive: bool,
    pub(crate) in_flight: i64,
    pub(crate) claimed: i64,
    pub(crate) sent: i64,
    pub(crate) failed: i64,
}

/// The workers heard of in the last day.
pub(crate) async fn workers(client: &Client) -> Result<Vec<Worker>, Error> {
    rows(client, "SELECT pg_catalog.to_json(w) FROM sms_outbox.worker_stats w ORDER BY w.alive DESC, w.name", &[]).await
}

/// One check of the view `health`.
#[derive(Debug, Serialize, Deserialize)]
pub(crate) struct Check {
    pub(crate) check: String,
    /// `ok`, `warn` or `critical`.
    pub(crate) status: String,
    pub(crate) detail: String,
}

/// The database's own checks.
pub(crate) async fn health(client: &Client) -> Result<Vec<Check>, Error> {
    rows(client, "SELECT pg_catalog.to_json(h) FROM sms_outbox.health h", &[]).await
}
