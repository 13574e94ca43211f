//! What every provider must do, run for each of them. A provider brings a [`Case`]; a provider of the registry without
//! one fails the suite.

use std::time::Duration;

use serde::de::{self, DeserializeOwned};
use serde_json::{Value, json};

use super::redact::Redaction;
use super::{Attempted, Found, Provider, Registry, Request, Response, Sms, Verdict, config};
use crate::message::{AttemptStatus, Body, MobileNumber};

/// One provider and what the suite needs to know of it.
pub(super) struct Case {
    pub(super) provider: &'static dyn Provider,
    /// The fields of its config struct: [`field_names`].
    pub(super) config_fields: &'static [&'static str],
    /// A good configuration with a sender; each secret in it contains `canary`.
    pub(super) config: Value,
    /// Status and body of a success, and the id in it.
    pub(super) success: (u16, &'static str, &'static str),
    /// The status that proves an acceptance without a readable body, where the provider documents one.
    pub(super) accepted_by_status: Option<u16>,
    /// Reads a request back, independently of the code that wrote it; asserts what else must be in it.
    pub(super) render: fn(&Request) -> Rendered,
    /// Whether the recipient is written with its plus.
    pub(super) plus: bool,
}

/// What a request says.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Rendered {
    pub(super) to: String,
    pub(super) text: String,
    pub(super) sender: String,
}

pub(super) const REFERENCE: &str = "r00000000000000000000000007-1";

const NUMBER: &str = "+966501234567";

/// Texts that break naive encoding.
pub(super) const TEXTS: &[&str] = &[
    "Order 123 is ready for pickup",
    "طلبك رقم ١٢٣ جاهز للاستلام",
    "👩‍👩‍👧 done 😀",
    "1+1=2 & 50% off; a=b&to=+15005550006#x?y",
    "\"quoted\" 'single' \\back\\slash\\ </script>",
    "line one\nline two\r\n\ttab",
    "\u{200f}rtl\u{2028}separator\u{1}control",
    "\"}],\"to\":[\"+15005550006\"",
];

fn cases() -> Vec<Case> {
    vec![
        super::taqnyat::tests::case(),
        super::mora::tests::case(),
        super::twilio::tests::case(),
        super::generic_http::tests::case(),
        super::sandbox::tests::case(),
    ]
}

fn with_sms<T>(text: &str, sender: Option<&str>, act: impl FnOnce(&Sms<'_>) -> T) -> T {
    let (mobile, body) = (MobileNumber::new(NUMBER), Body::new(text));
    act(&Sms { mobile: &mobile, body: &body, sender, reference: REFERENCE })
}

/// The request of a message with this text.
pub(super) fn request_with(case: &Case, config: &Value, text: &str, sender: Option<&str>) -> Result<Request, Verdict> {
    let account = case.provider.open(config).unwrap();
    with_sms(text, sender, |sms| account.request(sms))
}

/// The request of a plain message.
pub(super) fn request(case: &Case, config: &Value, sender: Option<&str>) -> Result<Request, Verdict> {
    request_with(case, config, "hello", sender)
}

/// What the provider reads in an answer.
pub(super) fn verdict(case: &Case, config: &Value, response: &Response) -> Verdict {
    let account = case.provider.open(config).unwrap();
    let verdict = with_sms("hello", None, |sms| account.verdict(sms, response));
    assert_well_formed(&verdict);
    verdict
}

/// When the attempts of look-ups began and ended.
const STARTED: &str = "2026-11-28T07:10:00Z";
const FINISHED: &str = "2026-11-28T07:10:30Z";

fn with_attempted<T>(
    taken_ids: &[String],
    change: impl FnOnce(&mut Attempted<'_>),
    act: impl FnOnce(&Attempted<'_>) -> T,
) -> T {
    with_sms("hello", None, |sms| {
        let (started_at, finished_at) = (STARTED.parse().unwrap(), FINISHED.parse().unwrap());
        let mut attempted =
            Attempted { sms: *sms, started_at, finished_at, is_settled: true, taken_ids, has_twin: false };
        change(&mut attempted);
        act(&attempted)
    })
}

/// The request that asks about a plain message.
pub(super) fn look_up(case: &Case) -> Option<Request> {
    let account = case.provider.open(&case.config).unwrap();
    with_attempted(&[], |_| {}, |attempted| account.look_up(attempted))
}

/// What the provider reads in the answer to it.
pub(super) fn found(case: &Case, body: &str, taken_ids: &[String], change: impl FnOnce(&mut Attempted<'_>)) -> Found {
    let account = case.provider.open(&case.config).unwrap();
    let response = Response { status: 200, retry_after: None, body: Some(body.to_owned().into()) };
    with_attempted(taken_ids, change, |attempted| account.found(attempted, &response))
}

/// Checks a table of answers: status, body, class, error code.
pub(super) fn samples(case: &Case, table: &[(u16, &str, AttemptStatus, Option<&str>)]) {
    for (status, body, class, code) in table {
        let response = Response { status: *status, retry_after: None, body: Some(body.to_string().into()) };
        let verdict = verdict(case, &case.config, &response);
        assert_eq!((verdict.status, verdict.error_code.as_deref()), (*class, *code), "{status} {body}");
    }
}

/// The field names that a config struct takes, as serde knows them.
pub(super) fn field_names<T: DeserializeOwned>() -> &'static [&'static str] {
    match T::deserialize(Names) {
        Err(Taken(names)) => names,
        Ok(_) => &[],
    }
}

struct Names;

#[derive(Debug)]
struct Taken(&'static [&'static str]);

impl std::fmt::Display for Taken {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:?}", self.0)
    }
}

