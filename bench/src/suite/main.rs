//! The suite: what messages cost, ours beside other queues and beside floors that nobody can be faster than, in one run, rounds
//! interleaved. `make bench` runs it on release builds; docs/benchmarks.md holds what it writes.

mod bare;
mod chart;
mod floor;
mod goals;
mod load;
mod machine;
mod message;
mod ours;
mod parts;
mod peer;
mod provider;
mod record;
mod report;
mod server;

use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::{Parser, Subcommand, ValueEnum};
use parts::{Amounts, Bench, Part};
use peer::Peer;
use record::Recorder;
use server::Provider;
use sms_outbox_bench::say;
use sms_outbox_tests::{Database, paths};

/// Our name in the results.
pub(crate) const OURS: &str = "sms-outbox";

#[derive(Debug, Parser)]
#[command(name = "bench-suite", about = "Ours, other queues on PostgreSQL, and two floors, in one run")]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, keep the raw results, and write docs/benchmarks.md
    Run(RunArguments),
    /// Measure ours and the floor for a few minutes, and compare the ratios with those that are committed
    Quick {
        /// Worse by more than this share is told, and fails where the rounds were not noisy
        #[arg(long, default_value_t = 0.25)]
        tolerance: f64,
    },
    /// Write docs/benchmarks.md anew from the raw results
    Report,
    #[command(hide = true)]
    Provider {
        #[arg(long)]
        listen: String,
        #[arg(long, default_value_t = 0)]
        delay_ms: u64,
    },
    #[command(hide = true)]
    FloorHttp(Floor),
    #[command(hide = true)]
    FloorFlood(Floor),
    #[command(hide = true)]
    FloorLoop(Floor),
}

#[derive(Debug, clap::Args)]
struct RunArguments {
    /// Parts to run; all, if not given
    #[arg(long, value_delimiter = ',')]
    parts: Vec<Part>,
    /// Peers to run beside, by the names of bench/peers; 'none' for ours alone; all, if not given
    #[arg(long, value_delimiter = ',')]
    peers: Vec<String>,
    /// Rounds of each part, after one that warms up
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u32).range(1..=99))]
    rounds: u32,
    /// Seconds of a round, where it goes by time
    #[arg(long, default_value_t = 10, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Messages of a round, where it goes by messages
    #[arg(long, default_value_t = 100_000, value_parser = clap::value_parser!(u32).range(1_000..=10_000_000))]
    messages: u32,
    /// Messages of the large backlog
    #[arg(long, default_value_t = 10_000_000, value_parser = clap::value_parser!(u32).range(20_000..=100_000_000))]
    backlog: u32,
    /// How long a snapshot is pinned
    #[arg(long, default_value_t = 300, value_parser = clap::value_parser!(u64).range(3..=86_400))]
    pinned_seconds: u64,
    /// Messages in flight at once: the worker's --concurrency, and as many for each peer
    #[arg(long, default_value_t = 256, value_parser = clap::value_parser!(u32).range(1..=10_000))]
    in_flight: u32,
    /// Seconds to wait, in all, for others on the machine to be quiet before something is measured
    #[arg(long, default_value_t = 600, value_parser = clap::value_parser!(u64).range(0..=86_400))]
    patience: u64,
    /// Where the pretend provider listens; a free port, if not given
    #[arg(long, default_value = "127.0.0.1:0")]
    listen: String,
    /// File of the raw results; docs/benchmarks.md is written only from the default one
    #[arg(long)]
    results: Option<PathBuf>,
}

#[derive(Debug, clap::Args)]
struct Floor {
    #[arg(long)]
    provider: String,
    #[arg(long)]
    messages: u32,
    #[arg(long, default_value_t = 1)]
    in_flight: u32,
    #[arg(long, default_value = "")]
    url: String,
}

/// The committed results.
fn committed() -> PathBuf {
    paths::checkout("docs/benchmarks/results.jsonl")
}

/// Without the stack, whatever RUST_BACKTRACE says: most errors here are a wrong argument.
#[tokio::main]
async fn main() -> ExitCode {
    carry_out().await.unwrap_or_else(|error| {
        say(&format!("error: {error:#}"));
        ExitCode::FAILURE
    })
}

