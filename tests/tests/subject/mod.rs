//! The worker's queue on PostgreSQL as a subject of the conformance suite.
#![allow(dead_code, reason = "each test file uses another part of it")]

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sms_outbox_tests::{Cluster, Database, Major};
use sms_outbox_worker::message::{AppId, AttemptStatus, DeliveryStatus, DispatchStatus, Evidence, MessageId};
use sms_outbox_worker::outbox::ReceiptResult;
use sms_outbox_worker::outbox::conformance::{Enqueue, Install, LedgerLine, MAX_ATTEMPTS, Standing, Subject};
use sms_outbox_worker::outbox::postgres::PostgresOutbox;
use sms_outbox_worker::outbox::postgres::connect::Target;
use tokio::sync::Mutex;
use tokio_postgres::error::SqlState;
use tokio_postgres::{Client, Statement};
use uuid::Uuid;

/// Queues a message, with parameters of [`parameters`].
const ENQUEUE: &str = "SELECT id::sms_outbox.message_id::uuid FROM sms_outbox_enqueue($1, $2, organization_id => $3, priority => $4,
    preferred_provider_slug => $5, datetime => now() + $6 * interval '1 second', valid_until => now() + $7 * interval '1 second',
    meta => jsonb_strip_nulls(jsonb_build_object('traceparent', $8::text)))";

/// Evidence that settled the attempt, of a row of `sms_outbox.attempts`.
const TOLD_BY: &str = r#"jsonb_path_query_first(a.evidence, '$[last] ? (@.verdict != "unclear").source') #>> '{}'"#;

/// A real database as the suite's subject. All cases share it, as they may.
#[derive(Clone)]
pub(crate) struct Queue {
    database: Arc<Database>,
    operator: Arc<Mutex<Client>>,
    /// Sessions of applications that have no transaction open.
    idle: Arc<Mutex<Vec<Client>>>,
    /// Prepared by the operator: planned once, not after every step of a history.
    standings: Statement,
}

impl Queue {
    /// On a server of its own, where nothing but the subject's own methods runs maintenance: without preload there is no
    /// background worker.
    pub(crate) async fn start(major: Major) -> Result<Self> {
        let cluster = Cluster::options(major)
            .without_preload()
            .set("sms_outbox.max_attempts", &MAX_ATTEMPTS.to_string())
            .set("sms_outbox.lease_timeout", "1h")
            .start()
            .await?;
        let database = Arc::new(Database::create(&cluster, "queue").await?);
        let operator = database.connect().await?;
        // Few rows, in many partitions: the plan for any ids is as good as one for these.
        operator.batch_execute("SET plan_cache_mode = force_generic_plan").await?;
        let standings = operator.prepare(&standings_query()).await?;
        Ok(Self { database, operator: Arc::new(Mutex::new(operator)), idle: Arc::default(), standings })
    }

    pub(crate) fn database(&self) -> &Database {
        &self.database
    }

    /// Nothing becomes due, and no block ends, while a history is played: what lies within hours of now, as everything
    /// does that the queue itself plans, is put off for a day. What was passed on purpose is a day ago.
    pub(crate) async fn stop_time(&self) -> Result<()> {
        let stop = "UPDATE sms_outbox.scheduled SET due_at = now() + interval '1 day'
             WHERE due_at BETWEEN now() - interval '12 hours' AND now() + interval '12 hours';
            UPDATE sms_outbox.app_health SET blocked_until = now() + interval '1 day'
             WHERE blocked_until BETWEEN now() - interval '12 hours' AND now() + interval '12 hours'";
        Ok(self.operator.lock().await.batch_execute(stop).await?)
    }

    /// Runs a statement that changes exactly one row: lets some time be over.
    async fn change_one(&self, statement: &str, id: &(dyn tokio_postgres::types::ToSql + Sync)) -> Result<()> {
        let changed = self.operator.lock().await.execute(statement, &[id]).await.context("cannot pass the time")?;
        ensure!(changed == 1, "{changed} rows changed by: {statement}");
        Ok(())
    }

    async fn call(&self, call: &str, parameters: &[&(dyn tokio_postgres::types::ToSql + Sync)]) -> Result<()> {
        let operator = self.operator.lock().await;
        operator
            .query(&format!("SELECT sms_outbox.{call}"), parameters)
            .await
            .with_context(|| call.to_owned())
            .map(drop)
    }

