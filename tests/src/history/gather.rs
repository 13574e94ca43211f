//! Puts together what the journals say of each message. Texts are only ever compared, so of each a digest is kept: a million
//! messages take some hundred megabytes.

use std::collections::HashMap;
use std::fmt::Write;

use anyhow::{Context, Result, ensure};
use aws_lc_rs::digest::{SHA256, digest};
use jiff::Timestamp;

use super::Files;
use super::journal::{
    self, Commit, Database, Evidence, Id, Lease, Message, Outcome, Place, Provider, Reading, Request, Status,
    Transaction, Unclear,
};

/// A text that is only compared.
pub type Mark = [u8; 16];

/// Everything that is known.
#[derive(Debug, Default)]
pub struct Histories {
    /// By message.
    pub messages: HashMap<Id, Box<History>>,
    /// The readings of the database, oldest first.
    pub readings: Vec<Reading>,
    /// Accepted requests that no message explains, by line of the provider's journal.
    pub stray: Vec<u64>,
    /// Requests that fit several messages, by line of the provider's journal.
    pub ambiguous: Vec<u64>,
    /// Whether it is known which messages a fault left unclear.
    pub unclear_known: bool,
}

/// What is known of one message.
#[derive(Debug, Default)]
pub struct History {
    /// How often it was enqueued as a new message, by the end of the transaction.
    pub committed: u32,
    /// The same.
    pub rolled_back: u32,
    /// The same, where the application was not told.
    pub in_doubt: u32,
    /// How often a committed call got it as a replay.
    pub replayed: u32,
    /// Number and text as they were enqueued.
    pub payload: Option<Mark>,
    /// They were not the same in all journals.
    pub payload_differs: bool,
    /// An operator's retries.
    pub retries: Vec<Timestamp>,
    /// What the database says, and in which reading it said so last.
    pub database: Option<(usize, Standing)>,
    /// The requests that the provider saw.
    pub requests: Vec<Seen>,
    /// There was a request after the last reading of the database: what it says may be old.
    pub later: bool,
    /// A fault left it unclear.
    pub unclear: Option<Expectation>,
}

/// A message in the database.
#[derive(Debug)]
pub struct Standing {
    /// The words of [`Message`], all of them.
    pub status: Option<Status>,
    /// The same.
    pub waits_for: Option<Box<str>>,
    /// The same.
    pub due_since: Option<Timestamp>,
    /// The same.
    pub places: Vec<Place>,
    /// The same.
    pub ended_at: Option<Timestamp>,
    /// The same.
    pub lease: Option<Lease>,
    /// The same.
    pub attempts: Vec<Attempt>,
}

/// An attempt in the ledger.
#[derive(Debug)]
pub struct Attempt {
    /// The words of [`journal::Attempt`], all of them.
    pub number: i16,
    /// The same.
    pub outcome: Outcome,
    /// The same.
    pub started_at: Timestamp,
    /// The same.
    pub over_at: Timestamp,
    /// The same.
    pub finished_at: Timestamp,
    /// The same.
    pub evidence: Option<Evidence>,
    /// The same.
    pub provider_message_id: Option<Mark>,
    /// The same.
    pub resends: bool,
    /// The same.
    pub claim_lost: bool,
}

/// A request.
#[derive(Debug)]
pub struct Seen {
    /// When.
    pub at: Timestamp,
    /// The attempt that it names, if it does.
    pub attempt: Option<i16>,
    /// Whether it was accepted.
    pub accepted: bool,
    /// The id that it was given.
    pub provider_message_id: Option<Mark>,
    /// Key, window in seconds, and whether the provider knew it.
    pub deduplication: Option<(Mark, i64, bool)>,
}

/// How a message may end that a fault touched.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Expectation {
    /// As `dispatch_timeout`.
    Unclear,
    /// So, or otherwise.
    Open,
}

fn mark(text: &str) -> Mark {
    let mut mark = Mark::default();
    mark.copy_from_slice(&digest(&SHA256, text.as_bytes()).as_ref()[..16]);
    mark
}

fn payload(to: &str, text: &str) -> Mark {
    let mut whole: String = to.chars().filter(char::is_ascii_digit).collect();
    // A number has no bar, so no two pairs look the same.
    let _ = write!(whole, "|{text}");
    mark(&whole)
}

/// Reads all journals.
pub fn gather(files: &Files) -> Result<Histories> {
    let mut all = Histories::default();
    journal::read(&files.commits, |_, line| {
        all.commit(line);
        Ok(())
    })?;
    ensure!(!all.messages.is_empty(), "journal commits: nothing was enqueued, so nothing is shown");
    journal::read(&files.database, |_, line| all.read(line))?;
    ensure!(!all.readings.is_empty(), "journal database: it has no reading");
    let mut by_payload = None;
    journal::read(&files.provider, |number, line| all.request(number, line, &mut by_payload))?;
    if let Some(unclear) = &files.unclear {
        all.unclear_known = true;
        journal::read(unclear, |_, line| {
            let (id, expectation) = match line {
                Unclear::Expected(id) => (id, Expectation::Unclear),
                Unclear::Possible(id) => (id, Expectation::Open),
                Unclear::End(_) => return Ok(()),
            };
            all.messages.entry(id).or_default().unclear = Some(expectation);
            Ok(())
        })?;
    }
    Ok(all)
}

