//! The command line: one file per command. Data goes to standard output, everything else to standard error.
//! Exit codes: 0 done, 1 failed, 2 wrong usage, 3 the extension in the database is newer than this binary.

mod api;
mod app;
mod bench;
mod credentials;
mod doctor;
mod enqueue;
mod failure;
mod install;
mod key;
mod maintain;
mod message;
mod organization;
mod reference;
mod release_held;
mod sandbox;
mod session;
mod status;
mod suppress;
mod terminal;
mod when;
mod worker;

use std::ffi::OsString;
use std::process::ExitCode;
use std::time::Duration;

use clap::{Args, CommandFactory, FromArgMatches, Parser, Subcommand};

use crate::config::duration;
use crate::config::file::{self, File};
use crate::logging::{self, LogFormat};
use terminal::{Format, Terminal};

const AFTER_HELP: &str = "\
Settings are taken from the flag, else the environment variable shown beside it, else the configuration file, else the \
default. The file is TOML with the flags' names (concurrency = 64, poll_interval = \"2s\"): --config, else \
$XDG_CONFIG_HOME/sms-outbox/config.toml (~/.config by default), else /etc/sms-outbox/config.toml.

Exit codes: 0 done; 1 failed; 2 wrong usage; 3 the extension in the database is newer than this binary.";

/// A transactional SMS outbox for PostgreSQL: dispatch what applications enqueued, and operate the queue.
#[derive(Debug, Parser)]
#[command(
    name = "sms-outbox",
    version,
    max_term_width = 110,
    subcommand_required = true,
    arg_required_else_help = true
)]
#[command(after_help = AFTER_HELP)]
struct Cli {
    #[command(flatten)]
    global: Global,
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Args)]
#[command(next_help_heading = "Global options")]
struct Global {
    /// Read settings from this TOML file
    #[arg(long, global = true, env = "SMS_OUTBOX_CONFIG", value_name = "FILE")]
    config: Option<String>,
    /// Database, as postgres://user:password@host:5432/database?sslmode=disable|prefer|require|verify-full
    ///
    /// disable: no TLS. prefer (default): TLS when the server offers it. require: always TLS, certificate not checked.
    /// verify-full: always TLS, certificate checked against sslrootcert=FILE or the system's store, and against the host name.
    /// Prefer the environment or the file to the flag: other users of the machine can see a process's arguments.
    #[arg(long, global = true, env = "DATABASE_URL", value_name = "URL", hide_default_value = true)]
    database_url: Option<String>,
    /// How data is printed; json is stable for scripts
    #[arg(long, short, global = true, env = "SMS_OUTBOX_OUTPUT", value_enum, default_value = "table")]
    output: Format,
    /// Longest time to open a connection, to the database or a provider [100ms to 1min]
    #[arg(long, global = true, env = "SMS_OUTBOX_CONNECT_TIMEOUT", value_name = "DURATION", default_value = "5s",
          value_parser = duration(Duration::from_millis(100), Duration::from_secs(60)))]
    connect_timeout: Duration,
    /// How log lines are written to standard error
    #[arg(long, global = true, env = "SMS_OUTBOX_LOG_FORMAT", value_enum, default_value = "human")]
    log_format: LogFormat,
    /// What is logged: error, warn, info, debug, trace, or module=level pairs
    #[arg(long, global = true, env = "SMS_OUTBOX_LOG_LEVEL", value_name = "FILTER", default_value = "info", value_parser = logging::filter)]
    log_level: String,
}

#[derive(Debug, Subcommand)]
enum Command {
    Worker(worker::WorkerArgs),
    Api(api::ApiArgs),
    Install(install::InstallArgs),
    Doctor(doctor::DoctorArgs),
    Status(status::StatusArgs),
    Enqueue(enqueue::EnqueueArgs),
    #[command(subcommand)]
    Message(message::MessageCommand),
    #[command(subcommand)]
    App(app::AppCommand),
    #[command(subcommand)]
    Organization(organization::OrganizationCommand),
    #[command(subcommand)]
    Suppress(suppress::SuppressCommand),
    #[command(subcommand)]
    Key(key::KeyCommand),
    ReleaseHeld(release_held::ReleaseHeldArgs),
    Maintain(maintain::MaintainArgs),
    Bench(bench::BenchArgs),
    Sandbox(sandbox::SandboxArgs),
    Completions(reference::CompletionsArgs),
    Man(reference::ManArgs),
}

