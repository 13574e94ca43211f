//! What the sandbox accepted, and every request it saw. The journal is the truth of 'accepted'.

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
#[derive(Clone, Debug, Serialize)]
struct Seen {
    at: Timestamp,
    provider: String,
    account: Option<String>,
    to: Option<String>,
    reference: Option<String>,
    /// The behaviour, or `invalid` for a request that the provider would refuse by itself.
    done: Value,
    accepted: bool,
}

/// Locks, also after a panic elsewhere: every change of ours is whole.
pub(super) fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[expect(clippy::disallowed_methods, reason = "a journal for people: nothing is decided by it")]
fn now() -> Timestamp {
    Timestamp::now()
}

pub(super) struct Journal {
    file: Option<Mutex<File>>,
    remember: usize,
    accepted: Mutex<VecDeque<Accepted>>,
    seen: Mutex<VecDeque<Seen>>,
    accepted_count: AtomicU64,
    invalid_count: AtomicU64,
    counts: [AtomicU64; Behaviour::ALL.len()],
    next_id: AtomicU64,
}

impl Journal {
    pub(super) fn open(path: Option<&Path>, remember: usize) -> io::Result<Self> {
        let open = |path: &Path| {
            let file = OpenOptions::new().create(true).append(true).open(path);
            file.map_err(|error| io::Error::new(error.kind(), format!("journal {}: {error}", path.display())))
        };
        Ok(Self {
            file: path.map(open).transpose()?.map(Mutex::new),
            remember,
            accepted: Mutex::default(),
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

    /// Accepts a message. It is in the file when this returns.
    pub(super) fn accept(&self, provider: &str, submission: &Submission, id: &str) -> io::Result<()> {
        if self.file.is_some() || self.remember > 0 {
            let accepted = Accepted {
                at: now(),
                provider: provider.to_owned(),
                account: submission.account.clone(),
                to: submission.to.clone(),
                sender: submission.sender.clone(),
                body: submission.body.clone(),
                reference: submission.reference.clone(),
                provider_message_id: id.to_owned(),
            };
            if let Some(file) = &self.file {
                let mut line = serde_json::to_vec(&accepted)?;
                line.push(b'\n');
                // One write of the whole line, in append mode: a kill leaves no half of it.
                lock(file).write_all(&line)?;
            }
            self.keep(&self.accepted, accepted);
        }
        self.accepted_count.fetch_add(1, Ordering::Relaxed);
        Ok(())
    }

    /// Notes a request; no behaviour means that the request was not valid.
    pub(super) fn note(&self, provider: &str, submission: Option<&Submission>, done: Option<Behaviour>) {
        let place = Behaviour::ALL.iter().position(|behaviour| Some(*behaviour) == done);
        let count = place.map_or(&self.invalid_count, |place| &self.counts[place]);
        count.fetch_add(1, Ordering::Relaxed);
        if self.remember > 0 {
            let seen = Seen {
                at: now(),
                provider: provider.to_owned(),
                account: submission.map(|submission| submission.account.clone()),
                to: submission.map(|submission| submission.to.clone()),
                reference: submission.and_then(|submission| submission.reference.clone()),
                done: done.map_or(json!("invalid"), |done| json!(done)),
                accepted: done.is_some_and(Behaviour::accepts),
            };
            self.keep(&self.seen, seen);
        }
    }

    fn keep<T>(&self, list: &Mutex<VecDeque<T>>, item: T) {
        if self.remember == 0 {
            return;
        }
        let mut list = lock(list);
        if list.len() >= self.remember {
            list.pop_front();
        }
        list.push_back(item);
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
