//! The trace that a message belongs to: given at enqueue as `traceparent`, taken up by the span of the provider call.

use std::fmt;
use std::str::FromStr;

/// A `traceparent` of W3C Trace Context, checked: `00-<trace id>-<parent id>-<flags>`. It may be logged.
#[derive(Clone, PartialEq, Eq)]
pub struct TraceParent(String);

/// Why a text is no `traceparent`.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "traceparent: not of the form 00-<32 hex digits>-<16 hex digits>-<2 hex digits>, in lower case and not all zero"
)]
pub struct InvalidTraceParent;

impl TraceParent {
    /// The whole text.
    pub fn as_str(&self) -> &str {
        &self.0
    }

    /// Id of the trace: 32 hexadecimal digits.
    pub fn trace_id(&self) -> &str {
        self.0.get(3..35).unwrap_or_default()
    }
}

impl fmt::Display for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl fmt::Debug for TraceParent {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for TraceParent {
    type Err = InvalidTraceParent;

    /// Takes version 00 alone: what a later version means nobody knows yet, and no field may hold more than hex digits.
    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let hex = |part: &str, length: usize| {
            part.len() == length && part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'))
        };
        let id = |part: &str, length: usize| hex(part, length) && part.bytes().any(|byte| byte != b'0');
        let parts: Vec<&str> = text.splitn(5, '-').collect();
        match parts[..] {
            ["00", trace, parent, flags] if id(trace, 32) && id(parent, 16) && hex(flags, 2) => {
                Ok(Self(text.to_owned()))
            }
            _ => Err(InvalidTraceParent),
        }
    }
}

/// Makes the span a child of the one that queued the message, where spans are exported.
#[cfg(feature = "otlp")]
pub fn adopt(span: &tracing::Span, parent: Option<&TraceParent>) {
    use opentelemetry::propagation::TextMapPropagator;
    use tracing_opentelemetry::OpenTelemetrySpanExt;

    let Some(parent) = parent else { return };
    let carrier = std::collections::HashMap::from([("traceparent".to_owned(), parent.as_str().to_owned())]);
    let context = opentelemetry_sdk::propagation::TraceContextPropagator::new().extract(&carrier);
    // Without an exporter there is nothing to be a child of.
    let _ = span.set_parent(context);
}

/// Nothing: this build exports no spans. Their fields name the trace all the same.
#[cfg(not(feature = "otlp"))]
pub fn adopt(_: &tracing::Span, _: Option<&TraceParent>) {}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn takes_the_form_of_w3c_alone() {
        let good = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
        let parent: TraceParent = good.parse().unwrap();
        assert_eq!((parent.as_str(), parent.trace_id()), (good, "0af7651916cd43dd8448eb211c80319c"));
        for bad in [
            "",
            "+966501234567",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01-x",
            "01-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01",
            "00-0AF7651916CD43DD8448EB211C80319C-b7ad6b7169203331-01",
            "00-00000000000000000000000000000000-b7ad6b7169203331-01",
            "00-0af7651916cd43dd8448eb211c80319c-0000000000000000-01",
            "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-0g",
            "00-0af7651916cd43dd8448eb211c8031é-b7ad6b7169203331-01",
        ] {
            assert_eq!(bad.parse::<TraceParent>(), Err(InvalidTraceParent), "{bad}");
        }
    }
}
