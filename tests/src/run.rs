//! The folder of this test process. It, and every process started in it, ends with the test process, also where that
//! is killed: a small shell at the other end of a pipe, the reaper, sees the pipe close.

use std::fs;
use std::io::Write;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{ChildStdin, Command, Stdio};
use std::sync::atomic::{AtomicU32, Ordering};
use std::sync::{Mutex, OnceLock, PoisonError};

use anyhow::{Context, Result, anyhow};

use crate::paths;

struct Run {
    folder: PathBuf,
    reaper: Mutex<ChildStdin>,
    next: AtomicU32,
}

static RUN: OnceLock<std::result::Result<Run, String>> = OnceLock::new();

fn start() -> Result<Run> {
    let folder = paths::run()?.join(std::process::id().to_string());
    // A process of the same id that was killed together with its reaper.
    if folder.exists() {
        fs::remove_dir_all(&folder)?;
    }
    fs::create_dir(&folder).with_context(|| format!("cannot create {}", folder.display()))?;
    let mut reaper = Command::new("sh")
        .args(["-c", include_str!("reaper.sh"), "reaper"])
        .arg(&folder)
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        // Ctrl-C reaches the whole group of the terminal; the reaper has work to do then.
        .process_group(0)
        .spawn()
        .context("cannot start the reaper")?;
    let pipe = reaper.stdin.take().context("the reaper has no pipe")?;
    Ok(Run { folder, reaper: Mutex::new(pipe), next: AtomicU32::new(0) })
}

fn run() -> Result<&'static Run> {
    RUN.get_or_init(|| start().map_err(|error| format!("{error:#}"))).as_ref().map_err(|error| anyhow!("{error}"))
}

fn tell(line: &str) -> Result<()> {
    let mut reaper = run()?.reaper.lock().unwrap_or_else(PoisonError::into_inner);
    writeln!(reaper, "{line}").context("the reaper is gone")
}

/// A name in the folder of this run that nobody else gets. Short: paths of sockets have at most 107 bytes.
pub fn fresh(kind: &str) -> Result<PathBuf> {
    let run = run()?;
    Ok(run.folder.join(format!("{kind}{}", run.next.fetch_add(1, Ordering::Relaxed))))
}

/// A number that is different in each call, in each test process.
pub fn number() -> Result<u32> {
    Ok(std::process::id().wrapping_mul(61).wrapping_add(run()?.next.fetch_add(1, Ordering::Relaxed)))
}

/// Tells the reaper of a process and of the signal that ends it well.
pub(crate) fn started(pid: u32, signal: &str) -> Result<()> {
    tell(&format!("started {pid} {signal}"))
}

/// Tells the reaper that a process has ended.
pub(crate) fn ended(pid: u32) {
    // Without a reaper there is nobody to tell.
    let _ = tell(&format!("ended {pid}"));
}

/// The folder of this test process.
pub fn folder() -> Result<&'static Path> {
    Ok(&run()?.folder)
}

/// Leaves everything that runs running, after the end of this process too, until `make stop`.
pub fn keep() -> Result<()> {
    fs::write(run()?.folder.join("kept"), "")?;
    tell("keep")
}
