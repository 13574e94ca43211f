//! Whatever comes is refused without a panic.

use axum::http::{HeaderMap, HeaderValue, header};
use proptest::prelude::*;

use super::*;
use crate::api::auth::{AuthSettings, Authenticator, ORGANIZATION_HEADER, Scope};

proptest! {
    #[test]
    fn bytes_are_no_token(text in ".{0,200}", parts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..60), 0..6)) {
        prop_assert!(by_secret(&text).is_err());
        let dotted = parts.iter().map(b64).collect::<Vec<_>>().join(".");
        prop_assert!(by_secret(&dotted).is_err());
        prop_assert!(by_keys(&jwks(&[jwk(&Signer::Ed)]), &[Algorithm::EdDSA], &dotted).is_err());
    }

    /// Signed, so that what is behind the signature is reached.
    #[test]
    fn signed_bytes_are_no_claims(body in prop::collection::vec(any::<u8>(), 0..200)) {
        let message = format!("{}.{}", b64(header("HS256")), b64(body));
        prop_assert!(by_secret(&sealed(&message, &Signer::Hmac(SECRET.as_bytes()))).is_err());
    }

    /// One changed byte of a good token.
    #[test]
    fn a_changed_token_is_refused(place in any::<prop::sample::Index>(), byte in 0x21_u8..0x7f) {
        let good = token(&header("HS256"), &claims().to_string(), &Signer::Hmac(SECRET.as_bytes()));
        let mut bytes = good.clone().into_bytes();
        let place = place.index(bytes.len());
        prop_assume!(bytes[place] != byte);
        bytes[place] = byte;
        prop_assert!(by_secret(std::str::from_utf8(&bytes).expect("ASCII")).is_err());
    }

    #[test]
    fn headers_never_panic(
        credential in prop::collection::vec(any::<u8>(), 0..200),
        prefix in prop::sample::select(vec!["", "Bearer ", "smsk_", "Bearer smsk_0123456789az_"]),
        organization in prop::collection::vec(any::<u8>(), 0..80),
    ) {
        let mut headers = HeaderMap::new();
        if let Ok(value) = HeaderValue::from_bytes(&[prefix.as_bytes(), &credential].concat()) {
            headers.insert(header::AUTHORIZATION, value);
        }
        if let Ok(value) = HeaderValue::from_bytes(&organization) {
            headers.insert(ORGANIZATION_HEADER, value);
        }
        let keys_alone = Authenticator::new(AuthSettings::default()).expect("no file to read");
        prop_assert!(keys_alone.caller(&headers, Scope::Read).is_err());
    }

    #[test]
    fn key_files_never_panic(text in ".{0,300}", value in any::<u32>()) {
        let _ = KeySet::secrets(&text, &[Algorithm::HS256]);
        let _ = KeySet::public(&text, &[Algorithm::RS256]);
        let _ = KeySet::public(&format!("-----BEGIN {text}"), &[Algorithm::RS256]);
        let _ = KeySet::public(&jwks(&[json!({"kty": text, "n": value, "e": text}), json!(value), json!(text)]), &[Algorithm::RS256]);
    }
}
