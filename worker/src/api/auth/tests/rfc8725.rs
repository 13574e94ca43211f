//! The mistakes that RFC 8725 lists: signatures, keys and claims.

use serde_json::json;

use super::*;

#[test]
fn each_kind_of_key_verifies_its_algorithm() {
    let claims = claims().to_string();
    let kinds = [
        (Algorithm::RS256, "RS256", Signer::Rsa),
        (Algorithm::PS256, "PS256", Signer::RsaPss),
        (Algorithm::ES256, "ES256", Signer::P256),
        (Algorithm::ES384, "ES384", Signer::P384),
        (Algorithm::EdDSA, "EdDSA", Signer::Ed),
    ];
    let all: Vec<Algorithm> = kinds.iter().map(|kind| kind.0).collect();
    let together = jwks(&[jwk(&Signer::Rsa), jwk(&Signer::P256), jwk(&Signer::P384), jwk(&Signer::Ed)]);
    for (algorithm, name, signer) in &kinds {
        let signed = token(&header(name), &claims, signer);
        let alone = jwks(&[jwk_with(signer, json!({"alg": name, "use": "sig", "key_ops": ["verify"]}))]);
        assert!(by_keys(&alone, &[*algorithm], &signed).is_ok(), "{name}");
        assert!(by_keys(&together, &all, &signed).is_ok(), "{name} among others");
        // Signed by another kind of key than the header says.
        for (_, other, signer) in kinds.iter().filter(|kind| kind.1 != *name) {
            let crossed = token(&header(name), &claims, signer);
            assert_eq!(by_keys(&together, &all, &crossed).err(), Some(Fault::Signature), "{name} by {other}");
        }
    }
    assert!(by_secret(&token(&header("HS256"), &claims, &Signer::Hmac(SECRET.as_bytes()))).is_ok());
    assert!(by_keys(&rsa_pem(), &[Algorithm::RS256], &token(&header("RS256"), &claims, &Signer::Rsa)).is_ok());
}

#[test]
fn a_public_key_is_not_a_secret() {
    let public = keys().rsa.public_key();
    let (pem, der) = (rsa_pem(), public.as_der().expect("encoded"));
    let set = jwks(&[jwk(&Signer::Rsa)]);
    let modulus = public.modulus();
    let secrets: [&[u8]; 7] = [
        pem.as_bytes(),
        pem.trim_end().as_bytes(),
        der.as_ref(),
        public.as_ref(),
        set.as_bytes(),
        modulus.big_endian_without_leading_zero(),
        b"",
    ];
    for secret in secrets {
        for name in ["HS256", "RS256"] {
            let forged = token(&header(name), &claims().to_string(), &Signer::Hmac(secret));
            for keys in [&set, &pem] {
                assert!(by_keys(keys, &[Algorithm::RS256], &forged).is_err(), "{name}");
            }
        }
    }
    // Even where both algorithms were allowed, the key knows what it is.
    let forged = token(&header("HS256"), &claims().to_string(), &Signer::Hmac(pem.as_bytes()));
    assert_eq!(by_keys(&pem, &[Algorithm::RS256, Algorithm::HS256], &forged).err(), Some(Fault::UnknownKey));
}

#[test]
fn an_algorithm_that_the_key_excludes_is_refused() {
    let both = [Algorithm::RS256, Algorithm::PS256];
    let set = jwks(&[jwk_with(&Signer::Rsa, json!({"alg": "RS256"}))]);
    let pss = token(&header("PS256"), &claims().to_string(), &Signer::RsaPss);
    assert_eq!(by_keys(&set, &both, &pss).err(), Some(Fault::UnknownKey));
    assert!(by_keys(&jwks(&[jwk(&Signer::Rsa)]), &both, &pss).is_ok());
}

