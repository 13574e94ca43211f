//! An issuer of session tokens, as an application has one: it signs with its private keys and publishes the public ones.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::run;

/// The name of the issuer, in its tokens and in the settings of an API that trusts it.
pub const ISSUER: &str = "https://issuer.example";
/// For whom its tokens are.
pub const AUDIENCE: &str = "sms-outbox";

/// An issuer with one or more keys (ES256), the newest last.
#[derive(Debug)]
pub struct Issuer {
    file: PathBuf,
    keys: Vec<(String, EcdsaKeyPair)>,
}

impl Issuer {
    /// Makes one with a key of its own, and publishes that.
    pub fn new() -> Result<Self> {
        let mut issuer = Self { file: run::fresh("jwks")?, keys: Vec::new() };
        issuer.add_key()?;
        Ok(issuer)
    }

    /// The file with its public keys.
    pub fn file(&self) -> &Path {
        &self.file
    }

    /// Settings of an API that trusts it.
    pub fn settings(&self) -> [(&'static str, String); 3] {
        [
            ("SMS_OUTBOX_JWT_JWKS_FILE", self.file.display().to_string()),
            ("SMS_OUTBOX_JWT_ISSUER", ISSUER.to_owned()),
            ("SMS_OUTBOX_JWT_AUDIENCE", AUDIENCE.to_owned()),
        ]
    }

    /// Signs with a new key from now on; the old ones stay published.
    pub fn add_key(&mut self) -> Result<()> {
        let key = EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).context("no key")?;
        self.keys.push((format!("key-{}", run::number()?), key));
        self.publish()
    }

    /// Takes the oldest key away.
    pub fn drop_oldest_key(&mut self) -> Result<()> {
        self.keys.remove(0);
        self.publish()
    }

    /// Puts this text in the place of its keys.
    pub fn publish_text(&self, text: &str) -> Result<()> {
        // Whole or not at all, as programs that replace files do.
        let beside = run::fresh("jwks-new")?;
        fs::write(&beside, text)?;
        Ok(fs::rename(beside, &self.file)?)
    }

    /// Publishes its keys.
    pub fn publish(&self) -> Result<()> {
        let keys: Vec<Value> = self.keys.iter().map(|(kid, key)| public(kid, key)).collect();
        self.publish_text(&json!({ "keys": keys }).to_string())
    }

    /// A token for one organization, good for ten minutes.
    pub fn token(&self, organization: &str) -> Result<String> {
        self.sign(&claims(&json!({ "organization_id": organization })))
    }

    /// A token of these claims, by its newest key.
    pub fn sign(&self, claims: &Value) -> Result<String> {
        let (kid, _) = self.keys.last().context("no key")?;
        self.sign_with(&json!({ "alg": "ES256", "typ": "JWT", "kid": kid }), claims)
    }

    /// The same with a header that need not be true.
    pub fn sign_with(&self, header: &Value, claims: &Value) -> Result<String> {
        let (_, key) = self.keys.last().context("no key")?;
        let message = format!("{}.{}", encoded(header.to_string()), encoded(claims.to_string()));
        let signature = key.sign(&SystemRandom::new(), message.as_bytes()).context("not signed")?;
        Ok(format!("{message}.{}", encoded(signature.as_ref())))
    }
}

/// Claims that are good for ten minutes, and these besides or instead.
pub fn claims(more: &Value) -> Value {
    let mut claims = json!({ "iss": ISSUER, "aud": AUDIENCE, "sub": "user-1", "exp": now() + 600 });
    for (name, value) in more.as_object().into_iter().flatten() {
        claims[name] = value.clone();
    }
    claims
}

/// Seconds since 1970, by the clock that tokens are judged by.
#[expect(clippy::disallowed_methods, reason = "an issuer has no database to ask for the time")]
pub fn now() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

/// A part of a token.
pub fn encoded(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

fn public(kid: &str, key: &EcdsaKeyPair) -> Value {
    // An uncompressed point: a byte that says so, then both coordinates.
    let point = &key.public_key().as_ref()[1..];
    let (x, y) = point.split_at(point.len() / 2);
    json!({ "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": kid, "x": encoded(x), "y": encoded(y) })
}
