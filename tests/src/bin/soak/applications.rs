//! Who enqueues: applications that commit, roll back, commit late, repeat themselves and plan ahead, and operators who take
//! back and retry.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::Result;
use sms_outbox_tests::history::journal::Transaction;
use tokio_postgres::{Client, Statement};

use crate::books::Books;
use crate::pace::Pace;
use crate::stage::{ORGANIZATIONS, Stage};

/// One row for each message: its id, whether it is a replay, number and text.
const ENQUEUE: &str = "SELECT q.id, q.idempotent_replay, '+96650' || lpad((n % 10000000)::text, 7, '0'), 'soak ' || n
    FROM generate_series($1::bigint, $2::bigint) AS n,
    sms_outbox_enqueue(mobile => '+96650' || lpad((n % 10000000)::text, 7, '0'), message => 'soak ' || n,
                       organization_id => $3, idempotency_key => CASE WHEN $4 THEN 'key ' || n END, priority => (n % 3)::int,
                       datetime => clock_timestamp() + make_interval(secs => $5),
                       valid_until => clock_timestamp() + make_interval(secs => $6)) AS q";

/// What all applications and operators share.
pub(crate) struct Round {
    pub(crate) stage: Arc<Stage>,
    pub(crate) books: Arc<Books>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) number: Arc<AtomicU64>,
    pub(crate) over: AtomicBool,
    /// The lowest id of the round.
    pub(crate) first: String,
}

impl Round {
    fn is_over(&self) -> bool {
        self.over.load(Ordering::Relaxed)
    }
}

/// How a transaction enqueues, and ends.
#[derive(Clone, Copy)]
struct Kind {
    messages: u64,
    keyed: bool,
    delay: Option<f64>,
    validity: Option<f64>,
    rolls_back: bool,
    open_for: Duration,
}

const PLAIN: Kind =
    Kind { messages: 50, keyed: false, delay: None, validity: None, rolls_back: false, open_for: Duration::ZERO };

/// One application, until the round is over.
pub(crate) async fn application(round: Arc<Round>, seed: u64, late: bool) -> Result<()> {
    let mut dice = fastrand::Rng::with_seed(seed);
    let mut session: Option<(Client, Statement)> = None;
    while !round.is_over() {
        let kind = if late { late_kind(&mut dice) } else { kind(&mut dice) };
        if !round.pace.take(kind.messages).await {
            return Ok(());
        }
        let from = round.number.fetch_add(kind.messages, Ordering::Relaxed);
        let organization = ORGANIZATIONS[dice.usize(..ORGANIZATIONS.len())];
        let times = if kind.keyed { 2 } else { 1 };
        for _ in 0..times {
            let (client, statement) = match session.take() {
                Some(session) => session,
                None => connect(&round.stage).await?,
            };
            // A session that was hurt is left.
            if transaction(&round, &client, &statement, kind, from, organization).await? {
                session = Some((client, statement));
            }
        }
    }
    Ok(())
}

async fn connect(stage: &Stage) -> Result<(Client, Statement)> {
    loop {
        let client = stage.connect("app").await?;
        // The server may leave at this moment.
        if let Ok(statement) = client.prepare(ENQUEUE).await {
            return Ok((client, statement));
        }
    }
}

fn kind(dice: &mut fastrand::Rng) -> Kind {
    match dice.u32(..100) {
        0..10 => Kind { messages: 20, keyed: true, ..PLAIN },
        10..20 => Kind { messages: 20, rolls_back: true, ..PLAIN },
        20..26 => Kind { messages: 10, delay: Some(dice.f64() * 5.0), ..PLAIN },
        26..30 => Kind { messages: 10, validity: Some(1.0 + dice.f64() * 3.0), ..PLAIN },
        _ => Kind { messages: dice.u64(20..100), ..PLAIN },
    }
}

fn late_kind(dice: &mut fastrand::Rng) -> Kind {
    let open_for = Duration::from_millis(dice.u64(500..8000));
    Kind { messages: 10, rolls_back: dice.u32(..8) == 0, open_for, ..PLAIN }
}

/// One transaction; whether the session goes on.
async fn transaction(
    round: &Round,
    client: &Client,
    enqueue: &Statement,
    kind: Kind,
    from: u64,
    organization: &str,
) -> Result<bool> {
    let (from, upto) = (i64::try_from(from)?, i64::try_from(from + kind.messages)? - 1);
    let queued = async {
        client.batch_execute("BEGIN").await?;
        client.query(enqueue, &[&from, &upto, &organization, &kind.keyed, &kind.delay, &kind.validity]).await
    };
    // Cut off before COMMIT was asked for: nothing is queued, and no id was learnt.
    let Ok(rows) = queued.await else { return Ok(false) };
    tokio::time::sleep(kind.open_for).await;
    let end = client.batch_execute(if kind.rolls_back { "ROLLBACK" } else { "COMMIT" }).await;
    let outcome = match (kind.rolls_back, &end) {
        (true, _) => Transaction::RolledBack,
        (false, Ok(())) => Transaction::Committed,
        // The server says that it did not commit, or nobody says anything.
        (false, Err(error)) if error.as_db_error().is_some_and(|error| error.code().code() == "25P02") => {
            Transaction::RolledBack
        }
        (false, Err(_)) => Transaction::Unknown,
    };
    for row in &rows {
        round.books.enqueued(row.try_get(0)?, row.try_get(2)?, row.try_get(3)?, outcome, row.try_get(1)?)?;
    }
    Ok(end.is_ok())
}

/// An operator, who takes back some of what is planned, and retries some of what is unclear or failed.
pub(crate) async fn operator(round: Arc<Round>, canceled: Arc<AtomicU64>) -> Result<()> {
    while !round.is_over() {
        tokio::time::sleep(Duration::from_secs(1)).await;
        let client = round.stage.connect("operator").await?;
        let admin = round.stage.connect("postgres").await?;
        // Whatever is cut off here, the next second does again.
        let planned =
            "SELECT id::text FROM sms_outbox.scheduled WHERE reason = 'datetime' ORDER BY due_at DESC LIMIT 5";
        for row in admin.query(planned, &[]).await.unwrap_or_default() {
            let cancel = format!("SELECT sms_outbox.cancel('{}')", row.try_get::<_, &str>(0)?);
            canceled.fetch_add(u64::from(client.batch_execute(&cancel).await.is_ok()), Ordering::Relaxed);
        }
        let ended = "SELECT e.id::text, e.last_attempt, to_json(clock_timestamp()) #>> '{}' FROM sms_outbox.ended AS e
            WHERE e.status IN ('dispatch_timeout', 'failed') AND e.id >= $1::text::sms_outbox.message_id
              AND right(e.id::text, 1) < '8' ORDER BY e.id DESC LIMIT 2";
        for row in admin.query(ended, &[&round.first]).await.unwrap_or_default() {
            let (id, attempt): (&str, i16) = (row.try_get(0)?, row.try_get(1)?);
            round.books.retried(id.parse()?, attempt, row.try_get(2)?)?;
            if client.batch_execute(&format!("SELECT sms_outbox.retry('{id}')")).await.is_err() {
                // Cut off, or a late answer was faster: it may be unclear still.
                round.books.allow_unclear(id.parse()?, attempt + 1);
            }
        }
    }
    Ok(())
}
