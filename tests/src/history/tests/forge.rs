//! Journals to forge: the good ones, in which there is a message in every end, and what a test does with them.

use std::fs;
use std::path::{Path, PathBuf};

use serde_json::{Value, json};

use crate::history::{Files, Verdict, check_files};

pub(super) const SENT: usize = 1;
pub(super) const UNCLEAR: usize = 2;
pub(super) const FAILED: usize = 3;
pub(super) const CANCELED: usize = 4;
pub(super) const SECOND_TRY: usize = 5;
pub(super) const ROLLED_BACK: usize = 6;
pub(super) const EXPIRED: usize = 7;

pub(super) fn id(number: usize) -> String {
    format!("r{number:026}")
}

/// A moment of an hour in which nothing else happens.
pub(super) fn at(seconds: i64) -> String {
    jiff::Timestamp::from_second(1_800_000_000 + seconds).unwrap().to_string()
}

pub(super) fn enqueued(number: usize, outcome: &str) -> Value {
    json!({"enqueued": {"id": id(number), "to": format!("+96650000000{number}"), "text": format!("text {number}"), "outcome": outcome}})
}

pub(super) fn message(number: usize, status: &str, attempts: &[Value]) -> Value {
    let places = if status == "sent" { json!([]) } else { json!(["ended"]) };
    let ended = (status != "sent").then(|| at(300));
    json!({"message": {
        "id": id(number), "to": format!("+96650000000{number}"), "text": format!("text {number}"), "status": status,
        "waits_for": null, "due_since": null, "places": places, "ended_at": ended, "lease": null, "attempts": attempts,
    }})
}

/// An attempt from 10 to 20 s, 110 to 120 s, ….
pub(super) fn attempt(number: i64, status: &str) -> Value {
    let accepted = status == "accepted";
    json!({
        "attempt": number, "status": status, "started_at": at(100 * number - 90), "finished_at": at(100 * number - 80), "over_at": at(100 * number - 80),
        "evidence": accepted.then_some("answer"), "provider_message_id": accepted.then(|| format!("p{number}")),
        "resends": false, "claim_lost": false,
    })
}

/// The request of an attempt, in its middle.
pub(super) fn request(of: usize, attempt: i64, accepted: bool) -> Value {
    json!({"request": {
        "at": at(100 * attempt - 85), "to": format!("+96650000000{of}"), "body": format!("text {of}"),
        "reference": format!("{}-{attempt}", id(of)), "accepted": accepted,
        "provider_message_id": accepted.then(|| format!("p{attempt}")), "provider": "sandbox", "done": "accept",
    }})
}

pub(super) fn reading(seconds: i64) -> Value {
    json!({"reading": {"at": at(seconds), "worker_since": at(0), "maintained_at": at(seconds - 30), "retention_seconds": 3600}})
}

/// The lines of the journals, but the last ones.
pub(super) struct Journals {
    pub(super) commits: Vec<Value>,
    pub(super) database: Vec<Value>,
    pub(super) provider: Vec<Value>,
    pub(super) unclear: Vec<Value>,
}

impl Journals {
    /// A message in every end, and all is well.
    pub(super) fn good() -> Self {
        let mut commits: Vec<Value> = (SENT..=EXPIRED).map(|number| enqueued(number, "committed")).collect();
        commits[ROLLED_BACK - 1] = enqueued(ROLLED_BACK, "rolled_back");
        Self {
            commits,
            database: vec![
                reading(1000),
                message(SENT, "sent", &[attempt(1, "accepted")]),
                message(UNCLEAR, "dispatch_timeout", &[attempt(1, "unclear")]),
                message(FAILED, "failed", &[attempt(1, "refused_content")]),
                message(CANCELED, "canceled", &[]),
                message(SECOND_TRY, "sent", &[attempt(1, "throttled"), attempt(2, "accepted")]),
                message(EXPIRED, "expired", &[attempt(1, "not_sent")]),
            ],
            provider: vec![
                request(SENT, 1, true),
                request(UNCLEAR, 1, true),
                request(FAILED, 1, false),
                request(SECOND_TRY, 1, false),
                request(SECOND_TRY, 2, true),
            ],
            unclear: vec![json!({"expected": id(UNCLEAR)})],
        }
    }

