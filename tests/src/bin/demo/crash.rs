//! A worker is killed in the middle of its work, and another goes on.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::json;

use crate::shop::Order;
use crate::stage::{CONCURRENCY, LEASE, Stage};

/// Eight orders in one transaction, in the order in which they queue.
const ORDERS: [Order; 8] = [
    order(2001, "0501232001", "+966501232001", "Order 2001 is ready."),
    order(2002, "0501232002", "+966501232002", "Order 2002 is ready."),
    order(2003, "0501232003", "+966501232003", "Order 2003 is ready."),
    order(2004, "0501232004", "+966501232004", "Order 2004 is ready."),
    order(2005, "0501232005", "+966501232005", "Order 2005 is ready."),
    order(2006, "0501232006", "+966501232006", "Order 2006 is ready."),
    order(2007, "0501232007", "+966501232007", "Order 2007 is ready."),
    order(2008, "0501232008", "+966501232008", "Order 2008 is ready."),
];

/// The messages that are in flight when the worker dies: as many as it sends at a time.
const IN_FLIGHT: std::ops::Range<usize> = 2..2 + CONCURRENCY;

const fn order(number: u32, mobile: &'static str, to: &'static str, text: &'static str) -> Order {
    Order { number, branch: "riyadh", mobile, to, text, more: "" }
}

/// Plays all of it.
pub(crate) async fn play(stage: &mut Stage<'_>) -> Result<()> {
    stage.terminal.step("A worker is killed in the middle, another one goes on");
    // Accepted, and the answer does not come while the worker lives.
    for held in &ORDERS[IN_FLIGHT] {
        stage.taqnyat.add_rules(&json!({"behaviour": "stall_after_headers", "to": held.to, "times": 1})).await?;
    }
    stage.terminal.does("provider", "will accept orders 2003 and 2004, and be slow to answer");
    stage
        .terminal
        .does("psql", "BEGIN; INSERT INTO orders (2001 … 2008); sms_outbox_enqueue_many('[…]', 'riyadh'); COMMIT");
    let committed = stage.shop.commit_all(&stage.database, &ORDERS).await?;
    let ids: Vec<&str> = committed.iter().map(|answer| answer.id.as_str()).collect();
    let since = Instant::now();
    wait_counts(stage, &ids, [2, CONCURRENCY, 4, 0]).await.context("before the kill")?;
    stage.database.wait_for("Taqnyat has accepted orders 2003 and 2004", async || held_accepted(stage)).await?;
    let mut killed = stage.workers.remove(0);
    killed.kill().await?;
    let dead = Instant::now();
    stage.terminal.does("kill -9", format!("{}, when 2 are sent, 2 in flight, 4 still wait", killed.name()));
    ensure_counts(stage, &ids, [2, CONCURRENCY, 4, 0]).await.context("after the kill")?;

    stage.start_worker("worker-2").await?;
    stage.terminal.does("worker-2", "starts");
    wait_counts(stage, &ids, [6, CONCURRENCY, 0, 0]).await.context("by the second worker")?;
    stage.terminal.sees("worker-2 has sent the 4 that waited", dead.elapsed());
    stage.terminal.does("wait", format!("until the leases of worker-1 are over, {LEASE} after it claimed"));
    wait_counts(stage, &ids, [6, 0, 0, CONCURRENCY]).await.context("when the leases are over")?;
    for (order, id) in ORDERS.iter().zip(&ids) {
        let (requests, accepted) = (stage.requests(order).await?, stage.accepted(order)?.len());
        // What came after the restart of Taqnyat's process is all that it remembers; these orders did.
        ensure!(
            requests == 1 && accepted == 1,
            "expected: order {} ({id}) requested and accepted once; seen: {requests} requests, {accepted} accepted",
            order.number
        );
    }
    let attempts = stage.attempts(ids[IN_FLIGHT.start]).await?;
    ensure!(attempts == "taqnyat-sms: unclear (lease_expired)", "expected: one unclear attempt; seen: {attempts}");
    stage.terminal.sees("the 2 in flight: dispatch_timeout, for they may have been sent (and were)", since.elapsed());
    Ok(())
}

fn held_accepted(stage: &Stage<'_>) -> Result<Option<()>> {
    for order in &ORDERS[IN_FLIGHT] {
        if stage.accepted(order)?.is_empty() {
            return Ok(None);
        }
    }
    Ok(Some(()))
}

/// How many of the messages are sent, sending, pending and ended as `dispatch_timeout`.
async fn counts(stage: &Stage<'_>, ids: &[&str]) -> Result<[usize; 4]> {
    let query =
        "SELECT dispatch_status::text FROM sms_outbox.outbox WHERE id = ANY ($1::text[]::sms_outbox.message_id[])";
    let rows = stage.database.admin().query(query, &[&ids]).await?;
    let mut counts = [0; 4];
    for row in rows {
        let status: &str = row.try_get(0)?;
        let place = ["sent", "sending", "pending", "dispatch_timeout"].iter().position(|known| *known == status);
        counts[place.with_context(|| format!("a message is {status}"))?] += 1;
    }
    Ok(counts)
}

fn expected(counts: [usize; 4]) -> String {
    let [sent, sending, pending, timeout] = counts;
    format!("{sent} sent, {sending} sending, {pending} pending, {timeout} dispatch_timeout")
}

async fn wait_counts(stage: &Stage<'_>, ids: &[&str], wanted: [usize; 4]) -> Result<()> {
    let what = format!("of orders 2001 to 2008 there are {}", expected(wanted));
    stage.database.wait_for(what, async || Ok((counts(stage, ids).await? == wanted).then_some(()))).await
}

async fn ensure_counts(stage: &Stage<'_>, ids: &[&str], wanted: [usize; 4]) -> Result<()> {
    let seen = counts(stage, ids).await?;
    ensure!(seen == wanted, "expected: {}; seen: {}", expected(wanted), expected(seen));
    Ok(())
}
