//! Limits of apps hold over the whole fleet, also while a worker dies, and its part is used again soon after.

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sms_outbox_tests::{Major, Worker};

use crate::measure::{QUIET, arrivals, cancel_all, keeps_to, most_within, seen};
use crate::shop::Shop;

/// How much later than it was sent a request may be noted by the provider, on a machine that is busy with all tests.
const LATE: i64 = 500;
/// Each request of the first app takes so many milliseconds.
const TAKES: i64 = 300;

/// Three workers that know of each other: each beat after the last had begun.
async fn fleet(shop: &Shop) -> Result<Vec<Worker>> {
    let mut workers = Vec::new();
    for _ in 0..3 {
        workers.push(shop.worker()?.set("SMS_OUTBOX_HTTP_TIMEOUT", "4s").start().await?);
    }
    let met =
        "SELECT count(*) = 3 AND min(heartbeat) > max(started_at) + interval '100 ms' FROM sms_outbox.worker_stats";
    shop.database.wait_until("the workers know of each other", met).await?;
    Ok(workers)
}

/// Requests of an account in so many milliseconds from then on.
fn count(arrivals: &[i64], from: i64, stretch: i64) -> usize {
    arrivals.iter().filter(|at| (from..from + stretch).contains(at)).count()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn hold_over_the_fleet_and_are_shared_anew_when_a_worker_dies() -> Result<()> {
    let _shared = QUIET.read().await;
    let mut shop = Shop::open(Major::V18, "limits").await?;
    shop.shorten_leases().await?;
    let mut workers = fleet(&shop).await?;
    for (organization, limits) in [
        ("at_once", "max_in_flight => 9"),
        ("rate", "max_in_flight => 200, rate => 30, burst => 12"),
        ("segments", "max_in_flight => 200, rate => 30, rate_unit => 'segments', burst => 12"),
    ] {
        shop.install_for(organization, "sandbox", shop.token(organization), limits).await?;
    }
    shop.rule(json!({"behaviour": "delay", "account": "at_once", "delay_ms": TAKES})).await?;
    shop.queue_many("at_once", 1500, "").await?;
    shop.queue_many("rate", 1500, "").await?;
    for number in 0..500 {
        // 153 characters fit into each part of a long text.
        shop.queue_text("segments", &format!("long text {number} {}", "x".repeat(380))).await?;
    }

    // Not only bounded, but used: of 90 messages and 30 of three segments in three seconds.
    shop.database
        .wait_for("the fleet has the whole rates", async || {
            let all = seen(&shop).await?;
            let Some(last) = all.last().map(|seen| seen.at) else { return Ok(None) };
            let lately = |account| count(&arrivals(&all, account), last - 3000, 3000);
            Ok((lately("rate") >= 75 && lately("segments") >= 25 && lately("at_once") > 40).then_some(()))
        })
        .await?;
    workers[0].kill().await?;
    let killed = seen(&shop).await?.last().context("no request")?.at;

    // Its part lies idle until the others know that it is dead, and is used then: of 90 in three seconds they have had 60, and
    // 8 of the burst.
    let again = shop.database.wait_for("the survivors have the whole rate", async || {
        let all = seen(&shop).await?;
        let (last, rate) = (all.last().context("no request")?.at, arrivals(&all, "rate"));
        Ok((last > killed + 4000 && count(&rate, last - 3000, 3000) >= 75).then_some(last))
    });
    let again = again.await?;
    // And for some time more, so that the bounds are checked after it too.
    shop.database
        .wait_for("three seconds more", async || {
            Ok((seen(&shop).await?.last().context("no request")?.at > again + 3000).then_some(()))
        })
        .await?;
    let all = seen(&shop).await?;
    for organization in ["at_once", "rate", "segments"] {
        cancel_all(&shop, organization).await?;
    }

    let at_once = arrivals(&all, "at_once");
    // Each is in flight for TAKES at least: what arrives in less time is in flight at once.
    ensure!(most_within(&at_once, TAKES - 5) == 9, "{} at once", most_within(&at_once, TAKES - 5));
    let after: Vec<i64> = at_once.iter().copied().filter(|at| *at > again).collect();
    ensure!(most_within(&after, TAKES * 3 / 2) > 6, "the dead worker's requests are not made by the others");

    let (rate, segments) = (arrivals(&all, "rate"), arrivals(&all, "segments"));
    keeps_to(&rate, 1.0, 30.0, 12.0, LATE).context("messages")?;
    // A message of three segments goes when there is one token: two more, at each of three workers.
    keeps_to(&segments, 3.0, 30.0, 12.0 + 6.0, LATE).context("segments")?;
    let dead = count(&rate, killed + 1000, 4000);
    ensure!(dead <= 100, "the dead worker's part was taken at once: {dead} in 4 s");
    shop.wait_until_settled().await?;
    shop.close().await.map(drop)
}

/// Where the database was away for longer than a worker may be silent, nobody is taken for dead.
#[tokio::test]
async fn after_an_outage_nobody_takes_the_limits_of_all() -> Result<()> {
    let queue = sms_outbox_tests::Queue::new(Major::V18).await?;
    let beat = async |worker: &str| {
        let rows =
            queue.rows(&format!("SELECT sms_outbox.heartbeat('{worker}', '1', 'h', 0, 0, 0, 0) AS name")).await?;
        anyhow::Ok(rows.iter().filter_map(|row| row["name"].as_str().map(str::to_owned)).collect::<Vec<_>>())
    };
    let pass = async |time: &str| {
        queue.sql(&format!("UPDATE sms_outbox.worker SET heartbeat_at = heartbeat_at - interval '{time}'")).await
    };
    assert_eq!(beat("a").await?, ["a"]);
    assert_eq!(beat("b").await?, ["a", "b"]);
    pass("2 minutes").await?;
    assert_eq!(beat("a").await?, ["a", "b"], "it was away itself");
    assert_eq!(beat("a").await?, ["a"], "and has now waited for the other");
    pass("8 seconds").await?;
    assert_eq!(beat("b").await?, ["a", "b"]);
    pass("11 seconds").await?;
    assert_eq!(beat("c").await?, ["c"], "who comes anew has nothing to wait for");
    Ok(())
}

/// A worker that starts beside another sends nothing before the other has made room.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_newcomer_waits_until_the_others_know_of_it() -> Result<()> {
    let _shared = QUIET.read().await;
    let mut shop = Shop::open(Major::V18, "newcomer").await?;
    shop.install("sandbox", "max_in_flight => 6").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": TAKES})).await?;
    let _first = shop.worker()?.start().await?;
    shop.queue_many("shop", 240, "").await?;
    shop.database.wait_until("the first is busy", "SELECT count(*) > 12 FROM sms_outbox.attempt").await?;
    let _second = shop.worker()?.start().await?;
    let both = "SELECT count(DISTINCT worker) = 2 FROM sms_outbox.attempt";
    shop.database.wait_until("both have sent", both).await?;
    shop.wait_until_settled().await?;
    let arrivals: Vec<i64> = seen(&shop).await?.iter().map(|seen| seen.at).collect();
    let most = most_within(&arrivals, TAKES - 5);
    ensure!(most == 6, "{most} at once");
    shop.close().await.map(drop)
}
