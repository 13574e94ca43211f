//! One element of the array that `sms_outbox_enqueue_many()` takes: the fields of `sms_outbox_enqueue()` as JSON.

use std::collections::BTreeMap;

use serde::Deserialize;
use serde_json::value::RawValue;

use crate::arguments::{Fields, given};
use crate::datetime::{self, Micros, Written};
use crate::refusal::{Refusal, State};

/// Elements of one call.
const MOST_ELEMENTS: usize = 10_000;

/// The fields of one message, still as JSON says them.
#[derive(Debug, Default)]
pub(crate) struct Element {
    mobile: Option<String>,
    message: Option<String>,
    sender: Option<String>,
    datetime: Option<Micros>,
    preferred_provider_slug: Option<String>,
    priority: Option<i32>,
    valid_until: Option<Micros>,
    pub(crate) idempotency_key: Option<String>,
    /// JSON text, byte for byte as it came: no number loses a digit.
    pub(crate) meta: Option<String>,
}

impl Element {
    pub(crate) fn fields(&self) -> Fields<'_> {
        Fields {
            mobile: self.mobile.as_deref(),
            message: self.message.as_deref(),
            sender: self.sender.as_deref(),
            datetime: self.datetime,
            preferred_provider_slug: self.preferred_provider_slug.as_deref(),
            priority: self.priority,
            valid_until: self.valid_until,
        }
    }
}

/// Reads the array; `place` puts a local time into the organization's time zone.
pub(crate) fn read(messages: &str, place: &dyn Fn(Micros) -> Micros) -> Result<Vec<Element>, Refusal> {
    let cure = "Give a JSON array of at most 10000 objects with the fields of sms_outbox_enqueue().";
    let elements: Vec<&RawValue> =
        serde_json::from_str(messages).map_err(|_| Refusal::argument("messages", "is not a JSON array", cure))?;
    if elements.len() > MOST_ELEMENTS {
        let fault = format!("has {} elements, more than {MOST_ELEMENTS}", elements.len());
        return Err(Refusal::argument("messages", &fault, cure));
    }
    let read = |(index, element): (usize, &&RawValue)| {
        element_of(element.get(), place).map_err(|refusal| refusal.within(&name(index)))
    };
    elements.iter().enumerate().map(read).collect()
}

/// What an element is called in errors.
pub(crate) fn name(index: usize) -> String {
    format!("messages[{index}]")
}

fn element_of(json: &str, place: &dyn Fn(Micros) -> Micros) -> Result<Element, Refusal> {
    let fields: BTreeMap<String, &RawValue> = serde_json::from_str(json).map_err(|_| {
        Refusal::new(State::InvalidArgument, "is not a JSON object")
            .with_hint("Give the fields of sms_outbox_enqueue().")
    })?;
    let mut element = Element::default();
    for (name, value) in fields {
        let json = value.get();
        match name.as_str() {
            "mobile" => element.mobile = text("mobile", json)?,
            "message" => element.message = text("message", json)?,
            "sender" => element.sender = text("sender", json)?,
            "datetime" => element.datetime = time("datetime", json, place)?,
            "preferred_provider_slug" => element.preferred_provider_slug = text("preferred_provider_slug", json)?,
            "idempotency_key" => element.idempotency_key = text("idempotency_key", json)?,
            "meta" => element.meta = (json != "null").then(|| json.to_owned()),
            "priority" => element.priority = priority(json)?,
            "valid_until" => element.valid_until = time("valid_until", json, place)?,
            // Not repeated in the error: it may hold anything.
            _ => {
                return Err(Refusal::new(State::InvalidArgument, "has a field that is none of a message").with_hint(
                    "The fields are mobile, message, sender, datetime, preferred_provider_slug, idempotency_key, meta, priority and \
                     valid_until; organization_id is the second argument of the function.",
                ));
            }
        }
    }
    Ok(element)
}

