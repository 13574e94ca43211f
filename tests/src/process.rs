//! A child process with its output in a file, ended when dropped.

use std::fs::{self, OpenOptions};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
pub use rustix::process::Signal;
use rustix::process::{Pid, kill_process};
use tokio::io::AsyncWriteExt;

use crate::run;

/// A child process.
#[derive(Debug)]
pub struct Process {
    name: String,
    child: Child,
    log: PathBuf,
    last_signal: Signal,
    exited: Option<ExitStatus>,
    kept: bool,
}

impl Process {
    /// Starts `command` with both outputs appended to `log`; `last_signal` ends it when it is dropped.
    pub fn spawn(name: &str, mut command: Command, log: &Path, last_signal: Signal) -> Result<Self> {
        let output = OpenOptions::new().create(true).append(true).open(log)?;
        let child = command
            .stdin(Stdio::null())
            .stdout(output.try_clone()?)
            .stderr(output)
            .spawn()
            .with_context(|| format!("cannot start {name}: {:?}", command.get_program()))?;
        let process =
            Self { name: name.to_owned(), child, log: log.to_owned(), last_signal, exited: None, kept: false };
        run::started(process.id(), if last_signal == Signal::QUIT { "QUIT" } else { "KILL" })?;
        Ok(process)
    }

    /// Its process id.
    pub fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal.
    pub fn signal(&self, signal: Signal) -> Result<()> {
        signal_process(self.id(), signal).with_context(|| format!("{} has ended", self.name))
    }

    /// Whether it has not ended.
    pub fn is_running(&mut self) -> bool {
        self.poll().is_none()
    }

    /// How it ended, if it has.
    pub fn poll(&mut self) -> Option<ExitStatus> {
        if self.exited.is_none()
            && let Ok(Some(status)) = self.child.try_wait()
        {
            run::ended(self.id());
            self.exited = Some(status);
        }
        self.exited
    }

    /// Whether it has ended, without asking the system to forget it.
    pub fn has_ended(&self) -> bool {
        let status = fs::read_to_string(format!("/proc/{}/stat", self.id())).unwrap_or_default();
        let state = status.rsplit_once(") ").map_or("", |(_, rest)| rest);
        self.exited.is_some() || state.is_empty() || state.starts_with('Z')
    }

    /// Waits for its end.
    pub async fn wait(&mut self, patience: Duration) -> Result<ExitStatus> {
        let deadline = Instant::now() + patience;
        loop {
            if let Some(status) = self.poll() {
                return Ok(status);
            }
            if Instant::now() > deadline {
                bail!("{} still runs after {patience:?}; its last lines:\n{}", self.name, self.tail());
            }
            tokio::time::sleep(Duration::from_millis(10)).await;
        }
    }

    /// All that it has written.
    pub fn log(&self) -> String {
        fs::read(&self.log).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default()
    }

    /// The last lines that it has written.
    pub fn tail(&self) -> String {
        tail(&self.log)
    }

    /// Whether [`Process::keep`] was called.
    pub fn is_kept(&self) -> bool {
        self.kept
    }

    /// Lets it live on after this value.
    pub fn keep(&mut self) {
        self.kept = true;
    }
}

impl Drop for Process {
    #[expect(clippy::disallowed_methods, reason = "nothing can be awaited in a drop, and the end takes milliseconds")]
    fn drop(&mut self) {
        if self.kept || self.poll().is_some() {
            return;
        }
        let pid = self.id();
        // A stopped process takes no signal but KILL before it continues.
        let _ = signal_process(pid, self.last_signal);
        let _ = signal_process(pid, Signal::CONT);
        let deadline = Instant::now() + Duration::from_secs(10);
        while self.poll().is_none() {
            if Instant::now() > deadline {
                let _ = signal_process(pid, Signal::KILL);
            }
            thread::sleep(Duration::from_millis(2));
        }
    }
}

/// Sends a signal to any process, for example a backend.
pub fn signal_process(pid: u32, signal: Signal) -> Result<()> {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw).context("no process id")?;
    Ok(kill_process(pid, signal)?)
}

/// The last lines of a file.
pub fn tail(file: &Path) -> String {
    const LINES: usize = 40;
    let text = fs::read(file).map(|bytes| String::from_utf8_lossy(&bytes).into_owned()).unwrap_or_default();
    let lines: Vec<&str> = text.lines().collect();
    lines[lines.len().saturating_sub(LINES)..].join("\n")
}

/// Runs a command to its end and returns its standard output; on failure its standard error is the error.
pub async fn output(command: Command) -> Result<String> {
    output_of_input(command, "").await
}

/// The same with `input` as its standard input.
pub async fn output_of_input(command: Command, input: &str) -> Result<String> {
    let name = command.get_program().to_string_lossy().into_owned();
    let mut child = tokio::process::Command::from(command)
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .kill_on_drop(true)
        .spawn()
        .with_context(|| format!("cannot start {name}"))?;
    let mut pipe = child.stdin.take().context("no pipe")?;
    let written = async move {
        // It may end without reading all: its own error tells more than a broken pipe.
        let _ = pipe.write_all(input.as_bytes()).await;
    };
    let (output, ()) = tokio::join!(child.wait_with_output(), written);
    let output = output?;
    if !output.status.success() {
        bail!("{name} failed ({}): {}", output.status, String::from_utf8_lossy(&output.stderr).trim_end());
    }
    Ok(String::from_utf8_lossy(&output.stdout).into_owned())
}