impl Histories {
    fn commit(&mut self, line: Commit) {
        match line {
            Commit::Enqueued { id, to, text, outcome, replay } => {
                let history = self.messages.entry(id).or_default();
                let count = match (outcome, replay) {
                    (Transaction::Committed, false) => &mut history.committed,
                    (Transaction::Committed, true) => &mut history.replayed,
                    (Transaction::RolledBack, false) => &mut history.rolled_back,
                    (Transaction::Unknown, false) => &mut history.in_doubt,
                    // It asked for somebody else's message, and nobody knows or cares how that ended.
                    (Transaction::RolledBack | Transaction::Unknown, true) => return,
                };
                *count += 1;
                // A key that came again with something else got the first message.
                if !replay {
                    history.agree(payload(&to, &text));
                }
            }
            Commit::Retried { id, at } => self.messages.entry(id).or_default().retries.push(at),
            Commit::End(_) => {}
        }
    }

    fn read(&mut self, line: Database) -> Result<()> {
        match line {
            Database::Reading(reading) => self.readings.push(reading),
            Database::Message(message) => {
                let reading = self.readings.len().checked_sub(1).context("a message before the first reading")?;
                let history = self.messages.entry(message.id).or_default();
                let again = history.database.as_ref().is_some_and(|(before, _)| *before == reading);
                ensure!(!again, "{} stands twice in one reading", message.id);
                history.agree(payload(&message.to, &message.text));
                history.database = Some((reading, standing(message)));
            }
            Database::End(_) => {}
        }
        Ok(())
    }

    /// What a request without a reference is about, its number and text tell, unless several messages have them.
    fn by_payload(&self) -> HashMap<Mark, Option<Id>> {
        let mut ids = HashMap::new();
        for (id, history) in &self.messages {
            if let Some(payload) = history.payload {
                ids.entry(payload).and_modify(|several| *several = None).or_insert(Some(*id));
            }
        }
        ids
    }

    fn request(
        &mut self,
        number: u64,
        line: Provider,
        by_payload: &mut Option<HashMap<Mark, Option<Id>>>,
    ) -> Result<()> {
        let Provider::Request(request) = line else { return Ok(()) };
        // Not read, or not valid: it can have had no effect.
        let (Some(to), Some(body)) = (&request.to, &request.body) else {
            ensure!(!request.accepted, "accepted without a number and a text");
            return Ok(());
        };
        let payload = payload(to, body);
        let named = request.reference.as_deref().and_then(|reference| reference.rsplit_once('-'));
        let (id, attempt) = match named {
            Some((id, attempt)) => (Some(Some(id.parse()?)), Some(attempt.parse()?)),
            None => (by_payload.get_or_insert_with(|| self.by_payload()).get(&payload).copied(), None),
        };
        let read = self.readings.last().context("no reading")?.at;
        let known = id.flatten().and_then(|id| self.messages.get_mut(&id));
        match known {
            Some(history) => {
                history.agree(payload);
                history.later |= request.at >= read;
                // Most have one, and a vector would make room for four.
                history.requests.reserve_exact(1);
                history.requests.push(seen(request, attempt));
            }
            None if id == Some(None) => self.ambiguous.push(number),
            None => self.stray.push(number),
        }
        Ok(())
    }
}

impl History {
    fn agree(&mut self, payload: Mark) {
        self.payload_differs |= *self.payload.get_or_insert(payload) != payload;
    }
}

fn standing(message: Message) -> Standing {
    let attempts = message.attempts.into_iter().map(|attempt| Attempt {
        number: attempt.attempt,
        outcome: attempt.status,
        started_at: attempt.started_at,
        over_at: attempt.over_at,
        finished_at: attempt.finished_at,
        evidence: attempt.evidence,
        provider_message_id: attempt.provider_message_id.as_deref().map(mark),
        resends: attempt.resends,
        claim_lost: attempt.claim_lost,
    });
    Standing {
        status: message.status,
        waits_for: message.waits_for.map(String::into_boxed_str),
        due_since: message.due_since,
        places: message.places,
        ended_at: message.ended_at,
        lease: message.lease,
        attempts: attempts.collect(),
    }
}

fn seen(request: Request, attempt: Option<i16>) -> Seen {
    let deduplication = request.deduplication.map(|by| (mark(&by.key), by.window_seconds, by.duplicate));
    Seen {
        at: request.at,
        attempt,
        accepted: request.accepted,
        provider_message_id: request.provider_message_id.as_deref().map(mark),
        deduplication,
    }
}
