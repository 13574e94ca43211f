//! Logs: to standard error, for a person or as JSON, filtered by level. What is logged is the caller's duty:
//! ids, slugs and states; never a number, a body or a secret.

use std::io::IsTerminal;

use clap::ValueEnum;
use tracing_subscriber::EnvFilter;

/// How log lines are written.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub enum LogFormat {
    /// One line for a person.
    Human,
    /// One JSON object a line.
    Json,
}

/// Checks a filter such as `info` or `warn,sms_outbox_worker::dispatcher=debug`.
pub fn filter(text: &str) -> Result<String, String> {
    EnvFilter::try_new(text)
        .map(|_| text.to_owned())
        .map_err(|e| format!("{e}; write error, warn, info, debug or trace, or module=level pairs"))
}

/// Starts logging for the process. A second call changes nothing.
pub fn start(format: LogFormat, filter: &str, colours: bool) {
    // `filter` was checked when it was parsed; `info` serves a caller that did not.
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // The pool tells of each lost connection 'db error' and no more; who asked for it logs why.
    let filter = match "deadpool.postgres=off".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let lines = tracing_subscriber::fmt().with_env_filter(filter).with_writer(std::io::stderr);
    let started = match format {
        LogFormat::Human => lines.with_ansi(colours && std::io::stderr().is_terminal()).try_init(),
        LogFormat::Json => lines.json().flatten_event(true).try_init(),
    };
    drop(started);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_filter_is_checked_when_it_is_given() {
        assert!(filter("warn,sms_outbox_worker=debug").is_ok());
        assert!(filter("sms_outbox_worker=loud").expect_err("no such level").contains("write error, warn"));
    }
}
