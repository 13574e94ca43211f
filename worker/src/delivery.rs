//! The delivery of one attempt: a lease goes in, how it ended comes out.

mod accounts;

use std::sync::Arc;
use std::time::{Duration, Instant};

use tracing::{Instrument, field};

use self::accounts::Accounts;
use crate::message::AttemptStatus;
use crate::metrics;
use crate::outbox::{self, Lease, Outcome};
use crate::provider::credential::Credentials;
use crate::provider::http::Client;
use crate::provider::redact::Redaction;
use crate::provider::{Account, Provider, Registry, Request, Response, Sms, Verdict, config};
use crate::trace::{self, TraceParent};

/// With less than this left of a lease no request is begun.
const LEAST_LEFT: Duration = Duration::from_secs(2);

/// What is kept of a lease to record the outcome in.
const TO_RECORD: Duration = Duration::from_secs(1);

/// Longest error code that is kept, in characters; longest message id likewise.
const LONGEST_CODE: usize = 64;
const LONGEST_ID: usize = 255;

/// How attempts are made.
#[derive(Clone, Copy, Debug)]
pub struct DeliveryOptions {
    /// Longest time of one request, from its start to the end of the answer. A lease that ends earlier cuts it short.
    pub timeout: Duration,
}

impl Default for DeliveryOptions {
    fn default() -> Self {
        Self { timeout: Duration::from_secs(30) }
    }
}

/// Makes attempts, any number at once.
pub struct Delivery {
    client: Client,
    registry: Registry,
    credentials: Arc<Credentials>,
    accounts: Accounts,
    options: DeliveryOptions,
}

impl Delivery {
    /// Delivers through these providers by this client.
    pub fn new(client: Client, registry: Registry, options: DeliveryOptions) -> Self {
        Self { client, registry, credentials: Arc::default(), accounts: Accounts::default(), options }
    }

    /// With what sealed and referred credentials are resolved.
    pub fn with_credentials(self, credentials: Arc<Credentials>) -> Self {
        Self { credentials, ..self }
    }

    /// Makes the one request of this attempt, or none. `claimed_at` was read before the claim was asked for, so that
    /// the lease cannot end earlier than is counted here.
    pub async fn deliver(&self, lease: &Lease, claimed_at: Instant) -> Outcome {
        let started = Instant::now();
        let reference = outbox::reference(lease.id, lease.attempt);
        let sms =
            Sms { mobile: &lease.mobile, body: &lease.body, sender: lease.sender.as_deref(), reference: &reference };
        let outcome = match self.registry.get(&lease.slug) {
            Some(provider) => self.deliver_by(provider, lease, &sms, claimed_at).await,
            None => {
                let fault = format!("This worker does not know the provider {:?}; update the worker.", lease.slug);
                End::unusable("provider_unknown", fault).outcome(&sms, Vec::new())
            }
        };
        log(lease, &outcome, started.elapsed());
        outcome
    }

    async fn deliver_by(&self, provider: &dyn Provider, lease: &Lease, sms: &Sms<'_>, claimed_at: Instant) -> Outcome {
        let fields = provider.fields();
        // Files of credentials are few, small and local: not worth a thread of their own.
        let config = match self.credentials.resolve(&lease.organization, &lease.slug, fields, &lease.config) {
            Ok(config) => config,
            Err(error) => {
                let fault = format!("The app's credentials are not to be had: {error}");
                let end = End::unusable("credential_unavailable", fault);
                return end.outcome(sms, config::secrets(fields, &lease.config));
            }
        };
        match self.accounts.open(lease.app, provider, &config) {
            Ok(app) => {
                let end = self.attempt(&*app.account, lease, sms, claimed_at).await;
                end.outcome(sms, app.secrets.iter().map(String::as_str).collect())
            }
            Err(error) => {
                let end = End::unusable("config_invalid", format!("The app cannot be used: {error}"));
                end.outcome(sms, config::secrets(fields, &config))
            }
        }
    }

