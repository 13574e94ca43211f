//! The pretend provider, `sms-outbox sandbox`, as a process of its own, and its journal of requests: the truth about what was
//! sent.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::{Client, Method};
use serde::Deserialize;
use serde_json::{Value, json};

use crate::process::{Process, Signal};
use crate::wait::poll;
use crate::{Database, run, worker};

/// A message that the pretend provider accepted.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Acceptance {
    /// Slug of the provider whose wire the request spoke.
    pub provider: String,
    /// The credential that names the account.
    pub account: String,
    /// The recipient as the request wrote it.
    pub to: String,
    /// The sender.
    pub sender: Option<String>,
    /// The text.
    pub body: String,
    /// The attempt's reference, on the wires that carry one.
    pub reference: Option<String>,
    /// The id that the answer gave.
    pub provider_message_id: String,
}

/// What was counted since the start.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
pub struct Counts {
    /// Requests that could cause a send.
    pub requests: u64,
    /// Those that were accepted.
    pub accepted: u64,
    /// By what was done with them.
    pub done: serde_json::Map<String, Value>,
}

/// A pretend provider process, killed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    process: Process,
    journal: PathBuf,
    noted_before: u64,
    url: String,
    client: Client,
}

impl Sandbox {
    /// Starts one on a free port and waits until it says where it listens.
    pub async fn start() -> Result<Self> {
        Self::run("127.0.0.1:0", &run::fresh("journal")?, &[]).await
    }

    /// One that rules alone tell what to do: where a long run counts recipients up, their numbers mean nothing.
    pub async fn start_plain() -> Result<Self> {
        Self::start_at("127.0.0.1:0", &run::fresh("journal")?).await
    }

    /// Starts a plain one on an address, for example that of one that was killed, whose journal it may go on with.
    pub async fn start_at(address: &str, journal: &Path) -> Result<Self> {
        Self::run(address, journal, &["--no-magic-numbers"]).await
    }

    async fn run(address: &str, journal: &Path, options: &[&str]) -> Result<Self> {
        let mut command = worker::command("sandbox")?;
        command.args(["--listen", address, "--requests"]).arg(journal).args(options);
        let noted_before = u64::try_from(noted(journal)?.lines().count())?;
        let mut process = Process::spawn("sandbox", command, &run::fresh("sandbox")?, Signal::KILL)?;
        let told = async || {
            ensure!(process.is_running(), "it ended:\n{}", process.tail());
            Ok(listens_at(&process.log()))
        };
        let url = poll("the sandbox listens", told, async || String::new()).await?;
        let client = Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        Ok(Self { process, journal: journal.to_owned(), noted_before, url, client })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Requests in the journal before this process went on with it.
    pub fn noted_before(&self) -> u64 {
        self.noted_before
    }

    /// Whether its process is gone.
    pub fn has_ended(&self) -> bool {
        self.process.has_ended()
    }

    /// The file of its journal: every request that could cause a send, a JSON object a line.
    pub fn journal_file(&self) -> &Path {
        &self.journal
    }

    /// Its process: signals, log, end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Installs an app of the `sandbox` provider for an organization, which sends here with `token` as its account.
    pub async fn install_app(&self, database: &Database, organization: &str, token: &str) -> Result<i64> {
        let config = json!({ "token": token, "base_url": format!("{}/sandbox", self.url), "allow_http": true });
        let install = "SELECT sms_outbox.install_app($1, 'sandbox', $2, $3)";
        database.value(install, &[&organization, &token, &config]).await
    }

    /// Adds a rule, or an array of them, that says how it answers:
    /// `{"behaviour": "reset_after_accept", "account": "north", "to": "0001", "times": 1}`.
    pub async fn add_rules(&self, rules: &Value) -> Result<()> {
        self.control(Method::POST, "rules", Some(rules)).await.map(drop)
    }

    /// Removes all rules: it accepts everything again, but for the magic numbers.
    pub async fn clear_rules(&self) -> Result<()> {
        self.control(Method::DELETE, "rules", None).await.map(drop)
    }

    /// Every request that it read and could have caused a send, in order, with what it did.
    pub async fn requests(&self) -> Result<Vec<Value>> {
        Ok(serde_json::from_value(self.control(Method::GET, "requests", None).await?)?)
    }

    /// What was counted since its start.
    pub async fn counts(&self) -> Result<Counts> {
        Ok(serde_json::from_value(self.control(Method::GET, "counts", None).await?)?)
    }

    /// All that it accepted, in order; also after its end.
    pub fn journal(&self) -> Result<Vec<Acceptance>> {
        let mut accepted = Vec::new();
        for line in noted(&self.journal)?.lines() {
            let request: Value = serde_json::from_str(line).context("a line of the journal")?;
            if request["accepted"] == true {
                accepted.push(serde_json::from_value(request)?);
            }
        }
        Ok(accepted)
    }

    async fn control(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self.client.request(method, format!("{}/control/{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.context("the sandbox does not answer")?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "the sandbox answered {status} to {path}: {text}");
        Ok(serde_json::from_str(&text)?)
    }
}

/// What a journal holds; nothing before its first request.
fn noted(journal: &Path) -> Result<String> {
    match fs::read_to_string(journal) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => Ok(String::new()),
        text => Ok(text?),
    }
}

/// The address in the line that says where it listens, once the whole line is there.
fn listens_at(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("listening on ")?;
    Some(rest.split_once('\n')?.0.to_owned())
}
