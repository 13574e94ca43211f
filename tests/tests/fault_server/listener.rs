//! Sessions that LISTEN and do not read: one whose connection is full, one in an open transaction.

use anyhow::{Context, Result, ensure};
use sms_outbox_tests::{Cluster, Fault, Major};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

use crate::shop::Shop;

pub(crate) async fn a_listener_that_never_reads_stops_nobody(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.set("SMS_OUTBOX_POLL_INTERVAL", "60s").start().await?;
    let _deaf = listen_and_never_read(shop.database.cluster(), "shop").await?;
    let busy = shop.database.connect_as("worker").await?;
    busy.batch_execute("LISTEN sms_outbox; BEGIN; SELECT pg_current_snapshot()").await?;

    // Until the connection is full: then its backend waits, within a transaction.
    let noise = shop.database.connect().await?;
    let stuck = "SELECT count(*) FROM pg_stat_activity WHERE application_name = 'deaf' AND wait_event = 'ClientWrite'";
    let filled = async || {
        noise
            .batch_execute("SELECT pg_notify('sms_outbox', n || repeat('x', 7000)) FROM generate_series(1, 200) AS n")
            .await?;
        Ok((shop.database.value::<i64>(stuck, &[]).await? == 1).then_some(()))
    };
    shop.database.wait_for("the listener is stuck", filled).await?;
    for wakeup in ["coalesced", "trigger"] {
        shop.set("wakeup", wakeup).await?;
        for _ in 0..3 {
            let sms = shop.queue_many("shop", 20, "").await?;
            for one in &sms {
                shop.wait_for_status(one, "sent").await?;
            }
        }
    }
    ensure!(shop.database.value::<i64>(stuck, &[]).await? == 1, "the listener is not stuck any more");
    let mut fault = Fault::new("21", "listeners that never read", major);
    fault.injected(2);
    let usage: f64 = shop.database.value("SELECT pg_notification_queue_usage()", &[]).await?;
    ensure!(usage > 0.0, "nobody holds the queue of notifications up");
    let counts = shop.close_fault(fault).await?;
    ensure!(counts.by_status == [("sent".to_owned(), 120)].into(), "{counts}");
    Ok(())
}

/// A session of plain protocol: start-up, LISTEN, and then no byte more is read.
async fn listen_and_never_read(cluster: &Cluster, database: &str) -> Result<UnixStream> {
    let socket = cluster.data().with_file_name(format!(".s.PGSQL.{}", cluster.port()));
    let mut stream = UnixStream::connect(&socket).await.with_context(|| socket.display().to_string())?;
    let parameters = format!("user\0worker\0database\0{database}\0application_name\0deaf\0\0");
    let mut start = 196_608_u32.to_be_bytes().to_vec();
    start.extend_from_slice(parameters.as_bytes());
    send(&mut stream, None, &start).await?;
    ready(&mut stream).await?;
    send(&mut stream, Some(b'Q'), b"LISTEN sms_outbox\0").await?;
    ready(&mut stream).await?;
    Ok(stream)
}

async fn send(stream: &mut UnixStream, kind: Option<u8>, body: &[u8]) -> Result<()> {
    let mut message: Vec<u8> = kind.into_iter().collect();
    message.extend_from_slice(&u32::try_from(body.len() + 4)?.to_be_bytes());
    message.extend_from_slice(body);
    Ok(stream.write_all(&message).await?)
}

/// Reads up to ReadyForQuery.
async fn ready(stream: &mut UnixStream) -> Result<()> {
    loop {
        let kind = stream.read_u8().await?;
        let mut body = vec![0; usize::try_from(stream.read_u32().await?)?.saturating_sub(4)];
        stream.read_exact(&mut body).await?;
        ensure!(kind != b'E', "the server refuses: {}", String::from_utf8_lossy(&body));
        if kind == b'Z' {
            return Ok(());
        }
    }
}
