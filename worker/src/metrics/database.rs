//! The numbers of the database, as text: asked once in some seconds, whoever scrapes and how often.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::{Duration, Instant};

use metrics::gauge;
use tokio::sync::Mutex;
use tokio_postgres::Client;

use super::catalog::{DATABASE, DATABASE_SECONDS, DATABASE_UP, Kind, Metric};
use crate::logging::Told;
use crate::outbox::postgres::connect::Target;
use crate::outbox::postgres::operator::metrics::{Sample, samples};

/// An answer is given again for this long. Below the usual interval of scrapes, so that each sees a new one.
const FRESH: Duration = Duration::from_secs(5);
/// Longest time that a scrape waits for the database. Prometheus itself gives up after 10 s.
const PATIENCE: Duration = Duration::from_secs(8);

/// Asks the database, by one connection that is opened when it is needed and kept.
#[derive(Debug)]
pub struct DatabaseMetrics {
    target: Target,
    // Scrapes at the same time wait for the answer of the first.
    last: Mutex<Last>,
}

#[derive(Default)]
struct Last {
    client: Option<Client>,
    asked: Option<Instant>,
    text: String,
    told: Told,
}

impl std::fmt::Debug for Last {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Last").field("asked", &self.asked).finish_non_exhaustive()
    }
}

impl DatabaseMetrics {
    /// Opens no connection yet.
    pub fn new(target: Target) -> Self {
        Self { target, last: Mutex::default() }
    }

    /// The numbers as they were at most some seconds ago; none where the database does not answer. Whether it does, the
    /// recorder of the process is told.
    pub async fn text(&self) -> String {
        let mut last = self.last.lock().await;
        // A failure is kept as long: a database in trouble is not asked by each scrape.
        if last.asked.is_none_or(|asked| asked.elapsed() >= FRESH) {
            let begun = Instant::now();
            let answer = tokio::time::timeout(PATIENCE, ask(&self.target, &mut last.client)).await;
            let answer = answer.unwrap_or_else(|_| Err(anyhow::anyhow!("no answer within {PATIENCE:?}")));
            last.text = match answer {
                Ok(samples) => {
                    last.told.is_over();
                    gauge!(DATABASE_UP.name).set(1.0);
                    gauge!(DATABASE_SECONDS.name).set(begun.elapsed().as_secs_f64());
                    render(&samples)
                }
                Err(error) => {
                    last.client = None;
                    if last.told.is_news(&error) {
                        tracing::warn!(%error, "the database did not tell its metrics");
                    }
                    gauge!(DATABASE_UP.name).set(0.0);
                    String::new()
                }
            };
            last.asked = Some(Instant::now());
        }
        last.text.clone()
    }
}

async fn ask(target: &Target, client: &mut Option<Client>) -> anyhow::Result<Vec<Sample>> {
    let client = match client {
        Some(client) if !client.is_closed() => client,
        _ => client.insert(target.connect().await?),
    };
    Ok(samples(client).await?)
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
