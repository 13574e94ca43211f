//! The places of a measurement: what must be so before it begins, what it makes, and that all of it goes.

use std::time::Duration;

use anyhow::{anyhow, bail};
use serde_json::json;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;
use tokio_util::sync::CancellationToken;
use uuid::Uuid;

use super::report::{Removed, Report};
use super::{BenchArgs, CONNECTIONS, dispatch, enqueue};
use crate::cli::failure;
use crate::cli::terminal::{Terminal, count};
use crate::message::AppId;
use crate::outbox::OrganizationId;
use crate::outbox::postgres::PostgresOutbox;
use crate::outbox::postgres::connect::Target;
use crate::outbox::postgres::operator::apps::Policy;
use crate::outbox::postgres::operator::bench::{self, Load};
use crate::outbox::postgres::operator::{apps, server, stats};

/// How long the end waits for a server that restarts, and for statements that it still runs.
const PATIENCE: Duration = Duration::from_secs(30);
/// Messages whose way from commit to claim is timed.
const SAMPLES: u64 = 200;

/// Refuses where a measurement would do harm or come to nothing; returns what earlier ones left behind.
pub(super) async fn examine(client: &Client, database: &str, cleans_up: bool) -> anyhow::Result<Vec<String>> {
    let found = bench::situation(client).await?;
    if found.in_recovery {
        bail!("this server is a standby: nothing can be enqueued here; connect to the primary");
    }
    if found.organization.as_deref() != Some("*") {
        bail!(
            "this login acts for one organization alone, and a measurement has one of its own; use a login that is not bound"
        );
    }
    if !found.missing_roles.is_empty() {
        bail!(
            "this login must be a member of {} too: GRANT … TO …, or log in as superuser",
            found.missing_roles.join(", ")
        );
    }
    if !found.may_create {
        bail!(
            "this login may not create a schema in {database}, for the table of the bare INSERT: GRANT CREATE ON DATABASE … TO …"
        );
    }
    if found.is_taken {
        bail!(
            "there is a schema sms_outbox_bench that this command did not make: rename it, or drop it if it is of no use"
        );
    }
    if cleans_up {
        return Ok(found.left);
    }
    let elsewhere = "measure in a database of its own on this server: createdb bench, then sms-outbox install and sms-outbox bench there";
    if let Some(worker) = found.workers.first() {
        bail!(
            "worker {worker} is alive and would take the messages of the measurement; stop the workers, or {elsewhere}"
        );
    }
    if found.waiting + found.sending > 0 {
        bail!(
            "messages wait here ({}) or are being sent ({}), and the measurement would hold them up; {elsewhere}",
            found.waiting,
            found.sending
        );
    }
    Ok(found.left)
}

/// Removes what earlier measurements left behind; returns how many messages.
pub(super) async fn clean_up(client: &Client, terminal: &Terminal, left: &[String]) -> anyhow::Result<i64> {
    let mut messages = 0;
    for organization in left {
        messages += forget(client, terminal, organization).await?;
    }
    bench::drop_floor(client).await?;
    Ok(messages)
}

async fn forget(client: &Client, terminal: &Terminal, organization: &str) -> anyhow::Result<i64> {
    let progress = terminal.progress(None, "messages removed");
    let mut messages = 0;
    loop {
        let more = bench::forget(client, organization).await?;
        if more == 0 {
            progress.finish_and_clear();
            return Ok(messages);
        }
        messages += more;
        progress.set_position(messages.unsigned_abs());
    }
}

/// What one run has in the database.
pub(super) struct Site<'a> {
    target: &'a Target,
    control: Client,
    version_num: i32,
    organization: OrganizationId,
    /// Opened before anything is changed: too few are a reason not to begin.
    connections: Vec<Client>,
    size: i64,
}

impl<'a> Site<'a> {
    /// Opens the connections, and changes nothing.
    pub(super) async fn open(target: &'a Target, control: Client, version_num: i32) -> anyhow::Result<Self> {
        let mut connections = Vec::with_capacity(CONNECTIONS);
        for _ in 0..CONNECTIONS {
            connections.push(target.connect().await?);
        }
        let run = Uuid::new_v4().simple().to_string();
        let organization = OrganizationId::from(format!("sms-outbox-bench:{}", run.get(..12).unwrap_or_default()));
        let size = bench::size(&control).await?;
        Ok(Self { target, control, version_num, organization, connections, size })
    }

