//! The proof that the histories notice: rules of the SQL are broken in turn, and must be found by a short history.

use std::sync::Arc;

use anyhow::{Context, Result, ensure};
use sms_outbox_tests::Major;

use crate::Players;

/// The most steps of a history that shows it: what people can follow.
const SHORT: usize = 6;

/// A function of the schema, the text that makes the rule, and what stands there instead.
struct Broken {
    rule: &'static str,
    function: &'static str,
    text: &'static str,
    instead: &'static str,
}

const BROKEN: &[Broken] = &[
    Broken {
        rule: "only the worker that holds the lease ends the attempt",
        function: "conclude(text, sms_outbox.outcome[])",
        text: "conclude.worker IS NULL OR l.worker = conclude.worker",
        instead: "true",
    },
    Broken {
        rule: "a refused account counts no attempt",
        function: "conclude(text, sms_outbox.outcome[])",
        text: "'refused_account', 'throttled') THEN 0",
        instead: "'throttled') THEN 0",
    },
    Broken {
        rule: "what was never begun counts no attempt",
        function: "conclude(text, sms_outbox.outcome[])",
        text: "WHEN sms_outbox.is_given_back(v.status, v.error_code) THEN 0",
        instead: "",
    },
    Broken {
        rule: "a look reads up to the end of its snapshot",
        function: "look(smallint[], xid8[], sms_outbox.message_id[], xid8[], integer, text[])",
        text: "pg_snapshot_xmax(seen))",
        instead: "pg_snapshot_xmin(seen))",
    },
];

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_broken_rule_is_found_by_a_short_history() -> Result<()> {
    let players = Arc::new(Players::new(Major::V18).await?);
    for broken in BROKEN {
        let function = format!("sms_outbox.{}", broken.function);
        let whole: String =
            players.queue.database().value("SELECT pg_get_functiondef($1::text::regprocedure)", &[&function]).await?;
        ensure!(whole.contains(broken.text), "{function} has no longer: {}", broken.text);
        players.queue.database().sql(&whole.replace(broken.text, broken.instead)).await?;
        let found = players.explore(15, 500, 1).await?;
        players.queue.database().sql(&whole).await?;
        let (_, history) = found.with_context(|| format!("nobody notices without the rule: {}", broken.rule))?;
        ensure!(history.len() <= SHORT, "{}: shown by {} steps: {history:#?}", broken.rule, history.len());
    }
    Ok(())
}
