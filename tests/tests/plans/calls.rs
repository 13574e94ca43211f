//! The calls that happen for each message or every few seconds, and what their plans must be like.

use anyhow::{Context, Result};
use tokio_postgres::SimpleQueryMessage;

use crate::explained::{Called, Explained, Step};

/// Tables with rows for messages.
const LARGE: [&str; 7] = ["message", "attempt", "ready", "scheduled", "lease", "ended", "idempotency"];

/// Rows of a small table.
const FEW: f64 = 1000.0;

/// A call, and what is asked of it.
pub(crate) struct Call {
    name: String,
    query: String,
    /// Indexes that it must use.
    by: &'static [&'static str],
    /// Messages that it is about, each with a row.
    messages: usize,
    /// Rows that it returns beside those.
    more_rows: usize,
    /// Pages that it may touch, whatever it is about, and for each message.
    pages: (usize, usize),
    /// Whether the query is the caller's own: such a one may read a small table from end to end.
    free: bool,
}

impl Call {
    fn new(name: impl Into<String>, query: impl Into<String>) -> Self {
        let (name, query) = (name.into(), query.into());
        Self { name, query, by: &[], messages: 1, more_rows: 0, pages: (250, 0), free: false }
    }

    fn by(self, by: &'static [&'static str]) -> Self {
        Self { by, ..self }
    }

    fn many(self, messages: usize, pages_each: usize) -> Self {
        Self { messages, pages: (self.pages.0, pages_each), ..self }
    }

    /// Makes the call; what is wrong with it.
    async fn check(&self, session: &mut Explained) -> Result<Vec<String>> {
        let called = session.call(&self.query).await?;
        let mut faults = self.shape(&called);
        let most = self.pages.0 + self.pages.1 * self.messages;
        if called.pages > most as f64 {
            let steps: Vec<String> = called.steps.iter().filter(|step| step.ran).filter_map(Step::name).collect();
            faults.push(format!("{} pages, and {most} are allowed: {}", called.pages, steps.join(", ")));
        }
        let rows = self.messages + self.more_rows;
        if called.rows != rows {
            faults.push(format!("{} rows instead of {rows}", called.rows));
        }
        Ok(faults.into_iter().map(|fault| format!("{}: {fault}", self.name)).collect())
    }

    fn shape(&self, called: &Called) -> Vec<String> {
        let mut faults = Vec::new();
        let ran = || called.steps.iter().filter(|step| step.ran);
        for step in ran() {
            let table = step.table.as_deref().unwrap_or_default();
            if step.kind == "Seq Scan" && LARGE.contains(&table) && !(self.free && step.read < FEW) {
                faults.push(format!("{table} is read from end to end"));
            }
            if step.kind.ends_with("Sort") && step.input > (4 * self.messages + 100) as f64 {
                faults.push(format!("{} rows are sorted", step.input));
            }
        }
        let unused = |index: &&&str| !ran().any(|step| step.index.as_deref() == Some(**index));
        faults.extend(self.by.iter().filter(unused).map(|index| format!("{index} is not used")));
        faults
    }
}

/// Makes all calls, so many messages each where they take several; what is wrong with them.
pub(crate) async fn look_at(session: &mut Explained, app: i64, messages: usize) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let look = Call::new("look", look(messages)).by(&["ready_log"]).many(messages, 3);
    faults.extend(Call { more_rows: 1, ..look }.check(session).await?);
    faults.extend(moves(session, app, messages).await?);
    for place in PLACES {
        let id = one_of(session, place).await?;
        faults.extend(joined(session, place, &id).await?);
    }
    Ok(faults)
}

/// All of them whose plans are ours, and that go by a key or by a mark of the server's: a worker's look has a mark of its own.
pub(crate) async fn moves(session: &mut Explained, app: i64, messages: usize) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let key = value(session, "SELECT gen_random_uuid()::text").await?;
    let keyed = enqueue(&format!(", idempotency_key => '{key}'"));
    for call in [
        Call::new("enqueue", enqueue("")),
        Call::new("enqueue with a key", keyed.clone()),
        Call::new("enqueue with the key again", keyed).by(&["idempotency_pkey", "message_pkey"]),
        Call::new("enqueue for later", enqueue(", datetime => now() + interval '1 hour'")),
        Call::new("enqueue many", enqueue_many(messages)).many(messages, 40),
    ] {
        faults.extend(call.check(session).await?);
    }
    faults.extend(claims_and_ends(session, app, messages).await?);
    faults.extend(every_few_seconds(session, app, messages).await?);
    faults.extend(by_operators(session, messages).await?);
    for place in PLACES {
        let id = one_of(session, place).await?;
        faults.extend(one(session, place, &id).await?);
    }
    Ok(faults)
}

