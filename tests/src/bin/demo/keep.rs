//! What outlives the demo: with `KEEP=1` everything that runs, after a failure the logs.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result};
use sms_outbox_tests::{paths, run};

use crate::stage::Stage;
use crate::web;

/// Lets everything run on and says how to use it.
pub(crate) fn leave_running(mut stage: Stage<'_>) -> Result<()> {
    for worker in &mut stage.workers {
        worker.process().keep();
    }
    stage.api.process().keep();
    stage.taqnyat.process().keep();
    stage.others.process().keep();
    let cluster = stage.database.cluster();
    cluster.keep();
    run::keep()?;

    let psql =
        format!("{} '{}'", paths::server(cluster.major())?.join("bin/psql").display(), stage.database.url("app"));
    let operator = stage.database.url("operator");
    let command = format!("DATABASE_URL='{operator}' {}", paths::command()?.display());
    let terminal = stage.terminal;
    terminal.heading("It runs on. Paste these lines:");
    let block = |what: &str, lines: &[String]| {
        terminal.block(&format!("\n{what}"));
        terminal.block(&lines.join("\n"));
    };
    block("connect as the shop", std::slice::from_ref(&psql));
    block(
        "enqueue",
        &[
            format!(
                "{psql} -c \"SELECT * FROM sms_outbox_enqueue('050 123 4599', 'Hello', organization_id => 'riyadh')\""
            ),
            format!(
                "DATABASE_URL='{}' {} enqueue --organization riyadh --mobile '050 123 4598' --message Hello --wait 10s",
                stage.database.url("app"),
                paths::command()?.display()
            ),
        ],
    );
    block("the same over HTTP", &web::curl_lines(&stage));
    block(
        "look",
        &[
            format!("{psql} -c 'SELECT id, mobile, dispatch_status, provider_slug FROM sms_outbox.outbox ORDER BY id'"),
            format!("{command} status"),
            format!("tail {} {}", stage.taqnyat.journal_file().display(), stage.others.journal_file().display()),
        ],
    );
    let logs: Vec<String> = stage.database.logs().iter().map(|log| log.display().to_string()).collect();
    block(
        "logs of the workers and the server",
        &[format!("tail -f {} {}", logs.join(" "), cluster.log_file().display())],
    );
    block("stop it and remove all", &["make stop".to_owned()]);
    Ok(())
}

/// Copies the logs out of the folder that is removed with the demo. Returns a line that says where they are.
pub(crate) fn save_logs() -> String {
    // Where nothing could run, there is no log.
    let Ok(from) = run::folder() else { return String::new() };
    match copy_logs(from) {
        Ok(folder) => format!("\nall logs: {}", folder.display()),
        Err(error) => format!("\nthe logs could not be saved: {error:#}"),
    }
}

fn copy_logs(from: &Path) -> Result<PathBuf> {
    let run = paths::run()?;
    let folder = run.parent().context("no folder above")?.join("demo-failed");
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder)?;
    copy_files(from, &folder, "")?;
    Ok(folder)
}

/// Logs and journals lie in the folder of the run itself, a server's log one folder deeper.
fn copy_files(from: &Path, to: &Path, prefix: &str) -> Result<()> {
    for entry in fs::read_dir(from)? {
        let entry = entry?;
        let name = entry.file_name().to_string_lossy().into_owned();
        if name.starts_with('.') {
            continue; // the lock of a server's socket
        }
        if entry.file_type()?.is_file() {
            fs::copy(entry.path(), to.join(format!("{prefix}{name}")))?;
        } else if prefix.is_empty() && entry.file_type()?.is_dir() {
            copy_files(&entry.path(), to, &format!("{name}-"))?;
        }
    }
    Ok(())
}
