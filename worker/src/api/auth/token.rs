//! Session tokens: compact JWS, verified as RFC 8725 asks. The signature, times, issuer and audience are checked by
//! jsonwebtoken; what stands here are the checks that it leaves to its caller.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::errors::ErrorKind;
use jsonwebtoken::{Algorithm, Validation, decode};
use serde::de::IgnoredAny;
use serde::{Deserialize, Deserializer};

use super::keyfile::KeyFile;
use super::keyset::KeySet;
use super::{AuthError, AuthRefusal, Scope, TokenSettings};

/// Larger than any session needs: its claims are a few ids.
pub(super) const MOST_BYTES: usize = 8 * 1024;
/// Scopes of a token that names none.
const DEFAULT_SCOPES: [Scope; 2] = [Scope::Enqueue, Scope::Read];

/// What a token says about its bearer.
#[derive(Debug, Deserialize)]
pub(super) struct Claims {
    /// Compared by jsonwebtoken, which would take a list too: RFC 7519 knows no token of several issuers.
    #[serde(rename = "iss")]
    _issuer: String,
    pub(super) organization_id: Option<String>,
    pub(super) organization_ids: Option<Vec<String>>,
    scope: Option<String>,
}

impl Claims {
    /// RFC 8693: words between spaces. Words of other services are skipped.
    pub(super) fn scopes(&self) -> Vec<Scope> {
        let Some(text) = &self.scope else {
            return DEFAULT_SCOPES.to_vec();
        };
        let all = [Scope::Enqueue, Scope::Read, Scope::Operate];
        all.into_iter().filter(|scope| text.split(' ').any(|word| word == scope.word())).collect()
    }
}

/// Why a token is refused, for the log. The caller is told nothing of it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum Fault {
    #[error("longer than 8 KiB")]
    TooLong,
    #[error("not three parts")]
    NotCompact,
    #[error("the header is no JSON object of the expected types, or has a field twice")]
    Header,
    #[error("crit: an extension is demanded, and none is known")]
    Critical,
    #[error("b64, zip, enc or cty: no signed set of claims")]
    NotClaims,
    #[error("typ: neither JWT nor at+jwt")]
    Type,
    #[error("alg: not among --jwt-algorithms")]
    Algorithm,
    #[error("no key of this kid fits its alg")]
    UnknownKey,
    #[error("the signature is not that of the key")]
    Signature,
    #[error("exp: over")]
    Expired,
    #[error("nbf: not yet")]
    NotYet,
    #[error("iss: another issuer")]
    Issuer,
    #[error("aud: another audience")]
    Audience,
    #[error("a claim is missing, has another type or stands twice")]
    Claims,
}

/// The fields of the header that mean something here. `jku`, `jwk`, `x5u` and `x5c` would let the token bring its own
/// key: they are not read.
#[derive(Deserialize)]
struct Header {
    alg: String,
    kid: Option<String>,
    typ: Option<String>,
    #[serde(default, deserialize_with = "present")]
    crit: bool,
    #[serde(default, deserialize_with = "present")]
    b64: bool,
    #[serde(default, deserialize_with = "present")]
    zip: bool,
    #[serde(default, deserialize_with = "present")]
    enc: bool,
    #[serde(default, deserialize_with = "present")]
    cty: bool,
}

/// Whether a field stands there, even as `null`.
fn present<'de, D: Deserializer<'de>>(field: D) -> Result<bool, D::Error> {
    IgnoredAny::deserialize(field).map(|_| true)
}

/// Verifies tokens by the keys of a file.
#[derive(Debug)]
pub(super) struct Tokens {
    keys: KeyFile,
    rules: Validation,
}

impl Tokens {
    pub(super) fn new(settings: TokenSettings) -> Result<Self, AuthError> {
        let rules = rules(&settings);
        Ok(Self { keys: KeyFile::open(settings.source, settings.algorithms)?, rules })
    }

    /// Looks at the file without waiting.
    #[cfg(test)]
    pub(super) fn look_now(&self) {
        self.keys.look_now();
    }

    /// The claims of a token that holds.
    pub(super) fn verify(&self, token: &str) -> Result<Claims, AuthRefusal> {
        let keys = self.keys.current();
        if keys.is_empty() {
            return Err(AuthRefusal::Unavailable);
        }
        verify(token, &keys, &self.rules).map_err(|fault| {
            tracing::debug!(%fault, "a session token is refused");
            AuthRefusal::Unauthorized
        })
    }
}

/// What every token must meet, whichever key signed it.
pub(super) fn rules(settings: &TokenSettings) -> Validation {
    let mut rules = Validation { algorithms: settings.algorithms.clone(), ..Validation::default() };
    rules.set_issuer(&settings.issuers);
    rules.set_audience(&settings.audiences);
    rules.set_required_spec_claims(&["exp", "iss", "aud"]);
    rules.validate_nbf = true;
    rules.leeway = settings.leeway.as_secs();
    // RFC 7519: refused on or after `exp`. jsonwebtoken compares with 'after' alone.
    rules.reject_tokens_expiring_in_less_than = 1;
    rules
}

pub(super) fn verify(token: &str, keys: &KeySet, rules: &Validation) -> Result<Claims, Fault> {
    if token.len() > MOST_BYTES {
        return Err(Fault::TooLong);
    }
    let parts: Vec<&str> = token.split('.').collect();
    let [header, _, signature] = parts.as_slice() else {
        return Err(Fault::NotCompact);
    };
    if signature.is_empty() {
        return Err(Fault::Signature);
    }
    let header: Header =
        URL_SAFE_NO_PAD.decode(header).ok().and_then(|json| serde_json::from_slice(&json).ok()).ok_or(Fault::Header)?;
    let algorithm = check_header(&header, rules)?;

    let mut fault = Fault::UnknownKey;
    for key in keys.candidates(header.kid.as_deref(), algorithm) {
        // The key, not the token, says which algorithms may be used with it.
        let rules = Validation { algorithms: vec![algorithm], ..rules.clone() };
        match decode::<Claims>(token, key, &rules) {
            Ok(verified) => return Ok(verified.claims),
            Err(error) => fault = name(error.kind()),
        }
        if fault != Fault::Signature {
            break;
        }
    }
    Err(fault)
}

fn check_header(header: &Header, rules: &Validation) -> Result<Algorithm, Fault> {
    if header.crit {
        return Err(Fault::Critical);
    }
    if header.b64 || header.zip || header.enc || header.cty {
        return Err(Fault::NotClaims);
    }
    if let Some(typ) = &header.typ {
        // A token of another kind by the same issuer, such as a log-out token or a proof of possession, is no session.
        let typ = typ.to_ascii_lowercase();
        if !matches!(typ.strip_prefix("application/").unwrap_or(&typ), "jwt" | "at+jwt") {
            return Err(Fault::Type);
        }
    }
    let algorithm = header.alg.parse().map_err(|_| Fault::Algorithm)?;
    if rules.algorithms.contains(&algorithm) { Ok(algorithm) } else { Err(Fault::Algorithm) }
}

fn name(kind: &ErrorKind) -> Fault {
    match kind {
        ErrorKind::ExpiredSignature | ErrorKind::InvalidToken => Fault::Expired,
        ErrorKind::ImmatureSignature => Fault::NotYet,
        ErrorKind::InvalidIssuer => Fault::Issuer,
        ErrorKind::InvalidAudience => Fault::Audience,
        ErrorKind::Json(_) | ErrorKind::MissingRequiredClaim(_) | ErrorKind::InvalidClaimFormat(_) => Fault::Claims,
        _ => Fault::Signature,
    }
}
