//! Every metric there is: name, kind, labels and help. `docs/guides/metrics.md` holds the same list; a test compares them.

mod database;

pub use self::database::*;

/// What a number does.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Kind {
    /// Only grows, from the start of the process or from the installation.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Counts of what took at most so long.
    Histogram(&'static [f64]),
}

/// Where a number comes from.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Source {
    /// Each worker process, on `--metrics-listen`.
    Worker,
    /// Each API process, on `/metrics`.
    Api,
    /// The database, by way of each API process.
    Database,
}

/// One metric.
#[derive(Debug)]
pub struct Metric {
    /// Its name by the conventions of Prometheus: unit and `_total` at the end.
    pub name: &'static str,
    /// What it does.
    pub kind: Kind,
    /// Where it comes from.
    pub source: Source,
    /// Its labels.
    pub labels: &'static [&'static str],
    /// What it says, in one sentence.
    pub help: &'static str,
}

/// Waits of a message: from an idle system's milliseconds to the hours of an outage.
const WAITS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 300.0, 1800.0, 7200.0];
/// Answers of a provider, up to the longest time-out that is usual.
const ANSWERS: &[f64] = &[0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0, 30.0, 60.0];
/// Calls of the database, up to the time after which one is given up.
const CALLS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 20.0];
/// Requests to the API.
const REQUESTS: &[f64] = &[0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0];

macro_rules! metrics {
    ($list:ident of $source:ident: $($name:ident = $kind:expr, $text:literal, [$($label:literal),*], $help:literal;)+) => {
        $(
            #[doc = $help]
            pub const $name: Metric = Metric {
                name: $text,
                kind: { #[allow(unused_imports, reason = "not every list has every kind")] use Kind::*; $kind },
                source: Source::$source,
                labels: &[$($label),*],
                help: $help,
            };
        )+
        /// The metrics of this source.
        pub const $list: &[Metric] = &[$($name),+];
    };
}
use metrics;

metrics! { WORKER of Worker:
    BUILD_INFO = Gauge, "sms_outbox_build_info", ["version", "program"], "1; its labels say what runs.";
    CLAIMS = Counter, "sms_outbox_worker_claims_total", ["result"], "Messages that the worker asked for, by how the database answered.";
    ATTEMPTS = Counter, "sms_outbox_worker_attempts_total", ["organization_app_id", "provider", "outcome"], "Attempts that ended, by outcome.";
    RETRIES = Counter, "sms_outbox_worker_retries_total", ["organization_app_id", "provider"], "Attempts begun that were not the first of their message.";
    TIMEOUTS = Counter, "sms_outbox_worker_provider_timeouts_total", ["organization_app_id", "provider", "phase"], "Attempts that ended by a time-out: while connecting, when nothing was sent, or waiting for the answer.";
    APP_BLOCKS = Counter, "sms_outbox_worker_app_blocks_total", ["organization_app_id", "provider"], "Times that the worker found an app blocked, by its breaker or by the provider's Retry-After, that was not before.";
    DUE_TO_REQUEST = Histogram(WAITS), "sms_outbox_worker_due_to_request_seconds", ["provider"], "From when a message was due (its commit, or its datetime) to the beginning of its first attempt.";
    PROVIDER_ANSWER = Histogram(ANSWERS), "sms_outbox_worker_provider_request_seconds", ["provider"], "From the beginning of a request to the end of the provider's answer, or of the waiting for it.";
    LOOK_UPS = Counter, "sms_outbox_worker_look_ups_total", ["provider", "result"], "Times that a provider was asked what became of an unclear attempt: accepted, not_sent, nothing that proves anything, or failed to answer.";
    IN_FLIGHT = Gauge, "sms_outbox_worker_in_flight", [], "Attempts in flight; one that ended counts until it is recorded.";
    CONCURRENCY = Gauge, "sms_outbox_worker_concurrency", [], "Most attempts that may be in flight: the setting concurrency.";
    CALL_SECONDS = Histogram(CALLS), "sms_outbox_worker_database_call_seconds", ["call"], "Calls of the queue functions in the database, failed ones too.";
    CALL_ERRORS = Counter, "sms_outbox_worker_database_call_errors_total", ["call"], "Calls of the queue functions that the database did not serve or refused.";
    CONNECTIONS = Counter, "sms_outbox_worker_database_connections_total", ["purpose"], "Connections to the database opened since the start; what comes after the first few are reconnects.";
    LISTENING = Gauge, "sms_outbox_worker_listening", [], "1 while the worker listens for wake-ups, else 0: then it only polls.";
    LISTEN_LAG = Gauge, "sms_outbox_worker_listen_lag_seconds", [], "How long the listening connection took to answer when it was last asked: at its beginning and each 30 s.";
    NOTIFICATIONS = Counter, "sms_outbox_worker_notifications_total", [], "Notifications that the listening connection received.";
    WAKEUPS = Counter, "sms_outbox_worker_wakeups_total", ["cause"], "What ended the worker's pauses: a notification, the poll interval, or an attempt that ended.";
}

metrics! { API of Api:
    API_REQUESTS = Counter, "sms_outbox_api_requests_total", ["route", "method", "status"], "Requests answered; status canceled where the caller went away before the answer.";
    API_SECONDS = Histogram(REQUESTS), "sms_outbox_api_request_seconds", ["route", "method"], "From the head of a request to the head of its answer.";
    API_IN_FLIGHT = Gauge, "sms_outbox_api_in_flight", [], "Requests being served.";
    API_SHED = Counter, "sms_outbox_api_shed_total", [], "Requests refused as overloaded without being served.";
    API_POOL = Gauge, "sms_outbox_api_pool_connections", ["state"], "Connections of the API's pool: in use or idle.";
    API_POOL_SIZE = Gauge, "sms_outbox_api_pool_size", [], "Most connections that the API's pool may have.";
    API_POOL_WAITING = Gauge, "sms_outbox_api_pool_waiting", [], "Requests that wait for a connection of the pool.";
    API_POOL_TIMEOUTS = Counter, "sms_outbox_api_pool_timeouts_total", [], "Requests that got no connection of the pool in time.";
    DATABASE_UP = Gauge, "sms_outbox_database_up", [], "1 when the database answered the last question for its metrics, else 0: then they are missing.";
    DATABASE_SECONDS = Gauge, "sms_outbox_database_metrics_seconds", [], "How long the database took to answer that question.";
}

/// All of them; what worker and API both have is listed once.
pub fn all() -> impl Iterator<Item = &'static Metric> {
    WORKER.iter().chain(API).chain(DATABASE)
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use super::*;

    #[test]
    fn names_follow_the_conventions() {
        let mut seen = BTreeSet::new();
        for metric in all() {
            let name = metric.name;
            assert!(seen.insert(name), "{name} is there twice");
            assert!(name.starts_with("sms_outbox_"), "{name}");
            assert!(name.bytes().all(|byte| byte == b'_' || byte.is_ascii_lowercase()), "{name}");
            assert_eq!(name.ends_with("_total"), metric.kind == Kind::Counter, "{name}");
            assert!(metric.help.ends_with('.') && !metric.help.contains(['|', '\\', '\n', '"']), "{name}");
            assert!(!["_ms", "_minutes", "_days"].iter().any(|unit| name.ends_with(unit)), "{name}: seconds");
            if let Kind::Histogram(bounds) = metric.kind {
                assert!(name.ends_with("_seconds") && bounds.is_sorted(), "{name}");
            }
            for label in metric.labels {
                assert!(!["organization", "organization_id", "mobile", "id", "le", "job", "instance"].contains(label));
            }
        }
    }
}
