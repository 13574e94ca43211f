//! Hostile tokens. They are built by hand: a library would not write most of them.

mod headers;
mod random;
mod rfc8725;
mod rotation;
mod settings;

use std::sync::OnceLock;
use std::time::Duration;

use aws_lc_rs::rand::SystemRandom;
use aws_lc_rs::rsa::KeySize;
use aws_lc_rs::signature::{
    ECDSA_P256_SHA256_FIXED_SIGNING, ECDSA_P384_SHA384_FIXED_SIGNING, EcdsaKeyPair, Ed25519KeyPair, KeyPair,
    RSA_PKCS1_SHA256, RSA_PSS_SHA256, RsaKeyPair,
};
use aws_lc_rs::{encoding::AsDer, hmac};
use base64::Engine;
use base64::engine::general_purpose::{STANDARD, URL_SAFE_NO_PAD};
use jsonwebtoken::Algorithm;
use serde_json::{Value, json};

use super::keyset::KeySet;
use super::token::{Claims, Fault, rules, verify};
use super::{KeySource, TokenSettings};

pub(super) const SECRET: &str = "0123456789abcdef0123456789abcdef";
const ISSUER: &str = "https://issuer.example";
const AUDIENCE: &str = "sms-outbox";

/// Keys of every kind, made once.
pub(super) struct Keys {
    pub(super) rsa: RsaKeyPair,
    pub(super) p256: EcdsaKeyPair,
    pub(super) p384: EcdsaKeyPair,
    pub(super) ed: Ed25519KeyPair,
}

pub(super) fn keys() -> &'static Keys {
    static KEYS: OnceLock<Keys> = OnceLock::new();
    KEYS.get_or_init(|| Keys {
        rsa: RsaKeyPair::generate(KeySize::Rsa2048).expect("a key"),
        p256: EcdsaKeyPair::generate(&ECDSA_P256_SHA256_FIXED_SIGNING).expect("a key"),
        p384: EcdsaKeyPair::generate(&ECDSA_P384_SHA384_FIXED_SIGNING).expect("a key"),
        ed: Ed25519KeyPair::generate().expect("a key"),
    })
}

/// With what a token is signed, whatever its header says.
pub(super) enum Signer<'a> {
    Hmac(&'a [u8]),
    Rsa,
    RsaPss,
    P256,
    P384,
    Ed,
    Nothing,
}

pub(super) fn b64(bytes: impl AsRef<[u8]>) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// A compact token of these very texts.
pub(super) fn token(header: &str, claims: &str, signer: &Signer<'_>) -> String {
    sealed(&format!("{}.{}", b64(header), b64(claims)), signer)
}

/// The signature behind what is signed.
pub(super) fn sealed(message: &str, signer: &Signer<'_>) -> String {
    let (keys, random, bytes) = (keys(), SystemRandom::new(), message.as_bytes());
    let rsa = |padding| {
        let mut signature = vec![0; keys.rsa.public_modulus_len()];
        keys.rsa.sign(padding, &random, bytes, &mut signature).expect("signed");
        signature
    };
    let signature = match signer {
        Signer::Hmac(secret) => hmac::sign(&hmac::Key::new(hmac::HMAC_SHA256, secret), bytes).as_ref().to_vec(),
        Signer::Rsa => rsa(&RSA_PKCS1_SHA256),
        Signer::RsaPss => rsa(&RSA_PSS_SHA256),
        Signer::P256 => keys.p256.sign(&random, bytes).expect("signed").as_ref().to_vec(),
        Signer::P384 => keys.p384.sign(&random, bytes).expect("signed").as_ref().to_vec(),
        Signer::Ed => keys.ed.sign(bytes).as_ref().to_vec(),
        Signer::Nothing => Vec::new(),
    };
    format!("{message}.{}", b64(signature))
}

pub(super) fn header(algorithm: &str) -> String {
    json!({"alg": algorithm, "typ": "JWT"}).to_string()
}

