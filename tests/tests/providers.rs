//! Every provider's refusals and failures over its own wire, as the ledger names them.

mod shop;

use anyhow::{Result, ensure};
use serde_json::{Value, json};
use shop::{Shop, apps};
use sms_outbox_tests::{Fault, Major, on_majors};

on_majors! { ends: every_wire_tells_its_ends_apart }

/// What the provider does, the attempt's status, and where the message is then.
const ENDS: [(&str, &str, &str); 12] = [
    ("refuse_recipient", "refused_recipient", "failed"),
    ("refuse_content", "refused_content", "failed"),
    ("refuse_account", "refused_account", "pending"),
    ("balance", "refused_account", "pending"),
    ("throttle", "throttled", "pending"),
    ("error_500", "unclear", "dispatch_timeout"),
    ("accept_then_500", "unclear", "dispatch_timeout"),
    ("reset_after_read", "unclear", "dispatch_timeout"),
    ("stall_after_headers", "unclear", "dispatch_timeout"),
    ("truncate", "unclear", "dispatch_timeout"),
    ("garbage", "unclear", "dispatch_timeout"),
    ("redirect", "unclear", "dispatch_timeout"),
];

/// Where a provider's wire says something else: twilio's 201 alone proves acceptance.
fn expected(slug: &str, behaviour: &str, status: &'static str, end: &'static str) -> (&'static str, &'static str) {
    match (slug, behaviour) {
        ("twilio-sms", "stall_after_headers" | "truncate") => ("accepted", "sent"),
        _ => (status, end),
    }
}

async fn every_wire_tells_its_ends_apart(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "ends").await?;
    let _worker = shop.worker()?.set("SMS_OUTBOX_HTTP_TIMEOUT", "2s").start().await?;
    let mut fault = Fault::new("11", "refuses, throttles, breaks off and errs in its own words", major);
    let mut asked = Vec::new();
    for slug in apps::SLUGS {
        for (behaviour, status, end) in ENDS {
            // An organization each, so that no breaker is shared; the rule knows the message by its number.
            let organization = format!("{slug}.{behaviour}");
            let app = shop.install_for(&organization, slug, apps::config(slug, shop.sandbox.url()), "").await?;
            let next = shop.next_number();
            shop.rule(json!({"behaviour": behaviour, "to": next, "times": 1, "retry_after": 3600})).await?;
            let sms = shop.queue_for(&organization, "").await?;
            let (status, end) = expected(slug, behaviour, status, end);
            asked.push((organization, sms, app, status, end));
        }
    }
    let mut faults = Vec::new();
    for (organization, sms, app, status, end) in &asked {
        let over = async || Ok((!shop.ledger(sms).await?.is_empty()).then_some(()));
        shop.database.wait_for(format!("{organization} ends"), over).await?;
        let ledger = shop.ledger(sms).await?;
        let found = shop.show(sms, "dispatch_status").await?.unwrap_or_default();
        if ledger.len() != 1 || ledger[0].status != *status || ledger[0].app != *app || found != *end {
            faults.push(format!("{organization}: {found}, {ledger:?}, expected {status}, {end}"));
        }
        if *status != "accepted" && ledger[0].code.is_none() {
            faults.push(format!("{organization}: no code says why"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    shop.expect_a_request_for_each_attempt().await?;
    let done = shop.sandbox.counts().await?.done;
    for (behaviour, ..) in ENDS {
        let times = done.get(behaviour).and_then(Value::as_u64).unwrap_or_default();
        ensure!(times == apps::SLUGS.len() as u64, "{behaviour} was done {times} times");
        fault.injected(times);
    }
    for (_, sms, _, _, end) in &asked {
        match *end {
            "dispatch_timeout" => fault.unclear([&sms.id])?,
            // They would wait for an hour.
            "pending" => shop.database.sql(&format!("SELECT sms_outbox.cancel('{}')", sms.id)).await?,
            _ => {}
        }
    }
    shop.close_fault(fault).await.map(drop)
}