#[test]
fn a_signature_that_is_stripped_changed_or_of_another_text_is_refused() {
    let good = token(&header("HS256"), &claims().to_string(), &Signer::Hmac(SECRET.as_bytes()));
    let parts: Vec<&str> = good.split('.').collect();
    let [head, body, signature] = parts.as_slice() else { panic!("three parts") };
    let other = b64(claims_with("organization_id", json!("bank")));
    let zero = b64([0_u8; 32]);
    let cases = [
        (format!("{head}.{body}."), Fault::Signature),
        (format!("{head}.{body}"), Fault::NotCompact),
        (format!("{head}.{body}.{signature}."), Fault::NotCompact),
        (format!("{head}.{body}.{signature}.{signature}.x"), Fault::NotCompact),
        (format!("{head}..{signature}"), Fault::Signature),
        (format!(".{body}.{signature}"), Fault::Header),
        ("..".to_owned(), Fault::Signature),
        (format!("{head}.{body}.{zero}"), Fault::Signature),
        (format!("{head}.{body}.{}", &signature[..signature.len() - 2]), Fault::Signature),
        (format!("{head}.{body}.{signature}A"), Fault::Signature),
        (format!("{head}.{body}.{signature}="), Fault::Signature),
        (format!("{head}.{body}.{signature}\n"), Fault::Signature),
        (format!("{head}.{other}.{signature}"), Fault::Signature),
        (format!("{head}.{body}.{}", b64(signature)), Fault::Signature),
        (token(&header("HS256"), &claims().to_string(), &Signer::Hmac(b"another secret")), Fault::Signature),
        (token(&header("HS256"), &claims().to_string(), &Signer::Hmac(b"")), Fault::Signature),
    ];
    for (forged, fault) in cases {
        assert_eq!(by_secret(&forged).err(), Some(fault), "{forged}");
    }
    // "Psychic" signatures: zeros, which a broken verifier of ECDSA takes for any text.
    for length in [64, 63, 65, 0, 96] {
        let forged = format!("{}.{body}.{}", b64(header("ES256")), b64(vec![0_u8; length]));
        assert_eq!(by_keys(&jwks(&[jwk(&Signer::P256)]), &[Algorithm::ES256], &forged).err(), Some(Fault::Signature));
    }
}

