//! `sms-outbox release-held`.

use clap::Args;
use serde_json::json;

use super::terminal::{Terminal, count};
use super::{Global, session};
use crate::outbox::postgres::operator::{organizations, stats};

/// Let messages go that were queued before a restore, a clone or a promotion
///
/// Such messages are held, so that a copy of production sends nothing. Before you release them be sure that the server they
/// come from sends no more, and that they were not sent there already.
#[derive(Debug, Args)]
pub(super) struct ReleaseHeldArgs {
    /// Do it, rather than show what is held
    #[arg(long)]
    yes: bool,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: &ReleaseHeldArgs) -> anyhow::Result<()> {
    let client = session::open(global, "release-held").await?;
    let waiting = stats::waiting(&client, None).await?;
    let held: i64 = waiting.iter().filter(|group| group.is_held()).map(|group| group.messages).sum();
    if !args.yes {
        if terminal.is_json() {
            return terminal.json(&json!({"held": held, "released": 0}));
        }
        terminal.line(&format!("{} held", count(held, "message")))?;
        if held > 0 {
            terminal.note("nothing was changed; when the old server sends no more, add --yes to release them");
        }
        return Ok(());
    }
    let released = organizations::release_held(&client).await?;
    if terminal.is_json() {
        return terminal.json(&json!({"held": held, "released": released}));
    }
    terminal.line(&format!("{} released", count(released, "message")))
}
