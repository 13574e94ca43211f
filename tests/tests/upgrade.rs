//! From each version to the next: the install script is the ordered files and nothing else, and an update goes through under load.

use std::fs;
use std::process::Command;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use anyhow::{Context, Result};
use futures_util::future::try_join_all;
use sms_outbox_tests::process::output;
use sms_outbox_tests::queue::{claim, enqueue, finish, refused};
use sms_outbox_tests::{Cluster, Database, Fault, Major, Queue, on_majors, paths};
use tokio_postgres::Error;
use tokio_postgres::error::SqlState;

on_majors! { every: installs_exactly_the_ordered_files }
on_majors! { ends: updates_under_load, keeps_the_old_version_when_an_update_fails }

/// What a next version does to a hot table, to a function on the hot path, and to a view.
const UPGRADE: &str = "\\echo Use \"ALTER EXTENSION sms_outbox UPDATE\" to load this file. \\quit
SET LOCAL lock_timeout = '500ms';
ALTER TABLE sms_outbox.ready ADD COLUMN note text DEFAULT 'none';
ALTER TABLE sms_outbox.organization ADD COLUMN note text;
CREATE OR REPLACE FUNCTION sms_outbox.backoff(tries integer, random double precision) RETURNS interval
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp AS $$ SELECT interval '42 seconds' $$;
CREATE TABLE sms_outbox.fresh (id sms_outbox.message_id PRIMARY KEY);
ALTER TABLE sms_outbox.fresh OWNER TO sms_outbox_owner;
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.fresh', '');
";

fn version() -> Result<String> {
    let control = fs::read_to_string(paths::checkout("extension/sms_outbox.control"))?;
    let line = control.lines().find_map(|line| line.strip_prefix("default_version = ")).context("a default_version")?;
    Ok(line.trim_matches('\'').to_owned())
}

async fn installs_exactly_the_ordered_files(major: Major) -> Result<()> {
    let mut files: Vec<_> =
        fs::read_dir(paths::checkout("sql/schema"))?.map(|entry| Ok(entry?.path())).collect::<Result<_>>()?;
    files.sort();
    let mut expected = String::new();
    for file in &files {
        let name = file.file_name().and_then(|name| name.to_str()).context("a name")?;
        assert!(
            name.len() > 7
                && name.as_bytes()[..2].iter().all(u8::is_ascii_digit)
                && &name[2..3] == "_"
                && name.ends_with(".sql"),
            "{name}"
        );
        expected.push_str(&fs::read_to_string(file)?);
        expected.push('\n');
    }
    let mut config = Command::new(paths::server(major)?.join("bin/pg_config"));
    config.arg("--sharedir").env("LD_LIBRARY_PATH", paths::server(major)?.join("lib"));
    let share = output(config).await?;
    let script = format!("{}/extension/sms_outbox--{}.sql", share.trim_end(), version()?);
    let installed = fs::read_to_string(&script).with_context(|| script)?;
    assert!(installed == expected, "the installed script is not sql/schema in order: run 'make test-build'");
    Ok(())
}

