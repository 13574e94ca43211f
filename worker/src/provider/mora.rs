//! `mora-sms`: Mora, Saudi Arabia. `POST /api/v1/sendsms` with a form; the result is a code in the body of a 200.

use reqwest::Url;
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;
use std::time::Duration;

use super::address;
use super::config::{self, ALLOW_HTTP, BASE_URL, Kind, SENDER};
use super::verdict::scalar;
use super::{Account, ConfigError, Field, Provider, Request, Response, Sms, Verdict};
use crate::message::AttemptStatus::{self, RefusedAccount, RefusedContent, RefusedRecipient, Throttled, Unclear};

const OWN_ADDRESS: &str = "https://mora-sa.com";

/// Code 111, 'sending closed', comes without a time: one request a minute finds the end of it.
const CLOSED_FOR: Duration = Duration::from_secs(60);

const FIELDS: &[Field] = &[
    Field::new("api_key", Kind::String, "API key of the account, from the Mora portal.").required().secret(),
    Field::new("username", Kind::String, "User name of the account.").required(),
    SENDER,
    BASE_URL,
    ALLOW_HTTP,
];

/// The provider.
pub struct Mora;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    api_key: SecretString,
    username: String,
    sender: Option<String>,
    base_url: Option<String>,
    #[serde(default)]
    allow_http: bool,
}

impl Provider for Mora {
    fn slug(&self) -> &'static str {
        "mora-sms"
    }

    fn name(&self) -> &'static str {
        "Mora"
    }

    fn own_address(&self) -> Option<&'static str> {
        Some(OWN_ADDRESS)
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn open(&self, config: &Value) -> Result<Box<dyn Account>, ConfigError> {
        let config: Config = config::read(FIELDS, config)?;
        let url = address::endpoint(config.base_url.as_deref(), OWN_ADDRESS, config.allow_http, "/api/v1/sendsms")?;
        Ok(Box::new(Open { url, config }))
    }
}

struct Open {
    url: Url,
    config: Config,
}

impl Account for Open {
    fn request(&self, sms: &Sms<'_>) -> Result<Request, Verdict> {
        let sender = sms.sender.or(self.config.sender.as_deref()).ok_or_else(Verdict::no_sender)?;
        // By POST: a GET would put the key and the message into addresses, which others log.
        Ok(Request::post_form(
            self.url.clone(),
            &[
                ("api_key", self.config.api_key.expose_secret()),
                ("username", &self.config.username),
                ("message", sms.body.text()),
                ("sender", sender),
                ("numbers", sms.mobile.digits()),
                ("return", "json"),
            ],
        ))
    }

    fn verdict(&self, _: &Sms<'_>, response: &Response) -> Verdict {
        let answer = response.json();
        let Some((code, answer)) = answer.as_ref().and_then(|answer| Some((code(answer)?, answer))) else {
            return Verdict::by_status(response);
        };
        if response.is_success() && code == "100" {
            return Verdict::accepted(answer.pointer("/data/ref_id").and_then(scalar));
        }
        if !response.is_success() && !response.is_refusal() {
            return Verdict::by_status(response);
        }
        match meaning(&code) {
            Some((status, message)) => {
                Verdict::ended(status, code, message).after((status == Throttled).then_some(CLOSED_FOR))
            }
            None if response.is_success() => Verdict::ended(
                Unclear,
                code,
                "Mora answered with a code of unknown meaning, so the message may have been sent.",
            ),
            None => Verdict::by_status(response),
        }
    }
}

/// The result: `data.code`; else a code at the top, or the bare code of the text form. `status.code` is the transport's.
fn code(answer: &Value) -> Option<String> {
    let nested = answer.pointer("/data/code").and_then(scalar);
    let top = || ["code", "Code", "status_code"].iter().find_map(|name| answer.get(name).and_then(scalar));
    nested.or_else(top).or_else(|| scalar(answer))
}

