//! Outcomes that the database does not take at first, or not as they are: what a provider accepted is sent, once.

mod shop;

use anyhow::{Result, ensure};
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::{Major, on_majors};

on_majors! { ends: a_right_that_was_revoked_holds_outcomes_up_and_loses_none,
    an_answer_that_the_database_refuses_costs_itself_alone,
}

async fn a_right_that_was_revoked_holds_outcomes_up_and_loses_none(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "revoked").await?;
    shop.install("sandbox", "").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 500})).await?;
    let mut worker = shop.worker()?.start().await?;
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "sending").await?;
    shop.database.sql("REVOKE EXECUTE ON FUNCTION sms_outbox.finish FROM sms_outbox_worker").await?;
    let held_up = async || Ok(worker.log().contains("outcomes not recorded yet").then_some(()));
    shop.database.wait_for("the outcome is held up", held_up).await?;
    shop.database.sql("GRANT EXECUTE ON FUNCTION sms_outbox.finish TO sms_outbox_worker").await?;
    shop.wait_for_status(&sms, "sent").await?;
    ensure!(shop.seen(&sms).await? == (1, 1));
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    shop.close().await.map(drop)
}

async fn an_answer_that_the_database_refuses_costs_itself_alone(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "refused").await?;
    let app = shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.start().await?;
    let plain = shop.queue("").await?;
    shop.wait_for_status(&plain, "sent").await?;
    shop.database.sql("ALTER TABLE sms_outbox.attempt ADD CONSTRAINT picky CHECK (response IS NULL) NOT VALID").await?;
    let refused = shop.queue("").await?;
    shop.wait_for_status(&refused, "sent").await?;
    shop.expect_ledger(&refused, &[("accepted", app)]).await?;
    ensure!(shop.seen(&refused).await? == (1, 1));
    let kept = "SELECT count(*) = 1 FROM sms_outbox.attempts WHERE response IS NOT NULL";
    ensure!(shop.database.value::<bool>(kept, &[]).await?, "only the first answer is kept");
    shop.close().await.map(drop)
}
