//! Who carries a message when an app does not: the next one at once, the same one later, or nobody.

mod shop;

use anyhow::{Result, ensure};
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::{Major, on_majors};

on_majors! { ends:
    refused_content_goes_to_the_next_app, a_dead_app_is_passed_at_once_and_its_breaker_opens, a_lone_dead_app_is_tried_later,
    a_pinned_message_waits_for_its_slug_alone, a_refused_recipient_fails_at_once, a_refused_account_waits_uncounted,
    a_throttled_app_is_left_in_peace, uninstalling_the_last_app_fails_what_waits, what_is_paused_waits,
}

async fn refused_content_goes_to_the_next_app(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "content").await?;
    let first = shop.install_account("north", "\"position\" => 1").await?;
    let second = shop.install_account("south", "\"position\" => 2").await?;
    let _worker = shop.worker()?.start().await?;
    shop.rule(json!({"behaviour": "refuse_content", "account": "north"})).await?;
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "sent").await?;
    shop.expect_ledger(&sms, &[("refused_content", first), ("accepted", second)]).await?;

    shop.rule(json!({"behaviour": "refuse_content", "account": "south"})).await?;
    let refused = shop.queue("").await?;
    shop.wait_for_status(&refused, "failed").await?;
    shop.expect_ledger(&refused, &[("refused_content", first), ("refused_content", second)]).await?;
    ensure!(shop.show(&refused, "attempt_count").await?.as_deref() == Some("2"));
    // One caller's bad text stops no app.
    let open: i64 =
        shop.database.value("SELECT count(*) FROM sms_outbox.app_stats WHERE breaker = 'closed'", &[]).await?;
    ensure!(open == 2, "{open} of 2 breakers are closed");

    // An operator's retry forgets the refusals.
    shop.sandbox.clear_rules().await?;
    shop.will_retry(&refused).await?;
    shop.database.sql(&format!("SELECT sms_outbox.retry('{}')", refused.id)).await?;
    shop.wait_for_status(&refused, "sent").await?;
    shop.expect_ledger(&refused, &[("refused_content", first), ("refused_content", second), ("accepted", first)])
        .await?;
    shop.expect_a_request_for_each_attempt().await?;
    shop.close().await.map(drop)
}

async fn a_dead_app_is_passed_at_once_and_its_breaker_opens(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "dead").await?;
    let dead = shop.install_dead("\"position\" => 1").await?;
    let second = shop.install("sandbox", "\"position\" => 2").await?;
    let _worker = shop.worker()?.start().await?;
    let mut passed = 0;
    for _ in 0..8 {
        let sms = shop.queue("").await?;
        shop.wait_for_status(&sms, "sent").await?;
        let ledger = shop.ledger(&sms).await?;
        ensure!(ledger.last().is_some_and(|line| line.app == second), "{ledger:?}");
        passed += ledger.iter().filter(|line| line.status == "not_sent" && line.app == dead).count();
        ensure!(ledger.len() <= 2, "{ledger:?}");
    }
    ensure!((5..8).contains(&passed), "five failures open the breaker: {passed} of 8 went by the dead app first");
    shop.database
        .wait_until("health warns", "SELECT status = 'warn' FROM sms_outbox.health WHERE \"check\" = 'apps'")
        .await?;
    shop.expect_a_request_for_each_attempt().await?;
    shop.close().await.map(drop)
}

async fn a_lone_dead_app_is_tried_later(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "backoff").await?;
    let app = shop.install_dead("").await?;
    let _worker = shop.worker()?.start().await?;
    let sms = shop.queue("").await?;
    shop.wait_for(&sms, "waits_for", "backoff").await?;
    ensure!(shop.show(&sms, "next_attempt_at").await?.is_some());
    let config = shop.token("alive");
    shop.database.value::<i32>("SELECT 1 FROM sms_outbox.update_app($1, $2)", &[&app, &config]).await?;
    shop.wait_for_status(&sms, "sent").await?;
    let ledger = shop.ledger(&sms).await?;
    ensure!(
        ledger.len() >= 2 && ledger[0].status == "not_sent" && ledger.iter().all(|line| line.app == app),
        "{ledger:?}"
    );

    // Attempts that are spent are an end.
    shop.set("max_attempts", "2").await?;
    let dead = json!({"token": "dead", "base_url": "http://127.0.0.1:1"});
    shop.database.value::<i32>("SELECT 1 FROM sms_outbox.update_app($1, $2)", &[&app, &dead]).await?;
    let _new_sessions = shop.worker()?.start().await?;
    shop.database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker' AND datname = current_database()").await?;
    let spent = shop.queue("").await?;
    shop.wait_for_status(&spent, "failed").await?;
    shop.expect_ledger(&spent, &[("not_sent", app), ("not_sent", app)]).await?;
    shop.close().await.map(drop)
}

