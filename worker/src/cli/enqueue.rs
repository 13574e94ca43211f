//! `sms-outbox enqueue`.

use std::io::{IsTerminal, Read};
use std::time::Duration;

use anyhow::Context;
use clap::Args;

use super::failure::Usage;
use super::message::outcome;
use super::terminal::Terminal;
use super::{Global, session, when, when::When};
use crate::config::duration;
use crate::outbox::postgres::operator::messages::{self, NewMessage};

/// Enqueue one message, as an application does with sms_outbox_enqueue()
#[derive(Debug, Args)]
pub(super) struct EnqueueArgs {
    /// Mobile number, in any usual writing
    #[arg(long, short)]
    mobile: String,
    /// Text; read from standard input when left out or '-'
    #[arg(long, short = 't', value_name = "TEXT", allow_hyphen_values = true)]
    message: Option<String>,
    /// Organization [default: the setting sms_outbox.organization_id]
    #[arg(long = "organization", short = 'g', value_name = "ID")]
    organization_id: Option<String>,
    /// Sender name [default: the app's own]
    #[arg(long)]
    sender: Option<String>,
    /// Not sent before this time: 2026-11-24T09:00:00+03:00, '2026-11-24 09:00' (local), +2h
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    datetime: Option<When>,
    /// Not sent after this time, written like --datetime
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    valid_until: Option<When>,
    /// Only this provider may send it, such as taqnyat-sms
    #[arg(long = "provider", value_name = "SLUG")]
    preferred_provider_slug: Option<String>,
    /// The same key again returns the first message instead of queueing a second
    #[arg(long, value_name = "KEY")]
    idempotency_key: Option<String>,
    /// Your own data, as a JSON object
    #[arg(long, value_name = "JSON", value_parser = json)]
    meta: Option<serde_json::Value>,
    /// 0 urgent (one-time codes), 1 normal, 2 bulk [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    priority: Option<i32>,
    /// Wait this long for the outcome; exit 1 unless it was sent [100ms to 1h]
    #[arg(long, value_name = "DURATION", value_parser = duration(Duration::from_millis(100), Duration::from_secs(3600)))]
    wait: Option<Duration>,
}

fn json(text: &str) -> Result<serde_json::Value, String> {
    serde_json::from_str(text).map_err(|e| format!("not JSON: {e}; write it like '{{\"order_id\": \"123\"}}'"))
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: EnqueueArgs) -> anyhow::Result<()> {
    let message = match args.message.as_deref() {
        Some(text) if text != "-" => text.to_owned(),
        given => text_from_stdin(given.is_some())?,
    };
    let mut client = session::open(global, "enqueue").await?;
    let new = NewMessage {
        mobile: args.mobile,
        message,
        sender: args.sender,
        datetime: when::moment(args.datetime, &client).await?,
        preferred_provider_slug: args.preferred_provider_slug,
        idempotency_key: args.idempotency_key,
        meta: args.meta,
        organization_id: args.organization_id,
        priority: args.priority,
        valid_until: when::moment(args.valid_until, &client).await?,
    };
    let enqueued = messages::enqueue(&mut client, &new).await?;
    if let Some(limit) = args.wait {
        return outcome::report(&client, terminal, &enqueued.id, limit).await;
    }
    if terminal.is_json() {
        return terminal.json(&enqueued);
    }
    terminal.line(&format!("{} {}", enqueued.id, enqueued.dispatch_status))?;
    if enqueued.idempotent_replay {
        terminal.note("this idempotency key was used before: nothing new was queued");
    } else {
        terminal.note(&format!("follow it with: sms-outbox message show {}", enqueued.id));
    }
    Ok(())
}

fn text_from_stdin(asked_for: bool) -> anyhow::Result<String> {
    let mut input = std::io::stdin();
    if input.is_terminal() && !asked_for {
        return Err(Usage(
            "--message: not given; write --message TEXT, or pipe the text into standard input".to_owned(),
        )
        .into());
    }
    let mut text = String::new();
    input.read_to_string(&mut text).context("--message: standard input is not UTF-8 text")?;
    // `echo` adds a line end that nobody wants in an SMS.
    Ok(text.strip_suffix('\n').map(|line| line.strip_suffix('\r').unwrap_or(line)).unwrap_or(&text).to_owned())
}
