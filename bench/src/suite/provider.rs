//! The pretend provider of the suite: it answers every POST from memory, and keeps who came when. `sms-outbox sandbox` can
//! do more and is slower: here it must never be what limits a worker.

use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use sms_outbox_bench::say;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

/// The length of an answer's body: what providers really send.
const ANSWER: usize = 200;

/// When a message came, by the clock that all processes of this machine share.
struct Arrival {
    id: String,
    at_us: u64,
}

#[derive(Default)]
struct Journal(Mutex<Vec<Arrival>>);

/// Serves until it is killed; `delay` passes before each answer.
pub(crate) async fn serve(listen: &str, delay: Duration) -> Result<()> {
    let listener = TcpListener::bind(listen).await.with_context(|| format!("cannot listen on {listen}"))?;
    say(&format!("listening on http://{}", listener.local_addr()?));
    let journal = Arc::new(Journal::default());
    loop {
        let (stream, _) = listener.accept().await?;
        let journal = Arc::clone(&journal);
        // Whoever breaks off a connection is no concern of the others.
        tokio::spawn(async move {
            let _ = converse(stream, &journal, delay).await;
        });
    }
}

/// Microseconds of the wall clock, which all processes of this machine share.
#[expect(clippy::disallowed_methods, reason = "the moments of several processes are compared")]
pub(crate) fn wall_clock_us() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| u64::try_from(since.as_micros()).unwrap_or(u64::MAX))
}

async fn converse(mut stream: TcpStream, journal: &Journal, delay: Duration) -> Result<()> {
    stream.set_nodelay(true)?;
    let mut read = Vec::with_capacity(4096);
    let mut answers = Vec::with_capacity(4096);
    loop {
        if stream.read_buf(&mut read).await? == 0 {
            return Ok(());
        }
        let mut done = 0;
        while let Some((head, body, length)) = request(&read[done..]) {
            done += length;
            if head.starts_with(b"POST ") {
                let id = named(body).unwrap_or_default();
                answer(&mut answers, &id);
                journal.lock().push(Arrival { id, at_us: wall_clock_us() });
            } else {
                answers.extend(journal.show(head).into_bytes());
            }
        }
        read.drain(..done);
        if !answers.is_empty() {
            if !delay.is_zero() {
                tokio::time::sleep(delay).await;
            }
            stream.write_all(&answers).await?;
            answers.clear();
        }
    }
}

impl Journal {
    fn lock(&self) -> std::sync::MutexGuard<'_, Vec<Arrival>> {
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// `/count` tells how many came, `/take` lists them, a line each, and forgets them.
    fn show(&self, head: &[u8]) -> String {
        let body = if head.starts_with(b"GET /take ") {
            let taken = std::mem::take(&mut *self.lock());
            taken.iter().map(|arrival| format!("{} {}\n", arrival.id, arrival.at_us)).collect()
        } else {
            self.lock().len().to_string()
        };
        format!("HTTP/1.1 200 OK\r\ncontent-length: {}\r\n\r\n{body}", body.len())
    }
}

/// The first request that is there as a whole: head, body, and the length of both.
fn request(bytes: &[u8]) -> Option<(&[u8], &[u8], usize)> {
    let head = bytes.windows(4).position(|four| four == b"\r\n\r\n")? + 4;
    let length = bytes[..head]
        .split(|byte| *byte == b'\n')
        .find_map(|line| {
            let (name, value) = line.split_at_checked(15)?;
            name.eq_ignore_ascii_case(b"content-length:").then_some(value)
        })
        .and_then(|value| std::str::from_utf8(value).ok()?.trim().parse::<usize>().ok())
        .unwrap_or(0);
    let body = bytes.get(head..head + length)?;
    Some((&bytes[..head], body, head + length))
}

/// The message that a body names: our worker's reference, or a peer's `id`.
fn named(body: &[u8]) -> Option<String> {
    let text = std::str::from_utf8(body).ok()?;
    let (_, value) = text.split_once("\"reference\":").or_else(|| text.split_once("\"id\":"))?;
    let value = value.trim_start_matches([' ', '"']);
    Some(value[..value.find(['"', ',', '}', ' '])?].to_owned())
}

fn answer(answers: &mut Vec<u8>, id: &str) {
    let mut body = format!("{{\"id\":\"p-{id}\",\"status\":\"accepted\",\"note\":\"");
    body.extend(std::iter::repeat_n('.', ANSWER.saturating_sub(body.len() + 2)));
    body.push_str("\"}");
    answers.extend_from_slice(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: ");
    answers.extend(body.len().to_string().into_bytes());
    answers.extend_from_slice(b"\r\n\r\n");
    answers.extend(body.into_bytes());
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_requests_that_come_in_pieces_or_together() {
        let one = b"POST /send HTTP/1.1\r\nContent-Length: 9\r\n\r\n{\"id\": 7}";
        let two = [one.as_slice(), one].concat();
        for end in 0..one.len() {
            assert!(request(&one[..end]).is_none(), "{end}");
        }
        let (_, body, length) = request(&two).expect("a request");
        assert_eq!((named(body).as_deref(), length), (Some("7"), one.len()));
        assert!(request(&two[length..]).is_some());
    }

    #[test]
    fn knows_the_message_of_a_worker_and_of_a_peer() {
        assert_eq!(named(br#"{"to":"+9","text":"a","reference":"r01-1"}"#).as_deref(), Some("r01-1"));
        assert_eq!(named(br#"{"id":"42","text":"a"}"#).as_deref(), Some("42"));
        assert_eq!(named(b"{}"), None);
    }

    #[test]
    fn answers_with_as_many_bytes_as_it_says() {
        let mut answers = Vec::new();
        answer(&mut answers, "r01-1");
        let text = String::from_utf8(answers).expect("text");
        let (head, body) = text.split_once("\r\n\r\n").expect("a body");
        assert_eq!(body.len(), ANSWER);
        assert!(head.ends_with("content-length: 200"), "{head}");
        assert!(serde_json::from_str::<serde_json::Value>(body).is_ok(), "{body}");
    }
}
