//! Sealed credentials: `sealed:v1:<key id>:<base64>`, a random nonce and the text under ChaCha20-Poly1305.
//!
//! What is sealed is tied to its place, that is organization, provider and field: copied into the configuration of
//! another app it does not open.

use std::fmt;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use chacha20poly1305::aead::{Aead, Generate, Key, KeyInit, Payload};
use chacha20poly1305::{ChaCha20Poly1305, Nonce};

/// What every sealed value begins with.
pub const PREFIX: &str = "sealed:v1:";

const NONCE_BYTES: usize = 12;

const KEY_BYTES: usize = 32;

/// Where a credential belongs.
#[derive(Clone, Copy, Debug)]
pub struct Place<'a> {
    /// The organization of the app.
    pub organization: &'a str,
    /// The slug of its provider.
    pub slug: &'a str,
    /// The config field, `secrets.key` for a text within an object.
    pub field: &'a str,
}

impl Place<'_> {
    /// What the seal covers beside the text. None of the parts can contain NUL: the database cannot hold it.
    fn bound(&self, key: &str) -> Vec<u8> {
        [PREFIX, key, self.organization, self.slug, self.field].join("\0").into_bytes()
    }
}

/// Why keys are refused. No text of a key is in it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum KeyError {
    /// A line that is no key.
    #[error(
        "line {0} is no key; write ID:BASE64, an id of 1 to 32 of A-Z a-z 0-9 _ - and 32 bytes in base64, as sms-outbox app seal --new-key prints it"
    )]
    Malformed(usize),
    /// Two keys of one name.
    #[error("line {0} repeats the id of another key; ids must differ")]
    Repeated(usize),
    /// Nothing at all.
    #[error("no key is in it; make one: sms-outbox app seal --new-key")]
    Empty,
}

/// Why a sealed value does not open.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OpenError {
    /// It is not of the form that [`SealingKeys::seal`] writes.
    #[error("is sealed in no form that this version knows")]
    Malformed,
    /// Its key is not among ours.
    #[error("is sealed with the key {0:?}, which is not among the sealing keys given here")]
    UnknownKey(String),
    /// The key is ours, and the value is not what it sealed for this place.
    #[error("does not open: it was changed, sealed for another app, or the key {0:?} is another one here")]
    Refused(String),
}

struct SealingKey {
    id: String,
    cipher: ChaCha20Poly1305,
}

/// The keys: the first one seals, all of them open.
#[derive(Default)]
pub struct SealingKeys(Vec<SealingKey>);

impl fmt::Debug for SealingKeys {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.0.iter().map(|key| &key.id)).finish()
    }
}

impl SealingKeys {
    /// Reads keys, one a line. Empty lines and those that begin with `#` are left out.
    pub fn parse(text: &str) -> Result<Self, KeyError> {
        let mut keys: Vec<SealingKey> = Vec::new();
        for (number, line) in (1..).zip(text.lines()) {
            let line = line.trim();
            if line.is_empty() || line.starts_with('#') {
                continue;
            }
            let key = key(line).ok_or(KeyError::Malformed(number))?;
            if keys.iter().any(|other| other.id == key.id) {
                return Err(KeyError::Repeated(number));
            }
            keys.push(key);
        }
        if keys.is_empty() { Err(KeyError::Empty) } else { Ok(Self(keys)) }
    }

    /// A new key as a line of the file.
    pub fn generate(id: &str) -> String {
        format!("{id}:{}", STANDARD.encode(Key::<ChaCha20Poly1305>::generate()))
    }

    /// Whether there is none, and nothing can be sealed.
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Name of the key that seals.
    pub fn newest(&self) -> Option<&str> {
        self.0.first().map(|key| key.id.as_str())
    }

    /// Seals a text for its place; `None` without a key.
    pub fn seal(&self, place: &Place<'_>, text: &str) -> Option<String> {
        let key = self.0.first()?;
        let nonce = Nonce::generate();
        let payload = Payload { msg: text.as_bytes(), aad: &place.bound(&key.id) };
        // Fails for texts of 256 GiB alone.
        let sealed = key.cipher.encrypt(&nonce, payload).ok()?;
        Some(format!("{PREFIX}{}:{}", key.id, STANDARD.encode([nonce.as_slice(), &sealed].concat())))
    }

    /// The text of a sealed value.
    pub fn open(&self, place: &Place<'_>, sealed: &str) -> Result<String, OpenError> {
        let id = key_id(sealed).ok_or(OpenError::Malformed)?;
        let key = self.0.iter().find(|key| key.id == id).ok_or_else(|| OpenError::UnknownKey(id.to_owned()))?;
        let bytes = sealed.rsplit(':').next().and_then(|text| STANDARD.decode(text).ok()).unwrap_or_default();
        let (nonce, text) = bytes.split_at_checked(NONCE_BYTES).ok_or(OpenError::Malformed)?;
        let nonce = Nonce::try_from(nonce).map_err(|_| OpenError::Malformed)?;
        let payload = Payload { msg: text, aad: &place.bound(id) };
        let refused = || OpenError::Refused(id.to_owned());
        let text = key.cipher.decrypt(&nonce, payload).map_err(|_| refused())?;
        String::from_utf8(text).map_err(|_| refused())
    }
}

