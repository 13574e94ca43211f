//! `sms-outbox message show`.

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::now::{self, Now};
use super::timeline::{self, Event};
use super::{concealed, reason};
use crate::cli::terminal::{Terminal, count, or_dash, time};
use crate::cli::{Global, session};
use crate::message::MessageId;
use crate::outbox::postgres::operator::messages::{self, Attempt, Message};
use crate::outbox::postgres::operator::server;

/// Show one message: its whole life, how sure it is that it was sent, and what can be done
#[derive(Debug, Args)]
pub(in crate::cli) struct ShowArgs {
    /// The message
    id: MessageId,
    /// Show the whole number, the text and the providers' answers
    #[arg(long)]
    reveal: bool,
}

#[derive(Serialize)]
struct Shown {
    #[serde(flatten)]
    message: Message,
    attempts: Vec<Attempt>,
    timeline: Vec<Event>,
    #[serde(flatten)]
    now: Now,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: &ShowArgs) -> anyhow::Result<()> {
    let client = session::open(global, "message show").await?;
    let id = args.id.to_string();
    let Some(mut message) = messages::get(&client, &id).await? else {
        bail!("id: no message {id}; it may belong to another database, or its retention is over");
    };
    let mut attempts = messages::attempts(&client, &id).await?;
    if !args.reveal {
        message = concealed(message);
        attempts.iter_mut().for_each(|attempt| attempt.response = None);
    }
    let timeline = timeline::events(&message, &attempts);
    let now = now::of(&message, &attempts, server::now(&client).await?);
    if terminal.is_json() {
        return terminal.json(&Shown { message, attempts, timeline, now });
    }
    for (name, value) in facts(&message) {
        terminal.line(&format!("{name:<14}{value}"))?;
    }
    terminal.line("")?;
    for event in timeline {
        terminal.line(&format!("{}  {}", time(event.at), event.event))?;
    }
    for attempt in &attempts {
        if let Some(response) = &attempt.response {
            terminal.line(&format!("\nanswer to attempt {}\n{response}", attempt.attempt))?;
        }
    }
    present(terminal, &now)?;
    if !args.reveal {
        terminal.note("number, text and answers are hidden; --reveal shows them");
    }
    Ok(())
}

fn facts(m: &Message) -> Vec<(&'static str, String)> {
    let priority = match m.priority {
        0 => "0 urgent".to_owned(),
        1 => "1 normal".to_owned(),
        2 => "2 bulk".to_owned(),
        other => other.to_string(),
    };
    let facts = [
        ("id", Some(m.id.clone())),
        ("status", Some(m.dispatch_status.clone())),
        ("reason", reason(m)),
        ("organization", Some(m.organization_id.clone())),
        ("mobile", Some(m.mobile.clone())),
        ("sender", m.sender.clone()),
        ("text", m.message.clone()),
        ("segments", m.segments.map(|n| format!("{n} {}", or_dash(m.encoding.as_deref())))),
        ("priority", Some(priority)),
        ("only by", m.preferred_provider_slug.clone()),
        ("sent by", m.provider_slug.clone().filter(|_| m.sent_at.is_some())),
        ("provider's id", m.provider_message_id.clone()),
        ("delivery", m.delivery_status.clone().filter(|status| status != "unknown")),
        ("key", m.idempotency_key.clone()),
        (
            "mismatches",
            m.idempotency_mismatch
                .filter(|n| *n > 0)
                .map(|n| format!("{} of the key had another payload", count(n, "replay"))),
        ),
        (
            "meta",
            m.meta.as_ref().filter(|meta| meta.as_object().is_some_and(|o| !o.is_empty())).map(ToString::to_string),
        ),
    ];
    facts.into_iter().filter_map(|(name, value)| value.map(|value| (name, value))).collect()
}

fn present(terminal: &Terminal, now: &Now) -> anyhow::Result<()> {
    terminal.line(&format!("\nNow: {}", now.now))?;
    if let Some(ask) = &now.ask {
        terminal.line(ask)?;
    }
    if now.choices.is_empty() {
        return Ok(());
    }
    terminal.line("")?;
    let rows =
        now.choices.iter().map(|choice| vec![choice.when.clone(), choice.command.clone(), choice.risk.to_owned()]);
    terminal.table(&["when", "then", "risk"], rows.collect())
}
