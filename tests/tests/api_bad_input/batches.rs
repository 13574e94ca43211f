//! Batches: one bad message refuses all, and the error says which.

use anyhow::Result;
use serde_json::{Value, json};
use sms_outbox_tests::Major;

use crate::fixture::{Fixture, OUTBOX, good, with};

fn batch(messages: Value) -> String {
    json!({ "messages": messages }).to_string()
}

/// A thousand good messages, but this one.
fn thousand(place: usize, one: Value) -> String {
    let mut messages: Vec<Value> = vec![json!({ "mobile": "0501234567", "message": "x" }); 1000];
    messages[place] = one;
    batch(json!(messages))
}

pub(crate) async fn batches_are_all_or_none(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let path = format!("{OUTBOX}/batch");
    let text = good().to_string();
    let rows = [
        ("empty".to_owned(), String::new(), 400, "not_json", ""),
        ("an array".to_owned(), format!("[{text}]"), 422, "invalid_field", "body"),
        ("no messages".to_owned(), "{}".to_owned(), 422, "invalid_field", "messages"),
        ("null".to_owned(), batch(Value::Null), 422, "invalid_field", "messages"),
        ("an object".to_owned(), batch(good()), 422, "invalid_field", "messages"),
        ("a text".to_owned(), batch(json!(text)), 422, "invalid_field", "messages"),
        ("none".to_owned(), batch(json!([])), 422, "invalid_field", "messages"),
        ("1001".to_owned(), batch(json!(vec![json!({}); 1001])), 422, "invalid_field", "messages"),
        (
            "unknown field".to_owned(),
            json!({ "messages": [good()], "mesages": [] }).to_string(),
            422,
            "unknown_field",
            "mesages",
        ),
        (
            "twice".to_owned(),
            format!("{{\"messages\":[{text}],\"messages\":[{text}]}}"),
            422,
            "duplicate_field",
            "messages",
        ),
        ("no object".to_owned(), thousand(17, json!(1)), 422, "invalid_field", "messages[17]"),
        ("null inside".to_owned(), thousand(0, Value::Null), 422, "invalid_field", "messages[0]"),
        ("an array inside".to_owned(), thousand(5, json!([good()])), 422, "invalid_field", "messages[5]"),
        (
            "no mobile".to_owned(),
            thousand(999, json!({ "message": "x" })),
            422,
            "invalid_field",
            "messages[999].mobile",
        ),
        (
            "bad mobile".to_owned(),
            thousand(500, with("mobile", json!("12"))),
            422,
            "invalid_field",
            "messages[500].mobile",
        ),
        (
            "wrong type".to_owned(),
            thousand(500, with("mobile", json!(12))),
            422,
            "invalid_field",
            "messages[500].mobile",
        ),
        (
            "long message".to_owned(),
            thousand(3, with("message", json!("x".repeat(1601)))),
            422,
            "invalid_field",
            "messages[3].message",
        ),
        (
            "bad time".to_owned(),
            thousand(998, with("datetime", json!("tomorrow"))),
            422,
            "invalid_field",
            "messages[998].datetime",
        ),
        (
            "bad priority".to_owned(),
            thousand(7, with("priority", json!(9))),
            422,
            "invalid_field",
            "messages[7].priority",
        ),
        ("unknown in one".to_owned(), thousand(8, with("body", json!("x"))), 422, "unknown_field", "messages[8].body"),
        (
            "organization in one".to_owned(),
            thousand(8, with("organization_id", json!("bank"))),
            422,
            "unknown_field",
            "messages[8].organization_id",
        ),
        (
            "NUL in one".to_owned(),
            thousand(9, with("message", json!("a\u{0}"))),
            422,
            "invalid_field",
            "messages[9].message",
        ),
        (
            "twice in one".to_owned(),
            format!("{{\"messages\":[{text},{{\"mobile\":\"\",{}]}}", &text[1..]),
            422,
            "duplicate_field",
            "messages[1].mobile",
        ),
        (
            "large meta".to_owned(),
            thousand(2, with("meta", json!({ "a": "x".repeat(16_400) }))),
            422,
            "invalid_field",
            "messages[2].meta",
        ),
        (
            "no app".to_owned(),
            thousand(4, with("preferred_provider_slug", json!("twilio-sms"))),
            409,
            "no_sms_app",
            "messages[4].preferred_provider_slug",
        ),
    ];
    let mut faults = Vec::new();
    for (name, body, status, code, field) in rows {
        let answer = fixture.send(&fixture.post(&path, body.as_bytes())).await?;
        let found = (answer.status, answer.code(), answer.field());
        if (found.0, found.1.as_str(), found.2.as_str()) != (status, code, field) {
            faults.push(format!("{name}: {found:?}, not {:?}", (status, code, field)));
        }
    }
    assert!(faults.is_empty(), "{} rows:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(fixture.messages().await?, 0, "all or none");
    fixture.assert_calm();

    // One key twice in a batch is one message.
    let keyed = with("idempotency_key", json!("k"));
    let answer = fixture.send(&fixture.post(&path, batch(json!([keyed, good(), keyed])).as_bytes())).await?.json();
    assert_eq!(answer["data"][0]["id"], answer["data"][2]["id"], "{answer}");
    assert_eq!(fixture.messages().await?, 2);
    assert_eq!(fixture.send(&fixture.post(&path, thousand(0, good()).as_bytes())).await?.status, 201);
    assert_eq!(fixture.messages().await?, 1002);
    Ok(())
}
