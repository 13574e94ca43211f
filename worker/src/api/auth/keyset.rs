//! The keys that sign tokens, out of the text of a file: shared secrets, a JWK set, or public keys in PEM.

use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jsonwebtoken::jwk::{AlgorithmParameters, EllipticCurve, Jwk, KeyOperations, PublicKeyUse};
use jsonwebtoken::{Algorithm, DecodingKey};
use serde_json::Value;

/// More would let a token without `kid` buy that many verifications.
const MOST_KEYS: usize = 32;
/// 2048 bits, below which RSA is not verified at all.
const LEAST_MODULUS_BYTES: usize = 256;
/// A secret of fewer different characters was typed, not drawn.
const LEAST_DIFFERENT_BYTES: usize = 8;
const PEM_START: &str = "-----BEGIN ";

/// Why the text of a file gives no keys. Never quotes it.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyFault {
    #[error("it holds no secret: write at least 32 random characters, such as those of: openssl rand -hex 32")]
    NoSecret,
    #[error(
        "the secret of line {line} has {found} bytes, {algorithm} needs {least}: write those of openssl rand -hex 64"
    )]
    ShortSecret { line: usize, found: usize, least: usize, algorithm: String },
    #[error(
        "the secret of line {line} repeats a few characters: write a random one, such as that of: openssl rand -hex 32"
    )]
    WeakSecret { line: usize },
    #[error("it holds a key in PEM, which is no secret: name it by --jwt-jwks-file")]
    PemAsSecret,
    #[error("it is neither a JWK set ({{\"keys\":[…]}}) nor public keys in PEM")]
    NotKeys,
    #[error("it holds private keys: publish and name the public ones alone")]
    PrivateKeys,
    #[error("it holds symmetric keys (kty oct): name a shared secret by --jwt-secret-file")]
    SymmetricKeys,
    #[error("it holds {found} keys, the most is {MOST_KEYS}")]
    TooManyKeys { found: usize },
    #[error("none of its {found} keys can be used with --jwt-algorithms: {}", skipped.join("; "))]
    NoUsableKey { found: usize, skipped: Vec<String> },
}

/// One key with the algorithms that may be used with it.
struct Key {
    id: Option<String>,
    algorithms: Vec<Algorithm>,
    decoding: DecodingKey,
}

/// All keys of a file.
#[derive(Default)]
pub(super) struct KeySet {
    keys: Vec<Key>,
}

/// How many, and nothing else of them.
impl std::fmt::Debug for KeySet {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "KeySet({})", self.keys.len())
    }
}

impl KeySet {
    pub(super) fn len(&self) -> usize {
        self.keys.len()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.keys.is_empty()
    }

    /// The keys that a token may be signed with. `kid` is compared and nothing else; keys without an id fit any.
    pub(super) fn candidates(&self, kid: Option<&str>, algorithm: Algorithm) -> impl Iterator<Item = &DecodingKey> {
        let named = move |key: &&Key| match (kid, &key.id) {
            (Some(kid), Some(id)) => kid == id,
            _ => true,
        };
        self.keys.iter().filter(named).filter(move |key| key.algorithms.contains(&algorithm)).map(|key| &key.decoding)
    }

    /// Shared secrets, one a line, so that the new one can stand beside the old while sessions of the old one last.
    pub(super) fn secrets(text: &str, allowed: &[Algorithm]) -> Result<Self, KeyFault> {
        if text.contains(PEM_START) {
            return Err(KeyFault::PemAsSecret);
        }
        let mut keys = Vec::new();
        for (line, secret) in text.lines().enumerate().map(|(n, line)| (n + 1, line.trim().as_bytes())) {
            if secret.is_empty() {
                continue;
            }
            // RFC 7518, 3.2: a key at least as long as the hash.
            for algorithm in allowed {
                let least = hash_bytes(*algorithm);
                if secret.len() < least {
                    let algorithm = format!("{algorithm:?}");
                    return Err(KeyFault::ShortSecret { line, found: secret.len(), least, algorithm });
                }
            }
            let mut different = secret.to_vec();
            different.sort_unstable();
            different.dedup();
            if different.len() < LEAST_DIFFERENT_BYTES {
                return Err(KeyFault::WeakSecret { line });
            }
            keys.push(Key { id: None, algorithms: allowed.to_vec(), decoding: DecodingKey::from_secret(secret) });
        }
        match keys.len() {
            0 => Err(KeyFault::NoSecret),
            found if found > MOST_KEYS => Err(KeyFault::TooManyKeys { found }),
            _ => Ok(Self { keys }),
        }
    }

    /// Public keys, as a JWK set or in PEM, and the words on those that were skipped.
    pub(super) fn public(text: &str, allowed: &[Algorithm]) -> Result<(Self, Vec<String>), KeyFault> {
        let pem = text.trim_start().starts_with(PEM_START);
        let read = if pem { pem_keys(text, allowed)? } else { jwk_keys(text, allowed)? };
        let found = read.len();
        if found > MOST_KEYS {
            return Err(KeyFault::TooManyKeys { found });
        }
        let (mut keys, mut skipped) = (Vec::new(), Vec::new());
        for (n, key) in read.into_iter().enumerate() {
            match key {
                Ok(key) => keys.push(key),
                Err(why) => skipped.push(format!("key {}: {why}", n + 1)),
            }
        }
        if keys.is_empty() && found > 0 {
            return Err(KeyFault::NoUsableKey { found, skipped });
        }
        Ok((Self { keys }, skipped))
    }
}

