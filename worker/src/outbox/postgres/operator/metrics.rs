//! The numbers that monitoring scrapes.

use std::collections::BTreeMap;

use serde::Deserialize;
use tokio_postgres::{Client, Error};

use super::rows;

/// One number, as the function `metrics` tells it.
#[derive(Debug, Deserialize)]
pub(crate) struct Sample {
    pub(crate) name: String,
    pub(crate) labels: BTreeMap<String, String>,
    pub(crate) value: f64,
}

/// All numbers of one moment.
pub(crate) async fn samples(client: &Client) -> Result<Vec<Sample>, Error> {
    rows(client, "SELECT pg_catalog.to_json(m) FROM sms_outbox.metrics() AS m", &[]).await
}
