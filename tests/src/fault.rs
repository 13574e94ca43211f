//! What a test of a fault reports: that the fault happened, and that every rule held all the same.
//!
//! ```ignore
//! let mut fault = Fault::new("6", "killed after bytes went out", major);
//! fault.injected(1);            // it did happen; a fault that did not fails the test
//! fault.unclear(&held);         // exactly these messages must end as dispatch_timeout
//! fault.recovered_in(duration); // from the fault to the first message that was sent again
//! shop.close_fault(fault).await?;
//! ```
//!
//! Where `SMS_OUTBOX_FAULTS` names a file, a line of JSON is appended to it, also where the test ends before its end:
//! `make faults` makes a table of them.

use std::fs::OpenOptions;
use std::io::Write;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};

use crate::Major;
use crate::history::journal::Unclear;
use crate::history::{Counts, Id, Verdict};

/// One fault, from its injection to the verdict.
#[derive(Debug)]
#[must_use = "a fault that is not closed counts as failed"]
pub struct Fault {
    group: String,
    case: String,
    server: Major,
    injected: u64,
    unclear: Vec<Unclear>,
    recovered: Option<Duration>,
    closed: bool,
}

impl Fault {
    /// A fault of a group, by its number, that a test is about to inject.
    pub fn new(group: &str, case: &str, server: Major) -> Self {
        Self {
            group: group.to_owned(),
            case: case.to_owned(),
            server,
            injected: 0,
            unclear: Vec::new(),
            recovered: None,
            closed: false,
        }
    }

    /// It happened so many times more.
    pub fn injected(&mut self, times: u64) {
        self.injected += times;
    }

    /// It left these messages unclear: they must end as `dispatch_timeout`, and no others.
    pub fn unclear<T: AsRef<str>>(&mut self, ids: impl IntoIterator<Item = T>) -> Result<()> {
        self.note(Unclear::Expected, ids)
    }

    /// These may end as `dispatch_timeout` or otherwise: whether a late answer came is up to the machine.
    pub fn perhaps_unclear<T: AsRef<str>>(&mut self, ids: impl IntoIterator<Item = T>) -> Result<()> {
        self.note(Unclear::Possible, ids)
    }

    fn note<T: AsRef<str>>(&mut self, line: fn(Id) -> Unclear, ids: impl IntoIterator<Item = T>) -> Result<()> {
        for id in ids {
            self.unclear.push(line(id.as_ref().parse()?));
        }
        Ok(())
    }

    /// How long service was away.
    pub fn recovered_in(&mut self, time: Duration) {
        self.recovered = Some(time);
    }

    /// What it left unclear.
    pub fn expected(&self) -> &[Unclear] {
        &self.unclear
    }

    /// The end: the fault did happen, and the verdict on the journals is good.
    pub fn close(mut self, verdict: &Verdict) -> Result<Counts> {
        let counts = &verdict.counts;
        let unclear = counts.by_status.get("dispatch_timeout").copied().unwrap_or_default();
        let possible = self.unclear.iter().filter(|line| matches!(line, Unclear::Possible(_))).count();
        let judged = verdict.leaving(&[]).map(drop).and_then(|()| self.happened_to(counts.committed));
        self.report(&json!({
            "messages": counts.committed, "lost": counts.lost, "twice": counts.twice,
            "unclear_expected": counts.unclear_expected, "unclear_possible": possible, "unclear_found": unclear, "failed": judged.is_err(),
        }))?;
        judged.map(|()| counts.clone())
    }

    /// The end of a fault in which no provider has a part, so that the test itself asserts what must hold of its messages: nothing
    /// is counted then, and the table shows so.
    pub fn asserted(mut self, messages: usize) -> Result<()> {
        self.happened_to(messages)?;
        self.report(&json!({"messages": messages}))
    }

    fn happened_to(&self, messages: usize) -> Result<()> {
        ensure!(self.injected > 0, "fault {}, {}: it did not happen", self.group, self.case);
        ensure!(messages > 0, "fault {}, {}: there was no message to be hurt", self.group, self.case);
        Ok(())
    }

    fn report(&mut self, result: &Value) -> Result<()> {
        self.closed = true;
        let Some(file) = std::env::var_os("SMS_OUTBOX_FAULTS") else { return Ok(()) };
        let recovered = self.recovered.map(|time| u64::try_from(time.as_millis()).unwrap_or(u64::MAX));
        let mut line = json!({
            "group": self.group, "case": self.case, "server": self.server as u8, "injected": self.injected,
            "recovered_ms": recovered,
        });
        if let (Some(line), Some(result)) = (line.as_object_mut(), result.as_object()) {
            line.extend(result.clone());
        }
        let mut file = OpenOptions::new().create(true).append(true).open(&file).context("SMS_OUTBOX_FAULTS")?;
        Ok(file.write_all(format!("{line}\n").as_bytes())?)
    }
}

impl Drop for Fault {
    fn drop(&mut self) {
        if !self.closed {
            // The test fails by itself; the table shall say so too.
            let _ = self.report(&json!({"failed": true}));
        }
    }
}
