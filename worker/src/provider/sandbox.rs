//! `sandbox`: the wire of our own pretend provider, which `sms-outbox sandbox` serves. The smallest adapter there is, and
//! the one that carries the reference of the attempt, so that a test can tell which attempt a request belongs to.

use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::{Deserialize, Serialize};
use serde_json::Value;

use super::address;
use super::config::{self, ALLOW_HTTP, BASE_URL, Kind, SENDER};
use super::verdict::scalar;
use super::{Account, Attempted, ConfigError, Field, Found, Provider, Request, Response, Sms, Verdict};
use crate::message::AttemptStatus::{self, NotSent, RefusedAccount, RefusedContent, RefusedRecipient, Throttled};

const OWN_ADDRESS: &str = "http://127.0.0.1:8025/sandbox";

const FIELDS: &[Field] = &[
    Field::new("token", Kind::String, "Any text: the sandbox takes it as the name of the account.").required().secret(),
    SENDER,
    BASE_URL,
    ALLOW_HTTP,
];

/// The provider.
pub struct Sandbox;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    token: SecretString,
    sender: Option<String>,
    base_url: Option<String>,
    #[serde(default)]
    allow_http: bool,
}

impl Provider for Sandbox {
    fn slug(&self) -> &'static str {
        "sandbox"
    }

    fn name(&self) -> &'static str {
        "Sandbox"
    }

    fn own_address(&self) -> Option<&'static str> {
        Some(OWN_ADDRESS)
    }

    fn fields(&self) -> &'static [Field] {
        FIELDS
    }

    fn looks_up(&self) -> bool {
        true
    }

    fn open(&self, config: &Value) -> Result<Box<dyn Account>, ConfigError> {
        let config: Config = config::read(FIELDS, config)?;
        let url = address::endpoint(config.base_url.as_deref(), OWN_ADDRESS, config.allow_http, "/v1/messages")?;
        let bearer = address::bearer("token", config.token.expose_secret())?;
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
    to: &'a str,
    text: &'a str,
    sender: Option<&'a str>,
    reference: &'a str,
}

impl Account for Open {
    fn request(&self, sms: &Sms<'_>) -> Result<Request, Verdict> {
        let send = Send {
            to: sms.mobile.e164(),
            text: sms.body.text(),
            sender: sms.sender.or(self.sender.as_deref()),
            reference: sms.reference,
        };
        let mut request = Request::post_json(self.url.clone(), &send);
        request.headers.insert(AUTHORIZATION, self.bearer.clone());
        Ok(request)
    }

    fn verdict(&self, _: &Sms<'_>, response: &Response) -> Verdict {
        let answer = response.json();
        let text = |pointer| answer.as_ref().and_then(|answer| answer.pointer(pointer)).and_then(scalar);
        if response.is_success() {
            return text("/id").map_or_else(Verdict::unreadable, |id| Verdict::accepted(Some(id)));
        }
        // `not_processed` is the one 5xx that is documented to mean that nothing was sent.
        let code = text("/error/code").filter(|code| response.is_refusal() || code == "not_processed");
        match code.as_deref().and_then(refusal) {
            Some((status, message)) => {
                Verdict::ended(status, code.unwrap_or_default(), message).after(response.retry_after)
            }
            None => Verdict::by_status(response),
        }
    }

    fn look_up(&self, attempted: &Attempted<'_>) -> Option<Request> {
        let since = attempted.started_at.to_string();
        let fields = [("reference", attempted.sms.reference), ("since", since.as_str())];
        let mut request = Request::get(self.url.clone(), &fields);
        request.headers.insert(AUTHORIZATION, self.bearer.clone());
        Some(request)
    }

    fn found(&self, attempted: &Attempted<'_>, response: &Response) -> Found {
        let Some(answer) = response.json() else {
            return Found::Nothing("the answer could not be read");
        };
        let messages = answer.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let ours = messages.iter().find(|message| message["reference"] == attempted.sms.reference);
        // `complete`: it has forgotten nothing since then.
        match ours {
            Some(message) => {
                Found::Accepted { provider_message_id: scalar(&message["id"]), status: scalar(&message["status"]) }
            }
            None if answer["complete"] == true && messages.is_empty() && attempted.is_settled => Found::NotSent,
            None => Found::Nothing("not there, which proves nothing yet"),
        }
    }
}

