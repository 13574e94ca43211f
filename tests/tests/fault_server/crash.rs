//! The server dies, whole or in part. It comes back by itself, and so does all that lives in it: the background worker, its
//! wake-ups, the workers' places in the log.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sms_outbox_tests::process::{Signal, signal_process};
use sms_outbox_tests::{Fault, Major, Stop, Worker};

use crate::shop::Shop;

/// Who is killed, by its name in `pg_stat_activity`: of the backends the workers' own.
const VICTIMS: [&str; 6] =
    ["client backend", "sms_outbox maintainer", "sms_outbox launcher", "checkpointer", "walwriter", "postmaster"];

/// A worker that finds messages by wake-ups alone for as long as a test has patience.
async fn woken_worker(shop: &Shop) -> Result<Worker> {
    shop.worker()?.set("SMS_OUTBOX_POLL_INTERVAL", "60s").start().await
}

pub(crate) async fn every_process_of_the_server_may_be_killed(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install_account("north", "max_in_flight => 50").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 100})).await?;
    let mut workers = vec![woken_worker(&shop).await?, woken_worker(&shop).await?];
    for victim in VICTIMS {
        let mut fault = Fault::new("13", &format!("SIGKILL: {victim}"), major);
        let before: i64 = shop.database.value("SELECT count(*) FROM sms_outbox.attempt", &[]).await?;
        shop.queue_many("shop", 200, "").await?;
        let some = format!("SELECT count(*) > {before} + 50 FROM sms_outbox.attempt");
        shop.database.wait_until("the workers are at work", &some).await?;
        let (started, began) = (boot(&shop).await?, Instant::now());
        if victim == "postmaster" {
            shop.database.cluster().restart(Stop::Kill).await?;
        } else {
            let pid = "SELECT pid FROM pg_stat_activity WHERE backend_type = $1
                AND (backend_type <> 'client backend' OR usename = 'worker') LIMIT 1";
            let pid: i32 = shop.database.value(pid, &[&victim]).await.with_context(|| format!("no {victim}"))?;
            signal_process(u32::try_from(pid)?, Signal::KILL)?;
        }
        shop.database.reconnect().await?;
        ensure!(boot(&shop).await? != started, "the death of {victim} went unnoticed");
        fault.injected(1);
        let some = format!("SELECT count(*) > {before} + 100 FROM sms_outbox.attempt");
        shop.database.wait_until("the workers are at work again", &some).await?;
        fault.recovered_in(began.elapsed());
        shop.wait_until_settled().await?;
        let alive = "SELECT status = 'ok' FROM sms_outbox.health WHERE \"check\" = 'background_worker'";
        shop.database.wait_until("the background worker is back", alive).await?;
        // Nobody polls now: a commit wakes them, or nothing does.
        let woken = shop.queue("").await?;
        shop.wait_for_status(&woken, "sent").await?;
        // Nothing was unclear: outcomes were held until the database was back, and claims whose answers were lost were given back.
        let verdict = shop.judge(Some(fault.expected())).await?;
        fault.close(&verdict)?;
    }
    for worker in &mut workers {
        ensure!(worker.drain().await?.success(), "{}", worker.log());
    }
    shop.expect_a_request_for_each_attempt().await?;
    let counts = shop.close().await?;
    ensure!(counts.by_status == [("sent".to_owned(), 201 * VICTIMS.len())].into(), "{counts}");
    Ok(())
}

/// When the server last began anew: its statistics do after a crash.
async fn boot(shop: &Shop) -> Result<String> {
    shop.database.value("SELECT pg_stat_get_bgwriter_stat_reset_time()::text", &[]).await
}