fn json<'a, T: Deserialize<'a>>(column: &'static str, json: &'a str, fault: &str) -> Result<T, Refusal> {
    serde_json::from_str(json)
        .map_err(|_| Refusal::argument(column, fault, "null, or leaving the field out, means 'not given'."))
}

fn text(column: &'static str, value: &str) -> Result<Option<String>, Refusal> {
    json(column, value, "is not a string")
}

/// A number, or an empty string for none, as forms send it.
fn priority(value: &str) -> Result<Option<i32>, Refusal> {
    if value == "\"\"" {
        return Ok(None);
    }
    json("priority", value, "is not an integer")
}

fn time(column: &'static str, value: &str, place: &dyn Fn(Micros) -> Micros) -> Result<Option<Micros>, Refusal> {
    written_time(column, text(column, value)?.as_deref(), place)
}

/// A time written as text; `place` puts a local one into the organization's time zone.
pub(crate) fn written_time(
    column: &'static str,
    text: Option<&str>,
    place: &dyn Fn(Micros) -> Micros,
) -> Result<Option<Micros>, Refusal> {
    let Some(text) = given(text) else { return Ok(None) };
    match datetime::parse(text) {
        Some(Written::Moment(at)) => Ok(Some(at)),
        Some(Written::Local(at)) => Ok(Some(place(at))),
        None => Err(Refusal::argument(
            column,
            "is not a date and time",
            "Give RFC 3339, like 2026-12-31T18:00:00+03:00, or YYYY-MM-DD HH:MM[:SS] in the organization's time zone.",
        )),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn read_one(json: &str) -> Result<Element, Refusal> {
        read(&format!("[{json}]"), &|local| local + 1).map(|mut elements| elements.remove(0))
    }

    #[test]
    fn a_full_one() {
        let element = read_one(
            r#"{"mobile":"0501234567","message":"مرحبا","sender":"","datetime":"2000-01-01 00:00","preferred_provider_slug":null,
                "idempotency_key":"k","meta":{"n": 1.00000000000000000000000000001},"priority":"","valid_until":"2000-01-02T00:00:00Z"}"#,
        )
        .unwrap();
        let fields = element.fields();
        assert_eq!((fields.mobile, fields.message, fields.sender), (Some("0501234567"), Some("مرحبا"), Some("")));
        assert_eq!((fields.datetime, fields.valid_until), (Some(1), Some(86_400_000_000)));
        assert_eq!((fields.priority, element.idempotency_key.as_deref()), (None, Some("k")));
        assert_eq!(element.meta.as_deref(), Some(r#"{"n": 1.00000000000000000000000000001}"#));
    }

    #[test]
    fn errors_name_element_and_field() {
        for (json, message, column) in [
            ("{}, 7", "messages[1]: is not a JSON object", None),
            (r#"{"mobil": "x"}"#, "messages[0]: has a field that is none of a message", None),
            (r#"{"mobile": 966501234567}"#, "messages[0].mobile: is not a string", Some("mobile")),
            (r#"{"datetime": "tomorrow"}"#, "messages[0].datetime: is not a date and time", Some("datetime")),
            (r#"{"datetime": "infinity"}"#, "messages[0].datetime: is not a date and time", Some("datetime")),
            (r#"{"priority": 1.5}"#, "messages[0].priority: is not an integer", Some("priority")),
            (r#"{"priority": "1"}"#, "messages[0].priority: is not an integer", Some("priority")),
        ] {
            let refusal = read_one(json).unwrap_err();
            assert_eq!((refusal.message.as_str(), refusal.column), (message, column));
        }
        for json in ["{}", "7", "\"[]\""] {
            assert_eq!(read(json, &|local| local).unwrap_err().column, Some("messages"));
        }
        assert!(read(&format!("[{}{{}}]", "{},".repeat(9_999)), &|local| local).is_ok());
        assert!(read(&format!("[{}{{}}]", "{},".repeat(10_000)), &|local| local).is_err());
    }
}
