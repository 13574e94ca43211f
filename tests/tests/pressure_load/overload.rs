//! More comes in than providers take: applications do not feel it, workers stay small, what is urgent stays young, and a
//! provider that comes back is not stormed.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sms_outbox_tests::process::Signal;
use sms_outbox_tests::{Major, Sandbox, patience};

use crate::measure::{QUIET, cancel_all, keeps_to, percentile, resident, seen};
use crate::shop::Shop;

/// What the provider takes a second; ten times as many come.
const RATE: u32 = 15;
const BURST: u32 = 10;

/// Seconds since the oldest message of a priority was due.
async fn oldest(shop: &Shop, priority: i16) -> Result<f64> {
    let age = "SELECT coalesce(extract(epoch FROM clock_timestamp() - min(since)), 0)::double precision FROM sms_outbox.ready WHERE priority = $1";
    shop.database.value(age, &[&priority]).await
}

async fn overload(name: &str, lasts: Duration) -> Result<()> {
    let _alone = QUIET.write().await;
    let mut shop = Shop::open(Major::V18, name).await?;
    shop.install("sandbox", &format!("max_in_flight => 10, rate => {RATE}, burst => {BURST}")).await?;
    let mut worker = shop.worker()?.start().await?;
    let session = shop.database.connect_as("app").await?;
    let (started, pause) = (Instant::now(), Duration::from_millis(1000 / (10 * u64::from(RATE))));
    let (mut took, mut memory, mut restarted) = (Vec::new(), Vec::new(), None);
    let (mut down, mut due) = (false, started);
    while started.elapsed() < lasts {
        // Of forty one is urgent and four are normal.
        let priority = match took.len() % 40 {
            0 => 0,
            1..=4 => 1,
            _ => 2,
        };
        let began = Instant::now();
        shop.queue_by(&session, "shop", 1, &format!("priority => {priority}")).await?;
        took.push(began.elapsed().as_secs_f64() * 1000.0);
        let part = started.elapsed().as_secs_f64() / lasts.as_secs_f64();
        if memory.len() < 2 && part > [0.25, 0.95][memory.len()] {
            memory.push(resident(worker.process().id())?);
        }
        // The provider is away for a fifth of the time.
        if !down && part > 0.4 {
            down = true;
            shop.sandbox.process().signal(Signal::KILL)?;
            shop.sandbox.process().wait(patience()).await?;
        } else if down && restarted.is_none() && part > 0.6 {
            let (address, journal) = (shop.sandbox.address().to_owned(), shop.sandbox.journal_file().to_owned());
            shop.sandbox = Sandbox::start_at(&address, &journal).await?;
            restarted = Some(());
        }
        due += pause;
        tokio::time::sleep(due.saturating_duration_since(Instant::now())).await;
    }
    restarted.context("the provider did not come back")?;
    let (urgent, bulk) = (oldest(&shop, 0).await?, oldest(&shop, 2).await?);
    let tenth = took.len() / 10;
    let (first, last) = (&took[..tenth], &took[took.len() - tenth..]);
    #[expect(clippy::print_stdout, reason = "what was measured is read with --nocapture")]
    {
        println!(
            "{} enqueued; ms at p50 and p99: {:.2} and {:.2} in the first tenth, {:.2} and {:.2} in the last; worker {memory:?} KiB; oldest urgent {urgent:.1} s, bulk {bulk:.1} s",
            took.len(),
            percentile(first, 50),
            percentile(first, 99),
            percentile(last, 50),
            percentile(last, 99)
        );
    }
    // A median moves with the machine by less than two; a p99 of some hundreds is the few worst of them.
    ensure!(percentile(last, 50) <= 2.0 * percentile(first, 50) + 1.0, "enqueues became slower: p50");
    ensure!(percentile(last, 99) <= 3.0 * percentile(first, 99) + 5.0, "enqueues became slower: p99");
    ensure!(memory[1] * 2 <= memory[0] * 3, "the worker grew: {memory:?} KiB");
    ensure!(
        bulk > lasts.as_secs_f64() / 2.0,
        "the provider was not overloaded: the oldest bulk message is {bulk:.1} s old"
    );
    ensure!(urgent < bulk / 4.0, "the oldest urgent message is {urgent:.1} s old, the oldest bulk one {bulk:.1} s");

    // Since it came back: never more than the app allows, from the first second on.
    let all = seen(&shop).await?;
    let back: Vec<i64> = all.iter().map(|seen| seen.at).collect();
    ensure!(back.len() as u32 > RATE, "{} requests since it came back", back.len());
    keeps_to(&back, 1.0, f64::from(RATE), f64::from(BURST), 500).context("since the provider came back")?;
    let second = back.iter().filter(|at| **at < back[0] + 1000).count() as u32;
    ensure!(second <= BURST + RATE + RATE / 2, "{second} requests in the first second");

    cancel_all(&shop, "shop").await?;
    shop.wait_until_settled().await?;
    shop.close().await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn twenty_seconds_of_ten_times_too_much() -> Result<()> {
    overload("twenty_seconds", Duration::from_secs(20)).await
}

#[ignore = "ten minutes: make pressure"]
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn ten_minutes_of_ten_times_too_much() -> Result<()> {
    overload("ten_minutes", Duration::from_secs(600)).await
}

/// The order at the provider, one request at a time: urgent first, but for one claim in sixteen.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_backlog_drains_by_priority() -> Result<()> {
    let _shared = QUIET.read().await;
    let mut shop = Shop::open(Major::V18, "order").await?;
    shop.install("sandbox", "max_in_flight => 1").await?;
    shop.database.sql("SELECT sms_outbox.pause_organization('shop', 'test')").await?;
    let mut of = std::collections::BTreeMap::new();
    for priority in [2, 1, 0] {
        for sms in shop.queue_many("shop", 90, &format!("priority => {priority}")).await? {
            of.insert(sms.to, priority);
        }
    }
    let _worker = shop.worker()?.start().await?;
    shop.database.sql("SELECT sms_outbox.resume_organization('shop')").await?;
    shop.wait_until_settled().await?;
    let order: Vec<i32> = seen(&shop).await?.iter().map(|seen| of[&seen.to]).collect();
    ensure!(order.len() == 270, "{} requests", order.len());
    let mut left = [90, 90, 90];
    for (claim, priority) in (1..).zip(&order) {
        let lower = if claim % 32 == 0 { [2, 1, 0] } else { [1, 2, 0] };
        let asked = if claim % 16 == 0 { lower } else { [0, 1, 2] };
        let expected = asked.into_iter().find(|priority| left[*priority] > 0).context("none is left")?;
        ensure!(*priority as usize == expected, "request {claim} has priority {priority}, not {expected}: {order:?}");
        left[expected] -= 1;
    }
    shop.close().await.map(drop)
}

