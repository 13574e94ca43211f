//! What is run where: for the head of the results. And what must be so before a run changes anything.

use std::fs;
use std::net::TcpListener;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, Result, ensure};
use sms_outbox_tests::{Database, paths, process};

use crate::parts::Amounts;
use crate::peer::{Given, Peer};
use crate::record::Run;
use crate::server::SETTINGS;

/// Bytes of a waiting message, with room for WAL and what is dead.
const MESSAGE: u64 = 1500;

/// Room for a new server and its WAL.
const SERVER: u64 = 6 << 30;

/// Refuses what could not be run to its end, before anything is changed. Servers are made in `run`.
pub(crate) fn check(amounts: &Amounts, listen: &str, results: &Path, run: &Path) -> Result<()> {
    let free = rustix::fs::statvfs(run).with_context(|| format!("cannot ask how much room {} has", run.display()))?;
    let free = free.f_bavail * free.f_frsize;
    let need = SERVER + MESSAGE * u64::from(amounts.backlog.max(amounts.messages));
    ensure!(
        free >= need,
        "{} has {} MB free and this run needs {} MB: make room there, or take a smaller --backlog",
        run.display(),
        free >> 20,
        need >> 20
    );
    TcpListener::bind(listen).with_context(|| {
        format!("--listen: cannot listen on {listen}: leave it out for a free port, or end what listens there")
    })?;
    let folder = results.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    ensure!(folder.is_dir(), "--results: there is no folder {}: make it, or name another file", folder.display());
    Ok(())
}

/// The head of the results.
pub(crate) async fn describe(
    database: &Database,
    command: String,
    amounts: &Amounts,
    peers: &[Peer],
) -> Result<(Run, Vec<(Peer, String)>)> {
    let postgres: String = database.value("SELECT split_part(version(), ' on ', 1)", &[]).await?;
    let began: String =
        database.value("SELECT to_char(now() AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI \"UTC\"')", &[]).await?;
    let mut versions = vec![("sms-outbox".to_owned(), own_version().await?)];
    let mut cannot = Vec::new();
    for peer in peers {
        match peer.versions().await {
            Ok(Given::Figure(is)) => versions.push((peer.name.clone(), format!("{}; {}", is.version, is.settings))),
            Ok(Given::Cannot(reason)) => cannot.push((peer.clone(), reason)),
            Err(error) => cannot.push((peer.clone(), format!("it failed: {error:#}"))),
        }
    }
    let mut settings: Vec<String> = SETTINGS.iter().map(|(name, value)| format!("{name} = {value}")).collect();
    settings.push(format!(
        "{} rounds of {} s or {} messages, {} in flight, the large backlog {}, a snapshot pinned for {} s",
        amounts.rounds, amounts.seconds, amounts.messages, amounts.in_flight, amounts.backlog, amounts.pinned_seconds
    ));
    Ok((Run { command, began, machine: machine()?, postgres, settings, versions }, cannot))
}

async fn own_version() -> Result<String> {
    let mut command = Command::new(paths::command()?);
    command.arg("--version");
    let version = process::output(command).await?;
    let mut git = Command::new("git");
    git.args(["describe", "--always", "--dirty"]).current_dir(paths::checkout(""));
    // A checkout without its history has no commit to tell.
    let commit = process::output(git).await.unwrap_or_default();
    Ok(format!("{}, commit {}; the worker with --concurrency as many as in flight", version.trim(), commit.trim()))
}

fn machine() -> Result<String> {
    let cpu = fs::read_to_string("/proc/cpuinfo")?;
    let model = cpu.lines().find_map(|line| line.strip_prefix("model name")).unwrap_or_default();
    let memory = fs::read_to_string("/proc/meminfo")?;
    let kib: u64 = memory
        .lines()
        .find_map(|line| line.strip_prefix("MemTotal:"))
        .and_then(|rest| rest.trim().trim_end_matches(" kB").parse().ok())
        .context("no MemTotal")?;
    let kernel = fs::read_to_string("/proc/sys/kernel/osrelease")?;
    Ok(format!(
        "{} cores ({}), {} GiB, Linux {}",
        std::thread::available_parallelism()?,
        model.trim_start_matches(['\t', ' ', ':']),
        kib >> 20,
        kernel.trim()
    ))
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    const LITTLE: Amounts = Amounts {
        rounds: 1,
        seconds: 1,
        messages: 1000,
        backlog: 1000,
        pinned_seconds: 3,
        in_flight: 1,
        patience: Duration::ZERO,
    };

    fn refusal(amounts: &Amounts, listen: &str, results: &str) -> String {
        let refused = check(amounts, listen, Path::new(results), &std::env::temp_dir()).expect_err("a refusal");
        format!("{refused:#}")
    }

    #[test]
    fn refuses_before_anything_is_changed() {
        let taken = TcpListener::bind("127.0.0.1:0").expect("a port");
        let address = taken.local_addr().expect("its address").to_string();
        let busy = refusal(&LITTLE, &address, "results.jsonl");
        assert!(busy.starts_with(&format!("--listen: cannot listen on {address}: leave it out")), "{busy}");
        let folder = refusal(&LITTLE, "127.0.0.1:0", "/nowhere/results.jsonl");
        assert!(folder.starts_with("--results: there is no folder /nowhere: make it"), "{folder}");
        // 1500 bytes for each are terabytes.
        let much = Amounts { backlog: u32::MAX, ..LITTLE };
        let room = refusal(&much, "127.0.0.1:0", "results.jsonl");
        assert!(room.contains("MB: make room there, or take a smaller --backlog"), "{room}");
    }

    #[test]
    fn refuses_a_peer_that_there_is_not() {
        let refused = Peer::named("nobody").expect_err("a refusal").to_string();
        assert!(refused.starts_with("--peers: there is no peer 'nobody'; there are "), "{refused}");
    }
}