pub(super) fn now() -> u64 {
    jsonwebtoken::get_current_timestamp()
}

pub(super) fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "exp": now() + 600, "organization_id": "shop"})
}

/// The claims with one replaced, or with `null` taken away.
pub(super) fn claims_with(name: &str, value: Value) -> String {
    let mut claims = claims();
    if value.is_null() {
        claims.as_object_mut().expect("an object").remove(name);
    } else {
        claims[name] = value;
    }
    claims.to_string()
}

pub(super) fn jwk(signer: &Signer<'_>) -> Value {
    let point = |key: &EcdsaKeyPair, curve: &str| {
        let point = &key.public_key().as_ref()[1..];
        let (x, y) = point.split_at(point.len() / 2);
        json!({"kty": "EC", "crv": curve, "x": b64(x), "y": b64(y)})
    };
    match signer {
        Signer::Rsa | Signer::RsaPss => {
            let public = keys().rsa.public_key();
            let number = |number: &aws_lc_rs::io::Positive<'_>| b64(number.big_endian_without_leading_zero());
            json!({"kty": "RSA", "n": number(&public.modulus()), "e": number(&public.exponent())})
        }
        Signer::P256 => point(&keys().p256, "P-256"),
        Signer::P384 => point(&keys().p384, "P-384"),
        Signer::Ed => json!({"kty": "OKP", "crv": "Ed25519", "x": b64(keys().ed.public_key().as_ref())}),
        Signer::Hmac(secret) => json!({"kty": "oct", "k": b64(secret)}),
        Signer::Nothing => json!({}),
    }
}

/// A JWK with more fields.
pub(super) fn jwk_with(signer: &Signer<'_>, more: Value) -> Value {
    let mut key = jwk(signer);
    key.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
    key
}

pub(super) fn jwks(keys: &[Value]) -> String {
    json!({ "keys": keys }).to_string()
}

/// The RSA public key as a PEM file has it.
pub(super) fn rsa_pem() -> String {
    let der = keys().rsa.public_key().as_der().expect("encoded");
    let text = STANDARD.encode(der.as_ref());
    let lines: Vec<&str> = text.as_bytes().chunks(64).map(|line| std::str::from_utf8(line).expect("ASCII")).collect();
    format!("-----BEGIN PUBLIC KEY-----\n{}\n-----END PUBLIC KEY-----\n", lines.join("\n"))
}

pub(super) fn settings_of(algorithms: &[Algorithm]) -> TokenSettings {
    TokenSettings {
        source: KeySource::Secret("/nowhere".into()),
        algorithms: algorithms.to_vec(),
        issuers: vec![ISSUER.to_owned()],
        audiences: vec![AUDIENCE.to_owned(), "other-name".to_owned()],
        leeway: Duration::from_secs(5),
    }
}

/// Verifies by a secret.
pub(super) fn by_secret(token: &str) -> Result<Claims, Fault> {
    let keys = KeySet::secrets(SECRET, &[Algorithm::HS256]).expect("a good secret");
    verify(token, &keys, &rules(&settings_of(&[Algorithm::HS256])))
}

/// Verifies by public keys.
pub(super) fn by_keys(set: &str, algorithms: &[Algorithm], token: &str) -> Result<Claims, Fault> {
    let (keys, _) = KeySet::public(set, algorithms).expect("good keys");
    verify(token, &keys, &rules(&settings_of(algorithms)))
}

/// Why a token signed with the right secret is refused for its claims.
pub(super) fn fault_of_claims(claims: &str) -> Option<Fault> {
    by_secret(&token(&header("HS256"), claims, &Signer::Hmac(SECRET.as_bytes()))).err()
}

/// Why a token signed with the right secret is refused for its header.
pub(super) fn fault_of_header(header: &str) -> Option<Fault> {
    by_secret(&token(header, &claims().to_string(), &Signer::Hmac(SECRET.as_bytes()))).err()
}