#[test]
fn times_are_numbers_and_are_kept() {
    let exp = |value: Value| fault_of_claims(&claims_with("exp", value));
    assert_eq!(exp(Value::Null), Some(Fault::Claims), "missing");
    assert_eq!(
        fault_of_claims(&claims().to_string().replace(r#""exp":"#, r#""exp":null,"exp_":"#)),
        Some(Fault::Claims)
    );
    let wrong = [json!("9999999999"), json!(-1), json!(-1e12), json!([9_999_999_999_u64]), json!({}), json!(true)];
    for value in wrong.into_iter().chain([json!(1e300)]) {
        assert_eq!(exp(value.clone()), Some(Fault::Claims), "{value}");
    }
    for over in [json!(0), json!(1), json!(now() - 5), json!(now() - 6), json!(now() - 3600), json!(0.5)] {
        assert_eq!(exp(over.clone()), Some(Fault::Expired), "{over}");
    }
    // RFC 7519 allows a fraction; within the leeway is good.
    for good in [json!(now() as f64 + 60.5), json!(now()), json!(u64::MAX)] {
        assert_eq!(exp(good.clone()), None, "{good}");
    }
    let nbf = |value: Value| fault_of_claims(&claims_with("nbf", value));
    for early in [json!(now() + 60), json!(u64::MAX)] {
        assert_eq!(nbf(early.clone()), Some(Fault::NotYet), "{early}");
    }
    for wrong in [json!("0"), json!(-1), json!([])] {
        assert_eq!(nbf(wrong.clone()), Some(Fault::Claims), "{wrong}");
    }
    assert_eq!(nbf(json!(now())), None);
}

#[test]
fn the_audience_and_the_issuer_are_those_of_this_api() {
    let aud = |value: Value| fault_of_claims(&claims_with("aud", value));
    for good in [json!(AUDIENCE), json!([AUDIENCE]), json!(["x", "other-name"])] {
        assert_eq!(aud(good.clone()), None, "{good}");
    }
    for other in [json!("x"), json!(["x", "y"]), json!([]), json!(""), json!("SMS-OUTBOX"), json!("sms-outbox ")] {
        assert_eq!(aud(other.clone()), Some(Fault::Audience), "{other}");
    }
    for wrong in [Value::Null, json!(1), json!({"sms-outbox": true}), json!([["sms-outbox"]])] {
        assert_eq!(aud(wrong.clone()), Some(Fault::Claims), "{wrong}");
    }
    let iss = |value: Value| fault_of_claims(&claims_with("iss", value));
    for other in [json!("https://attacker.example"), json!(""), json!(format!("{ISSUER}/"))] {
        assert_eq!(iss(other.clone()), Some(Fault::Issuer), "{other}");
    }
    for wrong in [Value::Null, json!([ISSUER]), json!([ISSUER, "https://attacker.example"]), json!(1)] {
        assert_eq!(iss(wrong.clone()), Some(Fault::Claims), "{wrong}");
    }
}

#[test]
fn claims_that_stand_twice_or_have_other_types_are_refused() {
    let base = claims().to_string();
    let with = |more: &str| fault_of_claims(&format!("{{{more},{}", &base[1..]));
    let more = [
        r#""exp":9999999999"#,
        r#""iss":"https://attacker.example""#,
        r#""aud":"sms-outbox""#,
        r#""organization_id":"bank""#,
        r#""organization_ids":"bank""#,
        r#""organization_ids":["a",1]"#,
        r#""organization_ids":["a"],"organization_ids":["bank"]"#,
        r#""scope":["enqueue"]"#,
        r#""scope":"read","scope":"operate""#,
        r#""scope":{}"#,
    ];
    for more in more {
        assert_eq!(with(more), Some(Fault::Claims), "{more}");
    }
    for body in ["", "[]", "null", "1", "\"a\"", "{", "{}", "not JSON"] {
        assert_eq!(fault_of_claims(body), Some(Fault::Claims), "{body}");
    }
    let deep = format!(r#"{{"x":{}{},{}"#, "[".repeat(1000), "]".repeat(1000), &base[1..]);
    assert_eq!(fault_of_claims(&deep), None, "what means nothing here is passed over, however deep");
    // A token in a token.
    let inner = token(&header("HS256"), &base, &Signer::Hmac(SECRET.as_bytes()));
    assert_eq!(fault_of_claims(&inner), Some(Fault::Claims));
    assert_eq!(with(r#""sub":"u1","iat":1,"jti":"x","email":"a@b.c","custom":{"a":[1,2]}"#), None);
}

#[test]
fn a_huge_token_is_refused_unread() {
    let padded = |bytes: usize| claims_with("padding", json!("x".repeat(bytes)));
    assert_eq!(fault_of_claims(&padded(5000)), None);
    for bytes in [7000, 1_000_000] {
        assert_eq!(fault_of_claims(&padded(bytes)), Some(Fault::TooLong), "{bytes}");
    }
    assert_eq!(by_secret(&".".repeat(1_000_000)).err(), Some(Fault::TooLong));
    assert_eq!(by_secret(&".".repeat(8000)).err(), Some(Fault::NotCompact));
}

#[test]
fn scopes_are_words() {
    use crate::api::auth::Scope::{Enqueue, Operate, Read};
    let scopes = |value: Value| {
        let claims = claims_with("scope", value);
        let signed = token(&header("HS256"), &claims, &Signer::Hmac(SECRET.as_bytes()));
        by_secret(&signed).expect("a good token").scopes()
    };
    assert_eq!(scopes(Value::Null), [Enqueue, Read]);
    assert_eq!(scopes(json!("operate profile read")), [Read, Operate]);
    for none in ["", " ", "Enqueue", "enqueue,read", "enqueue:all", "admin"] {
        assert_eq!(scopes(json!(none)), [], "{none}");
    }
}
