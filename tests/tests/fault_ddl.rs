//! What administrators do while messages go: databases and the extension are dropped, made again, upgraded, dumped and restored.

mod shop;

use std::fs;
use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::process::output_of_input;
use sms_outbox_tests::{Cluster, Database, Fault, Major, Sandbox, Worker, database, on_majors, paths};
use tokio_postgres::error::SqlState;

on_majors! { faults:
    databases_go_while_others_send, an_extension_that_was_rolled_back_never_was, an_update_under_load_loses_nothing,
    a_dump_of_a_busy_database_sends_nothing,
}

const MAINTAINERS: &str = "SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'sms_outbox maintainer'";

async fn databases_go_while_others_send(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install("sandbox", "").await?;
    let mut worker = shop.worker()?.start().await?;
    let cluster = Arc::clone(shop.database.cluster());
    let maintenance = database::connect(&cluster.socket_url("postgres", "postgres")).await?;
    let mut fault = Fault::new("18", "DROP DATABASE, of another one and of this", major);
    for forced in [false, true, false] {
        let other = Database::create(&cluster, "other").await?;
        let sandbox = Sandbox::start().await?;
        sandbox.install_app(&other, "shop", "other").await?;
        let mut its_worker = Worker::start(&other).await?;
        other.sql("SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')").await?;
        other.wait_until("it is sent", "SELECT EXISTS (SELECT FROM sms_outbox.attempt)").await?;
        other.wait_until("both have a maintainer", &format!("SELECT ({MAINTAINERS}) = 2")).await?;
        let load = shop.queue_many("shop", 200, "").await?;
        if forced {
            maintenance.batch_execute("DROP DATABASE other WITH (FORCE)").await?;
            // The worker does not give up: the database may come back. Its log says what is wrong.
            let explains = async || Ok(its_worker.log().contains("database \"other\" does not exist").then_some(()));
            shop.database.wait_for("the worker explains itself", explains).await?;
            ensure!(its_worker.process().is_running(), "the worker has left");
        }
        ensure!(its_worker.drain().await?.success(), "{}", its_worker.log());
        if !forced {
            drop(other);
            // Only ours is left there, and it leaves when asked.
            maintenance.batch_execute("DROP DATABASE other").await?;
        }
        fault.injected(1);
        shop.wait_for_status(&load[199], "sent").await?;
    }
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    ensure!(!cluster.log().contains("deadlock detected"), "{}", cluster.log_tail());
    // This one too, with its own maintainer at work.
    ensure!(shop.close_fault(fault).await?.accepted == 600);
    Ok(())
}

/// DROP and CREATE in a transaction that rolls back, under load: as if nothing had been.
async fn an_extension_that_was_rolled_back_never_was(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install_account("north", "max_in_flight => 50").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 50})).await?;
    let mut worker = shop.worker()?.start().await?;
    let mut fault = Fault::new("18", "DROP and CREATE EXTENSION, rolled back under load", major);
    for round in 1..=3 {
        shop.queue_many("shop", 200, "").await?;
        let some = format!("SELECT count(*) > {round} * 200 - 150 FROM sms_outbox.attempt");
        shop.database.wait_until("the worker is at work", &some).await?;
        // It gives up rather than make others wait in a circle.
        let undone = "BEGIN; SET LOCAL lock_timeout = '500ms'; DROP EXTENSION sms_outbox CASCADE; CREATE EXTENSION sms_outbox; ROLLBACK";
        let done = async || match shop.database.admin().batch_execute(undone).await {
            Ok(()) => Ok(Some(())),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => {
                shop.database.sql("ROLLBACK").await?;
                Ok(None)
            }
            Err(error) => Err(error.into()),
        };
        shop.database.wait_for("the extension was dropped and made", done).await?;
        fault.injected(1);
    }
    shop.wait_until_settled().await?;
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    let log = shop.database.cluster().log();
    ensure!(!log.contains("deadlock detected"), "{}", shop.database.cluster().log_tail());
    shop.expect_a_request_for_each_attempt().await?;
    let counts = shop.close_fault(fault).await?;
    ensure!(counts.by_status == [("sent".to_owned(), 600)].into(), "{counts}");
    Ok(())
}

/// What a next version does to a hot table and to functions on the hot path.
const UPGRADE: &str = "SET LOCAL lock_timeout = '500ms';
ALTER TABLE sms_outbox.ready ADD COLUMN note text DEFAULT 'none';
ALTER TABLE sms_outbox.lease ADD COLUMN note text;
CREATE OR REPLACE FUNCTION sms_outbox.backoff(tries integer, random double precision) RETURNS interval
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$ SELECT interval '1 second' $$;
";

