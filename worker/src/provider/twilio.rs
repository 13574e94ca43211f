//! `twilio-sms`: Twilio Programmable Messaging. `POST …/Messages.json` with basic authentication and a form, as
//! `CreateMessage` in `twilio/twilio-oai`, `spec/json/twilio_api_v2010.json`, describes it.

use std::time::Duration;

use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use jiff::fmt::rfc2822::DateTimeParser;
use jiff::{SignedDuration, Timestamp};
use reqwest::Url;
use reqwest::header::{AUTHORIZATION, HeaderValue};
use secrecy::{ExposeSecret, SecretString};
use serde::Deserialize;
use serde_json::Value;

use super::address;
use super::config::{self, ALLOW_HTTP, BASE_URL, Kind};
use super::verdict::scalar;
use super::{Account, Attempted, ConfigError, Field, Found, Provider, Request, Response, Sms, Verdict};
use crate::message::AttemptStatus::{self, RefusedAccount, RefusedContent, RefusedRecipient, Throttled};

const OWN_ADDRESS: &str = "https://api.twilio.com";

/// A full queue, and a day's limit, are told without a time: one request a minute finds the end of them.
const FULL_FOR: Duration = Duration::from_secs(60);

/// How far Twilio's clock and the database's may be apart.
const CLOCKS_DIFFER: SignedDuration = SignedDuration::from_mins(5);

/// Messages of one page of the list: as many as surely fit into the longest answer that is read.
const LIST_PAGE: &str = "20";

const FIELDS: &[Field] = &[
    Field::new("account_sid", Kind::String, "Account SID, AC and 32 hexadecimal digits, from the Twilio console.")
        .required(),
    Field::new("auth_token", Kind::String, "Auth token of the account; or use an API key.").secret(),
    Field::new("api_key_sid", Kind::String, "SID of an API key, used instead of the auth token."),
    Field::new("api_key_secret", Kind::String, "Secret of that API key.").secret(),
    Field::new(
        "sender",
        Kind::String,
        "Number, short code or alphanumeric sender of messages that name none; or use a messaging service.",
    ),
    Field::new(
        "messaging_service_sid",
        Kind::String,
        "Messaging service, MG and 32 hexadecimal digits, that chooses the sender of messages that name none.",
    ),
    BASE_URL,
    ALLOW_HTTP,
];

/// The provider.
pub struct Twilio;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Config {
    account_sid: String,
    auth_token: Option<SecretString>,
    api_key_sid: Option<String>,
    api_key_secret: Option<SecretString>,
    sender: Option<String>,
    messaging_service_sid: Option<String>,
    base_url: Option<String>,
    #[serde(default)]
    allow_http: bool,
}

impl Config {
    fn authorization(&self) -> Result<HeaderValue, ConfigError> {
        let (user, secret) = match (&self.auth_token, &self.api_key_sid, &self.api_key_secret) {
            (Some(token), None, None) => (&self.account_sid, token),
            (None, Some(sid), Some(secret)) => (sid, secret),
            (None, Some(_), None) => {
                return Err(ConfigError::new("api_key_secret", "is missing", "give the secret of the API key"));
            }
            (None, None, Some(_)) => {
                return Err(ConfigError::new("api_key_sid", "is missing", "give the SID of the API key"));
            }
            (None, None, None) => {
                return Err(ConfigError::new(
                    "auth_token",
                    "is missing",
                    "give the auth token, or api_key_sid and api_key_secret",
                ));
            }
            (Some(_), ..) => {
                return Err(ConfigError::new(
                    "auth_token",
                    "is given beside an API key",
                    "give either the auth token or the API key",
                ));
            }
        };
        let credentials = STANDARD.encode(format!("{user}:{}", secret.expose_secret()));
        address::header("auth_token", &format!("Basic {credentials}"))
    }

