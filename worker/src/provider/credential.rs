//! What stands in the secret fields of an app's configuration, and how the worker comes to the credential itself: at
//! each attempt anew, so that a file that was replaced counts without a restart.

pub mod reference;

use std::fmt;

use serde_json::{Map, Value};

use super::Field;
use super::config::Kind;
use super::seal::{self, OpenError, Place, SealingKeys};
use reference::{Reference, ReferenceError};

/// How a secret field holds its credential. The database says the same of it: `sms_outbox.credentials_held()`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Held<'a> {
    /// Sealed with the key of this name.
    Sealed(&'a str),
    /// `env:NAME` or `file:/path`.
    Reference(Reference<'a>),
    /// As it is.
    Plain,
    /// A template of an object that takes its credential from another field: `Bearer {{ secrets.key }}`.
    Template,
    /// Begins like a sealed value or a reference and is none.
    Malformed,
}

impl<'a> Held<'a> {
    /// What a text of a secret field is.
    pub fn of(text: &'a str, kind: Kind) -> Self {
        if text.starts_with("sealed:") {
            return seal::key_id(text).map_or(Self::Malformed, Self::Sealed);
        }
        match Reference::read(text) {
            Some(Ok(reference)) => Self::Reference(reference),
            Some(Err(())) => Self::Malformed,
            None if kind == Kind::Object && names_a_secret(text) => Self::Template,
            None => Self::Plain,
        }
    }
}

fn names_a_secret(text: &str) -> bool {
    text.split("{{").skip(1).any(|rest| rest.trim_start_matches('-').trim_start().starts_with("secrets."))
}

/// Why an attempt has no credential. It names the field and never a value.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("config field {field:?} {fault}")]
pub struct CredentialError {
    /// The field, `secrets.key` for a text within an object.
    pub field: String,
    /// What is wrong.
    pub fault: Fault,
}

/// What is wrong with a credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Fault {
    /// It is sealed and does not open.
    #[error("{0}; see docs/guides/credentials.md")]
    Sealed(#[from] OpenError),
    /// It refers to what is not to be had.
    #[error("{0}")]
    Reference(#[from] ReferenceError),
    /// It is neither.
    #[error(
        "begins like a sealed value or a reference and is none; write env:NAME or file:/absolute/path, or seal the text"
    )]
    Malformed,
}

/// What the worker needs to come to credentials.
#[derive(Default)]
pub struct Credentials {
    /// The keys that open sealed values.
    pub keys: SealingKeys,
    /// The folders that files may be in.
    pub folders: reference::Folders,
}

impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({:?}, {:?})", self.keys, self.folders)
    }
}

impl Credentials {
    /// The configuration with its credentials in the place of what stands for them.
    pub fn resolve(
        &self,
        organization: &str,
        slug: &str,
        fields: &[Field],
        config: &Value,
    ) -> Result<Value, CredentialError> {
        let mut resolved = config.clone();
        each_secret(fields, &mut resolved, &mut |name, kind, text| {
            let place = Place { organization, slug, field: name };
            let fault = match Held::of(text, kind) {
                Held::Plain | Held::Template => return Ok(()),
                Held::Sealed(_) => self.keys.open(&place, text).map_err(Fault::from),
                Held::Reference(reference) => reference.resolve(&self.folders).map_err(Fault::from),
                Held::Malformed => Err(Fault::Malformed),
            };
            *text = fault.map_err(|fault| CredentialError { field: name.to_owned(), fault })?;
            Ok(())
        })?;
        Ok(resolved)
    }
}

/// What [`seal_config`] did.
#[derive(Debug, Default, PartialEq, Eq)]
pub struct Sealed {
    /// Fields that were plain, and are sealed now.
    pub sealed: Vec<String>,
    /// Fields that were sealed with another key, and are with the first one now.
    pub resealed: Vec<String>,
    /// Fields that are plain still, for want of a key.
    pub plain: Vec<String>,
    /// Secret fields that were changed, whole: what must be written back.
    pub changed: Map<String, Value>,
}

/// Seals what stands plain in secret fields, and what is sealed with another key than the first. References stay.
pub fn seal_config(
    keys: &SealingKeys,
    organization: &str,
    slug: &str,
    fields: &[Field],
    config: &mut Value,
) -> Result<Sealed, CredentialError> {
    let mut done = Sealed::default();
    each_secret(fields, config, &mut |name, kind, text| {
        let place = Place { organization, slug, field: name };
        let fault = |fault| CredentialError { field: name.to_owned(), fault };
        match Held::of(text, kind) {
            Held::Malformed => return Err(fault(Fault::Malformed)),
            Held::Plain => match keys.seal(&place, text) {
                Some(sealed) => {
                    *text = sealed;
                    done.sealed.push(name.to_owned());
                }
                None => done.plain.push(name.to_owned()),
            },
            Held::Sealed(key) if keys.newest().is_some_and(|newest| newest != key) => {
                let plain = keys.open(&place, text).map_err(|error| fault(error.into()))?;
                *text = keys.seal(&place, &plain).unwrap_or(plain);
                done.resealed.push(name.to_owned());
            }
            Held::Sealed(_) | Held::Reference(_) | Held::Template => {}
        }
        Ok(())
    })?;
    let tops = done.sealed.iter().chain(&done.resealed).filter_map(|name| name.split('.').next());
    done.changed = tops.filter_map(|top| Some((top.to_owned(), config.get(top)?.clone()))).collect();
    Ok(done)
}

/// What is done with a text: its field, the JSON type of the whole field, and the text.
type Visit<'a> = dyn FnMut(&str, Kind, &mut String) -> Result<(), CredentialError> + 'a;

/// Each text of the secret fields with its name: that of the field, and for a text within an object its key behind a dot.
fn each_secret(fields: &[Field], config: &mut Value, visit: &mut Visit<'_>) -> Result<(), CredentialError> {
    for field in fields.iter().filter(|field| field.secret) {
        match config.get_mut(field.name) {
            Some(Value::String(text)) if !text.is_empty() => visit(field.name, field.kind, text)?,
            Some(Value::Object(texts)) => {
                for (key, value) in texts {
                    match value {
                        Value::String(text) if !text.is_empty() => {
                            visit(&format!("{}.{key}", field.name), field.kind, text)?;
                        }
                        _ => {}
                    }
                }
            }
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests;
