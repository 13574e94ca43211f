//! Of operators and administrators: apps, organizations, filters, settings.

use crate::{Bad, bad};

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

pub(crate) fn operators() -> Vec<Bad> {
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
        bad(install("rate_unit => 'texts'"), "22023", "rate_unit", "messages or segments", ""),
        bad(install("rate_unit => NULL"), "22023", "rate_unit", "messages or segments", ""),
        bad(install("burst => 0"), "22023", "burst", "between 1 and 100000", ""),
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
        bad(
            "SELECT sms_outbox.forget_bench('shop')",
            "22023",
            "organization_id",
            "none that sms-outbox bench makes",
            "12 hexadecimal digits",
        ),
        bad(
            "SELECT sms_outbox.forget_bench(NULL)",
            "22023",
            "organization_id",
            "none that sms-outbox bench makes",
            "12 hexadecimal digits",
        ),
        bad(
            "SELECT sms_outbox.forget_bench('sms-outbox-bench:0123456789ab', 0)",
            "22023",
            "max_rows",
            "between 1 and 10000",
            "",
        ),
        bad(
            "SELECT sms_outbox.install_app('sms-outbox-bench:0123456789ab', 'taqnyat-sms', 'n', '{\"bearer_token\": \"t\", \"sender\": \"s\"}'); \
             SELECT sms_outbox.forget_bench('sms-outbox-bench:0123456789ab')",
            "55000",
            "organization_id",
            "has an app of a real provider",
            "sends nothing",
        ),
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
    for function in ["cancel", "retry", "survey"] {
        let status = if function == "cancel" { "" } else { r#""dispatch_status": "failed", "# };
        let filter = |keys: &str| format!("SELECT * FROM sms_outbox.{function}('{{{status}{keys}}}'::jsonb)");
        all.extend([
            bad(
                format!("SELECT * FROM sms_outbox.{function}('{{}}'::jsonb)"),
                "22023",
                "filter",
                "at least one key",
                KEYS,
            ),
            bad(format!("SELECT * FROM sms_outbox.{function}('[]'::jsonb)"), "22023", "filter", "a JSON object", KEYS),
            bad(filter(r#""organisation": "shop""#), "22023", "filter", r#"there is no key "organisation""#, KEYS),
            bad(filter(r#""priority": "high""#), "22023", "filter", "priority: it must be 0, 1 or 2", ""),
            bad(filter(r#""priority": 70000"#), "22023", "filter", "priority: it must be 0, 1 or 2", ""),
            bad(
                filter(r#""created_after": "soon""#),
                "22023",
                "filter",
                "created_after: it is no date and time",
                "For example 2026-12-31T18:00:00+03:00",
            ),
            bad(filter(r#""created_before": 7"#), "22023", "filter", "created_before: it must be a string", ""),
            bad(
                filter(r#""organization_id": ["shop"]"#),
                "22023",
                "filter",
                "organization_id: it must be a string",
                "",
            ),
            bad(filter(r#""mobile": null"#), "22023", "filter", "mobile: it must be a string", "leave the key out"),
            bad(
                filter(r#""organization_app_id": "Main""#),
                "22023",
                "filter",
                "organization_app_id: it must be the number of an app",
                "sms_outbox.apps_installed",
            ),
            bad(
                filter(r#""organization_app_id": -1"#),
                "22023",
                "filter",
                "organization_app_id: it must be the number of an app",
                "",
            ),
            bad(
                filter(r#""certainty": "perhaps""#),
                "22023",
                "filter",
                "there is no such certainty",
                "One of not_sent, unknown",
            ),
        ]);
    }
    for (more, column, fault) in [
        ("'unclear', 'x'", "verdict", "accepted or not_sent is needed"),
        ("NULL, 'x'", "verdict", "accepted or not_sent is needed"),
        ("'accepted', NULL", "detail", "how it is known is needed"),
        ("'accepted', '  '", "detail", "how it is known is needed"),
        ("'accepted', repeat('x', 501)", "detail", "in 1 to 500 characters"),
    ] {
        all.push(bad(format!("SELECT sms_outbox.resolve('{{sent}}', {more})"), "22023", column, fault, ""));
        let filter = r#"'{"dispatch_status": "dispatch_timeout"}'::jsonb"#;
        all.push(bad(format!("SELECT * FROM sms_outbox.resolve({filter}, {more})"), "22023", column, fault, ""));
    }
    all.extend([
        bad(
            "SELECT sms_outbox.resolve('{sent}', 'not_sent', 'x')",
            "55000",
            "id",
            "the message is sent; no attempt of it is unclear",
            "",
        ),
        bad(
            "SELECT sms_outbox.resolve('r0000000000000000000000000f', 'accepted', 'x')",
            "P0002",
            "id",
            "there is no message",
            "",
        ),
        bad(
            r#"SELECT * FROM sms_outbox.resolve('{"dispatch_status": "pending"}'::jsonb, 'accepted', 'x')"#,
            "22023",
            "filter",
            "dispatch_status must say",
            "One of failed",
        ),
    ]);
    for function in ["cancel", "retry"] {
        all.push(bad(
            format!("SELECT * FROM sms_outbox.{function}('{{\"organization_id\": \"shop\"}}'::jsonb, max_rows => 0)"),
            "22023",
            "max_rows",
            "between 1 and 10000",
            "",
        ));
    }
    for key in [r#""error_code": "x""#, r#""organization_app_id": 1"#, r#""certainty": "possible""#] {
        all.push(bad(
            format!("SELECT * FROM sms_outbox.cancel('{{{key}}}'::jsonb)"),
            "22023",
            "filter",
            "only pending messages can be canceled",
            "error_code and certainty out",
        ));
    }
    all.extend([
        bad(
            r#"SELECT * FROM sms_outbox.cancel('{"dispatch_status": "failed"}'::jsonb)"#,
            "22023",
            "filter",
            "only pending messages can be canceled",
            "Leave dispatch_status, organization_app_id",
        ),
        bad(
            r#"SELECT * FROM sms_outbox.retry('{"organization_id": "shop"}'::jsonb)"#,
            "22023",
            "filter",
            "dispatch_status must say",
            "One of failed",
        ),
        bad(
            r#"SELECT * FROM sms_outbox.survey('{"dispatch_status": "pending"}'::jsonb)"#,
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
