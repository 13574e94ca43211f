//! What the header of a token may ask for.

use serde_json::json;

use super::*;

#[test]
fn good_headers_are_taken() {
    let good = [
        r#"{"alg":"HS256"}"#,
        r#"{"alg":"HS256","typ":"JWT"}"#,
        r#"{"alg":"HS256","typ":"at+jwt"}"#,
        r#"{"alg":"HS256","typ":"application/at+JWT"}"#,
        r#"{"typ":"jwt","alg":"HS256","kid":"any","nonce":"x","unknown":{"a":[1]}}"#,
    ];
    for header in good {
        assert_eq!(fault_of_header(header), None, "{header}");
    }
}

#[test]
fn none_is_no_algorithm_in_any_spelling() {
    let spellings =
        ["none", "None", "NONE", "nOnE", "none ", " none", "", "null", "n\\u006fne", "none\\u0000", "\\u0000none"];
    for spelling in spellings {
        let header = format!(r#"{{"alg":"{spelling}","typ":"JWT"}}"#);
        let claims = claims().to_string();
        for signer in [Signer::Nothing, Signer::Hmac(b""), Signer::Hmac(SECRET.as_bytes())] {
            let signed = token(&header, &claims, &signer);
            let fault = by_secret(&signed).expect_err("none is refused");
            assert!(matches!(fault, Fault::Algorithm | Fault::Signature), "{header}: {fault}");
        }
        // Two parts, as RFC 7519 writes an unsecured token without its last dot.
        let unsigned = format!("{}.{}", b64(&header), b64(&claims));
        assert_eq!(by_secret(&unsigned).err(), Some(Fault::NotCompact));
    }
}

#[test]
fn algorithms_that_are_not_pinned_are_refused() {
    for name in ["HS384", "HS512", "RS256", "PS256", "ES256", "EdDSA", "hs256", "HS256 ", "HS-256", "ES256K", "dir"] {
        assert_eq!(fault_of_header(&header(name)), Some(Fault::Algorithm), "{name}");
    }
}

#[test]
fn a_header_of_other_types_or_with_a_field_twice_is_refused() {
    let bad = [
        "",
        "{",
        "[]",
        "\"HS256\"",
        "{}",
        r#"{"typ":"JWT"}"#,
        r#"{"alg":null}"#,
        r#"{"alg":["HS256"]}"#,
        r#"{"alg":256}"#,
        r#"{"alg":"none","alg":"HS256"}"#,
        r#"{"alg":"HS256","alg":"none"}"#,
        r#"{"alg":"HS256","kid":1}"#,
        r#"{"alg":"HS256","kid":"a","kid":"b"}"#,
        r#"{"alg":"HS256","kid":["a"]}"#,
        r#"{"alg":"HS256","typ":{}}"#,
        r#"{"alg":"HS256"} "x""#,
        "\u{feff}{\"alg\":\"HS256\"}",
    ];
    for header in bad {
        assert_eq!(fault_of_header(header), Some(Fault::Header), "{header}");
    }
    let deep = format!(r#"{{"alg":"HS256","x":{}{}}}"#, "[".repeat(1000), "]".repeat(1000));
    assert!(fault_of_header(&deep).is_some());
}

#[test]
fn extensions_that_must_be_understood_are_refused() {
    for crit in [r#"["exp"]"#, r#"["b64"]"#, "[]", "null", "true", r#"["http://example.com/UNDEFINED"]"#] {
        let header = format!(r#"{{"alg":"HS256","crit":{crit},"http://example.com/UNDEFINED":true}}"#);
        assert_eq!(fault_of_header(&header), Some(Fault::Critical), "{header}");
    }
}

#[test]
fn an_unencoded_compressed_encrypted_or_nested_payload_is_refused() {
    for more in [r#""b64":false"#, r#""b64":true"#, r#""zip":"DEF""#, r#""enc":"A128GCM""#, r#""cty":"JWT""#] {
        let header = format!(r#"{{"alg":"HS256",{more}}}"#);
        assert_eq!(fault_of_header(&header), Some(Fault::NotClaims), "{header}");
    }
    // RFC 7797: the claims stand there as they are.
    let message = format!("{}.{}", b64(header("HS256")), claims());
    assert!(by_secret(&sealed(&message, &Signer::Hmac(SECRET.as_bytes()))).is_err());
}

#[test]
fn another_kind_of_token_is_no_session() {
    for typ in ["logout+jwt", "dpop+jwt", "secevent+jwt", "id+jwt", "JWE", "", "jwt ", "text/jwt"] {
        let header = json!({"alg": "HS256", "typ": typ}).to_string();
        assert_eq!(fault_of_header(&header), Some(Fault::Type), "{header}");
    }
}

#[test]
fn a_kid_is_only_compared() {
    let set = jwks(&[jwk_with(&Signer::P256, json!({"kid": "a"}))]);
    let with = |kid: &str| {
        let header = json!({"alg": "ES256", "kid": kid}).to_string();
        by_keys(&set, &[Algorithm::ES256], &token(&header, &claims().to_string(), &Signer::P256)).err()
    };
    assert_eq!(with("a"), None);
    let tricks = [
        "",
        "A",
        "a ",
        "a\0",
        "b",
        "../../../../dev/null",
        "/proc/sys/kernel/randomize_va_space",
        "file:///etc/passwd",
        "http://attacker.example/key",
        "a' OR '1'='1",
        "x' UNION SELECT 'secret' --",
        "a|id",
        "${a}",
        "0",
        "-1",
        "__proto__",
        &"a".repeat(4000),
    ];
    for kid in tricks {
        assert_eq!(with(kid), Some(Fault::UnknownKey), "{}", &kid[..kid.len().min(60)]);
    }
}

#[test]
fn keys_that_a_token_brings_along_are_not_read() {
    // Signed with the Ed25519 key, which is not in the set but named in every way.
    let set = jwks(&[jwk_with(&Signer::P256, json!({"kid": "a"}))]);
    let allowed = [Algorithm::ES256, Algorithm::EdDSA];
    for more in [
        json!({"jwk": jwk(&Signer::Ed)}),
        json!({"jku": "http://127.0.0.1:9/keys"}),
        json!({"x5u": "http://127.0.0.1:9/key.pem"}),
        json!({"x5c": [STANDARD.encode(keys().ed.public_key().as_ref())]}),
    ] {
        let mut header = json!({"alg": "EdDSA", "kid": "a"});
        header.as_object_mut().expect("an object").extend(more.as_object().expect("an object").clone());
        let signed = token(&header.to_string(), &claims().to_string(), &Signer::Ed);
        assert_eq!(by_keys(&set, &allowed, &signed).err(), Some(Fault::UnknownKey), "{header}");
    }
    // And they do not disturb a token that is signed with a known key.
    let header = json!({"alg": "ES256", "jwk": jwk(&Signer::Ed), "jku": "http://127.0.0.1:9/keys"}).to_string();
    assert!(by_keys(&set, &allowed, &token(&header, &claims().to_string(), &Signer::P256)).is_ok());
}
