//! Standbys, promotion and clones: what another server queued is not sent until an operator says so, and what the worker knows
//! counts for more than what a standby missed.

mod shop;

use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::queue::refused;
use sms_outbox_tests::{Database, Fault, Major, Sandbox, Stop, Worker, on_majors};

on_majors! { faults:
    maintenance_begins_with_the_promotion, a_promotion_that_lost_claims_sends_nothing_again, a_clone_sends_nothing,
}

const OURS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type LIKE 'sms_outbox %'";

async fn wait_until_replayed(copy: &Database, primary: &Database) -> Result<()> {
    let lsn: String = primary.value("SELECT pg_current_wal_flush_lsn()::text", &[]).await?;
    copy.wait_until("the standby has all", &format!("SELECT pg_last_wal_replay_lsn() >= '{lsn}'")).await
}

async fn maintenance_begins_with_the_promotion(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.shorten_leases().await?;
    shop.install("sandbox", "").await?;
    shop.rule(json!({"behaviour": "stall_after_headers"})).await?;
    let primary = shop.database.cluster().clone();
    let standby = primary.standby().await?;
    let copy = Database::open(&standby, "shop").await?;
    // Its worker dies in the middle, and the lease ends on the standby, where nobody may say so before the promotion.
    let sms = shop.queue("").await?;
    let mut worker = shop.quick_worker().await?;
    let asked = async || Ok((shop.sandbox.counts().await?.requests == 1).then_some(()));
    shop.database.wait_for("the provider is asked", asked).await?;
    worker.kill().await?;
    wait_until_replayed(&copy, &shop.database).await?;
    primary.stop(Stop::Immediate).await?;
    let over = "SELECT bool_and(expires_at < clock_timestamp() - interval '1 second') FROM sms_outbox.lease";
    copy.wait_until("the lease is over", over).await?;
    ensure!(copy.value::<i64>(OURS, &[]).await? == 0, "a background worker runs on a standby");
    let fault = refused(copy.admin(), "SELECT sms_outbox.run_maintenance()").await?;
    ensure!(fault.code().code() == "25006", "{fault}");
    ensure!(copy.value::<i64>("SELECT count(*) FROM sms_outbox.lease", &[]).await? == 1, "who ended it?");

    let mut fault = Fault::new("14", "a standby has no maintenance before its promotion", major);
    standby.promote().await?;
    fault.injected(1);
    fault.unclear([&sms.id])?;
    shop.database = copy;
    shop.wait_for_status(&sms, "dispatch_timeout").await?;
    let alive = "SELECT status = 'ok' FROM sms_outbox.health WHERE \"check\" = 'background_worker'";
    shop.database.wait_until("the background worker is there", alive).await?;
    ensure!(shop.database.value::<i64>(OURS, &[]).await? == 2, "not a launcher and a maintainer");
    shop.sandbox.clear_rules().await?;
    let worker = shop.worker()?.set("SMS_OUTBOX_HTTP_TIMEOUT", "4s");
    let mut worker = worker.start().await?;
    for _ in 0..3 {
        let sms = shop.queue("").await?;
        shop.wait_for_status(&sms, "sent").await?;
    }
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    let counts = shop.close_fault(fault).await?;
    ensure!((counts.accepted, counts.accepted_unclear) == (4, 1), "{counts}");
    Ok(())
}

