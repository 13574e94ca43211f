//! What a worker process counts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use metrics::{Label, SharedString, counter, gauge, histogram};

use super::catalog::{
    APP_BLOCKS, ATTEMPTS, CALL_ERRORS, CALL_SECONDS, CLAIMS, CONCURRENCY, CONNECTIONS, DUE_TO_REQUEST, IN_FLIGHT,
    LISTEN_LAG, LISTENING, LOOK_UPS, NOTIFICATIONS, PROVIDER_ANSWER, RETRIES, TIMEOUTS, WAKEUPS,
};
use crate::message::AppId;
use crate::outbox::{App, AppState, Claimed, Lease, Outcome};
use crate::provider::Registry;

/// Apps that a process counts one by one; later ones share the label `other`. They keep their place until it ends.
pub const COUNTED_APPS: usize = 100;

static COUNTED: Mutex<BTreeSet<AppId>> = Mutex::new(BTreeSet::new());
static BLOCKED: Mutex<BTreeMap<AppId, bool>> = Mutex::new(BTreeMap::new());

/// Why a pause of the dispatcher ended.
#[derive(Clone, Copy, Debug)]
pub enum Cause {
    /// A notification, or that listening began.
    Notification,
    /// The time was over.
    Poll,
    /// An attempt ended and made room.
    Room,
    /// Workers came or went.
    Workers,
}

impl Cause {
    const ALL: [Self; 4] = [Self::Notification, Self::Poll, Self::Room, Self::Workers];

    const fn word(self) -> &'static str {
        match self {
            Self::Notification => "notification",
            Self::Poll => "poll",
            Self::Room => "room",
            Self::Workers => "workers",
        }
    }
}

/// Lets what has a known set of labels begin at zero, and notes the setting.
pub fn begin(concurrency: usize) {
    for known in Registry::new().iter().filter(|known| known.looks_up()) {
        for result in LOOK_UP_RESULTS {
            let labels = vec![provider(known.slug()), Label::from_static_parts("result", result)];
            counter!(LOOK_UPS.name, labels).absolute(0);
        }
    }
    gauge!(CONCURRENCY.name).set(concurrency as f64);
    for cause in Cause::ALL {
        counter!(WAKEUPS.name, "cause" => cause.word()).absolute(0);
    }
    for result in RESULTS {
        counter!(CLAIMS.name, "result" => result).absolute(0);
    }
    for call in CALLS {
        counter!(CALL_ERRORS.name, "call" => call).absolute(0);
    }
    for purpose in ["queue", "listen"] {
        counter!(CONNECTIONS.name, "purpose" => purpose).absolute(0);
    }
}

/// What a look-up may come to: the words of [`crate::reconciler::Answer`].
const LOOK_UP_RESULTS: [&str; 4] = ["accepted", "not_sent", "nothing", "failed"];

const RESULTS: [&str; 5] = ["leased", "gone", "locked", "app_unavailable", "failed"];

/// The calls of [`crate::outbox::Outbox`].
pub(super) const CALLS: [&str; 8] = ["look", "apps", "claim", "finish", "leases", "unclear", "resolve", "heartbeat"];

fn app_labels(app: AppId, slug: &str) -> Vec<Label> {
    let mut counted = COUNTED.lock().unwrap_or_else(PoisonError::into_inner);
    let known = counted.contains(&app) || counted.len() < COUNTED_APPS && counted.insert(app);
    let id = if known { app.to_string() } else { "other".to_owned() };
    vec![Label::new("organization_app_id", id), provider(slug)]
}

fn provider(slug: &str) -> Label {
    Label::new("provider", SharedString::from(slug.to_owned()))
}

/// The database answered a claim.
pub(super) fn claimed(answers: &[Claimed]) {
    for answer in answers {
        let result = match answer {
            Claimed::Leased(_) => "leased",
            Claimed::Gone => "gone",
            Claimed::Locked => "locked",
            Claimed::AppUnavailable => "app_unavailable",
            Claimed::Failed => "failed",
        };
        counter!(CLAIMS.name, "result" => result).increment(1);
    }
}