async fn carry_out() -> Result<ExitCode> {
    match Arguments::parse().command {
        Command::Run(arguments) => run(arguments).await?,
        Command::Quick { tolerance } => return quick(tolerance).await,
        Command::Report => report::write(&record::read(&committed())?)?,
        Command::Provider { listen, delay_ms } => provider::serve(&listen, Duration::from_millis(delay_ms)).await?,
        Command::FloorHttp(floor) => floor::http(&floor.provider, floor.messages, floor.in_flight).await?,
        Command::FloorFlood(floor) => floor::flood(&floor.provider, floor.messages).await?,
        Command::FloorLoop(floor) => {
            let provider = (floor.provider != "none").then_some(floor.provider.as_str());
            bare::drain(&floor.url, floor.messages, floor.in_flight, provider).await?;
        }
    }
    Ok(ExitCode::SUCCESS)
}

async fn run(arguments: RunArguments) -> Result<()> {
    let amounts = Amounts {
        rounds: arguments.rounds,
        seconds: arguments.seconds,
        messages: arguments.messages,
        backlog: arguments.backlog,
        pinned_seconds: arguments.pinned_seconds,
        in_flight: arguments.in_flight,
        patience: Duration::from_secs(arguments.patience),
    };
    ensure!(
        !cfg!(debug_assertions) || arguments.results.is_some(),
        "this is a debug build, whose figures mean nothing: run it by 'make bench', or name a file with --results"
    );
    let peers = chosen(&arguments.peers)?;
    let parts = if arguments.parts.is_empty() { Part::value_variants().to_vec() } else { arguments.parts };
    let results = arguments.results.clone().unwrap_or_else(committed);
    if arguments.results.is_none() {
        std::fs::create_dir_all(paths::checkout("docs/benchmarks"))?;
    }
    let given: Vec<String> = std::env::args().skip(2).collect();
    let command =
        if given.is_empty() { "make bench".to_owned() } else { format!("make bench ARGS=\"{}\"", given.join(" ")) };
    // A run that is broken off leaves the committed results as they were.
    let partial = results.with_extension("partial");
    let recorder = measure(command, amounts, peers, &parts, &arguments.listen, &partial).await?;
    std::fs::rename(&partial, &results)?;
    if arguments.results.is_none() {
        report::write(recorder.lines())?;
    }
    say(&format!("raw results: {}", results.display()));
    Ok(())
}

/// The peers of these names.
fn chosen(names: &[String]) -> Result<Vec<Peer>> {
    match names {
        [] => peer::names()?.iter().map(|name| Peer::named(name)).collect(),
        [none] if none == "none" => Ok(Vec::new()),
        names => names.iter().map(|name| Peer::named(name)).collect(),
    }
}

async fn measure(
    command: String,
    amounts: Amounts,
    peers: Vec<Peer>,
    parts: &[Part],
    listen: &str,
    results: &std::path::Path,
) -> Result<Recorder> {
    machine::check(&amounts, listen, results, &paths::run()?)?;
    let cluster = server::start().await?;
    let database = Database::open(&cluster, "postgres").await?;
    let (head, cannot) = machine::describe(&database, command, &amounts, &peers).await?;
    let mut recorder = Recorder::begin(results, head, amounts.patience)?;
    for (peer, reason) in &cannot {
        recorder.absent("all", &peer.name, reason)?;
    }
    let peers = peers.into_iter().filter(|peer| !cannot.iter().any(|(other, _)| other.name == peer.name)).collect();
    let provider = Provider::start(listen, Duration::ZERO).await?;
    let mut bench = Bench { cluster, provider, recorder, amounts, peers };
    for part in parts {
        bench.run(*part).await?;
    }
    Ok(bench.recorder)
}

async fn quick(tolerance: f64) -> Result<ExitCode> {
    let then = record::read(&committed()).context("there is nothing to compare with: 'make bench' writes it")?;
    let amounts = Amounts {
        rounds: 3,
        seconds: 3,
        messages: 30_000,
        backlog: 100_000,
        pinned_seconds: 15,
        in_flight: 256,
        patience: Duration::from_secs(60),
    };
    let parts = [Part::Provider, Part::Enqueue, Part::Transaction, Part::Drain, Part::Storage, Part::Backlog];
    let results = paths::run()?.join(format!("quick-{}.jsonl", std::process::id()));
    let recorder = measure("make bench-quick".to_owned(), amounts, Vec::new(), &parts, "127.0.0.1:0", &results).await?;
    let worse = report::compare(recorder.lines(), &then, tolerance);
    std::fs::remove_file(&results)?;
    if worse {
        say("Worse than the committed figures, in rounds that were not noisy.");
        return Ok(ExitCode::FAILURE);
    }
    Ok(ExitCode::SUCCESS)
}
