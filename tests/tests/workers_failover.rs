//! The database itself fails over: a worker goes on with the promoted standby, whose past is another one.

mod shop;

use anyhow::{Result, ensure};
use shop::Shop;
use sms_outbox_tests::{Database, Major, Stop, on_majors};

on_majors! { ends: a_worker_follows_a_promotion }

async fn a_worker_follows_a_promotion(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install("sandbox", "").await?;
    let primary = shop.database.cluster().clone();
    let standby = primary.standby().await?;
    let copy = Database::open(&standby, "shop").await?;
    let waiting = shop.queue("datetime => now() + interval '1 hour'").await?;
    let replayed = format!("SELECT EXISTS (SELECT FROM sms_outbox.outbox WHERE id = '{}')", waiting.id);
    copy.wait_until("the standby has it", &replayed).await?;
    // From now on it lags: asynchronous replication that loses the last transactions.
    standby.stop(Stop::Fast).await?;

    let url = format!(
        "postgresql://worker:{}@127.0.0.1:{},127.0.0.1:{}/shop?target_session_attrs=read-write",
        primary.password(),
        primary.port(),
        standby.port()
    );
    let mut worker = shop.worker()?.set("DATABASE_URL", &url).start().await?;
    // The worker's place in the log is far behind anything that the standby has got to.
    let session = shop.database.connect().await?;
    for _ in 0..2000 {
        session.simple_query("SELECT pg_current_xact_id()").await?;
    }
    let last = shop.queue("").await?;
    shop.wait_for_status(&last, "sent").await?;
    primary.stop(Stop::Immediate).await?;
    standby.start().await?;
    standby.promote().await?;

    // What the lost primary alone knew of is the provider's word now.
    shop.database = Database::open(&standby, "shop").await?;
    shop.forget(|id| id == last.id);
    let next = shop.queue("").await?;
    shop.wait_for_status(&next, "sent").await?;
    let accepted = shop.accepted(&next)?;
    ensure!(accepted == 1, "accepted {accepted} times");
    // What waited before the promotion is held until an operator says that the old primary is gone.
    ensure!(shop.show(&waiting, "waits_for").await?.as_deref() == Some("release_held"));
    ensure!(worker.drain().await?.success());
    Ok(())
}
