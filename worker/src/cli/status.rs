//! `sms-outbox status`.

use std::time::Duration;

use clap::Args;
use serde::Serialize;
use serde_json::json;
use tokio_postgres::Client;

use super::app::list::state;
use super::message::groups;
use super::terminal::{Terminal, age, or_dash, time};
use super::{Global, session};
use crate::config::duration;
use crate::message::DispatchStatus;
use crate::outbox::postgres::operator::apps::{self, App};
use crate::outbox::postgres::operator::moves::{self, Group};
use crate::outbox::postgres::operator::stats::{self, Check, Queue, Waiting, Worker};

/// Show the queue: counts, why what waits waits, what is unclear, apps that are not open, workers, health
#[derive(Debug, Args)]
pub(super) struct StatusArgs {
    /// Only this organization
    #[arg(long, short = 'g', value_name = "ID")]
    organization: Option<String>,
    /// Show it again and again, every 2 s or so often as said [500ms to 1h]
    #[arg(long, value_name = "DURATION", num_args = 0..=1, default_missing_value = "2s",
          value_parser = duration(Duration::from_millis(500), Duration::from_secs(3600)))]
    watch: Option<Duration>,
}

#[derive(Serialize)]
struct Status {
    queues: Vec<Queue>,
    waiting: Vec<Waiting>,
    unclear: Vec<Group>,
    apps: Vec<App>,
    workers: Vec<Worker>,
    health: Vec<Check>,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: &StatusArgs) -> anyhow::Result<()> {
    let client = session::open(global, "status").await?;
    loop {
        let status = read(&client, args.organization.as_deref()).await?;
        if args.watch.is_some() {
            terminal.clear()?;
        }
        if terminal.is_json() {
            terminal.json(&status)?;
        } else {
            print(&client, terminal, status).await?;
        }
        match args.watch {
            Some(pause) => tokio::time::sleep(pause).await,
            None => return Ok(()),
        }
    }
}

async fn read(client: &Client, organization: Option<&str>) -> anyhow::Result<Status> {
    let queues = stats::queues(client, organization).await?;
    let mut unclear = Vec::new();
    for queue in queues.iter().filter(|queue| queue.dispatch_timeout > 0) {
        let filter =
            json!({"dispatch_status": DispatchStatus::DispatchTimeout, "organization_id": queue.organization_id});
        unclear.extend(moves::survey(client, &filter).await?);
    }
    Ok(Status {
        queues,
        unclear,
        waiting: stats::waiting(client, organization).await?,
        apps: apps::list(client, organization).await?,
        workers: stats::workers(client).await?,
        health: stats::health(client).await?,
    })
}

async fn print(client: &Client, terminal: &Terminal, status: Status) -> anyhow::Result<()> {
    queues(terminal, &status.queues)?;
    if status.apps.is_empty() {
        terminal.line("\nNo app is installed: sms-outbox app install ORGANIZATION PROVIDER …")?;
    }
    waiting(terminal, &status.waiting)?;
    if !status.unclear.is_empty() {
        terminal.line("\nNobody knows whether these were sent (how to decide: docs/guides/unclear.md)")?;
        groups::print(client, terminal, status.unclear).await?;
    }
    let closed: Vec<_> = status.apps.iter().filter(|app| app.paused || app.state != "open").collect();
    if !closed.is_empty() {
        terminal.line("\nApps that take no messages now")?;
        let rows = closed.into_iter().map(|app| {
            vec![
                app.app_id.to_string(),
                app.organization_id.clone(),
                app.provider_slug.clone(),
                app.name.clone(),
                state(app),
            ]
        });
        terminal.table(&["app", "organization", "provider", "name", "state"], rows.collect())?;
    }
    workers(terminal, &status.workers)?;
    let unwell: Vec<_> = status.health.iter().filter(|check| check.status != "ok").collect();
    if !unwell.is_empty() {
        terminal.line("\nHealth (sms-outbox doctor tells the cures)")?;
        let rows =
            unwell.into_iter().map(|check| vec![check.status.clone(), check.check.clone(), check.detail.clone()]);
        terminal.table(&["status", "check", "detail"], rows.collect())?;
    }
    Ok(())
}

fn queues(terminal: &Terminal, queues: &[Queue]) -> anyhow::Result<()> {
    let counts = |q: &Queue| {
        [q.pending, q.scheduled, q.held, q.sending, q.sent, q.failed, q.dispatch_timeout, q.canceled, q.expired]
    };
    if queues.iter().all(|q| counts(q) == [0; 9]) {
        return terminal
            .line("No messages yet; enqueue one: sms-outbox enqueue --organization ID --mobile NUMBER --message TEXT");
    }
    let headings = [
        "organization",
        "oldest",
        "pending",
        "scheduled",
        "held",
        "sending",
        "sent",
        "failed",
        "timeout",
        "canceled",
        "expired",
        "sent 1h",
        "failed 1h",
    ];
    let rows = queues.iter().map(|q| {
        let mut row = vec![q.organization_id.clone(), or_dash(q.oldest_pending_age.map(age))];
        row.extend(counts(q).into_iter().chain([q.sent_last_hour, q.failed_last_hour]).map(|n| n.to_string()));
        row
    });
    terminal.table(&headings, rows.collect())
}

fn waiting(terminal: &Terminal, waiting: &[Waiting]) -> anyhow::Result<()> {
    if waiting.is_empty() {
        return terminal.line("\nNo message waits.");
    }
    terminal.line("\nWhy messages wait")?;
    let rows = waiting.iter().map(|group| {
        let reason = explained(&group.waits_for).map(|text| format!("{}: {text}", group.waits_for));
        vec![
            group.organization_id.clone(),
            group.messages.to_string(),
            or_dash(group.oldest_age.map(age)),
            reason.unwrap_or_else(|| group.waits_for.clone()),
        ]
    });
    terminal.table(&["organization", "messages", "oldest", "waits for"], rows.collect())
}

/// What a word of `waits_for` means, and what to do about it.
pub(super) fn explained(waits_for: &str) -> Option<&'static str> {
    let text = match waits_for {
        "datetime" => "not due yet",
        "backoff" => "tried, and tried again in a while",
        "worker" => "a free worker, or room at an app",
        "organization_paused" => "sms-outbox organization resume",
        "app_paused" => "sms-outbox app resume",
        "throttled" => "the provider asked to slow down",
        "breaker_open" => "the provider fails; it is tried again by itself",
        "account_refused" => "the provider refuses credentials, account or balance: sms-outbox app update",
        "release_held" => "queued on another server: see sms-outbox release-held --help",
        "no_app" => "no installed app can send them: a worker will end them",
        _ => return None,
    };
    Some(text)
}

fn workers(terminal: &Terminal, workers: &[Worker]) -> anyhow::Result<()> {
    let alive: Vec<_> = workers.iter().filter(|worker| worker.alive).collect();
    if alive.is_empty() {
        return terminal.line("\nNo worker is alive; start one: sms-outbox worker");
    }
    terminal.line("\nWorkers")?;
    let rows = alive.into_iter().map(|w| {
        let counts = [w.in_flight, w.claimed, w.sent, w.failed].map(|number| number.to_string());
        [vec![w.name.clone(), w.version.clone(), w.host.clone(), time(w.heartbeat)], counts.to_vec()].concat()
    });
    terminal
        .table(&["worker", "version", "host", "heartbeat", "in flight", "claimed", "sent", "failed"], rows.collect())
}
