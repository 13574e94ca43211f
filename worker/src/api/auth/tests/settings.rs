//! Unsafe settings are refused at the start.

use clap::{Args, FromArgMatches};
use serde_json::json;

use super::*;
use crate::api::auth::keyset::KeyFault;
use crate::api::auth::{AuthArgs, AuthSettings};

fn settings(flags: &[&str]) -> Result<AuthSettings, String> {
    let command = AuthArgs::augment_args(clap::Command::new("api"));
    let matches = command.try_get_matches_from([&["api"], flags].concat()).map_err(|error| error.to_string())?;
    AuthArgs::from_arg_matches(&matches).map_err(|e| e.to_string())?.settings().map_err(|error| error.to_string())
}

const NAMES: [&str; 4] = ["--jwt-issuer", "https://a.example,https://b.example", "--jwt-audience", "sms"];

#[test]
fn flags_become_settings() {
    assert!(settings(&[]).expect("keys alone").jwt.is_none());
    let secret = settings(&[&["--jwt-secret-file", "s"], &NAMES[..]].concat()).expect("good").jwt.expect("tokens");
    assert_eq!(secret.source, KeySource::Secret("s".into()));
    assert_eq!(secret.algorithms, [Algorithm::HS256]);
    assert_eq!(secret.issuers, ["https://a.example", "https://b.example"]);
    assert_eq!(secret.leeway, Duration::from_secs(5));
    let more = ["--jwt-jwks-file", "k", "--jwt-algorithms", "PS256,ES384", "--jwt-leeway", "0s"];
    let public = settings(&[&more, &NAMES[..]].concat()).expect("good").jwt.expect("tokens");
    assert_eq!(public.algorithms, [Algorithm::PS256, Algorithm::ES384]);
    let empty = ["--jwt-secret-file", "", "--jwt-jwks-file", "", "--jwt-issuer", "", "--jwt-audience", ""];
    assert!(settings(&empty).expect("an empty value is not set").jwt.is_none());
}

#[test]
fn what_does_not_fit_together_is_refused() {
    let cases: [(&[&str], &str); 12] = [
        (&["--jwt-secret-file", "s", "--jwt-jwks-file", "k", NAMES[0], "i", NAMES[2], "a"], "name one"),
        (&["--jwt-secret-file", "s", NAMES[2], "a"], "jwt-issuer: missing"),
        (&["--jwt-secret-file", "s", NAMES[0], "i"], "jwt-audience: missing"),
        (&["--jwt-jwks-file", "k", NAMES[0], "", NAMES[2], "a"], "jwt-issuer: missing"),
        (&[NAMES[0], "i"], "jwt-issuer: set, but no keys"),
        (&[NAMES[2], "a"], "jwt-audience: set, but no keys"),
        (&["--jwt-algorithms", "RS256"], "jwt-algorithms: set, but no keys"),
        (
            &["--jwt-secret-file", "s", "--jwt-algorithms", "HS256,RS256", NAMES[0], "i", NAMES[2], "a"],
            "RS256 is not for",
        ),
        (&["--jwt-jwks-file", "k", "--jwt-algorithms", "HS256", NAMES[0], "i", NAMES[2], "a"], "HS256 is not for"),
        (&["--jwt-algorithms", "none"], "write HS256"),
        (&["--jwt-leeway", "1h"], "write 0s to 2m"),
        (&["--jwt-secret-file", "s", "--jwt-algorithms", "", NAMES[0], "i", NAMES[2], "a"], "write HS256"),
    ];
    for (flags, expected) in cases {
        let error = settings(flags).expect_err("refused");
        assert!(error.contains(expected), "{flags:?}: {error}");
    }
}

#[test]
fn weak_secrets_are_refused_without_being_shown() {
    let refused = |text: &str, algorithm| {
        let fault = KeySet::secrets(text, &[algorithm]).expect_err("refused");
        assert!(text.trim().is_empty() || !fault.to_string().contains(text.trim()), "{fault}");
        fault
    };
    assert_eq!(refused("\n \n", Algorithm::HS256), KeyFault::NoSecret);
    assert!(matches!(
        refused("0123456789abcdef0123456789abcde\n", Algorithm::HS256),
        KeyFault::ShortSecret { found: 31, .. }
    ));
    assert!(matches!(refused(SECRET, Algorithm::HS384), KeyFault::ShortSecret { least: 48, .. }));
    assert!(matches!(refused(SECRET, Algorithm::HS512), KeyFault::ShortSecret { least: 64, .. }));
    assert_eq!(refused(&"ab12".repeat(20), Algorithm::HS256), KeyFault::WeakSecret { line: 1 });
    assert_eq!(refused(&rsa_pem(), Algorithm::HS256), KeyFault::PemAsSecret);
    assert_eq!(KeySet::secrets(&format!("{SECRET}\n\n{SECRET}x\n"), &[Algorithm::HS256]).expect("two").len(), 2);
}

#[test]
fn key_sets_that_would_weaken_are_refused() {
    let refused = |text: &str| KeySet::public(text, &[Algorithm::RS256, Algorithm::ES256]).expect_err("refused");
    for text in ["", "{}", "[]", r#"{"keys":{}}"#, r#"{"keys":"#, "hello"] {
        assert_eq!(refused(text), KeyFault::NotKeys, "{text}");
    }
    assert_eq!(refused(&jwks(&[jwk(&Signer::Hmac(SECRET.as_bytes()))])), KeyFault::SymmetricKeys);
    assert_eq!(refused(&jwks(&[jwk_with(&Signer::P256, json!({"d": "AA"}))])), KeyFault::PrivateKeys);
    assert_eq!(refused("-----BEGIN PRIVATE KEY-----\nAA\n-----END PRIVATE KEY-----\n"), KeyFault::PrivateKeys);
    assert_eq!(refused(&jwks(&vec![jwk(&Signer::P256); 33])), KeyFault::TooManyKeys { found: 33 });
}

#[test]
fn keys_that_are_not_for_this_are_skipped_and_the_reason_is_told() {
    let short = json!({"kty": "RSA", "n": b64([1_u8; 128]), "e": "AQAB"});
    let cases = [
        (jwk_with(&Signer::Rsa, json!({"use": "enc"})), "use is not sig"),
        (jwk_with(&Signer::Rsa, json!({"key_ops": ["encrypt"]})), "no verify"),
        (jwk_with(&Signer::Rsa, json!({"alg": "RSA-OAEP"})), "not one of signatures"),
        (jwk_with(&Signer::Rsa, json!({"alg": "ES256"})), "not among"),
        (jwk(&Signer::Ed), "not among"),
        (jwk_with(&Signer::P256, json!({"crv": "P-521"})), "not P-256 or P-384"),
        (jwk_with(&Signer::P256, json!({"crv": "secp256k1"})), "not known"),
        (short, "less than 2048"),
        (json!({"kty": "future"}), "not known"),
        (json!(1), "not a JWK"),
    ];
    for (key, expected) in cases {
        let allowed = [Algorithm::RS256, Algorithm::ES256];
        let Err(KeyFault::NoUsableKey { skipped, .. }) = KeySet::public(&jwks(std::slice::from_ref(&key)), &allowed)
        else {
            panic!("{key} must not be used")
        };
        assert!(skipped[0].contains(expected), "{key}: {skipped:?}");
        let (beside, skipped) = KeySet::public(&jwks(&[key, jwk(&Signer::P256)]), &allowed).expect("one is good");
        assert_eq!((beside.len(), skipped.len()), (1, 1));
    }
}
