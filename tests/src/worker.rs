//! The real `sms-outbox worker`, as a process of its own.

use std::path::Path;
use std::process::{Command, ExitStatus};

use anyhow::{Context, Result, ensure};

use crate::process::{Process, Signal};
use crate::wait::poll;
use crate::{Database, paths, patience, run};

/// A worker that is made ready to start.
#[derive(Debug)]
#[must_use]
pub struct Options<'a> {
    database: &'a Database,
    name: String,
    command: Command,
}

impl Options<'_> {
    /// Its name. In leases, attempts and `worker_stats` a slash and a mark of the process follow it.
    pub fn name(mut self, name: &str) -> Self {
        name.clone_into(&mut self.name);
        self
    }

    /// A setting, by its environment variable: `SMS_OUTBOX_CONCURRENCY`, `DATABASE_URL`, ….
    pub fn set(mut self, variable: &str, value: &str) -> Self {
        self.command.env(variable, value);
        self
    }

    /// Starts it, and waits until the database knows that it lives.
    pub async fn start(self) -> Result<Worker> {
        let database = self.database;
        let mut worker = self.spawn()?;
        let alive = format!(
            "SELECT EXISTS (SELECT FROM sms_outbox.worker_stats WHERE split_part(name, '/', 1) = '{}')",
            worker.name.replace('\'', "''")
        );
        let asked = async || {
            ensure!(worker.process.is_running(), "the worker ended:\n{}", worker.process.tail());
            Ok(database.value::<bool>(&alive, &[]).await?.then_some(()))
        };
        database.wait_for(format!("worker {} is alive", worker.name), asked).await?;
        Ok(worker)
    }

    /// Starts it and does not wait: for workers that cannot come up.
    pub fn spawn(mut self) -> Result<Worker> {
        self.command.env("SMS_OUTBOX_WORKER_NAME", &self.name);
        let log = run::fresh("worker")?;
        self.database.add_log(log.clone());
        let process = Process::spawn(&self.name, self.command, &log, Signal::KILL)?;
        Ok(Worker { name: self.name, process })
    }
}

/// A worker process. Dropped, it is killed; [`Worker::drain`] stops it well.
#[derive(Debug)]
pub struct Worker {
    name: String,
    process: Process,
}

impl Worker {
    /// Starts one on a database, by TCP and with the rights of login `worker`.
    pub async fn start(database: &Database) -> Result<Self> {
        Self::options(database)?.start().await
    }

    /// Starts one that is different.
    pub fn options(database: &Database) -> Result<Options<'_>> {
        Self::options_of(database, command("worker")?)
    }

    /// Starts one that is another program: one with the command's code and more.
    pub fn options_by<'a>(database: &'a Database, program: &Path) -> Result<Options<'a>> {
        Self::options_of(database, command_of(program, "worker")?)
    }

    /// Starts one that does something at fail points, in the words of the crate `fail`: `claimed=pause`.
    pub fn options_at<'a>(database: &'a Database, points: &str) -> Result<Options<'a>> {
        let mut command = command_of(&paths::command_with_failpoints()?, "worker")?;
        command.env("FAILPOINTS", points);
        Self::options_of(database, command)
    }

    fn options_of(database: &Database, mut command: Command) -> Result<Options<'_>> {
        command.env("DATABASE_URL", database.url("worker"));
        // The pretend provider is on this machine.
        command.env("SMS_OUTBOX_ALLOW_ADDRESS", "127.0.0.0/8");
        // What a test left unclear stays so, unless it asks for look-ups.
        command.env("SMS_OUTBOX_LOOK_UP_AFTER", "1h");
        Ok(Options { database, name: format!("worker-{}", run::number()?), command })
    }

    /// Its name. In leases, attempts and `worker_stats` a slash and a mark of the process follow it.
    pub fn name(&self) -> &str {
        &self.name
    }

    /// Its process: signals, log, end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// How often it has come to a fail point, and how often it has left it.
    pub fn visits(&self, point: &str) -> (usize, usize) {
        let log = self.log();
        let count = |what: &str| {
            let said = |line: &&str| line.contains(what) && line.contains(&format!("point=\"{point}\""));
            log.lines().filter(said).count()
        };
        (count("fail point reached"), count("fail point left"))
    }

    /// Waits until it has come to a fail point so often.
    pub async fn wait_until_held(&mut self, point: &str, times: usize) -> Result<()> {
        let held = async || {
            ensure!(self.process.is_running(), "the worker ended:\n{}", self.process.tail());
            Ok((self.visits(point).0 >= times).then_some(()))
        };
        poll(format!("{point} is reached {times} times"), held, async || String::new()).await
    }

    /// SIGKILL, and waits for the end.
    pub async fn kill(&mut self) -> Result<()> {
        self.process.signal(Signal::KILL)?;
        self.process.wait(patience()).await.map(drop)
    }

    /// SIGSTOP: it stands still and holds its leases.
    pub fn pause(&self) -> Result<()> {
        self.process.signal(Signal::STOP)
    }

    /// SIGCONT.
    pub fn resume(&self) -> Result<()> {
        self.process.signal(Signal::CONT)
    }

    /// SIGTERM, and waits for the graceful end.
    pub async fn drain(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(patience()).await
    }
}

/// `sms-outbox SUBCOMMAND` with nothing of this process's environment but the path.
pub fn command(subcommand: &str) -> Result<Command> {
    command_of(&paths::command()?, subcommand)
}

fn command_of(program: &Path, subcommand: &str) -> Result<Command> {
    let mut command = Command::new(program);
    command.arg(subcommand).env_clear().current_dir(run::folder()?);
    command.env("PATH", std::env::var_os("PATH").context("PATH is not set")?);
    Ok(command)
}
