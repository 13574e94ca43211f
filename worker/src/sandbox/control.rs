//! The control endpoint.
//!
//! | call | does |
//! | --- | --- |
//! | `POST /control/rules` | adds a rule, or an array of them: `{"behaviour": "throttle", "provider": "mora-sms", "account": …, "to": …, "times": 2, "delay_ms": …, "status": …, "retry_after": 3, "code": …}`; all but `behaviour` may be left out |
//! | `GET /control/rules` | the rules in force |
//! | `DELETE /control/rules` | removes all rules |
//! | `GET /control/journal` | the messages accepted, oldest first |
//! | `GET /control/requests` | every request that could cause a send, with what was done with it |
//! | `GET /control/counts` | `{"requests", "accepted", "done": {behaviour: number}}` since the start |

use serde_json::{Value, json};

use super::State;
use super::request::{Answer, Request};
use super::rules::Rule;

/// Answers one call.
pub(super) fn answer(state: &State, request: &Request) -> Answer {
    match (request.method.as_str(), request.path.as_str()) {
        ("POST", "/control/rules") => match rules(&request.body) {
            Ok(rules) => {
                state.rules.add(rules);
                Answer::json(201, json!(state.rules.list()))
            }
            Err(fault) => Answer::json(400, json!({ "error": fault })),
        },
        ("GET", "/control/rules") => Answer::json(200, json!(state.rules.list())),
        ("DELETE", "/control/rules") => {
            state.rules.clear();
            Answer::json(200, json!([]))
        }
        ("GET", "/control/journal") => Answer::json(200, state.journal.accepted()),
        ("GET", "/control/requests") => Answer::json(200, state.journal.seen()),
        ("GET", "/control/counts") => Answer::json(200, state.journal.counts()),
        _ => Answer::json(
            404,
            json!({"error": "use POST, GET or DELETE /control/rules, or GET /control/journal, /requests or /counts"}),
        ),
    }
}

fn rules(body: &[u8]) -> Result<Vec<Rule>, String> {
    let given: Value = serde_json::from_slice(body).map_err(|error| format!("not JSON: {error}"))?;
    let items = match given {
        Value::Array(items) => items,
        one => vec![one],
    };
    let read = |item| {
        let rule: Rule = serde_json::from_value(item).map_err(|error| error.to_string())?;
        rule.fault().map_or(Ok(rule), |fault| Err(fault.to_owned()))
    };
    items.into_iter().map(read).collect()
}
