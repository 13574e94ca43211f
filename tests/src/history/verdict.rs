//! What comes out of a check, in words.

use std::collections::BTreeMap;
use std::fmt;

use anyhow::{Result, bail};

use super::check::RULES;
use super::journal::Id;

/// A rule that a message breaks.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Breach {
    /// Number in [`RULES`].
    pub rule: u8,
    /// The message, where it has a name.
    pub message: Option<Id>,
    /// What is wrong.
    pub what: String,
}

/// What was counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Counts {
    /// Messages committed.
    pub committed: usize,
    /// Messages in the database, by `dispatch_status`.
    pub by_status: BTreeMap<String, usize>,
    /// Requests that the provider read.
    pub requests: usize,
    /// Requests that it accepted, duplicates that it knew aside.
    pub accepted: usize,
    /// Messages that it accepted and the database calls unclear: the answer was lost.
    pub accepted_unclear: usize,
    /// Committed messages that are nowhere.
    pub lost: usize,
    /// Messages that a provider accepted twice without leave.
    pub twice: usize,
    /// Messages that a fault left unclear.
    pub unclear_expected: usize,
    /// Operators' retries.
    pub retries: usize,
    /// Attempts whose claims were lost in a failover, as the ledger says.
    pub claims_lost: usize,
}

impl fmt::Display for Counts {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<String> = self.by_status.iter().map(|(status, count)| format!("{count} {status}")).collect();
        write!(formatter, "{} committed; {}; {} accepted", self.committed, statuses.join(", "), self.accepted)?;
        match self.accepted_unclear {
            0 => Ok(()),
            lost => write!(formatter, ", {lost} of them with the answer lost"),
        }
    }
}

/// What the journals show.
#[derive(Clone, Debug, Default)]
pub struct Verdict {
    /// What was counted.
    pub counts: Counts,
    /// The rules that are broken.
    pub broken: Vec<Breach>,
    /// What is not known, by message: while there is any, nothing is shown.
    pub unknown: BTreeMap<Id, String>,
    /// Why the journals could not be read as a whole.
    pub unreadable: Vec<String>,
}

impl Verdict {
    /// The verdict on journals that cannot be read.
    pub fn unreadable(fault: &anyhow::Error) -> Self {
        Self { unreadable: vec![format!("{fault:#}")], ..Self::default() }
    }

    /// Whether everything is known and all rules hold.
    pub fn holds(&self) -> bool {
        self.broken.is_empty() && self.unknown.is_empty() && self.unreadable.is_empty()
    }

    /// What was counted, where all rules hold and exactly these messages are not over yet; else the whole verdict as an error.
    pub fn leaving(&self, open: &[Id]) -> Result<&Counts> {
        let expected = self.unknown.len() == open.len() && open.iter().all(|id| self.unknown.contains_key(id));
        if self.broken.is_empty() && self.unreadable.is_empty() && expected {
            return Ok(&self.counts);
        }
        if let Some(id) = open.iter().find(|id| !self.unknown.contains_key(id)) {
            bail!("{id} was to be open still:\n{self}");
        }
        bail!("the journals do not agree:\n{self}")
    }

    /// The exit code that says it: 0 all rules hold, 1 one is broken, 2 it is not known.
    pub fn exit_code(&self) -> u8 {
        match (self.broken.is_empty(), self.holds()) {
            (false, _) => 1,
            (true, true) => 0,
            (true, false) => 2,
        }
    }
}

impl fmt::Display for Verdict {
    /// The rules with what breaks each, as far as a person reads on.
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        const SHOWN: usize = 20;
        for (rule, words) in RULES {
            let breaches: Vec<&Breach> = self.broken.iter().filter(|breach| breach.rule == rule).collect();
            let word = match (breaches.len(), self.holds()) {
                (0, true) => "holds",
                (0, false) => "-",
                _ => "BROKEN",
            };
            writeln!(formatter, "{rule:>2} {word:<6} {words}")?;
            for breach in breaches.iter().take(SHOWN) {
                let name = breach.message.map(|id| format!("{id}: ")).unwrap_or_default();
                writeln!(formatter, "          {name}{}", breach.what)?;
            }
            if breaches.len() > SHOWN {
                writeln!(formatter, "          and {} more", breaches.len() - SHOWN)?;
            }
        }
        for fault in &self.unreadable {
            writeln!(formatter, "not known: {fault}")?;
        }
        for (id, what) in self.unknown.iter().take(SHOWN) {
            writeln!(formatter, "not known: {id}: {what}")?;
        }
        if self.unknown.len() > SHOWN {
            writeln!(formatter, "not known: {} more messages", self.unknown.len() - SHOWN)?;
        }
        write!(formatter, "{}", self.counts)
    }
}