/// The standby lags when the primary is lost, and messages stand at every step at that moment. The worker lives on.
async fn a_promotion_that_lost_claims_sends_nothing_again(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.set("lease_timeout", "20s").await?;
    // What each organization's provider does: at once, late, later, never.
    let providers = [
        ("quick", "accept", 0),
        ("late", "delay", 5000),
        ("mute", "stall_after_headers", 60_000),
        ("idle", "accept", 0),
    ];
    for (organization, behaviour, delay) in providers {
        shop.install_for(organization, "sandbox", shop.token(organization), "").await?;
        shop.rule(json!({"behaviour": behaviour, "delay_ms": delay, "account": organization})).await?;
    }
    let primary = shop.database.cluster().clone();
    let standby = primary.standby().await?;
    let copy = Database::open(&standby, "shop").await?;
    let url = format!(
        "postgresql://worker:{}@127.0.0.1:{},127.0.0.1:{}/shop?target_session_attrs=read-write",
        primary.password(),
        primary.port(),
        standby.port()
    );
    let worker = shop.worker()?.set("DATABASE_URL", &url).set("SMS_OUTBOX_HTTP_TIMEOUT", "10s");
    let mut worker = worker.start().await?;
    pause(&shop.database, &["quick", "mute", "idle"]).await?;
    let leased = shop.queue_for("late", "").await?;
    shop.wait_for_status(&leased, "sending").await?;
    pause(&shop.database, &["late"]).await?;
    let quick = shop.queue_for("quick", "").await?;
    let mute = shop.queue_for("mute", "").await?;
    let idle = shop.queue_for("idle", "").await?;
    let late = shop.queue_for("late", "").await?;
    wait_until_replayed(&copy, &shop.database).await?;
    standby.stop(Stop::Fast).await?;

    // From here on the standby knows nothing: neither how the lease ended, nor of three claims.
    resume(&shop.database, &["quick", "mute"]).await?;
    shop.wait_for_status(&leased, "sent").await?;
    shop.wait_for_status(&quick, "sent").await?;
    shop.wait_for_status(&mute, "sending").await?;
    resume(&shop.database, &["late"]).await?;
    shop.wait_for_status(&late, "sending").await?;
    let asked = async || Ok((shop.sandbox.counts().await?.requests == 4).then_some(()));
    shop.database.wait_for("the provider is asked", asked).await?;
    let mut fault = Fault::new("14", "a promotion that lost claims and outcomes", major);
    primary.stop(Stop::Immediate).await?;
    standby.start().await?;
    standby.promote().await?;
    fault.injected(1);
    shop.database = Database::open(&standby, "shop").await?;
    resume(&shop.database, &["quick", "mute", "idle", "late"]).await?;

    // What the worker still knew it has told; its claims were lost, its outcomes are not.
    shop.wait_for_status(&late, "sent").await?;
    shop.expect_ledger(&late, &[("accepted", 0)]).await?;
    shop.wait_for_status(&mute, "dispatch_timeout").await?;
    shop.expect_ledger(&mute, &[("unclear", 0)]).await?;
    // The standby believes it leased. It was sent: that nobody knows any more, so it is unclear, and never 'not sent'.
    shop.wait_for_status(&leased, "dispatch_timeout").await?;
    let ledger = shop.ledger(&leased).await?;
    ensure!(ledger.len() == 1 && ledger[0].status == "unclear", "{ledger:?}");
    // What only the old primary knew is held, beside what nobody ever tried.
    for sms in [&quick, &idle] {
        ensure!(shop.show(sms, "waits_for").await?.as_deref() == Some("release_held"), "'{}' is not held", sms.text);
    }
    let next = shop.queue_for("idle", "").await?;
    shop.wait_for_status(&next, "sent").await?;
    let held = "SELECT status || ': ' || detail FROM sms_outbox.health WHERE \"check\" = 'held'";
    let held: String = shop.database.value(held, &[]).await?;
    ensure!(held.starts_with("warn: 2 messages"), "{held}");

    // The operator finds in the provider's portal what was sent, and releases the rest.
    shop.database.sql(&format!("SELECT sms_outbox.cancel('{}'); SELECT sms_outbox.release_held()", quick.id)).await?;
    shop.wait_for_status(&idle, "sent").await?;
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    for sms in [&leased, &quick, &mute, &idle, &late, &next] {
        ensure!(shop.seen(sms).await? == (1, 1), "'{}' was sent {:?} times", sms.text, shop.seen(sms).await?);
    }
    let unclear = shop
        .database
        .rows("SELECT id FROM sms_outbox.outbox WHERE dispatch_status = 'dispatch_timeout' ORDER BY id")
        .await?;
    ensure!(unclear == [json!({"id": leased.id}), json!({"id": mute.id})], "{unclear:?}");
    let misplaced = shop.database.rows("SELECT * FROM sms_outbox.misplaced").await?;
    ensure!(misplaced.is_empty(), "{misplaced:?}");
    // One request is in no ledger: of what the old primary alone knew. So the journals cannot judge it.
    fault.asserted(6)
}

