//! Where a message is, why, and what can be done: for somebody who must decide at 3 a.m.

use jiff::Timestamp;
use serde::Serialize;

use super::{reason, sure};
use crate::cli::status::explained;
use crate::cli::terminal::{age, time};
use crate::message::{Certainty, DispatchStatus};
use crate::outbox::postgres::operator::messages::{Attempt, Message};

/// One thing that can be done.
#[derive(Debug, Serialize)]
pub(super) struct Choice {
    /// In which case.
    pub(super) when: String,
    pub(super) command: String,
    pub(super) risk: &'static str,
}

/// The present, and the choices.
#[derive(Debug, Serialize)]
pub(super) struct Now {
    /// What is known of all attempts together.
    pub(super) certainty: Certainty,
    /// One sentence.
    pub(super) now: String,
    /// What to find out before choosing.
    pub(super) ask: Option<String>,
    pub(super) choices: Vec<Choice>,
}

/// The present of a message at this moment of the database's clock.
pub(super) fn of(message: &Message, attempts: &[Attempt], at: Timestamp) -> Now {
    let certainty = sure::certainty(attempts);
    let status = DispatchStatus::from_word(&message.dispatch_status);
    let decisive = sure::decisive(attempts);
    let unclear = decisive.filter(|_| certainty > Certainty::NotSent && certainty < Certainty::Sent);
    let now = match status {
        Some(DispatchStatus::Sent) => sent(attempts),
        Some(DispatchStatus::Sending) => sending(attempts, at),
        Some(DispatchStatus::Pending) => {
            let waits_for = message.waits_for.as_deref().unwrap_or("worker");
            let explained = explained(waits_for).map(|text| format!(" ({text})")).unwrap_or_default();
            format!("It waits for {waits_for}{explained}.")
        }
        _ => match (unclear, reason(message)) {
            (Some(_), _) if status == Some(DispatchStatus::DispatchTimeout) => String::new(),
            (_, Some(reason)) => format!("It ended as {}: {}.", message.dispatch_status, reason.trim_end_matches('.')),
            (_, None) => format!("It ended as {}.", message.dispatch_status),
        },
    };
    let known = match unclear {
        Some(attempt) => {
            format!("It {}. That was attempt {} by {}.", sure::words(certainty), attempt.attempt, sure::app(attempt))
        }
        None if certainty == Certainty::NotSent => format!("It {}.", sure::words(certainty)),
        None => String::new(),
    };
    let now = [now, known].into_iter().filter(|part| !part.is_empty()).collect::<Vec<_>>().join(" ");
    Now {
        certainty,
        now,
        ask: unclear.map(|attempt| ask(message, attempt)),
        choices: choices(message, status, certainty),
    }
}

fn sent(attempts: &[Attempt]) -> String {
    let accepted: Vec<&Attempt> = attempts.iter().filter(|a| a.certainty == Some(Certainty::Sent)).collect();
    let by = |a: &&Attempt| format!("attempt {} by {}", a.attempt, sure::app(a));
    match accepted.as_slice() {
        [] => "It was sent.".to_owned(),
        [one] => format!("It was sent for sure: {}.", by(one)),
        many => format!(
            "It was accepted {} times, and its recipient may have got it as often: {}.",
            many.len(),
            many.iter().map(by).collect::<Vec<_>>().join(", ")
        ),
    }
}

fn sending(attempts: &[Attempt], at: Timestamp) -> String {
    let live = attempts.iter().find(|a| a.status.is_none());
    live.map_or_else(
        || "It is being sent.".to_owned(),
        |a| {
            let since = a.started_at.map(|start| at.duration_since(start).as_secs_f64());
            format!(
                "Attempt {} by {} is under way{}; it ends by its answer, or when its lease is over.",
                a.attempt,
                sure::app(a),
                since.map(|since| format!(" since {}", age(since))).unwrap_or_default()
            )
        },
    )
}

/// What to ask the provider, so that nobody need guess.
fn ask(message: &Message, attempt: &Attempt) -> String {
    let at = match (attempt.started_at, attempt.finished_at) {
        (Some(start), Some(end)) if end.duration_since(start).as_secs() >= 60 => {
            format!(" between {} and {}", time(start), time(end))
        }
        (Some(start), _) => format!(" around {}", time(start)),
        _ => String::new(),
    };
    let workers =
        if attempt.looks_up == Some(true) { "Workers ask it 1, 6 and 36 minutes after the end. " } else { "" };
    format!(
        "{workers}Ask the provider: did it take an SMS{at} to {}? Its reference, where the provider keeps one: {}-{}",
        message.mobile, message.id, attempt.attempt
    )
}

fn choices(message: &Message, status: Option<DispatchStatus>, certainty: Certainty) -> Vec<Choice> {
    let id = &message.id;
    let choice = |when: &str, command: String, risk| Choice { when: when.to_owned(), command, risk };
    let resolve = |verdict: &str| format!("sms-outbox message resolve {id} --{verdict} --note '…'");
    let unclear = certainty > Certainty::NotSent && certainty < Certainty::Sent;
    let mut choices = Vec::new();
    if unclear && status != Some(DispatchStatus::Sent) {
        choices.push(choice("it was taken", resolve("sent"), "none: it ends as sent, and is not sent again"));
        choices.push(choice("it was not", resolve("not-sent"), "none: a retry then risks nothing"));
    }
    match status {
        Some(DispatchStatus::Pending) => {
            let risk = if unclear { "none: it is not sent again" } else { "none: it is not sent" };
            choices.push(choice("not wanted", format!("sms-outbox message cancel {id}"), risk));
        }
        Some(DispatchStatus::DispatchTimeout) => choices.push(choice(
            "nobody knows",
            format!("sms-outbox message retry {id} --yes"),
            "a second SMS; left alone it is never sent again",
        )),
        Some(DispatchStatus::Failed | DispatchStatus::Canceled | DispatchStatus::Expired) if unclear => {
            choices.push(choice("wanted", format!("sms-outbox message retry {id} --yes"), "a second SMS"));
        }
        Some(DispatchStatus::Failed | DispatchStatus::Canceled | DispatchStatus::Expired) => {
            choices.push(choice("still wanted", format!("sms-outbox message retry {id}"), "none"));
        }
        _ => {}
    }
    choices
}
