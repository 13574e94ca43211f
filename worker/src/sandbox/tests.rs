//! The real client and the real delivery against real sockets, for every behaviour on every wire.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::{Duration, Instant};

use serde_json::{Value, json};
use tokio::net::TcpListener;
use tokio::sync::oneshot;

use super::{Accepted, Behaviour, MAGIC_NUMBERS, MAGIC_PREFIX, Options, Seen, serve};
use crate::delivery::{Delivery, DeliveryOptions};
use crate::message::{AppId, AttemptStatus, Body, MessageId, MobileNumber};
use crate::outbox::{Lease, Outcome};
use crate::provider::Registry;
use crate::provider::http::{Client, ClientOptions};

/// A sandbox of its own for each test, and a worker's delivery before it.
pub(crate) struct Bench {
    pub(crate) address: SocketAddr,
    pub(crate) delivery: Delivery,
    control: reqwest::Client,
    _stop: oneshot::Sender<()>,
}

pub(crate) const SID: &str = "AC0123456789abcdef0123456789abcdef";

impl Bench {
    pub(crate) async fn start() -> Self {
        Self::with(Options::default(), ClientOptions::default()).await
    }

    pub(crate) async fn with(options: Options, client: ClientOptions) -> Self {
        // As an operator would who tries out the URL of a gateway with the pretend one.
        let client = ClientOptions { allowed: "127.0.0.0/8".parse().unwrap(), ..client };
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let (stop, stopped) = oneshot::channel();
        tokio::spawn(serve(listener, options, async {
            let _ = stopped.await;
        }));
        let delivery = Delivery::new(
            Client::new(client).unwrap(),
            Registry::new(),
            DeliveryOptions { timeout: Duration::from_millis(500) },
        );
        Self { address, delivery, control: reqwest::Client::builder().no_proxy().build().unwrap(), _stop: stop }
    }

    pub(crate) fn config(&self, slug: &str) -> Value {
        let base = format!("http://{}", self.address);
        match slug {
            "taqnyat-sms" => {
                json!({"bearer_token": "acct", "sender": "Shop", "base_url": format!("{base}/taqnyat")})
            }
            "mora-sms" => {
                json!({"api_key": "key", "username": "acct", "sender": "Shop", "base_url": format!("{base}/mora")})
            }
            "twilio-sms" => {
                json!({"account_sid": SID, "auth_token": "tok", "sender": "Shop", "base_url": format!("{base}/twilio")})
            }
            "generic-http" => json!({
                "url": format!("{base}/generic/send"),
                "headers": {"Authorization": "Bearer {{ secrets.key }}"},
                "secrets": {"key": "acct"},
                "body": {"to": "{{ digits }}", "text": "{{ message }}", "from": "{{ sender }}", "reference": "{{ reference }}"},
                "success": {"status": [200], "pointer": "/status", "values": ["ok"]},
                "message_id": "/id",
                "error_code": "/code",
                "outcomes": {"bad_recipient": "refused_recipient"},
                "sender": "Shop",
            }),
            _ => json!({"token": "acct", "sender": "Shop", "base_url": format!("{base}/sandbox")}),
        }
    }

    pub(crate) fn lease(&self, slug: &str, number: &str) -> Lease {
        Lease {
            id: MessageId(uuid::Uuid::from_u128(7)),
            attempt: 1,
            app: AppId(1),
            organization: "shop".into(),
            slug: Arc::from(slug),
            lasts: Duration::from_secs(120),
            mobile: MobileNumber::new(number),
            body: Body::new("طلبك جاهز & \"ready\" 😀"),
            sender: None,
            config: Arc::new(self.config(slug)),
            traceparent: None,
            waited: Duration::ZERO,
            segments: 1,
        }
    }

    pub(crate) async fn send(&self, slug: &str, number: &str) -> Outcome {
        self.delivery.deliver(&self.lease(slug, number), Instant::now()).await
    }

    pub(crate) async fn get(&self, path: &str) -> Value {
        let url = format!("http://{}/control/{path}", self.address);
        self.control.get(url).send().await.unwrap().json().await.unwrap()
    }

    pub(crate) async fn rule(&self, rule: Value) -> u16 {
        let url = format!("http://{}/control/rules", self.address);
        self.control.post(url).json(&rule).send().await.unwrap().status().as_u16()
    }

    async fn clear(&self) {
        self.control.delete(format!("http://{}/control/rules", self.address)).send().await.unwrap();
    }

    pub(crate) async fn counts(&self) -> (u64, u64) {
        let counts = self.get("counts").await;
        (counts["requests"].as_u64().unwrap(), counts["accepted"].as_u64().unwrap())
    }
}