impl std::error::Error for Taken {}

impl de::Error for Taken {
    fn custom<T: std::fmt::Display>(_: T) -> Self {
        Self(&[])
    }
}

impl<'de> de::Deserializer<'de> for Names {
    type Error = Taken;

    fn deserialize_any<V: de::Visitor<'de>>(self, _: V) -> Result<V::Value, Taken> {
        Err(Taken(&[]))
    }

    fn deserialize_struct<V: de::Visitor<'de>>(
        self,
        _: &'static str,
        fields: &'static [&'static str],
        _: V,
    ) -> Result<V::Value, Taken> {
        Err(Taken(fields))
    }

    serde::forward_to_deserialize_any! {
        bool i8 i16 i32 i64 i128 u8 u16 u32 u64 u128 f32 f64 char str string bytes byte_buf option unit unit_struct
        newtype_struct seq tuple tuple_struct map enum identifier ignored_any
    }
}

/// One sentence, a code, and nothing of the message or the account in either.
fn assert_well_formed(verdict: &Verdict) {
    let accepted = verdict.status == AttemptStatus::Accepted;
    assert_eq!(verdict.error_code.is_none(), accepted, "{verdict:?}");
    assert_eq!(verdict.error_message.is_none(), accepted, "{verdict:?}");
    if let Some(message) = &verdict.error_message {
        assert!(message.ends_with('.') && !message[..message.len() - 1].contains(". "), "{message}");
        assert!(!message.contains("hello") && !message.contains("canary"), "{message}");
        assert!(!message.chars().any(|c| c.is_ascii_digit()), "{message}");
    }
}

#[test]
fn every_provider_has_a_case() {
    let slugs: Vec<_> = cases().iter().map(|case| case.provider.slug()).collect();
    assert_eq!(slugs, Registry::new().iter().map(|provider| provider.slug()).collect::<Vec<_>>());
}

#[test]
fn described_fields_are_those_of_the_config_struct() {
    for case in cases() {
        let mut described: Vec<_> = case.provider.fields().iter().map(|field| field.name).collect();
        let mut taken = case.config_fields.to_vec();
        described.sort_unstable();
        taken.sort_unstable();
        assert_eq!(described, taken, "{}", case.provider.slug());
        assert!(case.provider.fields().iter().all(|field| field.description.ends_with('.')));
    }
}

#[test]
fn requests_say_number_text_and_sender_whatever_they_are() {
    for case in cases() {
        for text in TEXTS {
            for (asked, sent) in [(None, case.config["sender"].as_str().unwrap()), (Some("Shop & Co"), "Shop & Co")] {
                let request = request_with(&case, &case.config, text, asked).unwrap();
                let to = if case.plus { NUMBER } else { &NUMBER[1..] };
                let expected = Rendered { to: to.into(), text: text.to_string(), sender: sent.into() };
                assert_eq!((case.render)(&request), expected, "{}", case.provider.slug());
                let shown = format!("{request:?}");
                assert!(!shown.contains("canary") && !shown.contains("966") && !shown.contains(text), "{shown}");
            }
        }
    }
}

#[test]
fn a_missing_field_an_unknown_one_and_a_wrong_type_are_named() {
    for case in cases() {
        let slug = case.provider.slug();
        for field in case.provider.fields().iter().filter(|field| field.required) {
            let mut config = case.config.clone();
            config.as_object_mut().unwrap().remove(field.name);
            assert_eq!(case.provider.open(&config).err().unwrap().field, field.name, "{slug}");
        }
        for field in case.provider.fields() {
            let mut config = case.config.clone();
            config[field.name] = json!([["canary"]]);
            let error = case.provider.open(&config).err().unwrap();
            assert_eq!(error.field, field.name, "{slug}");
            assert!(!error.to_string().contains("canary"));
        }
        let mut config = case.config.clone();
        config["no_such_field"] = json!("canary");
        let error = case.provider.open(&config).err().unwrap();
        assert_eq!(error.field, "no_such_field", "{slug}");
        assert!(!error.to_string().contains("canary"));
        assert!(case.provider.open(&Value::Null).is_err());
    }
}

#[test]
fn plain_http_is_refused_unless_allowed_or_local() {
    for case in cases() {
        let field = if case.provider.slug() == "generic-http" { "url" } else { "base_url" };
        let open = |url: &str, allow: bool| {
            let mut config = case.config.clone();
            config[field] = json!(url);
            config["allow_http"] = json!(allow);
            case.provider.open(&config).map(|_| ()).map_err(|error| error.field)
        };
        assert_eq!(open("http://gateway.example", false), Err(field.to_owned()));
        assert_eq!(open("http://gateway.example", true), Ok(()));
        assert_eq!(open("http://127.0.0.1:1", false), Ok(()));
        assert_eq!(open("file:///etc/passwd", true), Err(field.to_owned()));
    }
}

