//! `sms-outbox organization`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Usage;
use super::terminal::{Terminal, or_dash};
use super::{Global, session};
use crate::outbox::postgres::operator::organizations;

/// Look at organizations, set their region and time zone, pause and resume them
#[derive(Debug, Subcommand)]
pub(super) enum OrganizationCommand {
    /// List organizations
    List,
    Set(SetArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
}

/// Make an organization, or change it
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The organization
    organization: String,
    /// Region of numbers without a country code, such as SA
    #[arg(long, value_name = "REGION")]
    default_region: Option<String>,
    /// Time zone of times without one, such as Asia/Riyadh
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
}

/// Pause all apps of an organization: its messages wait
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// The organization
    organization: String,
    /// Why, for whoever looks at it next
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// End the pause of an organization
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The organization
    organization: String,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, command: OrganizationCommand) -> anyhow::Result<()> {
    let (organization, done) = match command {
        OrganizationCommand::List => return list(global, terminal).await,
        OrganizationCommand::Set(args) => {
            if args.default_region.is_none() && args.time_zone.is_none() {
                return Err(Usage("nothing to set: give --default-region or --time-zone".to_owned()).into());
            }
            let client = session::open(global, "organization set").await?;
            organizations::set(&client, &args.organization, args.default_region.as_deref(), args.time_zone.as_deref())
                .await?;
            (args.organization, "set")
        }
        OrganizationCommand::Pause(args) => {
            let client = session::open(global, "organization pause").await?;
            organizations::pause(&client, &args.organization, args.reason.as_deref()).await?;
            (args.organization, "paused")
        }
        OrganizationCommand::Resume(args) => {
            let client = session::open(global, "organization resume").await?;
            organizations::resume(&client, &args.organization).await?;
            (args.organization, "resumed")
        }
    };
    if terminal.is_json() {
        return terminal.json(&json!({"organization_id": organization, "result": done}));
    }
    terminal.line(&format!("organization {organization} {done}"))
}

async fn list(global: &Global, terminal: &Terminal) -> anyhow::Result<()> {
    let client = session::open(global, "organization list").await?;
    let found = organizations::list(&client).await?;
    if terminal.is_json() {
        return terminal.json(&found);
    }
    if found.is_empty() {
        terminal
            .note("no organizations yet; installing an app makes one: sms-outbox app install ORGANIZATION PROVIDER …");
        return Ok(());
    }
    let rows = found.into_iter().map(|o| {
        let state = if o.paused { format!("paused: {}", or_dash(o.paused_reason)) } else { "active".to_owned() };
        vec![o.organization_id, or_dash(o.default_region), or_dash(o.time_zone), state]
    });
    terminal.table(&["organization", "region", "time zone", "state"], rows.collect())
}
