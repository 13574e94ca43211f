//! Nobody knows whether it was sent: then it is not sent again, unless somebody says so.

mod shop;

use std::process::Command;

use anyhow::{Result, ensure};
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::process::output;
use sms_outbox_tests::{Fault, Major, on_majors, paths};

on_majors! { ends: unclear_ends_are_never_sent_again, an_opted_in_app_sends_again, an_operator_sends_again }

/// What a provider can do to leave it open, and whether it had accepted.
const UNCLEAR: [(&str, bool); 9] = [
    ("reset_after_read", false),
    ("reset_after_accept", true),
    ("stall_after_headers", true),
    ("truncate", true),
    ("garbage", false),
    ("error_500", false),
    ("accept_then_500", true),
    ("redirect", false),
    ("reset_before_read", false),
];

async fn unclear_ends_are_never_sent_again(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "unclear").await?;
    let mut worker = shop.worker()?.set("SMS_OUTBOX_HTTP_TIMEOUT", "2s").start().await?;
    let mut fault = Fault::new("11", "ends that leave it open", major);
    for (behaviour, accepted) in UNCLEAR {
        let app = shop.install_for(behaviour, "sandbox", shop.token(behaviour), "").await?;
        // A second app must not be tried either.
        shop.install_for(behaviour, "sandbox", shop.token("second"), "\"position\" => 200").await?;
        let mut rule = json!({"behaviour": behaviour, "account": behaviour});
        if behaviour == "reset_before_read" {
            rule = json!({"behaviour": behaviour});
        }
        shop.rule(rule).await?;
        let sms = shop.queue_for(behaviour, "").await?;
        fault.unclear([&sms.id])?;
        shop.wait_for_status(&sms, "dispatch_timeout").await?;
        shop.expect_ledger(&sms, &[("unclear", app)]).await?;
        ensure!(shop.accepted(&sms)? == usize::from(accepted), "{behaviour}");
        ensure!(shop.show(&sms, "error_code").await?.is_some(), "{behaviour}: no code says why");
    }
    let done = shop.sandbox.counts().await?.done;
    fault.injected(UNCLEAR.iter().filter(|(behaviour, _)| done.get(*behaviour) == Some(&json!(1))).count() as u64);
    shop.sandbox.clear_rules().await?;
    for (behaviour, _) in UNCLEAR {
        let sms = shop.queue_for(behaviour, "").await?;
        shop.wait_for_status(&sms, "sent").await?;
    }
    // Also where the client might have retried or followed in silence: the provider counts.
    shop.expect_a_request_for_each_attempt().await?;
    ensure!(worker.drain().await?.success());
    let balance = shop.close_fault(fault).await?;
    ensure!(balance.accepted_unclear == UNCLEAR.iter().filter(|(_, accepted)| *accepted).count(), "{balance}");
    Ok(())
}

async fn an_opted_in_app_sends_again(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "resend").await?;
    let app = shop.install_account("north", "resend_unclear => true").await?;
    let _worker = shop.worker()?.start().await?;
    shop.rule(json!({"behaviour": "reset_after_read", "times": 1})).await?;
    let sms = shop.queue("").await?;
    shop.wait_for(&sms, "waits_for", "backoff").await?;
    shop.wait_for_status(&sms, "sent").await?;
    shop.expect_ledger(&sms, &[("unclear", app), ("accepted", app)]).await?;
    ensure!(shop.seen(&sms).await? == (2, 1));
    shop.close().await.map(drop)
}

async fn an_operator_sends_again(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "retry").await?;
    let app = shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.start().await?;
    shop.rule(json!({"behaviour": "reset_after_read", "times": 1})).await?;
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "dispatch_timeout").await?;
    // The command says what it risks before it does it; SQL does as it is told.
    let retry = |yes: &[&str]| -> Result<Command> {
        let mut command = Command::new(paths::command()?);
        command.env("DATABASE_URL", shop.database.url("operator")).args(["message", "retry", &sms.id]).args(yes);
        Ok(command)
    };
    let refused = output(retry(&[])?).await.err().map(|error| error.to_string()).unwrap_or_default();
    ensure!(refused.contains("a retry risks a second SMS"), "{refused}");
    ensure!(
        shop.show(&sms, "dispatch_status").await?.as_deref() == Some("dispatch_timeout"),
        "it was retried all the same"
    );
    let confirmed = retry(&["--yes"])?;
    shop.will_retry(&sms).await?;
    output(confirmed).await?;
    shop.wait_for_status(&sms, "sent").await?;
    shop.expect_ledger(&sms, &[("unclear", app), ("accepted", app)]).await?;
    let again = shop.database.sql(&format!("SELECT sms_outbox.retry('{}')", sms.id)).await;
    ensure!(again.is_err(), "a sent message was retried");
    shop.expect_a_request_for_each_attempt().await?;
    shop.close().await.map(drop)
}
