//! What a real transport does to an attempt. Every behaviour of a provider is tested with the sandbox.

use std::net::SocketAddr;
use std::sync::Arc;

use serde_json::{Value, json};
use tokio::io::AsyncReadExt;
use tokio::net::TcpListener;

use super::*;
use crate::message::Body;
use crate::provider::http::ClientOptions;
use crate::sandbox::Options;
use crate::sandbox::tests::Bench;

const NUMBER: &str = "+966501234567";

fn summary(outcome: &Outcome) -> (AttemptStatus, &str) {
    (outcome.status, outcome.error_code.as_deref().unwrap_or_default())
}

/// A lease of the sandbox's wire that goes to this address.
fn lease(bench: &Bench, base: &str) -> Lease {
    let mut lease = bench.lease("sandbox", NUMBER);
    lease.config = Arc::new(json!({"token": "canary-token", "base_url": base, "allow_http": true}));
    lease
}

fn clean(outcome: &Outcome) {
    let shown = format!("{outcome:?}");
    for hidden in ["canary", "501234567", "ready", "127.0.0.1"] {
        assert!(!shown.contains(hidden), "{shown}");
    }
}

#[tokio::test]
async fn without_a_connection_nothing_was_sent() {
    let bench = Bench::start().await;
    let vacant = TcpListener::bind("127.0.0.1:0").await.unwrap().local_addr().unwrap();
    for (base, code) in [
        (format!("http://{vacant}"), "connection_refused"),
        ("http://no-such-host.invalid".to_owned(), "dns"),
        // A server that speaks no TLS.
        (format!("https://{}", bench.address), "tls"),
    ] {
        let outcome = bench.delivery.deliver(&lease(&bench, &base), Instant::now()).await;
        assert_eq!(summary(&outcome), (AttemptStatus::NotSent, code), "{base} {outcome:?}");
        assert_eq!(outcome.http_status, None);
        clean(&outcome);
    }
    assert_eq!(bench.counts().await, (0, 0));
}