/// The definition of the whole command line: help, completions, man pages and settings are made from it.
pub fn command() -> clap::Command {
    fn hide_values(command: clap::Command) -> clap::Command {
        // Help must look the same everywhere, and must not print a DATABASE_URL.
        command.mut_args(|arg| arg.hide_env_values(true)).mut_subcommands(hide_values)
    }
    hide_values(Cli::command())
}

/// Runs the command line of this process.
pub fn main() -> ExitCode {
    let arguments: Vec<OsString> = std::env::args_os().collect();
    let plain = Terminal::new(Format::Table);
    let (cli, file_hint) = match parse(&arguments) {
        Ok(cli) => cli,
        Err(refusal) => return refusal.exit(&plain),
    };
    let terminal = Terminal::new(cli.global.output);
    let _logging = logging::start(cli.global.log_format, &cli.global.log_level, terminal.colours());
    for hint in file_hint {
        terminal.warning(&hint);
    }
    let runtime = match tokio::runtime::Builder::new_multi_thread().enable_all().build() {
        Ok(runtime) => runtime,
        Err(error) => {
            return failure::exit(&terminal, &anyhow::Error::new(error).context("the runtime cannot start"));
        }
    };
    let result = runtime.block_on(run(cli, &terminal));
    // A blocked read of standard input must not keep the process alive.
    runtime.shutdown_timeout(Duration::from_millis(100));
    match result {
        Ok(code) => code,
        Err(error) => failure::exit(&terminal, &error),
    }
}

enum Refusal {
    Usage(clap::Error, Option<String>),
    File(file::FileError),
}

impl Refusal {
    fn exit(&self, terminal: &Terminal) -> ExitCode {
        match self {
            Self::Usage(error, origin) => {
                // A closed pipe is no reason to fail.
                let _ = error.print();
                if let Some(origin) = origin {
                    terminal.note(origin);
                }
                ExitCode::from(u8::try_from(error.exit_code()).unwrap_or(2))
            }
            Self::File(error) => {
                terminal.error(&error.to_string());
                ExitCode::from(failure::USAGE)
            }
        }
    }
}

fn parse(arguments: &[OsString]) -> Result<(Cli, Vec<String>), Refusal> {
    let command = command();
    let hints = file::misspelt(&command, std::env::vars_os().filter_map(|(name, _)| name.into_string().ok()));
    let file = File::find(&command, arguments).map_err(Refusal::File)?;
    let matches = file.defaults(command).try_get_matches_from(arguments);
    let cli = matches.and_then(|matches| Cli::from_arg_matches(&matches));
    let cli = cli.map_err(|error| {
        let origin = file.origin(&error);
        Refusal::Usage(error, origin)
    })?;
    Ok((cli, hints))
}

async fn run(cli: Cli, terminal: &Terminal) -> anyhow::Result<ExitCode> {
    let global = &cli.global;
    match cli.command {
        Command::Worker(args) => worker::run(global, args).await?,
        Command::Api(args) => api::run(global, args).await?,
        Command::Install(args) => install::run(global, terminal, &args).await?,
        Command::Doctor(args) => return doctor::run(global, terminal, &args).await,
        Command::Status(args) => status::run(global, terminal, &args).await?,
        Command::Enqueue(args) => enqueue::run(global, terminal, args).await?,
        Command::Message(command) => message::run(global, terminal, command).await?,
        Command::App(command) => app::run(global, terminal, command).await?,
        Command::Organization(command) => organization::run(global, terminal, command).await?,
        Command::Suppress(command) => suppress::run(global, terminal, command).await?,
        Command::Key(command) => key::run(global, terminal, command).await?,
        Command::ReleaseHeld(args) => release_held::run(global, terminal, &args).await?,
        Command::Maintain(args) => maintain::run(global, terminal, &args).await?,
        Command::Bench(args) => bench::run(global, terminal, &args).await?,
        Command::Sandbox(args) => sandbox::run(args).await?,
        Command::Completions(args) => reference::completions(terminal, &args)?,
        Command::Man(args) => reference::man(terminal, &args)?,
    }
    Ok(ExitCode::SUCCESS)
}

#[cfg(test)]
mod tests;
