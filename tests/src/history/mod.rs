//! The history of every message, from three journals that know nothing of each other, and whether it breaks a rule.
//!
//! | journal | who keeps it | what it holds |
//! | --- | --- | --- |
//! | commits | applications and operators | what they enqueued and whether it was committed; which messages an operator retried |
//! | database | read from the tables | where each message is, and all of its attempts |
//! | provider | the pretend provider | every request, noted before it was acted on, and whether it was accepted: the truth |
//!
//! Each journal is a file of JSON lines ([`journal`]) whose last line counts the others: a journal that is missing, cut off or
//! cannot be read makes the verdict 'not known', never 'fine'. [`gather`] puts the lines of each message together, [`check`]
//! has the rules, [`read`] writes the journals of what runs now. `scripts/run.sh cargo run -p sms-outbox-tests --bin history`
//! checks files.

pub mod check;
pub mod gather;
pub mod journal;
pub mod read;
#[cfg(test)]
mod tests;
pub mod verdict;

use std::path::PathBuf;

pub use check::RULES;
pub use journal::{Commit, Id};
pub use verdict::{Breach, Counts, Verdict};

/// The files of the journals.
#[derive(Clone, Debug)]
pub struct Files {
    /// What applications and operators did.
    pub commits: PathBuf,
    /// What the database says.
    pub database: PathBuf,
    /// What the provider saw.
    pub provider: PathBuf,
    /// Which messages a fault left unclear. Without it, every unclear end is taken as expected.
    pub unclear: Option<PathBuf>,
}

/// Reads the journals and checks every message.
pub fn check_files(files: &Files) -> Verdict {
    match gather::gather(files) {
        Ok(histories) => check::check(&histories),
        Err(fault) => Verdict::unreadable(&fault),
    }
}