/// A listener whose backlog is full: the kernel drops further SYNs.
#[tokio::test]
async fn a_connection_that_never_comes_about_is_not_sent() {
    let socket = tokio::net::TcpSocket::new_v4().unwrap();
    socket.bind("127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
    let listener = socket.listen(0).unwrap();
    let address = listener.local_addr().unwrap();
    let mut fillers = Vec::new();
    for _ in 0..2 {
        fillers.push(tokio::spawn(tokio::net::TcpStream::connect(address)));
    }
    tokio::time::sleep(Duration::from_millis(50)).await;
    let options = ClientOptions { connect_timeout: Duration::from_millis(100), ..ClientOptions::default() };
    let bench = Bench::with(Options::default(), options).await;
    let outcome = bench.delivery.deliver(&lease(&bench, &format!("http://{address}")), Instant::now()).await;
    assert_eq!(summary(&outcome), (AttemptStatus::NotSent, "connect_timeout"), "{outcome:?}");
}

#[tokio::test]
async fn a_silent_server_is_unclear_and_a_silent_tls_handshake_is_not_sent() {
    let bench = Bench::start().await;
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address = listener.local_addr().unwrap();
    tokio::spawn(async move {
        loop {
            let (mut stream, _) = listener.accept().await.unwrap();
            tokio::spawn(async move { while matches!(stream.read(&mut [0; 1024]).await, Ok(1..)) {} });
        }
    });
    let outcome = bench.delivery.deliver(&lease(&bench, &format!("http://{address}")), Instant::now()).await;
    assert_eq!(summary(&outcome), (AttemptStatus::Unclear, "timeout"));
    // Bytes of the handshake went out, but none of the request.
    let outcome = bench.delivery.deliver(&lease(&bench, &format!("https://{address}")), Instant::now()).await;
    assert_eq!(summary(&outcome), (AttemptStatus::NotSent, "connect_timeout"));
}

#[tokio::test]
async fn an_unusable_app_says_which_field_and_sends_nothing() {
    let bench = Bench::start().await;
    let mut unknown = bench.lease("sandbox", NUMBER);
    unknown.slug = Arc::from("carrier-pigeon");
    let outcome = bench.delivery.deliver(&unknown, Instant::now()).await;
    assert_eq!(summary(&outcome), (AttemptStatus::RefusedAccount, "provider_unknown"));
    assert!(outcome.error_message.unwrap().contains("carrier-pigeon"));

    let mut bad = bench.lease("sandbox", NUMBER);
    bad.config = Arc::new(json!({"token": ["canary"]}));
    let outcome = bench.delivery.deliver(&bad, Instant::now()).await;
    assert_eq!(summary(&outcome), (AttemptStatus::RefusedAccount, "config_invalid"));
    assert!(outcome.error_message.as_ref().unwrap().contains("\"token\""));
    clean(&outcome);

    let mut no_sender = bench.lease("taqnyat-sms", NUMBER);
    let mut config = bench.config("taqnyat-sms");
    config["sender"] = Value::Null;
    no_sender.config = Arc::new(config);
    let outcome = bench.delivery.deliver(&no_sender, Instant::now()).await;
    assert_eq!(summary(&outcome), (AttemptStatus::RefusedContent, "sender_missing"));
    assert_eq!(bench.counts().await, (0, 0));
}

#[tokio::test]
async fn a_short_lease_sends_nothing() {
    let bench = Bench::start().await;
    let mut lease = bench.lease("sandbox", NUMBER);
    lease.lasts = Duration::from_secs(10);
    let claimed_at = Instant::now().checked_sub(Duration::from_millis(8_100)).unwrap();
    let outcome = bench.delivery.deliver(&lease, claimed_at).await;
    assert_eq!(summary(&outcome), (AttemptStatus::NotSent, "lease_short"));
    let claimed_at = Instant::now().checked_sub(Duration::from_millis(7_000)).unwrap();
    assert_eq!(bench.delivery.deliver(&lease, claimed_at).await.status, AttemptStatus::Accepted);
    lease.lasts = Duration::ZERO;
    assert_eq!(bench.delivery.deliver(&lease, Instant::now()).await.status, AttemptStatus::NotSent);
    assert_eq!(bench.counts().await, (1, 1));
}

/// The clock is read again when the connection stands, which may take its time.
#[tokio::test]
#[expect(clippy::disallowed_methods, reason = "stops the whole runtime, as SIGSTOP does")]
async fn a_lease_that_runs_short_while_connecting_sends_nothing() {
    let bench = Bench::start().await;
    let client = Client::new(ClientOptions::default()).unwrap();
    let url = reqwest::Url::parse(&format!("http://{}/sandbox/v1/messages", bench.address)).unwrap();
    let request = Request::post_json(url, &json!({"to": NUMBER, "text": "x"}));
    let now = Instant::now();
    let mut sending = Box::pin(client.send(request, now + Duration::from_millis(30), now + Duration::from_secs(5)));
    // Begun, and then stopped as a worker is by SIGSTOP: polled again only after its time.
    assert!(futures_util::poll!(&mut sending).is_pending());
    std::thread::sleep(Duration::from_millis(60));
    let verdict = sending.await.unwrap_err();
    assert_eq!((verdict.status, verdict.error_code.as_deref()), (AttemptStatus::NotSent, Some("lease_short")));
    assert_eq!(bench.counts().await, (0, 0));
}

#[tokio::test]
async fn a_lease_cuts_the_time_for_the_answer() {
    let bench = Bench::start().await;
    bench.rule(json!({"behaviour": "delay", "delay_ms": 5000})).await;
    let mut lease = bench.lease("sandbox", NUMBER);
    lease.lasts = Duration::from_millis(2_200);
    let delivery =
        Delivery::new(Client::new(ClientOptions::default()).unwrap(), Registry::new(), DeliveryOptions::default());
    let begun = Instant::now();
    let outcome = delivery.deliver(&lease, begun).await;
    assert_eq!(summary(&outcome), (AttemptStatus::Unclear, "timeout"));
    assert!(begun.elapsed() < lease.lasts, "{:?}", begun.elapsed());
}

/// Connections that the server closes while idle must cost no attempt, and make no second request.
#[tokio::test]
async fn idle_connections_that_close_cost_nothing() {
    let options = Options { idle_timeout: Duration::from_millis(150), ..Options::default() };
    let bench = Bench::with(options, ClientOptions::default()).await;
    // Far from the moment of closing itself: a request written then ends unclear, and rightly so.
    for pause in [0, 400, 0, 400, 0, 0] {
        assert_eq!(bench.send("sandbox", NUMBER).await.status, AttemptStatus::Accepted);
        tokio::time::sleep(Duration::from_millis(pause)).await;
    }
    assert_eq!(bench.counts().await, (6, 6));
}

#[tokio::test]
async fn requests_seen_are_attempts_made() {
    let bench = Arc::new(Bench::start().await);
    for behaviour in ["reset_after_read", "reset_before_read", "error_500", "reset_after_accept"] {
        bench.rule(json!({"behaviour": behaviour, "times": 10})).await;
    }
    let attempts = (0..200).map(|_| {
        let bench = bench.clone();
        tokio::spawn(async move { bench.send("sandbox", NUMBER).await })
    });
    let mut unclear = 0;
    for attempt in attempts.collect::<Vec<_>>() {
        let outcome = attempt.await.unwrap();
        assert!(matches!(outcome.status, AttemptStatus::Accepted | AttemptStatus::Unclear), "{outcome:?}");
        unclear += u64::from(outcome.status == AttemptStatus::Unclear);
    }
    assert_eq!(bench.counts().await, (200, 170));
    assert_eq!(unclear, 40);
}

/// Each kind of its own: a client that follows makes a GET of some, and repeats the POST for others.
#[tokio::test]
async fn no_redirect_is_followed() {
    let bench = Bench::start().await;
    for (seen, status) in [301, 302, 303, 307, 308].into_iter().enumerate() {
        bench.rule(json!({"behaviour": "redirect", "status": status, "times": 1})).await;
        let outcome = bench.send("sandbox", NUMBER).await;
        let code = format!("http_{status}");
        assert_eq!(summary(&outcome), (AttemptStatus::Unclear, code.as_str()));
        assert_eq!(bench.counts().await, (seen as u64 + 1, 0), "{status}");
    }
}

#[tokio::test]
async fn an_outcome_shows_nothing_it_must_not() {
    let bench = Bench::start().await;
    // Twilio's answer repeats recipient and text.
    for slug in ["twilio-sms", "taqnyat-sms"] {
        let mut lease = bench.lease(slug, NUMBER);
        lease.body = Body::new("your code is ready 4711");
        let outcome = bench.delivery.deliver(&lease, Instant::now()).await;
        assert_eq!(outcome.status, AttemptStatus::Accepted);
        assert!(outcome.response.as_ref().is_some_and(|response| response.contains("•••")));
        clean(&outcome);
    }
}

#[test]
fn codes_are_words_and_ids_hold_no_secret() {
    let (mobile, body) = (crate::message::MobileNumber::new(NUMBER), Body::new("ready"));
    let sms = Sms { mobile: &mobile, body: &body, sender: None, reference: "r-1" };
    let end = |code: &str, id: &str| {
        let verdict = Verdict {
            provider_message_id: Some(id.to_owned()),
            ..Verdict::ended(AttemptStatus::Unclear, code, "A sentence.")
        };
        let credentials = vec!["basic-canary".to_owned()];
        End { verdict, response: None, credentials }.outcome(&sms, vec!["canary"])
    };
    let code = |code: &str| end(code, "id").error_code.unwrap();
    assert_eq!(code("21211"), "21211");
    assert_eq!(code("bad:code_1.a-b"), "bad:code_1.a-b");
    for odd in ["a sentence", NUMBER, "x canary", &"x".repeat(65)] {
        assert_eq!(code(odd), "other");
    }
    assert_eq!(end("x", "SM1\n2").provider_message_id.as_deref(), Some("SM12"));
    assert_eq!(end("x", "id-basic-canary").provider_message_id, None);
}