    /// Cancels or retries; a wrong state is an answer, any other error is one.
    async fn moved(&self, call: &str, id: MessageId) -> Result<bool> {
        let operator = self.operator.lock().await;
        match operator.query(&format!("SELECT sms_outbox.{call}($1::uuid::sms_outbox.message_id)"), &[&id.0]).await {
            Ok(_) => Ok(true),
            Err(error) if error.code() == Some(&SqlState::OBJECT_NOT_IN_PREREQUISITE_STATE) => Ok(false),
            Err(error) => Err(error.into()),
        }
    }
}

impl Subject for Queue {
    type Outbox = PostgresOutbox;
    type Transaction = Client;

    async fn worker(&self, name: &str) -> Result<PostgresOutbox> {
        let target = Target::parse(&self.database.url("worker"), "conformance", Duration::from_secs(10))?;
        PostgresOutbox::new(target, name)
    }

    async fn enqueue(&self, message: Enqueue) -> Result<MessageId> {
        enqueue(&*self.operator.lock().await, message).await
    }

    async fn begin(&self) -> Result<Client> {
        let idle = self.idle.lock().await.pop();
        let session = match idle {
            Some(session) => session,
            None => self.database.connect().await?,
        };
        session.batch_execute("BEGIN; SELECT pg_current_xact_id()").await?;
        Ok(session)
    }

    async fn enqueue_in(&self, transaction: &Client, message: Enqueue) -> Result<MessageId> {
        enqueue(transaction, message).await
    }

    async fn end(&self, transaction: Client, commit: bool) -> Result<()> {
        transaction.batch_execute(if commit { "COMMIT" } else { "ROLLBACK" }).await?;
        self.idle.lock().await.push(transaction);
        Ok(())
    }

    async fn install_app(&self, app: Install) -> Result<AppId> {
        let config: Value = match app.slug.as_str() {
            "generic-http" => {
                json!({"url": "http://127.0.0.1:1/", "body": {"to": "{{ mobile }}"}, "success": {"status": [200]}})
            }
            _ => json!({"token": "conformance"}),
        };
        let install = "SELECT sms_outbox.install_app($1, $2, $3, $4, resend_unclear => $5)";
        let operator = self.operator.lock().await;
        let row = operator
            .query_one(install, &[&app.organization, &app.slug, &app.name, &config, &app.resend_unclear])
            .await
            .context("install_app")?;
        Ok(AppId(row.get(0)))
    }

    async fn uninstall_app(&self, app: AppId) -> Result<()> {
        self.call("uninstall_app($1)", &[&app.0]).await
    }

    async fn set_app_paused(&self, app: AppId, paused: bool) -> Result<()> {
        self.call(if paused { "pause_app($1, 'test')" } else { "resume_app($1)" }, &[&app.0]).await
    }

    async fn set_organization_paused(&self, organization: &str, paused: bool) -> Result<()> {
        let call = if paused { "pause_organization($1, 'test')" } else { "resume_organization($1)" };
        self.call(call, &[&organization]).await
    }

    async fn cancel(&self, id: MessageId) -> Result<bool> {
        self.moved("cancel", id).await
    }

    async fn retry(&self, id: MessageId) -> Result<bool> {
        self.moved("retry", id).await
    }

    async fn resolve(&self, id: MessageId, attempt: i16, verdict: AttemptStatus, evidence: Evidence) -> Result<bool> {
        let query = "SELECT applied FROM sms_outbox.resolve($1::uuid::sms_outbox.message_id, $2::smallint, $3::text::sms_outbox.attempt_status, $4)";
        let operator = self.operator.lock().await;
        Ok(operator.query_one(query, &[&id.0, &attempt, &verdict.word(), &evidence.word()]).await?.try_get(0)?)
    }

    async fn record_receipt(&self, id: MessageId, attempt: i16, told: DeliveryStatus) -> Result<ReceiptResult> {
        let query = "SELECT result FROM sms_outbox.record_receipt($1::uuid::sms_outbox.message_id, $2::smallint, $3::text::sms_outbox.delivery_status)";
        let operator = self.operator.lock().await;
        Ok(match operator.query_one(query, &[&id.0, &attempt, &told.word()]).await?.try_get(0)? {
            "recorded" => ReceiptResult::Recorded,
            "repeated" => ReceiptResult::Repeated,
            _ => ReceiptResult::Unknown,
        })
    }

