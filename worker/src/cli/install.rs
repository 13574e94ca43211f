//! `sms-outbox install`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use serde_json::json;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

use super::terminal::Terminal;
use super::{Global, session};
use crate::outbox::postgres::connect::{self, ConnectError};
use crate::outbox::postgres::operator::server;

/// How often an update is tried that meets long transactions, and the pause between.
const MOST_TRIES: u32 = 60;
const PAUSE: Duration = Duration::from_millis(500);

/// Create the extension in a database, or update it to the version on the server's disk
///
/// Log in as a superuser. The extension's files must be on the server: make install PG_CONFIG=…, or a package.
#[derive(Debug, Args)]
pub(super) struct InstallArgs {}

pub(super) async fn run(global: &Global, terminal: &Terminal, _: &InstallArgs) -> anyhow::Result<()> {
    let target = session::target(global, "install")?;
    let client = target.connect().await?;
    let place = target.identify(&client).await?;
    let versions = server::versions(&client).await?;
    let Some(available) = versions.available else {
        bail!(
            "the files of the extension sms_outbox are not on the server; there, run: make install \
             PG_CONFIG=/path/to/pg_config, or install the package for PostgreSQL {}",
            place.version_num / 10_000
        );
    };
    let newer = [versions.installed.as_ref(), Some(&available)]
        .into_iter()
        .flatten()
        .find(|version| connect::is_newer(version));
    if let Some(found) = newer.cloned() {
        return Err(ConnectError::ExtensionNewer {
            database: place.database,
            found,
            binary: env!("CARGO_PKG_VERSION"),
        }
        .into());
    }
    let done = match versions.installed.as_deref() {
        None => {
            server::create_extension(&client).await?;
            "created"
        }
        Some(installed) if installed == available => "unchanged",
        Some(_) => {
            update(&client, terminal).await?;
            "updated"
        }
    };
    let now = target.identify(&client).await?.extension;
    if terminal.is_json() {
        let before = versions.installed;
        return terminal.json(&json!({"database": place.database, "result": done, "before": before, "version": now}));
    }
    let now = now.unwrap_or_default();
    terminal.line(&match (done, versions.installed) {
        ("updated", Some(before)) => {
            format!("updated the extension in database {} from {before} to {now}", place.database)
        }
        ("created", _) => format!("created the extension {now} in database {}", place.database),
        _ => format!("the extension {now} was in database {} already", place.database),
    })?;
    if done == "created" {
        terminal.note("next: sms-outbox doctor, then sms-outbox app install ORGANIZATION PROVIDER …");
    }
    Ok(())
}

/// Upgrade scripts give up rather than wait for applications, which would wait for them in turn: so they are tried again.
async fn update(client: &Client, terminal: &Terminal) -> anyhow::Result<()> {
    let progress = terminal.progress(None, "updating, between the transactions of applications");
    let mut tries = 1;
    loop {
        match server::update_extension(client).await {
            Err(error) if tries < MOST_TRIES && error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                tries += 1;
                progress.tick();
                tokio::time::sleep(PAUSE).await;
            }
            result => {
                progress.finish_and_clear();
                return Ok(result?);
            }
        }
    }
}