/// The backlog lies in the database: of it a worker holds a window.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn memory_does_not_grow_with_the_backlog() -> Result<()> {
    let _shared = QUIET.read().await;
    let shop = Shop::open(Major::V18, "memory").await?;
    for number in 0..20 {
        let organization = format!("shop{number}");
        shop.install_for(&organization, "sandbox", shop.token("all"), "max_in_flight => 2").await?;
    }
    shop.rule(json!({"behaviour": "delay", "delay_ms": 200})).await?;
    let queue = "SELECT count(*) FROM generate_series(1, $1::int) AS n,
        sms_outbox_enqueue(mobile => '+96650' || lpad(n::text, 7, '0'), message => 'text ' || n, organization_id => 'shop' || n % 20)";
    let mut measured = Vec::new();
    for backlog in [1000, 199_000] {
        shop.database.value::<i64>(queue, &[&backlog]).await?;
        let mut worker = shop.worker()?.start().await?;
        let before: i64 = shop.database.value("SELECT count(*) FROM sms_outbox.attempt", &[]).await?;
        shop.database
            .wait_until(
                "it has worked for a while",
                &format!("SELECT count(*) > {before} + 300 FROM sms_outbox.attempt"),
            )
            .await?;
        measured.push(resident(worker.process().id())?);
        ensure!(worker.drain().await?.success());
    }
    ensure!(measured[1] < measured[0] * 3, "KiB with 1,000 and 200,000 waiting: {measured:?}");
    Ok(())
}
