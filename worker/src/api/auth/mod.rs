//! Who calls: an API key, which only the database can judge.

use axum::http::{HeaderMap, header};
use sha2::{Digest, Sha256};

/// Which credentials are taken beside API keys.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {}

/// Why the API does not start with these settings.
#[derive(Clone, Debug, thiserror::Error)]
pub enum AuthError {}

/// Flags of session tokens.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct AuthArgs {}

impl AuthArgs {
    /// Checks that they fit together.
    pub fn settings(self) -> Result<AuthSettings, AuthError> {
        Ok(AuthSettings {})
    }
}

/// What a request needs to be allowed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// To queue messages.
    Enqueue,
    /// To look at messages.
    Read,
    /// To cancel and retry.
    Operate,
}

impl Scope {
    /// The word in keys, in tokens and for the database.
    pub fn word(self) -> &'static str {
        match self {
            Self::Enqueue => "enqueue",
            Self::Read => "read",
            Self::Operate => "operate",
        }
    }
}

/// For whom a request acts: what the database's `enter()` wants to know beside the scope.
#[derive(Clone, PartialEq, Eq)]
pub struct Caller {
    /// The public part of an API key; `None` for a token, which has been verified.
    pub key_id: Option<String>,
    /// SHA-256 of the whole key.
    pub key_digest: Option<[u8; 32]>,
    /// The token's organization; with a key what `X-Organization-ID` asks for, if anything.
    pub organization_id: Option<String>,
}

/// Why a caller is turned away.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AuthRefusal {
    /// No credential, or none that holds.
    Unauthorized,
    /// The token is good, but not for this.
    MissingScope(Scope),
    /// The token is good for several organizations and `X-Organization-ID` names none.
    OrganizationRequired,
    /// `X-Organization-ID` names an organization that is not the token's.
    OrganizationMismatch,
    /// All keys of tokens were taken away since the start: nobody can say whether this one is good.
    Unavailable,
}

/// Judges the headers of requests.
#[derive(Debug)]
pub struct Authenticator {}

impl Authenticator {
    /// Ready for requests.
    pub fn new(_settings: AuthSettings) -> Result<Self, AuthError> {
        Ok(Self {})
    }

    /// Who calls, by the headers of a request that needs `scope`. The scopes of keys are the database's to judge.
    pub fn caller(&self, headers: &HeaderMap, _scope: Scope) -> Result<Caller, AuthRefusal> {
        let value = headers.get(header::AUTHORIZATION).and_then(|value| value.to_str().ok());
        let key = value.ok_or(AuthRefusal::Unauthorized)?.trim();
        let key = key.strip_prefix("Bearer ").unwrap_or(key).trim();
        let id = key.strip_prefix("smsk_").and_then(|rest| rest.get(..12)).ok_or(AuthRefusal::Unauthorized)?;
        let wanted = headers.get("x-organization-id").and_then(|value| value.to_str().ok());
        Ok(Caller {
            key_id: Some(id.to_owned()),
            key_digest: Some(Sha256::digest(key.as_bytes()).into()),
            organization_id: wanted.filter(|text| !text.is_empty()).map(str::to_owned),
        })
    }
}
