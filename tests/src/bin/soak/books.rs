//! What the soak itself notes: the applications' journal, and which attempts a fault left unclear.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::fs::File;
use std::io::{BufRead, BufReader};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::{Context, Result};
use serde::Deserialize;
use sms_outbox_tests::history::Id;
use sms_outbox_tests::history::journal::{Commit, Transaction, Unclear, Writer};

use crate::plan::UNCLEAR;

/// The books of one round.
pub(crate) struct Books {
    commits: Mutex<Option<Writer>>,
    commits_file: PathBuf,
    attempts: Mutex<Attempts>,
    /// Committed messages, those that are rolled back, and calls that got a replay.
    pub(crate) committed: AtomicU64,
    pub(crate) rolled_back: AtomicU64,
    pub(crate) replayed: AtomicU64,
    pub(crate) in_doubt: AtomicU64,
}

/// Attempts by message and number.
#[derive(Default)]
struct Attempts {
    expected: HashMap<Id, i16>,
    possible: HashMap<Id, i16>,
    /// The last attempt before an operator's retry: what it left open counts no more.
    retried: HashMap<Id, i16>,
    injected: BTreeMap<&'static str, u64>,
}

#[derive(Deserialize)]
struct Request {
    reference: Option<String>,
    done: String,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Books {
    pub(crate) fn open(folder: &Path) -> Result<Self> {
        let commits_file = folder.join("commits");
        Ok(Self {
            commits: Mutex::new(Some(Writer::create(&commits_file)?)),
            commits_file,
            attempts: Mutex::default(),
            committed: AtomicU64::new(0),
            rolled_back: AtomicU64::new(0),
            replayed: AtomicU64::new(0),
            in_doubt: AtomicU64::new(0),
        })
    }

    /// Notes a message, and how its transaction ended.
    pub(crate) fn enqueued(&self, id: &str, to: &str, text: &str, outcome: Transaction, replay: bool) -> Result<()> {
        let count = match (outcome, replay) {
            (_, true) => &self.replayed,
            (Transaction::Committed, _) => &self.committed,
            (Transaction::RolledBack, _) => &self.rolled_back,
            (Transaction::Unknown, _) => &self.in_doubt,
        };
        count.fetch_add(1, Ordering::Relaxed);
        let (id, to, text) = (id.parse()?, to.to_owned(), text.to_owned());
        self.commit(&Commit::Enqueued { id, to, text, outcome, replay })
    }

    /// Notes an operator's retry, just before it, of a message whose last attempt has this number.
    pub(crate) fn retried(&self, id: Id, attempt: i16, at: &str) -> Result<()> {
        lock(&self.attempts).retried.insert(id, attempt);
        self.commit(&Commit::Retried { id, at: at.parse()? })
    }

    fn commit(&self, line: &Commit) -> Result<()> {
        lock(&self.commits).as_mut().context("the books are closed")?.line(line)
    }

    /// A fault left this attempt unclear.
    pub(crate) fn expect_unclear(&self, id: Id, attempt: i16) {
        lock(&self.attempts).expected.insert(id, attempt);
    }

    /// A fault may have left this attempt unclear.
    pub(crate) fn allow_unclear(&self, id: Id, attempt: i16) {
        lock(&self.attempts).possible.insert(id, attempt);
    }

    /// A fault happened.
    pub(crate) fn injected(&self, kind: &'static str) {
        *lock(&self.attempts).injected.entry(kind).or_default() += 1;
    }

    /// How often each kind of fault happened.
    pub(crate) fn faults(&self) -> BTreeMap<&'static str, u64> {
        lock(&self.attempts).injected.clone()
    }

    /// Reads from the provider's journal which requests it answered so that nobody can know.
    pub(crate) fn read_provider(&self, journal: &Path, skip: u64) -> Result<()> {
        for line in BufReader::new(File::open(journal)?).lines().skip(usize::try_from(skip)?) {
            let request: Request = serde_json::from_str(&line?)?;
            let Some(place) = UNCLEAR.iter().position(|behaviour| *behaviour == request.done) else { continue };
            let reference = request.reference.context("a request without a reference")?;
            let (id, attempt) = reference.rsplit_once('-').context("a reference without an attempt")?;
            self.expect_unclear(id.parse()?, attempt.parse()?);
            self.injected(UNCLEAR[place]);
        }
        Ok(())
    }

    /// Closes the applications' journal, and writes which messages must and may be unclear at the end.
    pub(crate) fn close(&self, unclear_file: &Path) -> Result<()> {
        lock(&self.commits).take().context("closed twice")?.end()?;
        let attempts = lock(&self.attempts);
        let still = |id: &Id, attempt: &i16| attempts.retried.get(id).is_none_or(|before| attempt > before);
        let mut writer = Writer::create(unclear_file)?;
        let mut noted = HashSet::new();
        for (id, attempt) in &attempts.expected {
            if still(id, attempt) {
                writer.line(&Unclear::Expected(*id))?;
                noted.insert(*id);
            }
        }
        for (id, attempt) in &attempts.possible {
            if still(id, attempt) && noted.insert(*id) {
                writer.line(&Unclear::Possible(*id))?;
            }
        }
        writer.end()
    }

    /// The applications' journal.
    pub(crate) fn commits_file(&self) -> &Path {
        &self.commits_file
    }
}
