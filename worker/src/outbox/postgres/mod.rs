//! The queue in PostgreSQL: each call of [`Outbox`] is one statement against one function of the extension.
//! This folder and `sql/` hold all SQL text there is.

pub mod api;
pub mod connect;
mod listener;
pub mod operator;
mod rows;

use std::sync::Arc;
use std::time::Duration;

use deadpool_postgres::{Hook, Manager, ManagerConfig, Object, Pool, PoolError, RecyclingMethod, Runtime, Timeouts};
use tokio_postgres::types::ToSql;
use tokio_postgres::{Error, Row};
use uuid::Uuid;

use self::connect::Target;
use super::{
    App, Claim, Claimed, Finish, Finished, Heartbeat, Look, Looked, OrganizationId, Outbox, OutboxError, Reconcile,
    Resolution, Unclear,
};
use crate::message::MessageId;
use crate::metrics::worker;

/// One call at a time for each: looking and claiming, finishing, the heartbeat, and look-ups.
const CONNECTIONS: usize = 4;

/// A call that takes longer has lost its connection without noticing. No call of a batch takes a tenth of it.
const CALL_TIMEOUT: Duration = Duration::from_secs(20);

const LOOK: &str = "SELECT l.snapshot::text, l.range, l.id::uuid, l.organization_id, l.priority, l.xid::text, \
     l.preferred_provider_slug, l.refused_by, l.avoid, l.log \
     FROM sms_outbox.look($1, $2::text[]::xid8[], $3::uuid[]::sms_outbox.message_id[], $4::text[]::xid8[], $5, $6) AS l";
const APPS: &str = "SELECT a.app_id, a.organization_id, a.provider_slug, a.\"position\", a.weight, a.max_in_flight, \
     a.rate, a.rate_unit, a.burst, a.state, a.blocked_seconds FROM sms_outbox.apps($1) AS a";
const CLAIM: &str = "SELECT c.id::uuid, c.result, c.attempt, c.app_id, c.provider_slug, c.lease_seconds, c.mobile, \
     c.message, c.sender, c.config, c.traceparent, c.waited_seconds, c.organization_id, c.segments \
     FROM sms_outbox.claim($1, $2::uuid[]::sms_outbox.message_id[], $3) AS c";
const FINISH: &str = "SELECT f.id::uuid, f.attempt, f.applied, f.dispatch_status::text \
     FROM sms_outbox.finish($1, $2::uuid[]::sms_outbox.message_id[], $3, $4::text[]::sms_outbox.attempt_status[], \
     $5, $6, $7, $8, $9, $10) AS f";
const LEASES: &str = "SELECT l.id::uuid, l.attempt FROM sms_outbox.leases($1) AS l";
const UNCLEAR: &str = "SELECT u.id::uuid, u.attempt, u.app_id, u.organization_id, u.provider_slug, u.config, u.mobile, u.message, u.sender, \
     u.started_at, u.finished_at, u.age_seconds, u.taken_ids, u.has_twin \
     FROM sms_outbox.unclear($1::float8 * interval '1 second', $2) AS u";
const RESOLVE: &str = "SELECT r.applied FROM sms_outbox.resolve($1::uuid::sms_outbox.message_id, $2::smallint, \
     $3::text::sms_outbox.attempt_status, 'look-up', $4, $5, $6) AS r";
const HEARTBEAT: &str = "SELECT h FROM sms_outbox.heartbeat($1, $2, $3, $4, $5, $6, $7) AS h";
const GOODBYE: &str = "SELECT sms_outbox.goodbye($1)";
const LEASE_TIMEOUT: &str = "SELECT extract(epoch FROM sms_outbox.setting('lease_timeout')::interval)::float8";

/// [`Outbox`] on a database, as one worker.
#[derive(Clone)]
pub struct PostgresOutbox {
    pool: Pool,
    target: Target,
    worker: Arc<str>,
}