/// The name of the key in a sealed value.
pub fn key_id(sealed: &str) -> Option<&str> {
    let (id, _) = sealed.strip_prefix(PREFIX)?.split_once(':')?;
    is_id(id).then_some(id)
}

/// Whether a key may be called so.
pub fn is_id(id: &str) -> bool {
    (1..=32).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte))
}

fn key(line: &str) -> Option<SealingKey> {
    let (id, base64) = line.split_once(':').filter(|(id, _)| is_id(id))?;
    let bytes: [u8; KEY_BYTES] = STANDARD.decode(base64.trim()).ok()?.try_into().ok()?;
    Some(SealingKey { id: id.to_owned(), cipher: ChaCha20Poly1305::new(&bytes.into()) })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HERE: Place<'_> = Place { organization: "shop", slug: "taqnyat-sms", field: "bearer_token" };

    fn keys(ids: &[&str]) -> SealingKeys {
        let lines: Vec<String> = ids.iter().map(|id| SealingKeys::generate(id)).collect();
        SealingKeys::parse(&lines.join("\n")).unwrap()
    }

    proptest! {
        #[test]
        fn what_was_sealed_opens_in_its_place_alone(text in ".{0,300}", other in "[a-z]{1,8}", flip in any::<prop::sample::Index>()) {
            let keys = keys(&["k1"]);
            let sealed = keys.seal(&HERE, &text).unwrap();
            prop_assert!(text.len() < 8 || !sealed.contains(&text));
            prop_assert_eq!(keys.open(&HERE, &sealed), Ok(text.clone()));
            // The same text again looks different.
            prop_assert_ne!(keys.seal(&HERE, &text).unwrap(), sealed.clone());
            for elsewhere in [
                Place { organization: &other, ..HERE },
                Place { slug: &other, ..HERE },
                Place { field: &other, ..HERE },
                // Parts that were moved across their borders.
                Place { organization: "shop\0taqnyat-sms", slug: "bearer_token", field: "" },
            ] {
                prop_assert_eq!(keys.open(&elsewhere, &sealed), Err(OpenError::Refused("k1".to_owned())));
            }
            // One changed character anywhere, the name of the key included.
            let at = flip.index(sealed.len());
            let mut changed = sealed.clone().into_bytes();
            changed[at] = if changed[at] == b'A' { b'B' } else { b'A' };
            let changed = String::from_utf8(changed).unwrap();
            prop_assert!(keys.open(&HERE, &changed).is_err());
        }

        #[test]
        fn no_text_breaks_the_readers(text in ".{0,80}") {
            let keys = keys(&["k1"]);
            let _ = SealingKeys::parse(&text);
            prop_assert!(keys.open(&HERE, &text).is_err());
            let sealed = format!("{PREFIX}k1:{text}");
            prop_assert!(keys.open(&HERE, &sealed).is_err());
        }
    }

    #[test]
    fn the_first_key_seals_and_all_open() {
        let (old, new) = (SealingKeys::generate("2025"), SealingKeys::generate("2026"));
        let before = SealingKeys::parse(&old).unwrap().seal(&HERE, "token").unwrap();
        let both = SealingKeys::parse(&format!("# newest first\n{new}\n\n{old}\n")).unwrap();
        assert_eq!(both.open(&HERE, &before).as_deref(), Ok("token"));
        let after = both.seal(&HERE, "token").unwrap();
        assert_eq!((key_id(&before), key_id(&after)), (Some("2025"), Some("2026")));
        let late = SealingKeys::parse(&new).unwrap();
        assert_eq!(late.open(&HERE, &before), Err(OpenError::UnknownKey("2025".to_owned())));
        // Another key of the same name.
        assert_eq!(keys(&["2026"]).open(&HERE, &after), Err(OpenError::Refused("2026".to_owned())));
        assert_eq!(SealingKeys::default().seal(&HERE, "token"), None);
    }

    #[test]
    fn keys_that_are_none_are_refused_without_showing_them() {
        let good = SealingKeys::generate("a");
        for (text, error) in [
            ("", KeyError::Empty),
            ("# a", KeyError::Empty),
            ("canary", KeyError::Malformed(1)),
            ("k1:canary", KeyError::Malformed(1)),
            ("k1:Y2FuYXJ5", KeyError::Malformed(1)),
            (&format!("{good}\nb b:{}", &good[2..]), KeyError::Malformed(2)),
            (&format!("{good}\n{good}"), KeyError::Repeated(2)),
        ] {
            let refused = SealingKeys::parse(text).unwrap_err();
            assert_eq!(refused, error);
            assert!(!refused.to_string().contains("canary"));
        }
        assert_eq!(format!("{:?}", SealingKeys::parse(&good).unwrap()), "[\"a\"]");
    }
}
