//! What an answer means: the class of an attempt's end, and what HTTP alone tells where the provider says nothing else.

use std::time::Duration;

use bytes::Bytes;
use serde_json::Value;

use crate::message::AttemptStatus;

/// What a provider answered.
#[derive(Clone, Debug)]
pub struct Response {
    /// HTTP status.
    pub status: u16,
    /// `Retry-After`, already counted from the moment of the answer.
    pub retry_after: Option<Duration>,
    /// The body; `None` when it was cut off, stalled or too long to read: then the status is all that is known.
    pub body: Option<Bytes>,
}

impl Response {
    /// Whether the status is of the 2xx family.
    pub fn is_success(&self) -> bool {
        (200..300).contains(&self.status)
    }

    /// Whether the status says that the request was refused: only then a refusal in the body may be believed.
    /// After a 5xx, or a redirect, nobody knows what was done.
    pub fn is_refusal(&self) -> bool {
        (400..500).contains(&self.status) && self.status != 408
    }

    /// The body as JSON, when it came whole and is JSON.
    pub fn json(&self) -> Option<Value> {
        serde_json::from_slice(self.body.as_deref()?).ok()
    }
}

/// The end of one attempt as a provider adapter understands it. The text is our own, so that nothing which the
/// provider echoes can reach a log through it; what the provider said is kept as the response.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The class.
    pub status: AttemptStatus,
    /// The provider's own code, or ours.
    pub error_code: Option<String>,
    /// One sentence for a person.
    pub error_message: Option<String>,
    /// The provider's id of the message.
    pub provider_message_id: Option<String>,
    /// How long the provider asks us to wait.
    pub retry_after: Option<Duration>,
}

impl Verdict {
    /// Taken, with the provider's id where it gave one.
    pub fn accepted(provider_message_id: Option<String>) -> Self {
        Self {
            status: AttemptStatus::Accepted,
            error_code: None,
            error_message: None,
            provider_message_id,
            retry_after: None,
        }
    }

    /// Any other end.
    pub fn ended(status: AttemptStatus, code: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            status,
            error_code: Some(code.into()),
            error_message: Some(message.into()),
            provider_message_id: None,
            retry_after: None,
        }
    }

    /// The same with the wait that the answer asked for.
    pub fn after(self, retry_after: Option<Duration>) -> Self {
        Self { retry_after, ..self }
    }

    /// A success by HTTP whose body does not say what became of the message.
    pub fn unreadable() -> Self {
        Self::ended(
            AttemptStatus::Unclear,
            "unreadable_answer",
            "The provider's answer could not be read, so the message may have been sent.",
        )
    }

    /// No sender in the message and none in the app: this app cannot send this message, another one may.
    pub fn no_sender() -> Self {
        Self::ended(
            AttemptStatus::RefusedContent,
            "sender_missing",
            "The provider needs a sender, and neither the message nor the app names one.",
        )
    }

    /// What the status alone means.
    pub fn by_status(response: &Response) -> Self {
        use AttemptStatus::*;
        let status = response.status;
        let code = format!("http_{status}");
        let (class, message) = match status {
            200..=299 => return Self::unreadable(),
            300..=399 => {
                (Unclear, "The provider answered with a redirect, which is never followed; check the app's address.")
            }
            401 => (RefusedAccount, "The provider refused the app's credentials."),
            402 => (RefusedAccount, "The provider refuses until the account's balance is topped up."),
            403 => (RefusedAccount, "The provider forbids the app's account or this worker's address to send."),
            408 => (Unclear, "The provider gave up on reading the request, so the message may have been sent."),
            409 => (Unclear, "The provider reports a conflict, so the message may have been sent before."),
            429 => (Throttled, "The provider asks to slow down."),
            400..=499 => (RefusedContent, "The provider refused the message."),
            _ => (Unclear, "The provider failed after it had taken the request, so the message may have been sent."),
        };
        Self::ended(class, code, message).after(response.retry_after)
    }
}

/// A JSON text or number as text: providers write codes and ids either way.
pub fn scalar(value: &Value) -> Option<String> {
    match value {
        Value::String(text) if !text.trim().is_empty() => Some(text.trim().to_owned()),
        Value::Number(number) => Some(number.to_string()),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn status_alone() {
        use AttemptStatus::*;
        for (status, class) in [
            (200, Unclear),
            (204, Unclear),
            (301, Unclear),
            (307, Unclear),
            (400, RefusedContent),
            (401, RefusedAccount),
            (402, RefusedAccount),
            (403, RefusedAccount),
            (404, RefusedContent),
            (405, RefusedContent),
            (408, Unclear),
            (409, Unclear),
            (413, RefusedContent),
            (415, RefusedContent),
            (422, RefusedContent),
            (429, Throttled),
            (500, Unclear),
            (502, Unclear),
            (503, Unclear),
            (504, Unclear),
            (101, Unclear),
            (999, Unclear),
        ] {
            let response = Response { status, retry_after: None, body: None };
            assert_eq!(Verdict::by_status(&response).status, class, "{status}");
        }
    }

    #[test]
    fn ids_and_codes_may_be_texts_or_numbers() {
        let large: Value = serde_json::from_str("5452899970123456789").unwrap();
        assert_eq!(scalar(&large).as_deref(), Some("5452899970123456789"));
        assert_eq!(scalar(&Value::from(" 100 ")).as_deref(), Some("100"));
        assert_eq!(scalar(&Value::from("")), None);
        assert_eq!(scalar(&Value::Null), None);
    }
}
