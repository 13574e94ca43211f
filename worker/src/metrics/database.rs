//! The numbers of the database, as text: asked once in some seconds, whoever scrapes and how often.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use metrics::gauge;
use tokio::sync::Mutex;
use tokio::time::timeout;
use tokio_postgres::Client;

use super::catalog::{DATABASE, DATABASE_SECONDS, DATABASE_UP, Kind, Metric};
use crate::logging::Told;
use crate::outbox::postgres::connect::Target;
use crate::outbox::postgres::operator::metrics::{Sample, samples};

/// An answer is given again for this long. Below the usual interval of scrapes, so that each sees a new one.
const FRESH: Duration = Duration::from_secs(5);
/// And for this many times as long as it took: where millions wait, counting them must not become the database's work.
const SHARE: u32 = 20;
const LONGEST_FRESH: Duration = Duration::from_secs(60);
/// Longest time that the database may take. Prometheus itself gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(8);
/// Longest time to take a question back.
const CANCEL_PATIENCE: Duration = Duration::from_secs(1);

/// Asks the database, by one connection that is opened when it is needed and kept. Clones share it.
#[derive(Clone, Debug)]
pub struct DatabaseMetrics(Arc<Asker>);

#[derive(Debug)]
struct Asker {
    target: Target,
    // Scrapes at the same time wait for the answer of the first.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    client: Option<Client>,
    fresh_until: Option<Instant>,
    text: String,
    told: Told,
}

impl std::fmt::Debug for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Last").field("fresh_until", &self.fresh_until).finish_non_exhaustive()
    }
}

impl DatabaseMetrics {
    /// Opens no connection yet.
    pub fn new(target: Target) -> Self {
        Self(Arc::new(Asker { target, last: Mutex::default() }))
    }

    /// The numbers as they were at most some seconds ago; none where the database does not answer. Whether it does, the
    /// recorder of the process is told.
    pub async fn text(&self) -> String {
        let asker = self.0.clone();
        // By itself: a scraper that hangs up must not leave a question behind that nobody remembers, and then the next.
        tokio::spawn(async move { asker.text().await }).await.unwrap_or_default()
    }
}

impl Asker {
    async fn text(&self) -> String {
        let mut last = self.last.lock().await;
        if last.fresh_until.is_none_or(|until| Instant::now() >= until) {
            let begun = Instant::now();
            let answer = self.ask(&mut last.client).await;
            let took = begun.elapsed();
            gauge!(DATABASE_UP.name).set(f64::from(u8::from(answer.is_ok())));
            last.text = match answer {
                Ok(samples) => {
                    last.told.is_over();
                    gauge!(DATABASE_SECONDS.name).set(took.as_secs_f64());
                    render(&samples)
                }
                Err(error) => {
                    last.client = None;
                    if last.told.is_news(&error) {
                        tracing::warn!(%error, "the database did not tell its metrics");
                    }
                    String::new()
                }
            };
            // A failure is kept as well: a database in trouble is not asked by each scrape.
            last.fresh_until = Some(Instant::now() + (took * SHARE).clamp(FRESH, LONGEST_FRESH));
        }
        last.text.clone()
    }

    async fn ask(&self, client: &mut Option<Client>) -> anyhow::Result<Vec<Sample>> {
        let client = match client {
            Some(client) if !client.is_closed() => client,
            _ => client.insert(timeout(PATIENCE, self.target.connect()).await.context("no connection in time")??),
        };
        if let Ok(answer) = timeout(PATIENCE, samples(client)).await {
            return Ok(answer?);
        }
        // Nobody waits for it any more.
        let _ = timeout(CANCEL_PATIENCE, client.cancel_token().cancel_query(self.target.tls())).await;
        bail!("no answer within {PATIENCE:?}")
    }
}

fn render(samples: &[Sample]) -> String {
    let mut text = String::new();
    // What a newer database tells and this binary does not know has no help, and is left out.
    for metric in DATABASE {
        let of_metric = samples.iter().filter(|sample| sample.name == metric.name);
        text += &family(metric, of_metric.map(|sample| (labels(&sample.labels), sample.value)));
    }
    text
}

fn family(metric: &Metric, values: impl IntoIterator<Item = (String, f64)>) -> String {
    let kind = if metric.kind == Kind::Counter { "counter" } else { "gauge" };
    let mut text = format!("# HELP {0} {1}\n# TYPE {0} {kind}\n", metric.name, metric.help);
    for (labels, value) in values {
        let _ = writeln!(text, "{}{labels} {value}", metric.name);
    }
    text + "\n"
}

/// `{app="7",state="open"}`, escaped as the format asks.
fn labels(labels: &BTreeMap<String, String>) -> String {
    let escaped = |value: &str| value.replace('\\', "\\\\").replace('"', "\\\"").replace('\n', "\\n");
    let pairs: Vec<String> = labels.iter().map(|(name, value)| format!("{name}=\"{}\"", escaped(value))).collect();
    if pairs.is_empty() { String::new() } else { format!("{{{}}}", pairs.join(",")) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn samples_become_families_with_help() {
        let sample = |name: &str, pairs: &[(&str, &str)], value| Sample {
            name: name.to_owned(),
            labels: pairs.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())).collect(),
            value,
        };
        let samples = [
            sample("sms_outbox_workers_alive", &[], 2.0),
            sample("sms_outbox_app_paused", &[("provider", "a\"b\\c\nd"), ("organization_app_id", "7")], 1.0),
            sample("sms_outbox_from_the_future", &[], 1.0),
            sample("sms_outbox_app_paused", &[("provider", "x"), ("organization_app_id", "other")], 1e9),
        ];
        let text = render(&samples);
        let lines: Vec<&str> =
            text.lines().filter(|line| line.contains("_paused") || line.contains("_alive")).collect();
        assert_eq!(
            lines[1..4],
            [
                "# TYPE sms_outbox_app_paused gauge",
                r#"sms_outbox_app_paused{organization_app_id="7",provider="a\"b\\c\nd"} 1"#,
                r#"sms_outbox_app_paused{organization_app_id="other",provider="x"} 1000000000"#,
            ]
        );
        assert!(lines.contains(&"sms_outbox_workers_alive 2"));
        assert!(!text.contains("future"), "{text}");
    }
}
