//! The pretend provider, `sms-outbox sandbox`, as a process of its own, and its journal: the truth about what was sent.

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
    /// The number as the request wrote it, digits only.
    pub to: String,
    /// The text of the message.
    pub text: String,
    /// The id that the answer gave.
    pub id: String,
}

/// A pretend provider process, killed when dropped.
#[derive(Debug)]
pub struct Sandbox {
    process: Process,
    url: String,
    client: Client,
}

impl Sandbox {
    /// Starts one on a free port and waits until it says where it listens.
    pub async fn start() -> Result<Self> {
        let mut command = worker::command("sandbox")?;
        command.args(["--listen", "127.0.0.1:0"]);
        let mut process = Process::spawn("sandbox", command, &run::fresh("sandbox")?, Signal::KILL)?;
        let told = async || {
            ensure!(process.is_running(), "it ended:\n{}", process.tail());
            Ok(address(&process.log()))
        };
        let url = poll("the sandbox listens", told, async || String::new()).await?;
        let client = Client::builder().timeout(Duration::from_secs(10)).no_proxy().build()?;
        Ok(Self { process, url, client })
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// Its process: signals, log, end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Installs an app of the `sandbox` provider for an organization, which sends here with `token` as its account.
    pub async fn install_app(&self, database: &Database, organization: &str, token: &str) -> Result<i64> {
        let config = json!({ "token": token, "base_url": format!("{}/sandbox", self.url), "allow_http": true });
        let installed = "SELECT sms_outbox.install_app($1, 'sandbox', $2, $3)";
        database.value(installed, &[&organization, &token, &config]).await
    }

    /// Asks the control endpoint.
    pub async fn control(&self, method: Method, path: &str, body: Option<&Value>) -> Result<Value> {
        let mut request = self.client.request(method, format!("{}/control/{path}", self.url));
        if let Some(body) = body {
            request = request.json(body);
        }
        let response = request.send().await.context("the sandbox does not answer")?;
        let status = response.status();
        let text = response.text().await?;
        ensure!(status.is_success(), "the sandbox answered {status} to {path}: {text}");
        Ok(if text.is_empty() { Value::Null } else { serde_json::from_str(&text)? })
    }

    /// Replaces the rules that say how it answers.
    pub async fn set_rules(&self, rules: &Value) -> Result<()> {
        self.control(Method::PUT, "rules", Some(rules)).await.map(drop)
    }

    /// All that it accepted, in order.
    pub async fn journal(&self) -> Result<Vec<Acceptance>> {
        let journal = self.control(Method::GET, "journal", None).await?;
        serde_json::from_value(journal).context("the journal of the sandbox has another shape")
    }

    /// How many requests it has read, whatever became of them.
    pub async fn requests(&self) -> Result<Vec<Value>> {
        let requests = self.control(Method::GET, "requests", None).await?;
        serde_json::from_value(requests).context("the requests of the sandbox have another shape")
    }
}

/// The address in the line that says where it listens.
fn address(log: &str) -> Option<String> {
    let (_, rest) = log.split_once("http://")?;
    // The whole line has been written, not its beginning.
    rest.contains('\n').then(|| {
        let host: String = rest.chars().take_while(|c| c.is_ascii_digit() || matches!(c, '.' | ':')).collect();
        format!("http://{host}")
    })
}