const SLUGS: [&str; 5] = ["taqnyat-sms", "mora-sms", "twilio-sms", "generic-http", "sandbox"];

const NUMBER: &str = "+966501234567";

/// The class that the worker must see, by faults of the table of HTTP ends.
fn expected(behaviour: Behaviour, slug: &str) -> AttemptStatus {
    use AttemptStatus::*;
    match behaviour {
        Behaviour::Accept | Behaviour::Delay => Accepted,
        Behaviour::RefuseRecipient => RefusedRecipient,
        Behaviour::RefuseContent => RefusedContent,
        Behaviour::RefuseAccount | Behaviour::Balance => RefusedAccount,
        Behaviour::Throttle => Throttled,
        // 201 alone proves it.
        Behaviour::StallAfterHeaders | Behaviour::Truncate if slug == "twilio-sms" => Accepted,
        _ => Unclear,
    }
}

#[tokio::test]
async fn every_behaviour_on_every_wire() {
    let bench = Bench::start().await;
    let (mut requests, mut accepted) = (0, 0);
    for slug in SLUGS {
        for behaviour in Behaviour::ALL {
            assert_eq!(
                bench.rule(json!({"behaviour": behaviour, "provider": slug, "times": 1, "delay_ms": 1})).await,
                201
            );
            if behaviour == Behaviour::StallAfterHeaders {
                bench.clear().await;
                bench.rule(json!({"behaviour": behaviour})).await;
            }
            let outcome = bench.send(slug, NUMBER).await;
            bench.clear().await;
            assert_eq!(outcome.status, expected(behaviour, slug), "{slug} {behaviour:?} {outcome:?}");
            requests += 1;
            accepted += u64::from(behaviour.accepts());
            assert_eq!(bench.counts().await, (requests, accepted), "{slug} {behaviour:?}");

            let journal = bench.get("journal").await;
            if outcome.status == AttemptStatus::Accepted {
                let last = journal.as_array().unwrap().last().unwrap();
                assert_eq!(last["provider"], slug);
                assert_eq!(last["body"], "طلبك جاهز & \"ready\" 😀");
                assert_eq!(last["sender"], "Shop");
                if let Some(id) = &outcome.provider_message_id {
                    assert_eq!(last["provider_message_id"], **id);
                }
            }
            if behaviour == Behaviour::Throttle {
                assert_eq!(outcome.retry_after, Some(Duration::from_secs(1)), "{slug}");
            }
        }
    }
}

#[tokio::test]
async fn magic_numbers_do_what_their_table_says() {
    let bench = Bench::start().await;
    for (digits, behaviour) in MAGIC_NUMBERS {
        if matches!(behaviour, Behaviour::StallAfterHeaders | Behaviour::Delay) {
            continue;
        }
        let outcome = bench.send("sandbox", &format!("+96650{MAGIC_PREFIX}{digits}")).await;
        assert_eq!(outcome.status, expected(behaviour, "sandbox"), "{digits}");
    }
    let plain = Bench::with(Options { magic_numbers: false, ..Options::default() }, ClientOptions::default()).await;
    assert_eq!(plain.send("sandbox", "+96650990001").await.status, AttemptStatus::Accepted);
}

#[tokio::test]
async fn rules_match_and_are_used_up() {
    use AttemptStatus::*;
    let bench = Bench::start().await;
    bench
        .rule(json!([
            {"behaviour": "refuse_account"},
            {"behaviour": "refuse_recipient", "to": "1111"},
            {"behaviour": "accept", "account": "acct", "provider": "mora-sms"},
            {"behaviour": "throttle", "to": NUMBER, "times": 2, "retry_after": 9},
            {"behaviour": "error_500", "provider": "sandbox", "to": "2222", "status": 503, "code": "not_processed"},
        ]))
        .await;
    for wait in [Some(9), Some(9), None] {
        let outcome = bench.send("taqnyat-sms", NUMBER).await;
        assert_eq!(outcome.retry_after.map(|wait| wait.as_secs()), wait);
        assert_eq!(outcome.status, if wait.is_some() { Throttled } else { RefusedAccount });
    }
    assert_eq!(bench.send("mora-sms", "+966501231111").await.status, Accepted);
    assert_eq!(bench.send("twilio-sms", "+966501231111").await.status, RefusedRecipient);
    assert_eq!(bench.send("sandbox", "+966501232222").await.status, NotSent);
    assert_eq!(bench.get("rules").await.as_array().unwrap().len(), 4);
    for bad in [
        json!({}),
        json!({"behaviour": "explode"}),
        json!({"behaviour": "accept", "tines": 1}),
        json!({"behaviour": "reset_before_read", "to": "1"}),
        json!({"behaviour": "error_500", "status": 99}),
    ] {
        assert_eq!(bench.rule(bad.clone()).await, 400, "{bad}");
    }
    assert_eq!(bench.get("rules").await.as_array().unwrap().len(), 4);
}