async fn a_pinned_message_waits_for_its_slug_alone(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "pinned").await?;
    let sandbox = shop.install("sandbox", "\"position\" => 1").await?;
    let generic = shop.install("generic-http", "\"position\" => 2").await?;
    let _worker = shop.worker()?.start().await?;
    let pinned = "preferred_provider_slug => 'generic-http'";
    let sms = shop.queue(pinned).await?;
    shop.wait_for_status(&sms, "sent").await?;
    shop.expect_ledger(&sms, &[("accepted", generic)]).await?;

    shop.database.sql(&format!("SELECT sms_outbox.pause_app({generic}, 'maintenance')")).await?;
    let waiting = shop.queue(pinned).await?;
    shop.wait_for(&waiting, "waits_for", "app_paused").await?;
    for _ in 0..3 {
        let other = shop.queue("").await?;
        shop.wait_for_status(&other, "sent").await?;
        shop.expect_ledger(&other, &[("accepted", sandbox)]).await?;
    }
    ensure!(shop.seen(&waiting).await? == (0, 0));
    shop.database.sql(&format!("SELECT sms_outbox.resume_app({generic})")).await?;
    shop.wait_for_status(&waiting, "sent").await?;
    shop.expect_ledger(&waiting, &[("accepted", generic)]).await?;
    shop.close().await.map(drop)
}

async fn a_refused_recipient_fails_at_once(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "recipient").await?;
    let first = shop.install_account("north", "\"position\" => 1").await?;
    shop.install_account("south", "\"position\" => 2").await?;
    let _worker = shop.worker()?.start().await?;
    shop.rule(json!({"behaviour": "refuse_recipient"})).await?;
    for _ in 0..6 {
        let sms = shop.queue("").await?;
        shop.wait_for_status(&sms, "failed").await?;
        shop.expect_ledger(&sms, &[("refused_recipient", first)]).await?;
    }
    shop.sandbox.clear_rules().await?;
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "sent").await?;
    shop.expect_ledger(&sms, &[("accepted", first)]).await?;
    shop.expect_a_request_for_each_attempt().await?;
    shop.close().await.map(drop)
}

async fn a_refused_account_waits_uncounted(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "account").await?;
    let app = shop.install_account("revoked", "").await?;
    let _worker = shop.worker()?.start().await?;
    shop.rule(json!({"behaviour": "refuse_account", "account": "revoked"})).await?;
    let first = shop.queue("").await?;
    shop.wait_for(&first, "waits_for", "account_refused").await?;
    let more = shop.queue_many("shop", 20, "").await?;
    for sms in more.iter().chain([&first]) {
        shop.wait_for(sms, "waits_for", "account_refused").await?;
    }
    let requests = shop.sandbox.counts().await?.requests;
    ensure!(requests == 1, "a blocked app got {requests} requests");
    ensure!(shop.show(&first, "attempt_count").await?.as_deref() == Some("0"));

    // One probe a minute: its time is let come.
    shop.database.sql("UPDATE sms_outbox.app_health SET blocked_until = now()").await?;
    shop.database.wait_until("the probe was refused", "SELECT count(*) = 2 FROM sms_outbox.attempt").await?;
    ensure!(shop.sandbox.counts().await?.requests == 2);

    let config = shop.token("renewed");
    shop.database.value::<i32>("SELECT 1 FROM sms_outbox.update_app($1, $2)", &[&app, &config]).await?;
    for sms in more.iter().chain([&first]) {
        shop.wait_for_status(sms, "sent").await?;
        ensure!(shop.show(sms, "attempt_count").await?.as_deref() == Some("1"));
    }

    // The same cured at the provider: the operator resumes the app.
    shop.rule(json!({"behaviour": "balance", "account": "renewed"})).await?;
    let broke = shop.queue("").await?;
    shop.wait_for(&broke, "waits_for", "account_refused").await?;
    shop.sandbox.clear_rules().await?;
    shop.database.sql(&format!("SELECT sms_outbox.resume_app({app})")).await?;
    shop.wait_for_status(&broke, "sent").await?;
    shop.expect_a_request_for_each_attempt().await?;
    shop.close().await.map(drop)
}

