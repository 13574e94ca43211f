//! The recorder of this process, and the text that it writes.

use std::time::Duration;

use anyhow::anyhow;
use metrics::{counter, describe_counter, describe_gauge, describe_histogram, gauge};
use metrics_exporter_prometheus::{Matcher, PrometheusBuilder, PrometheusHandle};

use super::catalog::{BUILD_INFO, Kind, Metric};

/// Observations of histograms are held one by one until somebody adds them up; a scrape does, and so does this.
const UPKEEP_INTERVAL: Duration = Duration::from_secs(5);

/// The recorder that counts for this process. Clones share it.
#[derive(Clone, Debug)]
pub struct Exporter(PrometheusHandle);

impl Exporter {
    /// Begins to count, for the whole process and until its end. Call it inside the runtime, once.
    pub fn start(program: &'static str, known: &[Metric]) -> anyhow::Result<Self> {
        let mut builder = PrometheusBuilder::new();
        for metric in known {
            if let Kind::Histogram(bounds) = metric.kind {
                builder = builder.set_buckets_for_metric(Matcher::Full(metric.name.to_owned()), bounds)?;
            }
        }
        let handle = builder.install_recorder().map_err(|error| anyhow!("metrics cannot be counted: {error}"))?;
        known.iter().for_each(describe);
        describe(&BUILD_INFO);
        gauge!(BUILD_INFO.name, "version" => env!("CARGO_PKG_VERSION"), "program" => program).set(1.0);
        let upkeep = handle.clone();
        tokio::spawn(async move {
            loop {
                tokio::time::sleep(UPKEEP_INTERVAL).await;
                upkeep.run_upkeep();
            }
        });
        Ok(Self(handle))
    }

    /// One that counts for a test alone.
    #[cfg(test)]
    pub(super) fn of(handle: PrometheusHandle) -> Self {
        Self(handle)
    }

    /// All numbers, in the text format of Prometheus.
    pub fn render(&self) -> String {
        self.0.render()
    }
}

/// Says what a metric means, and lets one without labels be there before anything has happened: a rate needs a zero
/// to begin at.
fn describe(metric: &Metric) {
    match metric.kind {
        Kind::Counter => describe_counter!(metric.name, metric.help),
        Kind::Gauge => describe_gauge!(metric.name, metric.help),
        Kind::Histogram(_) => describe_histogram!(metric.name, metric.help),
    }
    if metric.labels.is_empty() {
        match metric.kind {
            Kind::Counter => counter!(metric.name).absolute(0),
            Kind::Gauge => gauge!(metric.name).set(0.0),
            Kind::Histogram(_) => {}
        }
    }
}
