//! `make soak MINUTES=60 SEED=7`: several workers under as much load as they take, random faults drawn from the seed, and the
//! history of every message judged every few minutes and in the end.

mod applications;
mod arguments;
mod books;
mod meter;
mod pace;
mod plan;
mod round;
mod stage;
mod summary;

use std::fs;
use std::io::{Write, stdout};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::Result;
use sms_outbox_tests::history::Verdict;

use crate::arguments::Arguments;
use crate::meter::Meter;
use crate::pace::Pace;
use crate::round::{Outcome, Run};
use crate::stage::{PROVIDERS, Stage};
use crate::summary::Setting;

/// No round is longer: what is wrong shows soon after it happened.
const ROUND: Duration = Duration::from_secs(300);

fn say(text: &str) {
    // Nobody may be listening; the summary tells all the same.
    let _ = writeln!(stdout(), "{text}");
}

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let arguments = match Arguments::read() {
        Ok(arguments) => arguments,
        Err(fault) => {
            say(&format!("error: {fault}"));
            return Ok(ExitCode::from(2));
        }
    };
    let started = Instant::now();
    let stage = Arc::new(Stage::build().await?);
    let server: String = stage.admin().await?.value("SHOW server_version", &[]).await?;
    let mut run = Run {
        stage: stage.clone(),
        pace: Arc::new(Pace::new(arguments.rate, arguments.messages)),
        number: Arc::new(AtomicU64::new(1)),
        canceled: Arc::default(),
        seed: arguments.seed,
        folder: arguments.folder.clone(),
        read: [0; PROVIDERS],
    };
    let (pace, canceled) = (run.pace.clone(), run.canceled.clone());
    let mut meter = Meter::default();
    let every = Duration::from_secs((arguments.minutes * 60 / 360).clamp(1, 30));
    // Pace and meter go on for as long as the rounds do.
    let played = tokio::select! {
        played = play(&mut run, &arguments) => played,
        ended = pace.run(&stage) => ended.and(Err(anyhow::anyhow!("the pace ended"))),
        ended = meter.run(&stage, started, every) => ended.and(Err(anyhow::anyhow!("the meter ended"))),
    };
    let (rounds, last) = match played {
        Ok(played) => played,
        Err(error) => {
            say(&format!("error: {error:#}\nwhat was noted so far: {}", arguments.folder.display()));
            return Ok(ExitCode::FAILURE);
        }
    };
    let setting = Setting {
        command: format!("make soak MINUTES={} SEED={}", arguments.minutes, arguments.seed),
        version: arguments.version.clone(),
        server,
        machine: arguments.machine.clone(),
        rate: arguments.rate,
    };
    let text = summary::write(&setting, &rounds, &last, canceled.load(Ordering::Relaxed), &meter);
    fs::write(&arguments.summary, &text)?;
    say(&text);
    say(&format!("summary: {}", arguments.summary.display()));
    if last.holds() && rounds.iter().all(|round| round.verdict.holds()) {
        fs::remove_dir_all(&arguments.folder)?;
        return Ok(ExitCode::SUCCESS);
    }
    say(&format!("the journals: {}", arguments.folder.display()));
    Ok(ExitCode::FAILURE)
}

async fn play(run: &mut Run, arguments: &Arguments) -> Result<(Vec<Outcome>, Verdict)> {
    let whole = Duration::from_secs(arguments.minutes * 60);
    // Two at least, so that the next finds what the last left behind.
    let count = u32::try_from(whole.as_secs().div_ceil(ROUND.as_secs()))?.max(2);
    let mut rounds = Vec::new();
    for number in 1..=count {
        let round = run.round(u64::from(number), whole / count).await?;
        let word = if round.verdict.holds() { "every rule holds" } else { "NOT every rule holds" };
        let faults: u64 = round.faults.values().sum();
        say(&format!("round {number} of {count}: {}; {faults} faults; {word}", round.verdict.counts));
        let good = round.verdict.holds();
        if good {
            // The end reads them anew.
            fs::remove_file(&round.files.database)?;
            fs::remove_file(&round.files.provider)?;
        } else {
            say(&round.verdict.to_string());
        }
        rounds.push(round);
        if !good {
            break;
        }
    }
    let last = run.judge_all(&rounds).await?;
    Ok((rounds, last))
}