    fn sender(self) -> Result<Option<Sender>, ConfigError> {
        match (self.sender, self.messaging_service_sid) {
            (Some(_), Some(_)) => Err(ConfigError::new(
                "sender",
                "is given beside a messaging service",
                "give either sender or messaging_service_sid",
            )),
            (Some(sender), None) => Ok(Some(Sender::From(sender))),
            (None, Some(sid)) => sid_of("messaging_service_sid", "MG", &sid).map(|()| Some(Sender::Service(sid))),
            (None, None) => Ok(None),
        }
    }
}

fn sid_of(field: &str, prefix: &str, sid: &str) -> Result<(), ConfigError> {
    let digits = sid.strip_prefix(prefix).unwrap_or_default();
    if digits.len() == 32 && digits.bytes().all(|digit| digit.is_ascii_hexdigit()) {
        return Ok(());
    }
    Err(ConfigError::new(
        field,
        format!("is not {prefix} and 32 hexadecimal digits"),
        "copy it from the Twilio console",
    ))
}

impl Provider for Twilio {
    fn slug(&self) -> &'static str {
        "twilio-sms"
    }

    fn name(&self) -> &'static str {
        "Twilio"
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
        sid_of("account_sid", "AC", &config.account_sid)?;
        let path = format!("/2010-04-01/Accounts/{}/Messages.json", config.account_sid);
        let url = address::endpoint(config.base_url.as_deref(), OWN_ADDRESS, config.allow_http, &path)?;
        Ok(Box::new(Open { url, authorization: config.authorization()?, sender: config.sender()? }))
    }
}

enum Sender {
    From(String),
    Service(String),
}

struct Open {
    url: Url,
    authorization: HeaderValue,
    sender: Option<Sender>,
}

impl Account for Open {
    fn request(&self, sms: &Sms<'_>) -> Result<Request, Verdict> {
        let sender = match (sms.sender, &self.sender) {
            (Some(sender), _) => ("From", sender),
            (None, Some(Sender::From(sender))) => ("From", sender.as_str()),
            (None, Some(Sender::Service(sid))) => ("MessagingServiceSid", sid.as_str()),
            (None, None) => return Err(Verdict::no_sender()),
        };
        let form = [("To", sms.mobile.e164()), sender, ("Body", sms.body.text())];
        let mut request = Request::post_form(self.url.clone(), &form);
        request.headers.insert(AUTHORIZATION, self.authorization.clone());
        Ok(request)
    }

    fn verdict(&self, _: &Sms<'_>, response: &Response) -> Verdict {
        let answer = response.json();
        let text = |name| answer.as_ref().and_then(|answer| answer.get(name)).and_then(scalar);
        let sid = text("sid");
        // 201 is Twilio's 'created': it alone proves the message, and a body that did not arrive costs only its id.
        if response.status == 201 || (response.is_success() && sid.is_some()) {
            return Verdict::accepted(sid);
        }
        let code = text("code").filter(|_| response.is_refusal());
        match code.as_deref().and_then(refusal) {
            Some((status, message)) => {
                let full = matches!(code.as_deref(), Some("21611" | "63038"));
                let wait = response.retry_after.or(full.then_some(FULL_FOR));
                Verdict::ended(status, code.unwrap_or_default(), message).after(wait)
            }
            None => {
                let verdict = Verdict::by_status(response);
                Verdict { error_code: code.or(verdict.error_code), ..verdict }
            }
        }
    }

    /// The list by number and day. It is sorted by a time of sending that a queued message does not have yet, and has no
    /// reference of ours.
    fn look_up(&self, attempted: &Attempted<'_>) -> Option<Request> {
        let day = (attempted.started_at - CLOCKS_DIFFER).strftime("%Y-%m-%d").to_string();
        let fields = [("To", attempted.sms.mobile.e164()), ("DateSent>", day.as_str()), ("PageSize", LIST_PAGE)];
        let mut request = Request::get(self.url.clone(), &fields);
        request.headers.insert(AUTHORIZATION, self.authorization.clone());
        Some(request)
    }

