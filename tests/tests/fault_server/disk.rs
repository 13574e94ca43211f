//! No room for the WAL. The server stops itself rather than lose anything, and tries to come back until there is room again.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sms_outbox_tests::history::journal::Transaction;
use sms_outbox_tests::{Cluster, Fault, Major};
use tokio_postgres::Client;

use crate::shop::{Shop, Sms};

/// Of 16 MB each, the server keeps two or three segments.
const MEGABYTES: u32 = 80;

pub(crate) async fn a_full_disk_loses_nothing(major: Major) -> Result<()> {
    let options = Cluster::options(major).set("max_wal_size", "48MB").set("min_wal_size", "32MB").small_wal(MEGABYTES);
    let cluster = options.start().await?;
    let Some(disk) = cluster.wal_disk() else {
        #[expect(clippy::print_stderr, reason = "who reads the results must see that this one shows nothing")]
        {
            eprintln!("skipped: no room for the WAL: this machine lets nobody mount a file system");
        }
        return Ok(());
    };
    let mut shop = Shop::open_on(&cluster, "shop").await?;
    shop.install_account("north", "max_in_flight => 20").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 200})).await?;
    let mut workers = vec![shop.worker()?.start().await?, shop.worker()?.start().await?];
    let mut fault = Fault::new("15", "no room for the WAL", major);
    for round in 0..2 {
        let load = shop.queue_many("shop", 200, "").await?;
        let asked = async || Ok((shop.sandbox.counts().await?.requests >= 50 + 200 * round).then_some(()));
        shop.database.wait_for("the workers are at work", asked).await?;
        let faults_before = cluster.log().matches("No space left on device").count();
        disk.fill()?;
        let refused = queue_until_refused(&mut shop, round).await?;
        let full = cluster.log().matches("No space left on device").count();
        ensure!(full > faults_before, "the disk is not full:\n{}", cluster.log_tail());
        fault.injected(1);
        disk.clear()?;
        // What supervises a server starts it again where it gave up.
        cluster.start_if_ended().await?;
        shop.database.reconnect().await?;
        // Whether it was committed, the application cannot know. It asks again with the same key, and gets one message.
        let (sms, _) = queue_with_key(&shop.database.connect_as("app").await?, refused).await?;
        shop.note(&sms, Transaction::Committed)?;
        shop.wait_until_settled().await?;
        shop.wait_for_status(&sms, "sent").await?;
        shop.wait_for_status(&load[199], "sent").await?;
    }
    for worker in &mut workers {
        ensure!(worker.drain().await?.success(), "{}", worker.log());
    }
    let counts = shop.close_fault(fault).await?;
    ensure!(counts.by_status == [("sent".to_owned(), counts.committed)].into(), "{counts}");
    Ok(())
}

/// Queues with keys until it is refused; returns the number of what was.
async fn queue_until_refused(shop: &mut Shop, round: u64) -> Result<u64> {
    let session = shop.database.connect_as("app").await?;
    let mut number = round * 1000;
    loop {
        match queue_with_key(&session, number).await {
            Ok((sms, replay)) => {
                ensure!(!replay, "a key of its own");
                shop.note(&sms, Transaction::Committed)?;
            }
            Err(_) => return Ok(number),
        }
        // The segments that are there already are used up as quickly as can be.
        let _ = shop.database.sql("SELECT pg_switch_wal()").await;
        number += 1;
    }
}

async fn queue_with_key(session: &Client, number: u64) -> Result<(Sms, bool)> {
    let (to, text) = (format!("+96655{number:07}"), format!("order {number}"));
    let queue = "SELECT id, idempotent_replay FROM sms_outbox_enqueue($1, $2, idempotency_key => $2, organization_id => 'shop')";
    let row = session.query_one(queue, &[&to, &text]).await.context("enqueue")?;
    Ok((Sms { id: row.try_get(0)?, to, text }, row.try_get(1)?))
}
