//! `sms-outbox message show`.

use anyhow::bail;
use clap::Args;
use serde::Serialize;

use super::{concealed, reason};
use crate::cli::terminal::{Terminal, age, count, or_dash, time};
use crate::cli::{Global, session};
use crate::message::MessageId;
use crate::outbox::postgres::operator::messages::{self, Attempt, Message};

/// Show one message and its whole life: enqueued, each attempt, end
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
    if terminal.is_json() {
        return terminal.json(&Shown { message, attempts });
    }
    for (name, value) in facts(&message) {
        terminal.line(&format!("{name:<14}{value}"))?;
    }
    terminal.line("")?;
    for line in timeline(&message, &attempts) {
        terminal.line(&line)?;
    }
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

fn timeline(m: &Message, attempts: &[Attempt]) -> Vec<String> {
    let mut lines = vec![format!("{}  enqueued", time(m.created_at))];
    if let Some(due) = m.datetime.filter(|due| *due > m.created_at) {
        lines.push(format!("{}  due", time(due)));
    }
    for a in attempts {
        let at = a.started_at.map_or_else(|| " ".repeat(20), time);
        let by = format!(
            "attempt {} by app {} ({})",
            a.attempt,
            or_dash(a.organization_app_id),
            or_dash(a.provider_slug.as_deref())
        );
        let lasted = match (a.started_at, a.finished_at) {
            (Some(start), Some(end)) => {
                format!(", {}", age(end.duration_since(start).as_secs_f64()))
            }
            _ => String::new(),
        };
        let http = a.http_status.map(|status| format!(", HTTP {status}")).unwrap_or_default();
        let error = match (&a.error_code, &a.error_message) {
            (Some(code), Some(text)) => format!(", {code}: {text}"),
            (code, text) => code.as_ref().or(text.as_ref()).map(|text| format!(", {text}")).unwrap_or_default(),
        };
        let worker = a.worker.as_ref().map(|worker| format!(", worker {worker}")).unwrap_or_default();
        let status = a.status.as_deref().unwrap_or("under way");
        lines.push(format!("{at}  {by}: {status}{http}{error}{lasted}{worker}"));
        lines.extend(a.response.as_ref().map(|response| format!("{}  {response}", " ".repeat(20))));
    }
    match (m.finalized_at, m.next_attempt_at) {
        (Some(end), _) => lines.push(format!("{}  {}", time(end), m.dispatch_status)),
        (None, Some(next)) => lines.push(format!("{}  next attempt", time(next))),
        (None, None) => {}
    }
    if let Some(until) = m.valid_until.filter(|_| m.finalized_at.is_none()) {
        lines.push(format!("{}  expires, if it still waits", time(until)));
    }
    lines
}
