//! `sms-outbox message resolve`.

use clap::{ArgGroup, Args};
use serde_json::{Value, json};

use super::filter::FilterArgs;
use super::{bulk, by_id};
use crate::cli::failure::Usage;
use crate::cli::terminal::Terminal;
use crate::cli::{Global, session};
use crate::message::{DispatchStatus, MessageId};
use crate::outbox::postgres::operator::moves::{Move, Resolution};

/// Tell what became of messages that may have been sent: by id at once, by filter after a dry run
///
/// Find it out first, from the provider. --sent ends them as sent: a next try that waits is taken back. --not-sent ends them as
/// failed: a retry then risks nothing. Neither sends anything. What you tell is kept with your login and the note, and message
/// show shows it. A provider's answer that comes later corrects --not-sent; nothing corrects --sent.
#[derive(Debug, Args)]
#[command(group(ArgGroup::new("verdict").required(true).args(["sent", "not_sent"])))]
pub(in crate::cli) struct ResolveArgs {
    /// The messages
    #[arg(value_name = "ID")]
    ids: Vec<MessageId>,
    /// They were sent
    #[arg(long)]
    sent: bool,
    /// They were not sent
    #[arg(long)]
    not_sent: bool,
    /// How you know, for whoever looks at it next
    #[arg(long, value_name = "TEXT")]
    note: String,
    #[command(flatten)]
    filter: FilterArgs,
    /// By filter: do it, rather than count what matches
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: ResolveArgs) -> anyhow::Result<()> {
    if args.ids.is_empty() && args.filter.is_empty() {
        let fault = "nothing to resolve: give message ids, or a filter such as --organization, --app or --error-code";
        return Err(Usage(fault.to_owned()).into());
    }
    let what = Move::Resolve(Resolution { sent: args.sent, note: args.note });
    let client = session::open(global, "message resolve").await?;
    if !args.ids.is_empty() {
        return by_id::run(&client, terminal, &what, &args.ids, args.yes).await;
    }
    let mut filter = args.filter.json(&client).await?;
    filter.entry("dispatch_status").or_insert(json!(DispatchStatus::DispatchTimeout));
    bulk::run(&client, terminal, &what, &Value::Object(filter), args.yes).await
}
