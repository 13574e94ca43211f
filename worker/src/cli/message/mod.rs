//! `sms-outbox message`.

pub(super) mod outcome;

mod bulk;
mod list;
mod show;

use clap::Subcommand;

use super::Global;
use super::terminal::Terminal;
use crate::message::mask;
use crate::outbox::postgres::operator::messages::{Message, Move};

/// Look at messages, take waiting ones back, queue ended ones again
#[derive(Debug, Subcommand)]
pub(super) enum MessageCommand {
    List(list::ListArgs),
    Show(show::ShowArgs),
    /// Take waiting messages back: by id at once, by filter after a dry run
    ///
    /// A message that a worker has claimed cannot be taken back.
    Cancel(bulk::MoveArgs),
    /// Queue ended messages again: by id, by filter after a dry run
    ///
    /// For failed, canceled and expired messages, and for dispatch_timeout: nobody knows whether such a message was sent,
    /// so the recipient may get it twice, and by id it takes --yes.
    Retry(bulk::MoveArgs),
}

pub(super) async fn run(global: &Global, terminal: &Terminal, command: MessageCommand) -> anyhow::Result<()> {
    match command {
        MessageCommand::List(args) => list::run(global, terminal, args).await,
        MessageCommand::Show(args) => show::run(global, terminal, &args).await,
        MessageCommand::Cancel(args) => bulk::run(global, terminal, Move::Cancel, args).await,
        MessageCommand::Retry(args) => bulk::run(global, terminal, Move::Retry, args).await,
    }
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
