//! The API as a process: without its database, at its limits, and at its end.

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::join_all;
use reqwest::Method;
use serde_json::{Value, json};
use sms_outbox_tests::api::{Answer, Api, ask};
use sms_outbox_tests::{Cluster, Database, Major, Stop, on_majors, patience};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

on_majors! { ends:
    a_database_that_is_away_is_no_lie, a_lost_commit_is_told_and_a_repeat_is_safe, an_idle_pool_outlives_a_restart,
    what_waits_too_long_is_cancelled, a_stop_finishes_what_is_in_flight, silent_clients_keep_nobody_out,
    a_flood_is_shed_and_healthy_callers_are_served,
}

const OUTBOX: &str = "/api/v1/sms/outbox";

async fn database(major: Major) -> Result<(Database, String)> {
    let cluster = Cluster::start_new(major).await?;
    let database = Database::create(&cluster, "api").await?;
    let config = json!({"token": "x", "base_url": "http://127.0.0.1:9/sandbox", "allow_http": true});
    let install = "SELECT sms_outbox.install_app('shop', 'sandbox', 'main', $1)";
    database.value::<i64>(install, &[&config]).await?;
    let key = Api::key(&database, "shop", &["enqueue", "read"]).await?;
    Ok((database, key))
}

fn sms(key: &str) -> Value {
    json!({"mobile": "966501234567", "message": "Order 1", "idempotency_key": key})
}

fn expect(answer: &Answer, status: u16, code: &str) -> Result<()> {
    ensure!(answer.status == status && answer.code() == code, "expected: {status} {code}; seen: {answer:?}");
    ensure!(status != 503 || answer.header("retry-after").parse::<u32>().is_ok(), "no Retry-After: {answer:?}");
    Ok(())
}

async fn a_database_that_is_away_is_no_lie(major: Major) -> Result<()> {
    let (mut database, key) = database(major).await?;
    let mut api = Api::start(&database).await?;
    ensure!(api.get("/healthz", "").await?.json == json!({"status": "ok"}));
    ensure!(api.get("/readyz", "").await?.status == 200);
    api.enqueue(&key, &sms("before")).await?;
    database.cluster().clone().stop(Stop::Fast).await?;
    expect(&api.post(OUTBOX, &key, &sms("away")).await?, 503, "database_unavailable")?;
    expect(&api.get(OUTBOX, &key).await?, 503, "database_unavailable")?;
    expect(&api.wait_ready(503).await?, 503, "database_unavailable")?;
    ensure!(api.get("/healthz", "").await?.status == 200);
    database.cluster().clone().start().await?;
    database.reconnect().await?;
    api.wait_ready(200).await?;
    ensure!(api.enqueue(&key, &sms("away")).await?.json["idempotent_replay"] == false);
    ensure!(api.process().is_running());
    ensure!(api.log().matches("the database does not answer").count() <= 3, "{}", api.log());
    Ok(())
}

/// A stretch of wire to the server that a test can cut: when it has passed on so many bytes, it forwards no answer.
async fn wire(database: &Database) -> Result<(String, tokio::sync::watch::Sender<bool>)> {
    let listener = TcpListener::bind("127.0.0.1:0").await?;
    let port = listener.local_addr()?.port();
    let server = database.cluster().port();
    let (cut, is_cut) = tokio::sync::watch::channel(false);
    tokio::spawn(async move {
        while let Ok((client, _)) = listener.accept().await {
            let mut is_cut = is_cut.clone();
            tokio::spawn(async move {
                let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await else { return };
                let ((mut from_client, mut to_client), (mut from_server, mut to_server)) =
                    (client.into_split(), server.into_split());
                let up = tokio::spawn(async move { tokio::io::copy(&mut from_client, &mut to_server).await });
                let mut bytes = [0; 8192];
                while let Ok(count @ 1..) = from_server.read(&mut bytes).await {
                    if *is_cut.borrow_and_update() {
                        // The server has answered, and so committed; the client will never know.
                        break;
                    }
                    if to_client.write_all(&bytes[..count]).await.is_err() {
                        break;
                    }
                }
                up.abort();
            });
        }
    });
    let url = database.url("api").replace(&format!(":{server}/"), &format!(":{port}/"));
    Ok((url, cut))
}

