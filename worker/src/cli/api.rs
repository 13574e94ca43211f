//! `sms-outbox api`.

use std::io::{self, Write};
use std::net::SocketAddr;
use std::time::Duration;

use anyhow::Context;
use clap::Args;
use tokio::net::TcpListener;
use tokio::signal::unix::{SignalKind, signal};
use tokio_util::sync::CancellationToken;

use super::worker::stop_on_signals;
use super::{Global, session};
use crate::api::auth::AuthArgs;
use crate::api::{self, ApiSettings};
use crate::config::duration;
use crate::outbox::postgres::api::Limits;

/// Serve the HTTP API: queue messages, and see what became of them
///
/// Log in as a member of sms_outbox_api. The first line on standard output says where it listens; /docs there describes every call. Put a proxy with TLS
/// before it: it speaks plain HTTP. SIGTERM or SIGINT stops gracefully: no new connections, the requests in flight end. A second signal stops at once.
#[derive(Debug, Args)]
pub(super) struct ApiArgs {
    /// Address to listen on; port 0 takes a free one
    #[arg(long, env = "SMS_OUTBOX_API_LISTEN", value_name = "ADDRESS", default_value = "127.0.0.1:8080", value_parser = address)]
    listen: SocketAddr,
    /// Most connections to the database [1 to 1000]
    #[arg(long, env = "SMS_OUTBOX_API_POOL_SIZE", value_name = "N", default_value = "16", value_parser = count(1000))]
    pool_size: usize,
    /// How long a request waits for a free connection to the database [10ms to 1min]
    #[arg(long, env = "SMS_OUTBOX_API_POOL_TIMEOUT", value_name = "DURATION", default_value = "2s",
          value_parser = duration(Duration::from_millis(10), Duration::from_secs(60)))]
    pool_timeout: Duration,
    /// How long a statement may take before it is cancelled [100ms to 5min]
    #[arg(long, env = "SMS_OUTBOX_API_STATEMENT_TIMEOUT", value_name = "DURATION", default_value = "10s",
          value_parser = duration(Duration::from_millis(100), Duration::from_secs(300)))]
    statement_timeout: Duration,
    /// Most calls that are worked on at once; further ones wait 250 ms for their turn, then get 503 [1 to 100000]
    #[arg(long, env = "SMS_OUTBOX_API_MAX_IN_FLIGHT", value_name = "N", default_value = "256", value_parser = count(100_000))]
    max_in_flight: usize,
    /// Most connections of clients at once; then those that send nothing make room [1 to 100000]
    #[arg(long, env = "SMS_OUTBOX_API_MAX_CONNECTIONS", value_name = "N", default_value = "1024", value_parser = count(100_000))]
    max_connections: usize,
    /// How long a client may take to send the head of a request, and again its body; idle connections are closed after it [100ms to 10min]
    #[arg(long, env = "SMS_OUTBOX_API_READ_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = duration(Duration::from_millis(100), Duration::from_secs(600)))]
    read_timeout: Duration,
    /// How long a graceful stop waits for requests in flight [0s to 1h]
    #[arg(long, env = "SMS_OUTBOX_API_DRAIN_TIMEOUT", value_name = "DURATION", default_value = "30s",
          value_parser = duration(Duration::ZERO, Duration::from_secs(3600)))]
    drain_timeout: Duration,
    #[command(flatten)]
    auth: AuthArgs,
}

fn address(text: &str) -> Result<SocketAddr, String> {
    text.parse().map_err(|_| "write an IP address and a port, such as 127.0.0.1:8080".to_owned())
}

fn count(most: usize) -> impl Fn(&str) -> Result<usize, String> + Clone + Send + Sync + 'static {
    move |text| {
        let number = text.parse().ok().filter(|number| (1..=most).contains(number));
        number.ok_or_else(|| format!("write a whole number from 1 to {most}"))
    }
}

pub(super) async fn run(global: &Global, args: ApiArgs) -> anyhow::Result<()> {
    let target = session::target(global, "api")?;
    let settings = ApiSettings {
        limits: Limits { pool_size: args.pool_size, wait: args.pool_timeout, statement: args.statement_timeout },
        auth: args.auth.settings()?,
        max_in_flight: args.max_in_flight,
        max_connections: args.max_connections,
        read_timeout: args.read_timeout,
        drain_timeout: args.drain_timeout,
    };
    let listener = TcpListener::bind(args.listen)
        .await
        .with_context(|| format!("--listen: cannot listen on {}; another port, or 0 for a free one", args.listen))?;
    let (shutdown, now) = (CancellationToken::new(), CancellationToken::new());
    let signals = stop_on_signals(
        signal(SignalKind::terminate())?,
        signal(SignalKind::interrupt())?,
        shutdown.clone(),
        now.clone(),
    );
    let signals = tokio::spawn(signals);
    writeln!(io::stdout().lock(), "listening on http://{}", listener.local_addr()?)?;
    let result = api::serve(listener, target, settings, shutdown, now).await;
    signals.abort();
    result
}
