//! The network between a worker and its database fails at chosen moments: a statement that never arrives, an answer that
//! never comes back, a connection that is half open.

mod shop;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shop::{Shop, Sms};
use sms_outbox_tests::proxy::{Act, Moment, Proxy};
use sms_outbox_tests::scrape::Scrape;
use sms_outbox_tests::worker::Options;
use sms_outbox_tests::{Fault, Major, Worker, on_majors};

const MESSAGES: i32 = 30;

/// A worker that reaches its database through the proxy.
fn through<'a>(shop: &'a Shop, proxy: &Proxy) -> Result<Options<'a>> {
    let (direct, port) = (shop.database.url("worker"), shop.database.cluster().port());
    Ok(shop.worker()?.set("DATABASE_URL", &direct.replace(&format!(":{port}/"), &format!(":{}/", proxy.port()))))
}

async fn before(shop: &Shop) -> Result<Proxy> {
    Proxy::start(shop.database.cluster().port()).await
}

async fn codes(shop: &Shop, code: &str) -> Result<i64> {
    let count = "SELECT count(*) FROM sms_outbox.attempts WHERE error_code = $1::text";
    shop.database.value(count, &[&code]).await
}

/// Each message is sent once, in one request.
async fn each_once(shop: &Shop, all: &[Sms]) -> Result<()> {
    let requests = shop.sandbox.requests().await?.len();
    ensure!(requests == all.len(), "{requests} requests for {} messages", all.len());
    for sms in all {
        ensure!(shop.show(sms, "dispatch_status").await?.as_deref() == Some("sent"), "{} is not sent", sms.text);
    }
    Ok(())
}

on_majors! { ends: a_claim_or_its_answer_is_lost, a_finish_or_its_answer_is_lost }

/// The worker lives, and does not know what it holds.
async fn a_claim_or_its_answer_is_lost(major: Major) -> Result<()> {
    for (name, case, moment) in [
        ("claim_answer", "the answer of a claim is lost", Moment::AnswerTo("sms_outbox.claim(")),
        ("claim_asked", "a claim is lost on its way", Moment::Ask("sms_outbox.claim(")),
    ] {
        let committed = matches!(moment, Moment::AnswerTo(_));
        let mut shop = Shop::open(major, name).await?;
        shop.install("sandbox", "max_in_flight => 100").await?;
        let mut fault = Fault::new("27", case, major);
        let proxy = before(&shop).await?;
        let mut worker = through(&shop, &proxy)?.start().await?;
        let mut all = Vec::new();
        let begun = Instant::now();
        for round in 1..=3 {
            proxy.order(moment.clone(), Act::Reset, 1);
            all.extend(shop.queue_many("shop", MESSAGES, "").await?);
            shop.wait_until_settled().await?;
            ensure!(proxy.injected() == round, "{} were lost", proxy.injected());
        }
        fault.injected(proxy.injected());
        fault.recovered_in(begun.elapsed() / 3);
        each_once(&shop, &all).await?;
        let given_back = codes(&shop, "claim_answer_lost").await?;
        ensure!((given_back > 0) == committed, "{given_back} were given back");
        ensure!(worker.drain().await?.success());
        shop.close_fault(fault).await?;
    }
    Ok(())
}

/// The database may have recorded the outcomes: they are told again, and once is what is recorded.
async fn a_finish_or_its_answer_is_lost(major: Major) -> Result<()> {
    for (name, case, moment) in [
        ("finish_answer", "cut off in finish, before its answer", Moment::AnswerTo("sms_outbox.finish(")),
        ("finish_asked", "cut off before finish arrives", Moment::Ask("sms_outbox.finish(")),
    ] {
        let committed = matches!(moment, Moment::AnswerTo(_));
        let mut shop = Shop::open(major, name).await?;
        shop.install("sandbox", "max_in_flight => 100").await?;
        let mut fault = Fault::new("20", case, major);
        let proxy = before(&shop).await?;
        let mut worker = through(&shop, &proxy)?.start().await?;
        let mut all = Vec::new();
        let begun = Instant::now();
        for round in 1..=3 {
            // Twice in a row: the repetition is lost too.
            proxy.order(moment.clone(), Act::Reset, 2);
            all.extend(shop.queue_many("shop", MESSAGES, "").await?);
            shop.wait_until("both are lost", || proxy.injected() == 2 * round).await?;
            shop.wait_until_settled().await?;
        }
        fault.injected(proxy.injected());
        fault.recovered_in(begun.elapsed() / 3);
        each_once(&shop, &all).await?;
        ensure!(worker.drain().await?.success());
        ensure!(worker.log().contains("recorded already") == committed, "{}", worker.log());
        shop.close_fault(fault).await?;
    }
    Ok(())
}

/// How many notifications a worker has had.
async fn notifications(worker: &Worker) -> Result<f64> {
    let log = worker.log();
    let address = log.split("\"address\":\"").nth(1).and_then(|rest| rest.split('"').next()).context("no address")?;
    let now = Scrape::of(&format!("http://{address}/metrics")).await?;
    Ok(now.sum("sms_outbox_worker_notifications_total", &[]))
}

async fn with_metrics(shop: &Shop, proxy: &Proxy) -> Result<Worker> {
    let options = through(shop, proxy)?.set("SMS_OUTBOX_METRICS_LISTEN", "127.0.0.1:0");
    options.set("SMS_OUTBOX_LOG_FORMAT", "json").start().await
}

