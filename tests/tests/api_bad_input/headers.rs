//! Headers: the kind of the body, its size, and the key of the message.

use anyhow::{Context, Result};
use serde_json::json;
use sms_outbox_tests::Major;

use crate::fixture::{Fixture, OUTBOX, good, with};
use crate::raw;

const JSON: (&str, &str) = ("Content-Type", "application/json");

impl Fixture {
    /// POST of a good message with these headers beside the key and the length.
    fn headed(&self, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
        let length = body.len().to_string();
        let usual = [("Content-Length", length.as_str()), self.authorization()];
        raw::request("POST", OUTBOX, &[&usual, headers].concat(), body)
    }
}

pub(crate) async fn headers_that_are_wrong(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let (message, keyed) = (good().to_string(), with("idempotency_key", json!("order-1")).to_string());
    let (message, keyed) = (message.as_bytes(), keyed.as_bytes());
    let unsupported = |headers: &[(&str, &str)]| {
        fixture.row(format!("{headers:?}"), fixture.headed(headers, message), 415, "unsupported_media_type", "")
    };
    let mut rows = vec![unsupported(&[])];
    for kind in [
        "",
        "text/plain",
        "text/json",
        "application/x-www-form-urlencoded",
        "multipart/form-data; boundary=x",
        "application/xml",
        "json",
        "application/json5",
        "application/jsonp",
        "application/problem+json",
        "application",
        "*/*",
        ";",
        "application/json/",
        "text/plain, application/json",
    ] {
        rows.push(unsupported(&[("Content-Type", kind)]));
    }
    let conflict = |headers: &[(&str, &str)], body: &[u8]| {
        let bytes = fixture.headed(&[&[JSON], headers].concat(), body);
        fixture.row(format!("{headers:?}"), bytes, 422, "idempotency_key_conflict", "idempotency_key")
    };
    let long = "k".repeat(256);
    rows.extend([
        conflict(&[("Idempotency-Key", "order-2")], keyed),
        conflict(&[("Idempotency-Key", "Order-1")], keyed),
        conflict(&[("Idempotency-Key", "a"), ("Idempotency-Key", "b")], message),
        fixture.row(
            "a key of 256",
            fixture.headed(&[JSON, ("Idempotency-Key", &long)], message),
            422,
            "invalid_field",
            "idempotency_key",
        ),
    ]);
    let mut latin = fixture.headed(&[JSON, ("Idempotency-Key", "a?b")], message);
    let place = latin.windows(3).position(|three| three == b"a?b").context("the key")?;
    latin[place + 1] = 0xe9;
    rows.push(fixture.row("a key that is not UTF-8", latin, 422, "invalid_field", "idempotency_key"));
    let mut two = vec![b' '; 2 << 20];
    two[..message.len()].copy_from_slice(message);
    rows.push(fixture.row("2 MiB", fixture.headed(&[JSON], &two), 413, "too_large", ""));
    two.truncate((1 << 20) + 1);
    rows.push(fixture.row("one byte too much", fixture.headed(&[JSON], &two), 413, "too_large", ""));
    fixture.check(rows).await?;
    assert_eq!(fixture.messages().await?, 0);

    two.truncate(1 << 20);
    assert_eq!(fixture.send(&fixture.headed(&[JSON], &two)).await?.status, 201, "1 MiB");
    for (kind, key) in
        [("application/json", "order-1"), ("Application/JSON; charset=utf-8", "order-1"), ("application/json", "")]
    {
        let answer = fixture.send(&fixture.headed(&[("Content-Type", kind), ("Idempotency-Key", key)], keyed)).await?;
        assert!(matches!(answer.status, 200 | 201), "{kind} {key}: {}", answer.head);
    }
    assert_eq!(fixture.messages().await?, 2, "one message for one key, by field or header");
    Ok(())
}
