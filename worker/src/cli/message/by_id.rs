//! Moves by id: each message for itself, and said what it risks before it is done.

use std::fmt::Write as _;

use anyhow::bail;
use serde_json::json;
use tokio_postgres::Client;

use super::sure;
use crate::cli::terminal::{Terminal, age, count};
use crate::message::{Certainty, MessageId};
use crate::outbox::postgres::operator::moves::{self, Move};
use crate::outbox::postgres::operator::{messages, server};

/// What is known of one message before it is moved.
struct Known {
    id: String,
    certainty: Certainty,
    /// `r… may have been sent …`
    words: String,
}

/// Moves them in this order. The first refusal ends the command: what was moved before it is printed already.
pub(super) async fn run(
    client: &Client,
    terminal: &Terminal,
    what: &Move,
    ids: &[MessageId],
    yes: bool,
) -> anyhow::Result<()> {
    let mut all = Vec::new();
    for id in ids {
        all.push(look(client, id.to_string()).await?);
    }
    if *what == Move::Retry && !yes {
        refuse_risk(&all)?;
    }
    for known in all {
        let dispatch_status = moves::move_one(client, what, &known.id).await?;
        if terminal.is_json() {
            let mut answer = json!({"id": known.id, "dispatch_status": dispatch_status});
            if *what == Move::Retry {
                answer["certainty"] = json!(known.certainty);
            }
            terminal.json(&answer)?;
            continue;
        }
        terminal.line(&format!("{} {dispatch_status}", known.id))?;
        if *what == Move::Retry {
            terminal.note(&format!("it {}: {}", known.words, sure::risk(known.certainty)));
        }
    }
    Ok(())
}

async fn look(client: &Client, id: String) -> anyhow::Result<Known> {
    let attempts = messages::attempts(client, &id).await?;
    let certainty = sure::certainty(&attempts);
    let mut words = sure::words(certainty);
    let decisive = sure::decisive(&attempts).filter(|_| certainty > Certainty::NotSent);
    if let Some((attempt, start)) = decisive.and_then(|attempt| Some((attempt, attempt.started_at?))) {
        let ago = age(server::now(client).await?.duration_since(start).as_secs_f64());
        write!(words, "; that was {}, {ago} ago", sure::app(attempt))?;
    }
    Ok(Known { id, certainty, words })
}

/// Says of each what it risks, before any is moved.
fn refuse_risk(all: &[Known]) -> anyhow::Result<()> {
    let risky: Vec<&Known> = all.iter().filter(|known| known.certainty > Certainty::NotSent).collect();
    if risky.is_empty() {
        return Ok(());
    }
    let lines: Vec<String> = risky.iter().map(|known| format!("{} {}", known.id, known.words)).collect();
    bail!(
        "{}; nothing was changed: look at {} with message show, and add --yes to retry\n{}",
        sure::risk(Certainty::Possible),
        if risky.len() == 1 { "it".to_owned() } else { count(risky.len() as i64, "message") },
        lines.join("\n")
    )
}
