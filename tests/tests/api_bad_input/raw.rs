//! Requests as bytes: what no client library would send.

use std::time::Duration;

use anyhow::{Context, Result, bail};
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

/// Longer than any answer takes on a busy machine, shorter than a test may hang.
pub(crate) const PATIENCE: Duration = Duration::from_secs(60);

/// The head of an answer, and its body.
#[derive(Debug)]
pub(crate) struct Raw {
    pub(crate) status: u16,
    pub(crate) head: String,
    pub(crate) body: Vec<u8>,
}

impl Raw {
    pub(crate) fn json(&self) -> Value {
        serde_json::from_slice(&self.body).unwrap_or_default()
    }

    /// The `code` of a problem document.
    pub(crate) fn code(&self) -> String {
        self.json()["code"].as_str().unwrap_or_default().to_owned()
    }

    /// The first bad field of a problem document.
    pub(crate) fn field(&self) -> String {
        self.json()["errors"][0]["field"].as_str().unwrap_or_default().to_owned()
    }

    pub(crate) fn header(&self, name: &str) -> Option<&str> {
        let lines = self.head.lines().filter_map(|line| line.split_once(": "));
        lines.into_iter().find(|(found, _)| found.eq_ignore_ascii_case(name)).map(|(_, value)| value)
    }
}

/// The bytes of a request. The connection is to be closed after it.
pub(crate) fn request(method: &str, path: &str, headers: &[(&str, &str)], body: &[u8]) -> Vec<u8> {
    let mut bytes = format!("{method} {path} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n").into_bytes();
    for (name, value) in headers {
        bytes.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    bytes.extend_from_slice(b"\r\n");
    bytes.extend_from_slice(body);
    bytes
}

/// Sends bytes and reads until the server has nothing more to say.
pub(crate) async fn send(address: &str, bytes: &[u8]) -> Result<Raw> {
    let answer = exchange(address, bytes).await?;
    answer.with_context(|| format!("no answer to {}", String::from_utf8_lossy(&bytes[..bytes.len().min(300)])))
}

/// The same; a connection that is closed without a word is `None`.
pub(crate) async fn exchange(address: &str, bytes: &[u8]) -> Result<Option<Raw>> {
    let mut stream = TcpStream::connect(address).await?;
    let mut received = Vec::new();
    {
        let (mut reader, mut writer) = stream.split();
        // The server may answer and close before it has read all.
        let written = async {
            let _ = writer.write_all(bytes).await;
            std::future::pending::<()>().await;
        };
        tokio::select! {
            () = written => {}
            // A reset after the answer is no fault: the server did not want the rest.
            read = timeout(PATIENCE, reader.read_to_end(&mut received)) => if read.is_err() {
                bail!("the connection is still open; so far: {}", String::from_utf8_lossy(&received));
            },
        }
    }
    parse(&received)
}

fn parse(received: &[u8]) -> Result<Option<Raw>> {
    if received.is_empty() {
        return Ok(None);
    }
    let end = received.windows(4).position(|four| four == b"\r\n\r\n").context("an answer without a head")?;
    let head = String::from_utf8_lossy(&received[..end]).into_owned();
    let status = head.split(' ').nth(1).and_then(|status| status.parse().ok()).context("an answer without a status")?;
    Ok(Some(Raw { status, head, body: received[end + 4..].to_vec() }))
}
