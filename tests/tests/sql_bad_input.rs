//! Every bad input of the SQL contract: the error names field, fault and cure, and nothing is queued or half done.

use anyhow::{Context, Result};
use sms_outbox_tests::{Major, Queue, on_majors};

on_majors! { ends: refuses_bad_input }

/// SQL, and what its refusal must say: SQLSTATE, COLUMN, part of the message (the fault), part of hint or detail (the cure).
struct Bad {
    sql: String,
    state: &'static str,
    column: &'static str,
    fault: &'static str,
    cure: &'static str,
}

fn bad(
    sql: impl Into<String>,
    state: &'static str,
    column: &'static str,
    fault: &'static str,
    cure: &'static str,
) -> Bad {
    Bad { sql: sql.into(), state, column, fault, cure }
}

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

fn fields() -> Vec<Bad> {
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

fn elements() -> Vec<Bad> {
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

fn install(changed: &str) -> String {
    let mut arguments = vec![changed.to_owned()];
    for (name, good) in [
        ("organization_id", "'shop'"),
        ("provider_slug", "'sandbox'"),
        ("name", "'second'"),
        ("config", r#"'{"token": "t"}'"#),
    ] {
        if !changed.contains(&format!("{name} =>")) {
            arguments.push(format!("{name} => {good}"));
        }
    }
    format!("SELECT sms_outbox.install_app({})", arguments.join(", "))
}

fn operators() -> Vec<Bad> {
    const KEYS: &str = "Keys: organization_id, dispatch_status, mobile";
    let mut all = vec![
        bad(install("organization_id => 'a b'"), "22023", "organization_id", "1 to 64 characters", "For example"),
        bad(install("organization_id => NULL"), "22023", "organization_id", "1 to 64 characters", "For example"),
        bad(
            install("provider_slug => 'no-such'"),
            "22023",
            "provider_slug",
            r#"there is no provider "no-such""#,
            "Known: generic-http, mora-sms",
        ),
        bad(install("name => ''"), "22023", "name", "1 to 100 characters", ""),
        bad(
            install("config => '[]'"),
            "22023",
            "config",
            "must be a JSON object",
            "Its fields: allow_http, base_url, sender, token",
        ),
        bad(install("config => NULL"), "22023", "config", "must be a JSON object", "Its fields:"),
        bad(install("config => '{}'"), "22023", "config", r#"field "token" is missing"#, "Any text"),
        bad(install(r#"config => '{"token": ""}'"#), "22023", "config", r#"field "token" is missing"#, "Any text"),
        bad(
            install(r#"config => '{"token": 7}'"#),
            "22023",
            "config",
            r#"field "token" must be a string, not a number"#,
            "Any text",
        ),
        bad(
            install(r#"config => '{"token": "t", "secret": "s"}'"#),
            "22023",
            "config",
            r#"has no field "secret""#,
            "Its fields: allow_http, base_url, sender, token",
        ),
        bad(install("\"position\" => -1"), "22023", "position", "between 0 and 1000000", ""),
        bad(install("weight => 0"), "22023", "weight", "between 1 and 1000", ""),
        bad(install("max_in_flight => 0"), "22023", "max_in_flight", "between 1 and 10000", ""),
        bad(install("rate => 0"), "22023", "rate", "above 0 and at most 100000", ""),
        bad(install("rate => 'NaN'"), "22023", "rate", "above 0 and at most 100000", ""),
        bad(
            "SELECT sms_outbox.set_organization('shop', default_region => 'sa')",
            "22023",
            "default_region",
            "ISO 3166 region",
            "For example SA",
        ),
        bad(
            "SELECT sms_outbox.set_organization('shop', default_region => 'XX')",
            "22023",
            "default_region",
            "ISO 3166 region",
            "For example SA",
        ),
        bad(
            "SELECT sms_outbox.set_organization('shop', time_zone => 'Mars/Base')",
            "22023",
            "time_zone",
            "is not a time zone",
            "pg_timezone_names",
        ),
        bad(
            "SELECT sms_outbox.pause_organization('nobody')",
            "P0002",
            "organization_id",
            r#"there is no organization "nobody""#,
            "sms_outbox.organizations",
        ),
        bad(
            "SELECT sms_outbox.resume_organization('nobody')",
            "P0002",
            "organization_id",
            r#"there is no organization "nobody""#,
            "sms_outbox.organizations",
        ),
        bad(
            "SELECT sms_outbox.cancel('r0000000000000000000000000f')",
            "P0002",
            "id",
            "there is no message r0000000000000000000000000f",
            "",
        ),
        bad(
            "SELECT sms_outbox.retry('r0000000000000000000000000f')",
            "P0002",
            "id",
            "there is no message r0000000000000000000000000f",
            "",
        ),
        bad(
            "SELECT sms_outbox.cancel('r123')",
            "22P02",
            "",
            "invalid input syntax for type sms_outbox.message_id",
            "An id is r and 26 characters",
        ),
        bad("SELECT sms_outbox.cancel('{sent}')", "55000", "id", "the message is sent; only a pending one", ""),
        bad("SELECT sms_outbox.retry('{sent}')", "55000", "id", "the message is sent; only failed", ""),
        bad("SELECT sms_outbox.prepare_partitions(0)", "22023", "days_ahead", "0 is not between 1 and 400", ""),
        bad("SELECT sms_outbox.setting('nonsense')", "22023", "name", "is no setting of sms_outbox", "pg_settings"),
        bad("SET sms_outbox.lease_timeout = '5s'", "22023", "", "outside the valid range", ""),
        bad("SET sms_outbox.default_region = 'XX'", "22023", "", "invalid value for parameter", ""),
        bad(
            "SET sms_outbox.wakeup = 'loud'",
            "22023",
            "",
            "invalid value for parameter",
            "Available values: coalesced, trigger, off",
        ),
        bad(
            "SET sms_outbox.lease_timeuot = '1min'",
            "42602",
            "",
            "invalid configuration parameter name",
            "reserved prefix",
        ),
    ];
    for call in ["update_app(99)", "uninstall_app(99)", "pause_app(99)", "resume_app(99)"] {
        all.push(bad(
            format!("SELECT sms_outbox.{call}"),
            "P0002",
            "app_id",
            "there is no installed app 99",
            "sms_outbox.apps_installed",
        ));
    }
    for function in ["cancel", "retry"] {
        let status = if function == "retry" { r#""dispatch_status": "failed", "# } else { "" };
        let filter = |keys: &str| format!("SELECT * FROM sms_outbox.{function}('{{{status}{keys}}}'::jsonb)");
        all.extend([
            bad(format!("SELECT * FROM sms_outbox.{function}('{{}}'::jsonb)"), "22023", "filter", "at least one key", KEYS),
            bad(format!("SELECT * FROM sms_outbox.{function}('[]'::jsonb)"), "22023", "filter", "a JSON object", KEYS),
            bad(filter(r#""organisation": "shop""#), "22023", "filter", r#"there is no key "organisation""#, KEYS),
            bad(filter(r#""priority": "high""#), "22023", "filter", "priority: it must be 0, 1 or 2", ""),
            bad(filter(r#""priority": 70000"#), "22023", "filter", "priority: it must be 0, 1 or 2", ""),
            bad(filter(r#""created_after": "soon""#), "22023", "filter", "created_after: it is no date and time", "For example 2026-12-31T18:00:00+03:00"),
            bad(filter(r#""created_before": 7"#), "22023", "filter", "created_before: it must be a string", ""),
            bad(filter(r#""organization_id": ["shop"]"#), "22023", "filter", "organization_id: it must be a string", ""),
            bad(filter(r#""mobile": null"#), "22023", "filter", "mobile: it must be a string", "leave the key out"),
            bad(
                format!("SELECT * FROM sms_outbox.{function}('{{{status}\"organization_id\": \"shop\"}}'::jsonb, max_rows => 0)"),
                "22023", "max_rows", "between 1 and 10000", "",
            ),
        ]);
    }
    all.extend([
        bad(
            r#"SELECT * FROM sms_outbox.cancel('{"dispatch_status": "failed"}'::jsonb)"#,
            "22023",
            "filter",
            "only pending messages can be canceled",
            "Leave dispatch_status and error_code out",
        ),
        bad(
            r#"SELECT * FROM sms_outbox.cancel('{"error_code": "x"}'::jsonb)"#,
            "22023",
            "filter",
            "only pending messages can be canceled",
            "Leave dispatch_status and error_code out",
        ),
        bad(
            r#"SELECT * FROM sms_outbox.retry('{"organization_id": "shop"}'::jsonb)"#,
            "22023",
            "filter",
            "dispatch_status must say",
            "One of failed",
        ),
        bad(
            r#"SELECT * FROM sms_outbox.retry('{"dispatch_status": "sent"}'::jsonb)"#,
            "22023",
            "filter",
            "dispatch_status must say",
            "One of failed",
        ),
    ]);
    all
}

fn workers() -> Vec<Bad> {
    const RANGE: &str = "ARRAY['0'::xid8], ARRAY[sms_outbox.id_floor('epoch')], ARRAY[NULL::xid8]";
    let finish = |ids: &str, statuses: &str, http_statuses: &str| {
        format!(
            "SELECT * FROM sms_outbox.finish('w', {ids}, ARRAY[1::smallint], {statuses}, {http_statuses}, ARRAY[NULL], ARRAY[NULL], ARRAY[NULL], ARRAY[NULL], ARRAY[NULL::float8])"
        )
    };
    let (id, accepted, ok) = (
        "ARRAY['{sent}'::sms_outbox.message_id]",
        "ARRAY['accepted'::sms_outbox.attempt_status]",
        "ARRAY[200::smallint]",
    );
    let mut all = vec![
        bad(
            format!("SELECT * FROM sms_outbox.look(ARRAY[]::smallint[], {RANGE}, 10)"),
            "22023",
            "priorities",
            "the same 1 to 1000 elements",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.look(ARRAY[0, 1]::smallint[], {RANGE}, 10)"),
            "22023",
            "priorities",
            "the same 1 to 1000 elements",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.look(ARRAY[1]::smallint[], {RANGE}, 0)"),
            "22023",
            "page",
            "0 is not between 1 and 100000",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.look(ARRAY[1]::smallint[], {RANGE}, NULL)"),
            "22023",
            "page",
            "is not between 1 and 100000",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.claim('', {id}, ARRAY[1::bigint])"),
            "22023",
            "worker",
            "1 to 100 characters",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.claim('w', {id}, ARRAY[1, 2]::bigint[])"),
            "22023",
            "ids",
            "the same number of elements",
            "",
        ),
        bad(
            format!("SELECT * FROM sms_outbox.claim('w', {id}, NULL)"),
            "22023",
            "ids",
            "the same number of elements",
            "",
        ),
        bad(finish(id, accepted, "ARRAY[200, 201]::smallint[]"), "22023", "ids", "the same number of elements", ""),
        bad(finish(id, "NULL", ok), "22023", "ids", "the same number of elements", ""),
        bad(finish(id, accepted, "NULL"), "22023", "ids", "the same number of elements", ""),
        bad(finish(id, "ARRAY[NULL::sms_outbox.attempt_status]", ok), "22023", "statuses", "must not hold NULL", ""),
        bad(finish("ARRAY[NULL::sms_outbox.message_id]", accepted, ok), "22023", "ids", "must not hold NULL", ""),
        bad("SELECT sms_outbox.heartbeat('', '1', 'h', 0, 0, 0, 0)", "22023", "worker", "1 to 100 characters", ""),
    ];
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        for call in [
            format!("sms_outbox.claim('w', {id}, ARRAY[1::bigint])"),
            finish(id, accepted, ok).replace("SELECT * FROM ", ""),
            "sms_outbox.cancel('{sent}')".to_owned(),
            "sms_outbox.retry('{sent}')".to_owned(),
            "sms_outbox.release_held()".to_owned(),
            "sms_outbox.run_maintenance()".to_owned(),
        ] {
            let sql = format!("BEGIN ISOLATION LEVEL {level}; SELECT * FROM {call}");
            all.push(bad(sql, "0A000", "", "moved in READ COMMITTED only", "BEGIN ISOLATION LEVEL READ COMMITTED"));
        }
    }
    all
}

async fn refuses_bad_input(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let sent = queue.ended("sent", "accepted").await?;
    // Everything that a bad call could have left behind.
    let state = async || {
        queue
            .rows(
                "SELECT (SELECT count(*) FROM sms_outbox.message) AS message, (SELECT count(*) FROM sms_outbox.ready) AS ready,
                        (SELECT count(*) FROM sms_outbox.scheduled) AS scheduled, (SELECT count(*) FROM sms_outbox.lease) AS lease,
                        (SELECT count(*) FROM sms_outbox.attempt) AS attempt, (SELECT count(*) FROM sms_outbox.ended) AS ended,
                        (SELECT count(*) FROM sms_outbox.idempotency) AS idempotency, (SELECT count(*) FROM sms_outbox.worker) AS worker,
                        (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.app_id) FROM sms_outbox.organization_app AS a) AS apps,
                        (SELECT jsonb_agg(to_jsonb(o) ORDER BY o.organization_id) FROM sms_outbox.organization AS o) AS organizations",
            )
            .await
    };
    let before = state().await?;
    let session = queue.connect().await?;
    let mut faults = Vec::new();
    for Bad { sql, state, column, fault, cure } in
        fields().into_iter().chain(elements()).chain(operators()).chain(workers())
    {
        let sql = sql.replace("{sent}", &sent);
        let shown: String = sql.chars().take(200).collect();
        let refused = session.batch_execute(&sql).await;
        session.batch_execute("ROLLBACK").await?;
        let Err(error) = refused else {
            faults.push(format!("{shown}\n    was not refused"));
            continue;
        };
        let error = error.as_db_error().with_context(|| format!("{shown}: {error}"))?;
        let help = format!("{} {}", error.hint().unwrap_or_default(), error.detail().unwrap_or_default());
        let good = error.code().code() == state
            && error.column().unwrap_or_default() == column
            && error.message().contains(fault)
            && help.contains(cure);
        if !good {
            let (code, named) = (error.code().code(), error.column().unwrap_or_default());
            faults.push(format!(
                "{shown}\n    says {code} [{named}] {} | {help}\n    not  {state} [{column}] {fault} | {cure}",
                error.message()
            ));
        }
    }
    assert!(faults.is_empty(), "{} wrong refusals:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(state().await?, before, "nothing was queued, changed or half done");
    Ok(())
}