fn hash_bytes(algorithm: Algorithm) -> usize {
    match algorithm {
        Algorithm::HS384 => 48,
        Algorithm::HS512 => 64,
        _ => 32,
    }
}

/// A key, or why it is skipped: RFC 7517 asks to pass over keys that are not understood.
type Read = Result<Key, &'static str>;

const NOT_ALLOWED: &str = "its algorithm is not among --jwt-algorithms";

fn jwk_keys(text: &str, allowed: &[Algorithm]) -> Result<Vec<Read>, KeyFault> {
    let set: Value = serde_json::from_str(text).map_err(|_| KeyFault::NotKeys)?;
    let keys = set.get("keys").and_then(Value::as_array).ok_or(KeyFault::NotKeys)?;
    for key in keys {
        if key["kty"] == "oct" || key.get("k").is_some() {
            return Err(KeyFault::SymmetricKeys);
        }
        if ["d", "p", "q"].iter().any(|part| key.get(part).is_some()) {
            return Err(KeyFault::PrivateKeys);
        }
    }
    Ok(keys.iter().map(|key| jwk_key(key, allowed)).collect())
}

fn jwk_key(key: &Value, allowed: &[Algorithm]) -> Read {
    let key: Jwk = serde_json::from_value(key.clone()).map_err(|_| "not a JWK")?;
    if !matches!(key.common.public_key_use, None | Some(PublicKeyUse::Signature)) {
        return Err("its use is not sig");
    }
    if key.common.key_operations.as_ref().is_some_and(|all| !all.contains(&KeyOperations::Verify)) {
        return Err("its key_ops has no verify");
    }
    let mut algorithms = match &key.algorithm {
        AlgorithmParameters::RSA(rsa) => {
            let modulus = URL_SAFE_NO_PAD.decode(&rsa.n).map_err(|_| "n is not base64url")?;
            if modulus.iter().skip_while(|byte| **byte == 0).count() < LEAST_MODULUS_BYTES {
                return Err("RSA of less than 2048 bits");
            }
            rsa_algorithms()
        }
        AlgorithmParameters::EllipticCurve(ec) => match ec.curve {
            EllipticCurve::P256 => vec![Algorithm::ES256],
            EllipticCurve::P384 => vec![Algorithm::ES384],
            _ => return Err("its curve is not P-256 or P-384"),
        },
        AlgorithmParameters::OctetKeyPair(pair) if pair.curve == EllipticCurve::Ed25519 => vec![Algorithm::EdDSA],
        _ => return Err("its kty or crv is not known"),
    };
    if let Some(pinned) = key.common.key_algorithm {
        let pinned = Algorithm::try_from(pinned).map_err(|_| "its alg is not one of signatures")?;
        algorithms.retain(|algorithm| *algorithm == pinned);
    }
    algorithms.retain(|algorithm| allowed.contains(algorithm));
    if algorithms.is_empty() {
        return Err(NOT_ALLOWED);
    }
    let decoding = DecodingKey::from_jwk(&key).map_err(|_| "its numbers are not base64url")?;
    Ok(Key { id: key.common.key_id, algorithms, decoding })
}

fn pem_keys(text: &str, allowed: &[Algorithm]) -> Result<Vec<Read>, KeyFault> {
    let blocks: Vec<String> = text.split(PEM_START).skip(1).map(|rest| format!("{PEM_START}{rest}")).collect();
    if blocks.iter().any(|block| block.lines().next().is_some_and(|line| line.contains("PRIVATE KEY"))) {
        return Err(KeyFault::PrivateKeys);
    }
    Ok(blocks.iter().map(|block| pem_key(block.as_bytes(), allowed)).collect())
}

fn pem_key(block: &[u8], allowed: &[Algorithm]) -> Read {
    let (decoding, mut algorithms) = if let Ok(key) = DecodingKey::from_rsa_pem(block) {
        if key.try_get_as_bytes().map_or(0, <[u8]>::len) < LEAST_MODULUS_BYTES {
            return Err("RSA of less than 2048 bits");
        }
        (key, rsa_algorithms())
    } else if let Ok(key) = DecodingKey::from_ed_pem(block) {
        (key, vec![Algorithm::EdDSA])
    } else if let Ok(key) = DecodingKey::from_ec_pem(block) {
        // An uncompressed point: a byte, and two coordinates.
        let algorithms = match key.try_get_as_bytes().map_or(0, <[u8]>::len) {
            65 => vec![Algorithm::ES256],
            97 => vec![Algorithm::ES384],
            _ => return Err("its curve is not P-256 or P-384"),
        };
        (key, algorithms)
    } else {
        return Err("no public key in PEM");
    };
    algorithms.retain(|algorithm| allowed.contains(algorithm));
    if algorithms.is_empty() { Err(NOT_ALLOWED) } else { Ok(Key { id: None, algorithms, decoding }) }
}

fn rsa_algorithms() -> Vec<Algorithm> {
    use Algorithm::{PS256, PS384, PS512, RS256, RS384, RS512};
    vec![RS256, RS384, RS512, PS256, PS384, PS512]
}
