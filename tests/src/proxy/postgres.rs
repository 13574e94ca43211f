//! What a connection to PostgreSQL carries, read along: which statements, and when the server is ready for the next.

use std::collections::HashMap;

/// A request for encryption, which has the form of a startup message.
const SSL_REQUEST: [u8; 4] = 80_877_103_u32.to_be_bytes();

/// The server waits for the next statement, outside any transaction.
const READY: &[u8] = b"Z\0\0\0\x05I";

/// Reads along one connection. On one that carries something else, such as HTTP, it finds nothing.
#[derive(Default)]
pub(super) struct Tap {
    started: bool,
    unread: Vec<u8>,
    prepared: HashMap<Vec<u8>, String>,
    seen: Vec<String>,
    tail: Vec<u8>,
    round_trips: u64,
}

impl Tap {
    /// Takes bytes of the client; returns the statements that they run.
    pub(super) fn client(&mut self, bytes: &[u8]) -> Vec<String> {
        self.unread.extend_from_slice(bytes);
        self.tail.clear();
        let mut run = Vec::new();
        while let Some((kind, body)) = self.message() {
            // Sync and Query: after these the client waits.
            self.round_trips += u64::from(matches!(kind, b'S' | b'Q'));
            let statement = match kind {
                b'Q' => Some(text(&body)),
                b'B' => words(&body).nth(1).and_then(|name| self.prepared.get(name)).cloned(),
                b'P' => {
                    let mut words = words(&body);
                    if let (Some(name), Some(statement)) = (words.next(), words.next()) {
                        self.prepared.insert(name.to_vec(), text(statement));
                    }
                    None
                }
                _ => None,
            };
            if let Some(statement) = statement {
                if !self.seen.contains(&statement) {
                    self.seen.push(statement.clone());
                }
                run.push(statement);
            }
        }
        run
    }

    /// How often the client has waited for an answer since this was last asked.
    pub(super) fn take_round_trips(&mut self) -> u64 {
        std::mem::take(&mut self.round_trips)
    }

    /// Takes bytes of the server; whether they end with its being ready.
    pub(super) fn is_ready(&mut self, bytes: &[u8]) -> bool {
        self.tail.extend_from_slice(bytes);
        self.tail.ends_with(READY)
    }

    /// Whether the connection has carried a statement with these words.
    pub(super) fn has_seen(&self, words: &str) -> bool {
        self.seen.iter().any(|statement| statement.contains(words))
    }

    /// The next whole message of the client, with its type; a startup message has none.
    fn message(&mut self) -> Option<(u8, Vec<u8>)> {
        let head = usize::from(self.started);
        let length: [u8; 4] = self.unread.get(head..head + 4)?.try_into().ok()?;
        let end = head + usize::try_from(u32::from_be_bytes(length)).ok()?;
        let body = self.unread.get(head + 4..end)?.to_vec();
        let kind = if self.started { self.unread[0] } else { 0 };
        self.started = self.started || body.get(..4) != Some(&SSL_REQUEST);
        self.unread.drain(..end);
        Some((kind, body))
    }
}

/// The texts of a message, each ended by a zero.
fn words(body: &[u8]) -> impl Iterator<Item = &[u8]> {
    body.split(|byte| *byte == 0)
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).trim_end_matches('\0').to_owned()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn message(kind: &str, body: &[u8]) -> Vec<u8> {
        let length = u32::try_from(body.len() + 4).expect("short").to_be_bytes();
        [kind.as_bytes(), &length, body].concat()
    }

    #[test]
    fn statements_are_known_by_name_and_in_pieces() {
        let mut tap = Tap::default();
        let start = [message("", &SSL_REQUEST), message("", b"\0\x03\0\0user\0worker\0\0")].concat();
        assert!(tap.client(&start).is_empty());
        let parse = message("P", b"s1\0SELECT sms_outbox.claim($1)\0\0\0");
        assert!(tap.client(&parse[..7]).is_empty() && tap.client(&parse[7..]).is_empty());
        assert!(!tap.has_seen("claim"), "prepared is not run");
        assert_eq!(tap.client(&message("B", b"\0s1\0\0\0")), ["SELECT sms_outbox.claim($1)"]);
        assert_eq!(tap.client(&message("Q", b"LISTEN sms_outbox\0")), ["LISTEN sms_outbox"]);
        assert!(tap.has_seen("claim") && tap.has_seen("LISTEN"));
    }

    #[test]
    fn the_end_of_an_answer_may_come_in_pieces() {
        let mut tap = Tap::default();
        assert!(!tap.is_ready(b"C\0\0\0\x0dSELECT 1\0Z\0\0"));
        assert!(tap.is_ready(b"\0\x05I"));
    }
}
