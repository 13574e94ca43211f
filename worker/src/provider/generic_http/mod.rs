//! `generic-http`: any gateway that takes one request of JSON, form or query fields, described by configuration alone.
//!
//! The fields of the request are a JSON object whose texts are templates. Each text is rendered by itself and encoded
//! afterwards, so nothing in a message can break out of its place.

mod answer;
mod template;

use reqwest::header::{self, HeaderMap, HeaderName, HeaderValue};
use reqwest::{Method, Url};
use serde::Deserialize;
use serde_json::{Map, Value};

use self::answer::{Rules, Success};
use self::template::{Template, Tree};
use super::address;
use super::config::{self, ALLOW_HTTP, Kind, SENDER};
use super::verdict::scalar;
use super::{Account, ConfigError, Field, Provider, Request, Response, Sms, Verdict, encode_form};

const FIELDS: &[Field] = &[
    Field::new("url", Kind::String, "Address that takes the request; https, or http with allow_http. Workers send into their own network, loopback included, only with --allow-address.").required(),
    Field::new("method", Kind::String, "POST (the default), PUT or GET."),
    Field::new(
        "format",
        Kind::String,
        "How the fields of `body` are sent: json (the default), form, or query (in the address, as GET needs it).",
    ),
    Field::new("headers", Kind::Object, "Header names and templates of their values.").secret(),
    Field::new("secrets", Kind::Object, "Names and texts that templates use as {{ secrets.name }}.").secret(),
    Field::new(
        "body",
        Kind::Object,
        "Fields of the request; texts are templates with mobile (+966…), digits (966…), message, sender, reference and secrets.",
    )
    .required(),
    Field::new(
        "success",
        Kind::Object,
        "What proves that the message was taken: `status`, a list of 2xx statuses, and for a proof in the answer `pointer`, a JSON pointer, and `values`, the values there that mean success.",
    )
    .required(),
    Field::new("message_id", Kind::String, "JSON pointer to the gateway's id of the message; then an answer without one is no success."),
    Field::new("error_code", Kind::String, "JSON pointer to the gateway's error code."),
    Field::new(
        "outcomes",
        Kind::Object,
        "Error codes and what each means: not_sent, refused_recipient, refused_content, refused_account, throttled or unclear.",
    ),
    SENDER,
    ALLOW_HTTP,
];

/// Headers that describe the connection or the encoding: the client's own to write.
const RESERVED: [HeaderName; 5] =
    [header::HOST, header::CONTENT_LENGTH, header::TRANSFER_ENCODING, header::CONNECTION, header::EXPECT];

/// The provider.
pub struct GenericHttp;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    url: String,
    method: Option<String>,
    format: Option<String>,
    #[serde(default)]
    headers: Map<String, Value>,
    #[serde(default)]
    secrets: Map<String, Value>,
    body: Map<String, Value>,
    success: Success,
    message_id: Option<String>,
    error_code: Option<String>,
    #[serde(default)]
    outcomes: Map<String, Value>,
    sender: Option<String>,
    #[serde(default)]
    allow_http: bool,
}

impl Provider for GenericHttp {
    fn slug(&self) -> &'static str {
        "generic-http"
    }

    fn name(&self) -> &'static str {
        "HTTP gateway"
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn open(&self, config: &Value) -> Result<Box<dyn Account>, ConfigError> {
        let config: Config = config::read(FIELDS, config)?;
        let url = address::address("url", &config.url, config.allow_http)?;
        let method = method(config.method.as_deref())?;
        let format = Format::read(config.format.as_deref(), &method)?;
        let secrets = template::Secrets::read(&config.secrets)?;
        let headers = headers(config.headers, &secrets)?;
        let body = fields(config.body, format, &secrets)?;
        let rules = Rules::read(config.success, config.message_id, config.error_code, config.outcomes)?;
        Ok(Box::new(Open { url, method, format, headers, body, secrets, rules, sender: config.sender }))
    }
}

struct Open {
    url: Url,
    method: Method,
    format: Format,
    headers: Vec<(HeaderName, Template)>,
    body: Vec<(String, Tree)>,
    secrets: template::Secrets,
    rules: Rules,
    sender: Option<String>,
}

