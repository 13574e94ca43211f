//! Moves by filter: counted first, then made in batches, each a transaction of its own.

use std::pin::pin;

use anyhow::bail;
use serde_json::{Value, json};
use tokio::signal::unix::{SignalKind, signal};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;

use super::{groups, sure};
use crate::cli::terminal::{Terminal, count};
use crate::cli::worker::stop_on_signals;
use crate::message::Certainty;
use crate::outbox::postgres::operator::moves::{self, Move, Moved, Resolution};

/// Rows moved in one transaction: short enough to be in nobody's way.
const BATCH: i32 = 1000;

/// Counts what the filter matches, and moves it where `yes` says so.
pub(super) async fn run(
    client: &Client,
    terminal: &Terminal,
    what: &Move,
    filter: &Value,
    yes: bool,
) -> anyhow::Result<()> {
    let found = moves::move_matching(client, what, filter, true, BATCH).await?;
    if yes {
        return carry_out(client, terminal, what, filter, found.matched).await;
    }
    let groups = if what.is_of_ended() { moves::survey(client, filter).await? } else { Vec::new() };
    if terminal.is_json() {
        let mut answer = json!({"matched": found.matched, "moved": 0, "dry_run": true});
        if what.is_of_ended() {
            answer["groups"] = json!(groups);
        }
        return terminal.json(&answer);
    }
    if !groups.is_empty() {
        groups::print(client, terminal, groups).await?;
        terminal.line("")?;
    }
    terminal.line(&format!("{} would be {}", count(found.matched, "message"), what.done()))?;
    if found.suppressed > 0 {
        terminal.note(&format!("{} to suppressed numbers passed over", count(found.suppressed, "message")));
    }
    if found.risky > 0 {
        terminal.warning(&format!(
            "{} of them may have been sent already: {} for each",
            found.risky,
            sure::risk(Certainty::Possible)
        ));
    }
    if let (Move::Resolve(Resolution { sent: true, .. }), true) = (what, found.matched > 0) {
        terminal.warning("what was not sent after all is then never sent, and nobody is told");
    }
    if found.matched > 0 {
        terminal.note(&format!("nothing was changed; add --yes to {}", what.verb()));
    }
    Ok(())
}

async fn carry_out(
    client: &Client,
    terminal: &Terminal,
    what: &Move,
    filter: &Value,
    found: i64,
) -> anyhow::Result<()> {
    // The first signal lets the batch end, so that what was done is known.
    let (stop, now) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(stop_on_signals(
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        stop.clone(),
        now.clone(),
    ));
    let progress = terminal.progress(Some(found.unsigned_abs()), what.done());
    let mut total = 0;
    // No more than matched at first: a retried message that fails at once would match for ever.
    while total < found && !stop.is_cancelled() {
        let most = i32::try_from(found - total).unwrap_or(BATCH).min(BATCH);
        let mut batch = pin!(moves::move_matching(client, what, filter, false, most));
        let mut told = false;
        let Moved { moved, .. } = loop {
            tokio::select! {
                biased;
                moved = &mut batch => break moved?,
                () = now.cancelled() => {
                    bail!("stopped: {} {}, and perhaps some of the batch that was under way", count(total, "message"), what.done())
                }
                () = stop.cancelled(), if !told => {
                    told = true;
                    terminal.note("stopping after this batch; a second signal stops at once");
                }
            }
        };
        if moved == 0 {
            break;
        }
        total += moved;
        progress.set_position(total.unsigned_abs());
    }
    progress.finish_and_clear();
    if terminal.is_json() {
        terminal.json(&json!({"matched": found, "moved": total, "dry_run": false}))?;
    } else {
        terminal.line(&format!("{} {}", count(total, "message"), what.done()))?;
    }
    if total < found && stop.is_cancelled() {
        bail!("stopped before the other {}; the same command goes on", found - total);
    }
    if total < found {
        terminal.note(&format!("{} moved on by themselves meanwhile", count(found - total, "message")));
    }
    Ok(())
}