#[tokio::test]
async fn the_journal_file_holds_each_acceptance_and_grows_over_restarts() {
    let path = std::env::temp_dir().join(format!("sms-outbox-journal-{}", uuid::Uuid::new_v4()));
    let requests = path.with_extension("requests");
    let mut ids = Vec::new();
    for _ in 0..2 {
        let options = Options { journal: Some(path.clone()), requests: Some(requests.clone()), ..Options::default() };
        let bench = Bench::with(options, ClientOptions::default()).await;
        bench.rule(json!({"behaviour": "accept_then_500", "to": "0002"})).await;
        bench.rule(json!({"behaviour": "refuse_content", "to": "0003"})).await;
        for number in ["+966501230001", "+966501230002", "+966501230003"] {
            ids.push(bench.send("sandbox", number).await.provider_message_id);
        }
    }
    let text = std::fs::read_to_string(&path).unwrap();
    std::fs::remove_file(&path).unwrap();
    let journal: Vec<Accepted> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let numbers: Vec<_> = journal.iter().map(|accepted| &accepted.to[9..]).collect();
    assert_eq!(numbers, ["0001", "0002", "0001", "0002"]);
    assert_eq!(Some(&journal[0].provider_message_id), ids[0].as_ref());
    assert_eq!(Some(&journal[2].provider_message_id), ids[3].as_ref());
    assert_ne!(ids[0], ids[3]);
    assert_eq!(journal[0].reference.as_deref(), Some(format!("{}-1", MessageId(uuid::Uuid::from_u128(7))).as_str()));

    let text = std::fs::read_to_string(&requests).unwrap();
    std::fs::remove_file(&requests).unwrap();
    let seen: Vec<Seen> = text.lines().map(|line| serde_json::from_str(line).unwrap()).collect();
    let done: Vec<_> = seen.iter().map(|seen| (seen.done.as_str().unwrap(), seen.accepted)).collect();
    assert_eq!(done[..3], [("accept", true), ("accept_then_500", true), ("refuse_content", false)]);
    assert_eq!(done[..3], done[3..]);
    assert_eq!(seen[3].provider_message_id, ids[3]);
    assert_eq!((&seen[2].provider_message_id, seen[2].to.as_deref()), (&None, Some("+966501230003")));
}

#[tokio::test]
async fn invalid_requests_are_refused_as_the_provider_would() {
    use AttemptStatus::*;
    let bench = Bench::start().await;
    for (slug, change, class) in [
        (
            "twilio-sms",
            json!({"account_sid": SID, "auth_token": null, "api_key_sid": "AC1", "api_key_secret": "x"}),
            RefusedAccount,
        ),
        ("twilio-sms", json!({"base_url": format!("http://{}/twilio/x", bench.address)}), RefusedAccount),
        ("taqnyat-sms", json!({"base_url": format!("http://{}/nowhere", bench.address)}), RefusedContent),
    ] {
        let mut lease = bench.lease(slug, NUMBER);
        let mut config = bench.config(slug);
        config.as_object_mut().unwrap().extend(change.as_object().unwrap().clone());
        lease.config = Arc::new(config);
        assert_eq!(bench.delivery.deliver(&lease, Instant::now()).await.status, class, "{change}");
    }
    assert_eq!(bench.counts().await.1, 0);
}

#[tokio::test]
async fn memory_is_bounded() {
    for remember in [0, 3] {
        let path = std::env::temp_dir().join(format!("sms-outbox-journal-{}", uuid::Uuid::new_v4()));
        let options = Options { remember, journal: Some(path.clone()), ..Options::default() };
        let bench = Bench::with(options, ClientOptions::default()).await;
        for _ in 0..5 {
            bench.send("sandbox", NUMBER).await;
        }
        assert_eq!(bench.get("journal").await.as_array().unwrap().len(), remember);
        assert_eq!(bench.get("requests").await.as_array().unwrap().len(), remember);
        assert_eq!(bench.counts().await, (5, 5));
        assert_eq!(std::fs::read_to_string(&path).unwrap().lines().count(), 5);
        std::fs::remove_file(&path).unwrap();
    }
}
