//! A worker that is killed at each place of a message's way: what it had begun is unclear, and nothing else.

use std::time::Instant;

use anyhow::{Result, ensure};
use serde_json::json;
use sms_outbox_tests::Fault;

use crate::shop::{Shop, Sms};
use crate::{MAJOR, alive_again};

/// What a worker leaves that dies at a fail point.
struct Death {
    point: &'static str,
    case: &'static str,
    /// The claim was committed, and the outcome was not: the messages end as `dispatch_timeout`.
    unclear: bool,
    /// The provider was asked.
    asked: bool,
}

/// Messages that it holds.
const HELD: usize = 5;

async fn killed_at(death: Death) -> Result<()> {
    let mut shop = Shop::open(MAJOR, &format!("killed_at_{}", death.point)).await?;
    shop.shorten_leases().await?;
    shop.install("sandbox", "").await?;
    let mut fault = Fault::new("6", death.case, MAJOR);
    let mut victim = shop.worker_at(&format!("{}=pause", death.point))?.start().await?;
    let held = shop.queue_many("shop", i32::try_from(HELD)?, "").await?;
    // Each attempt comes to it by itself, but for those places that hold several at once, or the threads of the worker.
    let apart = matches!(death.point, "claimed" | "written" | "answered");
    victim.wait_until_held(death.point, if apart { HELD } else { 1 }).await?;
    let asked = if death.asked { HELD } else { 0 };
    shop.wait_for_requests(asked).await?;
    victim.kill().await?;
    let killed = Instant::now();
    fault.injected(1);
    let leased = shop.leased().await?;
    if death.unclear {
        ensure!(leased == ids(&held), "it had {leased:?}");
    } else {
        ensure!(leased.len() < HELD, "it had recorded nothing");
    }
    fault.unclear(&leased)?;

    let _next = alive_again(&mut shop).await?;
    fault.recovered_in(killed.elapsed());
    shop.wait_until_settled().await?;
    for sms in &held {
        let requests = if death.asked || !leased.contains(&sms.id) { 1 } else { 0 };
        ensure!(shop.seen(sms).await? == (requests, requests), "{}: {:?}", sms.text, shop.seen(sms).await?);
    }
    shop.close_fault(fault).await.map(drop)
}

fn ids(sms: &[Sms]) -> Vec<String> {
    let mut ids: Vec<String> = sms.iter().map(|sms| sms.id.clone()).collect();
    ids.sort_unstable();
    ids
}

macro_rules! deaths {
    ($($name:ident: $point:literal, $case:literal, unclear: $unclear:literal, asked: $asked:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> Result<()> {
                killed_at(Death { point: $point, case: $case, unclear: $unclear, asked: $asked }).await
            }
        )+
    };
}

deaths! {
    killed_before_the_claim: "claim", "worker killed before the claim", unclear: false, asked: false;
    killed_after_the_claim: "claimed", "worker killed after the claim, before the connection", unclear: true, asked: false;
    killed_before_the_first_byte: "write", "worker killed when connected, before the first byte", unclear: true, asked: false;
    killed_after_the_bytes: "written", "worker killed after the bytes", unclear: true, asked: true;
    killed_after_the_answer: "answered", "worker killed after the answer", unclear: true, asked: true;
    killed_before_finish: "finish", "worker killed before finish", unclear: true, asked: true;
    killed_after_finish: "finished", "worker killed after finish, before it counts on it", unclear: false, asked: true;
}

/// It dies with the answers in hand. Receipts tell of two, one before its lease is over and one after; of the rest the provider tells
/// when it is asked.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_it_was_told_becomes_known_later() -> Result<()> {
    let mut shop = Shop::open(MAJOR, "known_later").await?;
    shop.shorten_leases().await?;
    let app = shop.install("sandbox", "").await?;
    let mut fault = Fault::new("6", "worker killed before finish; then receipts and look-ups tell", MAJOR);
    let mut victim = shop.worker_at("finish=pause")?.start().await?;
    let held = shop.queue_many("shop", i32::try_from(HELD)?, "").await?;
    victim.wait_until_held("finish", 1).await?;
    shop.wait_for_requests(HELD).await?;
    victim.kill().await?;
    let killed = Instant::now();
    fault.injected(1);
    ensure!(shop.leased().await? == ids(&held), "it had recorded some");

    let report = async |sms: &Sms| {
        let receipt = "SELECT result FROM sms_outbox.record_receipt($1::text, 1, 'delivered')";
        let result: String = shop.database.value(receipt, &[&sms.id]).await?;
        ensure!(result == "recorded", "{result}");
        Ok(())
    };
    let (early, late, asked) = (&held[0], &held[1], &held[2..]);
    report(early).await?;
    for sms in &held[1..] {
        shop.wait_for_status(sms, "dispatch_timeout").await?;
    }
    shop.wait_for_status(early, "sent").await?;
    report(late).await?;
    shop.wait_for_status(late, "sent").await?;
    let next = shop.worker()?.set("SMS_OUTBOX_HTTP_TIMEOUT", "4s").set("SMS_OUTBOX_LOOK_UP_AFTER", "1s");
    let _next = next.start().await?;
    for sms in asked {
        shop.wait_for_status(sms, "sent").await?;
    }
    fault.recovered_in(killed.elapsed());
    let sources = "SELECT array_agg(source ORDER BY id) FROM sms_outbox.evidence WHERE verdict = 'accepted'";
    let sources: Vec<String> = shop.database.value(sources, &[]).await?;
    ensure!(sources == ["receipt", "receipt", "look-up", "look-up", "look-up"], "{sources:?}");
    for sms in &held {
        ensure!(shop.seen(sms).await? == (1, 1), "{}: {:?}", sms.text, shop.seen(sms).await?);
        shop.expect_ledger(sms, &[("accepted", app)]).await?;
    }
    shop.close_fault(fault).await.map(drop)
}