fn refusal(code: &str) -> Option<(AttemptStatus, &'static str)> {
    Some(match code {
        "recipient_refused" => (RefusedRecipient, "The sandbox refuses this recipient."),
        "content_refused" => (RefusedContent, "The sandbox refuses this message."),
        "account_refused" => (RefusedAccount, "The sandbox refuses this account."),
        "balance_empty" => (RefusedAccount, "The sandbox says that the balance is empty."),
        "throttled" => (Throttled, "The sandbox asks to slow down."),
        "not_processed" => (NotSent, "The sandbox says that it did not process the request."),
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::provider::conformance::{self, Case, Rendered};
    use serde_json::json;

    pub(crate) fn case() -> Case {
        Case {
            provider: &Sandbox,
            config_fields: conformance::field_names::<Config>(),
            config: json!({"token": "canary-token", "sender": "MyBrand"}),
            success: (201, r#"{"id":"sb-7","status":"accepted"}"#, "sb-7"),
            accepted_by_status: None,
            render: |request| {
                let body: Value = serde_json::from_slice(&request.body).unwrap();
                assert_eq!(request.headers[AUTHORIZATION], "Bearer canary-token");
                assert_eq!(body["reference"], conformance::REFERENCE);
                Rendered {
                    to: body["to"].as_str().unwrap().to_owned(),
                    text: body["text"].as_str().unwrap().to_owned(),
                    sender: body["sender"].as_str().unwrap().to_owned(),
                }
            },
            plus: true,
        }
    }

    #[test]
    fn samples() {
        use AttemptStatus::*;
        for (status, code, class) in [
            (422, "recipient_refused", RefusedRecipient),
            (422, "content_refused", RefusedContent),
            (403, "account_refused", RefusedAccount),
            (402, "balance_empty", RefusedAccount),
            (429, "throttled", Throttled),
            (503, "not_processed", NotSent),
        ] {
            let body = format!(r#"{{"error":{{"code":"{code}","message":"x"}}}}"#);
            conformance::samples(&case(), &[(status, &body, class, Some(code))]);
        }
        conformance::samples(
            &case(),
            &[
                (500, r#"{"error":{"code":"recipient_refused"}}"#, Unclear, Some("http_500")),
                (400, r#"{"error":{"code":"other"}}"#, RefusedContent, Some("http_400")),
                (201, r#"{"status":"accepted"}"#, Unclear, Some("unreadable_answer")),
            ],
        );
    }

    #[test]
    fn a_look_up_goes_by_the_reference() {
        let request = conformance::look_up(&case()).unwrap();
        let asked = format!("/sandbox/v1/messages?reference={}&since=2026-11-28T07%3A10%3A00Z", conformance::REFERENCE);
        assert!(request.url.as_str().ends_with(&asked), "{}", request.url);
        let message = format!(r#"{{"id":"sb-7","reference":"{}","status":"accepted"}}"#, conformance::REFERENCE);
        let found = |messages: &str, complete: bool, is_settled: bool| {
            let body = format!(r#"{{"messages":[{messages}],"complete":{complete}}}"#);
            conformance::found(&case(), &body, &[], |attempted| attempted.is_settled = is_settled)
        };
        let accepted = Found::Accepted { provider_message_id: Some("sb-7".into()), status: Some("accepted".into()) };
        assert_eq!(found(&message, false, false), accepted);
        assert_eq!(found("", true, true), Found::NotSent);
        // It was restarted, or forgot; the request may be on its way; it tells of another.
        for (messages, complete, is_settled) in
            [("", false, true), ("", true, false), (r#"{"id":"sb-8","reference":"other"}"#, true, true)]
        {
            assert!(matches!(found(messages, complete, is_settled), Found::Nothing(_)));
        }
    }
}
