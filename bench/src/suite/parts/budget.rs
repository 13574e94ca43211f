//! The cost budget of one message: what each step costs the server, by its own books of each backend.

use anyhow::Result;
use sms_outbox_bench::measure::Caller as _;
use sms_outbox_tests::Database;
use tokio_postgres::Client;

use super::Bench;
use crate::load;
use crate::message::{self, ORGANIZATION};
use crate::ours::{self, Enqueuer, SqlWorker};
use crate::record::Measured;
use crate::server::drop_database;
use crate::{OURS, bare};

/// The part's name; its cases are a step and one of [`COLUMNS`], with [`BETWEEN`] between them.
pub(crate) const PART: &str = "budget";

/// Between a step and a column.
pub(crate) const BETWEEN: &str = ": ";

/// What is told of each step.
pub(crate) const COLUMNS: [(&str, &str); 3] =
    [("CPU", "µs/message"), ("WAL", "bytes/message"), ("buffers", "buffers/message")];

/// Messages of a call, where one call takes many.
const BATCH: u32 = 100;

/// Messages of a step in a round.
const MESSAGES: u32 = 2000;

/// Calls that each session makes before: in its first ones, catalogs are read and plans are made.
const FIRST: u32 = 10;

/// What a backend has used since it began.
#[derive(Clone, Copy)]
struct Used {
    cpu_us: f64,
    wal: f64,
    buffers: f64,
}

/// Step by step, each backend alone in its step.
pub(crate) async fn all(bench: &mut Bench) -> Result<()> {
    let ours = ours::create(&bench.cluster, "budget_ours", bench.provider.url()).await?;
    let bare = bare::create(&bench.cluster, "budget_bare").await?;
    for number in 0..=bench.amounts.rounds {
        let measured = floor(&bare);
        bench.recorder.measure(PART, "bare", number, measured).await?;
        let measured = steps(&ours);
        bench.recorder.measure(PART, OURS, number, measured).await?;
    }
    drop_database(ours).await?;
    drop_database(bare).await
}

/// What anybody's message costs that is a row, one a transaction.
async fn floor(bare: &Database) -> Result<Measured> {
    let mut measured = Measured::new();
    let mut inserters = bare::Inserter::open(bare, 1).await?;
    let Some(inserter) = inserters.first_mut() else { return Ok(measured) };
    for _ in 0..FIRST {
        inserter.call().await?;
    }
    let before = used(bare, inserter.client()).await?;
    for _ in 0..MESSAGES {
        inserter.call().await?;
    }
    tell(&mut measured, "bare INSERT, one a transaction", before, used(bare, inserter.client()).await?);
    Ok(measured)
}

async fn steps(ours: &Database) -> Result<Measured> {
    let mut measured = Measured::new();
    let mut enqueuer = Enqueuer::one(ours, ORGANIZATION, 0, None).await?;
    for _ in 0..FIRST {
        enqueuer.enqueue().await?;
    }
    let before = used(ours, enqueuer.client()).await?;
    for _ in 0..MESSAGES {
        enqueuer.enqueue().await?;
    }
    tell(&mut measured, "enqueue, one a transaction", before, used(ours, enqueuer.client()).await?);

    let app = sms_outbox_tests::database::connect(&ours.url("app")).await?;
    let many = app.prepare(ours::ENQUEUE_MANY).await?;
    let array = message::array(0, BATCH);
    for _ in 0..FIRST {
        app.query_one(&many, &[&array, &ORGANIZATION]).await?;
    }
    let before = used(ours, &app).await?;
    for _ in 0..MESSAGES / BATCH {
        app.query_one(&many, &[&array, &ORGANIZATION]).await?;
    }
    tell(&mut measured, &format!("enqueue_many of {BATCH}"), before, used(ours, &app).await?);

    // Of both kinds of enqueue.
    let calls = 2 * MESSAGES / BATCH;
    let mut worker = SqlWorker::open(ours).await?;
    for _ in 0..FIRST {
        let page = worker.look(BATCH).await?;
        worker.finish(&worker.claim(&page).await?).await?;
    }
    let before = used(ours, worker.client()).await?;
    let mut pages = Vec::new();
    for _ in 0..calls {
        pages.push(worker.look(BATCH).await?);
    }
    let looked = used(ours, worker.client()).await?;
    tell_of(&mut measured, &format!("look at {BATCH}"), before, looked, 2 * MESSAGES);
    let mut claimed = Vec::new();
    for page in &pages {
        claimed.push(worker.claim(page).await?);
    }
    let after_claims = used(ours, worker.client()).await?;
    tell_of(&mut measured, &format!("claim of {BATCH}"), looked, after_claims, 2 * MESSAGES);
    for batch in &claimed {
        worker.finish(batch).await?;
    }
    tell_of(
        &mut measured,
        &format!("finish of {BATCH}"),
        after_claims,
        used(ours, worker.client()).await?,
        2 * MESSAGES,
    );
    Ok(measured)
}

/// What the backend of this connection has used. Its books are written when it is idle, unless it is told to.
async fn used(database: &Database, client: &Client) -> Result<Used> {
    let row = client.query_one("SELECT pg_backend_pid(), pg_stat_force_next_flush()", &[]).await?;
    let backend: i32 = row.try_get(0)?;
    let row = database
        .admin()
        .query_one(
            "SELECT (SELECT wal_bytes FROM pg_stat_get_backend_wal($1))::float8,
                    (SELECT sum(coalesce(hits, 0) + coalesce(reads, 0)) FROM pg_stat_get_backend_io($1) WHERE object = 'relation')::float8",
            &[&backend],
        )
        .await?;
    Ok(Used { cpu_us: load::cpu_us(u32::try_from(backend)?)?, wal: row.try_get(0)?, buffers: row.try_get(1)? })
}

fn tell(measured: &mut Measured, step: &str, before: Used, after: Used) {
    tell_of(measured, step, before, after, MESSAGES);
}

fn tell_of(measured: &mut Measured, step: &str, before: Used, after: Used, messages: u32) {
    let used = [after.cpu_us - before.cpu_us, after.wal - before.wal, after.buffers - before.buffers];
    for ((column, unit), used) in COLUMNS.into_iter().zip(used) {
        measured.push((format!("{step}{BETWEEN}{column}"), used / f64::from(messages), unit));
    }
}