/// What doctor tries to reach is where the requests go.
#[test]
fn requests_go_to_the_own_address_unless_the_configuration_names_another() {
    for case in cases() {
        let named = ["base_url", "url"].into_iter().find_map(|field| case.config[field].as_str());
        let address = named.or(case.provider.own_address()).unwrap();
        let request = request(&case, &case.config, None).unwrap();
        assert_eq!(request.url.origin(), reqwest::Url::parse(address).unwrap().origin(), "{}", case.provider.slug());
    }
}

#[test]
fn success_is_accepted_with_its_id() {
    for case in cases() {
        let (status, body, id) = case.success;
        let response = Response { status, retry_after: None, body: Some(body.into()) };
        assert_eq!(
            verdict(&case, &case.config, &response),
            Verdict::accepted(Some(id.into())),
            "{}",
            case.provider.slug()
        );
    }
}

#[test]
fn http_ends_have_their_class() {
    use AttemptStatus::*;
    let wait = Some(Duration::from_secs(7));
    for case in cases() {
        for (status, class) in [
            (301, Unclear),
            (302, Unclear),
            (307, Unclear),
            (308, Unclear),
            (400, RefusedContent),
            (401, RefusedAccount),
            (402, RefusedAccount),
            (403, RefusedAccount),
            (404, RefusedContent),
            (405, RefusedContent),
            (408, Unclear),
            (413, RefusedContent),
            (415, RefusedContent),
            (422, RefusedContent),
            (429, Throttled),
            (500, Unclear),
            (502, Unclear),
            (503, Unclear),
            (504, Unclear),
        ] {
            // A success in the body proves nothing against the status.
            for body in [None, Some(""), Some("{}"), Some("[]"), Some("<html>"), Some("null"), Some(case.success.1)] {
                let response = Response { status, retry_after: wait, body: body.map(Into::into) };
                let verdict = verdict(&case, &case.config, &response);
                assert_eq!(verdict.status, class, "{} {status} {body:?}", case.provider.slug());
                if class == Throttled {
                    assert_eq!(verdict.retry_after, wait);
                }
            }
        }
    }
}

#[test]
fn a_2xx_that_cannot_be_read_is_unclear() {
    for case in cases() {
        let truncated = &case.success.1[..case.success.1.len() - 2];
        for status in [200, 201, 202, 204, case.success.0] {
            for body in [None, Some(""), Some("{}"), Some("[]"), Some("<html>ok</html>"), Some("null"), Some(truncated)]
            {
                let response = Response { status, retry_after: None, body: body.map(Into::into) };
                let class = match case.accepted_by_status == Some(status) {
                    true => AttemptStatus::Accepted,
                    false => AttemptStatus::Unclear,
                };
                let verdict = verdict(&case, &case.config, &response);
                assert_eq!(verdict.status, class, "{} {status} {body:?}", case.provider.slug());
            }
        }
    }
}

#[test]
fn an_echo_of_secrets_is_not_kept() {
    for case in cases() {
        let secrets = config::secrets(case.provider.fields(), &case.config);
        assert!(secrets.iter().any(|secret| secret.contains("canary")), "{}", case.provider.slug());
        for status in [200, 201, 400, 401, 500] {
            let echo = json!({"code": secrets, "message": secrets.concat(), "statusCode": secrets, "to": NUMBER, "text": "hello"});
            let response = Response { status, retry_after: None, body: Some(echo.to_string().into()) };
            let verdict = verdict(&case, &case.config, &response);
            let kept = with_sms("hello", None, |sms| Redaction::new(&secrets, sms).response(&response)).unwrap();
            let shown = format!("{verdict:?} {kept}");
            for hidden in ["canary", "501234567", "hello"] {
                assert!(!shown.contains(hidden), "{} {shown}", case.provider.slug());
            }
        }
    }
}

#[test]
fn a_look_up_reads_and_an_answer_that_cannot_be_read_proves_nothing() {
    for case in cases() {
        let slug = case.provider.slug();
        let request = look_up(&case);
        assert_eq!(request.is_some(), case.provider.looks_up(), "{slug}");
        let Some(request) = request else { continue };
        let sends = self::request(&case, &case.config, None).unwrap();
        assert!(request.method == "GET" && request.body.is_empty(), "{slug}");
        assert_eq!(request.url.origin(), sends.url.origin(), "{slug}");
        assert!(request.headers.values().any(|value| value.is_sensitive()), "{slug} asks without credentials");
        for body in
            ["", "{}", "[]", "null", "7", "<html>", r#"{"messages":7}"#, r#"{"messages":[7,null,{}]}"#, case.success.1]
        {
            assert!(matches!(found(&case, body, &[], |_| {}), Found::Nothing(_)), "{slug} {body}");
        }
    }
}
