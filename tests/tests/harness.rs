//! The harness itself: clusters of every major start, stop, crash and come back, and leave nothing behind.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, Result, ensure};
use sms_outbox_tests::cluster::{Options, processes_in};
use sms_outbox_tests::database::{LOGINS, connect};
use sms_outbox_tests::process::{Process, Signal, signal_process};
use sms_outbox_tests::{Cluster, Database, Major, Stop, on_majors, run, wait_until};

on_majors! { every: installs_the_extension, starts_and_leaves_nothing, survives_every_stop }
on_majors! { ends: feeds_a_standby, has_two_systems }

async fn installs_the_extension(major: Major) -> Result<()> {
    let cluster = Cluster::start_new(major).await?;
    let database = Database::create(&cluster, "shop").await?;
    for login in LOGINS {
        let client = connect(&database.url(login)).await.with_context(|| format!("as {login}, by TCP"))?;
        let role: String = client.query_one("SELECT current_user::text", &[]).await?.try_get(0)?;
        assert_eq!(role, login);
    }
    let alive = "SELECT status = 'ok' FROM sms_outbox.health WHERE \"check\" = 'background_worker'";
    database.wait_until("the background worker is alive", alive).await?;
    let evidence = database.evidence().await;
    assert!(evidence.contains("background_worker") && evidence.contains("log of PostgreSQL"), "{evidence}");
    // A second database of the server has the same logins.
    Database::create(&cluster, "another shop").await?;
    Ok(())
}

async fn starts_and_leaves_nothing(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).without_preload().start().await?;
    let database = Database::create_empty(&cluster, "shop").await?;
    let version: String = database.value("SHOW server_version_num", &[]).await?;
    assert_eq!(version[..2], major.to_string());
    assert_eq!(database.psql("SELECT 'seen'").await?, "seen\n");
    assert_eq!(database.rows("SELECT 1 AS one").await?, [serde_json::json!({ "one": 1 })]);

    let folder = cluster.data();
    ensure!(!processes_in(&folder).is_empty(), "its processes can be found");
    let memory = shared_memory(&folder)?;
    drop(database);
    drop(cluster);
    assert!(processes_in(&folder).is_empty());
    assert!(!folder.exists());
    assert!(!shared_memory_exists(&memory)?);
    Ok(())
}

async fn survives_every_stop(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).without_preload().durable().start().await?;
    let mut database = Database::create_empty(&cluster, "shop").await?;
    database.sql("CREATE TABLE kept (stop text)").await?;
    for (count, stop) in (1_i64..).zip([Stop::Fast, Stop::Immediate, Stop::Kill]) {
        database.sql(&format!("INSERT INTO kept VALUES ('{stop:?}')")).await?;
        cluster.restart(stop).await?;
        database.reconnect().await?;
        assert_eq!(database.value::<i64>("SELECT count(*) FROM kept", &[]).await?, count, "after {stop:?}");
    }
    // A killed server that is not started again leaves shared memory, unless somebody removes it.
    let memory = shared_memory(&cluster.data())?;
    cluster.stop(Stop::Kill).await?;
    drop(database);
    drop(cluster);
    assert!(!shared_memory_exists(&memory)?);
    Ok(())
}

async fn feeds_a_standby(major: Major) -> Result<()> {
    let primary = Cluster::options(major).without_preload().start().await?;
    let database = Database::create_empty(&primary, "shop").await?;
    let standby = primary.standby().await?;
    database.sql("CREATE TABLE sold AS SELECT 7 AS pieces").await?;
    let copy = Database::open(&standby, "shop").await?;
    copy.wait_until("the table is replayed", "SELECT to_regclass('sold') IS NOT NULL").await?;
    primary.stop(Stop::Immediate).await?;
    standby.promote().await?;
    copy.sql("UPDATE sold SET pieces = pieces + 1").await?;
    assert_eq!(copy.value::<i32>("SELECT pieces FROM sold", &[]).await?, 8);
    Ok(())
}

async fn has_two_systems(major: Major) -> Result<()> {
    let identifier = async |options: Options| -> Result<i64> {
        let cluster = options.without_preload().start().await?;
        let database = Database::open(&cluster, "postgres").await?;
        database.value("SELECT system_identifier FROM pg_control_system()", &[]).await
    };
    let one = identifier(Cluster::options(major)).await?;
    let other = identifier(Cluster::options(major).other_system()).await?;
    assert_ne!(one, other);
    Ok(())
}

/// Run by [`a_killed_run_leaves_nothing`] as a process of its own: starts what it can, says where, and waits to be killed.
#[tokio::test]
async fn holds_a_cluster_until_killed() -> Result<()> {
    let Some(note) = std::env::var_os("SMS_OUTBOX_HOLD") else { return Ok(()) };
    let cluster = Cluster::options(Major::V18).without_preload().start().await?;
    let mut sleep = Command::new("sleep");
    sleep.arg("600");
    let sleeper = Process::spawn("sleep", sleep, &run::fresh("sleep")?, Signal::KILL)?;
    signal_process(sleeper.id(), Signal::STOP)?;
    let told = PathBuf::from(&note).with_extension("partial");
    fs::write(&told, format!("{}\n{}\n", cluster.data().display(), sleeper.id()))?;
    fs::rename(told, note)?;
    std::future::pending().await
}

#[tokio::test]
async fn a_killed_run_leaves_nothing() -> Result<()> {
    let note = run::fresh("note")?;
    let mut held = Command::new(std::env::current_exe()?)
        .args(["--exact", "holds_a_cluster_until_killed"])
        .env("SMS_OUTBOX_HOLD", &note)
        .stdout(Stdio::null())
        .spawn()?;
    wait_until("the other process runs a cluster", async || Ok(note.exists())).await?;
    let text = fs::read_to_string(&note)?;
    let (data, sleeper) = text.trim_end().split_once('\n').context("two lines")?;
    let data = Path::new(data);
    let memory = shared_memory(data)?;
    ensure!(!processes_in(data).is_empty() && Path::new("/proc").join(sleeper).exists(), "it runs");

    held.kill()?;
    held.wait()?;
    let folder = data.ancestors().nth(2).context("the folder of the run")?;
    wait_until("the reaper has removed the folder", async || Ok(!folder.exists())).await?;
    assert!(processes_in(data).is_empty());
    assert!(!Path::new("/proc").join(sleeper).exists());
    assert!(!shared_memory_exists(&memory)?);
    Ok(())
}

/// The id of the System V shared memory of a running server: the second word of the seventh line of its lock file.
fn shared_memory(data: &Path) -> Result<String> {
    let lock = fs::read_to_string(data.join("postmaster.pid"))?;
    let id = lock.lines().nth(6).and_then(|line| line.split_whitespace().nth(1)).context("no id of shared memory")?;
    ensure!(shared_memory_exists(id)?, "a running server has shared memory");
    Ok(id.to_owned())
}

fn shared_memory_exists(id: &str) -> Result<bool> {
    let segments = fs::read_to_string("/proc/sysvipc/shm")?;
    Ok(segments.lines().any(|segment| segment.split_whitespace().nth(1) == Some(id)))
}
