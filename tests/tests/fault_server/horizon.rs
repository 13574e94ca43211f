//! The horizon is pinned: by a transaction of this database, of another one, or by one that was prepared and forgotten.

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::{Cluster, Database, Fault, Major, Queue};
use tokio_postgres::Client;

use crate::shop::Shop;

/// Messages that wait all the while.
const BACKLOG: i64 = 100_000;
/// Messages that have gone since the horizon stands.
const DEAD: i64 = 20_000;
/// How often it is measured, with claims of how many messages.
const ROUNDS: i64 = 100;
const BATCH: i64 = 50;

/// Buffers that one claim touches, at the 99th percentile: what depends on dead rows shows here, on a busy machine too.
pub(crate) async fn a_pinned_horizon_makes_no_claim_dearer(major: Major) -> Result<()> {
    let cluster = Cluster::options(major)
        .without_preload()
        .set("autovacuum", "off")
        .set("shared_buffers", "128MB")
        .start()
        .await?;
    let queue = Queue::on(Database::create(&cluster, "shop").await?).await?;
    queue_messages(&queue, BACKLOG).await?;
    let session = queue.connect_as("worker").await?;
    // The first claims of a session plan.
    churn(&queue, &session, 10, BATCH).await?;
    queue.sql("VACUUM (INDEX_CLEANUP ON)").await?;
    let unpinned = churn(&queue, &session, ROUNDS, BATCH).await?;

    queue.sql("VACUUM (INDEX_CLEANUP ON)").await?;
    let pin = queue.connect().await?;
    pin.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sms_outbox.ready").await?;
    let mut fault = Fault::new("16", "the horizon is pinned, with a backlog of 100,000", major);
    churn(&queue, &session, DEAD / 1000, 1000).await?;
    // Nothing is cleaned any more, however often it is tried.
    queue.sql("VACUUM (INDEX_CLEANUP ON)").await?;
    let dead: i64 = queue
        .value("SELECT n_dead_tup FROM pg_stat_user_tables WHERE relid = 'sms_outbox.ready'::regclass", &[])
        .await?;
    ensure!(dead >= DEAD, "the horizon is not pinned: {dead} dead rows");
    fault.injected(u64::try_from(dead)?);
    let pinned = churn(&queue, &session, ROUNDS, BATCH).await?;
    ensure!(pinned.claim <= 2 * unpinned.claim, "{pinned:?} pinned, {unpinned:?} unpinned");
    ensure!(pinned.look <= 2 * unpinned.look, "{pinned:?} pinned, {unpinned:?} unpinned");
    pin.batch_execute("COMMIT").await?;
    queue.assert_placed().await?;
    fault.asserted(usize::try_from(BACKLOG)?)
}

#[derive(Debug)]
struct Cost {
    claim: i64,
    look: i64,
}

async fn queue_messages(queue: &Queue, count: i64) -> Result<()> {
    queue
        .sql(&format!(
            "SELECT count(e.id) FROM generate_series(1, {count}) AS n, sms_outbox_enqueue('0501234567', 'm' || n, organization_id => 'shop') AS e"
        ))
        .await
}

/// Queues so many more and sends as many of the oldest, as a worker does: what it looks at lies behind its mark.
async fn churn(queue: &Queue, session: &Client, rounds: i64, batch: i64) -> Result<Cost> {
    let (mut claims, mut looks) = (Vec::new(), Vec::new());
    for _ in 0..rounds {
        let mark: String = queue.value("SELECT pg_snapshot_xmax(pg_current_snapshot())::text", &[]).await?;
        queue_messages(queue, batch).await?;
        let look = format!(
            "SELECT * FROM sms_outbox.look(ARRAY[1::smallint], ARRAY['{mark}'::xid8], ARRAY['r00000000000000000000000000'::sms_outbox.message_id], ARRAY[NULL::xid8], 100)"
        );
        looks.push(buffers(session, &look).await?);
        let ids: String = queue
            .value(&format!("SELECT string_agg(id::text, ',') FROM (SELECT id FROM sms_outbox.ready ORDER BY id LIMIT {batch}) AS r"), &[])
            .await?;
        let claim = format!(
            "SELECT * FROM sms_outbox.claim('w', '{{{ids}}}'::text[]::sms_outbox.message_id[], array_fill({}::bigint, ARRAY[{batch}]))",
            queue.app()
        );
        claims.push(buffers(session, &claim).await?);
        let finish = "SELECT count(*) FROM sms_outbox.finish('w', $1::text::text[]::sms_outbox.message_id[],
            array_fill(1::smallint, ARRAY[$2::int]), array_fill('accepted'::sms_outbox.attempt_status, ARRAY[$2::int]), array_fill(200::smallint, ARRAY[$2::int]),
            array_fill(NULL::text, ARRAY[$2::int]), array_fill(NULL::text, ARRAY[$2::int]), array_fill(NULL::text, ARRAY[$2::int]),
            array_fill(NULL::text, ARRAY[$2::int]), array_fill(NULL::double precision, ARRAY[$2::int])) WHERE applied";
        let finished: i64 =
            session.query_one(finish, &[&format!("{{{ids}}}"), &i32::try_from(batch)?]).await?.try_get(0)?;
        ensure!(finished == batch, "{finished} finished");
    }
    Ok(Cost { claim: percentile(claims), look: percentile(looks) })
}

