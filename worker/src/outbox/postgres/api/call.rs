//! One statement on one connection, to its end: also when the client has gone, and when the database does not answer.

use deadpool_postgres::{Object, Pool};
use tokio::time::{Instant, timeout, timeout_at};
use tokio_postgres::Row;
use tokio_postgres::types::ToSql;

use super::error::CallError;
use super::{ApiDatabase, Limits};
use crate::outbox::postgres::connect::Target;

pub(super) type Parameters = Vec<Box<dyn ToSql + Sync + Send>>;

impl ApiDatabase {
    /// A request whose client went away is dropped in the middle. Its statement goes on by itself, so that a connection
    /// goes back into the pool only when nothing runs on it.
    pub(super) async fn call(&self, statement: &'static str, parameters: Parameters) -> Result<Vec<Row>, CallError> {
        let (pool, target, limits) = (self.pool.clone(), self.target.clone(), self.limits);
        let running = tokio::spawn(async move {
            let connection = pool.get().await.map_err(CallError::of_pool)?;
            run(&pool, connection, &target, limits, statement, &parameters).await
        });
        running.await.map_err(|error| CallError::Unexpected(error.to_string()))?
    }
}

async fn run(
    pool: &Pool,
    connection: Object,
    target: &Target,
    limits: Limits,
    statement: &str,
    parameters: &Parameters,
) -> Result<Vec<Row>, CallError> {
    let deadline = Instant::now() + limits.statement;
    let prepared = match timeout_at(deadline, connection.prepare_cached(statement)).await {
        Ok(Ok(prepared)) => prepared,
        Ok(Err(error)) => {
            // What this connection knows of statements may be of another time: of an extension that was updated since.
            pool.manager().statement_caches.clear();
            return Err(CallError::before(&error));
        }
        Err(_) => {
            give_up(pool, connection);
            return Err(CallError::Away("no answer in time".to_owned()));
        }
    };
    let parameters: Vec<&(dyn ToSql + Sync)> = parameters.iter().map(|one| &**one as &(dyn ToSql + Sync)).collect();
    let answer = {
        let query = connection.query(&prepared, &parameters);
        tokio::pin!(query);
        match timeout_at(deadline, query.as_mut()).await {
            Ok(answer) => Some(answer),
            // It may wait for another transaction with the same key, for as long as that takes. Cancelled, it has an end
            // that is known; without an end nobody could say whether it was committed.
            Err(_) => {
                let _ = timeout(limits.wait, connection.cancel_token().cancel_query(target.tls())).await;
                timeout(limits.wait, query.as_mut()).await.ok()
            }
        }
    };
    match answer {
        Some(Ok(rows)) => Ok(rows),
        Some(Err(error)) => {
            let error = CallError::during(&error);
            if error.is_of_old_plan() {
                pool.manager().statement_caches.clear();
            }
            Err(error)
        }
        None => {
            give_up(pool, connection);
            Err(CallError::Lost("no answer in time".to_owned()))
        }
    }
}

/// Where one connection is half open the others are.
fn give_up(pool: &Pool, connection: Object) {
    drop(Object::take(connection));
    pool.retain(|_, _| false);
}
