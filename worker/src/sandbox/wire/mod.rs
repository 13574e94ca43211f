//! The wires: each provider's requests read, and answered, as that provider does.

mod generic;
mod mora;
mod own;
mod taqnyat;
mod twilio;

use super::journal::Journal;
use super::request::{Answer, Request};
use super::rules::Behaviour;

/// One SMS that a client asks to send.
#[derive(Clone, Debug)]
pub(super) struct Submission {
    pub(super) account: String,
    pub(super) to: String,
    pub(super) sender: Option<String>,
    pub(super) body: String,
    pub(super) reference: Option<String>,
}

/// Why a provider does not send it.
#[derive(Clone, Debug)]
pub(super) struct Fault {
    pub(super) status: u16,
    pub(super) code: Option<String>,
    pub(super) message: &'static str,
    pub(super) retry_after: Option<u64>,
}

impl Fault {
    fn new(status: u16, code: &str, message: &'static str) -> Self {
        Self { status, code: Some(code.to_owned()), message, retry_after: None }
    }

    /// A fault that HTTP alone tells.
    fn http(status: u16, message: &'static str) -> Self {
        Self { status, code: None, message, retry_after: None }
    }

    fn after(self, seconds: u64) -> Self {
        Self { retry_after: Some(seconds), ..self }
    }
}

/// A provider's side of its API.
pub(super) trait Wire: Send + Sync {
    /// The provider.
    fn slug(&self) -> &'static str;

    /// Reads a request as strictly as the provider does.
    fn read(&self, request: &Request) -> Result<Submission, Fault>;

    /// The answer to a request that asks what became of messages; `None` where this is none. It causes no send, and no rule
    /// concerns it.
    fn look_up(&self, _: &Request, _: &Journal) -> Option<Answer> {
        None
    }

    /// The id of a message, in the provider's form.
    fn id(&self, number: u64) -> String;

    /// The answer to an accepted message.
    fn accepted(&self, submission: &Submission, id: &str) -> Answer;

    /// How the provider puts this refusal.
    fn refusal(&self, behaviour: Behaviour) -> Fault;

    /// The body of an error.
    fn error(&self, fault: &Fault) -> serde_json::Value;

    /// The answer to a refused message.
    fn fault(&self, fault: &Fault) -> Answer {
        Answer { retry_after: fault.retry_after, ..Answer::json(fault.status, self.error(fault)) }
    }
}

const WIRES: [(&str, &str, &dyn Wire); 5] = [
    ("/taqnyat/", "v1/messages", &taqnyat::Taqnyat),
    ("/mora/", "api/v1/sendsms", &mora::Mora),
    ("/twilio/", "Messages.json", &twilio::Twilio),
    ("/generic/", "send", &generic::Generic),
    ("/sandbox/", "v1/messages", &own::Own),
];

/// The wire of a path.
pub(super) fn of(path: &str) -> Option<&'static dyn Wire> {
    let whole = |(prefix, end, _): &&(&str, &str, _)| path.strip_prefix(prefix).is_some_and(|rest| rest.ends_with(end));
    WIRES.iter().find(whole).map(|(.., wire)| *wire)
}

/// The wire of the beginning of a path.
pub(super) fn of_prefix(path: &str) -> Option<&'static dyn Wire> {
    WIRES.iter().find(|(prefix, ..)| path.starts_with(prefix)).map(|(.., wire)| *wire)
}

fn only_post(request: &Request) -> Result<(), Fault> {
    if request.method == "POST" { Ok(()) } else { Err(Fault::http(405, "Method not allowed")) }
}

/// A recipient in digits alone, with its country code.
fn is_digits(number: &str) -> bool {
    (7..=15).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit()) && !number.starts_with('0')
}
