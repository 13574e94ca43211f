//! The peers: other queues on PostgreSQL, each behind `bench/peers/NAME/run`, which uses it as its own documentation says for speed.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::process::{Command, Stdio};
use std::sync::Arc;

use anyhow::{Context, Result, bail, ensure};
use serde::Deserialize;
use sms_outbox_tests::{Cluster, Database, paths};
use tokio::io::{AsyncReadExt, BufReader};

use crate::server::rate;

/// The exit code of a peer that cannot do a thing here, with the reason on its standard error.
const CANNOT: i32 = 3;

/// A peer.
#[derive(Clone, Debug)]
pub(crate) struct Peer {
    /// Its name, that of its folder.
    pub(crate) name: String,
    program: PathBuf,
}

/// A peer that can run here, and its database.
pub(crate) struct Ready {
    pub(crate) peer: Peer,
    pub(crate) database: Database,
}

/// What `run versions` prints.
#[derive(Clone, Debug, Deserialize)]
pub(crate) struct Versions {
    pub(crate) version: String,
    pub(crate) settings: String,
}

/// What a peer gave, or why it cannot.
pub(crate) enum Given<T> {
    Figure(T),
    Cannot(String),
}

/// The names of all peers that there are.
pub(crate) fn names() -> Result<Vec<String>> {
    let folder = paths::checkout("bench/peers");
    let mut names: Vec<String> = fs::read_dir(&folder)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.path().join("run").is_file())
        .filter_map(|entry| entry.file_name().into_string().ok())
        .collect();
    names.sort();
    Ok(names)
}

impl Peer {
    /// The peer of this name.
    pub(crate) fn named(name: &str) -> Result<Self> {
        let program = paths::checkout("bench/peers").join(name).join("run");
        if !program.is_file() {
            bail!("--peers: there is no peer '{name}'; there are {}", names()?.join(", "));
        }
        Ok(Self { name: name.to_owned(), program })
    }

    /// Its version, and how it is set.
    pub(crate) async fn versions(&self) -> Result<Given<Versions>> {
        Ok(match self.run(&["versions"]).await? {
            Given::Figure(text) => {
                let line = text.lines().last().unwrap_or_default();
                Given::Figure(serde_json::from_str(line).with_context(|| format!("{}: versions: {line}", self.name))?)
            }
            Given::Cannot(reason) => Given::Cannot(reason),
        })
    }

    /// A database of its own.
    pub(crate) async fn create(&self, cluster: &Arc<Cluster>, name: &str) -> Result<Ready> {
        let database = Database::create_empty(cluster, name).await?;
        Ok(Ready { peer: self.clone(), database })
    }

    async fn run(&self, arguments: &[&str]) -> Result<Given<String>> {
        let mut command = Command::new(&self.program);
        command.args(arguments).current_dir(paths::checkout("")).stdin(Stdio::null());
        let mut command = tokio::process::Command::from(command);
        let mut child = command
            .stdout(Stdio::piped())
            .stderr(Stdio::piped())
            .kill_on_drop(true)
            .spawn()
            .with_context(|| format!("cannot start {}", self.program.display()))?;
        let (mut out, mut err) = (String::new(), String::new());
        let (stdout, stderr) = (child.stdout.take().context("no pipe")?, child.stderr.take().context("no pipe")?);
        let (mut stdout, mut stderr) = (BufReader::new(stdout), BufReader::new(stderr));
        let (status, _, _) =
            tokio::try_join!(child.wait(), stdout.read_to_string(&mut out), stderr.read_to_string(&mut err))?;
        if status.code() == Some(CANNOT) {
            return Ok(Given::Cannot(err.trim().lines().last().unwrap_or("it does not say why").to_owned()));
        }
        ensure!(
            status.success(),
            "{} {} failed ({status}): {}",
            self.name,
            arguments.first().unwrap_or(&""),
            err.trim()
        );
        Ok(Given::Figure(out))
    }
}

impl Ready {
    /// One of its commands on its database: what it printed.
    pub(crate) async fn command(&self, command: &str, arguments: &[&str]) -> Result<Given<String>> {
        let url = self.database.url("postgres");
        self.peer.run(&[&[command, "--url", &url][..], arguments].concat()).await
    }

    /// Makes its schema, and empties it.
    pub(crate) async fn setup(&self) -> Result<()> {
        match self.command("setup", &[]).await? {
            Given::Figure(_) => Ok(()),
            Given::Cannot(reason) => bail!("{} has a version but cannot be set up: {reason}", self.peer.name),
        }
    }

    /// A command that prints messages and seconds: messages a second.
    pub(crate) async fn rate(&self, command: &str, arguments: &[&str]) -> Result<Given<f64>> {
        Ok(match self.command(command, arguments).await? {
            Given::Figure(text) => Given::Figure(rate(&text)?),
            Given::Cannot(reason) => Given::Cannot(reason),
        })
    }

    /// When each message was committed, by its id.
    pub(crate) async fn latency(&self, arguments: &[&str]) -> Result<Given<HashMap<String, u64>>> {
        let text = match self.command("latency", arguments).await? {
            Given::Figure(text) => text,
            Given::Cannot(reason) => return Ok(Given::Cannot(reason)),
        };
        let mut committed = HashMap::new();
        for line in text.lines().filter(|line| line.contains("committed_at_us")) {
            let line: serde_json::Value = serde_json::from_str(line)?;
            let id = line["id"].as_str().map_or_else(|| line["id"].to_string(), str::to_owned);
            committed.insert(id, line["committed_at_us"].as_u64().context("committed_at_us is no whole number")?);
        }
        Ok(Given::Figure(committed))
    }
}