    /// Measures, and removes everything however that ended.
    pub(super) async fn measure(
        mut self,
        terminal: &Terminal,
        args: &BenchArgs,
        stop: &CancellationToken,
    ) -> anyhow::Result<(Report, Removed)> {
        let measured = self.try_measure(terminal, args, stop).await;
        match (measured, self.remove(terminal).await) {
            (Ok(report), Ok(removed)) => Ok((report, removed)),
            (Err(error), Ok(removed)) => {
                terminal.note(&format!("removed again: {} and the organization", count(removed.messages, "message")));
                Err(error)
            }
            (measured, Err(error)) => Err(anyhow!(
                "{}{}\nwhat was measured with is left behind; remove it: sms-outbox bench --clean-up",
                measured.err().map(|first| failure::render(&first) + "; and then ").unwrap_or_default(),
                failure::render(&error)
            )),
        }
    }

    async fn try_measure(
        &mut self,
        terminal: &Terminal,
        args: &BenchArgs,
        stop: &CancellationToken,
    ) -> anyhow::Result<Report> {
        let control = &self.control;
        bench::create_floor(control).await?;
        // A reference that leads nowhere: a worker that comes alive after all could not even ask.
        let config = json!({"token": "env:SMS_OUTBOX_BENCH_SENDS_NOTHING"});
        let app = apps::install(control, &self.organization, "sandbox", "bench", &config, &Policy::default()).await?;
        let mut loads = Vec::with_capacity(self.connections.len());
        for client in self.connections.drain(..) {
            loads.push(Load::prepare(client, &self.organization).await?);
        }
        let outbox = PostgresOutbox::new(self.target.clone(), &self.organization)?;

        let progress = terminal.progress(Some(enqueue::STEPS + 2), "enqueue");
        let before = server::speed(control, self.version_num).await?;
        let enqueued = enqueue::measure(control, &loads, args, stop, &progress).await?;
        progress.set_message("claim and finish");
        alone(control, stop).await?;
        let dispatched = dispatch::drain(control, &outbox, &self.organization, AppId(app), stop).await?;
        progress.inc(1);
        progress.set_message("commit to claim");
        alone(control, stop).await?;
        let Some(load) = loads.first() else { bail!("no connection is left") };
        let waited = dispatch::wait(&outbox, load, &self.organization, AppId(app), SAMPLES, stop).await?;
        progress.finish_and_clear();
        let after = server::speed(control, self.version_num).await?;
        let facts = server::facts(control).await?;
        Ok(Report::new(args, enqueued, dispatched, waited, &facts, &before, &after))
    }

    /// Removes everything, on a new connection where the old one is lost.
    async fn remove(mut self, terminal: &Terminal) -> anyhow::Result<Removed> {
        let deadline = Instant::now() + PATIENCE;
        while self.control.is_closed() || bench::others(&self.control).await.is_err() {
            match self.target.connect().await {
                Ok(client) => self.control = client,
                Err(error) if Instant::now() > deadline => return Err(error.into()),
                Err(_) => sleep(Duration::from_millis(200)).await,
            }
        }
        // What the server still does for connections of before could come after the end.
        while bench::others(&self.control).await? > 0 && Instant::now() < deadline {
            sleep(Duration::from_millis(20)).await;
        }
        let messages = forget(&self.control, terminal, &self.organization).await?;
        bench::drop_floor(&self.control).await?;
        Ok(Removed { messages, grown_bytes: (bench::size(&self.control).await? - self.size).max(0) })
    }
}

/// Whether to go on: not after a signal, nor beside a worker, which would take the messages.
pub(super) async fn alone(control: &Client, stop: &CancellationToken) -> anyhow::Result<()> {
    if stop.is_cancelled() {
        bail!("stopped before the end: there is no result");
    }
    if let Some(worker) = stats::workers(control).await?.into_iter().find(|worker| worker.alive) {
        bail!("worker {} came alive and takes the messages of the measurement; stop it and begin anew", worker.name);
    }
    Ok(())
}