/// A batch of outcomes of which the database has done a part: leases are deleted and the ledger is written, and the row of
/// the app's health is locked by somebody else. What the dead worker had asked for is either done wholly or not at all.
async fn killed_amid_a_batch(name: &str, committed: bool) -> Result<()> {
    let mut shop = Shop::open(MAJOR, name).await?;
    shop.shorten_leases().await?;
    let app = shop.install("sandbox", "").await?;
    shop.install_for("first", "sandbox", shop.token("first"), "").await?;
    let case = if committed { "the database goes on" } else { "its backend dies too" };
    let mut fault = Fault::new("6", &format!("worker killed amid a batch of finish; {case}"), MAJOR);
    shop.database.sql(&format!("INSERT INTO sms_outbox.app_health (app_id) VALUES ({app})")).await?;
    // The first outcome waits until those of the batch have gathered behind it.
    let mut victim = shop.worker_at("finish=1*sleep(6000);answered=off")?.start().await?;
    let first = shop.queue_for("first", "").await?;
    victim.wait_until_held("finish", 1).await?;
    shop.rule(json!({"behaviour": "refuse_recipient", "to": shop.next_number(), "times": 1})).await?;
    let batch = shop.queue_many("shop", 10, "").await?;
    shop.wait_until("all are answered", || victim.visits("answered").1 == 11).await?;
    let holder = shop.database.connect().await?;
    holder.batch_execute(&format!("BEGIN; SELECT FROM sms_outbox.app_health WHERE app_id = {app} FOR UPDATE")).await?;
    ensure!(victim.visits("finish").1 == 0, "the machine was too slow: they did not gather");
    let blocked = "SELECT max(pid) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%sms_outbox.finish(%'";
    let found = async || Ok(shop.database.value::<Option<i32>>(blocked, &[]).await?);
    let backend = shop.database.wait_for("finish is held in its midst", found).await?;
    shop.wait_for_status(&first, "sent").await?;
    victim.kill().await?;
    let killed = Instant::now();
    fault.injected(1);
    if !committed {
        shop.database.sql(&format!("SELECT pg_terminate_backend({backend})")).await?;
        fault.unclear(ids(&batch))?;
    }
    let gone = format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {backend})");
    if !committed {
        shop.database.wait_until("the backend is gone", &gone).await?;
    }
    holder.batch_execute("ROLLBACK").await?;
    shop.database.wait_until("the backend is gone", &gone).await?;
    let left = shop.leased().await?;
    ensure!(left == if committed { Vec::new() } else { ids(&batch) }, "a part of the batch: {left:?}");

    let _next = alive_again(&mut shop).await?;
    fault.recovered_in(killed.elapsed());
    shop.wait_until_settled().await?;
    let counts = shop.close_fault(fault).await?;
    let expected: &[(&str, usize)] =
        if committed { &[("failed", 1), ("sent", 11)] } else { &[("dispatch_timeout", 10), ("sent", 2)] };
    let expected = expected.iter().map(|(status, number)| ((*status).to_owned(), *number)).collect();
    ensure!(counts.by_status == expected, "{counts}");
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_amid_a_batch_that_is_then_committed() -> Result<()> {
    killed_amid_a_batch("batch_committed", true).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_amid_a_batch_that_is_rolled_back() -> Result<()> {
    killed_amid_a_batch("batch_rolled_back", false).await
}

/// The claim is on its way in the database and not committed.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn killed_amid_a_claim() -> Result<()> {
    let mut shop = Shop::open(MAJOR, "amid_a_claim").await?;
    shop.shorten_leases().await?;
    shop.install("sandbox", "").await?;
    let mut fault = Fault::new("6", "worker killed amid a claim, before its commit", MAJOR);
    let mut victim = shop.quick_worker().await?;
    let holder = shop.database.connect().await?;
    holder.batch_execute("BEGIN; LOCK TABLE sms_outbox.lease IN SHARE MODE").await?;
    let held = shop.queue_many("shop", 10, "").await?;
    let blocked = "SELECT max(pid) FROM pg_stat_activity WHERE datname = current_database()
        AND wait_event_type = 'Lock' AND query LIKE '%sms_outbox.claim(%'";
    let found = async || Ok(shop.database.value::<Option<i32>>(blocked, &[]).await?);
    let backend = shop.database.wait_for("claim is held in its midst", found).await?;
    victim.kill().await?;
    let killed = Instant::now();
    fault.injected(1);
    shop.database.sql(&format!("SELECT pg_terminate_backend({backend})")).await?;
    let gone = format!("SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE pid = {backend})");
    shop.database.wait_until("the backend is gone", &gone).await?;
    holder.batch_execute("ROLLBACK").await?;
    ensure!(shop.leased().await?.is_empty(), "a claim that was not committed left leases");
    let _next = shop.quick_worker().await?;
    shop.wait_for_status(&held[0], "sent").await?;
    fault.recovered_in(killed.elapsed());
    shop.wait_until_settled().await?;
    let counts = shop.close_fault(fault).await?;
    ensure!(counts.by_status == [("sent".to_owned(), 10)].into(), "{counts}");
    Ok(())
}
