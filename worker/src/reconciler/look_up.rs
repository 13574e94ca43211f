//! One look-up: an unclear attempt goes in, what its provider knows comes out.

use std::sync::Arc;
use std::time::{Duration, Instant};

use super::LookUp;
use crate::message::AttemptStatus;
use crate::outbox::{self, Resolution, Unclear};
use crate::provider::credential::Credentials;
use crate::provider::http::Client;
use crate::provider::{Attempted, Found, Provider, Registry, Sms, config};

/// Times the pause before the first look-up: from then on what a provider does not know never reached it. A request that was
/// written goes on its way when its connection is given up (Linux delivers what such a socket holds for about 100 s), so that
/// absence proves nothing before.
const SETTLED: u32 = 5;

/// Longest id of a message that is kept, in characters.
const LONGEST_ID: usize = 255;

/// What a look-up came to.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Answer {
    /// The provider answered.
    Found(Found),
    /// It could not be asked, or did not answer; why.
    Failed(String),
}

impl Answer {
    /// The word for logs and metrics.
    pub(super) fn word(&self) -> &'static str {
        match self {
            Self::Found(Found::Accepted { .. }) => "accepted",
            Self::Found(Found::NotSent) => "not_sent",
            Self::Found(Found::Nothing(_)) => "nothing",
            Self::Failed(_) => "failed",
        }
    }

    /// What is told to the outbox.
    pub(super) fn resolution(self, unclear: &Unclear) -> Resolution {
        let (verdict, provider_message_id, detail) = match self {
            Self::Found(Found::Accepted { provider_message_id, status }) => {
                let detail = status.map(|status| format!("the provider has it as {status}"));
                (AttemptStatus::Accepted, provider_message_id, detail)
            }
            Self::Found(Found::NotSent) => {
                (AttemptStatus::NotSent, None, Some("the provider has no such message".to_owned()))
            }
            Self::Found(Found::Nothing(why)) => (AttemptStatus::Unclear, None, Some(why.to_owned())),
            Self::Failed(why) => (AttemptStatus::Unclear, None, Some(format!("the provider was not reached: {why}"))),
        };
        Resolution { id: unclear.id, attempt: unclear.attempt, verdict, provider_message_id, detail }
    }
}

/// Looks up through these providers.
pub struct LookUps {
    client: Client,
    registry: Registry,
    credentials: Arc<Credentials>,
    after: Duration,
    timeout: Duration,
}

impl LookUps {
    /// `after` is the pause before an attempt's first look-up, `timeout` the longest time of one.
    pub fn new(
        client: Client,
        registry: Registry,
        credentials: Arc<Credentials>,
        after: Duration,
        timeout: Duration,
    ) -> Self {
        Self { client, registry, credentials, after, timeout }
    }

    async fn ask(&self, provider: &dyn Provider, unclear: &Unclear) -> Result<Found, String> {
        let fields = provider.fields();
        let config = self
            .credentials
            .resolve(&unclear.organization, &unclear.slug, fields, &unclear.config)
            .map_err(|_| "credential_unavailable")?;
        let account = provider.open(&config).map_err(|_| "config_invalid")?;
        let reference = outbox::reference(unclear.id, unclear.attempt);
        let attempted = Attempted {
            sms: Sms {
                mobile: &unclear.mobile,
                body: &unclear.body,
                sender: unclear.sender.as_deref(),
                reference: &reference,
            },
            started_at: unclear.started_at,
            finished_at: unclear.finished_at,
            is_settled: unclear.age >= self.after * SETTLED,
            taken_ids: &unclear.taken_ids,
            has_twin: unclear.has_twin,
        };
        let request = account.look_up(&attempted).ok_or("look_up_unavailable")?;
        let until = Instant::now() + self.timeout;
        let answer = self.client.send(request, until, until).await;
        let response = answer.map_err(|verdict| verdict.error_code.unwrap_or_default())?;
        if !response.is_success() {
            return Err(format!("http_{}", response.status));
        }
        Ok(without_secrets(account.found(&attempted, &response), &config::secrets(fields, &config)))
    }
}

impl LookUp for LookUps {
    async fn look_up(&self, unclear: &Unclear) -> Answer {
        let answer = match self.registry.get(&unclear.slug) {
            Some(provider) => self.ask(provider, unclear).await,
            None => Err("provider_unknown".to_owned()),
        };
        answer.map_or_else(Answer::Failed, Answer::Found)
    }
}

/// What a provider echoes is not kept where it holds a secret.
fn without_secrets(found: Found, secrets: &[&str]) -> Found {
    let clean = |text: String| {
        let kept: String = text.chars().filter(|c| !c.is_control()).take(LONGEST_ID).collect();
        Some(kept).filter(|kept| !kept.is_empty() && !secrets.iter().any(|secret| kept.contains(secret)))
    };
    match found {
        Found::Accepted { provider_message_id, status } => Found::Accepted {
            provider_message_id: provider_message_id.and_then(clean),
            status: status
                .and_then(clean)
                .filter(|status| status.bytes().all(|byte| byte.is_ascii_lowercase() || byte == b'_')),
        },
        other => other,
    }
}
