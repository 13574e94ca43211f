//! Taqnyat: JSON, bearer token; lists in an answer are texts.

use serde::Deserialize;
use serde_json::{Value, json};

use super::{Fault, Submission, Wire, is_digits, only_post};
use crate::sandbox::request::{Answer, Request};
use crate::sandbox::rules::Behaviour;

pub(super) struct Taqnyat;

#[derive(Deserialize)]
struct Send {
    #[serde(default)]
    recipients: Vec<String>,
    #[serde(default)]
    body: String,
    #[serde(default)]
    sender: String,
}

impl Wire for Taqnyat {
    fn slug(&self) -> &'static str {
        "taqnyat-sms"
    }

    fn read(&self, request: &Request) -> Result<Submission, Fault> {
        only_post(request)?;
        let account = request.bearer().ok_or_else(|| self.refusal(Behaviour::RefuseAccount))?;
        let send: Send = serde_json::from_slice(&request.body).map_err(|_| Fault::http(400, "Invalid input"))?;
        let [to] = send.recipients.as_slice() else { return Err(self.refusal(Behaviour::RefuseRecipient)) };
        if !is_digits(to) {
            return Err(self.refusal(Behaviour::RefuseRecipient));
        }
        if send.sender.is_empty() {
            return Err(Fault::new(400, "14", "Invalid sender"));
        }
        if send.body.is_empty() {
            return Err(self.refusal(Behaviour::RefuseContent));
        }
        Ok(Submission { account, to: to.clone(), sender: Some(send.sender), body: send.body, reference: None })
    }

    fn id(&self, number: u64) -> String {
        number.to_string()
    }

    fn accepted(&self, submission: &Submission, id: &str) -> Answer {
        let body = json!({
            "statusCode": 201,
            "messageId": id.parse::<u64>().unwrap_or_default(),
            "cost": 0.026,
            "currency": "SAR",
            "accepted": format!("[{},]", submission.to),
            "rejected": "[]",
        });
        Answer::json(201, body)
    }

    fn refusal(&self, behaviour: Behaviour) -> Fault {
        match behaviour {
            Behaviour::RefuseRecipient => Fault::new(400, "15", "Invalid recipients"),
            Behaviour::RefuseContent => Fault::http(400, "Invalid message body"),
            Behaviour::RefuseAccount => Fault::http(401, "Invalid token"),
            Behaviour::Balance => Fault::new(400, "3", "Insufficient balance"),
            Behaviour::Throttle => Fault::http(429, "Too many requests").after(1),
            _ => Fault::http(500, "Internal server error"),
        }
    }

    fn error(&self, fault: &Fault) -> Value {
        let number = fault.code.as_ref().and_then(|code| code.parse::<u16>().ok());
        json!({"statusCode": number.unwrap_or(fault.status), "message": fault.message})
    }
}
