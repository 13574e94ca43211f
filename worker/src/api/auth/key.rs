//! The header `Authorization`: a key bare or after `Bearer`, a token after `Bearer`.

use sha2::{Digest, Sha256};

/// What keys begin with, so that they are told from tokens, and found by scanners of leaked secrets.
const PREFIX: &str = "smsk_";
const ID_LENGTH: usize = 12;
const SECRET_LENGTH: usize = 64;
const SCHEME: &str = "bearer";

/// What a header holds.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Credential<'a> {
    Key(&'a str),
    Token(&'a str),
}

/// Tells a key from a token. Any other scheme, and a bare text that is no key, is no credential.
pub(super) fn credential(header: &[u8]) -> Option<Credential<'_>> {
    let header = std::str::from_utf8(header).ok()?.trim_matches(' ');
    if header.starts_with(PREFIX) {
        return Some(Credential::Key(header));
    }
    let (scheme, text) = header.split_once(' ')?;
    if !scheme.eq_ignore_ascii_case(SCHEME) {
        return None;
    }
    let text = text.trim_matches(' ');
    Some(if text.starts_with(PREFIX) { Credential::Key(text) } else { Credential::Token(text) })
}

/// The id of a key and the digest of the whole of it. What does not look like a key is not worth a look-up of its own.
pub(super) fn read(key: &str) -> Option<(String, [u8; 32])> {
    let (id, secret) = key.strip_prefix(PREFIX)?.split_once('_')?;
    let id_fits = id.len() == ID_LENGTH && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    let secret_fits = secret.len() == SECRET_LENGTH && secret.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'));
    (id_fits && secret_fits).then(|| (id.to_owned(), Sha256::digest(key.as_bytes()).into()))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key() -> String {
        format!("smsk_0123456789az_{}", "0f".repeat(32))
    }

    #[test]
    fn a_key_is_taken_bare_and_after_bearer() {
        let key = key();
        for header in [key.clone(), format!("Bearer {key}"), format!("bEARER   {key} "), format!(" {key}")] {
            assert_eq!(credential(header.as_bytes()), Some(Credential::Key(&key)), "{header}");
        }
        assert_eq!(credential(b"Bearer a.b.c"), Some(Credential::Token("a.b.c")));
    }

    #[test]
    fn what_is_neither_is_no_credential() {
        let others: [&[u8]; 8] =
            [b"", b"Bearer", b"a.b.c", b"Basic YTpi", b"Bearer\ta.b.c", b"Token smsk_", b"\xff\xfe", b"Bearers a.b.c"];
        for header in others {
            assert_eq!(credential(header), None, "{}", String::from_utf8_lossy(header));
        }
    }

    #[test]
    fn the_digest_is_of_the_whole_key() {
        let (id, digest) = read(&key()).expect("a key");
        assert_eq!(id, "0123456789az");
        assert_eq!(digest, <[u8; 32]>::from(Sha256::digest(key().as_bytes())));
        assert_ne!(read(&key().replace("9az_", "9ab_")).expect("another").1, digest);
    }

    #[test]
    fn what_has_not_the_form_of_a_key_is_refused() {
        let long = format!("smsk_0123456789az_{}", "0f".repeat(500_000));
        let cases = [
            "smsk_",
            "smsk__",
            "smsk_0123456789az",
            "smsk_0123456789az_",
            &key().replace("0f", "0F"),
            &key().replace("0f", "0g"),
            &key().replace("az_", "aZ_"),
            &key().replace("az_", "a'_"),
            &key()[..81],
            &format!("{}0", key()),
            &format!("{} x", key()),
            &long,
        ];
        for case in cases {
            assert_eq!(read(case), None, "{}", &case[..case.len().min(100)]);
        }
    }
}
