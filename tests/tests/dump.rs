//! pg_dump and pg_restore with rows in every state; the extension dropped, made again, in another schema, in many databases.

use std::path::PathBuf;
use std::sync::Arc;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use sms_outbox_tests::process::{output, output_of_input};
use sms_outbox_tests::queue::{claim, enqueue, finish, refused};
use sms_outbox_tests::{Cluster, Database, Fault, Major, Queue, on_majors};

on_majors! { ends:
    comes_back_from_a_plain_dump, comes_back_from_a_custom_dump_twice, goes_without_cascade, goes_while_in_use,
    lives_in_another_schema, is_made_in_many_databases_at_once,
}

/// The tables whose rows a dump must carry.
const TABLES: [&str; 19] = [
    "message",
    "attempt",
    "idempotency",
    "ready",
    "scheduled",
    "lease",
    "ended",
    "evidence",
    "receipt",
    "look_up",
    "tally",
    "app_tally",
    "organization",
    "organization_app",
    "app_health",
    "suppression",
    "usage",
    "usage_day",
    "refusal",
];

const LOOK: &str = "SELECT coalesce(array_agg(l.id::text) FILTER (WHERE l.id IS NOT NULL), '{}') FROM sms_outbox.look(
    ARRAY[0, 1, 2]::smallint[], ARRAY['0', '0', '0']::xid8[], array_fill(sms_outbox.id_floor('epoch'), ARRAY[3]), ARRAY[NULL, NULL, NULL]::xid8[], 100) AS l";