/// Buffers of shared memory that a statement touches. It runs.
async fn buffers(session: &Client, statement: &str) -> Result<i64> {
    let explain = format!("EXPLAIN (ANALYZE, BUFFERS, TIMING off, FORMAT json) {statement}");
    let plan: Value = session.query_one(&explain, &[]).await?.try_get(0)?;
    let plan = &plan[0]["Plan"];
    let touched = |name: &str| plan[name].as_i64().with_context(|| format!("no {name} in {plan}"));
    Ok(touched("Shared Hit Blocks")? + touched("Shared Read Blocks")?)
}

fn percentile(mut costs: Vec<i64>) -> i64 {
    costs.sort_unstable();
    costs[costs.len() * 99 / 100]
}

/// A transaction that writes for long in another database of the server, and one that was prepared there and forgotten.
pub(crate) async fn writers_elsewhere_hide_nothing(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install("sandbox", "").await?;
    let mut fault = Fault::new("30", "a long writer in another database, and a forgotten prepared transaction", major);
    let elsewhere = Database::create_empty(shop.database.cluster(), "elsewhere").await?;
    elsewhere.sql("CREATE TABLE notes (n integer)").await?;
    elsewhere.sql("BEGIN; INSERT INTO notes VALUES (1); PREPARE TRANSACTION 'forgotten'").await?;
    elsewhere.sql("BEGIN; INSERT INTO notes VALUES (2)").await?;
    let mut worker = shop.worker()?.set("SMS_OUTBOX_POLL_INTERVAL", "60s").start().await?;
    for _ in 0..5 {
        let late = shop.database.connect_as("app").await?;
        late.batch_execute("BEGIN").await?;
        let first = shop.queue_by(&late, "shop", 2, "").await?;
        // Later ones go first; the others' transactions are older than all of them.
        let second = shop.queue("").await?;
        shop.wait_for_status(&second, "sent").await?;
        late.batch_execute("COMMIT").await?;
        fault.injected(1);
        for sms in &first {
            shop.wait_for_status(sms, "sent").await?;
        }
    }
    let check = "SELECT status || ': ' || detail FROM sms_outbox.health WHERE \"check\" = 'horizon'";
    // Ten minutes are more than a test has patience for: the same check with less of its own.
    shop.database
        .sql(
            "DO $$ BEGIN EXECUTE replace(pg_get_functiondef('sms_outbox.health_checks()'::regprocedure), 'interval ''10 minutes''', 'interval ''1 second'''); END $$",
        )
        .await?;
    shop.database
        .wait_until("health warns of both", &format!("SELECT ({check}) LIKE 'warn: a transaction is open%'"))
        .await?;
    elsewhere.sql("ROLLBACK").await?;
    let warned: String = shop.database.value(check, &[]).await?;
    ensure!(warned.starts_with("warn"), "the prepared transaction goes unseen: {warned}");
    elsewhere.sql("ROLLBACK PREPARED 'forgotten'").await?;
    let well: String = shop.database.value(check, &[]).await?;
    ensure!(well.starts_with("ok"), "{well}");
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    ensure!(shop.close_fault(fault).await?.accepted == 15);
    Ok(())
}
