//! Mora: a form; refusals come as a code in the body of a 200.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Fault, Submission, Wire, is_digits, only_post};
use crate::sandbox::request::{Answer, Request};
use crate::sandbox::rules::Behaviour;

pub(super) struct Mora;

impl Wire for Mora {
    fn slug(&self) -> &'static str {
        "mora-sms"
    }

    fn read(&self, request: &Request) -> Result<Submission, Fault> {
        only_post(request)?;
        let form: HashMap<String, String> =
            serde_urlencoded::from_bytes(&request.body).map_err(|_| Fault::new(200, "101", "Missing data"))?;
        let field = |name: &str, code, message| {
            let value = form.get(name).filter(|value| !value.is_empty()).cloned();
            value.ok_or_else(|| Fault::new(200, code, message))
        };
        let account = field("username", "102", "Wrong user name")?;
        field("api_key", "103", "Wrong API key")?;
        let body = field("message", "117", "Message is empty")?;
        let sender = field("sender", "118", "Sender is empty")?;
        let to = field("numbers", "119", "Numbers are empty")?;
        if !is_digits(&to) {
            return Err(self.refusal(Behaviour::RefuseRecipient));
        }
        Ok(Submission { account, to, sender: Some(sender), body, reference: None })
    }

    fn id(&self, number: u64) -> String {
        format!("ref-{number}")
    }

    fn accepted(&self, _: &Submission, id: &str) -> Answer {
        let data = json!({"code": 100, "message": "Numbers received", "ref_id": id});
        Answer::json(200, json!({"status": {"code": 200, "message": "success"}, "data": data}))
    }

    fn refusal(&self, behaviour: Behaviour) -> Fault {
        match behaviour {
            Behaviour::RefuseRecipient => Fault::new(200, "108", "No valid numbers"),
            Behaviour::RefuseContent => Fault::new(200, "112", "Message contains a prohibited word"),
            Behaviour::RefuseAccount => Fault::new(200, "114", "Account suspended"),
            Behaviour::Balance => Fault::new(200, "105", "Balance is not enough"),
            Behaviour::Throttle => Fault::http(429, "Too many requests").after(1),
            _ => Fault::http(500, "Server error"),
        }
    }

    fn error(&self, fault: &Fault) -> Value {
        let Some(code) = &fault.code else { return json!({"message": fault.message}) };
        let code = code.parse::<u32>().map_or_else(|_| json!(code), |code| json!(code));
        json!({"status": {"code": 200, "message": "success"}, "data": {"code": code, "message": fault.message}})
    }
}
