//! How often a worker waits for the database: by the batch, not by the message.

mod shop;

use anyhow::{Result, ensure};
use shop::Shop;
use sms_outbox_tests::proxy::Proxy;
use sms_outbox_tests::{Major, on_majors};

on_majors! { ends: are_shared_by_many_messages }

const MESSAGES: i32 = 3000;

async fn are_shared_by_many_messages(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "round_trips").await?;
    shop.install_account("north", "max_in_flight => 1000").await?;
    let port = shop.database.cluster().port();
    let proxy = Proxy::start(port).await?;
    let url = shop.database.url("worker").replace(&format!(":{port}/"), &format!(":{}/", proxy.port()));
    let mut worker = shop.worker()?.set("DATABASE_URL", &url).set("SMS_OUTBOX_CONCURRENCY", "256").start().await?;
    // Statements are prepared once in a session.
    shop.queue_many("shop", 300, "").await?;
    shop.wait_until_settled().await?;

    let before = proxy.round_trips();
    shop.queue_many("shop", MESSAGES, "").await?;
    shop.wait_until_settled().await?;
    let each = (proxy.round_trips() - before) as f64 / f64::from(MESSAGES);
    // A look, a claim and a finish are three for a batch; one of thirty messages is a small one.
    ensure!(each > 0.0 && each <= 0.1, "{each:.3} round trips a message");
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    shop.check().await.map(drop)
}
