//! Logs: to standard error, for a person or as JSON, filtered by level. What is logged is the caller's duty:
//! ids, slugs and states; never a number, a body or a secret.

#[cfg(feature = "otlp")]
mod otlp;

use std::fmt::Display;
use std::io::IsTerminal;

use clap::ValueEnum;
use tracing::subscriber::set_global_default;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::{EnvFilter, Layer, Registry, fmt};

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

/// Logging while it lasts. Dropped, it sends the spans that are left.
#[derive(Debug)]
#[must_use]
pub struct Logging {
    #[cfg(feature = "otlp")]
    _spans: Option<otlp::Exporter>,
}

/// Starts logging for the process. A second call changes nothing.
pub fn start(format: LogFormat, filter: &str, colours: bool) -> Logging {
    // `filter` was checked when it was parsed; `info` serves a caller that did not.
    let filter = EnvFilter::try_new(filter).unwrap_or_else(|_| EnvFilter::new("info"));
    // The pool tells of each lost connection 'db error' and no more; who asked for it logs why.
    let filter = match "deadpool.postgres=off".parse() {
        Ok(quiet) => filter.add_directive(quiet),
        Err(_) => filter,
    };
    let lines = fmt::layer().with_writer(std::io::stderr);
    let lines = match format {
        LogFormat::Human => lines.with_ansi(colours && std::io::stderr().is_terminal()).with_filter(filter).boxed(),
        LogFormat::Json => lines.json().flatten_event(true).with_filter(filter).boxed(),
    };
    let subscriber = Registry::default().with(lines);
    #[cfg(feature = "otlp")]
    let (subscriber, spans) = otlp::with_spans(subscriber);
    // Not `try_init`: it also collects the records of the crate `log`, where the database client writes the parameters
    // of each statement at level debug: numbers, texts and credentials.
    drop(set_global_default(subscriber));
    Logging {
        #[cfg(feature = "otlp")]
        _spans: spans,
    }
}

/// What was last told of a trouble that comes again and again: an outage is one line in the log, not one a try.
#[derive(Debug, Default)]
pub struct Told(Option<String>);

impl Told {
    /// Whether these words are new.
    pub fn is_news(&mut self, trouble: &impl Display) -> bool {
        let words = Some(trouble.to_string());
        let news = self.0 != words;
        self.0 = words;
        news
    }

    /// The trouble is over. Whether there was one.
    pub fn is_over(&mut self) -> bool {
        self.0.take().is_some()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn records_of_other_crates_are_not_collected() {
        drop(start(LogFormat::Json, "error", false));
        assert!(tracing::enabled!(tracing::Level::ERROR));
        assert_eq!(log::max_level(), log::LevelFilter::Off);
    }

    #[test]
    fn a_trouble_is_news_once() {
        let mut told = Told::default();
        let news: Vec<bool> = ["away", "away", "refused", "away"].iter().map(|words| told.is_news(words)).collect();
        assert_eq!(news, [true, false, true, true]);
        assert!(told.is_over() && !told.is_over() && told.is_news(&"away"));
    }

    #[test]
    fn a_filter_is_checked_when_it_is_given() {
        assert!(filter("warn,sms_outbox_worker=debug").is_ok());
        assert!(filter("sms_outbox_worker=loud").expect_err("no such level").contains("write error, warn"));
    }
}
