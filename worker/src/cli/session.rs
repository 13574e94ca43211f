//! A connection for one command.

use tokio_postgres::Client;

use super::Global;
use crate::outbox::postgres::connect::{ConnectError, Target};

/// Where `--database-url` leads.
pub(super) fn target(global: &Global, command: &str) -> Result<Target, ConnectError> {
    let url = global.database_url.as_deref().filter(|url| !url.is_empty()).ok_or(ConnectError::MissingUrl)?;
    Target::parse(url, &format!("sms-outbox {command}"), global.connect_timeout)
}

/// Connects to a database whose extension fits this binary.
pub(super) async fn open(global: &Global, command: &str) -> Result<Client, ConnectError> {
    let target = target(global, command)?;
    let client = target.connect().await?;
    target.check(&client).await?;
    Ok(client)
}
