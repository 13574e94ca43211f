//! A gateway for `generic-http`: JSON `{"to", "text"}`, and optionally `from` and `reference`, at `/generic/send`; the
//! account comes as a bearer token, by basic authentication or in `X-Api-Key`.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, Submission, Wire, is_digits, only_post};
use crate::sandbox::request::{Answer, Request};
use crate::sandbox::rules::Behaviour;

pub(super) struct Generic;

#[derive(Deserialize)]
struct Send {
    #[serde(default)]
    to: String,
    #[serde(default)]
    text: String,
    from: Option<String>,
    reference: Option<String>,
}

impl Wire for Generic {
    fn slug(&self) -> &'static str {
        "generic-http"
    }

    fn read(&self, request: &Request) -> Result<Submission, Fault> {
        only_post(request)?;
        let basic = || request.basic().map(|(user, _)| user);
        let account = request.bearer().or_else(basic).or_else(|| request.api_key.clone());
        let account = account.ok_or_else(|| self.refusal(Behaviour::RefuseAccount))?;
        let send: Send = serde_json::from_slice(&request.body).map_err(|_| Fault::new(400, "not_json", "Not JSON"))?;
        if !is_digits(send.to.trim_start_matches('+')) {
            return Err(self.refusal(Behaviour::RefuseRecipient));
        }
        if send.text.is_empty() {
            return Err(self.refusal(Behaviour::RefuseContent));
        }
        Ok(Submission { account, to: send.to, sender: send.from, body: send.text, reference: send.reference })
    }

    fn id(&self, number: u64) -> String {
        format!("gw-{number}")
    }

    fn accepted(&self, _: &Submission, id: &str) -> Answer {
        Answer::json(200, json!({"status": "ok", "id": id}))
    }

    fn refusal(&self, behaviour: Behaviour) -> Fault {
        match behaviour {
            Behaviour::RefuseRecipient => Fault::new(400, "bad_recipient", "Bad recipient"),
            Behaviour::RefuseContent => Fault::new(400, "bad_text", "Bad text"),
            Behaviour::RefuseAccount => Fault::new(401, "bad_key", "Bad key"),
            Behaviour::Balance => Fault::new(402, "no_balance", "No balance"),
            Behaviour::Throttle => Fault::new(429, "slow_down", "Slow down").after(1),
            _ => Fault::new(500, "internal", "Internal error"),
        }
    }

    fn error(&self, fault: &Fault) -> Value {
        json!({"status": "error", "code": fault.code, "message": fault.message})
    }
}