/// A transaction that rolls back leaves a number that no flush has made durable. After a crash the next ones get it again, behind
/// the place in the log that a living worker has reached.
pub(crate) async fn transaction_ids_that_are_given_twice_hide_nothing(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install("sandbox", "").await?;
    // Nothing is written by itself for a while.
    shop.database.sql("ALTER SYSTEM SET wal_writer_delay = '10s'").await?;
    shop.database.sql("ALTER SYSTEM SET sms_outbox.maintenance_interval = '1min'").await?;
    shop.database.cluster().reload()?;
    let worker = shop.worker()?.set("SMS_OUTBOX_POLL_INTERVAL", "50ms").set("SMS_OUTBOX_HEARTBEAT_INTERVAL", "4s");
    let mut worker = worker.start().await?;
    let mut fault = Fault::new("13", "transaction ids are given twice", major);
    for _ in 0..5 {
        let sms = shop.queue("").await?;
        shop.wait_for_status(&sms, "sent").await?;
        let session = shop.database.connect().await?;
        for _ in 0..300 {
            session.batch_execute("BEGIN; SELECT pg_current_xact_id(); ROLLBACK").await?;
        }
        let reached: i64 = shop.database.value(NEXT_XID, &[]).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        shop.database.cluster().restart(Stop::Immediate).await?;
        shop.database.reconnect().await?;
        // By several transactions, as applications do.
        let mut sms = Vec::new();
        for _ in 0..5 {
            sms.push(shop.queue("").await?);
        }
        if shop.database.value::<i64>(NEXT_XID, &[]).await? < reached {
            fault.injected(1);
        }
        for sms in &sms {
            shop.wait_for_status(sms, "sent").await?;
        }
    }
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    shop.close_fault(fault).await.map(drop)
}

const NEXT_XID: &str = "SELECT pg_snapshot_xmax(pg_current_snapshot())::text::bigint";

/// The worker stands still while the server dies: what the provider was asked to send, the database knows by itself.
pub(crate) async fn claims_are_durable_whatever_the_settings_say(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install_account("north", "max_in_flight => 50").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 100})).await?;
    // What is not flushed by its commit stays unflushed for long.
    shop.database.sql("ALTER SYSTEM SET wal_writer_delay = '10s'").await?;
    shop.database.sql("ALTER ROLE app SET synchronous_commit = on").await?;
    shop.database.cluster().reload()?;
    let mut fault = Fault::new("29", "synchronous_commit = off for the worker", major);
    let mut committed = 0;
    for place in ["ROLE worker", "ROLE worker IN DATABASE shop", "DATABASE shop"] {
        shop.database.sql(&format!("ALTER {place} SET synchronous_commit = off")).await?;
        let mut worker = shop.worker()?.start().await?;
        let before = shop.sandbox.counts().await?.requests;
        shop.queue_many("shop", 300, "").await?;
        committed += 300;
        let asked = async || Ok((shop.sandbox.counts().await?.requests > before + 100).then_some(()));
        shop.database.wait_for("the provider is asked", asked).await?;
        worker.pause()?;
        shop.database.cluster().restart(Stop::Immediate).await?;
        shop.database.reconnect().await?;
        fault.injected(1);
        let known = shop.database.rows(
            "SELECT mobile FROM sms_outbox.outbox AS o WHERE EXISTS (SELECT FROM sms_outbox.lease AS l WHERE l.id::text = o.id)
                OR EXISTS (SELECT FROM sms_outbox.attempt AS a WHERE a.id::text = o.id)",
        );
        let known: Vec<Value> = known.await?.into_iter().map(|row| row["mobile"].clone()).collect();
        let requests = shop.sandbox.requests().await?;
        let unknown = requests.iter().filter(|request| !known.contains(&request["to"])).count();
        ensure!(unknown == 0, "{place}: {unknown} of {} requests went out without a durable claim", requests.len());
        worker.resume()?;
        shop.wait_until_settled().await?;
        ensure!(worker.drain().await?.success(), "{}", worker.log());
        shop.database.sql(&format!("ALTER {place} RESET synchronous_commit")).await?;
    }
    let counts = shop.close_fault(fault).await?;
    ensure!(counts.by_status == [("sent".to_owned(), committed)].into(), "{counts}");
    Ok(())
}