    async fn attempt(&self, account: &dyn Account, lease: &Lease, sms: &Sms<'_>, claimed_at: Instant) -> End {
        let request = match account.request(sms) {
            Ok(request) => request,
            Err(verdict) => return End::unsent(verdict),
        };
        let credentials = credentials(&request);
        let left = |kept| claimed_at + lease.lasts.saturating_sub(kept);
        let answer_before = left(TO_RECORD).min(Instant::now() + self.options.timeout);
        let span = tracing::info_span!(
            "provider_request",
            otel.kind = "client",
            message_id = %lease.id,
            attempt = lease.attempt,
            app_id = %lease.app,
            slug = %lease.slug,
            trace_id = lease.traceparent.as_ref().map(TraceParent::trace_id),
            status = field::Empty,
            http_status = field::Empty,
        );
        trace::adopt(&span, lease.traceparent.as_ref());
        let begun = Instant::now();
        let answer = self.client.send(request, left(LEAST_LEFT), answer_before).instrument(span.clone()).await;
        metrics::worker::requested(&lease.slug, begun.elapsed());
        let end = match answer {
            Ok(response) => End { verdict: account.verdict(sms, &response), response: Some(response), credentials },
            Err(verdict) => End { verdict, response: None, credentials },
        };
        span.record("status", end.verdict.status.word());
        span.record("http_status", end.response.as_ref().map(|response| response.status));
        end
    }
}

/// The credentials as they went over the wire: a gateway that echoes headers echoes them so.
fn credentials(request: &Request) -> Vec<String> {
    let sensitive = request.headers.values().filter(|value| value.is_sensitive());
    let texts = sensitive.filter_map(|value| value.to_str().ok());
    texts.map(|text| text.split_once(' ').map_or(text, |(_, credentials)| credentials).to_owned()).collect()
}

/// The end of an attempt before what must not be kept is taken out.
struct End {
    verdict: Verdict,
    response: Option<Response>,
    credentials: Vec<String>,
}

impl End {
    fn unusable(code: &str, fault: String) -> Self {
        Self::unsent(Verdict::ended(AttemptStatus::RefusedAccount, code, fault))
    }

    fn unsent(verdict: Verdict) -> Self {
        Self { verdict, response: None, credentials: Vec::new() }
    }

    fn outcome(self, sms: &Sms<'_>, app_secrets: Vec<&str>) -> Outcome {
        let Self { verdict, response, credentials } = self;
        let secrets: Vec<&str> = app_secrets.into_iter().chain(credentials.iter().map(String::as_str)).collect();
        let redaction = Redaction::new(&secrets, sms);
        let id = verdict.provider_message_id.filter(|id| !secrets.iter().any(|secret| id.contains(secret)));
        Outcome {
            status: verdict.status,
            http_status: response.as_ref().and_then(|response| i16::try_from(response.status).ok()),
            error_code: verdict.error_code.map(|code| plain_code(&redaction.text(&code))),
            error_message: verdict.error_message.map(|message| redaction.text(&message)),
            response: response.as_ref().and_then(|response| redaction.response(response)),
            provider_message_id: id.map(|id| id.chars().filter(|c| !c.is_control()).take(LONGEST_ID).collect()),
            retry_after: verdict.retry_after,
        }
    }
}

/// A code is a word: a gateway that puts a sentence in its place does not get it into logs and metrics.
fn plain_code(code: &str) -> String {
    let word = |c: char| c.is_ascii_alphanumeric() || matches!(c, '_' | '-' | '.' | ':');
    if code.len() <= LONGEST_CODE && code.chars().all(word) { code.to_owned() } else { "other".to_owned() }
}

fn log(lease: &Lease, outcome: &Outcome, latency: Duration) {
    let latency_ms = u64::try_from(latency.as_millis()).unwrap_or(u64::MAX);
    macro_rules! event {
        ($level:ident) => {
            tracing::$level!(
                message_id = %lease.id,
                attempt = lease.attempt,
                app_id = %lease.app,
                slug = %lease.slug,
                status = %outcome.status,
                http_status = outcome.http_status,
                error_code = outcome.error_code.as_deref(),
                latency_ms,
                trace_id = lease.traceparent.as_ref().map(TraceParent::trace_id),
                "attempt over"
            )
        };
    }
    match outcome.status {
        AttemptStatus::Accepted => event!(debug),
        _ => event!(info),
    }
}

#[cfg(test)]
mod tests;
