//! What the HTTP API asks the database: one statement a request, in autocommit, through a pool with a bounded wait. Each
//! statement begins with `enter()`, which decides who calls and for whom; nothing else in it runs before that.

mod call;
mod error;

use std::time::Duration;

use deadpool_postgres::{Manager, ManagerConfig, Pool, RecyclingMethod, Runtime, Timeouts};
use jiff::Timestamp;
use serde::de::DeserializeOwned;
use tokio_postgres::Row;
use tokio_postgres::types::{FromSqlOwned, Json};

use self::call::Parameters;
pub use self::error::{CallError, Refusal};
use super::connect::{self, ConnectError, Target};
use crate::message::MessageId;

const ENTER: &str = "SELECT sms_outbox.enter($1, $2, $3, $4)";

const ENQUEUE: &str = "SELECT e.id, e.dispatch_status::text, e.idempotent_replay
  FROM sms_outbox.enter($1, $2, $3, $4) AS c (organization_id),
       LATERAL sms_outbox.enqueue_text(mobile => $5, message => $6, sender => $7, datetime => $8, preferred_provider_slug => $9,
           idempotency_key => $10, meta => coalesce($11::text::jsonb, '{}'), organization_id => c.organization_id, priority => $12,
           valid_until => $13) AS e";

const ENQUEUE_MANY: &str = "SELECT e.id, e.dispatch_status::text, e.idempotent_replay
  FROM sms_outbox.enter($1, $2, $3, $4) AS c (organization_id),
       LATERAL sms_outbox.enqueue_many(messages => $5::text::jsonb, organization_id => c.organization_id) AS e
 ORDER BY e.ordinality";

// OFFSET 0: the planner must not look at the view before enter() has said whose rows are seen.
const GET: &str = "SELECT pg_catalog.to_json(o)
  FROM sms_outbox.enter($1, $2, $3, $4) AS c (organization_id),
       LATERAL (SELECT v.* FROM sms_outbox.outbox AS v
                 WHERE v.id = $5::text::sms_outbox.message_id AND v.organization_id = c.organization_id OFFSET 0) AS o";

const PAGE: &str = "SELECT pg_catalog.to_json(o)
  FROM sms_outbox.enter($1, $2, $3, $4) AS c (organization_id),
       LATERAL sms_outbox.page(c.organization_id, dispatch_status => $5, mobile => $6, created_after => $7, created_before => $8,
           before_id => $9::text::sms_outbox.message_id, \"rows\" => $10) AS p (id),
       LATERAL (SELECT v.* FROM sms_outbox.outbox AS v WHERE v.id = p.id OFFSET 0) AS o
 ORDER BY p.id DESC";

const CANCEL: &str = "SELECT sms_outbox.cancel(id => $5::text::sms_outbox.message_id)::text
  FROM sms_outbox.enter($1, $2, $3, $4) AS c";

const RETRY: &str = "SELECT sms_outbox.retry(id => $5::text::sms_outbox.message_id)::text
  FROM sms_outbox.enter($1, $2, $3, $4) AS c";

/// How much of the database the API takes, and how long it waits for it.
#[derive(Clone, Copy, Debug)]
pub struct Limits {
    /// Most connections.
    pub pool_size: usize,
    /// How long a request waits for a free connection, and a new connection for the server.
    pub wait: Duration,
    /// How long a statement may take before it is cancelled.
    pub statement: Duration,
}

/// The four parameters of `enter()`.
#[derive(Clone)]
pub struct Entry {
    /// What the request does: `enqueue`, `read` or `operate`.
    pub scope: &'static str,
    /// Id of the API key; `None` for a session token, which was checked.
    pub key_id: Option<String>,
    /// SHA-256 of the whole key.
    pub key_digest: Option<[u8; 32]>,
    /// The organization of the token; with a key, what the request names beside it.
    pub organization_id: Option<String>,
}

/// One message to queue: the fields as they came, for the database to judge.
#[derive(Clone, Default)]
pub struct NewMessage {
    /// The number, in any writing.
    pub mobile: Option<String>,
    /// The text.
    pub message: Option<String>,
    /// The sender.
    pub sender: Option<String>,
    /// When to send it: RFC 3339, or local time of the organization.
    pub datetime: Option<String>,
    /// The provider to which it is pinned.
    pub preferred_provider_slug: Option<String>,
    /// The caller's own key of the message.
    pub idempotency_key: Option<String>,
    /// A JSON object as text: no number loses a digit.
    pub meta: Option<String>,
    /// 0, 1 or 2.
    pub priority: Option<i32>,
    /// Not sent after this.
    pub valid_until: Option<String>,
}

/// What became of one message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Enqueued {
    /// Its id.
    pub id: String,
    /// Its state.
    pub dispatch_status: String,
    /// Whether its idempotency key stood for an earlier one.
    pub idempotent_replay: bool,
}

/// Which messages to list.
#[derive(Clone, Debug, Default)]
pub struct Listing {
    /// Only those in this state.
    pub dispatch_status: Option<String>,
    /// Only those to this number, in any writing.
    pub mobile: Option<String>,
    /// Only those created at this time or later.
    pub created_after: Option<Timestamp>,
    /// Only those created before.
    pub created_before: Option<Timestamp>,
    /// Only those older than this one.
    pub before: Option<MessageId>,
    /// Most rows.
    pub rows: i32,
}

