//! What an answer of the gateway means, by the rules of the configuration.

use std::collections::HashMap;

use serde::Deserialize;
use serde_json::{Map, Value};

use super::super::{ConfigError, Response, Verdict};
use crate::message::AttemptStatus;

/// The config field `success`.
#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Success {
    status: Vec<u16>,
    pointer: Option<String>,
    values: Option<Vec<Value>>,
}

pub(super) struct Rules {
    status: Vec<u16>,
    proof: Option<(String, Vec<String>)>,
    message_id: Option<String>,
    error_code: Option<String>,
    outcomes: HashMap<String, AttemptStatus>,
}

impl Rules {
    pub(super) fn read(
        success: Success,
        message_id: Option<String>,
        error_code: Option<String>,
        outcomes: Map<String, Value>,
    ) -> Result<Self, ConfigError> {
        if success.status.is_empty() || success.status.iter().any(|status| !(200..300).contains(status)) {
            return Err(ConfigError::new(
                "success.status",
                "is not a list of 2xx statuses",
                "give one like [200, 201]",
            ));
        }
        let proof = match (success.pointer, success.values) {
            (None, None) => None,
            (Some(at), Some(values)) if !values.is_empty() => {
                let values = values.iter().map(plain).collect::<Option<Vec<_>>>().ok_or_else(|| {
                    ConfigError::new(
                        "success.values",
                        "is not a list of texts, numbers or booleans",
                        "give one like [\"ok\", 0]",
                    )
                })?;
                Some((pointer("success.pointer", at)?, values))
            }
            _ => {
                return Err(ConfigError::new(
                    "success.values",
                    "and success.pointer do not stand together",
                    "give both, the place in the answer and the values that mean success, or neither",
                ));
            }
        };
        if !outcomes.is_empty() && error_code.is_none() {
            return Err(ConfigError::new(
                "error_code",
                "is missing",
                "say where the codes of outcomes stand in the answer",
            ));
        }
        Ok(Self {
            status: success.status,
            proof,
            message_id: message_id.map(|at| pointer("message_id", at)).transpose()?,
            error_code: error_code.map(|at| pointer("error_code", at)).transpose()?,
            outcomes: outcomes.into_iter().map(outcome).collect::<Result<_, _>>()?,
        })
    }

    pub(super) fn verdict(&self, response: &Response) -> Verdict {
        if !response.is_success() && !response.is_refusal() {
            return Verdict::by_status(response);
        }
        let answer = response.json();
        let at = |pointer: &String| answer.as_ref().and_then(|answer| answer.pointer(pointer)).and_then(plain);
        let code = self.error_code.as_ref().and_then(at);
        if let Some((code, class)) = code.as_ref().and_then(|code| Some((code, self.outcomes.get(code)?))) {
            return Verdict::ended(*class, code, meaning(*class)).after(response.retry_after);
        }
        if self.status.contains(&response.status) {
            let proven = self
                .proof
                .as_ref()
                .is_none_or(|(pointer, values)| at(pointer).is_some_and(|value| values.contains(&value)));
            let id = self.message_id.as_ref().map(at);
            if proven && id != Some(None) {
                return Verdict::accepted(id.flatten());
            }
        }
        let verdict = Verdict::by_status(response);
        Verdict { error_code: code.or(verdict.error_code), ..verdict }
    }
}

/// A text, number or boolean of an answer as text.
fn plain(value: &Value) -> Option<String> {
    match value {
        Value::Bool(truth) => Some(truth.to_string()),
        other => super::scalar(other),
    }
}

fn pointer(field: &str, at: String) -> Result<String, ConfigError> {
    if at.starts_with('/') {
        return Ok(at);
    }
    Err(ConfigError::new(field, "is not a JSON pointer", "write the path like /data/0/id"))
}

fn outcome((code, class): (String, Value)) -> Result<(String, AttemptStatus), ConfigError> {
    match class.as_str().and_then(AttemptStatus::from_word) {
        Some(class) if class != AttemptStatus::Accepted => Ok((code, class)),
        _ => Err(ConfigError::new(
            format!("outcomes.{code}"),
            "is no class of a refusal",
            "use not_sent, refused_recipient, refused_content, refused_account, throttled or unclear",
        )),
    }
}

fn meaning(class: AttemptStatus) -> &'static str {
    match class {
        AttemptStatus::NotSent => "The gateway says that it did not process the request.",
        AttemptStatus::RefusedRecipient => "The gateway refused the recipient.",
        AttemptStatus::RefusedContent => "The gateway refused the message.",
        AttemptStatus::RefusedAccount => "The gateway refused the app's account.",
        AttemptStatus::Throttled => "The gateway asks to slow down.",
        AttemptStatus::Accepted | AttemptStatus::Unclear => {
            "The gateway's answer leaves open whether the message was sent."
        }
    }
}
