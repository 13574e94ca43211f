//! The lines of the journals. Each is a JSON object with one key that says what it is: `{"enqueued": {…}}`; the last one is
//! `{"end": N}`, where N is the number of lines before it.

use std::fmt;
use std::fs::File;
use std::io::{BufRead, BufReader, BufWriter, Write};
use std::path::Path;
use std::str::FromStr;

use anyhow::{Context, Result, bail, ensure};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};

/// A message's id, `r` and 26 characters.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct Id([u8; 27]);

impl FromStr for Id {
    type Err = anyhow::Error;

    fn from_str(text: &str) -> Result<Self> {
        let bytes: [u8; 27] = text.as_bytes().try_into().with_context(|| format!("'{text}' is no id of a message"))?;
        ensure!(bytes[0] == b'r' && bytes.is_ascii(), "'{text}' is no id of a message");
        Ok(Self(bytes))
    }
}

impl TryFrom<String> for Id {
    type Error = anyhow::Error;

    fn try_from(text: String) -> Result<Self> {
        text.parse()
    }
}

impl From<Id> for String {
    fn from(id: Id) -> Self {
        id.to_string()
    }
}

impl fmt::Display for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.write_str(&String::from_utf8_lossy(&self.0))
    }
}

impl fmt::Debug for Id {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{self}")
    }
}

/// What applications and operators did.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Commit {
    /// `sms_outbox_enqueue` gave this id for this number and text.
    Enqueued {
        /// What it returned.
        id: Id,
        /// The number in international form, with or without `+`.
        to: String,
        /// The text.
        text: String,
        /// How the transaction ended.
        outcome: Transaction,
        /// `idempotent_replay`: the message of an earlier call.
        #[serde(default)]
        replay: bool,
    },
    /// An operator's retry.
    Retried {
        /// Which message.
        id: Id,
        /// Just before.
        at: Timestamp,
    },
    /// The last line.
    End(u64),
}

/// How an application's transaction ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Transaction {
    /// The application was told so.
    Committed,
    /// The same.
    RolledBack,
    /// The connection broke before the answer to COMMIT: either may be true.
    Unknown,
}

/// What the database says. After a [`Reading`] come all messages that there were then.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Database {
    /// A reading begins.
    Reading(Reading),
    /// One message of this reading.
    Message(Message),
    /// The last line.
    End(u64),
}

/// When the database was read, and who was at work.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Reading {
    /// When, by the server's clock, like all times of this journal.
    pub at: Timestamp,
    /// Since when there is a worker that lives; none lives without it.
    pub worker_since: Option<Timestamp>,
    /// When maintenance ran last.
    pub maintained_at: Option<Timestamp>,
    /// How long an ended message is kept at least.
    pub retention_seconds: i64,
}

/// One message.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Message {
    /// Its id.
    pub id: Id,
    /// The number.
    pub to: String,
    /// The text.
    pub text: String,
    /// Its `dispatch_status` as the view shows it; none where the view knows none.
    pub status: Option<Status>,
    /// Why a pending one waits.
    pub waits_for: Option<String>,
    /// Since when it is due, where it waits.
    pub due_since: Option<Timestamp>,
    /// The tables that hold a row of it.
    pub places: Vec<Place>,
    /// When it ended without being accepted.
    pub ended_at: Option<Timestamp>,
    /// The live attempt.
    pub lease: Option<Lease>,
    /// The ledger, in order.
    pub attempts: Vec<Attempt>,
}

/// `dispatch_status`.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words of the queue")]
pub enum Status {
    Pending,
    Sending,
    Sent,
    Failed,
    DispatchTimeout,
    Canceled,
    Expired,
}

impl Status {
    /// The word.
    pub fn word(self) -> &'static str {
        match self {
            Self::Pending => "pending",
            Self::Sending => "sending",
            Self::Sent => "sent",
            Self::Failed => "failed",
            Self::DispatchTimeout => "dispatch_timeout",
            Self::Canceled => "canceled",
            Self::Expired => "expired",
        }
    }
}

/// A table that says where a message is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the names of the tables")]
pub enum Place {
    Ready,
    Scheduled,
    Lease,
    Ended,
}

/// A live attempt.
#[derive(Clone, Copy, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Lease {
    /// Its number.
    pub attempt: i16,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When it is over.
    pub expires_at: Timestamp,
}

/// An attempt of the ledger.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Attempt {
    /// Its number.
    pub attempt: i16,
    /// How it ended.
    pub status: Outcome,
    /// When it was claimed.
    pub started_at: Timestamp,
    /// When it was over: its lease given back, or taken.
    pub over_at: Timestamp,
    /// When it was known how it ended: the same, but for one that had ended as unclear.
    pub finished_at: Timestamp,
    /// What proves the acceptance of an accepted one.
    pub evidence: Option<Evidence>,
    /// The id that the provider gave.
    pub provider_message_id: Option<String>,
    /// The app sends again what is unclear.
    pub resends: bool,
    /// The claim was lost in a failover, and the ledger says so: its times are those of its answer.
    pub claim_lost: bool,
}

/// How an attempt ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
#[serde(rename_all = "snake_case")]
#[allow(missing_docs, reason = "the words of the ledger")]
pub enum Outcome {
    NotSent,
    RefusedRecipient,
    RefusedContent,
    RefusedAccount,
    Throttled,
    Accepted,
    Unclear,
}

