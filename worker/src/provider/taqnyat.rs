//! `taqnyat-sms`: Taqnyat, Saudi Arabia. `POST /v1/messages` with a bearer token and JSON.

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::address;
use super::config::{self, ALLOW_HTTP, BASE_URL, Kind, SENDER};
use super::verdict::scalar;
use super::{Account, ConfigError, Field, Provider, Request, Response, Sms, Verdict};
use crate::message::AttemptStatus::{self, RefusedAccount, RefusedContent, RefusedRecipient};

const OWN_ADDRESS: &str = "https://api.taqnyat.sa";

const FIELDS: &[Field] = &[
    Field::new("bearer_token", Kind::String, "Bearer token of the application, from the Taqnyat portal.")
        .required()
        .secret(),
    SENDER,
    BASE_URL,
    ALLOW_HTTP,
];

/// The provider.
pub struct Taqnyat;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    bearer_token: SecretString,
    sender: Option<String>,
    base_url: Option<String>,
    #[serde(default)]
    allow_http: bool,
}

impl Provider for Taqnyat {
    fn slug(&self) -> &'static str {
        "taqnyat-sms"
    }

    fn name(&self) -> &'static str {
        "Taqnyat"
    }

    fn own_address(&self) -> Option<&'static str> {
        Some(OWN_ADDRESS)
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn open(&self, config: &Value) -> Result<Box<dyn Account>, ConfigError> {
        let config: Config = config::read(FIELDS, config)?;
        let url = address::endpoint(config.base_url.as_deref(), OWN_ADDRESS, config.allow_http, "/v1/messages")?;
        let bearer = address::bearer("bearer_token", config.bearer_token.expose_secret())?;
        Ok(Box::new(Open { url, bearer, sender: config.sender }))
    }
}

struct Open {
    url: Url,
    bearer: HeaderValue,
    sender: Option<String>,
}

#[derive(Serialize)]
struct Send<'a> {
    recipients: [&'a str; 1],
    body: &'a str,
    sender: &'a str,
}

/// What may stand in an answer. All optional: success and error share it, and neither is described in full.
#[derive(Deserialize)]
#[serde(rename_all = "camelCase")]
struct Answer {
    status_code: Option<Value>,
    message: Option<Value>,
    message_id: Option<Value>,
    rejected: Option<Value>,
}

impl Account for Open {
    fn request(&self, sms: &Sms<'_>) -> Result<Request, Verdict> {
        let sender = sms.sender.or(self.sender.as_deref()).ok_or_else(Verdict::no_sender)?;
        let send = Send { recipients: [sms.mobile.digits()], body: sms.body.text(), sender };
        let mut request = Request::post_json(self.url.clone(), &send);
        request.headers.insert(AUTHORIZATION, self.bearer.clone());
        Ok(request)
    }

    fn verdict(&self, sms: &Sms<'_>, response: &Response) -> Verdict {
        let answer = response.body.as_deref().and_then(|body| serde_json::from_slice::<Answer>(body).ok());
        let Some(answer) = answer.filter(|_| response.is_success() || response.is_refusal()) else {
            return Verdict::by_status(response);
        };
        let id = answer.message_id.as_ref().and_then(scalar);
        let code = answer.status_code.as_ref().and_then(scalar);
        let number = code.as_deref().and_then(|code| code.parse::<u16>().ok());
        if response.is_success() && number.map_or(id.is_some(), |number| (200..300).contains(&number)) {
            return if listed(answer.rejected.as_ref(), sms.mobile.digits()) {
                Verdict::ended(RefusedRecipient, "rejected", "Taqnyat took the request and rejected its recipient.")
            } else {
                Verdict::accepted(id)
            };
        }
        if let Some((status, message)) = number.and_then(refusal) {
            return Verdict::ended(status, code.unwrap_or_default(), message);
        }
        // The status in the body counts, also in a 200: some errors come so.
        let told = match number {
            Some(status @ 300..=599) if response.is_success() => Response { status, ..response.clone() },
            _ => response.clone(),
        };
        if told.is_refusal() && matches!(told.status, 400 | 422) {
            let (status, message) = by_text(answer.message.as_ref().and_then(Value::as_str).unwrap_or_default());
            return Verdict::ended(status, format!("http_{}", told.status), message);
        }
        Verdict::by_status(&told)
    }
}

/// Taqnyat's own codes.
fn refusal(code: u16) -> Option<(AttemptStatus, &'static str)> {
    Some(match code {
        2 => (RefusedAccount, "The Taqnyat balance is zero."),
        3 => (RefusedAccount, "The Taqnyat balance is not sufficient."),
        14 => (RefusedContent, "Taqnyat does not accept this sender name."),
        15 => (RefusedRecipient, "Taqnyat does not accept the recipient."),
        101 => (RefusedAccount, "The Taqnyat API is disabled for this account."),
        102 => (RefusedAccount, "Taqnyat does not allow requests from this worker's address."),
        104 => (RefusedAccount, "Taqnyat does not accept the bearer token."),
        _ => return None,
    })
}