    async fn delivery(&self, id: MessageId, attempt: i16) -> Result<Option<DeliveryStatus>> {
        let query = "SELECT delivery_status::text FROM sms_outbox.attempts WHERE id = $1::uuid::sms_outbox.message_id AND attempt = $2
                     UNION ALL SELECT 'a receipt of no attempt' FROM sms_outbox.receipt AS r WHERE id = $1::uuid::sms_outbox.message_id
                        AND NOT EXISTS (SELECT FROM sms_outbox.attempts AS a WHERE a.id = r.id AND a.attempt = r.attempt)";
        let operator = self.operator.lock().await;
        let Some(row) = operator.query_opt(query, &[&id.0, &attempt]).await? else { return Ok(None) };
        let word: Option<&str> = row.try_get(0)?;
        word.map(|word| DeliveryStatus::from_word(word).with_context(|| word.to_owned())).transpose()
    }

    async fn expire_lease(&self, id: MessageId) -> Result<()> {
        self.change_one("UPDATE sms_outbox.lease SET expires_at = now() - interval '1 day' WHERE id = $1::uuid::sms_outbox.message_id", &id.0).await
    }

    async fn make_due(&self, id: MessageId) -> Result<()> {
        let pass = "WITH scheduled AS (UPDATE sms_outbox.scheduled SET due_at = now() - interval '1 day' WHERE id = $1::uuid::sms_outbox.message_id RETURNING id)
            UPDATE sms_outbox.message AS m SET due_at = least(m.due_at, now() - interval '1 day')
             WHERE m.id = $1::uuid::sms_outbox.message_id AND EXISTS (SELECT FROM scheduled)";
        self.change_one(pass, &id.0).await
    }

    async fn pass_validity(&self, id: MessageId) -> Result<()> {
        let pass = "WITH ready AS (UPDATE sms_outbox.ready SET valid_until = now() - interval '1 day' WHERE id = $1::uuid::sms_outbox.message_id),
                scheduled AS (UPDATE sms_outbox.scheduled SET valid_until = now() - interval '1 day' WHERE id = $1::uuid::sms_outbox.message_id),
                lease AS (UPDATE sms_outbox.lease SET valid_until = now() - interval '1 day' WHERE id = $1::uuid::sms_outbox.message_id)
            UPDATE sms_outbox.message SET valid_until = now() - interval '1 day' WHERE id = $1::uuid::sms_outbox.message_id";
        self.change_one(pass, &id.0).await
    }

    async fn pass_block(&self, app: AppId) -> Result<()> {
        // An app that is not blocked stays so.
        let pass = "UPDATE sms_outbox.app_health SET blocked_until = now() - interval '1 day' WHERE app_id = $1 AND blocked_until IS NOT NULL";
        self.operator.lock().await.execute(pass, &[&app.0]).await?;
        Ok(())
    }

    async fn run_maintenance(&self) -> Result<()> {
        let operator = self.operator.lock().await;
        while operator.query_one("SELECT bool_or(more) FROM sms_outbox.run_maintenance()", &[]).await?.get(0) {}
        Ok(())
    }

    async fn status(&self, id: MessageId) -> Result<DispatchStatus> {
        let operator = self.operator.lock().await;
        let query = "SELECT dispatch_status::text FROM sms_outbox.outbox WHERE id = $1::uuid::sms_outbox.message_id";
        let word: String = operator.query_one(query, &[&id.0]).await.context("the message does not exist")?.get(0);
        DispatchStatus::from_word(&word).context("an unknown dispatch_status")
    }

    async fn attempts(&self, id: MessageId) -> Result<Vec<LedgerLine>> {
        let query = format!(
            "SELECT coalesce(jsonb_agg(jsonb_build_array(a.attempt, a.status, a.error_code, {TOLD_BY}) ORDER BY a.attempt), '[]')
               FROM sms_outbox.attempts AS a WHERE a.id = $1::uuid::sms_outbox.message_id AND a.status IS NOT NULL"
        );
        ledger(&self.operator.lock().await.query_one(&query, &[&id.0]).await?.try_get(0)?)
    }

