//! The worker's queue on PostgreSQL passes the same suite as the one in memory: the rules of a message's life.

use std::sync::Arc;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sms_outbox_tests::{Cluster, Database, Major, on_majors};
use sms_outbox_worker::message::{AppId, AttemptStatus, DeliveryStatus, DispatchStatus, Evidence, MessageId};
use sms_outbox_worker::outbox::ReceiptResult;
use sms_outbox_worker::outbox::conformance::{self, Enqueue, Install, LedgerLine, MAX_ATTEMPTS, Subject};
use sms_outbox_worker::outbox::postgres::PostgresOutbox;
use sms_outbox_worker::outbox::postgres::connect::Target;
use tokio::sync::Mutex;
use tokio_postgres::Client;
use tokio_postgres::error::SqlState;

on_majors! { ends: passes_the_suite }

async fn passes_the_suite(major: Major) -> Result<()> {
    // Without preload nothing but the cases themselves runs maintenance.
    let cluster = Cluster::options(major)
        .without_preload()
        .set("sms_outbox.max_attempts", &MAX_ATTEMPTS.to_string())
        .start()
        .await?;
    let database = Arc::new(Database::create(&cluster, "queue").await?);
    let queue = Queue { database: database.clone(), operator: Arc::new(Mutex::new(database.connect().await?)) };
    conformance::run(|| async { Ok(queue.clone()) }).await
}

/// A real database as the suite's subject. All cases share it, as they may.
#[derive(Clone)]
struct Queue {
    database: Arc<Database>,
    operator: Arc<Mutex<Client>>,
}

impl Queue {
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

    async fn worker(&self, name: &str) -> Result<PostgresOutbox> {
        let target = Target::parse(&self.database.url("worker"), "conformance", Duration::from_secs(10))?;
        PostgresOutbox::new(target, name)
    }

    async fn enqueue(&self, message: Enqueue) -> Result<MessageId> {
        let (due, valid) =
            (message.due_in.map(|time| time.as_secs_f64()), message.valid_for.map(|time| time.as_secs_f64()));
        let queue = "SELECT id::sms_outbox.message_id::uuid FROM sms_outbox_enqueue($1, $2, organization_id => $3, priority => $4,
            preferred_provider_slug => $5, datetime => now() + $6 * interval '1 second', valid_until => now() + $7 * interval '1 second',
            meta => jsonb_strip_nulls(jsonb_build_object('traceparent', $8::text)))";
        let operator = self.operator.lock().await;
        let row = operator
            .query_one(
                queue,
                &[
                    &message.mobile,
                    &message.message,
                    &message.organization,
                    &i32::from(message.priority),
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
        self.change_one("UPDATE sms_outbox.lease SET expires_at = now() - interval '1 second' WHERE id = $1::uuid::sms_outbox.message_id", &id.0).await
    }

    async fn make_due(&self, id: MessageId) -> Result<()> {
        self.change_one("UPDATE sms_outbox.scheduled SET due_at = now() - interval '1 second' WHERE id = $1::uuid::sms_outbox.message_id", &id.0).await
    }

    async fn pass_validity(&self, id: MessageId) -> Result<()> {
        self.change_one("UPDATE sms_outbox.ready SET valid_until = now() - interval '1 second' WHERE id = $1::uuid::sms_outbox.message_id", &id.0).await
    }

    async fn pass_block(&self, app: AppId) -> Result<()> {
        // An app that is not blocked stays so.
        let pass = "UPDATE sms_outbox.app_health SET blocked_until = now() - interval '1 second' WHERE app_id = $1 AND blocked_until IS NOT NULL";
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
        let query = "SELECT attempt, status::text, error_code, jsonb_path_query_first(evidence, '$[last] ? (@.verdict != \"unclear\").source') #>> '{}'
            FROM sms_outbox.attempts
            WHERE id = $1::uuid::sms_outbox.message_id AND status IS NOT NULL ORDER BY attempt";
        let rows = self.operator.lock().await.query(query, &[&id.0]).await?;
        let line = |row: &tokio_postgres::Row| -> Result<LedgerLine> {
            let status = AttemptStatus::from_word(row.get(1)).context("an unknown attempt status")?;
            let told_by = row.get::<_, Option<&str>>(3).and_then(Evidence::from_word);
            Ok(LedgerLine { attempt: row.get(0), status, error_code: row.get(2), told_by })
        };
        rows.iter().map(line).collect()
    }
}
