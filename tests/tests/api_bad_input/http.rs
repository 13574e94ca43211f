//! Requests that break the rules of HTTP, or say one thing and do another.

use anyhow::{Result, bail};
use sms_outbox_tests::Major;

use crate::fixture::{Fixture, OUTBOX, good};
use crate::raw;

/// Each is answered by 4xx or hung up on, in bounded time, and queues nothing.
pub(crate) async fn broken_requests(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let (text, key) = (good().to_string(), fixture.key.clone());
    let length = text.len();
    let head = format!(
        "POST {OUTBOX} HTTP/1.1\r\nHost: api\r\nConnection: close\r\nAuthorization: {key}\r\nContent-Type: application/json\r\n"
    );
    let with = |headers: &str, body: &str| format!("{head}{headers}\r\n{body}").into_bytes();
    let rows: Vec<(&str, Vec<u8>, &[u16])> = vec![
        // No length: for HTTP there is no body.
        ("no length", with("", &text), &[400]),
        ("a length of 0", with("Content-Length: 0\r\n", &text), &[400]),
        ("longer than sent", with(&format!("Content-Length: {}\r\n", length + 10), &text), &[408]),
        ("shorter than sent", with(&format!("Content-Length: {}\r\n", length - 10), &text), &[400]),
        ("chunked without end", with("Transfer-Encoding: chunked\r\n", &format!("{length:x}\r\n{text}\r\n")), &[408]),
        (
            "a chunk that is short",
            with("Transfer-Encoding: chunked\r\n", &format!("{:x}\r\n{text}", length + 10)),
            &[408],
        ),
        (
            "a chunk of no size",
            with("Transfer-Encoding: chunked\r\n", &format!("zz\r\n{text}\r\n0\r\n\r\n")),
            &[400, 408],
        ),
        (
            "a chunk of all memory",
            with("Transfer-Encoding: chunked\r\n", &format!("ffffffffffffffff\r\n{text}")),
            &[400, 408, 413],
        ),
        ("a length that is no number", with("Content-Length: ten\r\n", &text), &[400]),
        ("a negative length", with("Content-Length: -1\r\n", &text), &[400]),
        ("a length of all memory", with("Content-Length: 18446744073709551615\r\n", &text), &[400, 413, 431]),
        ("a length of 2 MiB and no body", with("Content-Length: 2097152\r\n", ""), &[413]),
        ("two lengths", with(&format!("Content-Length: {length}\r\nContent-Length: 1\r\n"), &text), &[400]),
        ("an unknown coding", with("Transfer-Encoding: gzip\r\n", &text), &[400]),
        ("chunked in the middle", with("Transfer-Encoding: chunked, gzip\r\n", &text), &[400]),
        (
            "compressed",
            with(&format!("Content-Encoding: gzip\r\nContent-Length: {length}\r\n"), "\u{1f}\u{8b}"),
            &[400, 408, 415],
        ),
        ("a header of 400 KB", with(&format!("X: {}\r\n", "x".repeat(400_000)), ""), &[431]),
        ("a thousand headers", with(&"X: x\r\n".repeat(1000), ""), &[431]),
        ("a header without a name", with(": x\r\n", ""), &[400]),
        ("a header with NUL", with("X: a\0b\r\n", ""), &[400]),
        ("a header with a space", with("X : a\r\n", ""), &[400]),
        ("a folded header", with("X: a\r\n b\r\n", ""), &[400]),
        (
            "a path of 100 KB",
            format!("GET /{} HTTP/1.1\r\nConnection: close\r\n\r\n", "x".repeat(100_000)).into_bytes(),
            &[404, 414, 431],
        ),
        ("a space in the path", b"GET /a b HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), &[400]),
        (
            "a whole URL of another host",
            b"GET http://169.254.169.254/latest HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(),
            &[404],
        ),
        ("CONNECT", b"CONNECT db:5432 HTTP/1.1\r\nConnection: close\r\n\r\n".to_vec(), &[400, 404, 405]),
        (
            "an upgrade",
            b"GET /healthz HTTP/1.1\r\nConnection: close, upgrade\r\nUpgrade: websocket\r\n\r\n".to_vec(),
            &[200],
        ),
        ("HTTP/9.9", b"GET /healthz HTTP/9.9\r\n\r\n".to_vec(), &[400, 505]),
        ("HTTP/2 at once", b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n".to_vec(), &[400, 505]),
        ("TLS", b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03\r\n\r\n".to_vec(), &[400]),
        ("bytes", (0..=255).collect(), &[400]),
        ("PostgreSQL", b"\x00\x00\x00\x08\x04\xd2\x16\x2f\r\n\r\n".to_vec(), &[400]),
        ("empty lines", b"\r\n\r\n\r\nGET\r\n\r\n".to_vec(), &[400]),
    ];
    let mut faults = Vec::new();
    for (name, bytes, allowed) in rows {
        // Hung up on without a word is a refusal too.
        if let Some(answer) = raw::exchange(fixture.api.address(), &bytes).await?
            && !allowed.contains(&answer.status)
        {
            faults.push(format!("{name}: {} {}", answer.head, String::from_utf8_lossy(&answer.body)));
        }
    }
    assert!(faults.is_empty(), "{} rows:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(fixture.messages().await?, 0);
    fixture.assert_calm();
    Ok(())
}

/// Of two requests in one stream the first must not hide the second from a proxy that reads lengths otherwise.
pub(crate) async fn smuggled_requests(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let hidden = format!("GET {OUTBOX} HTTP/1.1\r\nHost: api\r\nConnection: close\r\n\r\n");
    let key = &fixture.key;
    let head =
        format!("POST {OUTBOX} HTTP/1.1\r\nHost: api\r\nAuthorization: {key}\r\nContent-Type: application/json\r\n");
    for lengths in
        ["Content-Length: 4\r\nTransfer-Encoding: chunked\r\n", "Transfer-Encoding: chunked\r\nContent-Length: 4\r\n"]
    {
        let bytes = format!("{head}{lengths}\r\n0\r\n\r\n{hidden}").into_bytes();
        let Some(answer) = raw::exchange(fixture.api.address(), &bytes).await? else { continue };
        // By RFC 9112 the coding counts; what matters is that it is refused or that the connection ends.
        let text = format!("{}{}", answer.head, String::from_utf8_lossy(&answer.body));
        if text.matches("HTTP/1.1 ").count() > 1 && !text.to_ascii_lowercase().contains("connection: close") {
            bail!("{lengths}: two answers on one connection: {text}");
        }
    }
    fixture.assert_calm();
    Ok(())
}
