//! The configuration of an organization app: what a provider asks for, and the check of what was given.
//!
//! Errors name the field, the fault and the cure, and never show a value: it may be a secret.

use serde::de::DeserializeOwned;
use serde_json::{Map, Value, json};

/// JSON type of a config field.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text.
    String,
    /// A number.
    Number,
    /// True or false.
    Boolean,
    /// An object.
    Object,
}

impl Kind {
    /// The word for it in the catalog.
    pub const fn word(self) -> &'static str {
        match self {
            Self::String => "string",
            Self::Number => "number",
            Self::Boolean => "boolean",
            Self::Object => "object",
        }
    }

    fn fits(self, value: &Value) -> bool {
        match self {
            Self::String => value.is_string(),
            Self::Number => value.is_number(),
            Self::Boolean => value.is_boolean(),
            Self::Object => value.is_object(),
        }
    }
}

/// One field of a provider's configuration.
#[derive(Clone, Copy, Debug)]
pub struct Field {
    /// Its key in the JSON object.
    pub name: &'static str,
    /// Its JSON type.
    pub kind: Kind,
    /// Whether an app cannot be installed without it.
    pub required: bool,
    /// Whether its value, or any text within it, must never be shown.
    pub secret: bool,
    /// What it is and where to find it, for a person.
    pub description: &'static str,
}

impl Field {
    /// An optional field that may be shown.
    pub const fn new(name: &'static str, kind: Kind, description: &'static str) -> Self {
        Self { name, kind, required: false, secret: false, description }
    }

    /// The same field, required.
    pub const fn required(self) -> Self {
        Self { required: true, ..self }
    }

    /// The same field, secret.
    pub const fn secret(self) -> Self {
        Self { secret: true, ..self }
    }
}

/// The field every provider has for messages that name no sender.
pub(super) const SENDER: Field = Field::new(
    "sender",
    Kind::String,
    "Sender name or number of messages that name none, as registered with the provider.",
);

/// The field every provider with a fixed address has.
pub(super) const BASE_URL: Field = Field::new(
    "base_url",
    Kind::String,
    "Address of the API instead of the provider's own, for a proxy or the sandbox; https, or http on the loopback interface.",
);

/// The field that admits plain http.
pub(super) const ALLOW_HTTP: Field = Field::new(
    "allow_http",
    Kind::Boolean,
    "Allow plain http to a host other than the loopback interface; credentials then cross the network unencrypted.",
);

/// Why a configuration cannot be used.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("config field {field:?} {fault}; {cure}")]
pub struct ConfigError {
    /// The field at fault.
    pub field: String,
    /// What is wrong with it, without its value.
    pub fault: String,
    /// What to do.
    pub cure: String,
}

impl ConfigError {
    /// The field, its fault and the cure.
    pub fn new(field: impl Into<String>, fault: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { field: field.into(), fault: fault.into(), cure: cure.into() }
    }
}

/// Checks a configuration against the fields, and reads it. Null and the empty text mean 'not given'.
pub(super) fn read<T: DeserializeOwned>(fields: &[Field], config: &Value) -> Result<T, ConfigError> {
    let given = config.as_object().ok_or_else(|| {
        ConfigError::new("config", "is not a JSON object", "give an object of the provider's config fields")
    })?;
    let mut known = Map::new();
    for (name, value) in given {
        let field = fields.iter().find(|field| field.name == name).ok_or_else(|| {
            let names: Vec<_> = fields.iter().map(|field| field.name).collect();
            ConfigError::new(
                name,
                "is unknown to this provider",
                format!("remove it or use one of: {}", names.join(", ")),
            )
        })?;
        if value.is_null() || value.as_str().is_some_and(|text| text.trim().is_empty()) {
            continue;
        }
        if !field.kind.fits(value) {
            return Err(ConfigError::new(name, "has the wrong JSON type", format!("give a {}", field.kind.word())));
        }
        if value.as_str().is_some_and(|text| text.chars().any(char::is_control) || text.trim() != text) {
            return Err(ConfigError::new(
                name,
                "contains a control character, or a blank at an end",
                "copy the value again without line breaks and surrounding blanks",
            ));
        }
        known.insert(name.clone(), value.clone());
    }
    if let Some(missing) = fields.iter().find(|field| field.required && !known.contains_key(field.name)) {
        return Err(ConfigError::new(missing.name, "is missing", format!("give it: {}", missing.description)));
    }
    // serde's own message may quote the value, so only the place is taken from it.
    serde_path_to_error::deserialize(Value::Object(known)).map_err(|error| {
        let path = error.path().to_string();
        let name = path.split(['.', '[']).next().unwrap_or(&path);
        let cure = fields.iter().find(|field| field.name == name).map_or("see the provider's page", |f| f.description);
        ConfigError::new(path.as_str(), "has a shape that this provider cannot read", format!("it is: {cure}"))
    })
}

/// Every text inside a secret field: what must not appear in anything that is kept or shown.
pub fn secrets<'a>(fields: &[Field], config: &'a Value) -> Vec<&'a str> {
    fn texts<'a>(value: &'a Value, found: &mut Vec<&'a str>) {
        match value {
            Value::String(text) if !text.is_empty() => found.push(text),
            Value::Array(items) => items.iter().for_each(|item| texts(item, found)),
            Value::Object(map) => map.values().for_each(|item| texts(item, found)),
            _ => {}
        }
    }
    let mut found = Vec::new();
    for field in fields.iter().filter(|field| field.secret) {
        if let Some(value) = config.get(field.name) {
            texts(value, &mut found);
        }
    }
    found
}

/// The fields as the catalog shows them: `{"field": {"type", "required", "secret", "description"}}`.
pub(super) fn describe(fields: &[Field]) -> Value {
    fields
        .iter()
        .map(|field| {
            let about = json!({
                "type": field.kind.word(),
                "required": field.required,
                "secret": field.secret,
                "description": field.description,
            });
            (field.name.to_owned(), about)
        })
        .collect::<Map<_, _>>()
        .into()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn errors_name_the_field_and_hide_the_value() {
        const FIELDS: &[Field] = &[
            Field::new("token", Kind::String, "The token.").required().secret(),
            Field::new("size", Kind::Number, "A size."),
        ];
        #[derive(serde::Deserialize, Debug)]
        struct Config {
            #[serde(rename = "token")]
            _token: String,
            #[serde(rename = "size")]
            _size: Option<u8>,
        }
        for (config, field) in [
            (json!([]), "config"),
            (json!({}), "token"),
            (json!({"token": ""}), "token"),
            (json!({"token": "canary\n"}), "token"),
            (json!({"token": {"x": "canary"}}), "token"),
            (json!({"token": "canary", "sise": 1}), "sise"),
            (json!({"token": "canary", "size": 4711}), "size"),
        ] {
            let error = read::<Config>(FIELDS, &config).unwrap_err();
            assert_eq!(error.field, field, "{config}");
            let shown = format!("{error} {error:?}");
            assert!(!shown.contains("canary") && !shown.contains("4711"), "{shown}");
            assert!(!error.fault.is_empty() && !error.cure.is_empty());
        }
        assert!(read::<Config>(FIELDS, &json!({"token": "t", "size": null})).is_ok());
    }

    #[test]
    fn secrets_are_found_at_any_depth() {
        const FIELDS: &[Field] = &[Field::new("a", Kind::Object, "").secret(), Field::new("b", Kind::String, "")];
        assert_eq!(secrets(FIELDS, &json!({"a": {"x": ["one", {"y": "two"}], "z": 3}, "b": "shown"})), ["one", "two"]);
    }
}
