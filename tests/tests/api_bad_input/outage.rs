//! The database away before, during and after the commit. An answer never says that a message is queued which is not,
//! nor that none is where one may be; and with its key the request can be repeated.

use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};

use anyhow::{Context, Result, ensure};
use serde_json::json;
use sms_outbox_tests::{Api, Cluster, Database, Major, Queue, Stop, wait_until};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpStream};

use crate::fixture::{Fixture, OUTBOX, with};
use crate::raw::Raw;

/// What the wire does.
const FORWARD: u8 = 0;
/// The request never reaches the server.
const CUT_REQUEST: u8 = 1;
/// The server has committed, and its answer is lost.
const CUT_ANSWER: u8 = 2;

/// A wire between the API and the server that can be cut.
struct Wire {
    port: u16,
    mode: Arc<AtomicU8>,
}

impl Wire {
    async fn to(server: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let (port, mode) = (listener.local_addr()?.port(), Arc::new(AtomicU8::new(FORWARD)));
        let shared = mode.clone();
        tokio::spawn(async move {
            while let Ok((client, _)) = listener.accept().await {
                let mode = shared.clone();
                tokio::spawn(async move {
                    if let Ok(server) = TcpStream::connect(("127.0.0.1", server)).await {
                        let (client, server) = (client.into_split(), server.into_split());
                        let up = carry(client.0, server.1, mode.clone(), CUT_REQUEST);
                        let down = carry(server.0, client.1, mode, CUT_ANSWER);
                        // Whichever ends first drops both halves of both.
                        tokio::select! { () = up => {}, () = down => {} }
                    }
                });
            }
        });
        Ok(Self { port, mode })
    }

    fn set(&self, mode: u8) {
        self.mode.store(mode, Ordering::SeqCst);
    }
}

async fn carry(mut from: impl AsyncReadExt + Unpin, mut to: impl AsyncWriteExt + Unpin, mode: Arc<AtomicU8>, cut: u8) {
    let mut bytes = vec![0; 64 * 1024];
    while let Ok(count @ 1..) = from.read(&mut bytes).await {
        if mode.load(Ordering::SeqCst) == cut || to.write_all(&bytes[..count]).await.is_err() {
            return;
        }
    }
}

/// A server of its own, and one connection to it, so that it is known which one a request takes.
async fn fixture(major: Major) -> Result<(Arc<Cluster>, Fixture, Wire)> {
    let cluster = Cluster::options(major).without_preload().start().await?;
    let queue = Queue::on(Database::create(&cluster, "outage").await?).await?;
    let wire = Wire::to(cluster.port()).await?;
    let url = queue.url("api").replace(&format!(":{}/", cluster.port()), &format!(":{}/", wire.port));
    ensure!(url.contains(&wire.port.to_string()), "{url}");
    let api = Api::options(&queue)?.set("DATABASE_URL", &url).set("SMS_OUTBOX_API_POOL_SIZE", "1").start().await?;
    Ok((cluster, Fixture::of(queue, api).await?, wire))
}

impl Fixture {
    async fn keyed(&self, key: &str) -> Result<Raw> {
        let body = with("idempotency_key", json!(key)).to_string();
        self.send(&self.post(OUTBOX, body.as_bytes())).await
    }

    async fn queued(&self, key: &str) -> Result<i64> {
        self.count(&format!("sms_outbox.outbox WHERE idempotency_key = '{key}'")).await
    }

    /// Repeats until the API has a connection again.
    async fn repeated(&self, key: &str) -> Result<Raw> {
        let mut last = None;
        wait_until(format!("{key} is answered"), async || {
            let answer = self.keyed(key).await?;
            let done = matches!(answer.status, 200 | 201);
            last = Some(answer);
            Ok(done)
        })
        .await?;
        last.context("an answer")
    }
}

