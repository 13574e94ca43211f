//! What of a provider's answer may be kept: JSON, short, without secrets, the recipient or the text of the message.

use std::borrow::Cow;

use serde_json::Value;

use super::{Response, Sms};
use crate::message::mask;

/// Longest answer that is kept, in bytes of JSON.
const LONGEST: usize = 2048;

/// Texts shorter than this are replaced only where they stand alone: a body `1` is in every date.
const SHORTEST_WITHIN: usize = 4;

/// Replaces what must not be kept.
pub struct Redaction<'a> {
    replaced: Vec<(&'a str, Cow<'static, str>)>,
}

impl<'a> Redaction<'a> {
    /// Hides these secrets, and the recipient and text of this message.
    pub fn new(secrets: &[&'a str], sms: &Sms<'a>) -> Self {
        let mut replaced: Vec<(&'a str, Cow<'static, str>)> = Vec::with_capacity(secrets.len() + 3);
        replaced.extend(secrets.iter().map(|secret| (*secret, Cow::Borrowed("[secret]"))));
        replaced.push((sms.body.text(), Cow::Borrowed("[text]")));
        replaced.push((sms.mobile.e164(), mask(sms.mobile.e164()).into()));
        replaced.push((sms.mobile.digits(), mask(sms.mobile.digits()).into()));
        replaced.retain(|(text, _)| !text.is_empty());
        // The longest first: a secret may contain another.
        replaced.sort_by_key(|(text, _)| std::cmp::Reverse(text.len()));
        Self { replaced }
    }

    /// The text without what must not be kept.
    pub fn text(&self, text: &str) -> String {
        let mut clean = text.replace('\0', "\u{fffd}");
        for (hidden, shown) in &self.replaced {
            if clean == *hidden {
                return shown.clone().into_owned();
            }
            if hidden.len() >= SHORTEST_WITHIN && clean.contains(hidden) {
                clean = clean.replace(hidden, shown);
            }
        }
        clean
    }

    fn value(&self, value: Value) -> Value {
        match value {
            Value::String(text) => Value::String(self.text(&text)),
            Value::Number(number) => {
                let text = number.to_string();
                let hidden = self.replaced.iter().find(|(hidden, _)| *hidden == text);
                hidden.map_or(Value::Number(number), |(_, shown)| Value::String(shown.clone().into_owned()))
            }
            Value::Array(items) => items.into_iter().map(|item| self.value(item)).collect(),
            Value::Object(map) => map.into_iter().map(|(name, item)| (self.text(&name), self.value(item))).collect(),
            other => other,
        }
    }

    /// The answer as JSON text; what is not JSON becomes a JSON string.
    pub fn response(&self, response: &Response) -> Option<String> {
        let body = response.body.as_deref().filter(|body| !body.is_empty())?;
        let kept = match serde_json::from_slice(body) {
            Ok(value) => self.value(value),
            Err(_) => Value::String(self.text(&String::from_utf8_lossy(body))),
        };
        let text = kept.to_string();
        if text.len() <= LONGEST {
            return Some(text);
        }
        let whole = match kept {
            Value::String(plain) => plain,
            _ => text,
        };
        Some(shorten(&whole))
    }
}

/// The beginning of a text as a JSON string within the bound.
fn shorten(text: &str) -> String {
    const MARK: &str = "…";
    let mut end = text.len().min(LONGEST - MARK.len() - 2);
    loop {
        end = text.floor_char_boundary(end);
        let quoted = Value::String(format!("{}{MARK}", &text[..end])).to_string();
        if quoted.len() <= LONGEST {
            return quoted;
        }
        // Each byte too many is an escape, which cuts one to six bytes.
        end -= (quoted.len() - LONGEST).div_ceil(6);
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::message::{Body, MobileNumber};

    fn kept(body: &[u8]) -> Option<String> {
        let (mobile, text) = (MobileNumber::new("+966501234567"), Body::new("your code is 4711"));
        let sms = Sms { mobile: &mobile, body: &text, sender: None, reference: "r-1" };
        let response = Response { status: 200, retry_after: None, body: Some(body.to_vec().into()) };
        Redaction::new(&["tok-secret", "tok-secret-long"], &sms).response(&response)
    }

    #[test]
    fn hides_secrets_recipient_and_text_wherever_they_stand() {
        let json = kept(
            br#"{"to":"+966501234567","n":966501234567,"966501234567":["x 966501234567,"],"body":"your code is 4711","auth":"Bearer tok-secret-long","ok":201}"#,
        )
        .unwrap();
        assert_eq!(
            json,
            r#"{"to":"+9665•••67","n":"96650•••67","96650•••67":["x 96650•••67,"],"body":"[text]","auth":"Bearer [secret]","ok":201}"#
        );
        assert_eq!(kept(b"bad tok-secret").unwrap(), r#""bad [secret]""#);
    }

    #[test]
    fn is_always_short_valid_json() {
        let escapes = "\u{1}\"\\\n".repeat(4000);
        let long = serde_json::json!({"a": "é".repeat(5000)}).to_string();
        for body in [escapes.as_bytes(), long.as_bytes(), b"<html>\xff\0</html>", b"[1,2", "…".repeat(9000).as_bytes()]
        {
            let json = kept(body).unwrap();
            assert!(json.len() <= LONGEST, "{}", json.len());
            assert!(!json.contains("\\u0000"));
            serde_json::from_str::<Value>(&json).unwrap();
        }
        assert_eq!(kept(b""), None);
        assert_eq!(kept(b"[1, 2]").unwrap(), "[1,2]");
    }

    #[test]
    fn a_short_text_is_hidden_only_where_it_stands_alone() {
        let (mobile, text) = (MobileNumber::new("+966501234567"), Body::new("1"));
        let sms = Sms { mobile: &mobile, body: &text, sender: None, reference: "r-1" };
        let redaction = Redaction::new(&[], &sms);
        assert_eq!(redaction.text("2021-11-01"), "2021-11-01");
        assert_eq!(redaction.text("1"), "[text]");
    }
}
