//! Bodies: each row is one, with the status, the code and the field of its refusal. Nothing is queued by any.

use anyhow::Result;
use serde_json::{Value, json};

use crate::fixture::{Fixture, OUTBOX, good, with};
use sms_outbox_tests::Major;

pub(crate) struct Row {
    pub(crate) name: String,
    pub(crate) body: Vec<u8>,
    pub(crate) status: u16,
    pub(crate) code: &'static str,
    pub(crate) field: String,
}

fn row(name: impl Into<String>, body: impl Into<Vec<u8>>, status: u16, code: &'static str, field: &str) -> Row {
    Row { name: name.into(), body: body.into(), status, code, field: field.to_owned() }
}

fn not_json(name: &str, body: impl Into<Vec<u8>>) -> Row {
    row(name, body, 400, "not_json", "")
}

/// A good message with one bad field.
fn bad(name: &'static str, value: Value) -> Row {
    let shown: String = format!("{name}: {value}").chars().take(60).collect();
    row(shown, with(name, value).to_string(), 422, "invalid_field", name)
}

fn syntax() -> Vec<Row> {
    let text = good().to_string();
    let open = &text[..text.len() - 1];
    let mut utf8 = text.replace("hello", "h\u{1}llo").into_bytes();
    utf8.iter_mut().filter(|byte| **byte == 1).for_each(|byte| *byte = 0xff);
    let mut utf16: Vec<u8> = vec![0xff, 0xfe];
    utf16.extend(text.encode_utf16().flat_map(u16::to_le_bytes));
    vec![
        not_json("empty", ""),
        not_json("blank", " \n"),
        not_json("open", open),
        not_json("only a bracket", "{"),
        not_json("text", "mobile=0501234567&message=hello"),
        not_json("XML", "<message/>"),
        not_json("single quotes", text.replace('"', "'")),
        not_json("names without quotes", r#"{mobile:"0501234567",message:"x"}"#),
        not_json("comma at the end", format!("{open},}}")),
        not_json("comment", format!("{open}/* x */}}")),
        not_json("two documents", format!("{text}{text}")),
        not_json("more behind it", format!("{text}x")),
        not_json("byte order mark", format!("\u{feff}{text}")),
        not_json("UTF-16", utf16),
        not_json("not UTF-8", utf8),
        not_json("overlong UTF-8", [b"{\"mobile\":\"\xc0\xaf".as_slice(), b"\"}"].concat()),
        not_json("half a surrogate pair", text.replace("hello", "\\ud83d")),
        not_json("line break in a string", text.replace("hello", "a\nb")),
        not_json("NUL as a byte", text.replace("hello", "a\0b")),
        not_json("NaN", text.replace("\"hello\"", "NaN")),
        not_json("Infinity", text.replace("\"hello\"", "-Infinity")),
        not_json("hexadecimal", text.replace("\"hello\"", "0x10")),
        not_json("leading zero", text.replace("\"hello\"", "01")),
        row("brackets without end", "[".repeat(100_000), 422, "invalid_field", "[0]…"),
        row("objects without end", "{\"a\":".repeat(100_000), 422, "invalid_field", "a.a…"),
        not_json("a number without end", with_meta(r#"{"a":1e999999999}"#)),
        row("an array", "[]", 422, "invalid_field", "body"),
        row("null", "null", 422, "invalid_field", "body"),
        row("a number", "1", 422, "invalid_field", "body"),
        row("a string", "\"x\"", 422, "invalid_field", "body"),
        row("an array of messages", format!("[{text}]"), 422, "invalid_field", "body"),
    ]
}

fn fields() -> Vec<Row> {
    let text = good().to_string();
    let with_text = |more: &str| format!("{{{more},{}", &text[1..]);
    let without = |name: &str| {
        let mut body = good();
        body.as_object_mut().map(|body| body.remove(name));
        body.to_string()
    };
    vec![
        row("no field at all", "{}", 422, "invalid_field", "mobile"),
        row("no mobile", without("mobile"), 422, "invalid_field", "mobile"),
        row("no message", without("message"), 422, "invalid_field", "message"),
        row("unknown field", with("body", json!("x")).to_string(), 422, "unknown_field", "body"),
        row("misspelt field", with("mesage", json!("x")).to_string(), 422, "unknown_field", "mesage"),
        row("other case", with("Mobile", json!("x")).to_string(), 422, "unknown_field", "Mobile"),
        row(
            "organization",
            with("organization_id", json!("bank")).to_string(),
            422,
            "unknown_field",
            "organization_id",
        ),
        row("unknown, null", with("id", Value::Null).to_string(), 422, "unknown_field", "id"),
        row("empty name", with("", json!("x")).to_string(), 422, "unknown_field", ""),
        row("prototype", with("__proto__", json!({})).to_string(), 422, "unknown_field", "__proto__"),
        row("twice, equal", with_text(r#""message":"hello""#), 422, "duplicate_field", "message"),
        row("twice, one null", with_text(r#""mobile":null"#), 422, "duplicate_field", "mobile"),
        row("twice, escaped", with_text(r#""m\u006fbile":"0501234568""#), 422, "duplicate_field", "mobile"),
        row("twice in meta", with_meta(r#"{"a":{"b":1,"b":2}}"#), 422, "duplicate_field", "meta.a.b"),
        row("NUL in meta", with_meta(r#"{"a":["\u0000"]}"#), 422, "invalid_field", "meta.a[0]"),
        row("NUL in a name in meta", with_meta(r#"{"a\u0000":1}"#), 422, "invalid_field", "meta.a"),
        row(
            "deep meta",
            with_meta(&format!("{{\"a\":{}{}}}", "[".repeat(60), "]".repeat(60))),
            422,
            "invalid_field",
            DEEP,
        ),
        row(
            "very deep meta",
            with_meta(&format!("{{\"a\":{}{}}}", "[".repeat(90_000), "]".repeat(90_000))),
            422,
            "invalid_field",
            DEEP,
        ),
        row("large meta", with_meta(&format!("{{\"a\":\"{}\"}}", "x".repeat(16_385))), 422, "invalid_field", "meta"),
    ]
}

/// Which of the levels is named does not matter, but that it is below `meta`.
const DEEP: &str = "meta.a…";

fn with_meta(meta: &str) -> String {
    good().to_string().replace(r#"{"order_id":"1"}"#, meta)
}

fn values() -> Vec<Row> {
    let long = |character: &str, times: usize| json!(character.repeat(times));
    let mut rows = Vec::new();
    let texts =
        ["mobile", "message", "sender", "datetime", "preferred_provider_slug", "idempotency_key", "valid_until"];
    for name in texts {
        for value in [json!(1), json!(966_501_234_567_u64), json!(1.5), json!(true), json!([]), json!(["a"]), json!({})]
        {
            rows.push(bad(name, value));
        }
        rows.push(bad(name, json!("a\u{0}b")));
    }
    for value in [
        "",
        " ",
        "abc",
        "12",
        "+",
        "05012345678901234567",
        "966501234567x",
        "🙂",
        "0501234567,0501234568",
        "999123456789",
    ] {
        rows.push(bad("mobile", json!(value)));
    }
    rows.push(bad("mobile", long("5", 1_000_000)));
    for value in [json!(""), Value::Null, long("a", 1601), long("م", 1601), long("a", 900_000)] {
        rows.push(bad("message", value));
    }
    for value in [json!("متجر"), json!("TwelveLetter"), json!("a\nb"), json!("'; --"), long("a", 10_000)] {
        rows.push(bad("sender", value));
    }
    rows.push(bad("idempotency_key", long("k", 256)));
    for value in [
        json!(-1),
        json!(3),
        json!(0.5),
        json!(1e300),
        json!(u64::MAX),
        json!("1"),
        json!("high"),
        json!([1]),
        json!(true),
    ] {
        rows.push(bad("priority", value));
    }
    for value in [json!("{}"), json!([]), json!(1), json!(true), json!([{}])] {
        rows.push(bad("meta", value));
    }
    for value in ["no-such-sms", "'; DROP TABLE message; --", "Twilio-SMS"] {
        rows.push(bad("preferred_provider_slug", json!(value)));
    }
    let elsewhere = with("preferred_provider_slug", json!("twilio-sms")).to_string();
    rows.push(row("a provider that is not installed", elsewhere, 409, "no_sms_app", "preferred_provider_slug"));
    rows
}

/// Every row is refused as it says, and leaves nothing.
pub(crate) async fn are_refused_by_field(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let mut faults = Vec::new();
    for Row { name, body, status, code, field } in [syntax(), fields(), values()].into_iter().flatten() {
        let answer = fixture.send(&fixture.post(OUTBOX, &body)).await?;
        let found = (answer.status, answer.code(), answer.field());
        let field_fits = match field.strip_suffix('…') {
            Some(start) => found.2.starts_with(start),
            None => found.2 == field,
        };
        if found.0 != status || found.1 != code || !field_fits {
            faults.push(format!("{name}: {found:?}, not {:?}", (status, code, &field)));
        }
        if answer.header("content-type") != Some("application/problem+json") {
            faults.push(format!("{name}: {}", answer.head));
        }
        if answer.body.len() > 4096 {
            faults.push(format!("{name}: the answer repeats the request, {} bytes", answer.body.len()));
        }
    }
    assert!(faults.is_empty(), "{} rows:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(fixture.messages().await?, 0, "nothing is queued");
    fixture.assert_calm();
    assert_eq!(fixture.send(&fixture.post(OUTBOX, good().to_string().as_bytes())).await?.status, 201);
    Ok(())
}

/// What looks odd and is right.
pub(crate) async fn odd_but_good_are_taken(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let text = good().to_string();
    let bodies = [
        format!(" \r\n\t{text}\n\n"),
        with("sender", Value::Null).to_string(),
        with("priority", json!("")).to_string(),
        text.replace("hello", "\\u0068\\ud83d\\ude42"),
        text.replace("\"mobile\"", "\"m\\u006fbile\""),
        with("message", json!("م".repeat(1600))).to_string(),
        with("mobile", json!("٠٥٠١٢٣٤٥٦٧")).to_string(),
        with("mobile", json!("+966 (50) 123-4567")).to_string(),
        with("idempotency_key", json!("ك".repeat(255))).to_string(),
        with("meta", json!({})).to_string(),
        with_meta(r#"{"a":1.00000000000000000000001,"":null,"b":[[[{}]]]}"#),
        text.replace("hello", "{{7*7}} ${jndi:ldap://x} %s%n <script>"),
        text.replace("hello", "\\u0001\\u007f\\u200f\\ufeff"),
    ];
    for body in bodies {
        let answer = fixture.send(&fixture.post(OUTBOX, body.as_bytes())).await?;
        assert_eq!(answer.status, 201, "{body}: {}", String::from_utf8_lossy(&answer.body));
    }
    fixture.assert_calm();
    Ok(())
}
