//! Puts a worker together from its settings, and runs it until it is told to stop.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, anyhow, bail};
use secrecy::ExposeSecret;
use tokio::net::TcpListener;
use tokio::sync::{Notify, watch};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::heart::{self, Counters};
use super::{Deliver, Dispatcher, Options, Signals};
use crate::config::WorkerSettings;
use crate::delivery::{Delivery, DeliveryOptions};
use crate::metrics::catalog::WORKER;
use crate::metrics::{self, Exporter, Measured};
use crate::notifier;
use crate::outbox::postgres::PostgresOutbox;
use crate::outbox::postgres::connect::Target;
use crate::outbox::{Lease, OutboxError, Outcome};
use crate::provider::Registry;
use crate::provider::http::{Client, ClientOptions};
use crate::reconciler::{self, LookUps};
use crate::scheduler::{Limits, Scheduler};

/// Time that a lease must have beyond the longest request: to claim, to wait for the outcome's turn, and to record it.
const LEASE_MARGIN: Duration = Duration::from_secs(5);

impl Deliver for Delivery {
    async fn deliver(&self, lease: &Lease, claimed: Instant) -> Outcome {
        Self::deliver(self, lease, claimed).await
    }
}

/// The first prepared statement is also where a pooler shows that cannot carry any.
fn explain(error: OutboxError) -> anyhow::Error {
    let cure = if error.to_string().contains("prepared statement") {
        "; a pooler stands before the server that carries no prepared statements: connect to the server itself, or by \
         PgBouncer 1.21 or newer with max_prepared_statements"
    } else {
        ""
    };
    anyhow!("reading the setting sms_outbox.lease_timeout: {error}{cure}")
}

/// Begins to count and to answer scrapes, where that is asked for.
async fn start_metrics(settings: &WorkerSettings) -> anyhow::Result<Option<JoinHandle<()>>> {
    let Some(address) = settings.metrics_listen else { return Ok(None) };
    let listener = TcpListener::bind(address)
        .await
        .with_context(|| format!("metrics_listen: cannot listen on {address}; another port, or 0 for a free one"))?;
    let exporter = Exporter::start("worker", WORKER)?;
    metrics::worker::begin(settings.concurrency);
    tracing::info!(address = %listener.local_addr()?, "metrics on http, path /metrics");
    Ok(Some(tokio::spawn(metrics::serve(listener, exporter))))
}

/// Waits until this worker knows of the others, and they of it: until their next beat, and a while to act on it, each takes
/// what is now this one's part of the limits.
async fn meet(mut workers: watch::Receiver<Vec<String>>, beat: Duration) {
    if workers.wait_for(|live| !live.is_empty()).await.is_ok_and(|live| live.len() > 1) {
        tokio::time::sleep(beat * 3 / 2).await;
    }
}

/// Runs a worker: until `shutdown` (drain, then end) or `abort` (end now).
pub async fn run(
    settings: WorkerSettings,
    shutdown: CancellationToken,
    abort: CancellationToken,
) -> anyhow::Result<()> {
    // First, so that the first connection is counted too.
    let scrapes = start_metrics(&settings).await?;
    let target = Target::parse(
        settings.database_url.expose_secret(),
        &format!("sms-outbox worker {}", settings.name),
        settings.connect_timeout,
    )?;
    target.check(&target.connect().await?).await?;
    // A name may be used again after a crash, or twice by mistake; the leases of another incarnation are not ours to give back.
    let incarnation = uuid::Uuid::new_v4().simple().to_string();
    let worker = format!("{}/{}", settings.name, &incarnation[..6]);
    let outbox = Arc::new(PostgresOutbox::new(target, &worker)?);

    let lease = outbox.lease_timeout().await.map_err(explain)?;
    if lease < settings.http_timeout + LEASE_MARGIN {
        bail!(
            "http_timeout: {:?} leaves no room in the lease of {lease:?} (setting sms_outbox.lease_timeout of the database); \
             shorten http_timeout to {:?} at most, or lengthen the lease",
            settings.http_timeout,
            lease.saturating_sub(LEASE_MARGIN),
        );
    }

    let counters = Arc::new(Counters::default());
    let wake = Arc::new(Notify::new());
    let (live, workers) = watch::channel(Vec::new());
    let measured = Arc::new(Measured((*outbox).clone()));
    let heart = tokio::spawn(heart::run(
        measured.clone(),
        counters.clone(),
        settings.host.clone(),
        settings.heartbeat_interval,
        live,
    ));
    let ear = settings.listen.then(|| tokio::spawn(notifier::run((*outbox).clone(), wake.clone())));

    let (others, stop, abandon) = (workers.clone(), shutdown.clone(), abort.clone());
    let signals = Signals { wake, workers, shutdown, abort, counters };
    let options = Options {
        concurrency: settings.concurrency,
        poll_interval: settings.poll_interval,
        drain_timeout: settings.drain_timeout,
    };
    let client = Client::new(ClientOptions {
        connect_timeout: settings.connect_timeout,
        allowed: settings.allowed.clone(),
        ..ClientOptions::default()
    })?;
    let reconciler = settings.look_up_after.map(|after| {
        let credentials = settings.credentials.clone();
        let look_ups = LookUps::new(client.clone(), Registry::new(), credentials, after, settings.http_timeout);
        tokio::spawn(reconciler::run(measured.clone(), Arc::new(look_ups), after))
    });
    let delivery = Delivery::new(client, Registry::new(), DeliveryOptions { timeout: settings.http_timeout })
        .with_credentials(settings.credentials.clone());
    let scheduler = Scheduler::new(&*worker, Limits::default());
    let dispatcher = Dispatcher::new(measured, Arc::new(Measured(delivery)), scheduler, options, signals);
    tracing::info!(worker, database = %outbox.target(), concurrency = settings.concurrency, listen = settings.listen, "worker ready");
    tokio::select! {
        () = meet(others, settings.heartbeat_interval) => {}
        () = stop.cancelled() => {}
        () = abandon.cancelled() => {}
    }
    // A task: what runs outside of them, as this function may, is a change of threads away from each answer of the database.
    let left = tokio::spawn(dispatcher.run()).await.context("the dispatcher panicked")?;

    for task in [Some(heart), ear, scrapes, reconciler].into_iter().flatten() {
        task.abort();
    }
    if left > 0 {
        bail!(
            "stopped with {left} attempts in flight; those messages end as dispatch_timeout when their leases are over"
        );
    }
    // Others notice a silent worker by themselves, only later: an error here is not worth a failed stop.
    if let Err(error) = outbox.goodbye().await {
        tracing::debug!(%error, "no goodbye");
    }
    tracing::info!("worker stopped");
    Ok(())
}