/// Where a message is that is asked for.
const PLACES: [&str; 3] = ["that waits", "that is sent", "that failed"];

/// A message there.
async fn one_of(session: &Explained, place: &str) -> Result<String> {
    let id = match place {
        "that waits" => format!("SELECT id FROM ({}) AS new", enqueue("")),
        "that is sent" => of_worker("accepted"),
        _ => of_worker("refused_recipient"),
    };
    value(session, &format!("SELECT id::text FROM ({id}) AS found")).await
}

/// What workers do with each message: claims, and the ends of attempts.
async fn claims_and_ends(session: &mut Explained, app: i64, messages: usize) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for status in ["accepted", "refused_recipient", "not_sent", "refused_content", "unclear"] {
        let ids = new_ids(session, messages).await?;
        forgive(session).await?;
        let leased = format!("SELECT * FROM ({}) AS c WHERE result = 'leased'", claim(&ids, app, messages));
        let finish = finish(&ids, messages, status);
        for call in [
            Call::new("claim", leased).by(&["ready_pkey", "message_pkey"]).many(messages, 30),
            Call::new(format!("finish as {status}"), &finish).by(&["lease_pkey"]).many(messages, 50),
            Call::new(format!("finish as {status} again"), finish).by(&["attempt_pkey"]).many(messages, 60),
        ] {
            faults.extend(call.check(session).await?);
        }
    }
    Ok(faults)
}

/// What workers and the server do, whatever waits: here some leases are over, some messages too late, and some due.
async fn every_few_seconds(session: &mut Explained, app: i64, messages: usize) -> Result<Vec<String>> {
    forgive(session).await?;
    let (late, leased) = (new_ids(session, messages).await?, new_ids(session, messages).await?);
    session
        .client()
        .batch_execute(&format!(
            "{};
             UPDATE sms_outbox.lease SET expires_at = now() WHERE id = ANY ('{leased}');
             UPDATE sms_outbox.ready SET valid_until = now() WHERE id = ANY ('{late}');
             UPDATE sms_outbox.scheduled SET due_at = now();
             INSERT INTO sms_outbox.maintenance (task, ran_at) SELECT unnest(ARRAY['partitions', 'fold', 'prune']), now()
             ON CONFLICT ON CONSTRAINT maintenance_pkey DO UPDATE SET ran_at = now()",
            claim(&leased, app, messages)
        ))
        .await?;
    let counted = |from: &str| format!("SELECT FROM (SELECT count(*) FROM {from}) AS counted");
    let maintenance = Call::new("maintenance", counted("sms_outbox.run_maintenance()"));
    let mut faults = Vec::new();
    for call in [
        Call::new("heartbeat", "SELECT * FROM sms_outbox.heartbeat('w', '1', 'host', 0, 0, 0, 0)"),
        Call::new("apps", "SELECT * FROM sms_outbox.apps(ARRAY['shop'])"),
        Call::new("leases", counted("sms_outbox.leases('w')")).by(&["lease_expiry"]),
        Call { pages: (350 + 200 * messages, 0), ..maintenance.by(&["lease_expiry", "scheduled_due", "ready_expiry"]) },
    ] {
        faults.extend(call.check(session).await?);
    }
    Ok(faults)
}

/// Many messages taken back, and given another life.
async fn by_operators(session: &mut Explained, messages: usize) -> Result<Vec<String>> {
    let ids = new_ids(session, messages).await?;
    let all = |name: &str, function: &str| {
        let moved = format!("SELECT FROM sms_outbox.{function}('{ids}') AS moved WHERE moved = {messages}");
        Call { pages: (250 + 40 * messages, 0), ..Call::new(name, moved) }
    };
    let mut faults = Vec::new();
    for call in [
        all("cancel", "cancel_waiting").by(&["scheduled_pkey", "ready_pkey"]),
        all("retry", "requeue_ended").by(&["ended_pkey", "message_pkey"]),
    ] {
        faults.extend(call.check(session).await?);
    }
    Ok(faults)
}

