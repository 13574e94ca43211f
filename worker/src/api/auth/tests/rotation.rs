//! From the headers of a request to its caller, with keys in a file.

use std::path::PathBuf;

use axum::http::{HeaderMap, header};
use serde_json::json;

use super::*;
use crate::api::auth::{AuthRefusal, AuthSettings, Authenticator, Caller, ORGANIZATION_HEADER, Scope};

/// A file of this test.
fn file(name: &str, text: &str) -> PathBuf {
    let path = std::env::temp_dir().join(format!("sms-outbox-auth-{name}-{}", std::process::id()));
    std::fs::write(&path, text).expect("the file is written");
    path
}

fn authenticator(source: KeySource, algorithms: &[Algorithm]) -> Authenticator {
    let jwt = TokenSettings { source, ..settings_of(algorithms) };
    Authenticator::new(AuthSettings { jwt: Some(jwt) }).expect("good settings")
}

fn headers(pairs: &[(header::HeaderName, &str)]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for (name, value) in pairs {
        headers.append(name, value.parse().expect("a header's value"));
    }
    headers
}

fn bearer(token: &str) -> HeaderMap {
    headers(&[(header::AUTHORIZATION, &format!("Bearer {token}"))])
}

#[test]
fn headers_become_a_caller() {
    let path = file("caller", SECRET);
    let auth = authenticator(KeySource::Secret(path.clone()), &[Algorithm::HS256]);
    std::fs::remove_file(path).expect("removed");
    let signed = |claims: Value| token(&header("HS256"), &claims.to_string(), &Signer::Hmac(SECRET.as_bytes()));

    let caller = auth.caller(&bearer(&signed(claims())), Scope::Enqueue);
    let shop = Caller { key_id: None, key_digest: None, organization_id: Some("shop".to_owned()) };
    assert_eq!(caller, Ok(shop));
    assert_eq!(auth.caller(&bearer(&signed(claims())), Scope::Operate), Err(AuthRefusal::MissingScope(Scope::Operate)));

    let mut several = claims();
    several["organization_ids"] = json!(["bank", "shop"]);
    let several = format!("Bearer {}", signed(several));
    let asked = |wanted: &str| {
        let pairs = [(header::AUTHORIZATION, several.as_str()), (ORGANIZATION_HEADER, wanted)];
        auth.caller(&headers(&pairs), Scope::Read).map(|caller| caller.organization_id)
    };
    assert_eq!(asked("bank"), Ok(Some("bank".to_owned())));
    assert_eq!(asked(""), Err(AuthRefusal::OrganizationRequired));
    assert_eq!(asked("mint"), Err(AuthRefusal::OrganizationMismatch));

    // The database judges keys, and whether the organization is theirs.
    let key = format!("smsk_0123456789az_{}", "0f".repeat(32));
    for header_value in [key.clone(), format!("Bearer {key}")] {
        let pairs = [(header::AUTHORIZATION, header_value.as_str()), (ORGANIZATION_HEADER, "any")];
        let caller = auth.caller(&headers(&pairs), Scope::Read).expect("to be judged");
        assert_eq!((caller.key_id.as_deref(), caller.organization_id.as_deref()), (Some("0123456789az"), Some("any")));
        assert!(caller.key_digest.is_some() && !format!("{caller:?}").contains("digest"));
    }
}

#[test]
fn anything_else_is_unauthorized() {
    let path = file("else", SECRET);
    let auth = authenticator(KeySource::Secret(path.clone()), &[Algorithm::HS256]);
    std::fs::remove_file(path).expect("removed");
    let good = token(&header("HS256"), &claims().to_string(), &Signer::Hmac(SECRET.as_bytes()));
    let with = |values: &[&str]| {
        let pairs: Vec<_> = values.iter().map(|value| (header::AUTHORIZATION, *value)).collect();
        auth.caller(&headers(&pairs), Scope::Read)
    };
    assert!(with(&[&format!("Bearer {good}")]).is_ok());
    let twice = format!("Bearer {good}");
    let cases: [&[&str]; 9] = [
        &[],
        &[""],
        &["Bearer"],
        &["Bearer "],
        &[&good],
        &[&twice, &twice],
        &[&twice, ""],
        &[&format!("Bearer Bearer {good}")],
        &["Basic c21zOnNtcw=="],
    ];
    for values in cases {
        assert_eq!(with(values), Err(AuthRefusal::Unauthorized), "{values:?}");
    }
    let keys_alone = Authenticator::new(AuthSettings::default()).expect("nothing to read");
    assert_eq!(keys_alone.caller(&bearer(&good), Scope::Read), Err(AuthRefusal::Unauthorized));
}

#[test]
fn keys_rotate_and_can_be_taken_away() {
    let named = |signer: &Signer<'_>, kid: &str| jwk_with(signer, json!({ "kid": kid }));
    let path = file("rotation", &jwks(&[named(&Signer::P256, "old")]));
    let auth = authenticator(KeySource::Jwks(path.clone()), &[Algorithm::ES256, Algorithm::EdDSA]);
    let signed = |algorithm: &str, kid: &str, signer: &Signer<'_>| {
        bearer(&token(&json!({"alg": algorithm, "kid": kid}).to_string(), &claims().to_string(), signer))
    };
    let (old, new) = (signed("ES256", "old", &Signer::P256), signed("EdDSA", "new", &Signer::Ed));
    let verdicts = || (auth.caller(&old, Scope::Read).err(), auth.caller(&new, Scope::Read).err());
    let refused = Some(AuthRefusal::Unauthorized);
    assert_eq!(verdicts(), (None, refused));

    let cases = [
        (jwks(&[named(&Signer::P256, "old"), named(&Signer::Ed, "new")]), (None, None)),
        (jwks(&[named(&Signer::Ed, "new")]), (refused, None)),
        ("{\"keys\":[".to_owned(), (refused, None)),
        (jwks(&[]), (Some(AuthRefusal::Unavailable), Some(AuthRefusal::Unavailable))),
        (jwks(&[named(&Signer::P256, "old")]), (None, refused)),
    ];
    for (text, expected) in cases {
        // As a careful program replaces a file: whole, by renaming.
        let beside = file("rotation-new", &text);
        std::fs::rename(beside, &path).expect("renamed");
        let tokens = auth.tokens.as_ref().expect("tokens are taken");
        tokens.look_now();
        assert_eq!(verdicts(), expected, "{text}");
    }
    std::fs::remove_file(path).expect("removed");
}

#[test]
fn without_usable_keys_there_is_no_start() {
    let start = |source: KeySource| {
        let jwt = TokenSettings { source, ..settings_of(&[Algorithm::ES256]) };
        Authenticator::new(AuthSettings { jwt: Some(jwt) }).expect_err("refused").to_string()
    };
    let missing = start(KeySource::Jwks("/nowhere/keys.json".into()));
    assert!(missing.starts_with("jwt-jwks-file: /nowhere/keys.json cannot be read: No such file"), "{missing}");
    let path = file("empty", &jwks(&[]));
    assert!(start(KeySource::Jwks(path.clone())).contains("neither a JWK set"));
    std::fs::write(&path, "x".repeat(2 << 20)).expect("written");
    assert!(start(KeySource::Jwks(path.clone())).contains("larger than 1 MiB"));
    std::fs::remove_file(path).expect("removed");
}
