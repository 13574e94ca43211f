//! `sms_outbox_enqueue()`: one message in the caller's transaction. `enqueue_text()` is the same for callers that have
//! times as text.

use pgrx::pg_sys::{self, Datum};

use crate::arguments::{self, Fields, Payload};
use crate::call::{Call, Jsonb, Reply, enum_label, sql_function, text_datum};
use crate::facts::Facts;
use crate::queue::{self, Existing, KEY_TRIES, Taken};
use crate::refusal::{Refusal, State};
use crate::statement::{Spi, Statement, statement};
use crate::{element, ids, message_id, segments, server, settings, wakeup};

static INSERT_KEY: Statement = statement!("insert_key", [TEXTOID, TEXTOID, UUIDOID]);
static INSERT_MESSAGE: Statement = statement!(
    "insert_message",
    [
        UUIDOID,
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        TIMESTAMPTZOID,
        INT2OID,
        INT2OID,
        TEXTOID,
        TEXTOID,
        TEXTOID,
        TEXTOID,
        TEXTOID,
        TEXTOID,
        TEXTOID,
        JSONBOID,
    ]
);
static INSERT_READY: Statement =
    statement!("insert_ready", [UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, INT2OID, TEXTOID, TEXTOID]);
static INSERT_SCHEDULED: Statement =
    statement!("insert_scheduled", [UUIDOID, TIMESTAMPTZOID, TIMESTAMPTZOID, INT4OID, INT2OID, TEXTOID, TEXTOID]);

/// Positions of the arguments, in the order of the SQL declaration.
mod argument {
    pub(super) const MOBILE: usize = 0;
    pub(super) const MESSAGE: usize = 1;
    pub(super) const SENDER: usize = 2;
    pub(super) const DATETIME: usize = 3;
    pub(super) const PREFERRED_PROVIDER_SLUG: usize = 4;
    pub(super) const IDEMPOTENCY_KEY: usize = 5;
    pub(super) const META: usize = 6;
    pub(super) const ORGANIZATION_ID: usize = 7;
    pub(super) const PRIORITY: usize = 8;
    pub(super) const VALID_UNTIL: usize = 9;
}

/// What the caller is told.
struct Enqueued {
    id: u128,
    replay: Option<Datum>,
}

/// How the times are given.
#[derive(Clone, Copy)]
enum Times {
    /// As `timestamptz`.
    Typed,
    /// As text, with or without an offset: what JSON has.
    Written,
}

fn enqueue(call: &Call) -> Reply {
    run(call, Times::Typed)
}

fn enqueue_text(call: &Call) -> Reply {
    run(call, Times::Written)
}

fn run(call: &Call, times: Times) -> Reply {
    let key = arguments::idempotency_key(call.text(argument::IDEMPOTENCY_KEY))?;
    let spi = Spi::connect();
    let enqueued = put(call, times, &spi, key)?;
    spi.finish();
    row(call, &enqueued)
}

/// The key row comes first: of two callers with one key, the second waits there for the first's transaction.
fn put(call: &Call, times: Times, spi: &Spi, key: Option<&str>) -> Result<Enqueued, Refusal> {
    let facts = Facts::read(spi, call.text(argument::ORGANIZATION_ID))?;
    let organization = facts.organization;
    let payload = fields(call, times, &facts)
        .and_then(|fields| fields.check(&facts.region))
        .and_then(|payload| Ok((payload, meta(call)?)));
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    let id = match ids::next(now) {
        Ok(id) => id,
        // Partitions are made with the first app: that is the better thing to say.
        Err(refusal) => return Err(facts.check_apps(spi, None).err().unwrap_or(refusal)),
    };
    if let Some(key) = key
        && let Some(existing) = claim_key(spi, organization, key, id)?
    {
        if !existing.is_same(payload.as_ref().ok().map(|(payload, _)| payload)) {
            queue::count_mismatches(spi, organization, &[key]);
        }
        return Ok(Enqueued { id: existing.id, replay: Some(existing.status) });
    }
    let (payload, meta) = payload?;
    let later = payload.is_later(now, settings::schedule_limit())?;
    facts.check_apps(spi, payload.preferred_provider_slug)?;
    facts.admit(spi, now, &[&payload]).map_err(|(_, refusal)| refusal)?;
    insert(spi, id, now, later, organization, key, &payload, meta);
    if !later {
        wakeup::request();
    }
    Ok(Enqueued { id, replay: None })
}

