//! Where the scripts put what the tests run: told by the environment that `scripts/run.sh` sets.

use std::env;
use std::path::PathBuf;

use anyhow::{Context, Result, ensure};

use crate::Major;

fn told(variable: &str) -> Result<PathBuf> {
    let path = env::var_os(variable)
        .map(PathBuf::from)
        .with_context(|| format!("{variable} is not set: run this through make or scripts/run.sh"))?;
    ensure!(path.exists(), "{variable} names {}, which does not exist: run 'make test-build'", path.display());
    Ok(path)
}

/// The command `sms-outbox`.
pub fn command() -> Result<PathBuf> {
    told("SMS_OUTBOX_BIN")
}

/// The same command with fail points.
pub fn command_with_failpoints() -> Result<PathBuf> {
    let path = command()?.with_file_name("sms-outbox-failpoints");
    ensure!(path.exists(), "{} does not exist: run 'make test-build'", path.display());
    Ok(path)
}

/// The unpacked server of a major, with the extension installed.
pub fn server(major: Major) -> Result<PathBuf> {
    Ok(told("SMS_OUTBOX_PG_TREES")?.join(major.to_string()))
}

/// A freshly initialized data directory of a major, or the `other` one, which has another system identifier. Its owner
/// is who runs the servers.
pub fn template(major: Major, other: bool) -> Result<PathBuf> {
    Ok(told("SMS_OUTBOX_PG_TEMPLATES")?.join(format!("{major}{}", if other { "-other" } else { "" })))
}

/// Where clusters live while they run.
pub fn run() -> Result<PathBuf> {
    told("SMS_OUTBOX_RUN")
}

/// A file of the checkout.
pub fn checkout(file: &str) -> PathBuf {
    PathBuf::from(concat!(env!("CARGO_MANIFEST_DIR"), "/..")).join(file)
}
