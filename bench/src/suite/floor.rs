//! The other floor: the worker's own HTTP client with no database behind it; and what the pretend provider can take.

use std::sync::Arc;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use reqwest::Url;
use serde_json::json;
use sms_outbox_bench::say;
use sms_outbox_worker::provider::Request;
use sms_outbox_worker::provider::http::{Client, ClientOptions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use crate::message;

/// Sends messages as a worker does.
pub(crate) struct Sender {
    client: Client,
    url: Url,
}

impl Sender {
    /// To a provider at this address.
    pub(crate) fn new(provider: &str) -> Result<Self> {
        let allowed = "127.0.0.0/8".parse().map_err(anyhow::Error::msg)?;
        let client = Client::new(ClientOptions { allowed, ..ClientOptions::default() })?;
        Ok(Self { client, url: format!("{provider}/v1/messages").parse()? })
    }

    /// One request.
    pub(crate) async fn send(&self, mobile: &str, text: &str, reference: &str) -> Result<()> {
        let body = json!({ "to": mobile, "text": text, "sender": "MyShop", "reference": reference });
        let before = Instant::now() + Duration::from_secs(30);
        let sent = self.client.send(Request::post_json(self.url.clone(), &body), before, before).await;
        let status = sent.map_err(|verdict| anyhow::anyhow!("the provider did not answer: {verdict:?}"))?.status;
        ensure!(status == 200, "the provider answered {status}");
        Ok(())
    }
}

/// So many requests, so many in flight at once. Prints what it did.
pub(crate) async fn http(provider: &str, messages: u32, concurrency: u32) -> Result<()> {
    let sender = Arc::new(Sender::new(provider)?);
    let next = Arc::new(AtomicU32::new(0));
    let begun = Instant::now();
    let lanes = (0..concurrency).map(|_| {
        let (sender, next) = (Arc::clone(&sender), Arc::clone(&next));
        tokio::spawn(async move {
            loop {
                let number = next.fetch_add(1, Ordering::Relaxed);
                if number >= messages {
                    return anyhow::Ok(());
                }
                sender.send(&message::mobile(number), &message::text(number), &number.to_string()).await?;
            }
        })
    });
    for lane in try_join_all(lanes).await? {
        lane?;
    }
    say(&json!({ "messages": messages, "seconds": begun.elapsed().as_secs_f64() }).to_string());
    Ok(())
}

/// Requests at the least cost to who sends them: bytes made once, eight at a time on each of 16 connections. What then limits
/// is the provider. Prints what it did.
pub(crate) async fn flood(provider: &str, messages: u32) -> Result<()> {
    const CONNECTIONS: u32 = 16;
    const AT_ONCE: u32 = 8;
    let address = provider.strip_prefix("http://").context("not http")?.to_owned();
    let body =
        json!({ "to": message::mobile(1), "text": message::text(1), "sender": "MyShop", "reference": "1" }).to_string();
    let one = format!(
        "POST /send HTTP/1.1\r\nhost: {address}\r\ncontent-type: application/json\r\ncontent-length: {}\r\n\r\n{body}",
        body.len()
    );
    let several: Arc<[u8]> = one.repeat(AT_ONCE as usize).into_bytes().into();
    let begun = Instant::now();
    let lanes = (0..CONNECTIONS).map(|_| {
        let (address, several) = (address.clone(), Arc::clone(&several));
        tokio::spawn(async move {
            let mut stream = TcpStream::connect(address).await?;
            let mut answers = vec![0; 64 * 1024];
            let mut answer = 0;
            for _ in 0..messages / CONNECTIONS / AT_ONCE {
                stream.write_all(&several).await?;
                let mut read = 0;
                while answer == 0 || read < answer * AT_ONCE as usize {
                    let more = stream.read(&mut answers[read..]).await?;
                    ensure!(more > 0, "the provider closed the connection");
                    read += more;
                    if answer == 0 {
                        // All answers are of one length.
                        answer = answer_length(&answers[..read]).unwrap_or(0);
                    }
                }
            }
            anyhow::Ok(())
        })
    });
    for lane in try_join_all(lanes).await? {
        lane?;
    }
    let sent = messages / CONNECTIONS / AT_ONCE * CONNECTIONS * AT_ONCE;
    say(&json!({ "messages": sent, "seconds": begun.elapsed().as_secs_f64() }).to_string());
    Ok(())
}

/// Head and body of the first answer.
fn answer_length(bytes: &[u8]) -> Option<usize> {
    let text = std::str::from_utf8(bytes).ok()?;
    let (head, _) = text.split_once("\r\n\r\n")?;
    let length: usize = head.split_once("content-length: ")?.1.lines().next()?.trim().parse().ok()?;
    Some(head.len() + 4 + length)
}
