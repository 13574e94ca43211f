//! Of those who tell what became known later: look-ups, receipts, operators.

use crate::{Bad, bad};

pub(crate) fn evidence() -> Vec<Bad> {
    let mut all = vec![
        bad(
            "SELECT * FROM sms_outbox.resolve('r0000000000000000000000000f', 1, 'accepted', 'operator')",
            "P0002",
            "id",
            "there is no message",
            "",
        ),
        bad(
            "SELECT * FROM sms_outbox.resolve('{sent}', 1, 'perhaps', 'operator')",
            "22P02",
            "",
            "invalid input value for enum",
            "",
        ),
        bad(
            "SELECT * FROM sms_outbox.record_receipt('{sent}', 1, 'lost')",
            "22P02",
            "",
            "invalid input value for enum",
            "",
        ),
        bad("SELECT sms_outbox.certainty('perhaps', NULL)", "22P02", "", "invalid input value for enum", ""),
    ];
    let told = |arguments: &[&str], column, fault| {
        let calls = arguments.iter().map(move |more| format!("SELECT * FROM sms_outbox.resolve('{{sent}}', {more})"));
        calls.map(|call| bad(call, "22023", column, fault, "")).collect::<Vec<_>>()
    };
    let attempts =
        ["0, 'accepted', 'operator'", "NULL::integer, 'accepted', 'operator'", "32768, 'accepted', 'operator'"];
    all.extend(told(&attempts, "attempt", "a number from 1 to 32767 is needed"));
    let verdicts = ["1, NULL, 'operator'", "1, 'throttled', 'operator'"];
    all.extend(told(&verdicts, "verdict", "accepted, not_sent, refused_recipient"));
    let sources =
        ["1, 'accepted', NULL", "1, 'accepted', 'rumour'", "1, 'accepted', ''", "1, 'accepted', 'late answer'"];
    all.extend(told(&sources, "evidence", "look-up, receipt or operator is needed"));
    let ids = ["1, 'accepted', 'operator', ''", "1, 'accepted', 'operator', repeat('x', 256)"];
    all.extend(told(&ids, "provider_message_id", "1 to 255 characters are needed"));
    let details = ["1, 'accepted', 'operator', detail => repeat('x', 501)"];
    all.extend(told(&details, "detail", "500 characters at most"));
    let workers = ["1, 'accepted', 'look-up', worker => repeat('w', 101)"];
    all.extend(told(&workers, "worker", "100 characters at most"));

    for (more, column, fault) in [
        ("NULL", "delivery_status", "it is missing"),
        ("'delivered', repeat('x', 101)", "code", "100 characters at most"),
        ("'delivered', at => 'infinity'", "at", "a time from 2000 to 9999"),
        ("'delivered', at => '-infinity'", "at", "a time from 2000 to 9999"),
        ("'delivered', at => '1999-12-31'", "at", "a time from 2000 to 9999"),
        ("'delivered', at => '10000-01-02'", "at", "a time from 2000 to 9999"),
    ] {
        all.push(bad(
            format!("SELECT * FROM sms_outbox.record_receipt('{{sent}}', 1, {more})"),
            "22023",
            column,
            fault,
            "",
        ));
    }
    for (arguments, column, fault) in [
        ("NULL, 10", "after", "between 0 and 1 day"),
        ("'-1 s', 10", "after", "between 0 and 1 day"),
        ("'1 day 1 s', 10", "after", "between 0 and 1 day"),
        ("'1 min', NULL", "max_rows", "between 1 and 10000"),
        ("'1 min', 0", "max_rows", "between 1 and 10000"),
        ("'1 min', 10001", "max_rows", "between 1 and 10000"),
    ] {
        all.push(bad(format!("SELECT * FROM sms_outbox.unclear({arguments})"), "22023", column, fault, ""));
    }
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for call in [
            "resolve('{sent}', 1, 'accepted', 'operator')",
            "resolve('{sent}', 'accepted', 'x')",
            r#"resolve('{"dispatch_status": "failed"}'::jsonb, 'accepted', 'x')"#,
            "record_receipt('{sent}', 1, 'delivered')",
            "unclear('1 min', 10)",
        ] {
            let sql = format!("BEGIN ISOLATION LEVEL {level}; SELECT * FROM sms_outbox.{call}");
            all.push(bad(sql, "0A000", "", "moved in READ COMMITTED only", "BEGIN ISOLATION LEVEL READ COMMITTED"));
        }
    }
    all
}