async fn a_lost_commit_is_told_and_a_repeat_is_safe(major: Major) -> Result<()> {
    let (database, key) = database(major).await?;
    let (url, cut) = wire(&database).await?;
    let api = Api::options(&database)?.set("DATABASE_URL", &url).set("SMS_OUTBOX_API_POOL_SIZE", "1").start().await?;
    api.enqueue(&key, &sms("warm")).await?;
    cut.send(true)?;
    let lost = api.post(OUTBOX, &key, &sms("lost")).await?;
    expect(&lost, 503, "outcome_unknown")?;
    ensure!(lost.text.contains("idempotency_key"), "{lost:?}");
    cut.send(false)?;
    let count = "SELECT count(*) FROM sms_outbox.outbox WHERE idempotency_key = 'lost'";
    database.wait_until("it was committed", &format!("SELECT ({count}) = 1")).await?;
    let again = api.enqueue(&key, &sms("lost")).await?;
    ensure!(again.status == 200 && again.json["idempotent_replay"] == true, "{again:?}");
    ensure!(database.value::<i64>(count, &[]).await? == 1);
    // A read that is lost changed nothing, and is not said to.
    cut.send(true)?;
    expect(&api.get(OUTBOX, &key).await?, 503, "database_unavailable")?;
    Ok(())
}

async fn an_idle_pool_outlives_a_restart(major: Major) -> Result<()> {
    let (mut database, key) = database(major).await?;
    let api = Api::start(&database).await?;
    join_all((0..8).map(|n| api.request(Method::POST, OUTBOX, &key).json(&sms(&n.to_string())).send())).await;
    database.cluster().clone().restart(Stop::Fast).await?;
    database.reconnect().await?;
    for n in 0..8 {
        ensure!(api.enqueue(&key, &sms(&n.to_string())).await?.json["idempotent_replay"] == true);
    }
    Ok(())
}

async fn what_waits_too_long_is_cancelled(major: Major) -> Result<()> {
    let (database, key) = database(major).await?;
    let api = Api::options(&database)?
        .set("SMS_OUTBOX_API_STATEMENT_TIMEOUT", "500ms")
        .set("SMS_OUTBOX_API_POOL_SIZE", "1")
        .set("SMS_OUTBOX_API_POOL_TIMEOUT", "300ms")
        .start()
        .await?;
    // Another transaction holds the key.
    let other = database.connect_as("app").await?;
    other
        .batch_execute(
            "BEGIN; SELECT sms_outbox_enqueue('0501234567', 'x', idempotency_key => 'held', organization_id => 'shop')",
        )
        .await?;
    let (body, busy) = (sms("held"), sms("other"));
    let held = api.post(OUTBOX, &key, &body);
    let behind = async {
        tokio::time::sleep(Duration::from_millis(100)).await;
        api.post(OUTBOX, &key, &busy).await
    };
    let (held, behind) = tokio::join!(held, behind);
    expect(&held?, 503, "try_again")?;
    expect(&behind?, 503, "database_unavailable")?;
    other.batch_execute("ROLLBACK").await?;
    let now = api.enqueue(&key, &body).await?;
    ensure!(now.json["idempotent_replay"] == false, "{now:?}");
    Ok(())
}

async fn a_stop_finishes_what_is_in_flight(major: Major) -> Result<()> {
    let (database, key) = database(major).await?;
    let mut api = Api::start(&database).await?;
    let other = database.connect_as("app").await?;
    other
        .batch_execute(
            "BEGIN; SELECT sms_outbox_enqueue('0501234567', 'x', idempotency_key => 'held', organization_id => 'shop')",
        )
        .await?;
    let (body, address) = (sms("held"), api.address().to_owned());
    let request = api.request(Method::POST, OUTBOX, &key).json(&body);
    let in_flight = tokio::spawn(ask(request));
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE usename = 'api' AND wait_event_type = 'Lock')";
    database.wait_until("it is in flight", waits).await?;
    api.process().signal(sms_outbox_tests::process::Signal::TERM)?;
    let refused = async || Ok(TcpStream::connect(&address).await.is_err());
    sms_outbox_tests::wait_until("nothing new is taken", refused).await?;
    ensure!(api.process().is_running(), "it waits for what is in flight");
    other.batch_execute("COMMIT").await?;
    let answer = in_flight.await??;
    ensure!(answer.status == 200 && answer.json["idempotent_replay"] == true, "{answer:?}");
    let status = api.process().wait(patience()).await?;
    ensure!(status.code() == Some(0), "{status}: {}", api.log());
    Ok(())
}