async fn updates_under_load(major: Major) -> Result<()> {
    let next = format!("{}next", version()?);
    let cluster = Cluster::options(major)
        .script(&format!("sms_outbox--{}--{next}.sql", version()?), UPGRADE)
        .set("sms_outbox.maintenance_interval", "100ms")
        .start()
        .await?;
    let queue = Queue::on(Database::create(&cluster, "shop").await?).await?;
    let stop = Arc::new(AtomicBool::new(false));
    let mut load = Vec::new();
    for client in 0..4 {
        let (session, stop, app) = (queue.connect().await?, Arc::clone(&stop), queue.app());
        load.push(async move {
            let mut ids = Vec::new();
            while !stop.load(Ordering::Relaxed) {
                let id = enqueue(&session, "shop", &format!("client {client}")).await?;
                // Half of them do what a worker does as well.
                if client % 2 == 0
                    && let Some(attempt) = claim(&session, "w", &[&id], app).await?.remove(0).attempt
                {
                    finish(&session, "w", &id, attempt, "accepted").await?;
                }
                ids.push(id);
            }
            Ok::<_, Error>(ids)
        });
    }
    let update = async {
        queue.wait_until("messages come", "SELECT count(*) > 200 FROM sms_outbox.message").await?;
        // It gives up rather than make others wait in a circle: see sql/upgrade/README.md.
        let update = format!("ALTER EXTENSION sms_outbox UPDATE TO '{next}'");
        let done = async || match queue.admin().batch_execute(&update).await {
            Ok(()) => Ok(Some(())),
            Err(error) if error.code() == Some(&SqlState::LOCK_NOT_AVAILABLE) => Ok(None),
            Err(error) => Err(error.into()),
        };
        queue.wait_for("the update has found its moment", done).await?;
        let at_update = queue.count("sms_outbox.message").await?;
        queue
            .wait_until(
                "messages go on coming",
                &format!("SELECT count(*) > {at_update} + 200 FROM sms_outbox.message"),
            )
            .await?;
        stop.store(true, Ordering::Relaxed);
        anyhow::Ok(())
    };
    let load = async { try_join_all(load).await.context("an application's or a worker's call failed") };
    let (ids, ()) = tokio::try_join!(load, update)?;
    let ids: Vec<String> = ids.into_iter().flatten().collect();

    assert_eq!(queue.count("sms_outbox.message").await?, i64::try_from(ids.len())?, "nothing is lost");
    assert_eq!(
        queue.count("sms_outbox.ready").await?
            + queue.value::<i64>("SELECT sent FROM sms_outbox.queue_stats", &[]).await?,
        i64::try_from(ids.len())?
    );
    assert_eq!(queue.count("sms_outbox.ready WHERE note IS DISTINCT FROM 'none'").await?, 0);
    assert_eq!(queue.value::<String>("SELECT sms_outbox.backoff(1, 0)::text", &[]).await?, "00:00:42");
    assert_eq!(
        queue.value::<String>("SELECT extversion FROM pg_extension WHERE extname = 'sms_outbox'", &[]).await?,
        next
    );
    assert!(!cluster.log().contains("deadlock detected"), "{}", cluster.log_tail());
    let maintained =
        "SELECT ran_at > now() - interval '2 minutes' FROM sms_outbox.maintenance WHERE task = 'partitions'";
    queue.wait_until("maintenance goes on", maintained).await?;
    queue.assert_placed().await?;
    let mut fault = Fault::new("18", "ALTER EXTENSION UPDATE that adds columns, under calls of SQL", major);
    fault.injected(1);
    fault.asserted(ids.len())
}

async fn keeps_the_old_version_when_an_update_fails(major: Major) -> Result<()> {
    let next = format!("{}next", version()?);
    let broken = format!("{UPGRADE}\nSELECT 1 / 0;\n");
    let cluster = Cluster::options(major)
        .without_preload()
        .script(&format!("sms_outbox--{}--{next}.sql", version()?), &broken)
        .start()
        .await?;
    let queue = Queue::on(Database::create(&cluster, "shop").await?).await?;
    let id = queue.enqueue("before").await?;
    let update = format!("ALTER EXTENSION sms_outbox UPDATE TO '{next}'");
    assert_eq!(refused(queue.admin(), &update).await?.code().code(), "22012");
    assert_eq!(
        queue.value::<String>("SELECT extversion FROM pg_extension WHERE extname = 'sms_outbox'", &[]).await?,
        version()?
    );
    assert_eq!(queue.attempt(&id, "accepted").await?, "sent", "and all goes on as before");
    // An update that has to wait gives up when told to, and can be tried again.
    let holder = queue.connect().await?;
    holder.batch_execute("BEGIN").await?;
    enqueue(&holder, "shop", "open").await?;
    let fault = refused(queue.admin(), &update).await?;
    assert_eq!(fault.code().code(), "55P03");
    let quick = tokio::time::timeout(Duration::from_secs(20), queue.enqueue("meanwhile")).await??;
    assert_eq!(queue.status(&quick).await?, "pending");
    Ok(())
}
