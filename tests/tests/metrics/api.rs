//! What an API process answers on `/metrics`: its own numbers, and those of the database.

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use serde_json::{Value, json};
use sms_outbox_tests::scrape::Scrape;
use sms_outbox_tests::wait::poll;
use sms_outbox_tests::{Api, Major, Stop};
use sms_outbox_worker::metrics::catalog::{API, DATABASE, Source};

use crate::shop::Shop;
use crate::{fits_the_list, shows_nobody};

const OUTBOX: &str = "/api/v1/sms/outbox";

pub(crate) async fn requests_and_the_database_are_counted(major: Major) -> Result<()> {
    let shop = Shop::open(major, "api").await?;
    shop.install("sandbox", "").await?;
    shop.rule(json!({"behaviour": "refuse_recipient", "times": 2})).await?;
    shop.database.sql(&format!("ALTER DATABASE \"{}\" SET track_functions = 'pl'", shop.database.name())).await?;
    let key: String = shop.database.value("SELECT sms_outbox.create_api_key('shop', 'metrics')", &[]).await?;
    let api = Api::start(&shop.database).await?;
    let url = api.url();
    let client = reqwest::Client::builder().no_proxy().build()?;
    let post =
        |path: &str, key: &str, body: Value| client.post(format!("{url}{path}")).bearer_auth(key).json(&body).send();
    for number in 0..12 {
        let body = json!({"mobile": format!("+96650100{number:04}"), "message": format!("text {number}")});
        let status = post(OUTBOX, &key, body).await?.status();
        ensure!(status.is_success(), "{status}");
    }
    for number in 0..3 {
        let body = json!({"mobile": format!("12{number}"), "message": "text"});
        ensure!(post(OUTBOX, &key, body).await?.status() == 422);
    }
    ensure!(post(OUTBOX, "smsk_000000000000_0", json!({})).await?.status() == 401);
    ensure!(post("/text /shop/96650", &key, json!({})).await?.status() == 404);

    let mut worker = shop.worker()?.start().await?;
    shop.wait_until_settled().await?;
    let metrics = format!("{url}/metrics");
    let now = Scrape::of(&metrics).await?;
    let requests = |labels: &[(&str, &str)]| now.sum("sms_outbox_api_requests_total", labels);
    let route = [("route", OUTBOX), ("method", "POST")];
    ensure!(requests(&route) == 16.0, "{}", now.text);
    ensure!(requests(&[("status", "422")]) == 3.0 && requests(&[("status", "401")]) == 1.0);
    ensure!(requests(&[("route", "unmatched"), ("status", "404")]) == 1.0);
    ensure!(now.sum("sms_outbox_api_request_seconds_count", &route) == 16.0);
    // The scrape itself.
    ensure!(now.sum("sms_outbox_api_in_flight", &[]) == 1.0);
    ensure!(now.sum("sms_outbox_api_pool_size", &[]) == 16.0);
    ensure!(now.sum("sms_outbox_api_pool_connections", &[("state", "idle")]) >= 1.0);
    ensure!(now.sum("sms_outbox_database_up", &[]) == 1.0);
    ensure!(now.sum("sms_outbox_workers_alive", &[]) == 1.0);
    let counts = shop.sandbox.counts().await?;
    let attempts = |labels: &[(&str, &str)]| now.sum("sms_outbox_app_attempts_total", labels);
    ensure!(attempts(&[]) == counts.requests as f64 && attempts(&[("outcome", "refused_recipient")]) == 2.0);
    ensure!(attempts(&[("outcome", "accepted")]) == counts.accepted as f64);
    ensure!(now.sum("sms_outbox_ended_messages", &[]) == 12.0 && now.sum("sms_outbox_queue_messages", &[]) == 0.0);
    for metric in DATABASE.iter().chain(API) {
        ensure!(now.families.contains_key(metric.name), "{} is missing", metric.name);
    }
    fits_the_list(&now, &[Source::Api, Source::Database])?;
    shows_nobody(&now.text)?;
    ensure!(!now.text.contains(key.split('_').nth(1).context("a key")?));

    // Many scrapes are few questions.
    try_join_all((0..40).map(|_| Scrape::of(&metrics))).await?;
    let asked = "SELECT coalesce(max(calls), 0) FROM pg_stat_user_functions WHERE funcname = 'metrics'";
    let flushed = async || {
        let calls: i64 = shop.database.value(asked, &[]).await?;
        Ok((calls > 0).then_some(calls))
    };
    let calls = poll("the server tells of calls", flushed, async || String::new()).await?;
    ensure!(calls < 10, "41 scrapes asked the database {calls} times");
    ensure!(worker.drain().await?.success());
    Ok(())
}

pub(crate) async fn a_database_that_is_away_is_told(major: Major) -> Result<()> {
    let shop = Shop::open_alone(major).await?;
    let api = Api::start(&shop.database).await?;
    let metrics = format!("{}/metrics", api.url());
    let up = async |is: f64| {
        let told = async || Ok((Scrape::of(&metrics).await?.sum("sms_outbox_database_up", &[]) == is).then_some(()));
        poll(format!("the database is {is} up"), told, async || String::new()).await
    };
    up(1.0).await?;
    shop.database.cluster().stop(Stop::Immediate).await?;
    up(0.0).await?;
    let now = Scrape::of(&metrics).await?;
    ensure!(!now.families.contains_key("sms_outbox_workers_alive"), "old numbers are told as new ones");
    ensure!(now.sum("sms_outbox_api_requests_total", &[("route", "/metrics"), ("status", "200")]) >= 1.0);
    shop.database.cluster().start().await?;
    up(1.0).await
}
