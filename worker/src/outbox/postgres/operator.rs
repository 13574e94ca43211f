//! What operators ask and tell the database: all SQL of the command line. Each statement is sent unprepared in one
//! round trip, so that it works through any pooler. Rows come as JSON objects, whose fields are the structs' fields.

pub(crate) mod apps;
pub(crate) mod bench;
pub(crate) mod keys;
pub(crate) mod limits;
pub(crate) mod messages;
pub(crate) mod metrics;
pub(crate) mod moves;
pub(crate) mod organizations;
pub(crate) mod server;
pub(crate) mod stats;

use serde::de::DeserializeOwned;
use tokio_postgres::types::{Json, ToSql, Type};
use tokio_postgres::{Client, Error};

type Parameters<'a> = &'a [(&'a (dyn ToSql + Sync), Type)];

/// All rows of a statement that returns one JSON object a row.
async fn rows<T: DeserializeOwned>(
    client: &Client,
    statement: &str,
    parameters: Parameters<'_>,
) -> Result<Vec<T>, Error> {
    let rows = client.query_typed(statement, parameters).await?;
    rows.iter().map(|row| row.try_get::<_, Json<T>>(0).map(|json| json.0)).collect()
}

/// The row of a statement that returns exactly one JSON object.
async fn row<T: DeserializeOwned>(client: &Client, statement: &str, parameters: Parameters<'_>) -> Result<T, Error> {
    let row = client.query_typed_one(statement, parameters).await?;
    row.try_get::<_, Json<T>>(0).map(|json| json.0)
}

/// A statement that is called for its effect.
async fn call(client: &Client, statement: &str, parameters: Parameters<'_>) -> Result<(), Error> {
    client.query_typed(statement, parameters).await.map(drop)
}
