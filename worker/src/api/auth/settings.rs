//! Settings of session tokens. What is unsafe is refused at the start, with the flag and the cure.

use std::fmt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::Args;
use jsonwebtoken::{Algorithm, AlgorithmFamily};

use crate::config::duration;

/// Which credentials are taken beside API keys.
#[derive(Clone, Debug, Default)]
pub struct AuthSettings {
    /// Session tokens; `None`: keys alone.
    pub jwt: Option<TokenSettings>,
}

/// What a session token must be.
#[derive(Clone, Debug)]
pub struct TokenSettings {
    /// Where the keys are.
    pub source: KeySource,
    /// The only algorithms, all of one kind: of shared secrets, or of public keys.
    pub algorithms: Vec<Algorithm>,
    /// Accepted values of `iss`.
    pub issuers: Vec<String>,
    /// Accepted values of `aud`.
    pub audiences: Vec<String>,
    /// How far the issuer's clock may be off.
    pub leeway: Duration,
}

/// The file with the keys of tokens.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum KeySource {
    /// Shared secrets, one a line.
    Secret(PathBuf),
    /// A JWK set, or public keys in PEM.
    Jwks(PathBuf),
}

impl KeySource {
    pub(super) fn path(&self) -> &Path {
        match self {
            Self::Secret(path) | Self::Jwks(path) => path,
        }
    }

    fn flag(&self) -> &'static str {
        match self {
            Self::Secret(_) => "jwt-secret-file",
            Self::Jwks(_) => "jwt-jwks-file",
        }
    }
}

impl fmt::Display for KeySource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.path().display())
    }
}

/// Why the API does not start with these settings.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AuthError {
    /// Both kinds of keys.
    #[error(
        "jwt-secret-file: jwt-jwks-file is set too; tokens are signed by shared secrets or by private keys: name one"
    )]
    TwoSources,
    /// Rules without keys would suggest that tokens are taken.
    #[error(
        "{0}: set, but no keys are named; name jwt-secret-file or jwt-jwks-file, or leave it out to take API keys alone"
    )]
    NoSource(&'static str),
    /// A token for another service would be taken.
    #[error(
        "jwt-issuer: missing; name the value of iss that your issuer writes, so that no other issuer's token is taken"
    )]
    NoIssuer,
    /// The same.
    #[error(
        "jwt-audience: missing; name the value of aud that is meant for this API, so that no other service's token is taken"
    )]
    NoAudience,
    /// Algorithm confusion.
    #[error("jwt-algorithms: {algorithm:?} is not for {file}: {cure}")]
    WrongFamily {
        /// The algorithm.
        algorithm: Algorithm,
        /// The flag of the file.
        file: &'static str,
        /// What to write.
        cure: &'static str,
    },
    /// No such file, or no right to read it.
    #[error("{}: {keys} cannot be read: {fault}", keys.flag())]
    Unreadable {
        /// The file.
        keys: KeySource,
        /// What the system said.
        fault: String,
    },
    /// It was read, and does not do.
    #[error("{}: {keys}: {fault}", keys.flag())]
    Keys {
        /// The file.
        keys: KeySource,
        /// What is wrong with it.
        fault: String,
    },
}