    /// By number, text and time. Absence never proves anything: an account may redact numbers and texts, a message can be
    /// deleted, and what is queued may not be listed.
    fn found(&self, attempted: &Attempted<'_>, response: &Response) -> Found {
        let Some(answer) = response.json() else {
            return Found::Nothing("the answer could not be read");
        };
        if answer.get("next_page_uri").is_some_and(|next| !next.is_null()) {
            return Found::Nothing("too many messages to this number to tell");
        }
        let messages = answer.get("messages").and_then(Value::as_array).map(Vec::as_slice).unwrap_or_default();
        let mut ours = messages.iter().filter(|message| is_it(message, attempted));
        match (ours.next(), ours.next()) {
            (None, _) => Found::Nothing("not listed, which proves nothing"),
            (Some(_), None) if attempted.has_twin => Found::Nothing("another attempt has the same number and text"),
            (Some(message), None) => {
                Found::Accepted { provider_message_id: scalar(&message["sid"]), status: scalar(&message["status"]) }
            }
            _ => Found::Nothing("several with this number and text are listed"),
        }
    }
}

/// Whether a listed message can be the attempt's.
fn is_it(message: &Value, attempted: &Attempted<'_>) -> bool {
    let text = |name: &str| message.get(name).and_then(Value::as_str).unwrap_or_default();
    let created = DateTimeParser::new().parse_timestamp(text("date_created"));
    let in_time = |created: Timestamp| {
        (attempted.started_at - CLOCKS_DIFFER..=attempted.finished_at + CLOCKS_DIFFER).contains(&created)
    };
    text("to") == attempted.sms.mobile.e164()
        && text("body") == attempted.sms.body.text()
        && text("direction").starts_with("outbound")
        && created.is_ok_and(in_time)
        && !attempted.taken_ids.iter().any(|id| id == text("sid"))
}

