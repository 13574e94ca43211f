//! The raw results: one JSON object a line, written as they come, so that a run that is broken off keeps what it had.

use std::fs::{self, File};
use std::io::Write;
use std::path::Path;
use std::time::Duration;

use anyhow::{Context, Result};
use serde::{Deserialize, Serialize};
use sms_outbox_bench::say;

use crate::load::{self, Load, NOISY};

/// A line of the results.
#[derive(Clone, Debug, Serialize, Deserialize)]
#[serde(tag = "line", rename_all = "lowercase")]
pub(crate) enum Line {
    /// The first: what was run, where and when.
    Run(Run),
    /// A figure of one round.
    Figure(Figure),
    /// Something that has no figure, and why.
    Absent(Absent),
}

/// What was run, where and when.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Run {
    pub(crate) command: String,
    pub(crate) began: String,
    pub(crate) machine: String,
    pub(crate) postgres: String,
    pub(crate) settings: Vec<String>,
    pub(crate) versions: Vec<(String, String)>,
}

/// A figure of one round.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Figure {
    /// What was done.
    pub(crate) part: String,
    /// How, where a part has several cases.
    pub(crate) case: String,
    /// By whom.
    pub(crate) who: String,
    /// The round; figures of one round are compared.
    pub(crate) round: u32,
    /// The figure.
    pub(crate) value: f64,
    /// Its unit.
    pub(crate) unit: String,
    /// The share of the machine that others used meanwhile.
    pub(crate) foreign: f64,
}

impl Figure {
    /// Whether others used so much of the machine that it may be wrong.
    pub(crate) fn is_noisy(&self) -> bool {
        self.foreign > NOISY
    }
}

/// Something that has no figure.
#[derive(Clone, Debug, Serialize, Deserialize)]
pub(crate) struct Absent {
    pub(crate) part: String,
    pub(crate) who: String,
    pub(crate) reason: String,
}

/// What one measurement gave: cases with their values and units.
pub(crate) type Measured = Vec<(String, f64, &'static str)>;

/// Writes results.
pub(crate) struct Recorder {
    file: File,
    lines: Vec<Line>,
    /// What is left of the time to wait for others to be quiet.
    patience: Duration,
}

impl Recorder {
    /// Begins a file; what was in it is replaced.
    pub(crate) fn begin(path: &Path, run: Run, patience: Duration) -> Result<Self> {
        if let Some(folder) = path.parent() {
            fs::create_dir_all(folder)?;
        }
        let file = File::create(path).with_context(|| format!("cannot write {}", path.display()))?;
        let mut recorder = Self { file, lines: Vec::new(), patience };
        recorder.write(Line::Run(run))?;
        Ok(recorder)
    }

    /// Measures something once others are quiet, or patience is at its end; with what others did meanwhile. Round 0 warms up and is not kept.
    pub(crate) async fn measure(
        &mut self,
        part: &str,
        who: &str,
        round: u32,
        work: impl Future<Output = Result<Measured>>,
    ) -> Result<()> {
        self.patience = self.patience.saturating_sub(load::wait_for_quiet(self.patience).await?);
        let load = Load::begin()?;
        let measured = work.await.with_context(|| format!("{part}: {who}"))?;
        let foreign = load.foreign()?;
        if round == 0 {
            return Ok(());
        }
        for (case, value, unit) in measured {
            say(&format!(
                "{part:<18} {case:<28} {who:<16} round {round}: {value:>12.2} {unit}{}",
                if foreign > NOISY {
                    format!("  (noisy: others used {:.0}% of the machine)", foreign * 100.0)
                } else {
                    String::new()
                }
            ));
            let figure = Figure {
                part: part.to_owned(),
                case,
                who: who.to_owned(),
                round,
                value,
                unit: unit.to_owned(),
                foreign,
            };
            self.write(Line::Figure(figure))?;
        }
        Ok(())
    }

    /// Notes that something has no figure.
    pub(crate) fn absent(&mut self, part: &str, who: &str, reason: &str) -> Result<()> {
        say(&format!("{part:<18} {who}: no figure: {reason}"));
        self.write(Line::Absent(Absent { part: part.to_owned(), who: who.to_owned(), reason: reason.to_owned() }))
    }

    /// All lines so far.
    pub(crate) fn lines(&self) -> &[Line] {
        &self.lines
    }

    fn write(&mut self, line: Line) -> Result<()> {
        writeln!(self.file, "{}", serde_json::to_string(&line)?)?;
        self.lines.push(line);
        Ok(())
    }
}

/// Reads results.
pub(crate) fn read(path: &Path) -> Result<Vec<Line>> {
    let text = fs::read_to_string(path).with_context(|| format!("cannot read {}", path.display()))?;
    text.lines()
        .enumerate()
        .map(|(number, line)| {
            serde_json::from_str(line).with_context(|| format!("{}, line {}", path.display(), number + 1))
        })
        .collect()
}