/// Flags of session tokens.
#[derive(Clone, Debug, Default, Args)]
#[command(next_help_heading = "Session tokens (JWT)")]
pub struct AuthArgs {
    /// Take tokens signed with a shared secret: this file has it on a line; several lines while it changes
    #[arg(long, env = "SMS_OUTBOX_JWT_SECRET_FILE", value_name = "FILE")]
    jwt_secret_file: Option<String>,
    /// Take tokens signed with a private key: this file has the public ones, as JWK set or PEM; it is read anew when it changes
    #[arg(long, env = "SMS_OUTBOX_JWT_JWKS_FILE", value_name = "FILE")]
    jwt_jwks_file: Option<String>,
    /// The only algorithms taken [default: HS256 with a secret, RS256,ES256,EdDSA with public keys]
    #[arg(long, env = "SMS_OUTBOX_JWT_ALGORITHMS", value_name = "LIST", value_delimiter = ',', value_parser = algorithm)]
    jwt_algorithms: Vec<Algorithm>,
    /// The accepted issuer (claim iss), or several between commas; required with a file of keys
    #[arg(long, env = "SMS_OUTBOX_JWT_ISSUER", value_name = "TEXT", value_delimiter = ',')]
    jwt_issuer: Vec<String>,
    /// The accepted audience (claim aud), or several between commas; required with a file of keys
    #[arg(long, env = "SMS_OUTBOX_JWT_AUDIENCE", value_name = "TEXT", value_delimiter = ',')]
    jwt_audience: Vec<String>,
    /// How far the issuer's clock may be off [0s to 2min]
    #[arg(long, env = "SMS_OUTBOX_JWT_LEEWAY", value_name = "DURATION", default_value = "5s",
          value_parser = duration(Duration::ZERO, Duration::from_secs(120)))]
    jwt_leeway: Duration,
}

fn algorithm(text: &str) -> Result<Algorithm, String> {
    let all = "write HS256, HS384, HS512, RS256, RS384, RS512, PS256, PS384, PS512, ES256, ES384 or EdDSA";
    text.trim().parse().map_err(|_| all.to_owned())
}

impl AuthArgs {
    /// Checks that they fit together. The files are read by [`super::Authenticator::new`].
    pub fn settings(self) -> Result<AuthSettings, AuthError> {
        let given = |list: Vec<String>| list.into_iter().filter(|text| !text.is_empty()).collect::<Vec<_>>();
        // An empty variable of the environment is a usual way to say: not set.
        let named = |path: Option<String>| path.filter(|path| !path.is_empty()).map(PathBuf::from);
        let (issuers, audiences) = (given(self.jwt_issuer), given(self.jwt_audience));
        let source = match (named(self.jwt_secret_file), named(self.jwt_jwks_file)) {
            (Some(_), Some(_)) => return Err(AuthError::TwoSources),
            (Some(path), None) => KeySource::Secret(path),
            (None, Some(path)) => KeySource::Jwks(path),
            (None, None) => {
                let set = [
                    ("jwt-issuer", !issuers.is_empty()),
                    ("jwt-audience", !audiences.is_empty()),
                    ("jwt-algorithms", !self.jwt_algorithms.is_empty()),
                ];
                return match set.into_iter().find(|(_, is_set)| *is_set) {
                    Some((flag, _)) => Err(AuthError::NoSource(flag)),
                    None => Ok(AuthSettings::default()),
                };
            }
        };
        if issuers.is_empty() {
            return Err(AuthError::NoIssuer);
        }
        if audiences.is_empty() {
            return Err(AuthError::NoAudience);
        }
        let algorithms = fitting(&source, self.jwt_algorithms)?;
        Ok(AuthSettings {
            jwt: Some(TokenSettings { source, algorithms, issuers, audiences, leeway: self.jwt_leeway }),
        })
    }
}

/// The algorithms, all of the kind of the keys: a public key must never be taken for a shared secret.
fn fitting(source: &KeySource, given: Vec<Algorithm>) -> Result<Vec<Algorithm>, AuthError> {
    let secret = matches!(source, KeySource::Secret(_));
    if given.is_empty() {
        let public = vec![Algorithm::RS256, Algorithm::ES256, Algorithm::EdDSA];
        return Ok(if secret { vec![Algorithm::HS256] } else { public });
    }
    match given.iter().find(|algorithm| (algorithm.family() == AlgorithmFamily::Hmac) != secret) {
        None => Ok(given),
        Some(&algorithm) => {
            let cure = if secret { "write HS256, HS384 or HS512" } else { "write those of public keys, such as RS256" };
            Err(AuthError::WrongFamily { algorithm, file: source.flag(), cure })
        }
    }
}