    /// The database's line of a message.
    pub(super) fn message(&mut self, number: usize) -> &mut Value {
        let line = self.database.iter_mut().rev().find(|line| line["message"]["id"] == id(number));
        &mut line.unwrap()["message"]
    }

    /// The provider's lines of a message, the last first.
    pub(super) fn request(&mut self, number: usize) -> &mut Value {
        let name = id(number);
        let is_its = |line: &&mut Value| line["request"]["reference"].as_str().is_some_and(|of| of.starts_with(&name));
        &mut self.provider.iter_mut().rev().find(is_its).unwrap()["request"]
    }

    pub(super) fn retried(&mut self, number: usize, seconds: i64) {
        self.commits.push(json!({"retried": {"id": id(number), "at": at(seconds)}}));
    }

    /// Puts a message into the queue, or into an attempt.
    pub(super) fn open(&mut self, number: usize, status: &str, place: &str, more: Value) {
        let message = self.message(number);
        message["status"] = json!(status);
        message["places"] = json!([place]);
        message["ended_at"] = json!(null);
        message.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    }

    pub(super) fn check(&self) -> Verdict {
        let folder = Folder::new();
        folder.write("commits", &self.commits);
        folder.write("database", &self.database);
        folder.write("provider", &self.provider);
        folder.write("unclear", &self.unclear);
        check_files(&folder.files())
    }
}

pub(super) struct Folder(pub(super) PathBuf);

impl Folder {
    pub(super) fn new() -> Self {
        let folder = std::env::temp_dir().join(format!("sms-outbox-history-{}", uuid::Uuid::new_v4()));
        fs::create_dir(&folder).unwrap();
        Self(folder)
    }

    pub(super) fn write(&self, name: &str, lines: &[Value]) {
        let mut text: String = lines.iter().map(|line| format!("{line}\n")).collect();
        text += &format!("{{\"end\": {}}}\n", lines.len());
        fs::write(self.0.join(name), text).unwrap();
    }

    pub(super) fn change(&self, name: &str, change: impl FnOnce(String) -> String) {
        let file = self.0.join(name);
        let text = fs::read_to_string(&file).unwrap();
        fs::write(file, change(text)).unwrap();
    }

    pub(super) fn files(&self) -> Files {
        let file = |name: &str| Path::new(&self.0).join(name);
        Files {
            commits: file("commits"),
            database: file("database"),
            provider: file("provider"),
            unclear: Some(file("unclear")),
        }
    }
}

impl Drop for Folder {
    fn drop(&mut self) {
        let _ = fs::remove_dir_all(&self.0);
    }
}

/// Breaks the good journals in one way, which must be found, by its rule and its message.
#[track_caller]
pub(super) fn breaks(rule: u8, number: usize, change: impl FnOnce(&mut Journals)) {
    let mut journals = Journals::good();
    change(&mut journals);
    let verdict = journals.check();
    let message = Some(id(number).parse().unwrap());
    let found = verdict.broken.iter().any(|breach| breach.rule == rule && breach.message == message);
    assert!(found, "rule {rule} was to be broken:\n{verdict}");
    assert_eq!(verdict.exit_code(), 1);
    let text = verdict.to_string();
    assert!(text.contains(&format!("{rule:>2} BROKEN")) && text.contains(&id(number)), "{text}");
}

/// Changes the good journals so that something is not known: neither broken nor fine.
#[track_caller]
pub(super) fn is_unknown(change: impl FnOnce(&mut Journals)) {
    let mut journals = Journals::good();
    change(&mut journals);
    let verdict = journals.check();
    assert_eq!(verdict.exit_code(), 2, "{verdict}");
    assert!(verdict.leaving(&[]).is_err() && !verdict.to_string().contains("holds"), "{verdict}");
}

/// Changes the good journals so that all is well still.
#[track_caller]
pub(super) fn holds(change: impl FnOnce(&mut Journals)) {
    let mut journals = Journals::good();
    change(&mut journals);
    let verdict = journals.check();
    assert_eq!(verdict.exit_code(), 0, "{verdict}");
}
