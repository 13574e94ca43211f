//! What the sandbox accepted, and every request it saw. Both are in their files before the request is acted on: they are
//! the truth of 'asked' and 'accepted', also after a kill.

use std::collections::VecDeque;
use std::fs::{File, OpenOptions};
use std::io::{self, Write};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use serde_json::{Map, Value, json};

use super::rules::Behaviour;
use super::wire::Submission;

/// One accepted message.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Accepted {
    /// When.
    pub at: Timestamp,
    /// Slug of the provider whose wire was used.
    pub provider: String,
    /// The credential that names the account.
    pub account: String,
    /// Recipient, as it was written in the request.
    pub to: String,
    /// Sender.
    pub sender: Option<String>,
    /// Text.
    pub body: String,
    /// The client's reference: of the `sandbox` wire, and of `generic-http` where its template sends one.
    pub reference: Option<String>,
    /// The id that was given to it.
    pub provider_message_id: String,
}

/// One request that could cause a send. What was not read is not known.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Seen {
    /// When it had been read.
    pub at: Timestamp,
    /// Slug of the provider whose wire was used.
    pub provider: String,
    /// The credential that names the account.
    pub account: Option<String>,
    /// Recipient, as it was written in the request.
    pub to: Option<String>,
    /// Sender.
    pub sender: Option<String>,
    /// Text.
    pub body: Option<String>,
    /// The client's reference.
    pub reference: Option<String>,
    /// What is done with it: the behaviour, or `invalid` for a request that the provider would refuse by itself.
    pub done: Value,
    /// Whether it is accepted, whatever the client gets to see.
    pub accepted: bool,
    /// The id that it is given where it is accepted.
    pub provider_message_id: Option<String>,
}

/// Locks, also after a panic elsewhere: every change of ours is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "a journal of when things happened: nothing is decided by it here")]
fn now() -> Timestamp {
    Timestamp::now()
}

/// A file of JSON lines. One write of a whole line, in append mode: a kill leaves no half of it.
struct Lines(Mutex<File>);

impl Lines {
    fn open(path: &Path) -> io::Result<Self> {
        let file = OpenOptions::new().create(true).append(true).open(path);
        let file = file.map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))?;
        Ok(Self(Mutex::new(file)))
    }

    fn append(&self, item: &impl Serialize) -> io::Result<()> {
        let mut line = serde_json::to_vec(item)?;
        line.push(b'\n');
        lock(&self.0).write_all(&line)
    }
}

pub(super) struct Journal {
    accepted_file: Option<Lines>,
    seen_file: Option<Lines>,
    remember: usize,
    accepted: Mutex<VecDeque<Accepted>>,
    /// Everything accepted after this is in `accepted`.
    forgotten_until: Mutex<Timestamp>,
    seen: Mutex<VecDeque<Seen>>,
    accepted_count: AtomicU64,
    invalid_count: AtomicU64,
    counts: [AtomicU64; Behaviour::ALL.len()],
    next_id: AtomicU64,
}

impl Journal {
    pub(super) fn open(accepted: Option<&Path>, seen: Option<&Path>, remember: usize) -> io::Result<Self> {
        Ok(Self {
            accepted_file: accepted.map(Lines::open).transpose()?,
            seen_file: seen.map(Lines::open).transpose()?,
            remember,
            accepted: Mutex::default(),
            forgotten_until: Mutex::new(now()),
            seen: Mutex::default(),
            accepted_count: AtomicU64::new(0),
            invalid_count: AtomicU64::new(0),
            counts: Default::default(),
            // Ids go on after a restart.
            next_id: AtomicU64::new(u64::try_from(now().as_microsecond()).unwrap_or_default()),
        })
    }

    /// A number that no other message got.
    pub(super) fn next_id(&self) -> u64 {
        self.next_id.fetch_add(1, Ordering::Relaxed)
    }

    /// Notes a request, and that it is accepted under `id`. Both are in the files when this returns. No submission means that
    /// it was not read, no behaviour that it was not valid.
    pub(super) fn note(
        &self,
        provider: &str,
        submission: Option<&Submission>,
        done: Option<Behaviour>,
        id: Option<&str>,
    ) -> io::Result<()> {
        let place = Behaviour::ALL.iter().position(|behaviour| Some(*behaviour) == done);
        let count = place.map_or(&self.invalid_count, |place| &self.counts[place]);
        let seen = Seen {
            at: now(),
            provider: provider.to_owned(),
            account: submission.map(|submission| submission.account.clone()),
            to: submission.map(|submission| submission.to.clone()),
            sender: submission.and_then(|submission| submission.sender.clone()),
            body: submission.map(|submission| submission.body.clone()),
            reference: submission.and_then(|submission| submission.reference.clone()),
            done: done.map_or(json!("invalid"), |done| json!(done)),
            accepted: id.is_some(),
            provider_message_id: id.map(str::to_owned),
        };
        if let Some(file) = &self.seen_file {
            file.append(&seen)?;
        }
        if let (Some(submission), Some(id)) = (submission, id) {
            self.accept(provider, submission, id, seen.at)?;
        }
        count.fetch_add(1, Ordering::Relaxed);
        drop(self.keep(&self.seen, seen));
        Ok(())
    }

    fn accept(&self, provider: &str, submission: &Submission, id: &str, at: Timestamp) -> io::Result<()> {
        let accepted = Accepted {
            at,
            provider: provider.to_owned(),
            account: submission.account.clone(),
            to: submission.to.clone(),
            sender: submission.sender.clone(),
            body: submission.body.clone(),
            reference: submission.reference.clone(),
            provider_message_id: id.to_owned(),
        };
        if let Some(file) = &self.accepted_file {
            file.append(&accepted)?;
        }
        if let Some(forgotten) = self.keep(&self.accepted, accepted) {
            *lock(&self.forgotten_until) = forgotten.at;
        }
        self.accepted_count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Keeps it, and gives back what is forgotten for it.
    fn keep<T>(&self, list: &Mutex<VecDeque<T>>, item: T) -> Option<T> {
        if self.remember == 0 {
            return Some(item);
        }
        let mut list = lock(list);
        let forgotten = if list.len() >= self.remember { list.pop_front() } else { None };
        list.push_back(item);
        forgotten
    }

    /// The messages accepted that match, and since when none that was accepted is forgotten.
    pub(super) fn find(&self, matches: impl Fn(&Accepted) -> bool) -> (Vec<Accepted>, Timestamp) {
        let list = lock(&self.accepted);
        (list.iter().filter(|accepted| matches(accepted)).cloned().collect(), *lock(&self.forgotten_until))
    }

    /// The messages accepted last.
    pub(super) fn accepted(&self) -> Value {
        json!(*lock(&self.accepted))
    }

    /// The requests seen last.
    pub(super) fn seen(&self) -> Value {
        json!(*lock(&self.seen))
    }

    /// Everything since the start.
    pub(super) fn counts(&self) -> Value {
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        let mut done: Map<String, Value> = Map::new();
        for (behaviour, number) in Behaviour::ALL.iter().zip(&self.counts) {
            if let (Value::String(word), 1..) = (json!(behaviour), count(number)) {
                done.insert(word, json!(count(number)));
            }
        }
        let invalid = count(&self.invalid_count);
        if invalid > 0 {
            done.insert("invalid".to_owned(), json!(invalid));
        }
        let requests: u64 = self.counts.iter().map(count).sum::<u64>() + invalid;
        json!({"requests": requests, "accepted": count(&self.accepted_count), "done": done})
    }
}