async fn pause(database: &Database, organizations: &[&str]) -> Result<()> {
    for organization in organizations {
        database.sql(&format!("SELECT sms_outbox.pause_organization('{organization}', 'test')")).await?;
    }
    Ok(())
}

async fn resume(database: &Database, organizations: &[&str]) -> Result<()> {
    for organization in organizations {
        database.sql(&format!("SELECT sms_outbox.resume_organization('{organization}')")).await?;
    }
    Ok(())
}

/// A copy of the data files, started beside the original, and a worker that somebody points at it.
async fn a_clone_sends_nothing(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install("sandbox", "").await?;
    shop.queue_many("shop", 20, "").await?;
    shop.queue_many("shop", 5, "datetime => now() + interval '1 second'").await?;
    let mut fault = Fault::new("14", "a clone is started beside the original", major);
    for way in ["promoted", "recovered"] {
        let clone = shop.database.cluster().standby().await?;
        if way == "promoted" {
            let copy = Database::open(&clone, "shop").await?;
            wait_until_replayed(&copy, &shop.database).await?;
            clone.promote().await?;
        } else {
            clone.stop(Stop::Fast).await?;
            fs::rename(clone.data().join("standby.signal"), clone.data().join("recovery.signal"))?;
            clone.append_settings(&[("restore_command", "false")])?;
            clone.start().await?;
        }
        sends_its_own_alone(&Database::open(&clone, "shop").await?).await.context(way)?;
        fault.injected(1);
    }
    // Without a timeline of its own it is the same server, says PostgreSQL: the guide tells so.
    let twin = shop.database.cluster().standby().await?;
    twin.stop(Stop::Fast).await?;
    fs::remove_file(twin.data().join("standby.signal"))?;
    twin.start().await?;
    let twin = Database::open(&twin, "shop").await?;
    let id = "SELECT sms_outbox.server_id()";
    ensure!(twin.value::<i32>(id, &[]).await? == shop.database.value::<i32>(id, &[]).await?);

    let mut worker = shop.worker()?.start().await?;
    shop.wait_until_settled().await?;
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    ensure!(shop.close_fault(fault).await?.accepted == 25);
    Ok(())
}

async fn sends_its_own_alone(copy: &Database) -> Result<()> {
    let provider = Sandbox::start().await?;
    copy.sql("SELECT sms_outbox.uninstall_app(app_id) FROM sms_outbox.apps_installed").await?;
    provider.install_app(copy, "shop", "clone").await?;
    let mut worker = Worker::start(copy).await?;
    let own = "SELECT id FROM sms_outbox_enqueue('+966509999999', 'of the clone', organization_id => 'shop')";
    let own: String = copy.value(own, &[]).await?;
    let sent = format!("SELECT dispatch_status = 'sent' FROM sms_outbox.outbox WHERE id = '{own}'");
    copy.wait_until("the clone sends its own", &sent).await?;
    copy.wait_until("its schedule is staged", "SELECT NOT EXISTS (SELECT FROM sms_outbox.scheduled)").await?;
    let held: i64 = copy.value("SELECT held FROM sms_outbox.queue_stats", &[]).await?;
    ensure!(held == 25, "{held} held");
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    let sent: Vec<String> = provider.journal()?.into_iter().map(|one| one.body).collect();
    ensure!(sent == ["of the clone"], "the clone sent {sent:?}");
    Ok(())
}
