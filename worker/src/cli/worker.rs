//! `sms-outbox worker`.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use clap::Args;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::credentials::{EgressArgs, KeyArgs};
use super::{Global, session};
use crate::config::{self, WorkerSettings, duration, worker_name};
use crate::dispatcher;
use crate::provider::credential::Credentials;
use crate::provider::credential::reference::Folders;

/// Dispatch messages: claim what waits, hand it to the organizations' apps, record what came back
///
/// Run as many as you like, on as many machines. SIGTERM or SIGINT stops gracefully: nothing more is claimed, the
/// requests in flight end, their outcomes are recorded. A second signal stops at once; what was in flight ends as unclear.
#[derive(Debug, Args)]
pub(super) struct WorkerArgs {
    /// Name of this worker, unique among the running ones [default: host, process id and a random part]
    #[arg(long, env = "SMS_OUTBOX_WORKER_NAME", value_name = "NAME", value_parser = worker_name)]
    worker_name: Option<String>,
    /// Most messages in flight at once [1 to 10000]
    #[arg(long, env = "SMS_OUTBOX_CONCURRENCY", value_name = "N", default_value = "256", value_parser = bounded_concurrency)]
    concurrency: usize,
    /// Longest pause between two looks at the queue [50ms to 1min]
    #[arg(long, env = "SMS_OUTBOX_POLL_INTERVAL", value_name = "DURATION", default_value = "1s",
          value_parser = duration(Duration::from_millis(50), Duration::from_secs(60)))]
    poll_interval: Duration,
    /// Do not LISTEN for wake-ups, only poll: for a transaction pooler, which must carry prepared statements
    #[arg(long, env = "SMS_OUTBOX_NO_LISTEN")]
    no_listen: bool,
    /// Longest time for one request to a provider [1s to 10min]
    #[arg(long, env = "SMS_OUTBOX_HTTP_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = duration(Duration::from_secs(1), Duration::from_secs(600)))]
    http_timeout: Duration,
    /// How long a graceful stop waits for requests in flight [0s to 1h]
    #[arg(long, env = "SMS_OUTBOX_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "45s",
          value_parser = duration(Duration::ZERO, Duration::from_secs(3600)))]
    drain_timeout: Duration,
    /// How long after an attempt ended as unclear its provider is asked what became of it, where it can be asked; again after
    /// five and thirty times as long [1s to 1h]
    #[arg(long, env = "SMS_OUTBOX_LOOK_UP_AFTER", value_name = "DURATION", default_value = "1m",
          value_parser = duration(Duration::from_secs(1), Duration::from_secs(3600)))]
    look_up_after: Duration,
    /// Ask no provider what became of unclear attempts
    #[arg(long, env = "SMS_OUTBOX_NO_LOOK_UP")]
    no_look_up: bool,
    /// How often the worker says that it lives: others take over its part of the work after 10s of silence [1s to 4s]
    #[arg(long, env = "SMS_OUTBOX_HEARTBEAT_INTERVAL", value_name = "DURATION", default_value = "2s",
          value_parser = duration(Duration::from_secs(1), Duration::from_secs(4)))]
    heartbeat_interval: Duration,
    /// Answer GET /metrics for Prometheus at this address, where anybody who reaches it may read them; nowhere, if not given
    #[arg(long, env = "SMS_OUTBOX_METRICS_LISTEN", value_name = "ADDRESS", value_parser = config::address)]
    metrics_listen: Option<SocketAddr>,
    #[command(flatten)]
    keys: KeyArgs,
    /// Folders that credentials of the form file:/path may be in, divided by commas; else they are
    /// /etc/sms-outbox/credentials and $CREDENTIALS_DIRECTORY
    #[arg(long, env = "SMS_OUTBOX_CREDENTIALS_DIR", value_name = "DIR")]
    credentials_dir: Option<Folders>,
    #[command(flatten)]
    egress: EgressArgs,
}

fn bounded_concurrency(text: &str) -> Result<usize, String> {
    let number = text.parse().ok().filter(|number| (1..=10_000).contains(number));
    number.ok_or_else(|| "write a whole number from 1 to 10000".to_owned())
}

pub(super) async fn run(global: &Global, args: WorkerArgs) -> anyhow::Result<()> {
    let settings = settings(global, args)?;
    let (shutdown, now) = (CancellationToken::new(), CancellationToken::new());
    let signals = stop_on_signals(
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        shutdown.clone(),
        now.clone(),
    );
    let signals = tokio::spawn(signals);
    let result = dispatcher::run(settings, shutdown, now).await;
    signals.abort();
    result
}

fn settings(global: &Global, args: WorkerArgs) -> anyhow::Result<WorkerSettings> {
    // A wrong URL is told before the worker starts, not in its reconnect loop.
    session::target(global, "worker")?;
    let host = config::host();
    Ok(WorkerSettings {
        database_url: global.database_url.clone().unwrap_or_default().into(),
        name: args.worker_name.unwrap_or_else(|| config::default_worker_name(&host)),
        host,
        concurrency: args.concurrency,
        poll_interval: args.poll_interval,
        listen: !args.no_listen,
        http_timeout: args.http_timeout,
        connect_timeout: global.connect_timeout,
        drain_timeout: args.drain_timeout,
        look_up_after: (!args.no_look_up).then_some(args.look_up_after),
        heartbeat_interval: args.heartbeat_interval,
        metrics_listen: args.metrics_listen,
        credentials: Arc::new(Credentials {
            keys: args.keys.keys()?,
            folders: args.credentials_dir.unwrap_or_else(Folders::usual),
        }),
        allowed: args.egress.allowed(),
    })
}

/// The first signal cancels `shutdown`, the second `now`.
pub(super) async fn stop_on_signals(
    mut terminate: Signal,
    mut interrupt: Signal,
    shutdown: CancellationToken,
    now: CancellationToken,
) {
    for token in [shutdown, now] {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
        token.cancel();
    }
}
