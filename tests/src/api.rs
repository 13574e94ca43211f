//! The real `sms-outbox api`, as a process of its own, and a client of it.

use std::process::{Command, ExitStatus};
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use reqwest::header::HeaderMap;
use reqwest::{Client, Method, RequestBuilder};
use serde_json::Value;

use crate::process::{Process, Signal};
use crate::wait::poll;
use crate::{Database, patience, run, worker};

/// An API that is made ready to start.
#[derive(Debug)]
#[must_use]
pub struct Options<'a> {
    database: &'a Database,
    command: Command,
}

impl Options<'_> {
    /// A setting, by its environment variable: `SMS_OUTBOX_API_POOL_SIZE`, `DATABASE_URL`, ….
    pub fn set(mut self, variable: &str, value: &str) -> Self {
        self.command.env(variable, value);
        self
    }

    /// Starts it, and waits until it says where it listens.
    pub async fn start(self) -> Result<Api> {
        let log = run::fresh("api")?;
        self.database.add_log(log.clone());
        let mut process = Process::spawn("api", self.command, &log, Signal::KILL)?;
        let told = async || {
            ensure!(process.is_running(), "the API ended:\n{}", process.tail());
            let log = process.log();
            let listens = log.split_once("listening on ").and_then(|(_, rest)| rest.split_once('\n'));
            Ok(listens.map(|(url, _)| url.to_owned()))
        };
        let url = poll("the API listens", told, async || String::new()).await?;
        // Shorter than any read time-out that a test sets: a kept connection may be closed as the next request goes out.
        let kept = Duration::from_millis(500);
        let client = Client::builder().timeout(patience()).pool_idle_timeout(kept).no_proxy().build()?;
        Ok(Api { process, url, client })
    }
}

/// An API process. Dropped, it is killed; [`Api::drain`] stops it well.
#[derive(Debug)]
pub struct Api {
    process: Process,
    url: String,
    client: Client,
}

/// What it answered.
#[derive(Clone, Debug)]
pub struct Answer {
    /// The status.
    pub status: u16,
    /// The head.
    pub headers: HeaderMap,
    /// The body, where it is JSON; else `null`.
    pub json: Value,
    /// The body as it came.
    pub text: String,
}

impl Answer {
    /// A header's value, or nothing.
    pub fn header(&self, name: &str) -> &str {
        self.headers.get(name).and_then(|value| value.to_str().ok()).unwrap_or_default()
    }

    /// The `code` of a problem document.
    pub fn code(&self) -> &str {
        self.json["code"].as_str().unwrap_or_default()
    }

    /// The first bad field of a problem document.
    pub fn field(&self) -> &str {
        self.json["errors"][0]["field"].as_str().unwrap_or_default()
    }

    /// The `id` of a message.
    pub fn id(&self) -> Result<&str> {
        self.json["id"].as_str().with_context(|| format!("no id: {self:?}"))
    }
}

impl Api {
    /// Starts one on a database, by TCP, with the rights of login `api`, on a free port.
    pub async fn start(database: &Database) -> Result<Self> {
        Self::options(database)?.start().await
    }

    /// Starts one that is different.
    pub fn options(database: &Database) -> Result<Options<'_>> {
        let mut command = worker::command("api")?;
        command.env("DATABASE_URL", database.url("api")).env("SMS_OUTBOX_API_LISTEN", "127.0.0.1:0");
        Ok(Options { database, command })
    }

    /// Makes a key of an organization.
    pub async fn key(database: &Database, organization: &str, scopes: &[&str]) -> Result<String> {
        let make = "SELECT sms_outbox.create_api_key($1, 'test', $2)";
        database.value(make, &[&organization, &scopes]).await
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> &str {
        &self.url
    }

    /// `127.0.0.1:PORT`.
    pub fn address(&self) -> &str {
        self.url.trim_start_matches("http://")
    }

    /// Its process: signals, log, end.
    pub fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// All that it has logged.
    pub fn log(&self) -> String {
        self.process.log()
    }

    /// SIGTERM, and waits for the graceful end.
    pub async fn drain(&mut self) -> Result<ExitStatus> {
        self.process.signal(Signal::TERM)?;
        self.process.wait(patience()).await
    }

    /// A request with a key, to be sent by [`ask`]. An empty key is none.
    pub fn request(&self, method: Method, path: &str, key: &str) -> RequestBuilder {
        let request = self.client.request(method, format!("{}{path}", self.url));
        if key.is_empty() { request } else { request.bearer_auth(key) }
    }

    /// GET.
    pub async fn get(&self, path: &str, key: &str) -> Result<Answer> {
        ask(self.request(Method::GET, path, key)).await
    }

    /// POST with a JSON body.
    pub async fn post(&self, path: &str, key: &str, body: &Value) -> Result<Answer> {
        ask(self.request(Method::POST, path, key).json(body)).await
    }

    /// POST of one message, which must be queued or a replay.
    pub async fn enqueue(&self, key: &str, body: &Value) -> Result<Answer> {
        let answer = self.post("/api/v1/sms/outbox", key, body).await?;
        ensure!(matches!(answer.status, 200 | 201), "{} {}", answer.status, answer.text);
        Ok(answer)
    }

    /// Waits until `/readyz` answers with this status.
    pub async fn wait_ready(&self, status: u16) -> Result<Answer> {
        let asked = async || Ok(Some(self.get("/readyz", "").await?).filter(|answer| answer.status == status));
        poll(format!("/readyz answers {status}"), asked, async || self.process.tail()).await
    }
}

/// Sends a request and reads the whole answer.
pub async fn ask(request: RequestBuilder) -> Result<Answer> {
    let response =
        request.timeout(patience() + Duration::from_secs(5)).send().await.context("the API does not answer")?;
    let (status, headers) = (response.status().as_u16(), response.headers().clone());
    let text = response.text().await?;
    let json = serde_json::from_str(&text).unwrap_or_default();
    Ok(Answer { status, headers, json, text })
}