    async fn standings(&self, ids: &[MessageId]) -> Result<Vec<Option<Standing>>> {
        let ids: Vec<Uuid> = ids.iter().map(|id| id.0).collect();
        let rows = self.operator.lock().await.query(&self.standings, &[&ids]).await?;
        rows.iter().map(standing).collect()
    }
}

fn standings_query() -> String {
    format!(
        "SELECT o.dispatch_status::text,
                concat_ws(' and ', CASE WHEN r.id IS NOT NULL THEN 'ready' END, CASE WHEN s.id IS NOT NULL THEN 'scheduled' END,
                          CASE WHEN l.id IS NOT NULL THEN 'lease' END, CASE WHEN e.id IS NOT NULL THEN 'ended' END),
                coalesce(r.tries, s.tries, l.tries, 0::smallint), coalesce(r.refused_by, s.refused_by, l.refused_by, '{{}}'), coalesce(r.avoid, l.avoid, '{{}}'),
                (SELECT coalesce(jsonb_agg(jsonb_build_array(a.attempt, a.status, a.error_code, {TOLD_BY}) ORDER BY a.attempt), '[]')
                   FROM sms_outbox.attempts AS a WHERE a.id = u.id AND a.status IS NOT NULL),
                (SELECT coalesce(jsonb_object_agg(t.attempt, t.delivery_status), '{{}}') FROM sms_outbox.receipt AS t WHERE t.id = u.id)
           FROM unnest($1::uuid[]::sms_outbox.message_id[]) WITH ORDINALITY AS u (id, place)
           LEFT JOIN LATERAL (SELECT v.dispatch_status FROM sms_outbox.outbox AS v WHERE v.id = u.id) AS o ON true
           LEFT JOIN sms_outbox.ready AS r ON r.id = u.id
           LEFT JOIN sms_outbox.scheduled AS s ON s.id = u.id
           LEFT JOIN sms_outbox.lease AS l ON l.id = u.id
           LEFT JOIN sms_outbox.ended AS e ON e.id = u.id
          ORDER BY u.place"
        )
}

async fn enqueue(session: &Client, message: Enqueue) -> Result<MessageId> {
    let (due, valid) =
        (message.due_in.map(|time| time.as_secs_f64()), message.valid_for.map(|time| time.as_secs_f64()));
    let priority = i32::from(message.priority);
    let row = session
        .query_one(
            ENQUEUE,
            &[
                &message.mobile,
                &message.message,
                &message.organization,
                &priority,
                &message.pinned,
                &due,
                &valid,
                &message.traceparent,
            ],
        )
        .await
        .context("enqueue")?;
    Ok(MessageId(row.get(0)))
}

fn ledger(lines: &Value) -> Result<Vec<LedgerLine>> {
    let line = |line: &Value| -> Result<LedgerLine> {
        let text = |index: usize| line[index].as_str().map(str::to_owned);
        Ok(LedgerLine {
            attempt: line[0].as_i64().and_then(|number| number.try_into().ok()).context("no number")?,
            status: text(1).and_then(|word| AttemptStatus::from_word(&word)).context("an unknown attempt status")?,
            error_code: text(2),
            told_by: text(3).and_then(|word| Evidence::from_word(&word)),
        })
    };
    lines.as_array().context("no ledger")?.iter().map(line).collect()
}

fn standing(row: &tokio_postgres::Row) -> Result<Option<Standing>> {
    let Some(status) = row.try_get::<_, Option<&str>>(0)? else { return Ok(None) };
    let apps =
        |column: usize| -> Result<_> { Ok(row.try_get::<_, Vec<i64>>(column)?.into_iter().map(AppId).collect()) };
    let receipts: BTreeMap<String, String> = serde_json::from_value(row.try_get(6)?)?;
    let receipt = |(attempt, word): (String, String)| -> Result<(i16, DeliveryStatus)> {
        Ok((attempt.parse()?, DeliveryStatus::from_word(&word).context("an unknown delivery status")?))
    };
    Ok(Some(Standing {
        status: DispatchStatus::from_word(status).context("an unknown dispatch_status")?,
        table: row.try_get(1)?,
        tries: row.try_get::<_, i16>(2)?.try_into()?,
        refused_by: apps(3)?,
        avoid: apps(4)?,
        attempts: ledger(&row.try_get(5)?)?,
        receipts: receipts.into_iter().map(receipt).collect::<Result<_>>()?,
    }))
}
