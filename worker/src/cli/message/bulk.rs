//! `sms-outbox message cancel` and `retry`: by id, or by filter with a dry run first.

use anyhow::bail;
use clap::Args;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use super::list::status;
use crate::cli::failure::Usage;
use crate::cli::terminal::{Terminal, count};
use crate::cli::{Global, session, when, when::When};
use crate::message::{DispatchStatus, MessageId};
use crate::outbox::postgres::operator::messages::{self, Move, Moved};

/// Rows moved in one transaction: short enough to be in nobody's way.
const BATCH: i32 = 1000;

#[derive(Debug, Args)]
pub(in crate::cli) struct MoveArgs {
    /// The messages
    #[arg(value_name = "ID")]
    ids: Vec<MessageId>,
    #[command(flatten)]
    filter: FilterArgs,
    /// By filter: do it, rather than count what matches. By id: retry even what may have been sent already
    #[arg(long)]
    yes: bool,
}

#[derive(Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Filter")]
struct FilterArgs {
    /// Of this organization
    #[arg(long, short = 'g', value_name = "ID", conflicts_with = "ids")]
    organization: Option<String>,
    /// With this status
    #[arg(long, short, value_name = "STATUS", value_parser = status, conflicts_with = "ids")]
    status: Option<DispatchStatus>,
    /// To this number
    #[arg(long, value_name = "NUMBER", conflicts_with = "ids")]
    mobile: Option<String>,
    /// Pinned to this provider
    #[arg(long, value_name = "SLUG", conflicts_with = "ids")]
    provider: Option<String>,
    /// Whose last error has this code
    #[arg(long, value_name = "CODE", conflicts_with = "ids")]
    error_code: Option<String>,
    /// With this priority
    #[arg(long, value_name = "N", conflicts_with = "ids")]
    priority: Option<i32>,
    /// Enqueued after this time, such as -2h or '2026-11-24 09:00'
    #[arg(long, value_name = "TIME", value_parser = when::parse, conflicts_with = "ids", allow_hyphen_values = true)]
    created_after: Option<When>,
    /// Enqueued before this time
    #[arg(long, value_name = "TIME", value_parser = when::parse, conflicts_with = "ids", allow_hyphen_values = true)]
    created_before: Option<When>,
}

impl FilterArgs {
    fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    async fn json(&self, client: &Client) -> anyhow::Result<Map<String, Value>> {
        let created_after = when::moment(self.created_after, client).await?;
        let created_before = when::moment(self.created_before, client).await?;
        let pairs = [
            ("organization_id", json!(self.organization)),
            ("dispatch_status", json!(self.status)),
            ("mobile", json!(self.mobile)),
            ("preferred_provider_slug", json!(self.provider)),
            ("error_code", json!(self.error_code)),
            ("priority", json!(self.priority)),
            ("created_after", json!(created_after)),
            ("created_before", json!(created_before)),
        ];
        Ok(pairs
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.to_owned(), value))
            .collect())
    }
}

fn verbs(what: Move) -> (&'static str, &'static str) {
    match what {
        Move::Cancel => ("cancel", "canceled"),
        Move::Retry => ("retry", "queued again"),
    }
}

pub(super) async fn run(global: &Global, terminal: &Terminal, what: Move, args: MoveArgs) -> anyhow::Result<()> {
    let (verb, _) = verbs(what);
    if args.ids.is_empty() && args.filter.is_empty() {
        let fault = format!("nothing to {verb}: give message ids, or a filter such as --organization or --status");
        return Err(Usage(fault).into());
    }
    let client = session::open(global, &format!("message {verb}")).await?;
    if !args.ids.is_empty() {
        return by_id(&client, terminal, what, &args.ids, args.yes).await;
    }
    let filter = Value::Object(args.filter.json(&client).await?);
    by_filter(&client, terminal, what, &filter, args.yes).await
}

async fn by_id(client: &Client, terminal: &Terminal, what: Move, ids: &[MessageId], yes: bool) -> anyhow::Result<()> {
    for id in ids {
        let id = id.to_string();
        if matches!(what, Move::Retry) && !yes && is_unclear(client, &id).await? {
            bail!(
                "message {id} may have been sent already: a retry risks a second SMS; look at it with message show, and add --yes to retry"
            );
        }
        // The first refusal ends the command: what was moved before it is printed already.
        let dispatch_status = messages::move_one(client, what, &id).await?;
        if terminal.is_json() {
            terminal.json(&json!({"id": id, "dispatch_status": dispatch_status}))?;
        } else {
            terminal.line(&format!("{id} {dispatch_status}"))?;
        }
    }
    Ok(())
}

async fn is_unclear(client: &Client, id: &str) -> anyhow::Result<bool> {
    let message = messages::get(client, id).await?;
    Ok(message.is_some_and(|message| message.dispatch_status == DispatchStatus::DispatchTimeout.word()))
}

async fn by_filter(client: &Client, terminal: &Terminal, what: Move, filter: &Value, yes: bool) -> anyhow::Result<()> {
    let (verb, done) = verbs(what);
    let Moved { matched: found, suppressed, .. } = messages::move_matching(client, what, filter, true, BATCH).await?;
    if suppressed > 0 {
        terminal.note(&format!("{} to suppressed numbers passed over", count(suppressed, "message")));
    }
    if !yes {
        if terminal.is_json() {
            return terminal.json(&json!({"matched": found, "moved": 0, "dry_run": true}));
        }
        terminal.line(&format!("{} would be {done}", count(found, "message")))?;
        if found > 0 {
            if filter["dispatch_status"] == DispatchStatus::DispatchTimeout.word() {
                terminal.note("they may have been sent already: each retry risks a second SMS");
            }
            terminal.note(&format!("nothing was changed; add --yes to {verb}"));
        }
        return Ok(());
    }
    let progress = terminal.progress(Some(found.unsigned_abs()), done);
    let mut total = 0;
    // No more than matched at first: a retried message that fails at once would match for ever.
    while total < found {
        let most = i32::try_from(found - total).unwrap_or(BATCH).min(BATCH);
        let Moved { moved, .. } = messages::move_matching(client, what, filter, false, most).await?;
        if moved == 0 {
            break;
        }
        total += moved;
        progress.set_position(total.unsigned_abs());
    }
    progress.finish_and_clear();
    if terminal.is_json() {
        return terminal.json(&json!({"matched": found, "moved": total, "dry_run": false}));
    }
    terminal.line(&format!("{} {done}", count(total, "message")))?;
    if total < found {
        terminal.note(&format!("{} moved on by themselves meanwhile", count(found - total, "message")));
    }
    Ok(())
}