impl PostgresOutbox {
    /// An outbox for the worker of this name, unique among all that ever run at the same time: its leases carry it.
    /// Opens no connection yet.
    pub fn new(target: Target, worker: &str) -> anyhow::Result<Self> {
        let manager = Manager::from_config(
            target.config().clone(),
            target.tls(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let patience = Some(Duration::from_secs(10));
        let pool = Pool::builder(manager)
            .max_size(CONNECTIONS)
            .timeouts(Timeouts { wait: patience, create: patience, recycle: patience })
            .runtime(Runtime::Tokio1)
            .post_create(Hook::sync_fn(|_, _| {
                worker::connected();
                Ok(())
            }))
            .build()?;
        Ok(Self { pool, target, worker: worker.into() })
    }

    /// How long a lease lasts by the database's setting: requests must be given less.
    pub async fn lease_timeout(&self) -> Result<Duration, OutboxError> {
        let rows = self.call(LEASE_TIMEOUT, &[]).await?;
        let seconds: f64 = rows.first().map_or(Ok(0.0), |row| row.try_get(0)).map_err(refused)?;
        Ok(Duration::try_from_secs_f64(seconds).unwrap_or_default())
    }

    /// Tells the database that this worker has ended in order, so that others take its share at once.
    pub async fn goodbye(&self) -> Result<(), OutboxError> {
        self.call(GOODBYE, &[&&*self.worker]).await.map(drop)
    }

    /// Where this outbox is.
    pub fn target(&self) -> &Target {
        &self.target
    }

    async fn call(&self, statement: &str, parameters: &[&(dyn ToSql + Sync)]) -> Result<Vec<Row>, OutboxError> {
        let connection = self.pool.get().await.map_err(no_connection)?;
        let answer = tokio::time::timeout(CALL_TIMEOUT, async {
            let prepared = connection.prepare_cached(statement).await?;
            connection.query(&prepared, parameters).await
        });
        match answer.await {
            Ok(Ok(rows)) => Ok(rows),
            Ok(Err(error)) => {
                // A statement that fails for its plan or its type ids (an upgraded or re-created extension) must not be
                // kept, by no connection.
                self.pool.manager().statement_caches.clear();
                Err(refused(error))
            }
            Err(_) => {
                // Whatever it still does, nobody waits for. And where one connection is half open the others are.
                drop(Object::take(connection));
                self.pool.retain(|_, _| false);
                Err(OutboxError::Unavailable("no answer in time".into()))
            }
        }
    }
}

fn no_connection(error: PoolError) -> OutboxError {
    match error {
        PoolError::Backend(error) => OutboxError::Unavailable(connect::causes(&error).into()),
        other => OutboxError::Unavailable(Box::new(other)),
    }
}

fn refused(error: Error) -> OutboxError {
    match error.as_db_error() {
        Some(db) if is_fault_of_data(db.code().code()) => {
            OutboxError::Refused { sqlstate: db.code().code().to_owned(), message: db.message().to_owned() }
        }
        _ => OutboxError::Unavailable(connect::causes(&error).into()),
    }
}

/// Whether the values themselves are refused: class 22 (data), 23 (constraints) or 54 (limits). Anything else passes by
/// itself, or when somebody mends it: a server that restarts, a standby, a full disk, a right that was revoked, a function
/// that an upgrade is replacing at this moment.
fn is_fault_of_data(sqlstate: &str) -> bool {
    ["22", "23", "54"].iter().any(|class| sqlstate.starts_with(class))
}

impl Outbox for PostgresOutbox {
    async fn look(&self, look: &Look) -> Result<Looked, OutboxError> {
        let priorities: Vec<i16> = look.ranges.iter().map(|range| i16::from(range.priority)).collect();
        let after_xid: Vec<String> = look.ranges.iter().map(|range| range.after.xid.to_string()).collect();
        let after_id: Vec<Uuid> = look.ranges.iter().map(|range| range.after.id).collect();
        let before: Vec<Option<String>> =
            look.ranges.iter().map(|range| range.before.map(|xid| xid.to_string())).collect();
        let organizations: Option<Vec<&str>> =
            (!look.organizations.is_empty()).then(|| look.organizations.iter().map(|id| &**id).collect());
        let page = i32::try_from(look.page).unwrap_or(i32::MAX);
        let rows = self.call(LOOK, &[&priorities, &after_xid, &after_id, &before, &page, &organizations]).await?;
        rows::looked(&rows).map_err(refused)
    }

    async fn apps(&self, organizations: &[OrganizationId]) -> Result<Vec<App>, OutboxError> {
        let organizations: Vec<&str> = organizations.iter().map(|id| &**id).collect();
        let rows = self.call(APPS, &[&organizations]).await?;
        rows.iter().map(rows::app).collect::<Result<_, _>>().map_err(refused)
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Vec<Claimed>, OutboxError> {
        let ids: Vec<Uuid> = claims.iter().map(|claim| claim.id.0).collect();
        let apps: Vec<Option<i64>> = claims.iter().map(|claim| claim.app.map(|app| app.0)).collect();
        let rows = self.call(CLAIM, &[&&*self.worker, &ids, &apps]).await?;
        rows::claimed(claims, &rows).map_err(refused)
    }

    async fn finish(&self, outcomes: &[Finish]) -> Result<Vec<Finished>, OutboxError> {
        let ids: Vec<Uuid> = outcomes.iter().map(|finish| finish.id.0).collect();
        let attempts: Vec<i16> = outcomes.iter().map(|finish| finish.attempt).collect();
        let statuses: Vec<&str> = outcomes.iter().map(|finish| finish.outcome.status.word()).collect();
        let http: Vec<Option<i16>> = outcomes.iter().map(|finish| finish.outcome.http_status).collect();
        let codes: Vec<Option<&str>> = outcomes.iter().map(|finish| finish.outcome.error_code.as_deref()).collect();
        let messages: Vec<Option<&str>> =
            outcomes.iter().map(|finish| finish.outcome.error_message.as_deref()).collect();
        let responses: Vec<Option<&str>> = outcomes.iter().map(|finish| finish.outcome.response.as_deref()).collect();
        let provider_ids: Vec<Option<&str>> =
            outcomes.iter().map(|finish| finish.outcome.provider_message_id.as_deref()).collect();
        let retry_after: Vec<Option<f64>> =
            outcomes.iter().map(|finish| finish.outcome.retry_after.map(|after| after.as_secs_f64())).collect();
        let parameters: [&(dyn ToSql + Sync); 10] = [
            &&*self.worker,
            &ids,
            &attempts,
            &statuses,
            &http,
            &codes,
            &messages,
            &responses,
            &provider_ids,
            &retry_after,
        ];
        let rows = self.call(FINISH, &parameters).await?;
        rows::finished(outcomes, &rows).map_err(refused)
    }

    async fn leases(&self) -> Result<Vec<(MessageId, i16)>, OutboxError> {
        let rows = self.call(LEASES, &[&&*self.worker]).await?;
        rows.iter()
            .map(|row| Ok((MessageId(row.try_get(0)?), row.try_get(1)?)))
            .collect::<Result<_, _>>()
            .map_err(refused)
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<Vec<String>, OutboxError> {
        let parameters: [&(dyn ToSql + Sync); 7] =
            [&&*self.worker, &beat.version, &beat.host, &beat.in_flight, &beat.claimed, &beat.sent, &beat.failed];
        let rows = self.call(HEARTBEAT, &parameters).await?;
        rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>().map_err(refused)
    }
}

impl Reconcile for PostgresOutbox {
    async fn unclear(&self, after: Duration, most: u32) -> Result<Vec<Unclear>, OutboxError> {
        let most = i32::try_from(most).unwrap_or(i32::MAX);
        let rows = self.call(UNCLEAR, &[&after.as_secs_f64(), &most]).await?;
        rows::unclear(&rows).map_err(refused)
    }

    async fn resolve(&self, resolution: &Resolution) -> Result<bool, OutboxError> {
        let Resolution { id, attempt, verdict, provider_message_id, detail } = resolution;
        let parameters: [&(dyn ToSql + Sync); 6] =
            [&id.0, attempt, &verdict.word(), provider_message_id, detail, &&*self.worker];
        let rows = self.call(RESOLVE, &parameters).await?;
        rows.first().map_or(Ok(false), |row| row.try_get(0)).map_err(refused)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_the_values_can_be_refused_for_good() {
        for sqlstate in ["22P02", "22P05", "22021", "23514", "54000"] {
            assert!(is_fault_of_data(sqlstate), "{sqlstate}");
        }
        for sqlstate in
            ["57P01", "08006", "53100", "40001", "25006", "55P03", "42501", "42883", "3F000", "0A000", "XX000"]
        {
            assert!(!is_fault_of_data(sqlstate), "{sqlstate}");
        }
    }
}
