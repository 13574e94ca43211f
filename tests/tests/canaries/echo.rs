//! A provider that fails and repeats everything it was sent: in a field for an error code, in words, in a header, in HTML.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use anyhow::{Context, Result};
use serde_json::json;
use sms_outbox_tests::Database;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::planted::SECRET;

/// Listens until the test ends.
pub(crate) struct Echo {
    pub(crate) url: String,
    /// How many requests it has answered.
    pub(crate) answered: Arc<AtomicUsize>,
}

impl Echo {
    pub(crate) async fn start() -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let url = format!("http://{}", listener.local_addr()?);
        let answered = Arc::new(AtomicUsize::new(0));
        let counter = Arc::clone(&answered);
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let counter = Arc::clone(&counter);
                tokio::spawn(async move {
                    // Whoever leaves in the middle gets no answer.
                    let _ = answer(stream, &counter).await;
                });
            }
        });
        Ok(Self { url, answered })
    }
}

async fn answer(mut stream: TcpStream, answered: &AtomicUsize) -> Result<()> {
    let mut request = Vec::new();
    let mut buffer = [0; 8192];
    loop {
        let read = stream.read(&mut buffer).await?;
        request.extend_from_slice(&buffer[..read]);
        let text = String::from_utf8_lossy(&request).into_owned();
        let Some((head, body)) = text.split_once("\r\n\r\n") else {
            anyhow::ensure!(read > 0, "no whole request");
            continue;
        };
        let length =
            head.lines().find_map(|line| line.to_ascii_lowercase().strip_prefix("content-length: ")?.parse().ok());
        if body.len() < length.unwrap_or(0_usize) && read > 0 {
            continue;
        }
        let words = text.replace(['\r', '\n'], " ");
        let to = words.split(['"', '=', '&']).find(|word| word.contains("9665")).unwrap_or("none").to_owned();
        // In turn what the classes of failure look like.
        let (status, kind, content) = match answered.fetch_add(1, Ordering::SeqCst) % 6 {
            0 => (
                "400 Bad Request",
                "application/json",
                json!({ "code": to, "message": words, "errors": [text, body] }).to_string(),
            ),
            1 => (
                "401 Unauthorized",
                "application/json",
                json!({ "code": format!("bad {to}"), "message": head }).to_string(),
            ),
            2 => ("500 Internal Server Error", "text/html", format!("<h1>{words}</h1>")),
            3 => ("429 Too Many Requests", "application/json", json!({ "code": words, "message": body }).to_string()),
            4 => ("200 OK", "application/json", json!({ "id": to, "message": body }).to_string()),
            _ => ("302 Found", "text/plain", text.clone()),
        };
        let location = if status.starts_with("302") {
            format!("Location: /{}\r\n", to.trim_start_matches('+'))
        } else {
            String::new()
        };
        let response = format!(
            "HTTP/1.1 {status}\r\nContent-Type: {kind}\r\nX-Echo: {to}\r\n{location}Content-Length: {}\r\nConnection: close\r\n\r\n{content}",
            content.len()
        );
        return stream.write_all(response.as_bytes()).await.context("the worker is gone");
    }
}

/// Providers that repeat what they were sent, each in an organization of its own.
pub(crate) async fn install_echoes(database: &Database, echo: &Echo) -> Result<Vec<String>> {
    let url = &echo.url;
    let account = format!("AC{:0>32}", 7);
    let apps = [
        (
            "generic-http",
            json!({ "url": format!("{url}/json"), "headers": { "X-Key": "{{ secrets.key }}" }, "secrets": { "key": SECRET }, "success": { "status": [201] },
                                 "body": { "to": "{{ mobile }}", "text": "{{ message }}", "key": "{{ secrets.key }}" }, "error_code": "/code" }),
        ),
        (
            "generic-http",
            json!({ "url": format!("{url}/form"), "format": "form", "secrets": { "key": SECRET }, "success": { "status": [200], "pointer": "/ok", "values": ["yes"] },
                                 "body": { "to": "{{ digits }}", "text": "{{ message }}", "key": "{{ secrets.key }}" }, "error_code": "/code" }),
        ),
        (
            "generic-http",
            json!({ "url": format!("{url}/query"), "method": "GET", "format": "query", "secrets": { "key": SECRET }, "success": { "status": [201] },
                                 "body": { "to": "{{ mobile }}", "text": "{{ message }}", "key": "{{ secrets.key }}" } }),
        ),
        ("taqnyat-sms", json!({ "bearer_token": SECRET, "sender": "S", "base_url": url })),
        ("mora-sms", json!({ "api_key": SECRET, "username": "u", "sender": "S", "base_url": url })),
        (
            "twilio-sms",
            json!({ "account_sid": account, "auth_token": SECRET, "sender": "+15005550006", "base_url": url }),
        ),
        ("sandbox", json!({ "token": "env:GATEWAY_TOKEN", "base_url": url })),
    ];
    let mut organizations = Vec::new();
    for (n, (slug, config)) in apps.iter().enumerate() {
        let organization = format!("echo-{n}-{slug}");
        database
            .value::<i64>("SELECT sms_outbox.install_app($1, $2, 'echo', $3)", &[&organization, slug, config])
            .await?;
        organizations.push(organization);
    }
    Ok(organizations)
}
