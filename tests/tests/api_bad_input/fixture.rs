//! An API on a queue of its own, with a key for everything.

use std::ops::Deref;

use anyhow::Result;
use serde_json::{Value, json};
use sms_outbox_tests::{Api, Major, Queue};

use crate::raw::{self, Raw};

pub(crate) const OUTBOX: &str = "/api/v1/sms/outbox";

pub(crate) struct Fixture {
    pub(crate) queue: Queue,
    pub(crate) api: Api,
    pub(crate) key: String,
}

impl Fixture {
    /// Slow clients are given up after a second: the tests wait for that.
    pub(crate) async fn new(major: Major) -> Result<Self> {
        let queue = Queue::new(major).await?;
        let api = Api::options(&queue)?.set("SMS_OUTBOX_API_READ_TIMEOUT", "1s").start().await?;
        Self::of(queue, api).await
    }

    pub(crate) async fn of(queue: Queue, api: Api) -> Result<Self> {
        let key = Api::key(&queue, "shop", &["enqueue", "read", "operate"]).await?;
        Ok(Self { queue, api, key })
    }

    /// A request with the key and a JSON body.
    pub(crate) fn post(&self, path: &str, body: &[u8]) -> Vec<u8> {
        let length = body.len().to_string();
        let headers = [("Content-Type", "application/json"), ("Content-Length", &length), self.authorization()];
        raw::request("POST", path, &headers, body)
    }

    pub(crate) fn get(&self, path: &str) -> Vec<u8> {
        raw::request("GET", path, &[self.authorization()], b"")
    }

    pub(crate) fn authorization(&self) -> (&str, &str) {
        ("Authorization", &self.key)
    }

    pub(crate) async fn send(&self, bytes: &[u8]) -> Result<Raw> {
        raw::send(self.api.address(), bytes).await
    }

    /// How many messages there are: nothing that is refused may leave one.
    pub(crate) async fn messages(&self) -> Result<i64> {
        self.queue.count("sms_outbox.message").await
    }

    /// No request may make a handler panic, or meet an error that nobody thought of.
    pub(crate) fn assert_calm(&self) {
        let log = self.api.log();
        for word in ["panicked", "refused a call of ours", "ERROR"] {
            assert!(!log.contains(word), "{}", tail(&log));
        }
    }
}

impl Deref for Fixture {
    type Target = Queue;

    fn deref(&self) -> &Queue {
        &self.queue
    }
}

fn tail(log: &str) -> &str {
    &log[log.len().saturating_sub(4000)..]
}

/// A good message.
pub(crate) fn good() -> Value {
    json!({ "mobile": "966501234567", "message": "hello", "idempotency_key": "", "meta": { "order_id": "1" } })
}

/// The good message with one field more or another.
pub(crate) fn with(name: &str, value: Value) -> Value {
    let mut body = good();
    body[name] = value;
    body
}
