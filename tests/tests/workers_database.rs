//! The database goes away under load: the workers come back by themselves, and the journals agree.

mod shop;

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::{Major, Stop, on_majors};

on_majors! { ends: an_immediate_restart_loses_nothing, killed_connections_lose_nothing, a_reinstalled_extension_is_served }

async fn under_load(shop: &Shop) -> Result<()> {
    shop.install_account("north", "max_in_flight => 50").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 100})).await
}

async fn an_immediate_restart_loses_nothing(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.shorten_leases().await?;
    under_load(&shop).await?;
    let mut workers = vec![shop.quick_worker().await?, shop.quick_worker().await?];
    for round in 1..=3 {
        shop.queue_many("shop", 400, "").await?;
        shop.database
            .wait_until("half are sent", &format!("SELECT count(*) > {} FROM sms_outbox.attempt", round * 400 - 200))
            .await?;
        shop.database.cluster().restart(Stop::Immediate).await?;
        shop.database.reconnect().await?;
    }
    shop.wait_until_settled().await?;
    for worker in &mut workers {
        let status = worker.drain().await?;
        ensure!(status.success(), "{status}: {}", worker.log());
    }
    // Without fsync the server's files survive the death of its processes all the same. Nothing was unclear:
    // outcomes were held until the database was back, and claims whose answers were lost were given back.
    let balance = shop.check().await?;
    ensure!(balance.by_status == [("sent".to_owned(), 1200)].into(), "{balance}");
    ensure!(balance.accepted == 1200, "{balance}");
    Ok(())
}

async fn killed_connections_lose_nothing(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "connections").await?;
    under_load(&shop).await?;
    let mut workers = vec![shop.worker()?.start().await?, shop.worker()?.start().await?];
    shop.queue_many("shop", 1500, "").await?;
    let until = Instant::now() + Duration::from_secs(3);
    let kill = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity
        WHERE usename = 'worker' AND datname = current_database()";
    while Instant::now() < until {
        shop.database.sql(kill).await?;
        tokio::time::sleep(Duration::from_millis(50)).await;
    }
    shop.wait_until_settled().await?;
    for worker in &mut workers {
        let status = worker.drain().await?;
        ensure!(status.success(), "{status}: {}", worker.log());
    }
    shop.expect_a_request_for_each_attempt().await?;
    let balance = shop.close().await?;
    ensure!(balance.by_status == [("sent".to_owned(), 1500)].into(), "{balance}");
    ensure!(balance.accepted == 1500, "{balance}");
    Ok(())
}

/// Plans and types that connections remember are those of an extension that is gone.
async fn a_reinstalled_extension_is_served(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "reinstalled").await?;
    shop.install("sandbox", "").await?;
    let mut worker = shop.worker()?.start().await?;
    let first = shop.queue("").await?;
    shop.wait_for_status(&first, "sent").await?;
    shop.forget(|_| true);
    shop.database.sql("DROP EXTENSION sms_outbox CASCADE").await?;
    let noticed = async || Ok(worker.log().contains("did not answer").then_some(()));
    shop.database.wait_for("the worker has noticed", noticed).await?;
    shop.database.sql("CREATE EXTENSION sms_outbox").await?;
    shop.install("sandbox", "").await?;
    let second = shop.queue("").await?;
    shop.wait_for_status(&second, "sent").await?;
    ensure!(shop.accepted(&second)? == 1);
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    Ok(())
}