/// What proves an acceptance.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize)]
pub enum Evidence {
    /// The answer to the request, with a status of success.
    #[serde(rename = "answer")]
    Answer,
    /// The same, after the attempt had ended as unclear.
    #[serde(rename = "late answer")]
    LateAnswer,
    /// The provider was asked later.
    #[serde(rename = "look-up")]
    LookUp,
    /// The provider's delivery report.
    #[serde(rename = "receipt")]
    Receipt,
    /// An operator says that the provider said so.
    #[serde(rename = "operator")]
    Operator,
}

/// What the provider saw.
#[derive(Clone, Debug, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Provider {
    /// A request that could cause a send; as the pretend provider notes it, other fields aside.
    Request(Request),
    /// The last line.
    End(u64),
}

/// A request, noted when it had been read and before it was acted on.
#[derive(Clone, Debug, Deserialize)]
pub struct Request {
    /// When.
    pub at: Timestamp,
    /// Recipient, where the request was read.
    pub to: Option<String>,
    /// Text.
    pub body: Option<String>,
    /// The reference of the attempt, `<id>-<attempt>`, on the wires that carry one.
    pub reference: Option<String>,
    /// Whether it was accepted, whatever the answer.
    pub accepted: bool,
    /// The id that it was given.
    pub provider_message_id: Option<String>,
    /// The key by which a provider that deduplicates knows it again.
    pub deduplication: Option<Deduplication>,
}

/// How a provider deduplicates.
#[derive(Clone, Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Deduplication {
    /// The key.
    pub key: String,
    /// How long it is known.
    pub window_seconds: i64,
    /// It was known, so the acceptance had no effect.
    pub duplicate: bool,
}

/// Which messages a fault left unclear.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case", deny_unknown_fields)]
pub enum Unclear {
    /// It must end as `dispatch_timeout`.
    Expected(Id),
    /// It may: the worker was stopped, and its late answer may have come or not.
    Possible(Id),
    /// The last line.
    End(u64),
}

/// A line of a journal.
pub trait Line: DeserializeOwned {
    /// How the journal is called.
    const JOURNAL: &'static str;

    /// The count of the last line.
    fn end(&self) -> Option<u64>;
}

macro_rules! lines {
    ($($line:ident $journal:literal),+) => {$(
        impl Line for $line {
            const JOURNAL: &'static str = $journal;

            fn end(&self) -> Option<u64> {
                if let Self::End(lines) = self { Some(*lines) } else { None }
            }
        }
    )+};
}

lines! { Commit "commits", Database "database", Provider "provider", Unclear "unclear" }

/// Reads a journal and hands on each line but the last, with its number. A journal that is not whole is an error.
pub fn read<L: Line>(file: &Path, mut each: impl FnMut(u64, L) -> Result<()>) -> Result<()> {
    let journal = L::JOURNAL;
    let open = File::open(file).with_context(|| format!("journal {journal}: cannot open {}", file.display()))?;
    let mut reader = BufReader::with_capacity(1 << 20, open);
    let (mut text, mut number) = (String::new(), 0);
    loop {
        text.clear();
        let length = reader.read_line(&mut text).with_context(|| format!("journal {journal}, line {}", number + 1))?;
        ensure!(length > 0, "journal {journal}: it has no last line; it is cut off, or still being written");
        let line: L = serde_json::from_str(&text).with_context(|| format!("journal {journal}, line {}", number + 1))?;
        if let Some(lines) = line.end() {
            ensure!(lines == number, "journal {journal}: its last line counts {lines} lines, and there are {number}");
            text.clear();
            ensure!(reader.read_line(&mut text)? == 0, "journal {journal}: it goes on after its last line");
            return Ok(());
        }
        number += 1;
        each(number, line).with_context(|| format!("journal {journal}, line {number}"))?;
    }
}

/// Writes a journal.
#[derive(Debug)]
pub struct Writer {
    file: BufWriter<File>,
    lines: u64,
}

impl Writer {
    /// Begins a file.
    pub fn create(file: &Path) -> Result<Self> {
        let open = File::create(file).with_context(|| format!("cannot create {}", file.display()))?;
        Ok(Self { file: BufWriter::with_capacity(1 << 20, open), lines: 0 })
    }

    /// Appends a line.
    pub fn line(&mut self, line: &impl Serialize) -> Result<()> {
        serde_json::to_writer(&mut self.file, line)?;
        self.lines += 1;
        Ok(self.file.write_all(b"\n")?)
    }

    /// Appends a line `{kind: json}`, where `json` is written already.
    pub fn wrapped(&mut self, kind: &str, json: &str) -> Result<()> {
        if json.contains('\n') {
            bail!("a line of JSON must be one line");
        }
        self.lines += 1;
        Ok(writeln!(self.file, "{{\"{kind}\":{json}}}")?)
    }

    /// Appends the lines of another journal, but its last.
    pub fn append(&mut self, file: &Path) -> Result<()> {
        let open = File::open(file).with_context(|| format!("cannot open {}", file.display()))?;
        let mut before: Option<String> = None;
        for line in BufReader::new(open).lines() {
            if let Some(before) = before.replace(line?) {
                self.lines += 1;
                writeln!(self.file, "{before}")?;
            }
        }
        Ok(())
    }

    /// Appends the last line.
    pub fn end(mut self) -> Result<()> {
        writeln!(self.file, "{{\"end\":{}}}", self.lines)?;
        Ok(self.file.flush()?)
    }
}
