//! A bad night: a backlog waits, somebody's snapshot pins the horizon, autovacuum is off, a writer is open in another database,
//! and a provider refuses one in twenty. Then all of it is drained as a worker does, with the worker's scheduler and its
//! statements. No call may come to read more buffers as dead rows pile up.
//!
//! `make bad-night` runs it with ten million messages, and keeps what it measured in `docs/bad-night/`.

mod dead;
mod meter;
mod night;

use std::env;

use anyhow::{Context, Result, ensure};
use sms_outbox_tests::{Major, on_majors};

use crate::meter::Meter;
use crate::night::Night;

on_majors! { ends: reads_no_more_at_its_end_than_at_its_beginning }

/// Without the command: enough for every level of the indexes that ten million have but one.
const MESSAGES: usize = 300_000;

/// The night is compared by tenths.
const PARTS: usize = 10;

async fn reads_no_more_at_its_end_than_at_its_beginning(major: Major) -> Result<()> {
    let messages = match env::var("BAD_NIGHT_MESSAGES").ok().filter(|text| !text.is_empty()) {
        Some(text) => text.parse().with_context(|| format!("BAD_NIGHT_MESSAGES: {text} is no number"))?,
        None => MESSAGES,
    };
    let mut night = Night::fall(major, messages).await?;
    let mut meter = Meter::default();
    for part in 1..=PARTS {
        night.begin_part().await?;
        let seconds = night.drain(messages / PARTS * part).await?;
        meter.add(night.read().await?, seconds);
    }
    let table = meter.table();
    #[expect(clippy::print_stdout, reason = "what was measured is read with --nocapture")]
    {
        println!("{messages} messages, PostgreSQL {major}\n{table}");
    }
    night.end().await?;
    if let Some(file) = env::var("BAD_NIGHT_SUMMARY").ok().filter(|file| !file.is_empty()) {
        std::fs::write(
            &file,
            meter.summary(messages, major, &env::var("BAD_NIGHT_SETTING").unwrap_or_default(), &table),
        )
        .with_context(|| format!("cannot write {file}"))?;
    }
    let faults = meter.faults();
    ensure!(faults.is_empty(), "{}\n{table}", faults.join("\n"));
    Ok(())
}
