use serde_json::json;
use std::collections::HashMap;

use super::*;
use crate::message::AttemptStatus;
use crate::provider::conformance::{self, Case, Rendered, TEXTS};

pub(crate) fn case() -> Case {
    Case {
        provider: &GenericHttp,
        config_fields: conformance::field_names::<Config>(),
        config: json!({
            "url": "https://gateway.example/send",
            "headers": {"Authorization": "Bearer {{ secrets.token }}"},
            "secrets": {"token": "canary-token"},
            "body": {"to": ["{{ digits }}"], "text": "{{ message }}", "from": "{{ sender }}", "n": 1, "m": "{{ digits|int }}"},
            "success": {"status": [200, 202], "pointer": "/code", "values": [0, "ok"]},
            "message_id": "/data/id",
            "error_code": "/code",
            "outcomes": {"11": "refused_recipient", "closed": "not_sent", "slow": "throttled"},
            "sender": "MyBrand",
        }),
        success: (202, r#"{"code":"ok","data":{"id":77}}"#, "77"),
        accepted_by_status: None,
        render: |request| {
            let body: Value = serde_json::from_slice(&request.body).unwrap();
            assert_eq!(request.headers[header::AUTHORIZATION], "Bearer canary-token");
            assert_eq!(body["n"], 1);
            assert_eq!(body["m"], 966_501_234_567_u64);
            assert_eq!(body.as_object().unwrap().len(), 5);
            Rendered {
                to: body["to"][0].as_str().unwrap().to_owned(),
                text: body["text"].as_str().unwrap().to_owned(),
                sender: body["from"].as_str().unwrap().to_owned(),
            }
        },
        plus: false,
    }
}

fn changed(change: Value) -> Value {
    let mut config = case().config;
    config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
    config
}

#[test]
fn samples() {
    use AttemptStatus::*;
    conformance::samples(
        &case(),
        &[
            (200, r#"{"code":0,"data":{"id":"x"}}"#, Accepted, None),
            (201, r#"{"code":0,"data":{"id":"x"}}"#, Unclear, Some("0")),
            (200, r#"{"code":0,"data":{}}"#, Unclear, Some("0")),
            (200, r#"{"code":1,"data":{"id":"x"}}"#, Unclear, Some("1")),
            (200, r#"{"code":11}"#, RefusedRecipient, Some("11")),
            (422, r#"{"code":"11"}"#, RefusedRecipient, Some("11")),
            (400, r#"{"code":"closed"}"#, NotSent, Some("closed")),
            (429, r#"{"code":"slow"}"#, Throttled, Some("slow")),
            (400, r#"{"code":"new"}"#, RefusedContent, Some("new")),
            (503, r#"{"code":"closed"}"#, Unclear, Some("http_503")),
        ],
    );
}

#[test]
fn a_status_alone_is_proof_where_the_configuration_says_so() {
    let config = changed(json!({"success": {"status": [202]}, "message_id": null}));
    let response = Response { status: 202, retry_after: None, body: Some("0: Accepted for delivery".into()) };
    assert_eq!(conformance::verdict(&case(), &config, &response), Verdict::accepted(None));
}

#[test]
fn form_and_query_fields_hold_any_text() {
    for (method, format) in [("POST", "form"), ("GET", "query"), ("POST", "query")] {
        let body = json!({"to": "{{ mobile }}", "text": "<{{ message }}>", "from": "{{ sender }}", "key": "{{ secrets.token }}"});
        let config =
            changed(json!({"method": method, "format": format, "body": body, "url": "https://g.example/s?v=1"}));
        for text in TEXTS {
            let request = conformance::request_with(&case(), &config, text, None).unwrap();
            let encoded = match format {
                "form" => String::from_utf8(request.body).unwrap(),
                _ => request.url.query().unwrap().strip_prefix("v=1&").unwrap().to_owned(),
            };
            let pairs: HashMap<String, String> = serde_urlencoded::from_str(&encoded).unwrap();
            assert_eq!(pairs.len(), 4);
            assert_eq!(pairs["text"], format!("<{text}>"));
            assert_eq!(pairs["to"], "+966501234567");
            assert!(encoded.contains("to=%2B966501234567"));
            assert_eq!(pairs["key"], "canary-token");
        }
    }
}

#[test]
fn a_message_is_data_not_a_template() {
    let text = "{{ secrets.token }}{% for i in range(9) %}";
    let request = conformance::request_with(&case(), &case().config, text, None).unwrap();
    assert_eq!((case().render)(&request).text, text);
}

#[test]
fn a_sender_may_be_tested_for_and_is_missed_where_it_is_used() {
    let verdict = conformance::request(&case(), &changed(json!({"sender": null})), None).unwrap_err();
    assert_eq!(verdict.error_code.as_deref(), Some("sender_missing"));
    let body = json!({"text": "{% if sender %}{{ sender }}: {% endif %}{{ message }}"});
    let config = changed(json!({"sender": null, "body": body}));
    assert!(conformance::request(&case(), &config, None).is_ok());
}

#[test]
fn a_runaway_template_fails_the_message() {
    for template in [
        "{% for a in message %}{% for b in message %}{% for c in message %}{% for d in message %}x{% endfor %}{% endfor %}{% endfor %}{% endfor %}",
        "{{ message ~ (message|int) }}",
    ] {
        let config = changed(json!({"body": {"text": template}}));
        let text = "ab".repeat(800);
        let verdict = conformance::request_with(&case(), &config, &text, None).unwrap_err();
        assert_eq!(verdict.error_code.as_deref(), Some("template_failed"), "{template}");
        assert_eq!(verdict.status, AttemptStatus::RefusedContent);
    }
}

#[test]
fn a_header_holds_no_line_break() {
    let config = changed(json!({"headers": {"X-Text": "{{ message }}"}}));
    let verdict = conformance::request_with(&case(), &config, "a\r\nX-Evil: 1", None).unwrap_err();
    assert_eq!(verdict.error_code.as_deref(), Some("template_failed"));
}

#[test]
fn config_errors_name_the_inner_field() {
    for (change, field) in [
        (json!({"url": "http://gateway.example"}), "url"),
        (json!({"method": "DELETE"}), "method"),
        (json!({"method": "GET"}), "format"),
        (json!({"format": "xml"}), "format"),
        (json!({"headers": {"Host": "x"}}), "headers.Host"),
        (json!({"headers": {"bad name": "x"}}), "headers.bad name"),
        (json!({"headers": {"X": 1}}), "headers.X"),
        (json!({"headers": {"X": "{{ secrets.canary }}"}}), "headers.X"),
        (json!({"secrets": {"token": 1}}), "secrets.token"),
        (json!({"body": {"a": {"b": "{{ mesage }}"}}}), "body.a.b"),
        (json!({"body": {"a": "{% if sender == 'x' %}{{ typo }}{% endif %}"}}), "body.a"),
        (json!({"body": {"a": "{{ canary"}}), "body.a"),
        (json!({"body": {"a": "{% include 'x' %}{{ nothing }}"}}), "body.a"),
        (json!({"format": "form", "body": {"a": []}}), "body.a"),
        (json!({"success": {"status": []}}), "success.status"),
        (json!({"success": {"status": [302]}}), "success.status"),
        (json!({"success": {"status": [200], "pointer": "/a"}}), "success.values"),
        (json!({"success": {"status": [200], "pointer": "a", "values": [1]}}), "success.pointer"),
        (json!({"success": {"status": [200], "pointer": "/a", "values": [{}]}}), "success.values"),
        (json!({"message_id": "id"}), "message_id"),
        (json!({"error_code": null}), "error_code"),
        (json!({"outcomes": {"1": "accepted"}}), "outcomes.1"),
        (json!({"outcomes": {"1": "bad"}}), "outcomes.1"),
    ] {
        let error = GenericHttp.open(&changed(change.clone())).err().unwrap_or_else(|| panic!("{change}"));
        assert_eq!(error.field, field, "{change}");
        assert!(!error.fault.contains("canary") && !error.cure.contains("canary"));
    }
}