#[derive(Clone, Copy, PartialEq, Eq)]
enum Format {
    Json,
    Form,
    Query,
}

impl Format {
    fn read(given: Option<&str>, method: &Method) -> Result<Self, ConfigError> {
        let format = match given.unwrap_or("json") {
            "json" => Self::Json,
            "form" => Self::Form,
            "query" => Self::Query,
            _ => {
                return Err(ConfigError::new("format", "is unknown", "use json, form or query"));
            }
        };
        if method == Method::GET && format != Self::Query {
            return Err(ConfigError::new(
                "format",
                "does not go with GET, which has no body",
                "use query, or the method POST",
            ));
        }
        Ok(format)
    }
}

fn method(given: Option<&str>) -> Result<Method, ConfigError> {
    match given.unwrap_or("POST") {
        "POST" => Ok(Method::POST),
        "PUT" => Ok(Method::PUT),
        "GET" => Ok(Method::GET),
        _ => Err(ConfigError::new("method", "is not supported", "use POST, PUT or GET, in capitals")),
    }
}

fn headers(given: Map<String, Value>, secrets: &template::Secrets) -> Result<Vec<(HeaderName, Template)>, ConfigError> {
    let mut headers = Vec::with_capacity(given.len());
    for (name, value) in given {
        let field = format!("headers.{name}");
        let header = HeaderName::try_from(name)
            .ok()
            .filter(|header| !RESERVED.contains(header))
            .ok_or_else(|| ConfigError::new(&field, "is no header that can be set", "remove it or correct its name"))?;
        let Value::String(text) = value else {
            return Err(ConfigError::new(field, "is not a text", "give the header's value as a text"));
        };
        headers.push((header, Template::read(&field, text, secrets)?));
    }
    Ok(headers)
}

fn fields(
    given: Map<String, Value>,
    format: Format,
    secrets: &template::Secrets,
) -> Result<Vec<(String, Tree)>, ConfigError> {
    let mut fields = Vec::with_capacity(given.len());
    for (name, value) in given {
        let field = format!("body.{name}");
        if format != Format::Json && (value.is_array() || value.is_object() || value.is_null()) {
            return Err(ConfigError::new(
                field,
                "is not a text",
                "give a text: form and query fields have no structure",
            ));
        }
        fields.push((name, Tree::read(&field, value, secrets)?));
    }
    Ok(fields)
}

impl Account for Open {
    fn request(&self, sms: &Sms<'_>) -> Result<Request, Verdict> {
        let context = self.secrets.context(sms, sms.sender.or(self.sender.as_deref()));
        let mut rendered = Map::new();
        for (name, tree) in &self.body {
            rendered.insert(name.clone(), tree.render(&context)?);
        }
        let mut url = self.url.clone();
        let mut headers = HeaderMap::new();
        let mut content_type = |value| headers.insert(header::CONTENT_TYPE, HeaderValue::from_static(value));
        let texts: Vec<(&str, String)> = match self.format {
            Format::Json => Vec::new(),
            _ => rendered.iter().map(|(name, value)| (name.as_str(), text(value))).collect(),
        };
        let pairs: Vec<(&str, &str)> = texts.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let body = match self.format {
            Format::Json => {
                content_type("application/json");
                Value::Object(rendered).to_string().into_bytes()
            }
            Format::Form => {
                content_type("application/x-www-form-urlencoded");
                encode_form(&pairs)
            }
            Format::Query => {
                url.query_pairs_mut().extend_pairs(&pairs);
                Vec::new()
            }
        };
        for (name, template) in &self.headers {
            let mut value =
                HeaderValue::from_str(&text(&template.render(&context)?)).map_err(|_| template::failed())?;
            value.set_sensitive(true);
            headers.insert(name, value);
        }
        Ok(Request { method: self.method.clone(), url, headers, body, to_loopback: false })
    }

    fn verdict(&self, _: &Sms<'_>, response: &Response) -> Verdict {
        self.rules.verdict(response)
    }
}

/// A rendered value as the text of a form field.
fn text(value: &Value) -> String {
    match value {
        Value::String(text) => text.clone(),
        other => scalar(other).unwrap_or_else(|| other.to_string()),
    }
}

#[cfg(test)]
pub(super) mod tests;
