//! Who calls: an API key, which only the database can judge, or a session token, which is verified here.
//!
//! Every refusal of a credential is the same [`AuthRefusal::Unauthorized`]: which check failed is told to the log at
//! level debug, never to the caller.

mod key;
mod keyfile;
mod keyset;
mod organization;
mod settings;
mod token;

use axum::http::{HeaderMap, HeaderName, header};

pub use settings::{AuthArgs, AuthError, AuthSettings, KeySource, TokenSettings};

use token::Tokens;

/// The header by which a caller says for which of its organizations it acts.
pub const ORGANIZATION_HEADER: HeaderName = HeaderName::from_static("x-organization-id");

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

/// Without the digest: whoever reads a log should not get to compare it with guesses.
impl std::fmt::Debug for Caller {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut shown = f.debug_struct("Caller");
        shown.field("key_id", &self.key_id).field("organization_id", &self.organization_id).finish_non_exhaustive()
    }
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

/// Judges the headers of requests. Keeps no state but the keys of tokens, which it reads again when their file changes.
#[derive(Debug)]
pub struct Authenticator {
    tokens: Option<Tokens>,
}

impl Authenticator {
    /// Reads the keys of tokens, if tokens are to be taken.
    pub fn new(settings: AuthSettings) -> Result<Self, AuthError> {
        Ok(Self { tokens: settings.jwt.map(Tokens::new).transpose()? })
    }

    /// Who calls, by the headers of a request that needs `scope`. The scopes of keys are the database's to judge.
    pub fn caller(&self, headers: &HeaderMap, scope: Scope) -> Result<Caller, AuthRefusal> {
        let wanted = organization::wanted(headers);
        let mut given = headers.get_all(header::AUTHORIZATION).iter();
        // Two credentials: whichever a proxy in front looked at, this must not be the other.
        let (Some(value), None) = (given.next(), given.next()) else {
            return Err(AuthRefusal::Unauthorized);
        };
        match key::credential(value.as_bytes()).ok_or(AuthRefusal::Unauthorized)? {
            key::Credential::Key(key) => {
                let (key_id, digest) = key::read(key).ok_or(AuthRefusal::Unauthorized)?;
                Ok(Caller { key_id: Some(key_id), key_digest: Some(digest), organization_id: wanted })
            }
            key::Credential::Token(text) => {
                let tokens = self.tokens.as_ref().ok_or(AuthRefusal::Unauthorized)?;
                let claims = tokens.verify(text)?;
                let organization = organization::choose(&claims, wanted.as_deref())?;
                if !claims.scopes().contains(&scope) {
                    return Err(AuthRefusal::MissingScope(scope));
                }
                Ok(Caller { key_id: None, key_digest: None, organization_id: Some(organization) })
            }
        }
    }
}

#[cfg(test)]
mod tests;