fn assert_refused(answer: &Raw, code: &str) {
    let found = (answer.status, answer.code(), answer.header("retry-after").is_some());
    assert_eq!(found, (503, code.to_owned(), true), "{}", String::from_utf8_lossy(&answer.body));
}

pub(crate) async fn lost_before_during_and_after_the_commit(major: Major) -> Result<()> {
    let (_cluster, fixture, wire) = fixture(major).await?;
    // The statement is prepared now: from here on each request is one message to the server and one back.
    assert_eq!(fixture.keyed("warm").await?.status, 201);

    wire.set(CUT_REQUEST);
    let answer = fixture.keyed("before").await?;
    assert_refused(&answer, "outcome_unknown");
    wire.set(FORWARD);
    assert_eq!(fixture.queued("before").await?, 0);
    assert_eq!(fixture.repeated("before").await?.status, 201, "the repeat is the first");

    wire.set(CUT_ANSWER);
    let answer = fixture.keyed("after").await?;
    assert_refused(&answer, "outcome_unknown");
    let words = answer.json()["detail"].as_str().unwrap_or_default().to_owned();
    assert!(words.contains("may have been") && words.contains("idempotency_key"), "{words}");
    wire.set(FORWARD);
    wait_until("it was committed all the same", async || Ok(fixture.queued("after").await? == 1)).await?;
    let repeat = fixture.repeated("after").await?;
    assert_eq!(
        (repeat.status, &repeat.json()["idempotent_replay"]),
        (200, &json!(true)),
        "the repeat is no second message"
    );
    assert_eq!(fixture.queued("after").await?, 1);

    // Waiting for a lock when its session is ended: the server says so before any commit.
    let holder = fixture.connect().await?;
    holder.batch_execute("BEGIN; LOCK TABLE sms_outbox.message").await?;
    let (answer, ended) = tokio::join!(fixture.keyed("during"), async {
        let waiting = "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE usename = 'api' AND wait_event_type = 'Lock'";
        wait_until("it waits and is ended", async || Ok(fixture.value::<i64>(waiting, &[]).await? > 0)).await
    });
    ended?;
    assert_refused(&answer?, "database_unavailable");
    holder.batch_execute("ROLLBACK").await?;
    assert_eq!(fixture.queued("during").await?, 0);
    assert_eq!(fixture.repeated("during").await?.status, 201);
    fixture.assert_calm();
    Ok(())
}

pub(crate) async fn away_and_back(major: Major) -> Result<()> {
    let (cluster, fixture, _wire) = fixture(major).await?;
    assert_eq!(fixture.keyed("warm").await?.status, 201);
    for how in [Stop::Fast, Stop::Immediate, Stop::Kill] {
        cluster.stop(how).await?;
        let mut codes = Vec::new();
        for _ in 0..3 {
            let answer = fixture.keyed("away").await?;
            ensure!(answer.status == 503 && answer.header("retry-after").is_some(), "{}", answer.head);
            codes.push(answer.code());
        }
        // The first may go to a connection that looks alive; then it is known.
        ensure!(codes[1..].iter().all(|code| code == "database_unavailable"), "{codes:?}");
        for (path, status) in [("/healthz", 200), ("/readyz", 503), ("/openapi.json", 200)] {
            assert_eq!(fixture.api.get(path, "").await?.status, status, "{path}");
        }
        // Nobody can be told from anybody, and nobody is let in.
        let stranger = fixture.api.get(OUTBOX, "smsk_x").await?;
        assert!(matches!(stranger.status, 401 | 503), "{stranger:?}");
        cluster.start().await?;
        let answer = fixture.repeated("away").await?;
        assert!(matches!(answer.status, 200 | 201));
        let restarted = Database::open(&cluster, "outage").await?;
        let queued = "SELECT count(*) FROM sms_outbox.outbox WHERE idempotency_key = 'away'";
        assert_eq!(restarted.value::<i64>(queued, &[]).await?, 1);
        fixture.api.wait_ready(200).await?;
    }
    fixture.assert_calm();
    Ok(())
}