/// What is asked of one message, or done to it.
async fn one(session: &mut Explained, place: &str, id: &str) -> Result<Vec<String>> {
    let call = |name: &str, query: String| Call::new(format!("{name} of a message {place}"), query);
    let own = |name: &str, query: String| Call { free: true, ..call(name, query) };
    let mut calls = vec![
        call("status_of", format!("SELECT sms_outbox.status_of('{id}')")),
        own("outbox", format!("SELECT * FROM sms_outbox.outbox WHERE id = '{id}'")),
        own("attempts", format!("SELECT FROM (SELECT count(*) FROM sms_outbox.attempts WHERE id = '{id}') AS counted")),
    ];
    match place {
        "that waits" => calls.push(call("cancel", format!("SELECT sms_outbox.cancel('{id}')"))),
        "that failed" => calls.push(call("retry", format!("SELECT sms_outbox.retry('{id}')"))),
        _ => {}
    }
    let mut faults = Vec::new();
    for call in calls {
        faults.extend(call.check(session).await?);
    }
    Ok(faults)
}

/// An application's table beside the view, in a query of its own.
async fn joined(session: &mut Explained, place: &str, id: &str) -> Result<Vec<String>> {
    let number =
        value(session, &format!("INSERT INTO public.orders (sms_id) VALUES ('{id}') RETURNING number")).await?;
    let query = format!(
        "SELECT o.number, s.* FROM public.orders AS o JOIN sms_outbox.outbox AS s ON s.id = o.sms_id WHERE o.number = {number}"
    );
    Call { free: true, ..Call::new(format!("a join with outbox of a message {place}"), query) }.check(session).await
}

/// Closes the breaker that failed attempts opened.
async fn forgive(session: &Explained) -> Result<()> {
    Ok(session.client().batch_execute("DELETE FROM sms_outbox.app_health").await?)
}

async fn value(session: &Explained, query: &str) -> Result<String> {
    let rows = session.client().simple_query(query).await.context(query.to_owned())?;
    let row = rows.iter().find_map(|message| match message {
        SimpleQueryMessage::Row(row) => row.get(0),
        _ => None,
    });
    row.map(str::to_owned).with_context(|| format!("no row: {query}"))
}

fn enqueue(more: &str) -> String {
    format!("SELECT * FROM sms_outbox_enqueue('0501234567', 'Hello', organization_id => 'shop'{more})")
}

fn enqueue_many(messages: usize) -> String {
    format!(
        "SELECT * FROM sms_outbox_enqueue_many((SELECT jsonb_agg(jsonb_build_object('mobile', '0501234567', 'message', 'Hello ' || n))
                                                  FROM generate_series(1, {messages}) AS n), 'shop')"
    )
}

/// New messages, as an array.
async fn new_ids(session: &Explained, messages: usize) -> Result<String> {
    value(session, &format!("SELECT array_agg(id)::text FROM ({}) AS new", enqueue_many(messages))).await
}

/// A message whose attempt ended so.
fn of_worker(status: &str) -> String {
    format!("SELECT id FROM sms_outbox.attempt WHERE worker = 'w' AND status = '{status}' ORDER BY id DESC LIMIT 1")
}

fn look(page: usize) -> String {
    format!(
        "SELECT * FROM sms_outbox.look(ARRAY[1::smallint], ARRAY['0'::xid8], ARRAY['00000000-0000-0000-0000-000000000000'::uuid::sms_outbox.message_id],
                                       ARRAY[NULL::xid8], {page})"
    )
}

fn claim(ids: &str, app: i64, messages: usize) -> String {
    format!("SELECT * FROM sms_outbox.claim('w', '{ids}', array_fill({app}::bigint, ARRAY[{messages}]))")
}

fn finish(ids: &str, messages: usize, status: &str) -> String {
    format!(
        "SELECT * FROM sms_outbox.finish('w', '{ids}', array_fill(1::smallint, ARRAY[{messages}]), array_fill('{status}'::sms_outbox.attempt_status, ARRAY[{messages}]),
             array_fill(NULL::smallint, ARRAY[{messages}]), array_fill(NULL::text, ARRAY[{messages}]), array_fill(NULL::text, ARRAY[{messages}]),
             array_fill('{{\"id\": 1}}'::text, ARRAY[{messages}]), array_fill('p'::text, ARRAY[{messages}]), array_fill(NULL::float8, ARRAY[{messages}]))"
    )
}