/// Mora's codes but success. 101 to 104, 109 to 111 and 113 are not in its list: they are those of the family it belongs to.
fn meaning(code: &str) -> Option<(AttemptStatus, &'static str)> {
    Some(match code {
        "101" => (RefusedContent, "Mora misses data in the request."),
        "102" => (RefusedAccount, "Mora does not know the user name."),
        "103" => (RefusedAccount, "Mora does not accept the API key."),
        "104" => (Unclear, "Mora reports a database error, so the message may have been sent."),
        "105" => (RefusedAccount, "The Mora balance is not sufficient."),
        "106" => (RefusedContent, "The sender name is not available at Mora."),
        "107" => (RefusedContent, "The sender name is blocked at Mora."),
        "108" => (RefusedRecipient, "Mora does not accept the recipient."),
        "109" => (RefusedContent, "The message has too many parts for Mora."),
        "110" => (Unclear, "Mora could not save the result, so the message may have been sent."),
        "111" => (Throttled, "Mora has closed sending for now."),
        "112" => (RefusedContent, "Mora found a prohibited word in the message."),
        "113" => (RefusedAccount, "The Mora account is not active."),
        "114" => (RefusedAccount, "The Mora account is suspended."),
        "115" => (RefusedAccount, "The mobile number of the Mora account is not activated."),
        "116" => (RefusedAccount, "The e-mail address of the Mora account is not activated."),
        "117" => (RefusedContent, "Mora found the message empty."),
        "118" => (RefusedContent, "Mora found the sender empty."),
        "119" => (RefusedContent, "Mora found the recipient empty."),
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::provider::conformance::{self, Case, Rendered};
    use serde_json::json;
    use std::collections::HashMap;

    const SUCCESS: &str = r#"{"status":{"code":200,"message":"success"},"data":{"code":100,"message":"ok","ref_id":"ref-7","timestamp":"2026-01-18T10:45:30Z"}}"#;

    pub(crate) fn case() -> Case {
        Case {
            provider: &Mora,
            config_fields: conformance::field_names::<Config>(),
            config: json!({"api_key": "canary-key", "username": "acme", "sender": "MyBrand"}),
            success: (200, SUCCESS, "ref-7"),
            accepted_by_status: None,
            render: |request| {
                let mut form: HashMap<String, String> = serde_urlencoded::from_bytes(&request.body).unwrap();
                assert_eq!(request.url.as_str(), "https://mora-sa.com/api/v1/sendsms");
                assert_eq!(form.remove("api_key").unwrap(), "canary-key");
                assert_eq!(form.remove("username").unwrap(), "acme");
                assert_eq!(form.remove("return").unwrap(), "json");
                let rendered = Rendered {
                    to: form.remove("numbers").unwrap(),
                    text: form.remove("message").unwrap(),
                    sender: form.remove("sender").unwrap(),
                };
                assert!(form.is_empty());
                rendered
            },
            plus: false,
        }
    }

    #[test]
    fn samples() {
        use AttemptStatus::*;
        let table: Vec<(String, AttemptStatus)> = [
            (101, RefusedContent),
            (102, RefusedAccount),
            (103, RefusedAccount),
            (104, Unclear),
            (105, RefusedAccount),
            (106, RefusedContent),
            (107, RefusedContent),
            (108, RefusedRecipient),
            (109, RefusedContent),
            (110, Unclear),
            (111, Throttled),
            (112, RefusedContent),
            (113, RefusedAccount),
            (114, RefusedAccount),
            (115, RefusedAccount),
            (116, RefusedAccount),
            (117, RefusedContent),
            (118, RefusedContent),
            (119, RefusedContent),
            (999, Unclear),
        ]
        .map(|(code, class)| (code.to_string(), class))
        .into();
        for (code, class) in &table {
            let nested = format!(r#"{{"status":{{"code":200}},"data":{{"code":{code}}}}}"#);
            let text = format!(r#"{{"status":{{"code":200}},"data":{{"code":"{code}"}}}}"#);
            let top = format!(r#"{{"code":"{code}"}}"#);
            for body in [&nested, &text, &top, code] {
                conformance::samples(&case(), &[(200, body, *class, Some(code))]);
            }
        }
        conformance::samples(
            &case(),
            &[
                (200, r#"{"data":{"code":"100"}}"#, Accepted, None),
                (200, r#"{"status":{"code":200,"message":"success"}}"#, Unclear, Some("unreadable_answer")),
                (200, "100", Accepted, None),
                (401, r#"{"data":{"code":103}}"#, RefusedAccount, Some("103")),
                (401, r#"{"data":{"code":999}}"#, RefusedAccount, Some("http_401")),
                (400, SUCCESS, RefusedContent, Some("http_400")),
                (500, SUCCESS, Unclear, Some("http_500")),
                (503, r#"{"data":{"code":105}}"#, Unclear, Some("http_503")),
            ],
        );
    }
}
