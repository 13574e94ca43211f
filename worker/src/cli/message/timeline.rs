//! The life of a message, event by event, as far as the database keeps it.

use jiff::Timestamp;
use serde::Serialize;

use super::sure;
use crate::cli::terminal::age;
use crate::outbox::postgres::operator::messages::{Attempt, Evidence, Message};

/// Something that happened, or will.
#[derive(Debug, Serialize)]
pub(super) struct Event {
    pub(super) at: Timestamp,
    pub(super) event: String,
}

/// All that is known, in order of time.
pub(super) fn events(message: &Message, attempts: &[Attempt]) -> Vec<Event> {
    let mut events = vec![event(message.created_at, "enqueued")];
    if let Some(due) = message.datetime.filter(|due| *due > message.created_at) {
        events.push(event(due, "due"));
    }
    attempts.iter().for_each(|attempt| of_attempt(attempt, &mut events));
    match (message.finalized_at, message.next_attempt_at) {
        (Some(end), _) => events.push(event(end, format!("ends as {}", message.dispatch_status))),
        (None, Some(next)) => events.push(event(next, "next attempt")),
        (None, None) => {}
    }
    if let Some(until) = message.valid_until.filter(|_| message.finalized_at.is_none()) {
        events.push(event(until, "expires, if it still waits"));
    }
    // To the second, as it is shown, and stable: what happened within one stays in the order of cause and effect.
    events.sort_by_key(|event| event.at.as_second());
    events
}

fn event(at: Timestamp, event: impl Into<String>) -> Event {
    Event { at, event: event.into() }
}

fn of_attempt(a: &Attempt, events: &mut Vec<Event>) {
    let n = a.attempt;
    let worker = a.worker.as_ref().map(|worker| format!(" by worker {worker}")).unwrap_or_default();
    if let Some(start) = a.started_at {
        events.push(event(start, format!("attempt {n} begins{worker}, {}", sure::app(a))));
    }
    let evidence = a.evidence.as_deref().unwrap_or_default();
    // What was learned later stands in the ledger; how the attempt had ended before, with the first who corrected it.
    let first = evidence.iter().find(|told| told.was_finished_at.is_some());
    let (finish, status, code) = match first {
        Some(told) => (told.was_finished_at, Some("unclear"), told.was_error_code.as_ref()),
        None => (a.finished_at, a.status.as_deref(), a.error_code.as_ref()),
    };
    if let (Some(end), Some(status)) = (finish, status) {
        let mut text = format!("attempt {n} ends: {status}");
        if let Some(start) = a.started_at {
            text += &format!(" after {}", age(end.duration_since(start).as_secs_f64()));
        }
        // Of an attempt that was corrected, the rest tells of the correction.
        let (http, message, id) = match first {
            Some(_) => (None, None, None),
            None => (a.http_status, a.error_message.as_ref(), a.provider_message_id.as_ref()),
        };
        text += &http.map(|status| format!(", HTTP {status}")).unwrap_or_default();
        text += &code.map(|code| format!(", {code}")).unwrap_or_default();
        text += &message.map(|message| format!(": {message}")).unwrap_or_default();
        text += &id.map(|id| format!(", provider's id {id}")).unwrap_or_default();
        events.push(event(end, text));
    }
    events.extend(evidence.iter().map(|told| event(told.at, learned(n, a, told))));
    if let (Some(at), Some(status)) = (a.delivery_at, &a.delivery_status) {
        let code = a.delivery_code.as_ref().map(|code| format!(" ({code})")).unwrap_or_default();
        events.push(event(at, format!("attempt {n}: the provider reports {status}{code}")));
    }
}

/// `attempt 1 was sent, an operator says (on_call): seen in the portal`
fn learned(n: i64, a: &Attempt, told: &Evidence) -> String {
    let verdict = match told.verdict.as_str() {
        "accepted" => "was sent",
        "unclear" => "stays unclear",
        _ => "was not sent",
    };
    let source = match told.source.as_str() {
        "operator" => "an operator says",
        "look-up" => "the provider says when asked",
        "receipt" => "the provider's receipt says",
        _ => "a late answer says",
    };
    let detail = told.detail.as_ref().map(|detail| format!(": {detail}")).unwrap_or_default();
    let id = a.provider_message_id.as_ref().filter(|_| told.verdict == "accepted" && told.was_finished_at.is_some());
    let id = id.map(|id| format!(", provider's id {id}")).unwrap_or_default();
    format!("attempt {n} {verdict}, {source} ({}){detail}{id}", told.by)
}
