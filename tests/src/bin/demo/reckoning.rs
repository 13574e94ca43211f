//! The end: what the views say, and whether the three journals agree.

use std::collections::{BTreeMap, BTreeSet};
use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::history::{Commit, read};
use sms_outbox_tests::process::output_of_input;
use sms_outbox_tests::sandbox::Acceptance;

use crate::stage::{Stage, digits};

/// Login, name and query of each view. Columns are left out where the line would not fit a terminal.
const VIEWS: [(&str, &str, &str); 6] = [
    (
        "app",
        "outbox",
        "SELECT id, meta->'order' AS \"order\", mobile, dispatch_status, provider_slug AS provider, encoding AS enc, segments AS seg
           FROM sms_outbox.outbox ORDER BY id",
    ),
    (
        "app",
        "attempts",
        "SELECT o.meta->'order' AS \"order\", a.attempt, a.provider_slug AS provider, a.status, a.http_status AS http, a.error_code,
                round(extract(epoch FROM a.finished_at - a.started_at) * 1000) AS ms, a.worker
           FROM sms_outbox.attempts AS a JOIN sms_outbox.outbox AS o USING (id) ORDER BY a.started_at",
    ),
    (
        "monitor",
        "queue_stats",
        "SELECT organization_id, pending, scheduled, sending, sent, failed, dispatch_timeout, expired
           FROM sms_outbox.queue_stats ORDER BY organization_id",
    ),
    (
        "monitor",
        "app_stats",
        "SELECT organization_id AS org, provider_slug AS provider, sent, failed, unclear, p50_ms, p95_ms, breaker, last_error_code
           FROM sms_outbox.app_stats ORDER BY organization_app_id",
    ),
    (
        "monitor",
        "worker_stats",
        "SELECT name, version, alive, in_flight, claimed, sent, failed, (now() - heartbeat)::interval(0) AS heard_ago
           FROM sms_outbox.worker_stats ORDER BY started_at",
    ),
    ("monitor", "health", "SELECT * FROM sms_outbox.health"),
];

/// Prints the views as psql lays them out.
pub(crate) async fn show_views(stage: &Stage<'_>) -> Result<()> {
    stage.terminal.heading("What the views say, as psql prints them; the wide ones without some columns");
    for (login, view, query) in VIEWS {
        let mut psql = stage.database.cluster().tool("psql")?;
        psql.args(["-Xq", "-v", "ON_ERROR_STOP=1", "-P", "footer=off", "-f", "-", "-d"]);
        psql.arg(stage.database.cluster().socket_url(stage.database.name(), login));
        let table = output_of_input(psql, query).await?;
        ensure!(table.lines().count() > 2, "expected: rows in sms_outbox.{view}; seen:\n{table}");
        stage.terminal.heading(&format!("sms_outbox.{view}"));
        stage.terminal.block(&table);
        if view == "worker_stats" {
            stage.terminal.note("worker-1 is dead; a silent worker counts as alive for 10 s more.");
        }
    }
    // The story leaves some unclear, and health says how many; all else is well.
    let ill = stage.database.rows("SELECT * FROM sms_outbox.health WHERE status <> 'ok'").await?;
    let unclear: i64 =
        stage.database.value("SELECT sum(dispatch_timeout)::bigint FROM sms_outbox.queue_stats", &[]).await?;
    let told = format!("{unclear} messages may have been sent or not");
    let named =
        |row: &Value| row["check"] == "unclear" && row["detail"].as_str().is_some_and(|text| text.starts_with(&told));
    ensure!(
        unclear > 1 && ill.len() == 1 && ill.iter().all(named),
        "expected: health tells of {unclear} unclear messages, and of nothing else; seen: {ill:?}"
    );
    stage.terminal.note(format!("health warns of the {unclear} messages that are unclear, and of nothing else."));
    Ok(())
}

/// Compares what the shop committed, what the database says and what the providers accepted, message by message.
pub(crate) async fn reckon(stage: &Stage<'_>) -> Result<()> {
    stage.terminal.step("The reckoning: three journals that know nothing of each other");
    let since = Instant::now();
    let orders: Vec<i32> = stage.database.value("SELECT array_agg(number ORDER BY number) FROM orders", &[]).await?;
    let messages = &stage.shop.journal;
    ensure!(
        orders.len() == messages.len(),
        "expected: one SMS for each committed order; seen: {} orders, {} messages",
        orders.len(),
        messages.len()
    );
    let sandboxes = [&stage.taqnyat, &stage.others];
    let verdict = read::check(messages, None, &stage.database, &sandboxes).await?;
    let counts = verdict.leaving(&[])?;
    let mut accepted = stage.taqnyat.journal()?;
    accepted.extend(stage.others.journal()?);
    let confirmed = same_ids(stage, &accepted).await?;

    let mut wires: BTreeMap<&str, usize> = BTreeMap::new();
    for one in &accepted {
        *wires.entry(&one.provider).or_default() += 1;
    }
    let list = |counts: Vec<(&str, usize)>| {
        counts.iter().map(|(what, count)| format!("{count} {what}")).collect::<Vec<_>>().join(", ")
    };
    let statuses = counts.by_status.iter().map(|(status, count)| (status.as_str(), *count)).collect();
    let terminal = stage.terminal;
    terminal.does("shop", format!("{} orders committed, each with its SMS", counts.committed));
    terminal.does("database", format!("{} messages: {}", counts.by_status.values().sum::<usize>(), list(statuses)));
    terminal.does("providers", format!("{} accepted: {}", counts.accepted, list(wires.into_iter().collect())));
    let text = format!(
        "they agree message by message: {confirmed} sent, under the id that the provider gave; {} accepted with the answer lost; none twice, none that was not committed",
        counts.accepted_unclear
    );
    terminal.sees(text, since.elapsed());
    Ok(())
}

/// Each sent message carries the slug and the id under which the provider's journal has it. Returns how many.
async fn same_ids(stage: &Stage<'_>, journal: &[Acceptance]) -> Result<usize> {
    let mut sent = 0;
    let mut seen = BTreeSet::new();
    for message in &stage.shop.journal {
        let Commit::Enqueued { id, to: number, text, .. } = message else { continue };
        let standing = stage.standing(&id.to_string()).await?;
        if standing.status != "sent" {
            continue;
        }
        let is_it = |to: &str, body: &str| digits(to) == digits(number) && body == text;
        let accepted = journal.iter().find(|one| is_it(&one.to, &one.body)).context("reckoned before")?;
        ensure!(
            standing.slug.as_ref() == Some(&accepted.provider)
                && standing.provider_message_id.as_ref() == Some(&accepted.provider_message_id)
                && seen.insert(&accepted.provider_message_id),
            "{id}: expected in the database what the provider's journal has: {} {}; seen: {standing:?}",
            accepted.provider,
            accepted.provider_message_id
        );
        sent += 1;
    }
    Ok(sent)
}
