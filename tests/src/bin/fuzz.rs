//! `scripts/security.sh api`: Schemathesis against a running API, with a worker and a provider behind it, so that messages move
//! while they are asked for. First a document that promises less than the API answers: it must be found.

use std::ffi::OsString;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, ExitCode, Stdio};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::{Api, Cluster, Database, Major, Sandbox, Worker, paths, run};

/// Bounded, and the same cases each time: a failure can be looked at again.
const BOUNDS: [&str; 4] = ["--seed", "20", "--max-examples", "120"];

#[tokio::main]
async fn main() -> Result<ExitCode> {
    let tools = PathBuf::from(
        std::env::var_os("SMS_OUTBOX_TOOLS").context("SMS_OUTBOX_TOOLS is not set: run scripts/security.sh api")?,
    );
    let cluster = Cluster::start_new(Major::V18).await?;
    let database = Database::create(&cluster, "fuzz").await?;
    let sandbox = Sandbox::start().await?;
    sandbox.install_app(&database, "shop", "account").await?;
    let _worker = Worker::start(&database).await?;
    let mut api = Api::start(&database).await?;
    let key = Api::key(&database, "shop", &["enqueue", "read", "operate"]).await?;

    let document = api.get("/openapi.json", "").await?;
    ensure!(document.status == 200, "/openapi.json: {}", document.status);
    let seeded = run::fresh("openapi")?.with_extension("json");
    fs::write(&seeded, promising_less(document.json)?.to_string())?;
    let found = schemathesis(
        &tools,
        &key,
        seeded.as_os_str().to_owned(),
        &["--url", api.url(), "--max-examples", "5", "--phases", "fuzzing"],
    )?
    .output()?;
    let words = String::from_utf8_lossy(&found.stdout);
    ensure!(
        !found.status.success() && words.contains("Undocumented status code"),
        "a seeded fault was not found:\n{words}"
    );

    let mut real = schemathesis(&tools, &key, format!("{}/openapi.json", api.url()).into(), &BOUNDS)?;
    let status = real.stdout(Stdio::inherit()).status()?;
    let log = api.log();
    ensure!(
        !log.contains("a handler panicked") && !log.contains("refused a call of ours"),
        "the API stumbled:\n{}",
        api.process().tail()
    );
    ensure!(api.get("/readyz", "").await?.status == 200, "the API is not ready any more");
    Ok(if status.success() { ExitCode::SUCCESS } else { ExitCode::FAILURE })
}

fn schemathesis(tools: &Path, key: &str, document: OsString, more: &[&str]) -> Result<Command> {
    let mut command = Command::new("python3");
    command.env("PYTHONPATH", tools.join("python")).env("NO_PROXY", "127.0.0.1").current_dir(run::folder()?);
    command.args(["-m", "schemathesis.cli", "--config-file"]).arg(paths::checkout("scripts/schemathesis.toml"));
    command.arg("run").arg(document).args(["--header", &format!("Authorization: Bearer {key}")]).args(more);
    Ok(command)
}

/// The document without the refusals of bad fields.
fn promising_less(mut document: Value) -> Result<Value> {
    for operations in document["paths"].as_object_mut().context("paths")?.values_mut() {
        for operation in operations.as_object_mut().context("operations")?.values_mut() {
            if let Some(responses) = operation["responses"].as_object_mut() {
                responses.remove("422");
                responses.remove("400");
            }
        }
    }
    Ok(document)
}