async fn an_update_under_load_loses_nothing(major: Major) -> Result<()> {
    let control = fs::read_to_string(paths::checkout("extension/sms_outbox.control"))?;
    let version =
        control.lines().find_map(|line| line.strip_prefix("default_version = ")).context("a default_version")?;
    let version = version.trim_matches('\'');
    let cluster =
        Cluster::options(major).script(&format!("sms_outbox--{version}--{version}next.sql"), UPGRADE).start().await?;
    let mut shop = Shop::open_on(&cluster, "shop").await?;
    shop.install_account("north", "max_in_flight => 50").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 50})).await?;
    let mut workers = vec![shop.worker()?.start().await?, shop.worker()?.start().await?];
    shop.queue_many("shop", 1000, "").await?;
    shop.database.wait_until("the workers are at work", "SELECT count(*) > 200 FROM sms_outbox.attempt").await?;
    let update = format!("ALTER EXTENSION sms_outbox UPDATE TO '{version}next'");
    let done = async || match shop.database.admin().batch_execute(&update).await {
        Ok(()) => Ok(Some(())),
        Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
        Err(error) => Err(error.into()),
    };
    shop.database.wait_for("the update has found its moment", done).await?;
    let mut fault = Fault::new("18", "ALTER EXTENSION UPDATE under load", major);
    fault.injected(1);
    let left: i64 = shop.database.value("SELECT count(*) FROM sms_outbox.ready", &[]).await?;
    ensure!(left > 0, "nothing was left to send at the update");
    shop.queue_many("shop", 200, "").await?;
    shop.wait_until_settled().await?;
    for worker in &mut workers {
        ensure!(worker.drain().await?.success(), "{}", worker.log());
    }
    ensure!(!cluster.log().contains("deadlock detected"), "{}", cluster.log_tail());
    shop.expect_a_request_for_each_attempt().await?;
    let counts = shop.close_fault(fault).await?;
    ensure!(counts.by_status == [("sent".to_owned(), 1200)].into(), "{counts}");
    Ok(())
}

/// The copy has rows in every state, and a worker: it sends what is queued there, and what it is told to release.
async fn a_dump_of_a_busy_database_sends_nothing(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install_account("north", "max_in_flight => 20").await?;
    shop.rule(json!({"behaviour": "delay", "delay_ms": 200})).await?;
    let mut worker = shop.worker()?.start().await?;
    let scheduled = shop.queue_many("shop", 10, "datetime => now() + interval '1 hour'").await?;
    shop.queue_many("shop", 400, "").await?;
    shop.database.wait_until("the worker is at work", "SELECT count(*) > 100 FROM sms_outbox.attempt").await?;
    let dump = shop.database.dump(&[]).await?;

    let elsewhere = Cluster::options(major).other_system().start().await?;
    let copy = Database::create_empty(&elsewhere, "copy").await?;
    let mut psql = elsewhere.tool("psql")?;
    psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-o", "/dev/null", "-f", "-", "-d"])
        .arg(elsewhere.socket_url("copy", "postgres"));
    // Its app would send to the same provider: one of its own tells them apart.
    let provider = Sandbox::start().await?;
    output_of_input(psql, &dump.replace(shop.sandbox.url(), provider.url())).await?;
    copy.create_logins().await?;
    for table in ["ready", "scheduled", "lease", "attempt"] {
        let rows: i64 = copy.value(&format!("SELECT count(*) FROM sms_outbox.{table}"), &[]).await?;
        ensure!(rows > 0, "the copy has no row of {table}");
    }
    let mut fault = Fault::new("19", "a dump of a busy database, restored beside it", major);
    fault.injected(1);
    let mut on_copy = Worker::start(&copy).await?;
    let own = "SELECT id FROM sms_outbox_enqueue('+966509999999', 'of the copy', organization_id => 'shop')";
    let own: String = copy.value(own, &[]).await?;
    copy.wait_until(
        "the copy sends its own",
        &format!("SELECT dispatch_status = 'sent' FROM sms_outbox.outbox WHERE id = '{own}'"),
    )
    .await?;
    let due = "UPDATE sms_outbox.scheduled SET due_at = now()";
    shop.database.sql(due).await?;
    shop.wait_until_settled().await?;
    shop.wait_for_status(&scheduled[9], "sent").await?;
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    shop.expect_a_request_for_each_attempt().await?;
    let counts = shop.close_fault(fault).await?;
    ensure!(counts.by_status == [("sent".to_owned(), 410)].into(), "{counts}");
    copy.sql(due).await?;
    copy.wait_until("its schedule is staged", "SELECT NOT EXISTS (SELECT FROM sms_outbox.scheduled)").await?;

    let held: i64 = copy.value("SELECT held FROM sms_outbox.queue_stats", &[]).await?;
    ensure!(provider.journal()?.len() == 1 && held > 0, "the copy sent what is not its own");
    // The original is no more.
    let released: i64 = copy.value("SELECT sms_outbox.release_held()", &[]).await?;
    copy.wait_until(
        "all that waited is sent",
        "SELECT NOT EXISTS (SELECT FROM sms_outbox.ready) AND NOT EXISTS (SELECT FROM sms_outbox.scheduled)",
    )
    .await?;
    ensure!(on_copy.drain().await?.success(), "{}", on_copy.log());
    let mut sent: Vec<String> = provider.journal()?.into_iter().map(|one| one.body).collect();
    let number = sent.len();
    sent.sort();
    sent.dedup();
    ensure!(sent.len() == number && i64::try_from(number)? == released + 1, "{number} sent, {released} released");
    let misplaced = copy.rows("SELECT * FROM sms_outbox.misplaced").await?;
    ensure!(misplaced.is_empty(), "{misplaced:?}");
    Ok(())
}
