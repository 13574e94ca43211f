//! `sms-outbox bench`.

mod dispatch;
mod enqueue;
mod report;
mod site;

use std::io::{self, BufRead, IsTerminal};
use std::time::Duration;

use anyhow::bail;
use clap::Args;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use self::site::Site;
use super::failure::Usage;
use super::terminal::{Terminal, count, size};
use super::worker::stop_on_signals;
use super::{Global, session};
use crate::config::duration;
use crate::outbox::postgres::connect::Target;
use crate::outbox::postgres::operator::bench;

/// Bytes on the disk, and in the WAL, that one message takes at most while it is there.
const OF_A_MESSAGE: i64 = 4096;
/// The larger of the two numbers of connections.
const CONNECTIONS: usize = 16;

/// Measure this database: what an enqueue costs beside a bare INSERT, how fast messages are claimed and recorded
///
/// It enqueues messages of an organization made for the run, claims and finishes them as a worker does, and removes them.
/// Nothing is sent: no provider is ever asked. The server is loaded fully meanwhile, so it refuses where messages wait or
/// a worker is alive: measure in a database of its own on the same server. The login must be a member of
/// sms_outbox_operator, sms_outbox_worker and sms_outbox_app, and may create a schema (sms_outbox_bench, dropped at the end).
#[derive(Debug, Args)]
pub(super) struct BenchArgs {
    /// Do not ask before it begins
    #[arg(long)]
    yes: bool,
    /// How long each of the twelve measurements of enqueues and INSERTs lasts at most [100ms to 1min]
    #[arg(long, value_name = "DURATION", default_value = "2s",
          value_parser = duration(Duration::from_millis(100), Duration::from_secs(60)))]
    duration: Duration,
    /// Most messages that are enqueued in all; each needs about 4 kB of disk and of WAL [600 to 10000000]
    #[arg(long, value_name = "N", default_value = "200000", value_parser = clap::value_parser!(u64).range(600..=10_000_000))]
    max_messages: u64,
    /// Measure nothing: remove what a run left behind that was killed
    #[arg(long)]
    clean_up: bool,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: &BenchArgs) -> anyhow::Result<()> {
    let target = session::target(global, "bench")?;
    let control = target.connect().await?;
    let server = target.check(&control).await?;
    let left = site::examine(&control, &server.database, args.clean_up).await?;
    if !args.clean_up && !args.yes {
        ask(terminal, args, &target)?;
    }
    if !bench::begin(&control).await? {
        bail!("another sms-outbox bench runs in this database; wait for its end");
    }
    let messages = site::clean_up(&control, terminal, &left).await?;
    if args.clean_up {
        terminal.note(&format!(
            "removed what was left: {} of {}",
            count(messages, "message"),
            count(left.len() as i64, "run")
        ));
        return Ok(());
    }

    let (stop, now) = (CancellationToken::new(), CancellationToken::new());
    tokio::spawn(stop_on_signals(
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        stop.clone(),
        now.clone(),
    ));
    let whole = async {
        let (report, removed) =
            Site::open(&target, control, server.version_num).await?.measure(terminal, args, &stop).await?;
        report::print(terminal, &report, &removed)
    };
    tokio::select! {
        biased;
        done = whole => done,
        () = now.cancelled() => bail!("stopped at once, and left behind what was measured with; remove it: sms-outbox bench --clean-up"),
    }
}

/// Says what is about to happen, and goes on only where a person agrees.
fn ask(terminal: &Terminal, args: &BenchArgs, target: &Target) -> anyhow::Result<()> {
    let messages = i64::try_from(args.max_messages).unwrap_or(i64::MAX);
    terminal.note(&format!(
        "This measures {target}: it loads the server fully, with {CONNECTIONS} connections, for {} s and some more, enqueues at most \
         {messages} messages of its own, which nobody sends, and removes them. Meanwhile it may take {} of disk, and as much WAL \
         again. Applications will feel it.",
        (args.duration * 12).as_secs(),
        size(messages.saturating_mul(OF_A_MESSAGE))
    ));
    let mut input = io::stdin();
    if !input.is_terminal() {
        return Err(Usage("--yes: not given, and there is nobody to ask".to_owned()).into());
    }
    terminal.prompt("Begin? [y/N] ");
    let mut answer = String::new();
    io::BufReader::new(&mut input).read_line(&mut answer)?;
    if !matches!(answer.trim(), "y" | "yes") {
        bail!("not begun; nothing was changed");
    }
    Ok(())
}
