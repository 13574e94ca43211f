//! What it costs an application to enqueue.

use std::time::{Duration, Instant};

use anyhow::Result;
use sms_outbox_bench::measure::{Caller, round};
use sms_outbox_tests::Database;
use tokio_postgres::Client;

use super::{Bench, drop_peers};
use crate::message::{self, MANY, ORGANIZATION};
use crate::ours::{self, Enqueuer};
use crate::peer::Given;
use crate::record::Measured;
use crate::server::drop_database;
use crate::{OURS, bare};

/// One message a transaction, on connections that are open already.
pub(crate) async fn one_a_transaction(bench: &mut Bench) -> Result<()> {
    const PART: &str = "enqueue";
    let lasts = Duration::from_secs(bench.amounts.seconds);
    for clients in [1, 16] {
        let case = format!("{clients} client{}", if clients == 1 { "" } else { "s" });
        let ours = ours::create(&bench.cluster, "enqueue_ours", bench.provider.url()).await?;
        let bare = bare::create(&bench.cluster, "enqueue_bare").await?;
        let mut peers = bench.ready_peers(PART).await?;
        for number in 0..=bench.amounts.rounds {
            let key = format!("round-{number}");
            for keys in [None, Some(key.as_str())] {
                let case = if keys.is_some() { format!("{case}, key") } else { case.clone() };
                ours.sql("CHECKPOINT").await?;
                let callers = Enqueuer::open(&ours, clients, keys).await?;
                bench.recorder.measure(PART, OURS, number, repeat(&case, callers, lasts)).await?;
            }
            bare.sql("CHECKPOINT").await?;
            let callers = bare::Inserter::open(&bare, clients).await?;
            bench.recorder.measure(PART, "bare", number, repeat(&case, callers, lasts)).await?;

            let (clients, seconds) = (clients.to_string(), bench.amounts.seconds.to_string());
            let with = ["--clients", &clients, "--seconds", &seconds];
            let ask = async |peer: &crate::peer::Ready, _: &crate::server::Provider| {
                peer.setup().await?;
                peer.database.sql("CHECKPOINT").await?;
                let mut measured = Measured::new();
                match peer.rate("enqueue", &with).await? {
                    Given::Figure(rate) => measured.push((case.clone(), rate, "messages/s")),
                    Given::Cannot(reason) => return Ok(Given::Cannot(reason)),
                }
                // Not every queue has keys.
                if let Given::Figure(rate) = peer.rate("enqueue", &[&with[..], &["--keys"]].concat()).await? {
                    measured.push((format!("{case}, key"), rate, "messages/s"));
                }
                Ok(Given::Figure(measured))
            };
            // They are processes of their own, which warm up by themselves.
            if number > 0 {
                bench.measure_peers(PART, number, &mut peers, ask).await?;
            }
        }
        drop_database(ours).await?;
        drop_database(bare).await?;
        drop_peers(peers).await?;
    }
    Ok(())
}

async fn repeat<C: Caller + 'static>(case: &str, callers: Vec<C>, lasts: Duration) -> Result<Measured> {
    let (_, counted) = round(callers, lasts).await?;
    Ok(vec![(case.to_owned(), counted.rate, "messages/s")])
}

/// Many messages in one transaction, whose commit is not counted.
pub(crate) async fn in_one_transaction(bench: &mut Bench) -> Result<()> {
    const PART: &str = "one transaction";
    let ours = ours::create(&bench.cluster, "transaction_ours", bench.provider.url()).await?;
    let bare = bare::create(&bench.cluster, "transaction_bare").await?;
    let (app, plain) = (connect(&ours, "app").await?, connect(&bare, "postgres").await?);
    let (many, bare_many) = (app.prepare(ours::ENQUEUE_MANY).await?, plain.prepare(bare::INSERT_MANY).await?);
    let array = message::array(0, MANY);
    for number in 0..=bench.amounts.rounds {
        let set_based = async { app.query_one(&many, &[&array, &ORGANIZATION]).await.map(drop) };
        let measured = in_transaction(&app, "set-based", set_based);
        bench.recorder.measure(PART, OURS, number, measured).await?;
        let set_based = async { plain.execute(&bare_many, &[&array]).await.map(drop) };
        let measured = in_transaction(&plain, "set-based", set_based);
        bench.recorder.measure(PART, "bare", number, measured).await?;
        let measured = in_transaction(&app, "PL/pgSQL loop", app.batch_execute(ours::ENQUEUE_LOOP));
        bench.recorder.measure(PART, OURS, number, measured).await?;
        let measured = in_transaction(&plain, "PL/pgSQL loop", plain.batch_execute(bare::INSERT_LOOP));
        bench.recorder.measure(PART, "bare", number, measured).await?;
    }
    drop_database(ours).await?;
    drop_database(bare).await
}

async fn connect(database: &Database, role: &str) -> Result<Client> {
    sms_outbox_tests::database::connect(&database.url(role)).await
}

async fn in_transaction(
    client: &Client,
    case: &str,
    work: impl Future<Output = Result<(), tokio_postgres::Error>>,
) -> Result<Measured> {
    client.batch_execute("BEGIN").await?;
    let begun = Instant::now();
    work.await?;
    let micros = begun.elapsed().as_secs_f64() * 1e6;
    client.batch_execute("COMMIT").await?;
    Ok(vec![(case.to_owned(), micros / f64::from(MANY), "µs/message")])
}
