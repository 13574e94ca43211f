//! What all handlers share: who calls, and what the database said.

use std::sync::{Arc, Mutex, PoisonError};

use axum::http::HeaderMap;

use super::auth::{AuthRefusal, Authenticator, Caller, Scope};
use super::codes::Code;
use super::problem::Problem;
use crate::logging::Told;
use crate::metrics;
use crate::metrics::api::ApiMetrics;
use crate::outbox::postgres::api::{ApiDatabase, CallError, Entry};

/// A key that nobody has: looking it up costs what looking up any other costs.
const NOBODYS_KEY: &str = "000000000000";

/// What a call does, which decides what a lost connection leaves open.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    /// Nothing is changed.
    Reads,
    /// Something may be changed.
    Writes,
}

/// The state of the router. Clones share it.
#[derive(Clone)]
pub(super) struct Service(Arc<Shared>);

struct Shared {
    database: ApiDatabase,
    authenticator: Authenticator,
    metrics: Arc<ApiMetrics>,
    outage: Mutex<Told>,
}

impl Service {
    pub(super) fn new(database: ApiDatabase, authenticator: Authenticator, metrics: Arc<ApiMetrics>) -> Self {
        Self(Arc::new(Shared { database, authenticator, metrics, outage: Mutex::default() }))
    }

    pub(super) fn metrics(&self) -> &ApiMetrics {
        &self.0.metrics
    }

    pub(super) fn database(&self) -> &ApiDatabase {
        &self.0.database
    }

    /// Who calls, as the database is to check it in the statement of the request.
    pub(super) async fn admit(&self, headers: &HeaderMap, scope: Scope) -> Result<Entry, Problem> {
        match self.0.authenticator.caller(headers, scope) {
            Ok(Caller { key_id, key_digest, organization_id }) => {
                Ok(Entry { scope: scope.word(), key_id, key_digest, organization_id })
            }
            Err(AuthRefusal::Unauthorized) => {
                // The same work as for a key that is well formed and wrong: the time of a 401 tells nothing.
                let key_id = Some(NOBODYS_KEY.to_owned());
                let entry = Entry { scope: scope.word(), key_id, key_digest: Some([0; 32]), organization_id: None };
                self.answered(Effect::Reads, self.database().enter(&entry).await)?;
                Err(Problem::new(Code::Unauthorized))
            }
            Err(refusal) => Err(refusal.into()),
        }
    }

    /// A fault of the request's form, told to callers only whose key is good: others get what any bad key gets.
    pub(super) async fn refuse(&self, entry: &Entry, problem: Problem) -> Problem {
        if entry.key_id.is_some()
            && let Err(refused) = self.answered(Effect::Reads, self.database().enter(entry).await)
        {
            return refused;
        }
        problem
    }

    /// The answer of the database, or the problem that its refusal is. Logs what the operator must know, once.
    pub(super) fn answered<T>(&self, effect: Effect, answer: Result<T, CallError>) -> Result<T, Problem> {
        let error = match answer {
            Err(error @ (CallError::Away(_) | CallError::Lost(_))) => {
                self.away(&error);
                error
            }
            Err(error @ CallError::Busy) => {
                metrics::api::pool_timed_out();
                error
            }
            answer => {
                self.here();
                match answer {
                    Ok(value) => return Ok(value),
                    Err(error) => error,
                }
            }
        };
        let lost_nothing = effect == Effect::Reads && matches!(error, CallError::Lost(_));
        let words = error.to_string();
        let problem = if lost_nothing { Problem::new(Code::DatabaseUnavailable) } else { Problem::from(error) };
        if problem.code == Code::InternalError {
            tracing::error!(error = %words, "the database refused a call of ours");
        }
        Err(problem)
    }

    fn away(&self, error: &CallError) {
        let mut outage = self.0.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if outage.is_news(error) {
            tracing::warn!(database = %self.database().target(), %error, "the database does not answer");
        }
    }

    fn here(&self) {
        let mut outage = self.0.outage.lock().unwrap_or_else(PoisonError::into_inner);
        if outage.is_over() {
            tracing::info!("the database answers again");
        }
    }
}