async fn silent_clients_keep_nobody_out(major: Major) -> Result<()> {
    let (database, key) = database(major).await?;
    let api = Api::options(&database)?
        .set("SMS_OUTBOX_API_READ_TIMEOUT", "2s")
        .set("SMS_OUTBOX_API_MAX_CONNECTIONS", "8")
        .start()
        .await?;
    // Half of them send nothing, the others a head and then a body without end, byte by byte.
    let mut silent = Vec::new();
    for n in 0..40 {
        let mut stream = TcpStream::connect(api.address()).await?;
        if n % 2 == 0 {
            let head = format!(
                "POST {OUTBOX} HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: 1000\r\n\r\n{{"
            );
            let _ = stream.write_all(head.as_bytes()).await;
        } else {
            let _ = stream.write_all(b"GET / HT").await;
        }
        silent.push(stream);
        if n % 10 == 9 {
            api.enqueue(&key, &sms(&n.to_string())).await?;
        }
    }
    for mut stream in silent {
        // Each is ended: to make room, or since its time was over.
        let mut rest = Vec::new();
        let ended = tokio::time::timeout(patience(), stream.read_to_end(&mut rest)).await;
        ensure!(ended.is_ok(), "a silent connection is still open");
        let rest = String::from_utf8_lossy(&rest);
        ensure!(rest.is_empty() || rest.contains("408") || rest.contains("request_timeout"), "{rest}");
    }
    api.enqueue(&key, &sms("after")).await?;
    Ok(())
}

async fn a_flood_is_shed_and_healthy_callers_are_served(major: Major) -> Result<()> {
    let (database, key) = database(major).await?;
    let api = Api::options(&database)?
        .set("SMS_OUTBOX_API_MAX_IN_FLIGHT", "2")
        .set("SMS_OUTBOX_API_POOL_SIZE", "4")
        .start()
        .await?;
    let other = database.connect_as("app").await?;
    other
        .batch_execute(
            "BEGIN; SELECT sms_outbox_enqueue('0501234567', 'x', idempotency_key => 'held', organization_id => 'shop')",
        )
        .await?;
    let body = sms("held");
    let held: Vec<_> = (0..2).map(|_| tokio::spawn(ask(api.request(Method::POST, OUTBOX, &key).json(&body)))).collect();
    let waits = "SELECT count(*) = 2 FROM pg_stat_activity WHERE usename = 'api' AND wait_event_type = 'Lock'";
    database.wait_until("both places are taken", waits).await?;
    let since = Instant::now();
    let flood = join_all((0..50).map(|n| {
        let request = api.request(Method::POST, OUTBOX, &key).json(&sms(&format!("flood-{n}")));
        ask(request)
    }))
    .await;
    for answer in flood {
        expect(&answer?, 503, "overloaded")?;
    }
    ensure!(since.elapsed() < patience(), "shed requests wait for nobody");
    ensure!(api.get("/healthz", "").await?.status == 200 && api.get("/readyz", "").await?.status == 200);
    other.batch_execute("ROLLBACK").await?;
    for answer in held {
        ensure!(matches!(answer.await??.status, 200 | 201));
    }
    let count: i64 = database.value("SELECT count(*) FROM sms_outbox.outbox", &[]).await?;
    ensure!(count == 1, "{count}: nothing that was shed was queued");
    api.enqueue(&key, &sms("after")).await.context("after the flood")?;
    Ok(())
}
