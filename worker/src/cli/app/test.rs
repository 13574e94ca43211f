//! `sms-outbox app test`.

use std::time::Duration;

use anyhow::bail;
use clap::Args;
use jiff::SignedDuration;

use crate::cli::message::outcome;
use crate::cli::terminal::Terminal;
use crate::cli::{Global, session, when::When};
use crate::config::duration;
use crate::outbox::postgres::operator::messages::{self, NewMessage};
use crate::outbox::postgres::operator::{apps, stats};

/// Send one real SMS through an app, and show the outcome
///
/// The message is pinned to the app's provider and expires when the wait is over. A worker must be running.
#[derive(Debug, Args)]
pub(in crate::cli) struct TestArgs {
    #[command(flatten)]
    app: super::AppArgs,
    /// Your own number
    #[arg(long, short)]
    mobile: String,
    /// The text
    #[arg(long, short = 't', value_name = "TEXT", default_value = "Test message from sms-outbox")]
    message: String,
    /// Sender name [default: the app's own]
    #[arg(long)]
    sender: Option<String>,
    /// How long to wait for the outcome [1s to 10min]
    #[arg(long, value_name = "DURATION", default_value = "30s",
          value_parser = duration(Duration::from_secs(1), Duration::from_secs(600)))]
    wait: Duration,
    /// Yes, send a real SMS, which may cost money
    #[arg(long, required = true)]
    yes: bool,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: &TestArgs) -> anyhow::Result<()> {
    let mut client = session::open(global, "app test").await?;
    let id = args.app.app_id;
    let installed = apps::list(&client, None).await?;
    let Some(app) = installed.iter().find(|app| app.app_id == id) else {
        bail!("app_id: there is no installed app {id}; see sms-outbox app list");
    };
    if app.paused {
        bail!("app {id} is paused; resume it first: sms-outbox app resume {id}");
    }
    // A message is pinned to a provider, not to an app: another one of the same provider could take it.
    let twin = installed.iter().find(|other| {
        other.app_id != id
            && other.organization_id == app.organization_id
            && other.provider_slug == app.provider_slug
            && !other.paused
    });
    if let Some(twin) = twin {
        bail!(
            "app {} of the same provider could take the message; pause it for the test: sms-outbox app pause {}",
            twin.app_id,
            twin.app_id
        );
    }
    if !stats::workers(&client).await?.iter().any(|worker| worker.alive) {
        bail!("no worker is alive to send it; start one: sms-outbox worker");
    }
    let limit = SignedDuration::try_from(args.wait)?;
    let new = NewMessage {
        mobile: args.mobile.clone(),
        message: args.message.clone(),
        sender: args.sender.clone(),
        preferred_provider_slug: Some(app.provider_slug.clone()),
        organization_id: Some(app.organization_id.clone()),
        priority: Some(0),
        valid_until: Some(When::FromNow(limit).moment(&client).await?),
        ..NewMessage::default()
    };
    let enqueued = messages::enqueue(&mut client, &new).await?;
    outcome::report(&client, terminal, &enqueued.id, args.wait).await
}