/// An invalid request without a code: the text tells what it is about.
fn by_text(message: &str) -> (AttemptStatus, &'static str) {
    let text = message.to_ascii_lowercase();
    if text.contains("sender") {
        (RefusedContent, "Taqnyat does not accept this sender name.")
    } else if text.contains("recipient") {
        (RefusedRecipient, "Taqnyat does not accept the recipient.")
    } else if text.contains("balance") {
        (RefusedAccount, "The Taqnyat balance is not sufficient.")
    } else {
        (RefusedContent, "Taqnyat refused the message.")
    }
}

/// Whether a number is in a list, which Taqnyat writes as the text `[966501234567,]`; a real array is taken as well.
fn listed(list: Option<&Value>, digits: &str) -> bool {
    match list {
        Some(Value::String(text)) => {
            text.trim_matches(['[', ']', ' ']).split(',').any(|item| item.trim().trim_matches('"') == digits)
        }
        Some(Value::Array(items)) => items.iter().filter_map(scalar).any(|item| item == digits),
        _ => false,
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::provider::conformance::{self, Case, Rendered};
    use serde_json::json;

    pub(crate) fn case() -> Case {
        Case {
            provider: &Taqnyat,
            config_fields: conformance::field_names::<Config>(),
            config: json!({"bearer_token": "canary-token", "sender": "MyBrand"}),
            success: (201, SUCCESS, "5452899970"),
            accepted_by_status: None,
            render: |request| {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                assert_eq!(request.headers[AUTHORIZATION], "Bearer canary-token");
                assert_eq!(request.url.as_str(), "https://api.taqnyat.sa/v1/messages");
                assert_eq!(body.as_object().unwrap().len(), 3);
                Rendered {
                    to: body["recipients"][0].as_str().unwrap().to_owned(),
                    text: body["body"].as_str().unwrap().to_owned(),
                    sender: body["sender"].as_str().unwrap().to_owned(),
                }
            },
            plus: false,
        }
    }

    const SUCCESS: &str = r#"{"statusCode":201,"messageId":5452899970,"cost":0.026,"currency":"SAR","accepted":"[966501234567,]","rejected":"[]"}"#;

    #[test]
    fn samples() {
        use AttemptStatus::*;
        conformance::samples(
            &case(),
            &[
                (200, r#"{"statusCode":201,"messageId":7}"#, Accepted, None),
                (201, r#"{"statusCode":"201","messageId":"7"}"#, Accepted, None),
                (
                    201,
                    r#"{"statusCode":201,"messageId":7,"accepted":"[]","rejected":"[966501234567,]"}"#,
                    RefusedRecipient,
                    Some("rejected"),
                ),
                (
                    201,
                    r#"{"statusCode":201,"messageId":7,"rejected":["966501234567"]}"#,
                    RefusedRecipient,
                    Some("rejected"),
                ),
                (201, r#"{"statusCode":201,"messageId":7,"rejected":"[9665012345678,]"}"#, Accepted, None),
                (201, r#"{"cost":1}"#, Unclear, Some("unreadable_answer")),
                (200, r#"{"statusCode":104,"message":"x"}"#, RefusedAccount, Some("104")),
                (200, r#"{"statusCode":400,"message":"x"}"#, RefusedContent, Some("http_400")),
                (200, r#"{"statusCode":429,"message":"x"}"#, Throttled, Some("http_429")),
                (200, r#"{"statusCode":500,"message":"x"}"#, Unclear, Some("http_500")),
                (200, r#"{"statusCode":77,"message":"x"}"#, Unclear, Some("unreadable_answer")),
                (400, r#"{"statusCode":2}"#, RefusedAccount, Some("2")),
                (400, r#"{"statusCode":3}"#, RefusedAccount, Some("3")),
                (400, r#"{"statusCode":14}"#, RefusedContent, Some("14")),
                (400, r#"{"statusCode":15}"#, RefusedRecipient, Some("15")),
                (403, r#"{"statusCode":101}"#, RefusedAccount, Some("101")),
                (403, r#"{"statusCode":102}"#, RefusedAccount, Some("102")),
                (401, r#"{"statusCode":401,"message":"Invalid token"}"#, RefusedAccount, Some("http_401")),
                (400, r#"{"statusCode":400,"message":"Sender is not active"}"#, RefusedContent, Some("http_400")),
                (400, r#"{"statusCode":400,"message":"Invalid recipients"}"#, RefusedRecipient, Some("http_400")),
                (400, r#"{"statusCode":400,"message":"Insufficient BALANCE"}"#, RefusedAccount, Some("http_400")),
                (400, r#"{"statusCode":400,"message":"Bad input"}"#, RefusedContent, Some("http_400")),
                (405, r#"{"statusCode":405,"message":"x"}"#, RefusedContent, Some("http_405")),
                (500, r#"{"statusCode":2}"#, Unclear, Some("http_500")),
                (500, SUCCESS, Unclear, Some("http_500")),
            ],
        );
    }
}
