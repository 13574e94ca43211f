//! What was measured, in figures and in words.

use serde::Serialize;
use serde_json::json;

use super::BenchArgs;
use super::dispatch::{Dispatched, Waited};
use super::enqueue::{Enqueued, Rates};
use crate::cli::terminal::{Terminal, count, size};
use crate::outbox::postgres::operator::server::{Facts, Speed};

/// Rounds that differ by more than this tell of others, not of the database.
const WIDE: f64 = 1.3;

/// The result.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    messages: u64,
    /// Transactions a second.
    enqueue: Vec<Rates>,
    claim_and_finish: f64,
    commit_to_claim: Waited,
    wal_bytes: Wal,
    commit: Commit,
    limits: Vec<String>,
}

/// WAL of one message, with what others wrote meanwhile.
#[derive(Debug, Serialize)]
struct Wal {
    enqueue: f64,
    claim_and_finish: f64,
}

/// Where the time of one enqueue by one connection goes, in milliseconds.
#[derive(Clone, Copy, Debug, PartialEq, Serialize)]
struct Commit {
    whole_ms: f64,
    round_trip_ms: f64,
    disk_ms: f64,
    server_ms: f64,
}

/// What went again, and what did not.
pub(super) struct Removed {
    pub(super) messages: i64,
    /// By which the queue's files are larger than before.
    pub(super) grown_bytes: i64,
}

impl Report {
    pub(super) fn new(
        args: &BenchArgs,
        enqueued: Enqueued,
        dispatched: Dispatched,
        waited: Waited,
        facts: &Facts,
        before: &Speed,
        after: &Speed,
    ) -> Self {
        let commit = Commit::of(&enqueued);
        let mut limits = Vec::new();
        limits.extend(commit.limit());
        limits.extend(growth(&enqueued.rates));
        limits.push(dispatching(dispatched.rate));
        if enqueued.rates.iter().any(|rates| rates.greatest_ratio > WIDE * rates.least_ratio) {
            limits.push(
                "The rounds differ widely: something else loads this server, its disk or this machine. Measure again when it is quiet, or longer."
                    .to_owned(),
            );
        }
        let wakes = facts.wakeup == "trigger" || facts.wakeup == "coalesced" && facts.preloaded != Some(false);
        if !wakes {
            limits.push(format!(
                "Nobody is woken (wakeup = {}, preloaded: {}): workers find messages when they look, within --poll-interval.",
                facts.wakeup,
                if facts.preloaded == Some(true) { "yes" } else { "no" }
            ));
        }
        let early = after.checkpoints_requested - before.checkpoints_requested;
        if early > 0 {
            limits.push(format!(
                "{} came before their time: max_wal_size ({}) is small for this load, and each costs WAL and speed.",
                count(early, "checkpoint"),
                size(after.max_wal_size)
            ));
        }
        if facts.synchronous_commit == "off" {
            limits.push(
                "synchronous_commit is off for this login: no enqueue waited for the disk, and a crash of the server loses the last ones."
                    .to_owned(),
            );
        }
        if facts.fsync == "off" {
            limits.push(
                "fsync is off: nothing waited for the disk, and these figures are no server's that keeps its data."
                    .to_owned(),
            );
        }
        if dispatched.messages < args.max_messages / 100 {
            limits
                .push(format!("Only {} messages were enqueued: a longer --duration tells more.", dispatched.messages));
        }
        Self {
            messages: dispatched.messages + waited.messages as u64,
            enqueue: enqueued.rates,
            claim_and_finish: dispatched.rate,
            commit_to_claim: waited,
            wal_bytes: Wal { enqueue: enqueued.wal_bytes, claim_and_finish: dispatched.wal_bytes },
            commit,
            limits,
        }
    }
}

impl Commit {
    fn of(enqueued: &Enqueued) -> Self {
        let (whole, bare) = enqueued
            .rates
            .iter()
            .find(|rates| !rates.is_of_many())
            .map_or((0.0, 0.0), |rates| (1000.0 / rates.enqueue, 1000.0 / rates.bare_insert));
        let round_trip_ms = enqueued.round_trip.min(whole);
        // What a bare INSERT no longer takes when its commit does not wait.
        let disk_ms = (bare - 1000.0 / enqueued.without_disk).clamp(0.0, whole - round_trip_ms);
        Self { whole_ms: whole, round_trip_ms, disk_ms, server_ms: whole - round_trip_ms - disk_ms }
    }

    fn limit(&self) -> Option<String> {
        let parts = [
            (
                self.disk_ms,
                "the disk",
                "a disk that flushes sooner, or more messages in one transaction (sms_outbox_enqueue_many)",
            ),
            (
                self.round_trip_ms,
                "the way",
                "an application nearer to the server, or more messages in one call (sms_outbox_enqueue_many)",
            ),
            (self.server_ms, "the processor", "a faster processor, or one with less other work"),
        ];
        let (_, what, cure) = parts.into_iter().max_by(|a, b| a.0.total_cmp(&b.0))?;
        Some(format!(
            "One connection: of the {:.2} ms of an enqueue {:.2} are the way to the server and back, {:.2} wait for the disk, and {:.2} \
             are work of the server. Most is {what}: what helps is {cure}.",
            self.whole_ms, self.round_trip_ms, self.disk_ms, self.server_ms
        ))
    }
}

