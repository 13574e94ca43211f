//! An app's configuration as given on the command line: JSON text, `@file`, `-`, or `key=value` and `key=@file` pairs.

use std::io::Read;

use anyhow::Context;
use serde_json::{Map, Value};

use crate::cli::failure::Usage;
use crate::provider::Registry;
use crate::provider::config::{Field, Kind};
use crate::provider::credential::Held;

/// A configuration, and which secrets were readable in the process's arguments.
#[derive(Debug, Default, PartialEq)]
pub(super) struct Given {
    pub(super) config: Map<String, Value>,
    pub(super) visible: Vec<String>,
}

/// Puts the words together; a later one wins over an earlier one.
pub(super) fn read(slug: &str, words: &[String]) -> anyhow::Result<Given> {
    let fields = Registry::new().get(slug).map(|provider| provider.fields()).unwrap_or_default();
    let mut given = Given::default();
    for word in words {
        if word == "-" {
            let mut text = String::new();
            std::io::stdin().read_to_string(&mut text).context("config: standard input is not UTF-8 text")?;
            given.config.extend(object(&text, "standard input")?);
        } else if let Some(path) = word.strip_prefix('@') {
            given.config.extend(object(&file(path)?, path)?);
        } else if word.trim_start().starts_with('{') {
            let object = object(word, "the argument")?;
            let shown = object.iter().filter(|(key, value)| shows_a_secret(fields, key, value));
            given.visible.extend(shown.map(|(key, _)| key.clone()));
            given.config.extend(object);
        } else if let Some((key, value)) = word.split_once('=') {
            let text = match value.strip_prefix('@') {
                // Editors end a file with a line end, which belongs to no credential.
                Some(path) => file(path)?.trim_end_matches(['\r', '\n']).to_owned(),
                None => {
                    let shown = shows_a_secret(fields, key, &Value::from(value));
                    given.visible.extend(shown.then(|| key.to_owned()));
                    value.to_owned()
                }
            };
            given.config.insert(key.to_owned(), typed(fields, key, text)?);
        } else {
            // The word itself is not repeated: it may be a secret.
            return Err(Usage("config: a word is neither key=value, @file, - nor a JSON object".to_owned()).into());
        }
    }
    Ok(given)
}

/// A reference or a sealed value may be seen by anybody.
fn shows_a_secret(fields: &[Field], key: &str, value: &Value) -> bool {
    let plain = |field: &Field| value.as_str().is_none_or(|text| Held::of(text, field.kind) == Held::Plain);
    fields.iter().any(|field| field.name == key && field.secret && plain(field))
}

/// A text becomes what the field wants: `allow_http=true` is a truth, not a word.
fn typed(fields: &[Field], key: &str, text: String) -> anyhow::Result<Value> {
    match fields.iter().find(|field| field.name == key).map(|field| field.kind) {
        None | Some(Kind::String) => Ok(Value::String(text)),
        Some(kind) => serde_json::from_str(&text).map_err(|_| {
            Usage(format!("config: {key} must be a JSON {}, such as {}", kind.word(), example(kind))).into()
        }),
    }
}

fn example(kind: Kind) -> &'static str {
    match kind {
        Kind::String => "\"text\"",
        Kind::Number => "10",
        Kind::Boolean => "true",
        Kind::Object => "{\"key\": \"value\"}",
    }
}

fn file(path: &str) -> anyhow::Result<String> {
    std::fs::read_to_string(path).with_context(|| format!("config: {path} cannot be read"))
}

fn object(text: &str, origin: &str) -> anyhow::Result<Map<String, Value>> {
    // serde_json's errors name line and column and quote nothing of the text but one character.
    match serde_json::from_str(text) {
        Ok(Value::Object(object)) => Ok(object),
        Ok(_) => Err(Usage(format!("config: {origin} is no JSON object")).into()),
        Err(error) => {
            let place = format!("line {} column {}", error.line(), error.column());
            Err(Usage(format!("config: {origin} is not JSON, {place}")).into())
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    fn words(words: &[&str]) -> anyhow::Result<Given> {
        read("taqnyat-sms", &words.iter().map(|word| (*word).to_owned()).collect::<Vec<_>>())
    }

    #[test]
    fn pairs_and_objects_are_put_together_and_typed() {
        let given = words(&[r#"{"sender": "A", "extra": 1}"#, "sender=B=C", "allow_http=true"]).expect("good");
        assert_eq!(Value::Object(given.config), json!({"sender": "B=C", "extra": 1, "allow_http": true}));
    }

    #[test]
    fn errors_repeat_no_value() {
        for bad in [["s3cret"], ["{\"token\": s3cret}"], ["allow_http=s3cret"], ["[1]"]] {
            let error = words(&bad).expect_err("refused").to_string();
            assert!(error.starts_with("config: ") && !error.contains("s3cret"), "{error}");
        }
    }

    #[test]
    fn secrets_in_the_arguments_are_noticed_and_secrets_in_files_are_not() {
        let secret = Registry::new()
            .get("taqnyat-sms")
            .and_then(|p| p.fields().iter().find(|f| f.secret))
            .expect("has one")
            .name;
        let path = std::env::temp_dir().join(format!("sms-outbox-given-config-{}", std::process::id()));
        std::fs::write(&path, "s3cret\n").expect("a temporary file");
        let from_file = words(&[&format!("{secret}=@{}", path.display())]);
        std::fs::remove_file(&path).expect("remove it again");
        let from_file = from_file.expect("good");
        assert_eq!((from_file.config[secret].as_str(), from_file.visible.len()), (Some("s3cret"), 0));
        let visible = words(&[&format!("{secret}=s3cret"), "sender=A"]).expect("good").visible;
        assert_eq!(visible, [secret]);
        for reference in ["env:TOKEN", "file:/run/token"] {
            assert_eq!(words(&[&format!("{secret}={reference}")]).expect("good").visible.len(), 0);
            assert_eq!(words(&[&format!("{{\"{secret}\": \"{reference}\"}}")]).expect("good").visible.len(), 0);
        }
    }
}
