//! The server that all contenders use, one after the other, each in a database of its own.

use std::collections::HashMap;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::Client;
use sms_outbox_tests::process::{Process, Signal, output};
use sms_outbox_tests::{Cluster, Database, Major, run};

/// What differs from PostgreSQL's own defaults; durability does not.
pub(crate) const SETTINGS: [(&str, &str); 4] =
    [("shared_buffers", "512MB"), ("max_wal_size", "4GB"), ("checkpoint_timeout", "15min"), ("max_connections", "200")];

/// Starts the server.
pub(crate) async fn start() -> Result<Arc<Cluster>> {
    let options = Cluster::options(Major::V18).durable();
    SETTINGS.iter().fold(options, |options, (name, value)| options.set(name, value)).start().await
}

/// Removes a database with all that is connected to it.
pub(crate) async fn drop_database(database: Database) -> Result<()> {
    let (cluster, name) = (Arc::clone(database.cluster()), database.name().to_owned());
    drop(database);
    let maintenance = sms_outbox_tests::database::connect(&cluster.socket_url("postgres", "postgres")).await?;
    maintenance.batch_execute(&format!("DROP DATABASE \"{name}\" WITH (FORCE)")).await?;
    Ok(())
}

/// A process of the suite's own pretend provider.
#[derive(Debug)]
pub(crate) struct Provider {
    process: Process,
    url: String,
    client: Client,
}

impl Provider {
    /// Starts one, at an address that was found free.
    pub(crate) async fn start(listen: &str, delay: Duration) -> Result<Self> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["provider", "--listen", listen, "--delay-ms", &delay.as_millis().to_string()]);
        let mut process = Process::spawn("provider", command, &run::fresh("provider")?, Signal::KILL)?;
        let listens = async || {
            ensure!(process.is_running(), "it ended:\n{}", process.tail());
            let log = process.log();
            Ok(log.split_once("listening on ").and_then(|(_, rest)| Some(rest.split_once('\n')?.0.to_owned())))
        };
        let url = sms_outbox_tests::wait::poll("the provider listens", listens, async || String::new()).await?;
        let client = Client::builder().no_proxy().timeout(Duration::from_secs(30)).build()?;
        Ok(Self { process, url, client })
    }

    /// `http://127.0.0.1:PORT`.
    pub(crate) fn url(&self) -> &str {
        &self.url
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.process.id()
    }

    /// How many requests came since the last [`Provider::take`].
    pub(crate) async fn count(&self) -> Result<u64> {
        self.get("count").await?.trim().parse().context("no number")
    }

    /// When each message came first, by its id, in microseconds of the wall clock; forgets them.
    pub(crate) async fn take(&self) -> Result<HashMap<String, u64>> {
        let mut arrivals = HashMap::new();
        for line in self.get("take").await?.lines() {
            if let Some((id, at)) = line.rsplit_once(' ') {
                arrivals.entry(id.to_owned()).or_insert(at.parse()?);
            }
        }
        Ok(arrivals)
    }

    async fn get(&self, path: &str) -> Result<String> {
        let answer = self.client.get(format!("{}/{path}", self.url)).send().await?;
        Ok(answer.error_for_status()?.text().await?)
    }
}

/// Runs this program with other arguments, as a process of its own, and reads the `messages` and `seconds` that it prints.
pub(crate) async fn floor(arguments: &[&str]) -> Result<f64> {
    let mut command = Command::new(std::env::current_exe()?);
    command.args(arguments);
    rate(&output(command).await?)
}

/// Messages a second, of the last line that says so.
pub(crate) fn rate(output: &str) -> Result<f64> {
    let line = output.lines().rfind(|line| line.contains("\"seconds\"")).context("it printed no figure")?;
    let figure: serde_json::Value = serde_json::from_str(line)?;
    let number = |name: &str| figure[name].as_f64().with_context(|| format!("no {name} in {line}"));
    let (messages, seconds) = (number("messages")?, number("seconds")?);
    ensure!(messages > 0.0 && seconds > 0.0, "nothing was measured: {line}");
    Ok(messages / seconds)
}
