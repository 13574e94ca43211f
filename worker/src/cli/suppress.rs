//! `sms-outbox suppress`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::terminal::{Terminal, count, or_dash, time};
use super::{Global, session};
use crate::outbox::postgres::operator::limits;

/// Numbers that an organization must not write to: opt-outs
#[derive(Debug, Subcommand)]
pub(super) enum SuppressCommand {
    Add(AddArgs),
    Remove(RemoveArgs),
    List(ListArgs),
}

/// Put a number on the list: what waits for it is canceled, and nothing more is sent to it
#[derive(Debug, Args)]
pub(super) struct AddArgs {
    /// The organization
    organization: String,
    /// The number, in any usual writing
    mobile: String,
    /// Why, for whoever looks at it next
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Take a number off the list
#[derive(Debug, Args)]
pub(super) struct RemoveArgs {
    /// The organization
    organization: String,
    /// The number, in any usual writing
    mobile: String,
}

/// List suppressed numbers
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this organization
    #[arg(long, short = 'g', value_name = "ID")]
    organization: Option<String>,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, command: SuppressCommand) -> anyhow::Result<()> {
    match command {
        SuppressCommand::Add(args) => add(global, terminal, &args).await,
        SuppressCommand::Remove(args) => remove(global, terminal, &args).await,
        SuppressCommand::List(args) => list(global, terminal, &args).await,
    }
}

async fn add(global: &Global, terminal: &Terminal, args: &AddArgs) -> anyhow::Result<()> {
    let client = session::open(global, "suppress add").await?;
    let canceled = limits::suppress(&client, &args.organization, &args.mobile, args.reason.as_deref()).await?;
    if terminal.is_json() {
        return terminal
            .json(&json!({"organization_id": args.organization, "result": "suppressed", "canceled": canceled}));
    }
    terminal.line(&format!("suppressed; {} canceled", count(canceled, "waiting message")))
}

async fn remove(global: &Global, terminal: &Terminal, args: &RemoveArgs) -> anyhow::Result<()> {
    let client = session::open(global, "suppress remove").await?;
    let was = limits::unsuppress(&client, &args.organization, &args.mobile).await?;
    if terminal.is_json() {
        return terminal
            .json(&json!({"organization_id": args.organization, "result": "removed", "was_suppressed": was}));
    }
    terminal.line(if was { "taken off the list" } else { "it was not on the list" })
}

async fn list(global: &Global, terminal: &Terminal, args: &ListArgs) -> anyhow::Result<()> {
    let client = session::open(global, "suppress list").await?;
    let found = limits::suppressed(&client, args.organization.as_deref()).await?;
    if terminal.is_json() {
        return terminal.json(&found);
    }
    if found.is_empty() {
        terminal.note("no suppressed numbers");
        return Ok(());
    }
    let rows = found
        .into_iter()
        .map(|one| vec![one.organization_id, one.mobile, time(one.created_at), or_dash(one.reason)])
        .collect();
    terminal.table(&["organization", "number", "since", "reason"], rows)
}