/// Twilio's codes that say more than the status: twilio.com/docs/api/errors. Since July 2024 there are codes of their own
/// for what was 21211 and 21614 before: a short code, a landline.
fn refusal(code: &str) -> Option<(AttemptStatus, &'static str)> {
    Some(match code {
        "10001" => (RefusedAccount, "The Twilio account is not active."),
        "20003" => (RefusedAccount, "Twilio does not accept the credentials."),
        "20404" => (RefusedAccount, "Twilio does not know this account SID."),
        "20429" => (Throttled, "Too many requests to Twilio at once; this one was not processed."),
        "21211" => (RefusedRecipient, "The recipient is not a valid number."),
        "21265" => (RefusedRecipient, "The recipient is a short code, which receives no messages."),
        "21408" => (RefusedContent, "Twilio may not send to this country by the account's permissions."),
        "21602" => (RefusedContent, "Twilio found the message empty."),
        "21606" | "21659" | "21660" => (RefusedContent, "Twilio does not accept this sender for the account."),
        "21608" => (RefusedAccount, "The Twilio trial account may only send to verified recipients."),
        "21610" => (RefusedRecipient, "The recipient has opted out."),
        "21611" => (Throttled, "The sender's queue at Twilio is full; this message was not taken."),
        "21612" => (RefusedRecipient, "Twilio cannot route to the recipient."),
        "21614" => (RefusedRecipient, "The recipient is not a mobile number."),
        "21617" => (RefusedContent, "The message is too long for Twilio."),
        "21635" => (RefusedRecipient, "The recipient is a landline."),
        "63038" => (Throttled, "The Twilio account has sent as many messages as it may in a day."),
        _ => return None,
    })
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;
    use crate::provider::conformance::{self, Case, Rendered};
    use serde_json::json;
    use std::collections::HashMap;

    const ACCOUNT: &str = "AC0123456789abcdef0123456789abcdef";
    const SUCCESS: &str = r#"{"sid":"SM0123456789abcdef0123456789abcdef","status":"queued","error_code":null,"error_message":null,"num_segments":"1","price":null}"#;

    pub(crate) fn case() -> Case {
        Case {
            provider: &Twilio,
            config_fields: conformance::field_names::<Config>(),
            config: json!({"account_sid": ACCOUNT, "auth_token": "canary-token", "sender": "+15005550006"}),
            success: (201, SUCCESS, "SM0123456789abcdef0123456789abcdef"),
            accepted_by_status: Some(201),
            render: |request| {
                let mut form: HashMap<String, String> = serde_urlencoded::from_bytes(&request.body).unwrap();
                let path = format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json");
                assert_eq!(request.url.as_str(), format!("https://api.twilio.com{path}"));
                let basic = STANDARD.encode(format!("{ACCOUNT}:canary-token"));
                assert_eq!(request.headers[AUTHORIZATION], format!("Basic {basic}"));
                let rendered = Rendered {
                    to: form.remove("To").unwrap(),
                    text: form.remove("Body").unwrap(),
                    sender: form.remove("From").unwrap(),
                };
                assert!(form.is_empty());
                rendered
            },
            plus: true,
        }
    }

    #[test]
    fn samples() {
        use AttemptStatus::*;
        let error =
            |code: u32| format!(r#"{{"code":{code},"message":"x +966501234567","more_info":"y","status":400}}"#);
        for (status, code, class) in [
            (400, 10001, RefusedAccount),
            (401, 20003, RefusedAccount),
            (404, 20404, RefusedAccount),
            (429, 20429, Throttled),
            (400, 21211, RefusedRecipient),
            (400, 21265, RefusedRecipient),
            (400, 21408, RefusedContent),
            (400, 21602, RefusedContent),
            (400, 21606, RefusedContent),
            (400, 21608, RefusedAccount),
            (400, 21610, RefusedRecipient),
            (400, 21611, Throttled),
            (429, 21611, Throttled),
            (400, 21612, RefusedRecipient),
            (400, 21614, RefusedRecipient),
            (400, 21617, RefusedContent),
            (400, 21635, RefusedRecipient),
            (400, 21659, RefusedContent),
            (400, 21660, RefusedContent),
            (400, 12345, RefusedContent),
            (401, 12345, RefusedAccount),
            (429, 63038, Throttled),
        ] {
            conformance::samples(&case(), &[(status, &error(code), class, Some(&code.to_string()))]);
        }
        conformance::samples(
            &case(),
            &[
                (201, "not json", Accepted, None),
                (200, SUCCESS, Accepted, None),
                (200, r#"{"status":"queued"}"#, Unclear, Some("unreadable_answer")),
                (500, &error(20429), Unclear, Some("http_500")),
                (503, SUCCESS, Unclear, Some("http_503")),
            ],
        );
    }

    #[test]
    fn what_is_full_is_asked_once_a_minute_unless_twilio_says_otherwise() {
        for (code, said, wait) in
            [(21611, None, Some(60)), (63038, None, Some(60)), (63038, Some(7), Some(7)), (20429, None, None)]
        {
            let body = json!({"code": code, "status": 429}).to_string().into();
            let response = Response { status: 429, retry_after: said.map(Duration::from_secs), body: Some(body) };
            let verdict = conformance::verdict(&case(), &case().config, &response);
            assert_eq!(verdict.retry_after, wait.map(Duration::from_secs), "{code}");
        }
    }

    #[test]
    fn a_look_up_goes_by_number_text_and_time() {
        let request = conformance::look_up(&case()).unwrap();
        let query: HashMap<String, String> = request.url.query_pairs().into_owned().collect();
        assert_eq!(request.url.path(), format!("/2010-04-01/Accounts/{ACCOUNT}/Messages.json"));
        assert_eq!((query["To"].as_str(), query["DateSent>"].as_str()), ("+966501234567", "2026-11-28"));

        let listed = |sid: &str| {
            json!({
                "sid": sid, "to": "+966501234567", "from": "+15005550006", "body": "hello", "direction": "outbound-api",
                "date_created": "Sat, 28 Nov 2026 07:10:02 +0000", "date_sent": null, "status": "undelivered",
            })
        };
        let with = |name: &str, value: &str| {
            let mut message = listed("SM1");
            message[name] = json!(value);
            message
        };
        let page = |messages: Vec<Value>| json!({"messages": messages, "next_page_uri": null}).to_string();
        let found = |messages| conformance::found(&case(), &page(messages), &[], |_| {});
        // Taken is taken, whatever became of it then.
        let accepted = Found::Accepted { provider_message_id: Some("SM1".into()), status: Some("undelivered".into()) };
        assert_eq!(found(vec![with("to", "+966500000000"), listed("SM1")]), accepted);
        for (name, value) in [
            ("to", "+966500000000"),
            ("body", "hello again"),
            ("direction", "inbound"),
            ("date_created", "Sat, 28 Nov 2026 07:04:59 +0000"),
            ("date_created", "Sat, 28 Nov 2026 07:15:31 +0000"),
            ("date_created", "yesterday"),
        ] {
            assert!(matches!(found(vec![with(name, value)]), Found::Nothing(_)), "{name} {value}");
        }
        // Absence, one of two, one that may be another attempt's, and a list that goes on.
        assert!(matches!(found(vec![]), Found::Nothing(_)));
        assert!(matches!(found(vec![listed("SM1"), listed("SM2")]), Found::Nothing(_)));
        let both = page(vec![listed("SM1"), listed("SM2")]);
        let taken = ["SM2".to_owned()];
        assert_eq!(conformance::found(&case(), &both, &taken, |_| {}), accepted);
        let one = page(vec![listed("SM1")]);
        assert!(matches!(
            conformance::found(&case(), &one, &[], |attempted| attempted.has_twin = true),
            Found::Nothing(_)
        ));
        let taken = ["SM1".to_owned()];
        let found = conformance::found(&case(), &one, &taken, |_| {});
        assert!(matches!(found, Found::Nothing(_)), "{found:?}");
        let more = json!({"messages": [listed("SM1")], "next_page_uri": "/2010-04-01/…"}).to_string();
        assert!(matches!(conformance::found(&case(), &more, &[], |_| {}), Found::Nothing(_)));
    }

    #[test]
    fn one_way_to_authenticate_and_one_sender() {
        let service = "MG0123456789abcdef0123456789abcdef";
        let config = json!({
            "account_sid": ACCOUNT, "api_key_sid": "SK1", "api_key_secret": "s", "messaging_service_sid": service,
        });
        let request = conformance::request(&case(), &config, None).unwrap();
        let form: HashMap<String, String> = serde_urlencoded::from_bytes(&request.body).unwrap();
        assert_eq!(form["MessagingServiceSid"], service);
        assert!(!form.contains_key("From"));
        assert_eq!(request.headers[AUTHORIZATION], format!("Basic {}", STANDARD.encode("SK1:s")));

        for (change, field) in [
            (json!({"auth_token": null}), "auth_token"),
            (json!({"auth_token": null, "api_key_sid": "SK1"}), "api_key_secret"),
            (json!({"auth_token": null, "api_key_secret": "s"}), "api_key_sid"),
            (json!({"api_key_sid": "SK1", "api_key_secret": "s"}), "auth_token"),
            (json!({"account_sid": "AC/../../x"}), "account_sid"),
            (json!({"messaging_service_sid": service}), "sender"),
            (json!({"sender": null, "messaging_service_sid": "MG1"}), "messaging_service_sid"),
        ] {
            let mut config = case().config;
            config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
            let error = Twilio.open(&config).err().unwrap();
            assert_eq!(error.field, field, "{change}");
        }
    }
}
