//! Settings. Each is defined once, as a flag in [`crate::cli`] with an environment variable; [`file`] adds the
//! configuration file underneath. Here stand the bounds, and what the worker is started with.

pub mod file;

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use jiff::SignedDuration;
use secrecy::SecretString;

use crate::provider::credential::Credentials;
use crate::provider::egress::Networks;

/// What a worker is started with.
#[derive(Clone, Debug)]
pub struct WorkerSettings {
    /// The database.
    pub database_url: SecretString,
    /// Name of this worker, unique among the running ones: leases carry it.
    pub name: String,
    /// Name of the machine, shown in `worker_stats`.
    pub host: String,
    /// Most attempts in flight at once.
    pub concurrency: usize,
    /// Longest pause between two looks at the queue.
    pub poll_interval: Duration,
    /// Whether to listen for wake-ups between polls.
    pub listen: bool,
    /// Longest time for one request to a provider, from connect to the last byte of the answer.
    pub http_timeout: Duration,
    /// Longest time to open a connection, to the database or a provider.
    pub connect_timeout: Duration,
    /// How long a graceful stop waits for the attempts in flight.
    pub drain_timeout: Duration,
    /// How long after an attempt ended as unclear its provider is asked; `None` asks none.
    pub look_up_after: Option<Duration>,
    /// How often the worker says that it lives.
    pub heartbeat_interval: Duration,
    /// With what sealed and referred credentials are resolved.
    pub credentials: Arc<Credentials>,
    /// Networks of its surroundings that requests may go to.
    pub allowed: Networks,
    /// Where scrapes of the metrics are answered; `None` counts nothing.
    pub metrics_listen: Option<SocketAddr>,
}

/// A parser for durations such as `500ms`, `30s` or `2min`, between two bounds.
pub fn duration(
    least: Duration,
    most: Duration,
) -> impl Fn(&str) -> Result<Duration, String> + Clone + Send + Sync + 'static {
    move |text| {
        let bounds = format!("write {} to {}", written(least), written(most));
        let parsed: SignedDuration = text.parse().map_err(|_| format!("not a duration with a unit; {bounds}"))?;
        match Duration::try_from(parsed) {
            Ok(duration) if duration >= least && duration <= most => Ok(duration),
            _ => Err(format!("out of bounds; {bounds}")),
        }
    }
}

/// A parser for what to listen on.
pub fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse()
        .map_err(|_| "write an IP address and a port, such as 127.0.0.1:9464; port 0 takes a free one".to_owned())
}

/// `90s` as `1m 30s`, `0.5s` as `500ms`.
fn written(duration: Duration) -> String {
    SignedDuration::try_from(duration).map(|d| format!("{d:#}")).unwrap_or_else(|_| format!("{} s", duration.as_secs()))
}

/// A worker's name goes into rows, logs and metrics.
pub fn worker_name(text: &str) -> Result<String, String> {
    let allowed = |c: char| c.is_ascii_alphanumeric() || "._:@-".contains(c);
    if (1..=64).contains(&text.len()) && text.chars().all(allowed) {
        Ok(text.to_owned())
    } else {
        Err("a worker's name is 1 to 64 characters of A-Z a-z 0-9 . _ : @ -".to_owned())
    }
}

/// Host, process and chance: a restarted worker gets another name, so it cannot be taken for its predecessor.
pub fn default_worker_name(host: &str) -> String {
    let host: String = host.chars().filter(char::is_ascii_alphanumeric).take(40).collect();
    let chance = uuid::Uuid::new_v4().simple().to_string();
    format!("{host}-{}-{}", std::process::id(), &chance[..6])
}

/// Name of this machine.
pub fn host() -> String {
    let name =
        std::fs::read_to_string("/proc/sys/kernel/hostname").or_else(|_| std::fs::read_to_string("/etc/hostname"));
    name.ok()
        .map(|name| name.trim().to_owned())
        .filter(|name| !name.is_empty())
        .unwrap_or_else(|| "localhost".to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units_and_bounds() {
        let parse = duration(Duration::from_millis(100), Duration::from_secs(300));
        assert_eq!(parse("100ms"), Ok(Duration::from_millis(100)));
        assert_eq!(parse("1m 30s"), Ok(Duration::from_secs(90)));
        assert_eq!(parse("5min"), Ok(Duration::from_secs(300)));
        for bad in ["", "5", "99ms", "301s", "-1s", "soon"] {
            let error = parse(bad).expect_err(bad);
            assert!(error.ends_with("write 100ms to 5m"), "{bad}: {error}");
        }
    }

    #[test]
    fn worker_names_fit_everywhere() {
        assert!(worker_name("sms-1.eu:a@b_c").is_ok());
        assert!(worker_name("").is_err() && worker_name(&"a".repeat(65)).is_err() && worker_name("a b").is_err());
        assert!(worker_name(&default_worker_name("ho st\u{e9}.eu")).is_ok());
        assert_ne!(default_worker_name("a"), default_worker_name("a"));
    }
}
