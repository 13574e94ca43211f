//! `sms-outbox message`.

pub(super) mod groups;
pub(super) mod outcome;

mod bulk;
mod by_id;
mod filter;
mod list;
mod now;
mod resolve;
mod show;
mod sure;
mod timeline;

use clap::{Args, Subcommand};
use serde_json::Value;

use self::filter::FilterArgs;
use super::failure::Usage;
use super::terminal::Terminal;
use super::{Global, session};
use crate::message::{MessageId, mask};
use crate::outbox::postgres::operator::messages::Message;
use crate::outbox::postgres::operator::moves::Move;

/// Look at messages, take waiting ones back, queue ended ones again, settle what is unclear
#[derive(Debug, Subcommand)]
pub(super) enum MessageCommand {
    List(list::ListArgs),
    Show(show::ShowArgs),
    /// Take waiting messages back: by id at once, by filter after a dry run
    ///
    /// A message that a worker has claimed cannot be taken back.
    Cancel(MoveArgs),
    /// Queue ended messages again: by id, by filter after a dry run
    ///
    /// For failed, canceled and expired messages, and for dispatch_timeout: nobody knows whether such a message was sent,
    /// so its recipient may get it twice. By id the command says what each retry risks, and takes --yes for one that risks
    /// a second SMS. By filter it first counts: by app, error code, age, and how sure it is that each was sent.
    Retry(MoveArgs),
    Resolve(resolve::ResolveArgs),
}

/// Which messages are moved.
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

pub(super) async fn run(global: &Global, terminal: &Terminal, command: MessageCommand) -> anyhow::Result<()> {
    match command {
        MessageCommand::List(args) => list::run(global, terminal, args).await,
        MessageCommand::Show(args) => show::run(global, terminal, &args).await,
        MessageCommand::Cancel(args) => moved(global, terminal, &Move::Cancel, &args).await,
        MessageCommand::Retry(args) => moved(global, terminal, &Move::Retry, &args).await,
        MessageCommand::Resolve(args) => resolve::run(global, terminal, args).await,
    }
}

async fn moved(global: &Global, terminal: &Terminal, what: &Move, args: &MoveArgs) -> anyhow::Result<()> {
    let verb = what.verb();
    if args.ids.is_empty() && args.filter.is_empty() {
        let fault = format!("nothing to {verb}: give message ids, or a filter such as --organization or --status");
        return Err(Usage(fault).into());
    }
    let client = session::open(global, &format!("message {verb}")).await?;
    if !args.ids.is_empty() {
        return by_id::run(&client, terminal, what, &args.ids, args.yes).await;
    }
    let filter = Value::Object(args.filter.json(&client).await?);
    bulk::run(&client, terminal, what, &filter, args.yes).await
}

/// Takes out what identifies a person: number masked, text and the provider's answer gone.
fn concealed(mut message: Message) -> Message {
    message.mobile = mask(&message.mobile);
    message.message = None;
    message.response = None;
    message
}

/// Why a message is where it is, in one line.
fn reason(message: &Message) -> Option<String> {
    let error = match (&message.error_code, &message.error_message) {
        (Some(code), Some(text)) => Some(format!("{code}: {text}")),
        (code, text) => code.clone().or_else(|| text.clone()),
    };
    match (&message.waits_for, error) {
        (Some(waits_for), Some(error)) => Some(format!("waits for {waits_for}, after {error}")),
        (Some(waits_for), None) => Some(format!("waits for {waits_for}")),
        (None, error) => error,
    }
}
