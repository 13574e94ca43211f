//! A client that costs next to nothing: one request, one answer, over a kept connection. A full one would take more of the
//! machine than the API that it measures.

use anyhow::{Context, Result, bail, ensure};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

/// One kept connection to the API.
pub(crate) struct Client {
    stream: TcpStream,
    head: String,
    answer: Vec<u8>,
}

impl Client {
    /// Opens a connection for POSTs to one path.
    pub(crate) async fn open(address: &str, path: &str, key: &str) -> Result<Self> {
        let stream = TcpStream::connect(address).await?;
        stream.set_nodelay(true)?;
        let head = format!(
            "POST {path} HTTP/1.1\r\nHost: {address}\r\nAuthorization: Bearer {key}\r\nContent-Type: application/json\r\nContent-Length: "
        );
        Ok(Self { stream, head, answer: Vec::with_capacity(64 * 1024) })
    }

    /// Sends one body and reads the whole answer, which must be 201.
    pub(crate) async fn post(&mut self, body: &str) -> Result<()> {
        let request = format!("{}{}\r\n\r\n{body}", self.head, body.len());
        self.stream.write_all(request.as_bytes()).await?;
        self.answer.clear();
        loop {
            ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the API closed the connection");
            if let Some(end) = self.answer.windows(4).position(|bytes| bytes == b"\r\n\r\n") {
                let head = std::str::from_utf8(&self.answer[..end])?.to_ascii_lowercase();
                let length: usize = head
                    .split_once("content-length: ")
                    .and_then(|(_, rest)| rest.split("\r\n").next())
                    .context("an answer without length")?
                    .parse()?;
                while self.answer.len() < end + 4 + length {
                    ensure!(self.stream.read_buf(&mut self.answer).await? > 0, "the API closed the connection");
                }
                if !head.starts_with("http/1.1 201") {
                    bail!("{}", String::from_utf8_lossy(&self.answer));
                }
                return Ok(());
            }
        }
    }
}
