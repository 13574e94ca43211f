//! Which unclear attempts are due to be looked up. Beside the rules of a life, which it does not change.

use std::sync::Arc;
use std::time::Duration;

use jiff::Timestamp;

use super::{Payload, Queue};
use crate::message::AttemptStatus;
use crate::outbox::Unclear;

/// The pauses before each look-up, in times of the first one.
const WAITS: [u32; 3] = [1, 5, 30];

/// Gives out what is due. The first pause is counted from when this first saw the attempt: the rules keep no times.
pub(super) fn take(queue: &mut Queue, after: Duration, most: usize) -> Vec<Unclear> {
    let now = queue.now;
    let mut due = Vec::new();
    for (id, message) in &queue.state.messages {
        for (number, attempt) in message.attempts.iter().filter(|(_, row)| row.status == AttemptStatus::Unclear) {
            let app = attempt.app.and_then(|app| Some((app, queue.state.apps.get(&app)?)));
            let Some((app, row)) = app.filter(|(_, row)| row.looks_up) else {
                continue;
            };
            let (asked, since) = queue.asked.entry((*id, *number)).or_insert((0, now));
            let is_due = WAITS.get(*asked).is_some_and(|wait| now >= *since + after * *wait);
            let (true, Some(payload)) = (is_due && due.len() < most, queue.payloads.get(id)) else {
                continue;
            };
            (*asked, *since) = (*asked + 1, now);
            let Payload { mobile, body, sender, .. } = payload.clone();
            due.push(Unclear {
                id: *id,
                attempt: *number,
                app,
                organization: row.organization.clone(),
                slug: row.slug.clone(),
                config: queue.configs.get(&app).map(Arc::clone).unwrap_or_default(),
                mobile,
                body,
                sender,
                started_at: Timestamp::UNIX_EPOCH,
                finished_at: Timestamp::UNIX_EPOCH,
                age: now,
                taken_ids: Vec::new(),
                has_twin: false,
            });
        }
    }
    due
}
