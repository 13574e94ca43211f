//! Our own wire: JSON, bearer token, the client's reference kept.
//!
//! `POST /sandbox/v1/messages` with `{"to", "text", "sender", "reference"}` answers 201 `{"id", "reference", "status"}`,
//! or an error `{"error": {"code", "message"}}`, where `not_processed` documents that nothing was sent.
//! `GET /sandbox/v1/messages?reference=…&since=…` lists what was accepted under a reference: `{"messages", "complete"}`, where
//! `complete` says that nothing accepted since then is forgotten.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, Submission, Wire, is_digits, only_post};
use crate::sandbox::journal::{Accepted, Journal};
use crate::sandbox::request::{Answer, Request};
use crate::sandbox::rules::Behaviour;

pub(super) struct Own;

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Send {
    to: String,
    text: String,
    sender: Option<String>,
    reference: Option<String>,
}

impl Wire for Own {
    fn slug(&self) -> &'static str {
        "sandbox"
    }

    fn read(&self, request: &Request) -> Result<Submission, Fault> {
        only_post(request)?;
        let account = request.bearer().ok_or_else(|| Fault::new(401, "account_refused", "No token."))?;
        let send: Send = serde_json::from_slice(&request.body)
            .map_err(|_| Fault::new(400, "content_refused", "Not the JSON of a message."))?;
        if !send.to.strip_prefix('+').is_some_and(is_digits) {
            return Err(self.refusal(Behaviour::RefuseRecipient));
        }
        if send.text.is_empty() {
            return Err(self.refusal(Behaviour::RefuseContent));
        }
        Ok(Submission { account, to: send.to, sender: send.sender, body: send.text, reference: send.reference })
    }

    fn look_up(&self, request: &Request, journal: &Journal) -> Option<Answer> {
        let reference = request.field("reference").filter(|_| request.method == "GET")?;
        let Some(account) = request.bearer() else {
            return Some(self.fault(&self.refusal(Behaviour::RefuseAccount)));
        };
        let (found, remembers_since) = journal.find(|accepted| {
            accepted.provider == self.slug()
                && accepted.account == account
                && accepted.reference.as_ref() == Some(&reference)
        });
        let since = request.field("since").and_then(|since| since.parse::<jiff::Timestamp>().ok());
        let message = |accepted: &Accepted| json!({"id": accepted.provider_message_id, "reference": accepted.reference, "status": "accepted"});
        let messages: Vec<Value> = found.iter().map(message).collect();
        let complete = since.is_some_and(|since| since > remembers_since);
        Some(Answer::json(200, json!({"messages": messages, "complete": complete})))
    }

    fn id(&self, number: u64) -> String {
        format!("sb-{number}")
    }

    fn accepted(&self, submission: &Submission, id: &str) -> Answer {
        Answer::json(201, json!({"id": id, "reference": submission.reference, "status": "accepted"}))
    }

    fn refusal(&self, behaviour: Behaviour) -> Fault {
        match behaviour {
            Behaviour::RefuseRecipient => Fault::new(422, "recipient_refused", "The recipient is refused."),
            Behaviour::RefuseContent => Fault::new(422, "content_refused", "The message is refused."),
            Behaviour::RefuseAccount => Fault::new(403, "account_refused", "The account is refused."),
            Behaviour::Balance => Fault::new(402, "balance_empty", "The balance is empty."),
            Behaviour::Throttle => Fault::new(429, "throttled", "Too many requests.").after(1),
            _ => Fault::new(500, "internal", "Something broke."),
        }
    }

    fn error(&self, fault: &Fault) -> Value {
        json!({"error": {"code": fault.code, "message": fault.message}})
    }
}