/// Queues until a notification comes: the worker listens.
async fn wait_until_notified(shop: &mut Shop, worker: &Worker) -> Result<()> {
    let before = notifications(worker).await?;
    let deadline = Instant::now() + Duration::from_secs(120);
    while notifications(worker).await? == before {
        ensure!(Instant::now() < deadline, "nothing was heard: {}", worker.log());
        let sms = shop.queue("").await?;
        shop.wait_for_status(&sms, "sent").await?;
    }
    Ok(())
}

/// The answer to LISTEN itself never comes: whoever waited for it would wait for ever.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn listening_that_never_begins() -> Result<()> {
    let major = Major::V18;
    let mut shop = Shop::open(major, "never_listens").await?;
    shop.install("sandbox", "").await?;
    let mut fault = Fault::new("20", "the connection goes half open at LISTEN", major);
    let proxy = before(&shop).await?;
    proxy.order(Moment::AnswerTo("LISTEN sms_outbox"), Act::Silence, 1);
    let mut worker = with_metrics(&shop, &proxy).await?;
    shop.wait_until("it is half open", || proxy.injected() == 1).await?;
    fault.injected(1);
    let broken = Instant::now();
    let found = shop.queue("").await?;
    shop.wait_for_status(&found, "sent").await?;
    wait_until_notified(&mut shop, &worker).await?;
    fault.recovered_in(broken.elapsed());
    ensure!(worker.drain().await?.success());
    shop.close_fault(fault).await.map(drop)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "the connection is proven every 30 s: make faults"]
async fn a_listening_connection_goes_half_open() -> Result<()> {
    let major = Major::V18;
    let mut shop = Shop::open(major, "half_open").await?;
    shop.install("sandbox", "").await?;
    let mut fault = Fault::new("20", "the listening connection goes half open", major);
    let proxy = before(&shop).await?;
    let mut worker = with_metrics(&shop, &proxy).await?;
    wait_until_notified(&mut shop, &worker).await?;
    proxy.silence("LISTEN sms_outbox");
    shop.wait_until("it is half open", || proxy.injected() == 1).await?;
    fault.injected(1);
    let broken = Instant::now();
    let heard = notifications(&worker).await?;
    let found = shop.queue("").await?;
    shop.wait_for_status(&found, "sent").await?;
    ensure!(notifications(&worker).await? == heard, "polling did not find it, a notification did");
    wait_until_notified(&mut shop, &worker).await?;
    fault.recovered_in(broken.elapsed());
    ensure!(worker.log().contains("the listening connection is silent"), "{}", worker.log());
    ensure!(worker.drain().await?.success());
    shop.close_fault(fault).await.map(drop)
}

/// All connections at once, with requests in flight: nobody says that they are dead.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a call is given up after 20 s: make faults"]
async fn all_connections_go_half_open() -> Result<()> {
    let major = Major::V18;
    let mut shop = Shop::open(major, "all_half_open").await?;
    shop.install("sandbox", "max_in_flight => 100").await?;
    let mut fault = Fault::new("20", "all connections go half open with requests in flight", major);
    let proxy = before(&shop).await?;
    let mut worker = through(&shop, &proxy)?.start().await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 1000})).await?;
    let mut all = shop.queue_many("shop", MESSAGES, "").await?;
    shop.wait_until_requests(10).await?;
    proxy.silence("sms_outbox");
    shop.wait_until("they are half open", || proxy.injected() > 1).await?;
    fault.injected(proxy.injected());
    let broken = Instant::now();
    all.extend(shop.queue_many("shop", MESSAGES, "").await?);
    let deadline = broken + Duration::from_secs(120);
    while shop.database.value::<i64>("SELECT count(*) FROM sms_outbox.attempt WHERE status = 'accepted'", &[]).await?
        < i64::from(2 * MESSAGES)
    {
        ensure!(Instant::now() < deadline, "{}", shop.database.evidence().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fault.recovered_in(broken.elapsed());
    shop.wait_until_settled().await?;
    each_once(&shop, &all).await?;
    ensure!(worker.drain().await?.success());
    shop.close_fault(fault).await.map(drop)
}

/// The answer never comes, and the connection says nothing: the leases are found when the call is given up.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a call is given up after 20 s: make faults"]
async fn the_answer_of_a_claim_never_comes() -> Result<()> {
    let major = Major::V18;
    let mut shop = Shop::open(major, "claim_silent").await?;
    shop.install("sandbox", "max_in_flight => 100").await?;
    let mut fault = Fault::new("27", "the answer of a claim never comes, the connection is half open", major);
    let proxy = before(&shop).await?;
    let mut worker = through(&shop, &proxy)?.start().await?;
    proxy.order(Moment::AnswerTo("sms_outbox.claim("), Act::Silence, 1);
    let all = shop.queue_many("shop", MESSAGES, "").await?;
    shop.wait_until("the answer is lost", || proxy.injected() == 1).await?;
    fault.injected(1);
    let broken = Instant::now();
    let deadline = broken + Duration::from_secs(120);
    while shop.show(&all[0], "dispatch_status").await?.as_deref() != Some("sent") {
        ensure!(Instant::now() < deadline, "{}", shop.database.evidence().await);
        tokio::time::sleep(Duration::from_millis(100)).await;
    }
    fault.recovered_in(broken.elapsed());
    shop.wait_until_settled().await?;
    each_once(&shop, &all).await?;
    ensure!(codes(&shop, "claim_answer_lost").await? > 0);
    ensure!(worker.drain().await?.success());
    shop.close_fault(fault).await.map(drop)
}
