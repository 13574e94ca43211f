//! Twilio: a form, basic authentication, the account in the path; and the list by number and day.

use std::collections::HashMap;

use serde_json::{Value, json};

use super::{Fault, Submission, Wire, is_digits, only_post};
use crate::sandbox::journal::{Accepted, Journal};
use crate::sandbox::request::{Answer, Request};
use crate::sandbox::rules::Behaviour;

pub(super) struct Twilio;

impl Wire for Twilio {
    fn slug(&self) -> &'static str {
        "twilio-sms"
    }

    fn read(&self, request: &Request) -> Result<Submission, Fault> {
        only_post(request)?;
        let (user, secret) = request.basic().ok_or_else(|| self.refusal(Behaviour::RefuseAccount))?;
        let sid = request
            .path
            .strip_prefix("/twilio/2010-04-01/Accounts/")
            .and_then(|rest| rest.strip_suffix("/Messages.json"))
            .filter(|sid| sid.len() == 34 && sid.starts_with("AC"))
            .ok_or_else(|| Fault::new(404, "20404", "The requested resource was not found"))?;
        if secret.is_empty() || (user != sid && !user.starts_with("SK")) {
            return Err(self.refusal(Behaviour::RefuseAccount));
        }
        let form: HashMap<String, String> = serde_urlencoded::from_bytes(&request.body).unwrap_or_default();
        let field = |name: &str| form.get(name).filter(|value| !value.is_empty()).cloned();
        let to = field("To").ok_or_else(|| Fault::new(400, "21604", "A 'To' phone number is required."))?;
        if !to.strip_prefix('+').is_some_and(is_digits) {
            return Err(self.refusal(Behaviour::RefuseRecipient));
        }
        let sender = field("From").or_else(|| field("MessagingServiceSid"));
        let sender = sender.ok_or_else(|| Fault::new(400, "21603", "A 'From' phone number is required."))?;
        let body = field("Body").ok_or_else(|| Fault::new(400, "21602", "Message body is required."))?;
        Ok(Submission { account: user, to, sender: Some(sender), body, reference: None })
    }

    fn look_up(&self, request: &Request, journal: &Journal) -> Option<Answer> {
        if request.method != "GET" {
            return None;
        }
        let Some((account, _)) = request.basic() else {
            return Some(self.fault(&self.refusal(Behaviour::RefuseAccount)));
        };
        let (to, day) = (request.field("To"), request.field("DateSent>"));
        let (mut found, _) = journal.find(|accepted| {
            accepted.provider == self.slug()
                && accepted.account == account
                && to.as_ref().is_none_or(|to| *to == accepted.to)
                && day.as_ref().is_none_or(|day| accepted.at.strftime("%Y-%m-%d").to_string() >= *day)
        });
        found.reverse();
        let page_size = request.field("PageSize").and_then(|size| size.parse().ok()).unwrap_or(50_usize);
        let message = |accepted: &Accepted| {
            let at = accepted.at.strftime("%a, %d %b %Y %H:%M:%S +0000").to_string();
            json!({
                "sid": accepted.provider_message_id,
                "status": "delivered",
                "to": accepted.to,
                "from": accepted.sender,
                "body": accepted.body,
                "direction": "outbound-api",
                "date_created": at,
                "date_sent": at,
                "error_code": null,
            })
        };
        let messages: Vec<Value> = found.iter().take(page_size).map(message).collect();
        let next = (found.len() > page_size).then(|| format!("{}?Page=1", request.path));
        Some(Answer::json(200, json!({"messages": messages, "page_size": page_size, "next_page_uri": next})))
    }

    fn id(&self, number: u64) -> String {
        format!("SM{number:032x}")
    }

    fn accepted(&self, submission: &Submission, id: &str) -> Answer {
        // A messaging service chooses the sender later, and only then are the segments known.
        let service = submission.sender.as_deref().filter(|sender| sender.len() == 34 && sender.starts_with("MG"));
        let from = submission.sender.as_deref().filter(|_| service.is_none());
        let body = json!({
            "api_version": "2010-04-01",
            "sid": id,
            "status": if service.is_some() { "accepted" } else { "queued" },
            "to": submission.to,
            "from": from,
            "messaging_service_sid": service,
            "body": submission.body,
            "num_segments": if service.is_some() { "0" } else { "1" },
            "num_media": "0",
            "direction": "outbound-api",
            "price": null,
            "error_code": null,
            "error_message": null,
        });
        Answer::json(201, body)
    }

    fn refusal(&self, behaviour: Behaviour) -> Fault {
        match behaviour {
            Behaviour::RefuseRecipient => Fault::new(400, "21211", "Invalid 'To' Phone Number"),
            Behaviour::RefuseContent => Fault::new(400, "21617", "The concatenated message body exceeds the limit"),
            Behaviour::RefuseAccount => Fault::new(401, "20003", "Authenticate"),
            Behaviour::Balance => Fault::new(403, "10001", "Account is not active"),
            Behaviour::Throttle => Fault::new(429, "20429", "Too Many Requests").after(1),
            _ => Fault::new(500, "20500", "An internal server error has occurred"),
        }
    }

    fn error(&self, fault: &Fault) -> Value {
        let code = fault.code.as_ref().and_then(|code| code.parse::<u32>().ok());
        let more_info = code.map(|code| format!("https://www.twilio.com/docs/errors/{code}"));
        json!({"code": code, "message": fault.message, "more_info": more_info, "status": fault.status})
    }
}
