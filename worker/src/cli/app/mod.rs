//! `sms-outbox app`.

mod given_config;
mod install;
pub(super) mod list;
mod seal;
mod test;

use clap::{Args, Subcommand};
use serde_json::json;

use super::terminal::Terminal;
use super::{Global, session};
use crate::outbox::postgres::operator::apps::{self, Policy};

/// Install the SMS apps of organizations, and look after them
#[derive(Debug, Subcommand)]
pub(super) enum AppCommand {
    List(list::ListArgs),
    Providers(list::ProvidersArgs),
    Install(install::InstallArgs),
    Update(install::UpdateArgs),
    /// Uninstall an app: requests in flight end, the history stays, its credentials are deleted
    Uninstall(UninstallArgs),
    /// Pause an app: its organization's other apps carry on, and what only it can send waits
    Pause(PauseArgs),
    /// End a pause, and try an app again whose breaker is open
    Resume(AppArgs),
    Test(test::TestArgs),
    Seal(seal::SealArgs),
}

/// One app.
#[derive(Debug, Args)]
pub(in crate::cli) struct AppArgs {
    /// The app, by its number in: sms-outbox app list
    #[arg(value_name = "APP")]
    app_id: i64,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct UninstallArgs {
    #[command(flatten)]
    app: AppArgs,
    /// Do it; messages that no other app can send will fail
    #[arg(long, required = true)]
    yes: bool,
}

#[derive(Debug, Args)]
pub(in crate::cli) struct PauseArgs {
    #[command(flatten)]
    app: AppArgs,
    /// Why, for whoever looks at it next
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// Order, limits and flags of an app.
#[derive(Debug, Args)]
#[command(next_help_heading = "Order and limits")]
struct PolicyArgs {
    /// Apps of a lower position are tried first [default: 100]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    position: Option<i32>,
    /// Share among the apps of one position [default: 1]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    weight: Option<i32>,
    /// Most requests at once, over all workers [default: 16]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    max_in_flight: Option<i32>,
    /// Most messages or segments a second, over all workers [default: no limit; update with 0 takes a limit away]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    rate: Option<f64>,
    /// What the rate counts [default: messages]
    #[arg(long, value_name = "UNIT", value_parser = ["messages", "segments"])]
    rate_unit: Option<String>,
    /// Most of them at once, after a pause [default: what one second allows; update with 0 returns to that]
    #[arg(long, value_name = "N", allow_negative_numbers = true)]
    burst: Option<i32>,
    /// Send again when nobody knows whether a message was sent: its recipient may get it twice [default: false]
    #[arg(long, value_name = "BOOL", num_args = 0..=1, default_missing_value = "true")]
    resend_unclear: Option<bool>,
}

impl PolicyArgs {
    fn policy(&self) -> Policy {
        Policy {
            position: self.position,
            weight: self.weight,
            max_in_flight: self.max_in_flight,
            rate: self.rate,
            rate_unit: self.rate_unit.clone(),
            burst: self.burst,
            resend_unclear: self.resend_unclear,
        }
    }
}

pub(super) async fn run(global: &Global, terminal: &Terminal, command: AppCommand) -> anyhow::Result<()> {
    match command {
        AppCommand::List(args) => list::run(global, terminal, &args).await?,
        AppCommand::Providers(args) => list::providers(terminal, &args)?,
        AppCommand::Install(args) => install::install(global, terminal, &args).await?,
        AppCommand::Update(args) => install::update(global, terminal, &args).await?,
        AppCommand::Uninstall(args) => {
            let client = session::open(global, "app uninstall").await?;
            apps::uninstall(&client, args.app.app_id).await?;
            done(terminal, args.app.app_id, "uninstalled")?;
        }
        AppCommand::Pause(args) => {
            let client = session::open(global, "app pause").await?;
            apps::pause(&client, args.app.app_id, args.reason.as_deref()).await?;
            done(terminal, args.app.app_id, "paused")?;
        }
        AppCommand::Resume(args) => {
            let client = session::open(global, "app resume").await?;
            apps::resume(&client, args.app_id).await?;
            done(terminal, args.app_id, "resumed")?;
        }
        AppCommand::Test(args) => test::run(global, terminal, &args).await?,
        AppCommand::Seal(args) => seal::run(global, terminal, &args).await?,
    }
    Ok(())
}

fn done(terminal: &Terminal, app: i64, result: &str) -> anyhow::Result<()> {
    if terminal.is_json() {
        return terminal.json(&json!({"app_id": app, "result": result}));
    }
    terminal.line(&format!("app {app} {result}"))
}
