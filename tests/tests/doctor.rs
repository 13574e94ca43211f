//! What `sms-outbox doctor` says of a server's settings: what may be lost, what costs speed, and what to do about it.

use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::{Cluster, Database, Major, on_majors, paths};

on_majors! { ends:
    warns_of_settings_that_cost_speed, says_what_may_be_lost_without_waiting_for_the_disk, comes_by_the_unix_socket,
}

/// The finding of a check, as a login with no more rights than an operator gets it.
async fn finding(database: &Database, check: &str) -> Result<(String, String, String)> {
    finding_by(database.url("operator"), check).await
}

async fn finding_by(url: String, check: &str) -> Result<(String, String, String)> {
    let mut command = Command::new(paths::command()?);
    command.env("DATABASE_URL", url).args(["doctor", "--skip-providers", "--output", "json"]);
    let output = tokio::task::spawn_blocking(move || command.output()).await??;
    let findings: Vec<Value> =
        serde_json::from_slice(&output.stdout).with_context(|| String::from_utf8_lossy(&output.stderr).into_owned())?;
    let found = findings.iter().find(|finding| finding["check"] == check);
    let found = found.with_context(|| format!("no finding {check}: {findings:#?}"))?;
    let text = |field: &str| found[field].as_str().unwrap_or_default().to_owned();
    Ok((text("status"), text("detail"), text("cure")))
}

async fn warns_of_settings_that_cost_speed(major: Major) -> Result<()> {
    let cluster = Cluster::options(major)
        .set("shared_buffers", "16MB")
        .set("max_wal_size", "64MB")
        .set("max_connections", "30")
        .start()
        .await?;
    let database = Database::create(&cluster, "slow").await?;
    let (status, detail, cure) = finding(&database, "memory").await?;
    ensure!(
        status == "warn" && detail.starts_with("shared_buffers 16MB") && cure.contains("a quarter"),
        "{detail} {cure}"
    );
    let (status, detail, cure) = finding(&database, "checkpoints").await?;
    ensure!(status == "warn" && detail.starts_with("max_wal_size is 64MB"), "{status}: {detail}");
    ensure!(cure.contains("max_wal_size = '4GB'"), "{cure}");

    database.sql("ALTER SYSTEM SET max_wal_size = '2GB'").await?;
    database.sql("ALTER SYSTEM SET checkpoint_timeout = '30s'").await?;
    cluster.reload()?;
    database.wait_until("the settings hold", "SELECT current_setting('checkpoint_timeout') = '30s'").await?;
    let (status, detail, cure) = finding(&database, "checkpoints").await?;
    ensure!(status == "warn" && detail.starts_with("checkpoint_timeout is 30s"), "{status}: {detail}");
    ensure!(cure.contains("15min"), "{cure}");

    // What the server itself has counted outweighs any setting.
    for _ in 0..12 {
        database.sql("CHECKPOINT").await?;
    }
    let (status, detail, _) = finding(&database, "checkpoints").await?;
    ensure!(status == "warn" && detail.contains("came before their time"), "{status}: {detail}");

    let (status, detail, _) = finding(&database, "connections").await?;
    ensure!(status == "ok" && detail.contains("are free"), "{status}: {detail}");
    let mut taken = Vec::new();
    for _ in 0..21 {
        taken.push(database.connect().await?);
    }
    let (status, detail, cure) = finding(&database, "connections").await?;
    ensure!(status == "warn" && cure.contains("pooler"), "{status}: {detail}");
    Ok(())
}

async fn says_what_may_be_lost_without_waiting_for_the_disk(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).durable().start().await?;
    let database = Database::create(&cluster, "asynchronous").await?;
    let (status, detail, _) = finding(&database, "durability").await?;
    ensure!(status == "ok", "{status}: {detail}");

    database
        .sql("CREATE ROLE hasty LOGIN IN ROLE sms_outbox_app; ALTER ROLE hasty SET synchronous_commit = off")
        .await?;
    let (status, detail, cure) = finding(&database, "durability").await?;
    ensure!(status == "warn" && detail.starts_with("synchronous_commit is off for role hasty:"), "{status}: {detail}");
    ensure!(detail.contains("may lose what was committed in the 600ms before"), "{detail}");
    ensure!(detail.contains("nothing is sent twice") && cure.contains("synchronous_commit = on"), "{detail} {cure}");

    database.sql("ALTER ROLE hasty RESET synchronous_commit").await?;
    database.sql("ALTER SYSTEM SET full_page_writes = off").await?;
    cluster.reload()?;
    database.wait_until("it is off", "SELECT current_setting('full_page_writes') = 'off'").await?;
    let (status, detail, _) = finding(&database, "durability").await?;
    ensure!(status == "critical" && detail.starts_with("off: full_page_writes"), "{status}: {detail}");
    Ok(())
}

/// Never encrypted, whatever `sslmode` says, as by libpq.
async fn comes_by_the_unix_socket(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).start().await?;
    let _database = Database::create(&cluster, "socket").await?;
    let url = cluster.socket_url("socket", "operator");
    for mode in ["", " sslmode=prefer", " sslmode=require", " sslmode=disable"] {
        let (status, detail, _) = finding_by(format!("{url}{mode}"), "connections").await?;
        ensure!(status == "ok", "{mode}: {detail}");
    }
    Ok(())
}