/// What more connections bring.
fn growth(rates: &[Rates]) -> Option<String> {
    let one = rates.iter().find(|rates| !rates.is_of_many())?;
    let many = rates.iter().find(|rates| rates.is_of_many())?;
    let times = many.enqueue / one.enqueue;
    let verdict = if times > many.connections as f64 / 2.0 {
        "nothing is full yet, and more connections bring more"
    } else if many.bare_insert / one.bare_insert < times * 1.2 {
        "the server is full, with bare INSERTs as with enqueues, and its processors or its disk are the limit"
    } else {
        "bare INSERTs gain more, since enqueues fill the processors first"
    };
    Some(format!("{} connections enqueue {times:.1} times as much as one: {verdict}.", many.connections))
}

fn dispatching(rate: f64) -> String {
    format!(
        "The database claims and records {rate:.0} messages a second for one worker. A worker sends at most what it has in flight, \
         divided by what its provider takes to answer: with --concurrency 256 and 100 ms 2560 a second."
    )
}

pub(super) fn print(terminal: &Terminal, report: &Report, removed: &Removed) -> anyhow::Result<()> {
    if terminal.is_json() {
        let mut data = json!(report);
        data["removed_messages"] = json!(removed.messages);
        data["grown_bytes"] = json!(removed.grown_bytes);
        return terminal.json(&data);
    }
    let rows = report.enqueue.iter().map(|rates| {
        vec![
            rates.connections.to_string(),
            format!("{:.0}/s", rates.bare_insert),
            format!("{:.0}/s", rates.enqueue),
            format!("{:.2} ({:.2} to {:.2})", rates.ratio, rates.least_ratio, rates.greatest_ratio),
        ]
    });
    terminal.table(&["connections", "bare insert", "enqueue", "enqueue ÷ bare insert"], rows.collect())?;
    let (waited, wal) = (&report.commit_to_claim, &report.wal_bytes);
    let figures = [
        ("claim and finish", format!("{:.0}/s", report.claim_and_finish)),
        (
            "commit to claim",
            format!(
                "p50 {:.1} ms, p99 {:.1} ms, greatest {:.1} ms, of {}",
                waited.p50_ms, waited.p99_ms, waited.greatest_ms, waited.messages
            ),
        ),
        (
            "WAL of a message",
            format!(
                "{:.0} bytes: {:.0} to enqueue, {:.0} to claim and finish",
                wal.enqueue + wal.claim_and_finish,
                wal.enqueue,
                wal.claim_and_finish
            ),
        ),
    ];
    terminal.line("")?;
    for (name, figure) in figures {
        terminal.line(&format!("{name:<18}{figure}"))?;
    }
    terminal.line("\nWhat limits it")?;
    for limit in &report.limits {
        terminal.line(&format!("- {limit}"))?;
    }
    terminal.note(&format!(
        "removed: {}, with attempts, counts, app and organization. The queue's files are {} larger than before; autovacuum makes that \
         room for coming messages, and the days' partitions give it back when they are dropped. WAL that others wrote meanwhile is counted in.",
        count(removed.messages, "message"),
        size(removed.grown_bytes)
    ));
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn rates(connections: usize, bare_insert: f64, enqueue: f64) -> Rates {
        Rates { connections, bare_insert, enqueue, ratio: 1.0, least_ratio: 1.0, greatest_ratio: 1.0 }
    }

    fn commit(round_trip: f64, bare: f64, enqueue: f64, without_disk: f64) -> Commit {
        Commit::of(&Enqueued { rates: vec![rates(1, bare, enqueue)], round_trip, without_disk, wal_bytes: 0.0 })
    }

    #[test]
    fn the_parts_of_an_enqueue_add_up_and_the_greatest_is_named() {
        let cases = [
            (commit(0.1, 500.0, 500.0, 5000.0), "the disk"),
            (commit(1.5, 500.0, 500.0, 600.0), "the way"),
            (commit(0.1, 500.0, 250.0, 510.0), "the processor"),
            // No disk to wait for: slower without it, by chance.
            (commit(0.1, 500.0, 500.0, 400.0), "the processor"),
        ];
        for (commit, most) in cases {
            let sum = commit.round_trip_ms + commit.disk_ms + commit.server_ms;
            assert!((sum - commit.whole_ms).abs() < 1e-9 && commit.server_ms >= 0.0, "{commit:?}");
            let words = commit.limit().unwrap_or_default();
            assert!(words.contains(&format!("Most is {most}:")), "{words}");
        }
    }

    #[test]
    fn what_more_connections_bring_is_said() {
        let said = |many: Rates| growth(&[rates(1, 100.0, 90.0), many]).unwrap_or_default();
        assert!(said(rates(16, 1600.0, 1400.0)).contains("nothing is full yet"));
        assert!(said(rates(16, 400.0, 350.0)).contains("the server is full"));
        assert!(said(rates(16, 1600.0, 300.0)).contains("bare INSERTs gain more"));
    }
}
