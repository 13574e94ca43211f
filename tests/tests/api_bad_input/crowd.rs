//! Clients that are slow, silent or too many: those that behave are served all the same.

use std::time::Duration;

use anyhow::{Context, Result, bail, ensure};
use serde_json::json;
use sms_outbox_tests::{Api, Major, Queue, wait_until};
use tokio::io::AsyncWriteExt;
use tokio::net::TcpStream;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, OUTBOX, good, with};
use crate::raw::{self, Raw};

const CONNECTIONS: usize = 48;
const IN_FLIGHT: usize = 8;
const HEALTHY: usize = 40;

async fn crowded(major: Major) -> Result<Fixture> {
    let queue = Queue::new(major).await?;
    let api = Api::options(&queue)?
        .set("SMS_OUTBOX_API_MAX_CONNECTIONS", &CONNECTIONS.to_string())
        .set("SMS_OUTBOX_API_MAX_IN_FLIGHT", &IN_FLIGHT.to_string())
        .set("SMS_OUTBOX_API_POOL_SIZE", "4")
        .set("SMS_OUTBOX_API_READ_TIMEOUT", "3s")
        .start()
        .await?;
    Fixture::of(queue, api).await
}

/// Three times as many connections as there are places. Each sends this much, and then a byte now and then, or nothing;
/// those that are given up come again, if they are of that kind.
fn besiege(address: &str, head: Vec<u8>, drip: bool, again: bool) -> JoinSet<()> {
    let mut crowd = JoinSet::new();
    for _ in 0..3 * CONNECTIONS {
        let (address, head) = (address.to_owned(), head.clone());
        crowd.spawn(async move {
            loop {
                let Ok(mut stream) = TcpStream::connect(&address).await else { continue };
                let mut alive = stream.write_all(&head).await.is_ok();
                while alive {
                    tokio::time::sleep(Duration::from_millis(250)).await;
                    alive = if drip { stream.write_all(b"x").await.is_ok() } else { !is_closed(&stream) };
                }
                if !again {
                    return;
                }
                tokio::time::sleep(Duration::from_millis(250)).await;
            }
        });
    }
    crowd
}

fn is_closed(stream: &TcpStream) -> bool {
    matches!(stream.try_read(&mut [0; 16]), Ok(0)) || stream.take_error().ok().flatten().is_some()
}

/// One after the other, each on a connection of its own. One that is not answered is repeated with its key, as callers do;
/// returns how often that was needed.
async fn healthy(fixture: &Fixture, round: &str) -> Result<usize> {
    let mut repeats = 0;
    for number in 0..HEALTHY {
        let body = with("idempotency_key", json!(format!("{round} {number}"))).to_string();
        let bytes = fixture.post(OUTBOX, body.as_bytes());
        loop {
            let answer = raw::exchange(fixture.api.address(), &bytes).await?;
            match answer.as_ref().map(|answer| answer.status) {
                Some(200 | 201) => break,
                Some(503) | None if repeats < HEALTHY => repeats += 1,
                _ => bail!("healthy request {number} after {repeats} repeats: {answer:?}"),
            }
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    }
    Ok(repeats)
}

pub(crate) async fn slow_and_silent_clients(major: Major) -> Result<()> {
    let fixture = crowded(major).await?;
    let (address, key) = (fixture.api.address().to_owned(), fixture.key.clone());
    let length = good().to_string().len();
    let body = format!(
        "POST {OUTBOX} HTTP/1.1\r\nHost: api\r\nAuthorization: {key}\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{{"
    );
    let unread = "GET /openapi.json HTTP/1.1\r\nHost: api\r\n\r\n".repeat(400);
    let kinds = [
        (String::new(), false, true),
        ("POST /".to_owned(), true, true),
        (format!("POST {OUTBOX} HTTP/1.1\r\nX: "), true, true),
        (body, true, true),
        // Answers that nobody reads.
        (unread, false, false),
    ];
    for (round, (head, drip, again)) in kinds.iter().enumerate() {
        let mut crowd = besiege(&address, head.clone().into_bytes(), *drip, *again);
        // Until they have taken what there is.
        tokio::time::sleep(Duration::from_millis(500)).await;
        let start = format!("{round} {}", head.chars().take(20).collect::<String>());
        let repeats = healthy(&fixture, &start).await.with_context(|| format!("beside many that sent {start:?}"))?;
        ensure!(repeats < HEALTHY / 2, "{repeats} repeats beside many that sent {start:?}");
        crowd.shutdown().await;
    }
    assert_eq!(
        fixture.messages().await?,
        i64::try_from(kinds.len() * HEALTHY)?,
        "none of the slow was taken for whole"
    );
    fixture.assert_calm();
    Ok(())
}

/// More at once than may be in flight: what is refused is told so and queues nothing, what is taken is there.
pub(crate) async fn a_flood_beyond_the_limit(major: Major) -> Result<()> {
    let fixture = crowded(major).await?;
    let (address, bytes) = (fixture.api.address().to_owned(), fixture.post(OUTBOX, good().to_string().as_bytes()));
    // All calls wait at the table, so that the limit is met for certain.
    let holder = fixture.connect().await?;
    holder.batch_execute("BEGIN; LOCK TABLE sms_outbox.message").await?;
    let mut flood = JoinSet::new();
    for _ in 0..2 * IN_FLIGHT {
        let (address, bytes) = (address.clone(), bytes.clone());
        flood.spawn(async move { raw::send(&address, &bytes).await });
    }
    let mut answers: Vec<Raw> = Vec::new();
    for _ in 0..IN_FLIGHT {
        answers.push(flood.join_next().await.context("an answer")???);
    }
    for shed in &answers {
        ensure!((shed.status, shed.code().as_str()) == (503, "overloaded"), "{}", shed.head);
        ensure!(shed.header("retry-after").is_some(), "{}", shed.head);
    }
    let probe = fixture.send(&raw::request("GET", "/healthz", &[], b"")).await?;
    ensure!(probe.status == 200, "a probe is never shed: {}", probe.head);
    holder.batch_execute("ROLLBACK").await?;
    while let Some(answer) = flood.join_next().await {
        answers.push(answer??);
    }
    let queued = answers.iter().filter(|answer| answer.status == 201).count();
    let unclear = answers.iter().filter(|answer| !matches!(answer.status, 201 | 503)).count();
    ensure!(unclear == 0 && queued > 0, "{queued} queued, {unclear} neither queued nor refused");
    assert_eq!(fixture.messages().await?, i64::try_from(queued)?);

    // And under a flood that does not end, one that tries again gets its turn.
    let mut flood = JoinSet::new();
    for _ in 0..6 * IN_FLIGHT {
        let (address, bytes) = (address.clone(), fixture.get(OUTBOX));
        flood.spawn(async move {
            loop {
                let _ = raw::exchange(&address, &bytes).await;
            }
        });
    }
    wait_until("a caller that tries again is served ten times", async || {
        let mut served = 0;
        for _ in 0..100 {
            let answer = raw::exchange(&address, &bytes).await?;
            match answer.map(|answer| answer.status) {
                Some(201) => served += 1,
                Some(503) | None => tokio::time::sleep(Duration::from_millis(20)).await,
                Some(other) => anyhow::bail!("{other}"),
            }
        }
        Ok(served >= 10)
    })
    .await?;
    flood.shutdown().await;
    fixture.assert_calm();
    healthy(&fixture, "after").await.map(drop)
}