fn fields<'a>(call: &'a Call, times: Times, facts: &Facts) -> Result<Fields<'a>, Refusal> {
    let time = |column, argument| match times {
        Times::Typed => Ok(call.timestamp(argument)),
        Times::Written => element::written_time(column, call.text(argument), &|local| facts.in_zone(local)),
    };
    Ok(Fields {
        mobile: call.text(argument::MOBILE),
        message: call.text(argument::MESSAGE),
        sender: call.text(argument::SENDER),
        datetime: time("datetime", argument::DATETIME)?,
        preferred_provider_slug: call.text(argument::PREFERRED_PROVIDER_SLUG),
        priority: call.integer(argument::PRIORITY),
        valid_until: time("valid_until", argument::VALID_UNTIL)?,
    })
}

fn meta(call: &Call) -> Result<Option<Datum>, Refusal> {
    let Some(datum) = call.datum(argument::META) else { return Ok(None) };
    // SAFETY: the argument is declared jsonb.
    let meta = unsafe { Jsonb::new(datum) };
    if !meta.is_empty_object() {
        arguments::meta(meta.is_object(), meta.text().len())?;
    }
    Ok(Some(meta.datum()))
}

/// Takes a key for a new message, or finds the message that it stands for.
fn claim_key(spi: &Spi, organization: Datum, key: &str, id: u128) -> Result<Option<Box<Existing>>, Refusal> {
    for _ in 0..KEY_TRIES {
        if spi.execute(&INSERT_KEY, &[Some(organization), Some(text_datum(key)), Some(ids::datum(id))]).count() == 1 {
            return Ok(None);
        }
        match queue::resolve(spi, organization, &[(key, id)]).pop() {
            Some(Taken::Replay(existing)) => return Ok(Some(existing)),
            Some(Taken::Ours) => return Ok(None),
            Some(Taken::Gone) | None => {}
        }
    }
    Err(queue::key_contended())
}

#[expect(clippy::too_many_arguments, reason = "the columns of one row")]
fn insert(
    spi: &Spi,
    id: u128,
    now: i64,
    later: bool,
    organization: Datum,
    key: Option<&str>,
    payload: &Payload<'_>,
    meta: Option<Datum>,
) {
    let measure = segments::measure(payload.message);
    let id = Some(ids::datum(id));
    let valid_until = payload.valid_until.map(Datum::from);
    let priority = Some(Datum::from(payload.priority));
    let slug = payload.preferred_provider_slug.map(text_datum);
    // Two plain statements cost less than one with a data-modifying CTE.
    spi.execute(
        &INSERT_MESSAGE,
        &[
            id,
            Some(Datum::from(now)),
            payload.due_at.map(Datum::from),
            valid_until,
            priority,
            Some(Datum::from(measure.segments as i16)),
            Some(text_datum(measure.encoding.word())),
            Some(organization),
            Some(text_datum(&payload.mobile)),
            Some(text_datum(payload.message)),
            payload.sender.map(text_datum),
            slug,
            key.map(text_datum),
            meta,
        ],
    );
    let (place, since) = if later { (&INSERT_SCHEDULED, payload.due_at.unwrap_or(now)) } else { (&INSERT_READY, now) };
    let server = Some(Datum::from(server::id()));
    spi.execute(place, &[id, Some(Datum::from(since)), valid_until, server, priority, Some(organization), slug]);
}

/// The one row of the result. A set function that says nothing of more rows has returned its only one.
fn row(call: &Call, enqueued: &Enqueued) -> Reply {
    let mut descriptor = std::ptr::null_mut();
    // SAFETY: a valid frame; the descriptor is this call's own.
    let kind = unsafe { pg_sys::get_call_result_type(call.frame(), std::ptr::null_mut(), &raw mut descriptor) };
    if kind != pg_sys::TypeFuncClass::TYPEFUNC_COMPOSITE {
        return Err(Refusal::new(State::NotReady, "sms_outbox_enqueue() is called where no row can be returned")
            .with_hint("Call it as SELECT * FROM sms_outbox_enqueue(…)."));
    }
    // SAFETY: the descriptor has the three columns that the install script declares.
    unsafe {
        let descriptor = pg_sys::BlessTupleDesc(descriptor);
        let status = match enqueued.replay {
            Some(status) => status,
            None => enum_label(pg_sys::SPI_gettypeid(descriptor, 2), c"pending")?,
        };
        let mut values =
            [text_datum(&message_id::to_text(enqueued.id)), status, Datum::from(enqueued.replay.is_some())];
        let mut nulls = [false; 3];
        let tuple = pg_sys::heap_form_tuple(descriptor, values.as_mut_ptr(), nulls.as_mut_ptr());
        Ok(Some(pg_sys::HeapTupleHeaderGetDatum((*tuple).t_data)))
    }
}

sql_function!(enqueue_wrapper, pg_finfo_enqueue_wrapper, enqueue);
sql_function!(enqueue_text_wrapper, pg_finfo_enqueue_text_wrapper, enqueue_text);
