//! `make demo`: a small shop writes orders and their SMS in one transaction, and everybody can watch what becomes of
//! them. Everything is real: a private PostgreSQL server with the extension, psql, `sms-outbox worker`, `sms-outbox api`,
//! and `sms-outbox sandbox` in place of the providers. Each line is printed when it happened; what does not happen fails.

mod crash;
mod keep;
mod reckoning;
mod shop;
mod stage;
mod story;
mod terminal;
mod web;

use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Error, Result, anyhow};
use tokio::signal::unix::{SignalKind, signal};

use crate::stage::Stage;
use crate::terminal::Terminal;

/// As a shell reports a program that Ctrl-C ended.
const INTERRUPTED: u8 = 130;

#[tokio::main]
async fn main() -> ExitCode {
    let terminal = Terminal::new();
    let keep = std::env::var("KEEP").is_ok_and(|value| !matches!(value.as_str(), "" | "0"));
    let result = tokio::select! {
        biased;
        result = stopped() => result,
        result = show(&terminal, keep) => match result {
            // Ctrl-C reaches what the demo runs as well, and may be noticed there first.
            Err(error) => tokio::time::timeout(Duration::from_millis(200), stopped()).await.unwrap_or(Err(error).map(|()| false)),
            Ok(()) => Ok(false),
        },
    };
    match result {
        Ok(false) => ExitCode::SUCCESS,
        Ok(true) => {
            terminal.verdict(false, "interrupted; everything that ran is ended and removed");
            ExitCode::from(INTERRUPTED)
        }
        Err(error) => {
            terminal.verdict(false, format!("error: {error:#}"));
            ExitCode::FAILURE
        }
    }
}

/// Waits until somebody wants the demo to stop; then gives `true`.
async fn stopped() -> Result<bool> {
    let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
    tokio::select! {
        _ = interrupt.recv() => Ok(true),
        _ = terminate.recv() => Ok(true),
    }
}

async fn show(terminal: &Terminal, keep: bool) -> Result<()> {
    let started = Instant::now();
    // Logs are saved while the stage still stands: it takes them with it.
    let failed = |error: Error| anyhow!("{}: {error:#}{}", terminal.current_step(), keep::save_logs());
    let mut stage = Stage::build(terminal).await.map_err(failed)?;
    if let Err(error) = play(&mut stage).await {
        let evidence = if waited_in_vain(&error) { String::new() } else { stage.database.evidence().await };
        return Err(failed(anyhow!("{error:#}\n{evidence}")));
    }
    terminal.verdict(true, format!("All as it should be, in {:.0} s.", started.elapsed().as_secs_f64()));
    if keep {
        keep::leave_running(stage)?;
    }
    Ok(())
}

/// Whether the error comes from the harness's waiting, and holds the views and the ends of the logs already.
fn waited_in_vain(error: &Error) -> bool {
    error.root_cause().to_string().starts_with("waited ")
}

async fn play(stage: &mut Stage<'_>) -> Result<()> {
    story::play(stage).await?;
    web::play(stage).await?;
    crash::play(stage).await?;
    reckoning::show_views(stage).await?;
    reckoning::reckon(stage).await
}
