//! Every bad input of the SQL contract: the error names field, fault and cure, and nothing is queued or half done.

mod evidence;
mod fields;
mod operators;
mod workers;

use anyhow::{Context, Result};
use sms_outbox_tests::{Major, Queue, on_majors};

on_majors! { ends: refuses_bad_input }

/// SQL, and what its refusal must say: SQLSTATE, COLUMN, part of the message (the fault), part of hint or detail (the cure).
struct Bad {
    sql: String,
    state: &'static str,
    column: &'static str,
    fault: &'static str,
    cure: &'static str,
}

fn bad(
    sql: impl Into<String>,
    state: &'static str,
    column: &'static str,
    fault: &'static str,
    cure: &'static str,
) -> Bad {
    Bad { sql: sql.into(), state, column, fault, cure }
}

async fn refuses_bad_input(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let sent = queue.ended("sent", "accepted").await?;
    // Everything that a bad call could have left behind.
    let state = async || {
        queue
            .rows(
                "SELECT (SELECT count(*) FROM sms_outbox.message) AS message, (SELECT count(*) FROM sms_outbox.ready) AS ready,
                        (SELECT count(*) FROM sms_outbox.scheduled) AS scheduled, (SELECT count(*) FROM sms_outbox.lease) AS lease,
                        (SELECT count(*) FROM sms_outbox.attempt) AS attempt, (SELECT count(*) FROM sms_outbox.ended) AS ended,
                        (SELECT count(*) FROM sms_outbox.idempotency) AS idempotency, (SELECT count(*) FROM sms_outbox.worker) AS worker,
                        (SELECT jsonb_agg(to_jsonb(a) ORDER BY a.app_id) FROM sms_outbox.organization_app AS a) AS apps,
                        (SELECT jsonb_agg(to_jsonb(o) ORDER BY o.organization_id) FROM sms_outbox.organization AS o) AS organizations,
                        (SELECT count(*) FROM sms_outbox.evidence) AS evidence, (SELECT count(*) FROM sms_outbox.receipt) AS receipt",
            )
            .await
    };
    let before = state().await?;
    let session = queue.connect().await?;
    let mut faults = Vec::new();
    for Bad { sql, state, column, fault, cure } in fields::fields()
        .into_iter()
        .chain(fields::elements())
        .chain(operators::operators())
        .chain(workers::workers())
        .chain(evidence::evidence())
    {
        let sql = sql.replace("{sent}", &sent);
        let shown: String = sql.chars().take(200).collect();
        let refused = session.batch_execute(&sql).await;
        session.batch_execute("ROLLBACK").await?;
        let Err(error) = refused else {
            faults.push(format!("{shown}\n    was not refused"));
            continue;
        };
        let error = error.as_db_error().with_context(|| format!("{shown}: {error}"))?;
        let help = format!("{} {}", error.hint().unwrap_or_default(), error.detail().unwrap_or_default());
        let good = error.code().code() == state
            && error.column().unwrap_or_default() == column
            && error.message().contains(fault)
            && help.contains(cure);
        if !good {
            let (code, named) = (error.code().code(), error.column().unwrap_or_default());
            faults.push(format!(
                "{shown}\n    says {code} [{named}] {} | {help}\n    not  {state} [{column}] {fault} | {cure}",
                error.message()
            ));
        }
    }
    assert!(faults.is_empty(), "{} wrong refusals:\n{}", faults.len(), faults.join("\n"));
    assert_eq!(state().await?, before, "nothing was queued, changed or half done");
    Ok(())
}
