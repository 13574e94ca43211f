//! `sms-outbox doctor`.

mod listen;
mod providers;
mod server;
mod speed;

use std::process::ExitCode;

use clap::Args;
use serde::Serialize;
use tokio_postgres::Client;

use super::terminal::{Terminal, Tone};
use super::{Global, session};
use crate::outbox::postgres::operator::{apps, server as facts, stats};

/// Examine server, extension, workers and providers; each finding comes with its cure
///
/// Nothing is changed and nothing is sent. Exits with 1 when a finding is critical.
#[derive(Debug, Args)]
pub(super) struct DoctorArgs {
    /// Do not connect to the providers of installed apps
    #[arg(long)]
    skip_providers: bool,
}

/// How bad a finding is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "lowercase")]
enum Severity {
    Ok,
    Warn,
    Critical,
}

/// One thing that was looked at.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
struct Finding {
    check: String,
    status: Severity,
    detail: String,
    cure: Option<String>,
}

impl Finding {
    fn ok(check: &str, detail: impl Into<String>) -> Self {
        Self { check: check.to_owned(), status: Severity::Ok, detail: detail.into(), cure: None }
    }

    fn warn(check: &str, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { check: check.to_owned(), status: Severity::Warn, detail: detail.into(), cure: Some(cure.into()) }
    }

    fn critical(check: &str, detail: impl Into<String>, cure: impl Into<String>) -> Self {
        Self { status: Severity::Critical, ..Self::warn(check, detail, cure) }
    }
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: &DoctorArgs) -> anyhow::Result<ExitCode> {
    let target = session::target(global, "doctor")?;
    let client = target.connect().await?;
    let place = target.check(&client).await?;
    let mut findings = vec![Finding::ok("server", format!("PostgreSQL {}, {target}", place.version))];
    findings.push(server::versions(&facts::versions(&client).await?));
    findings.extend(server::examine(&facts::facts(&client).await?));
    findings.extend(speed::examine(&facts::speed(&client, place.version_num).await?));
    findings.push(listen::examine(&target, &client).await?);
    findings.extend(health(&client).await?);
    if !args.skip_providers {
        findings.extend(providers::examine(&apps::list(&client, None).await?, global.connect_timeout).await);
    }
    print(terminal, &findings)?;
    let worst = findings.iter().map(|finding| finding.status).max();
    Ok(if worst == Some(Severity::Critical) { ExitCode::FAILURE } else { ExitCode::SUCCESS })
}

/// The checks of the view `health`, with their cures.
async fn health(client: &Client) -> anyhow::Result<Vec<Finding>> {
    let checks = stats::health(client).await?;
    Ok(checks
        .into_iter()
        .map(|check| {
            let status = match check.status.as_str() {
                "ok" => Severity::Ok,
                "critical" => Severity::Critical,
                _ => Severity::Warn,
            };
            let cure = (status != Severity::Ok).then(|| server::cure(&check.check)).flatten().map(str::to_owned);
            Finding { check: check.check, status, detail: check.detail, cure }
        })
        .collect())
}

fn print(terminal: &Terminal, findings: &[Finding]) -> anyhow::Result<()> {
    if terminal.is_json() {
        return terminal.json(&findings);
    }
    for finding in findings {
        let (tone, word) = match finding.status {
            Severity::Ok => (Tone::Good, "ok      "),
            Severity::Warn => (Tone::Warn, "warn    "),
            Severity::Critical => (Tone::Bad, "critical"),
        };
        terminal.finding(tone, word, &format!("{}: {}", finding.check, finding.detail))?;
        if let Some(cure) = &finding.cure {
            terminal.finding(Tone::Faint, "        ", &format!("→ {cure}"))?;
        }
    }
    let bad = findings.iter().filter(|finding| finding.status != Severity::Ok).count();
    terminal.note(&match bad {
        0 => format!("{} checks, all well", findings.len()),
        _ => format!("{} checks, {bad} with a finding", findings.len()),
    });
    Ok(())
}
