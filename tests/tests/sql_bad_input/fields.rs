//! Of the application: the arguments of an enqueue, and the elements of many.

use crate::{Bad, bad};

/// A good enqueue but for these arguments.
fn enqueue(changed: &str) -> String {
    let mut arguments = vec![changed.to_owned()];
    for (name, good) in [("mobile", "'0501234567'"), ("message", "'x'"), ("organization_id", "'shop'")] {
        if !changed.contains(&format!("{name} =>")) {
            arguments.push(format!("{name} => {good}"));
        }
    }
    format!("SELECT sms_outbox_enqueue({})", arguments.join(", "))
}

/// An array whose second element is this.
fn many(element: &str) -> String {
    format!(r#"SELECT sms_outbox_enqueue_many('[{{"mobile": "0501234567", "message": "good"}}, {element}]', 'shop')"#)
}

pub(crate) fn fields() -> Vec<Bad> {
    const NUMBER: &str = "+966501234567";
    const SENDER: &str = "Give a name of 1 to 11 characters";
    vec![
        bad(enqueue("mobile => ''"), "22023", "mobile", "mobile: is empty", NUMBER),
        bad(enqueue("mobile => NULL"), "22023", "mobile", "mobile: is missing", NUMBER),
        bad(enqueue("mobile => ' - '"), "22023", "mobile", "mobile: is empty", NUMBER),
        bad(enqueue("mobile => 'my phone'"), "22023", "mobile", "holds a character that is in no phone number", NUMBER),
        bad(enqueue("mobile => '05012345'"), "22023", "mobile", "is no valid mobile number", NUMBER),
        bad(enqueue("mobile => '+99912345678'"), "22023", "mobile", "is no valid mobile number", NUMBER),
        bad(enqueue("mobile => '0112345678'"), "22023", "mobile", "is a landline, which cannot receive an SMS", NUMBER),
        bad(enqueue("mobile => repeat('5', 300)"), "22023", "mobile", "is too long for a phone number", NUMBER),
        bad(enqueue("message => ''"), "22023", "message", "message: is empty", "Give 1 to 1600 characters"),
        bad(enqueue("message => NULL"), "22023", "message", "message: is missing", "Give 1 to 1600 characters"),
        bad(
            enqueue("message => repeat('م', 1601)"),
            "22023",
            "message",
            "has 1601 characters, more than 1600",
            "Give 1 to 1600 characters",
        ),
        bad(enqueue("sender => 'MyShopIsLong'"), "22023", "sender", "is neither a sender name nor a number", SENDER),
        bad(enqueue("sender => 'متجر'"), "22023", "sender", "is neither a sender name nor a number", SENDER),
        bad(enqueue(r"sender => E'My\nShop'"), "22023", "sender", "is neither a sender name nor a number", SENDER),
        bad(
            enqueue("preferred_provider_slug => 'no-such'"),
            "22023",
            "preferred_provider_slug",
            "is no provider of the catalog",
            "Known providers: generic-http, mora-sms",
        ),
        bad(
            enqueue("preferred_provider_slug => 'mora-sms'"),
            "55000",
            "preferred_provider_slug",
            "this organization has no app of the provider",
            "Installed: sandbox",
        ),
        bad(
            enqueue("organization_id => 'nobody'"),
            "55000",
            "",
            "no SMS app is installed for this organization",
            "sms_outbox.install_app(",
        ),
        bad(
            enqueue("organization_id => 'a b'"),
            "22023",
            "organization_id",
            "is not an organization's id",
            "Give 1 to 64 characters",
        ),
        bad(
            enqueue("organization_id => ''"),
            "22023",
            "organization_id",
            "organization_id: is missing",
            "SET sms_outbox.organization_id",
        ),
        bad(
            enqueue("meta => '[1]'"),
            "22023",
            "meta",
            "is not a JSON object",
            "Give a JSON object of at most 16384 bytes",
        ),
        bad(
            enqueue("meta => 'null'"),
            "22023",
            "meta",
            "is not a JSON object",
            "Give a JSON object of at most 16384 bytes",
        ),
        bad(
            enqueue("meta => jsonb_build_object('a', repeat('x', 16384))"),
            "22023",
            "meta",
            "is larger than 16 KiB",
            "Give a JSON object of at most 16384 bytes",
        ),
        bad(
            enqueue("idempotency_key => repeat('k', 256)"),
            "22023",
            "idempotency_key",
            "has more than 255 characters",
            "Give 1 to 255 characters",
        ),
        bad(enqueue("datetime => 'infinity'"), "22023", "datetime", "is infinite", "Give a time"),
        bad(enqueue("datetime => '-infinity'"), "22023", "datetime", "is infinite", "Give a time"),
        bad(
            enqueue("datetime => '1999-12-31'"),
            "22023",
            "datetime",
            "is more than 24 hours ago",
            "Give a time to come",
        ),
        bad(
            enqueue("datetime => now() + interval '91 days'"),
            "22023",
            "datetime",
            "further ahead than sms_outbox.schedule_limit",
            "Give an earlier time",
        ),
        bad(
            enqueue("valid_until => now() - interval '1 second'"),
            "22023",
            "valid_until",
            "is not in the future",
            "Give a time to come",
        ),
        bad(enqueue("valid_until => 'infinity'"), "22023", "valid_until", "is infinite", "or none"),
        bad(
            enqueue("datetime => now() + interval '2 hours', valid_until => now() + interval '1 hour'"),
            "22023",
            "valid_until",
            "is not after datetime",
            "Give a time after datetime",
        ),
        bad(enqueue("priority => 3"), "22023", "priority", "is not 0, 1 or 2", "0 is urgent"),
        // What the types themselves refuse, before any function of ours runs.
        bad(enqueue("datetime => 'tomorrow-ish'"), "22007", "", "invalid input syntax for type timestamp", ""),
        bad(enqueue("meta => '{'"), "22P02", "", "invalid input syntax for type json", ""),
        bad(enqueue(r"message => E'a\u0000b'"), "42601", "", "invalid Unicode escape", ""),
        bad(enqueue(r#"meta => '{"a": "\ud800"}'"#), "22P02", "", "invalid input syntax for type json", ""),
        bad(enqueue(r#"meta => '{"a": "\u0000"}'"#), "22P05", "", "unsupported Unicode escape sequence", ""),
    ]
}

pub(crate) fn elements() -> Vec<Bad> {
    const ARRAY: &str = "Give a JSON array of at most 10000 objects";
    vec![
        bad("SELECT sms_outbox_enqueue_many('{}', 'shop')", "22023", "messages", "is not a JSON array", ARRAY),
        bad(
            "SELECT sms_outbox_enqueue_many(NULL, 'shop')",
            "22023",
            "messages",
            "messages: is missing",
            "Give a JSON array",
        ),
        bad(
            "SELECT sms_outbox_enqueue_many((SELECT jsonb_agg('{}'::jsonb) FROM generate_series(1, 10001)), 'shop')",
            "22023",
            "messages",
            "has 10001 elements, more than 10000",
            ARRAY,
        ),
        bad(many("7"), "22023", "", "messages[1]: is not a JSON object", "fields of sms_outbox_enqueue()"),
        bad(
            many(r#"{"mobil": "0501234567"}"#),
            "22023",
            "",
            "messages[1]: has a field that is none of a message",
            "The fields are mobile, message",
        ),
        bad(many(r#"{"message": "x"}"#), "22023", "mobile", "messages[1].mobile: is missing", "+966501234567"),
        bad(
            many(r#"{"mobile": 501234567, "message": "x"}"#),
            "22023",
            "mobile",
            "messages[1].mobile: is not a string",
            "'not given'",
        ),
        bad(
            many(r#"{"mobile": "0501234567"}"#),
            "22023",
            "message",
            "messages[1].message: is missing",
            "Give 1 to 1600",
        ),
        bad(
            many(r#"{"mobile": "0501234567", "message": "x", "datetime": "soon"}"#),
            "22023",
            "datetime",
            "messages[1].datetime: is not a date and time",
            "Give RFC 3339",
        ),
        bad(
            many(r#"{"mobile": "0501234567", "message": "x", "preferred_provider_slug": "mora-sms"}"#),
            "55000",
            "preferred_provider_slug",
            "messages[1].preferred_provider_slug: this organization has no app",
            "Installed: sandbox",
        ),
        bad(
            many(r#"{"mobile": "0501234567", "message": "x", "meta": []}"#),
            "22023",
            "meta",
            "messages[1].meta: is not a JSON object",
            "Give a JSON object",
        ),
        bad(
            many(&format!(r#"{{"mobile": "0501234567", "message": "x", "idempotency_key": "{}"}}"#, "k".repeat(256))),
            "22023",
            "idempotency_key",
            "messages[1].idempotency_key: has more than 255",
            "Give 1 to 255",
        ),
    ]
}
