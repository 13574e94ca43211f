//! Spans to an OpenTelemetry collector, over OTLP by HTTP. Where, and as what service, the standard variables say
//! (`OTEL_EXPORTER_OTLP_ENDPOINT`, `OTEL_SERVICE_NAME`, `OTEL_TRACES_SAMPLER`); without an endpoint nothing is exported.

use opentelemetry::trace::TracerProvider;
use opentelemetry_sdk::trace::SdkTracerProvider;
use tracing::{Subscriber, level_filters::LevelFilter};
use tracing_subscriber::Layer;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::layer::SubscriberExt;
use tracing_subscriber::registry::LookupSpan;

const ENDPOINTS: [&str; 2] = ["OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT"];

/// Sends spans in the background, and what is left when it is dropped.
#[derive(Debug)]
pub(super) struct Exporter(SdkTracerProvider);

impl Drop for Exporter {
    fn drop(&mut self) {
        // Who collects spans may be away; the process ends all the same.
        let _ = self.0.shutdown();
    }
}

/// The subscriber, and the export of our own spans beside it: their attributes hold ids, slugs and states.
pub(super) fn with_spans<S>(subscriber: S) -> (impl Subscriber + Send + Sync, Option<Exporter>)
where
    S: Subscriber + for<'span> LookupSpan<'span> + Send + Sync,
{
    let wanted = ENDPOINTS.iter().any(|name| std::env::var_os(name).is_some_and(|value| !value.is_empty()));
    let provider = wanted.then(provider).flatten();
    let layer = provider.as_ref().map(|provider| {
        // The client that sends spans makes spans too; those would be sent, and so on.
        let own = Targets::new().with_target("sms_outbox_worker", LevelFilter::INFO);
        tracing_opentelemetry::layer().with_tracer(provider.tracer("sms-outbox")).with_filter(own)
    });
    (subscriber.with(layer), provider.map(Exporter))
}

fn provider() -> Option<SdkTracerProvider> {
    // Without the exporter the worker works as well; a subscriber that could log why does not exist yet.
    let exporter = opentelemetry_otlp::SpanExporter::builder().with_http().build().ok()?;
    Some(SdkTracerProvider::builder().with_batch_exporter(exporter).build())
}