async fn a_throttled_app_is_left_in_peace(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "throttled").await?;
    let app = shop.install_account("slow", "").await?;
    let other = shop.install_for("other", "sandbox", shop.token("fast"), "").await?;
    let _worker = shop.worker()?.start().await?;
    shop.rule(json!({"behaviour": "throttle", "account": "slow", "retry_after": 3, "times": 1})).await?;
    let sms = shop.queue("").await?;
    shop.wait_for(&sms, "waits_for", "throttled").await?;
    let unaffected = shop.queue_for("other", "").await?;
    shop.wait_for_status(&unaffected, "sent").await?;
    shop.expect_ledger(&unaffected, &[("accepted", other)]).await?;
    shop.wait_for_status(&sms, "sent").await?;
    shop.expect_ledger(&sms, &[("throttled", app), ("accepted", app)]).await?;
    ensure!(shop.show(&sms, "attempt_count").await?.as_deref() == Some("1"));
    let pause: f64 = shop
        .database
        .value(
            "SELECT extract(epoch FROM max(started_at) - min(finished_at))::float8 FROM sms_outbox.attempts WHERE id = $1::text",
            &[&sms.id],
        )
        .await?;
    ensure!(pause >= 3.0, "Retry-After asked for 3 s, and it was asked again after {pause} s");
    shop.expect_a_request_for_each_attempt().await?;
    shop.close().await.map(drop)
}

async fn uninstalling_the_last_app_fails_what_waits(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "uninstalled").await?;
    let app = shop.install("sandbox", "").await?;
    shop.database.sql("SELECT sms_outbox.pause_organization('shop', 'test')").await?;
    let waiting = shop.queue_many("shop", 30, "").await?;
    shop.database
        .sql(&format!("SELECT sms_outbox.uninstall_app({app}); SELECT sms_outbox.resume_organization('shop')"))
        .await?;
    let _worker = shop.worker()?.start().await?;
    for sms in &waiting {
        shop.wait_for_status(sms, "failed").await?;
        ensure!(shop.show(sms, "error_code").await?.as_deref() == Some("no_app"));
    }
    ensure!(shop.sandbox.counts().await?.requests == 0);
    shop.close().await.map(drop)
}

async fn what_is_paused_waits(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "paused").await?;
    let app = shop.install("sandbox", "").await?;
    let other = shop.install_for("other", "sandbox", shop.token("other"), "").await?;
    let _worker = shop.worker()?.start().await?;
    for (pause, resume, reason) in [
        (format!("pause_app({app}, 'test')"), format!("resume_app({app})"), "app_paused"),
        (
            "pause_organization('shop', 'test')".to_owned(),
            "resume_organization('shop')".to_owned(),
            "organization_paused",
        ),
    ] {
        shop.database.sql(&format!("SELECT sms_outbox.{pause}")).await?;
        let before = shop.sandbox.counts().await?.requests;
        let waiting = shop.queue_many("shop", 10, "").await?;
        for sms in &waiting {
            shop.wait_for(sms, "waits_for", reason).await?;
        }
        let unaffected = shop.queue_for("other", "").await?;
        shop.wait_for_status(&unaffected, "sent").await?;
        shop.expect_ledger(&unaffected, &[("accepted", other)]).await?;
        ensure!(shop.sandbox.counts().await?.requests == before + 1, "{reason} did not hold");
        shop.database.sql(&format!("SELECT sms_outbox.{resume}")).await?;
        for sms in &waiting {
            shop.wait_for_status(sms, "sent").await?;
        }
    }
    shop.close().await.map(drop)
}
