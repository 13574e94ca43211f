//! Every hot statement finds its rows by the index that is there for it, sorts no queue and touches few pages: with a few messages
//! and with a million, whatever the statistics say, and whether its plan is for these values or for any. See `calls.rs` for what is
//! asked of each.

mod calls;
mod explained;
mod fill;

use anyhow::Result;
use calls::{look_at, moves};
use explained::Explained;
use fill::Statistics;
use sms_outbox_tests::{Major, Queue, on_majors};

on_majors! { ends: stay_as_they_are, are_good_for_what_comes_later, step_over_no_dead_rows,
    cannot_be_spoiled_unnoticed,
}

/// Rows where a million would only take longer.
const MANY: i64 = 100_000;

async fn stay_as_they_are(major: Major) -> Result<()> {
    use Statistics::{Cold, Missing, Stale, True};
    let queue = fill::empty(major).await?;
    let mut faults = Vec::new();
    for statistics in [True, Missing, Cold] {
        faults.extend(passes(&queue, 1, statistics).await?);
    }
    fill::fill(&queue, 1_000_000).await?;
    for statistics in [Stale, Missing, Cold, True] {
        faults.extend(passes(&queue, 100, statistics).await?);
    }
    fill::drain(&queue).await?;
    faults.extend(passes(&queue, 1, Stale).await?);
    assert!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// A session whose plans were made while there was next to nothing, and that is still there when there is much.
async fn are_good_for_what_comes_later(major: Major) -> Result<()> {
    let queue = fill::empty(major).await?;
    for statistics in [Statistics::Cold, Statistics::True, Statistics::Missing] {
        let mut session = Explained::open(&queue, "force_generic_plan").await?;
        look_at(&mut session, queue.app(), 1).await?;
        statistics.make(&queue).await?;
        look_at(&mut session, queue.app(), 1).await?;
        fill::fill(&queue, MANY).await?;
        let faults = look_at(&mut session, queue.app(), 100).await?;
        assert!(faults.is_empty(), "{statistics:?} statistics:\n{}", faults.join("\n"));
        queue.assert_placed().await?;
        fill::drain(&queue).await?;
    }
    Ok(())
}

/// While somebody's snapshot keeps what is dead, statistics of an empty table are made of a large one.
async fn step_over_no_dead_rows(major: Major) -> Result<()> {
    let queue = fill::empty(major).await?;
    let mut sessions = Vec::new();
    for plans in ["force_generic_plan", "force_custom_plan"] {
        let mut session = Explained::open(&queue, plans).await?;
        moves(&mut session, queue.app(), 1).await?;
        sessions.push((plans, session));
    }
    let _reader = fill::leave_dead(&queue, MANY).await?;
    queue.sql("SELECT pg_stat_force_next_flush()").await?;
    let dead: i64 = queue
        .value(
            "SELECT min(n_dead_tup) FROM pg_stat_all_tables
              WHERE schemaname = 'sms_outbox' AND relname IN ('ready', 'scheduled', 'lease', 'ended')",
            &[],
        )
        .await?;
    assert!(dead >= MANY, "{dead} dead rows");
    // What was dead by now is read once a minute: the calls below read on from there.
    queue.sql("SELECT FROM sms_outbox.run_maintenance()").await?;
    for messages in [1, 100] {
        for (plans, session) in &mut sessions {
            let faults = moves(session, queue.app(), messages).await?;
            assert!(faults.is_empty(), "{plans}, {messages} messages:\n{}", faults.join("\n"));
        }
    }
    Ok(())
}

/// The calls, so many messages each, by generic and by custom plans; what is wrong with them.
async fn passes(queue: &Queue, messages: usize, statistics: Statistics) -> Result<Vec<String>> {
    statistics.make(queue).await?;
    let mut faults = Vec::new();
    for plans in ["force_generic_plan", "force_custom_plan"] {
        let mut session = Explained::open(queue, plans).await?;
        // In a session's first calls catalogs are read.
        let mut found = Vec::new();
        for _ in 0..2 {
            found = look_at(&mut session, queue.app(), messages).await?;
        }
        faults.extend(
            found.into_iter().map(|fault| format!("{messages} messages, {statistics:?} statistics, {plans}: {fault}")),
        );
    }
    Ok(faults)
}

/// These checks can fail: without any one of these indexes they do.
async fn cannot_be_spoiled_unnoticed(major: Major) -> Result<()> {
    let queue = fill::empty(major).await?;
    fill::fill(&queue, MANY).await?;
    Statistics::True.make(&queue).await?;
    let leaf: String = queue.value("SELECT to_char(now() AT TIME ZONE 'UTC', '\"_p\"YYYYMMDD')", &[]).await?;
    let (message, attempt) = (format!("message{leaf}"), format!("attempt{leaf}"));
    for index in
        ["ready_pkey", "ready_log", "ready_expiry", "scheduled_due", "lease_pkey", "lease_expiry", "ended_pkey"]
            .map(str::to_owned)
            .into_iter()
            .chain([format!("{message}_pkey"), format!("{attempt}_pkey")])
    {
        let drop = match index.strip_suffix("_pkey") {
            Some(table) => format!("ALTER TABLE sms_outbox.{table} DROP CONSTRAINT {index}"),
            None => format!("DROP INDEX sms_outbox.{index}"),
        };
        let mut session = Explained::open(&queue, "force_generic_plan").await?;
        session.client().batch_execute(&format!("BEGIN; {drop}")).await?;
        let found = look_at(&mut session, queue.app(), 100).await;
        assert!(found.map_or(true, |faults| !faults.is_empty()), "nothing noticed that {index} was missing");
        session.client().batch_execute("ROLLBACK").await?;
    }
    Ok(())
}
