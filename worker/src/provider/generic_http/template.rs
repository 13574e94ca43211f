//! The templates of a request, and what they may name.

use std::sync::LazyLock;

use minijinja::{Environment, ErrorKind, UndefinedBehavior, context};
use serde_json::{Map, Value};

use super::super::{ConfigError, Sms, Verdict};
use crate::message::AttemptStatus;

/// Steps that one text may take: far more than any gateway needs, and over in a millisecond.
const FUEL: u64 = 10_000;

/// Longest rendered text.
const LONGEST: usize = 64 * 1024;

const NAMES: [&str; 6] = ["mobile", "digits", "message", "sender", "reference", "secrets"];

/// Nothing but built-in filters and tests: no loader, no function that reads anything. An undefined name fails, but may
/// be tested for, since a message need not have a sender.
static ENVIRONMENT: LazyLock<Environment<'static>> = LazyLock::new(|| {
    let mut environment = Environment::new();
    environment.set_undefined_behavior(UndefinedBehavior::SemiStrict);
    environment.set_fuel(Some(FUEL));
    environment
});

/// Why no request could be made of this message: this app cannot send it, another one may.
pub(super) fn failed() -> Verdict {
    Verdict::ended(
        AttemptStatus::RefusedContent,
        "template_failed",
        "The app's template cannot be rendered with this message.",
    )
}

/// The texts that templates use as `secrets.name`.
pub(super) struct Secrets {
    texts: minijinja::Value,
    names: Vec<String>,
}

impl Secrets {
    pub(super) fn read(given: &Map<String, Value>) -> Result<Self, ConfigError> {
        if let Some((name, _)) = given.iter().find(|(_, value)| !value.is_string()) {
            return Err(ConfigError::new(format!("secrets.{name}"), "is not a text", "give the secret as a text"));
        }
        Ok(Self {
            texts: minijinja::Value::from_pairs(
                given.iter().map(|(name, text)| (name.as_str(), text.as_str().unwrap_or_default())),
            ),
            names: given.keys().cloned().collect(),
        })
    }

    /// What templates see of a message.
    pub(super) fn context(&self, sms: &Sms<'_>, sender: Option<&str>) -> minijinja::Value {
        let sender = sender.map_or(minijinja::Value::UNDEFINED, minijinja::Value::from);
        context! {
            mobile => sms.mobile.e164(),
            digits => sms.mobile.digits(),
            message => sms.body.text(),
            sender => sender,
            reference => sms.reference,
            secrets => self.texts.clone(),
        }
    }

    fn knows(&self, name: &str) -> bool {
        match name.split_once('.') {
            Some(("secrets", secret)) => self.names.iter().any(|known| known == secret),
            Some((root, _)) => NAMES.contains(&root),
            None => NAMES.contains(&name),
        }
    }
}

/// One text of the configuration. A text that is one expression and nothing else keeps the type of its value, so that
/// `{{ digits|int }}` is a number.
pub(super) enum Template {
    Text(String),
    Expression(String),
}

impl Template {
    pub(super) fn read(field: &str, source: String, secrets: &Secrets) -> Result<Self, ConfigError> {
        // The template's own error quotes the source, which may hold a secret.
        let syntax = |_| ConfigError::new(field, "is not a valid template", "write names as {{ message }}");
        let expression = source
            .strip_prefix("{{")
            .and_then(|rest| rest.strip_suffix("}}"))
            .filter(|inner| !["{{", "}}", "{%", "{#"].iter().any(|mark| inner.contains(mark)))
            .map(|inner| inner.trim_matches('-').trim().to_owned());
        let names = match &expression {
            Some(inner) => ENVIRONMENT.compile_expression(inner).map_err(syntax)?.undeclared_variables(true),
            None => ENVIRONMENT.template_from_str(&source).map_err(syntax)?.undeclared_variables(true),
        };
        if names.iter().any(|name| !secrets.knows(name)) {
            let known = NAMES.map(|name| if name == "secrets" { "secrets.<name>" } else { name }).join(", ");
            return Err(ConfigError::new(
                field,
                "uses a name that does not exist",
                format!("use {known}, where <name> stands in the config field secrets"),
            ));
        }
        Ok(expression.map_or(Self::Text(source), Self::Expression))
    }

    pub(super) fn render(&self, context: &minijinja::Value) -> Result<Value, Verdict> {
        let rendered = match self {
            Self::Text(source) => ENVIRONMENT.render_str(source, context).map(Value::String),
            Self::Expression(source) => ENVIRONMENT
                .compile_expression(source)
                .and_then(|expression| expression.eval(context))
                .and_then(|value| {
                    if value.is_undefined() {
                        return Err(ErrorKind::UndefinedError.into());
                    }
                    serde_json::to_value(value).map_err(|_| ErrorKind::BadSerialization.into())
                }),
        };
        match rendered {
            Ok(Value::String(text)) if text.len() > LONGEST => Err(failed()),
            Ok(value) => Ok(value),
            // All names were checked, so only the sender can be undefined.
            Err(error) if error.kind() == ErrorKind::UndefinedError => Err(Verdict::no_sender()),
            Err(_) => Err(failed()),
        }
    }
}

/// A value of the request with templates at its texts.
pub(super) enum Tree {
    Literal(Value),
    Text(Template),
    Array(Vec<Tree>),
    Object(Vec<(String, Tree)>),
}

impl Tree {
    pub(super) fn read(field: &str, value: Value, secrets: &Secrets) -> Result<Self, ConfigError> {
        Ok(match value {
            Value::String(text) => Self::Text(Template::read(field, text, secrets)?),
            Value::Array(items) => {
                Self::Array(items.into_iter().map(|item| Self::read(field, item, secrets)).collect::<Result<_, _>>()?)
            }
            Value::Object(map) => Self::Object(
                map.into_iter()
                    .map(|(name, item)| Ok((name.clone(), Self::read(&format!("{field}.{name}"), item, secrets)?)))
                    .collect::<Result<_, _>>()?,
            ),
            other => Self::Literal(other),
        })
    }

    pub(super) fn render(&self, context: &minijinja::Value) -> Result<Value, Verdict> {
        Ok(match self {
            Self::Literal(value) => value.clone(),
            Self::Text(template) => template.render(context)?,
            Self::Array(items) => items.iter().map(|item| item.render(context)).collect::<Result<_, _>>()?,
            Self::Object(map) => Value::Object(
                map.iter()
                    .map(|(name, item)| Ok((name.clone(), item.render(context)?)))
                    .collect::<Result<_, Verdict>>()?,
            ),
        })
    }
}
