//! A thousand requests that were good before something happened to them. Which of them are still good nobody knows: an
//! answer is a refusal or the truth, and never a fault of ours.

use std::sync::Arc;

use anyhow::{Context, Result};
use fastrand::Rng;
use serde_json::json;
use sms_outbox_tests::Major;
use tokio::task::JoinSet;

use crate::fixture::{Fixture, OUTBOX, good};
use crate::raw;

const REQUESTS: u64 = 1200;
const AT_ONCE: usize = 8;

/// What happens to bytes.
fn mutate(bytes: &mut Vec<u8>, rng: &mut Rng) {
    if bytes.is_empty() {
        return bytes.push(rng.u8(..));
    }
    let place = rng.usize(..bytes.len());
    let end = (place + rng.usize(1..24)).min(bytes.len());
    match rng.u8(..9) {
        0 => bytes[place] ^= 1 << rng.u8(..8),
        1 => bytes[place] = rng.u8(..),
        2 => drop(bytes.drain(place..end)),
        3 => bytes.truncate(place.max(1)),
        4 => {
            bytes.splice(place..place, std::iter::repeat_with(|| rng.u8(..)).take(7).collect::<Vec<_>>()).for_each(drop)
        }
        5 => {
            let part = bytes[place..end].to_vec();
            bytes.splice(place..place, part).for_each(drop);
        }
        6 => bytes.splice(place..place, *b"\\u0000").for_each(drop),
        7 => bytes
            .splice(
                place..end,
                *rng.choice([b"null", b"1e99", b"{\"a\"", b"[[[[", b"\"\"\"\"", b"\xf0\x9f\x99\x82"])
                    .unwrap_or(b"null"),
            )
            .for_each(drop),
        _ => {
            let other = rng.usize(..bytes.len());
            bytes.swap(place, other);
        }
    }
}

/// A good request of one of the calls, mutated in its body, a header, its path or anywhere.
fn request(key: &str, id: &str, rng: &mut Rng) -> Vec<u8> {
    let whole = json!({ "mobile": "966501234567", "message": "Order 123", "sender": "MyShop", "datetime": "2027-01-02 10:00",
        "preferred_provider_slug": "", "idempotency_key": "order-123", "meta": { "order_id": "123", "n": [1, 2.5, null] }, "priority": 1,
        "valid_until": "" });
    let (method, path, body) = match rng.u8(..7) {
        0 | 1 => ("POST", OUTBOX.to_owned(), whole.to_string()),
        2 => ("POST", OUTBOX.to_owned(), good().to_string()),
        3 => ("POST", format!("{OUTBOX}/batch"), json!({ "messages": [whole, good()] }).to_string()),
        4 => (
            "GET",
            format!("{OUTBOX}?limit=5&mobile=0501234567&dispatch_status=pending&created_after=2026-11-23T00:00:00Z"),
            String::new(),
        ),
        5 => ("GET", format!("{OUTBOX}/{id}"), String::new()),
        _ => ("POST", format!("{OUTBOX}/{id}/cancel"), String::new()),
    };
    let (mut path, mut body) = (path.into_bytes(), body.into_bytes());
    let mut headers = [
        ("Authorization", key.as_bytes().to_vec()),
        ("Content-Type", b"application/json".to_vec()),
        ("Idempotency-Key", b"order-123".to_vec()),
        ("X-Organization-ID", b"shop".to_vec()),
        ("X-Request-ID", b"r-1".to_vec()),
        ("traceparent", b"00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01".to_vec()),
    ];
    let anywhere = rng.u8(..10) == 0;
    for _ in 0..rng.u8(1..4) {
        match rng.u8(..4) {
            _ if anywhere => {}
            0 => mutate(&mut path, rng),
            1 => {
                let one = rng.usize(..headers.len());
                mutate(&mut headers[one].1, rng);
            }
            _ if !body.is_empty() => mutate(&mut body, rng),
            _ => {}
        }
    }
    let mut bytes = format!("{method} ").into_bytes();
    bytes.extend(path);
    bytes.extend_from_slice(b" HTTP/1.1\r\nHost: api\r\nConnection: close\r\n");
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: ").as_bytes());
        bytes.extend(value);
        bytes.extend_from_slice(b"\r\n");
    }
    bytes.extend_from_slice(format!("Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend(body);
    if anywhere {
        mutate(&mut bytes, rng);
    }
    bytes
}

pub(crate) async fn mutated_requests(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let id = fixture.enqueue("a").await?;
    // A fault comes again with the same number.
    let seed: u64 = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok()).unwrap_or_else(|| fastrand::u64(..));
    let (address, key) = (Arc::new(fixture.api.address().to_owned()), Arc::new(fixture.key.clone()));
    let (mut running, mut faults, mut refused) = (JoinSet::new(), Vec::new(), 0);
    for number in 0..REQUESTS {
        if running.len() >= AT_ONCE {
            take(running.join_next().await, &mut faults, &mut refused)?;
        }
        let (address, key, id) = (address.clone(), key.clone(), id.clone());
        running.spawn(async move {
            let bytes = request(&key, &id, &mut Rng::with_seed(seed.wrapping_add(number)));
            (bytes.clone(), raw::exchange(&address, &bytes).await)
        });
    }
    while let Some(ended) = running.join_next().await {
        take(Some(ended), &mut faults, &mut refused)?;
    }
    assert!(faults.is_empty(), "SEED={seed}: {} of {REQUESTS}:\n{}", faults.len(), faults.join("\n---\n"));
    assert!(refused > REQUESTS / 3, "SEED={seed}: only {refused} were refused: the test does not test");
    fixture.assert_calm();
    assert_eq!(fixture.send(&fixture.post(OUTBOX, good().to_string().as_bytes())).await?.status, 201, "it lives");
    fixture.assert_placed().await
}

type Ended = std::result::Result<(Vec<u8>, Result<Option<raw::Raw>>), tokio::task::JoinError>;

fn take(ended: Option<Ended>, faults: &mut Vec<String>, refused: &mut u64) -> Result<()> {
    let (bytes, answer) = ended.context("nothing ran")??;
    // A mutated head may be no HTTP at all: then hanging up is an answer.
    let Some(answer) = answer? else {
        *refused += 1;
        return Ok(());
    };
    match answer.status {
        200 | 201 => {}
        400..500 => *refused += 1,
        _ => faults.push(format!(
            "{}\n{}\n{}",
            String::from_utf8_lossy(&bytes),
            answer.head,
            String::from_utf8_lossy(&answer.body)
        )),
    }
    Ok(())
}