/// The two ways to move a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Move {
    /// Takes a waiting message back.
    Cancel,
    /// Puts an ended message into the queue again.
    Retry,
}

/// The database as the API uses it. Clones share the pool.
#[derive(Clone)]
pub struct ApiDatabase {
    pool: Pool,
    target: Target,
    limits: Limits,
}

impl ApiDatabase {
    /// Opens no connection yet.
    pub fn new(target: Target, limits: Limits) -> anyhow::Result<Self> {
        let manager = Manager::from_config(
            target.config().clone(),
            target.tls(),
            ManagerConfig { recycling_method: RecyclingMethod::Fast },
        );
        let wait = Some(limits.wait);
        let pool = Pool::builder(manager)
            .max_size(limits.pool_size)
            .timeouts(Timeouts { wait, create: wait, recycle: wait })
            .runtime(Runtime::Tokio1)
            .build()?;
        Ok(Self { pool, target, limits })
    }

    /// Where it is, without the password.
    pub fn target(&self) -> &Target {
        &self.target
    }

    /// Its connections, to be counted.
    pub fn pool(&self) -> &Pool {
        &self.pool
    }

    /// Whether the database answers, and its extension fits this binary.
    pub async fn check(&self) -> Result<(), CallError> {
        let connection = self.pool.get().await.map_err(CallError::of_pool)?;
        match tokio::time::timeout(self.limits.wait, connect::check(&connection)).await {
            Ok(Ok(_)) => Ok(()),
            Ok(Err(ConnectError::Query(error))) => Err(CallError::before(&error)),
            Ok(Err(other)) => Err(CallError::Away(other.to_string())),
            Err(_) => Err(CallError::Away("no answer in time".to_owned())),
        }
    }

    /// Only checks who calls: for a request that is refused for another reason, but not before this one.
    pub async fn enter(&self, entry: &Entry) -> Result<(), CallError> {
        self.call(ENTER, entered(entry)).await.map(drop)
    }

    /// Queues one message.
    pub async fn enqueue(&self, entry: &Entry, new: NewMessage) -> Result<Enqueued, CallError> {
        let mut parameters = entered(entry);
        parameters.extend::<Parameters>(vec![
            Box::new(new.mobile),
            Box::new(new.message),
            Box::new(new.sender),
            Box::new(new.datetime),
            Box::new(new.preferred_provider_slug),
            Box::new(new.idempotency_key),
            Box::new(new.meta),
            Box::new(new.priority),
            Box::new(new.valid_until),
        ]);
        let rows = self.call(ENQUEUE, parameters).await?;
        enqueued(rows.first().ok_or_else(CallError::no_row)?)
    }

    /// Queues all messages of a JSON array or none; answers in their order.
    pub async fn enqueue_many(&self, entry: &Entry, messages: String) -> Result<Vec<Enqueued>, CallError> {
        let mut parameters = entered(entry);
        parameters.push(Box::new(messages));
        self.call(ENQUEUE_MANY, parameters).await?.iter().map(enqueued).collect()
    }

    /// A row of the view `outbox`; `None` where the organization has no such message.
    pub async fn get<T: DeserializeOwned>(&self, entry: &Entry, id: MessageId) -> Result<Option<T>, CallError> {
        let mut parameters = entered(entry);
        parameters.push(Box::new(id.to_string()));
        self.call(GET, parameters).await?.first().map(json).transpose()
    }

    /// Rows of the view `outbox`, newest first.
    pub async fn page<T: DeserializeOwned>(&self, entry: &Entry, listing: Listing) -> Result<Vec<T>, CallError> {
        let mut parameters = entered(entry);
        parameters.extend::<Parameters>(vec![
            Box::new(listing.dispatch_status),
            Box::new(listing.mobile),
            Box::new(listing.created_after),
            Box::new(listing.created_before),
            Box::new(listing.before.map(|id| id.to_string())),
            Box::new(listing.rows),
        ]);
        self.call(PAGE, parameters).await?.iter().map(json).collect()
    }

    /// Moves a message; returns its state afterwards.
    pub async fn move_one(&self, entry: &Entry, what: Move, id: MessageId) -> Result<String, CallError> {
        let statement = match what {
            Move::Cancel => CANCEL,
            Move::Retry => RETRY,
        };
        let mut parameters = entered(entry);
        parameters.push(Box::new(id.to_string()));
        let rows = self.call(statement, parameters).await?;
        column(rows.first().ok_or_else(CallError::no_row)?, 0)
    }
}

fn entered(entry: &Entry) -> Parameters {
    let Entry { scope, key_id, key_digest, organization_id } = entry;
    vec![
        Box::new(*scope),
        Box::new(key_id.clone()),
        Box::new(key_digest.map(|digest| digest.to_vec())),
        Box::new(organization_id.clone()),
    ]
}

fn enqueued(row: &Row) -> Result<Enqueued, CallError> {
    Ok(Enqueued { id: column(row, 0)?, dispatch_status: column(row, 1)?, idempotent_replay: column(row, 2)? })
}

fn json<T: DeserializeOwned>(row: &Row) -> Result<T, CallError> {
    column::<Json<T>>(row, 0).map(|json| json.0)
}

fn column<T: FromSqlOwned>(row: &Row, place: usize) -> Result<T, CallError> {
    row.try_get(place).map_err(|error| CallError::Unexpected(format!("column {place}: {error}")))
}