/// A database with messages in every state that there is.
async fn in_every_state(major: Major) -> Result<Queue> {
    let queue = Queue::new(major).await?;
    for outcome in ["accepted", "refused_recipient", "refused_content", "not_sent", "unclear", "throttled"] {
        queue.sql("DELETE FROM sms_outbox.app_health").await?;
        queue.ended(outcome, outcome).await?;
    }
    // What waits for its next try goes on waiting, however slow this machine is.
    queue
        .sql("UPDATE sms_outbox.app_health SET blocked_until = now(); UPDATE sms_outbox.scheduled SET due_at = now() + interval '1 hour'")
        .await?;
    let told = queue.ended("told", "unclear").await?;
    queue
        .sql(&format!("SELECT sms_outbox.resolve('{told}', 1, 'not_sent', 'operator', detail => E'odd\\t\\\\')"))
        .await?;
    queue.sql(&format!("SELECT sms_outbox.record_receipt('{told}', 1, 'delivered', 'DELIVRD')")).await?;
    let leased = queue.enqueue("leased").await?;
    queue.lease(&leased).await?;
    queue
        .sql(
            "SELECT sms_outbox_enqueue('0501234567', 'later', datetime => now() + interval '1 day', organization_id => 'shop');
             SELECT sms_outbox_enqueue('0501234567', E'odd \\\\ \\t text\\n😀', sender => 'MyShop', preferred_provider_slug => 'sandbox', idempotency_key => E'k\\\\\\'\"',
                                       meta => '{\"n\": 1.50}', organization_id => 'shop', priority => 2, valid_until => now() + interval '1 day');
             SELECT sms_outbox_enqueue('0501234567', 'differs', idempotency_key => E'k\\\\\\'\"', organization_id => 'shop');
             SELECT sms_outbox.cancel((sms_outbox_enqueue('0501234567', 'canceled', organization_id => 'shop')).id);
             SELECT sms_outbox.set_organization('shop', 'AE', 'Asia/Dubai', messages_per_day => 1000, allowed_destinations => '{AE}', allowed_senders => '{My Shop}');
             SELECT sms_outbox.suppress('shop', '+966509999999', 'asked us to stop');
             SELECT sms_outbox.pause_organization('shop', 'for the test');
             SELECT sms_outbox.uninstall_app(sms_outbox.install_app('shop', 'sandbox', 'gone', '{\"token\": \"t\"}'))",
        )
        .await?;
    queue.enqueue("waiting").await?;
    let expired = queue.enqueue("expired").await?;
    queue.sql(&format!("UPDATE sms_outbox.ready SET valid_until = now() WHERE id = '{expired}'")).await?;
    queue.maintain().await?;
    for (table, least) in [
        ("ready", 3),
        ("scheduled", 2),
        ("lease", 1),
        ("ended", 5),
        ("attempt", 6),
        ("idempotency", 1),
        ("evidence", 2),
        ("receipt", 1),
        ("look_up", 1),
        ("suppression", 1),
        ("usage", 1),
    ] {
        assert!(queue.count(&format!("sms_outbox.{table}")).await? >= least, "{table}");
    }
    Ok(queue)
}

async fn rows(database: &Database) -> Result<Vec<(&'static str, Vec<String>)>> {
    let mut all = Vec::new();
    for table in TABLES {
        let rows =
            database.admin().query(&format!("SELECT t::text FROM sms_outbox.{table} AS t ORDER BY 1"), &[]).await?;
        all.push((table, rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?));
    }
    Ok(all)
}

/// A fresh server, with an empty database of this name.
async fn elsewhere(major: Major, name: &str) -> Result<(Arc<Cluster>, Database)> {
    let cluster = Cluster::options(major).without_preload().other_system().start().await?;
    let database = Database::create_empty(&cluster, name).await?;
    Ok((cluster, database))
}

async fn comes_back_from_a_plain_dump(major: Major) -> Result<()> {
    let queue = in_every_state(major).await?;
    let dump = queue.dump(&[]).await?;
    let (cluster, copy) = elsewhere(major, "copy").await?;
    let mut psql = cluster.tool("psql")?;
    psql.args(["-Xq", "--single-transaction", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", "-", "-d"])
        .arg(cluster.socket_url("copy", "postgres"));
    output_of_input(psql, &dump).await?;
    assert_eq!(rows(&copy).await?, rows(&queue).await?);
    goes_on(&queue, copy).await
}

async fn comes_back_from_a_custom_dump_twice(major: Major) -> Result<()> {
    let queue = in_every_state(major).await?;
    let (cluster, copy) = elsewhere(major, "copy").await?;
    restore(&cluster, "copy", &dump_file(queue.cluster(), queue.name()).await?).await?;
    assert_eq!(rows(&copy).await?, rows(&queue).await?);
    // A copy of the copy, beside it on the same server.
    let second = Database::create_empty(&cluster, "second").await?;
    restore(&cluster, "second", &dump_file(&cluster, "copy").await?).await?;
    assert_eq!(rows(&second).await?, rows(&queue).await?);
    goes_on(&queue, copy).await?;
    goes_on(&queue, second).await?;
    let mut fault = Fault::new("19", "dumped and restored with rows in every state, twice", major);
    fault.injected(2);
    fault.asserted(usize::try_from(queue.count("sms_outbox.message").await?)?)
}

async fn dump_file(cluster: &Arc<Cluster>, database: &str) -> Result<PathBuf> {
    let file = cluster.data().with_file_name(format!("{database}.dump"));
    let mut dump = cluster.tool("pg_dump")?;
    dump.arg("-Fc").arg("-f").arg(&file).arg("-d").arg(cluster.socket_url(database, "postgres"));
    output(dump).await?;
    Ok(file)
}

async fn restore(cluster: &Arc<Cluster>, database: &str, file: &PathBuf) -> Result<()> {
    let mut restore = cluster.tool("pg_restore")?;
    restore
        .args(["--single-transaction", "--exit-on-error", "-d"])
        .arg(cluster.socket_url(database, "postgres"))
        .arg(file);
    output(restore).await.map(drop)
}

/// The copy sends nothing by itself, takes new messages, and goes on when it is told to.
async fn goes_on(original: &Queue, copy: Database) -> Result<()> {
    copy.sql("SELECT sms_outbox.resume_organization('shop')").await?;
    assert_eq!(copy.value::<Vec<String>>(LOOK, &[]).await?, Vec::<String>::new(), "nothing is served");
    let held: i64 = copy.value("SELECT held FROM sms_outbox.queue_stats", &[]).await?;
    let waiting = original.count("sms_outbox.ready").await? + original.count("sms_outbox.scheduled").await?;
    assert_eq!(held, waiting);
    assert!(
        copy.value::<String>("SELECT status FROM sms_outbox.health WHERE \"check\" = 'held'", &[]).await? == "warn"
    );
    let new = enqueue(copy.admin(), "shop", "queued on the copy").await?;
    assert_eq!(copy.value::<Vec<String>>(LOOK, &[]).await?, [new], "but what is queued here");

    assert_eq!(copy.value::<i64>("SELECT sms_outbox.release_held()", &[]).await?, waiting);
    let served = copy.value::<Vec<String>>(LOOK, &[]).await?;
    assert_eq!(i64::try_from(served.len())?, original.count("sms_outbox.ready").await? + 1);
    let app: i64 = copy.value("SELECT app_id FROM sms_outbox.apps_installed", &[]).await?;
    let wanted: Vec<&str> = served.iter().map(String::as_str).collect();
    copy.sql("DELETE FROM sms_outbox.app_health").await?;
    for claimed in claim(copy.admin(), "w", &wanted, app).await? {
        assert_eq!(claimed.result, "leased", "{claimed:?}");
        let attempt = claimed.attempt.context("its number")?;
        assert_eq!(
            finish(copy.admin(), "w", &claimed.id, attempt, "accepted").await?.dispatch_status.as_deref(),
            Some("sent")
        );
    }
    let second: i64 =
        copy.value("SELECT sms_outbox.install_app('shop', 'sandbox', 'second', '{\"token\": \"t\"}')", &[]).await?;
    assert!(second > app + 1, "ids of apps go on where they were");
    copy.sql("UPDATE sms_outbox.maintenance SET ran_at = '-infinity'; SELECT sms_outbox.run_maintenance()").await?;
    let misplaced = copy.rows("SELECT * FROM sms_outbox.misplaced").await?;
    assert!(misplaced.is_empty(), "{misplaced:?}");
    Ok(())
}

async fn goes_without_cascade(major: Major) -> Result<()> {
    let queue = in_every_state(major).await?;
    let session = queue.connect().await?;
    enqueue(&session, "shop", "this session keeps plans").await?;
    queue.sql("DROP EXTENSION sms_outbox").await?;
    let left = "SELECT count(*) FROM pg_class WHERE relname ~ '^(message|attempt)(_p|$)' OR relnamespace = to_regnamespace('sms_outbox')";
    assert_eq!(queue.value::<i64>(left, &[]).await?, 0, "the days made at run time go too");
    let fault = refused(&session, "SELECT sms_outbox_enqueue('0501234567', 'x')").await?;
    assert_eq!(fault.code().code(), "42883");
    assert!(
        fault.message().starts_with("function sms_outbox_enqueue(unknown, unknown) does not exist"),
        "{}",
        fault.message()
    );

    queue.sql("CREATE EXTENSION sms_outbox").await?;
    queue.install("shop", "anew").await?;
    let id = enqueue(&session, "shop", "the same session after all").await?;
    assert_eq!(queue.field(&id, "waits_for").await?.as_deref(), Some("worker"));
    Ok(())
}

async fn goes_while_in_use(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).set("sms_outbox.maintenance_interval", "100ms").start().await?;
    let queue = Queue::on(Database::create(&cluster, "shop").await?).await?;
    let maintainer = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE backend_type = 'sms_outbox maintainer')";
    queue.wait_until("the maintainer is at work", maintainer).await?;
    let session = queue.connect_as("app").await?;
    let load = tokio::spawn(async move { while enqueue(&session, "shop", "x").await.is_ok() {} });
    queue.wait_until("messages come", "SELECT count(*) > 100 FROM sms_outbox.ready").await?;
    queue.sql("DROP EXTENSION sms_outbox").await?;
    load.await?;
    queue.wait_until("the maintainer has left", &format!("SELECT NOT ({maintainer})")).await?;
    assert!(!cluster.log().contains("deadlock detected"), "{}", cluster.log_tail());
    queue.sql("BEGIN; CREATE EXTENSION sms_outbox; ROLLBACK; CREATE EXTENSION sms_outbox").await?;
    queue.wait_until("it comes back", maintainer).await?;
    let mut fault = Fault::new("18", "DROP EXTENSION while busy; CREATE EXTENSION rolled back", major);
    fault.injected(2);
    fault.asserted(100)
}

async fn lives_in_another_schema(major: Major) -> Result<()> {
    let cluster = sms_outbox_tests::queue::shared_cluster(major).await?;
    let database = Database::create_empty(&cluster, &format!("schema_{}", sms_outbox_tests::run::number()?)).await?;
    // Hostile objects of the same names, made beforehand.
    database
        .sql(
            "CREATE TABLE public.message (id text); CREATE FUNCTION public.now() RETURNS timestamptz LANGUAGE sql AS 'SELECT NULL::timestamptz';
             CREATE SCHEMA \"Tools & co\"; CREATE EXTENSION sms_outbox SCHEMA \"Tools & co\"",
        )
        .await?;
    let queue = Queue::on(database).await?;
    assert_eq!(
        refused(queue.admin(), "SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')")
            .await?
            .code()
            .code(),
        "42883"
    );
    let id: String = queue
        .value("SELECT id FROM \"Tools & co\".sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')", &[])
        .await?;
    queue.maintain_all().await?;
    assert_eq!(queue.attempt(&id, "accepted").await?, "sent");
    assert_eq!(refused(queue.admin(), "ALTER EXTENSION sms_outbox SET SCHEMA public").await?.code().code(), "0A000");
    Ok(())
}

async fn is_made_in_many_databases_at_once(major: Major) -> Result<()> {
    // A server that has none of the roles yet.
    let cluster = Cluster::options(major).without_preload().start().await?;
    let mut databases = Vec::new();
    for name in ["one", "two", "three", "four"] {
        databases.push(Database::create_empty(&cluster, name).await?);
    }
    try_join_all(databases.iter().map(|database| database.sql("CREATE EXTENSION sms_outbox"))).await?;
    let mut ids = Vec::new();
    for database in databases {
        let queue = Queue::on(database).await?;
        ids.push(queue.value::<i32>("SELECT sms_outbox.server_id()", &[]).await?);
        queue.ended("x", "accepted").await?;
        assert_eq!(queue.count("sms_outbox.message").await?, 1, "each has its own");
    }
    ids.sort_unstable();
    ids.dedup();
    assert_eq!(ids.len(), 4, "a row copied from another database of the server is held too");
    Ok(())
}