/// The apps were read.
pub(super) fn apps(apps: &[App]) {
    let mut blocked = BLOCKED.lock().unwrap_or_else(PoisonError::into_inner);
    for app in apps {
        let is_blocked = matches!(app.state, AppState::Blocked(_) | AppState::Probe);
        let was_blocked = blocked.insert(app.id, is_blocked);
        counter!(APP_BLOCKS.name, app_labels(app.id, &app.slug))
            .increment(u64::from(is_blocked && was_blocked != Some(true)));
    }
}

/// A call of the database is over.
pub(super) fn called(call: &'static str, took: Duration, succeeded: bool) {
    histogram!(CALL_SECONDS.name, "call" => call).record(took);
    if !succeeded {
        counter!(CALL_ERRORS.name, "call" => call).increment(1);
    }
}

/// An attempt begins, this long after its lease was asked for.
pub(super) fn begun(lease: &Lease, since_claim: Duration) {
    if lease.attempt == 1 {
        histogram!(DUE_TO_REQUEST.name, vec![provider(&lease.slug)]).record(lease.waited + since_claim);
    } else {
        counter!(RETRIES.name, app_labels(lease.app, &lease.slug)).increment(1);
    }
}

/// An attempt is over.
pub(super) fn ended(lease: &Lease, outcome: &Outcome) {
    let mut labels = app_labels(lease.app, &lease.slug);
    let phase = match outcome.error_code.as_deref() {
        Some("connect_timeout") => Some("connect"),
        Some("timeout") => Some("answer"),
        _ => None,
    };
    if let Some(phase) = phase.filter(|_| outcome.http_status.is_none()) {
        let phase = Label::from_static_parts("phase", phase);
        counter!(TIMEOUTS.name, labels.iter().cloned().chain([phase]).collect::<Vec<_>>()).increment(1);
    }
    labels.push(Label::from_static_parts("outcome", outcome.status.word()));
    counter!(ATTEMPTS.name, labels).increment(1);
}

/// A provider answered, or was waited for in vain.
pub fn requested(slug: &str, took: Duration) {
    histogram!(PROVIDER_ANSWER.name, vec![provider(slug)]).record(took);
}

/// A provider was asked what became of an unclear attempt.
pub fn looked_up(slug: &str, result: &'static str) {
    counter!(LOOK_UPS.name, vec![provider(slug), Label::from_static_parts("result", result)]).increment(1);
}

/// So many attempts are in flight now.
pub fn in_flight(attempts: i64) {
    gauge!(IN_FLIGHT.name).set(attempts as f64);
}

/// The dispatcher's pause is over.
pub fn woken(cause: Cause) {
    counter!(WAKEUPS.name, "cause" => cause.word()).increment(1);
}

/// A connection for the calls of the queue was opened.
pub fn connected() {
    counter!(CONNECTIONS.name, "purpose" => "queue").increment(1);
}

/// The connection that listens was opened.
pub fn connected_to_listen() {
    counter!(CONNECTIONS.name, "purpose" => "listen").increment(1);
}

/// The connection that listens answered, after this time.
pub fn listening(lag: Duration) {
    gauge!(LISTENING.name).set(1.0);
    gauge!(LISTEN_LAG.name).set(lag.as_secs_f64());
}

/// Nobody listens.
pub fn not_listening() {
    gauge!(LISTENING.name).set(0.0);
}

/// A notification came.
pub fn notified() {
    counter!(NOTIFICATIONS.name).increment(1);
}

#[cfg(test)]
mod tests {
    use metrics_exporter_prometheus::PrometheusBuilder;

    use super::*;

    #[test]
    fn apps_have_labels_of_their_own_up_to_a_bound() {
        let recorder = PrometheusBuilder::new().build_recorder();
        metrics::with_local_recorder(&recorder, || {
            for app in 0..COUNTED_APPS + 50 {
                for _ in 0..2 {
                    counter!(RETRIES.name, app_labels(AppId(app as i64), "sandbox")).increment(1);
                }
            }
        });
        let text = recorder.handle().render();
        let series: Vec<&str> = text.lines().filter(|line| line.starts_with(RETRIES.name)).collect();
        assert_eq!(series.len(), COUNTED_APPS + 1);
        assert!(series.iter().any(|line| line.contains(r#"organization_app_id="other""#) && line.ends_with(" 100")));
    }
}
