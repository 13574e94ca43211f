//! `sms_outbox_enqueue_many()`: an array of messages, all or nothing, in a handful of statements.

use std::collections::{BTreeMap, HashMap, HashSet};

use pgrx::pg_sys::{self, Datum};

use crate::arguments::{self, Payload};
use crate::call::{Call, Jsonb, Reply, enum_label, sql_function, text_datum};
use crate::element::{self, Element};
use crate::facts::Facts;
use crate::queue::{self, Existing, KEY_TRIES, Taken, array, nullable_array};
use crate::refusal::Refusal;
use crate::statement::{Spi, Statement, statement};
use crate::{ids, message_id, segments, server, settings, wakeup};

static INSERT_KEYS: Statement = statement!("insert_keys", [TEXTOID, TEXTARRAYOID, UUIDARRAYOID]);
static INSERT_MANY: Statement = statement!(
    "insert_many",
    [
        TEXTOID,
        TIMESTAMPTZOID,
        UUIDARRAYOID,
        TIMESTAMPTZARRAYOID,
        TIMESTAMPTZARRAYOID,
        INT2ARRAYOID,
        INT2ARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        TEXTARRAYOID,
        BOOLARRAYOID,
        INT4OID,
    ]
);

/// What the caller is told of one element.
struct Enqueued {
    id: u128,
    status: Option<Datum>,
    replay: bool,
}

/// One message to be inserted.
struct New<'a> {
    id: u128,
    payload: &'a Payload<'a>,
    element: &'a Element,
    later: bool,
}

fn enqueue_many(call: &Call) -> Reply {
    let Some(messages) = call.datum(0) else {
        return Err(Refusal::argument("messages", "is missing", "Give a JSON array of objects."));
    };
    // SAFETY: the argument is declared jsonb.
    let messages = unsafe { Jsonb::new(messages) };
    let spi = Spi::connect();
    let enqueued = put(messages, &spi, call.text(1))?;
    spi.finish();
    rows(call, &enqueued)
}

fn put(messages: Jsonb, spi: &Spi, organization: Option<&str>) -> Result<Vec<Enqueued>, Refusal> {
    let facts = Facts::read(spi, organization)?;
    let organization = facts.organization;
    let elements = element::read(messages.text(), &|local| facts.in_zone(local))?;
    let checked: Vec<Result<Payload<'_>, Refusal>> =
        elements.iter().map(|element| check(element, &facts.region)).collect();
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };

    let mut ids = Vec::with_capacity(elements.len());
    let mut first_with: BTreeMap<&str, usize> = BTreeMap::new();
    for (index, element) in elements.iter().enumerate() {
        let key =
            arguments::idempotency_key(element.idempotency_key.as_deref()).map_err(|refusal| at(refusal, index))?;
        if let Some(key) = key {
            first_with.entry(key).or_insert(index);
        }
        ids.push(ids::next(now).map_err(|refusal| facts.check_apps(spi, None).err().unwrap_or(refusal))?);
    }
    let keys: Vec<(&str, u128)> = first_with.iter().map(|(key, index)| (*key, ids[*index])).collect();
    let existing = claim_keys(spi, organization, keys)?;

    let mut enqueued = Vec::with_capacity(elements.len());
    let mut new = Vec::new();
    let mut mismatched = Vec::new();
    for (index, element) in elements.iter().enumerate() {
        let key = arguments::given(element.idempotency_key.as_deref());
        let payload = checked[index].as_ref();
        if let Some((key, existing)) = key.and_then(|key| existing.get_key_value(key)) {
            if !existing.is_same(payload.ok()) {
                mismatched.push(*key);
            }
            enqueued.push(Enqueued { id: existing.id, status: Some(existing.status), replay: true });
            continue;
        }
        if let Some((key, first)) = key.and_then(|key| first_with.get_key_value(key))
            && *first != index
        {
            if !is_same(checked[*first].as_ref().ok(), payload.ok()) {
                mismatched.push(*key);
            }
            enqueued.push(Enqueued { id: ids[*first], status: None, replay: true });
            continue;
        }
        let payload = payload.map_err(|refusal| at(refusal.clone(), index))?;
        let later = payload.is_later(now, settings::schedule_limit()).map_err(|refusal| at(refusal, index))?;
        facts.check_apps(spi, payload.preferred_provider_slug).map_err(|refusal| at(refusal, index))?;
        new.push(New { id: ids[index], payload, element, later });
        enqueued.push(Enqueued { id: ids[index], status: None, replay: false });
    }
    queue::count_mismatches(spi, organization, &mismatched);
    let payloads: Vec<&Payload<'_>> = new.iter().map(|new| new.payload).collect();
    facts.admit(spi, now, &payloads).map_err(|(place, refusal)| {
        let index = ids.iter().position(|id| *id == new[place].id).unwrap_or_default();
        refusal.within(&element::name(index))
    })?;
    insert(spi, organization, now, &new);
    Ok(enqueued)
}

fn check<'a>(element: &'a Element, region: &str) -> Result<Payload<'a>, Refusal> {
    let payload = element.fields().check(region)?;
    if let Some(meta) = &element.meta {
        arguments::meta(meta.starts_with('{'), meta.len())?;
    }
    Ok(payload)
}

/// A refusal that concerns one element names it.
fn at(refusal: Refusal, index: usize) -> Refusal {
    if refusal.column.is_some() { refusal.within(&element::name(index)) } else { refusal }
}

fn is_same(first: Option<&Payload<'_>>, again: Option<&Payload<'_>>) -> bool {
    match (first, again) {
        (Some(first), Some(again)) => first == &Payload { valid_until: first.valid_until, ..again.clone() },
        _ => false,
    }
}

/// Takes keys, sorted, for new messages; those that stand for a message already come back with it.
fn claim_keys<'a>(
    spi: &Spi,
    organization: Datum,
    mut keys: Vec<(&'a str, u128)>,
) -> Result<HashMap<&'a str, Box<Existing>>, Refusal> {
    let mut existing = HashMap::new();
    for _ in 0..KEY_TRIES {
        if keys.is_empty() {
            return Ok(existing);
        }
        let texts = array(keys.iter().map(|(key, _)| text_datum(key)), pg_sys::TEXTOID);
        let ids = array(keys.iter().map(|(_, id)| ids::datum(*id)), pg_sys::UUIDOID);
        let rows = spi.execute(&INSERT_KEYS, &[Some(organization), Some(texts), Some(ids)]);
        let inserted: HashSet<&str> = (0..rows.count()).filter_map(|row| rows.text(row, 1)).collect();
        keys.retain(|(key, _)| !inserted.contains(key));
        if keys.is_empty() {
            return Ok(existing);
        }
        let taken = queue::resolve(spi, organization, &keys);
        let mut gone = Vec::new();
        for (key, taken) in keys.into_iter().zip(taken) {
            match taken {
                Taken::Replay(message) => {
                    existing.insert(key.0, message);
                }
                Taken::Ours => {}
                Taken::Gone => gone.push(key),
            }
        }
        keys = gone;
    }
    if keys.is_empty() { Ok(existing) } else { Err(queue::key_contended()) }
}

fn insert(spi: &Spi, organization: Datum, now: i64, new: &[New<'_>]) {
    if new.is_empty() {
        return;
    }
    let texts = |text: &dyn Fn(&New<'_>) -> Option<Datum>| nullable_array(new.iter().map(text), pg_sys::TEXTOID);
    let times = |time: &dyn Fn(&New<'_>) -> Option<i64>| {
        nullable_array(new.iter().map(|new| time(new).map(Datum::from)), pg_sys::TIMESTAMPTZOID)
    };
    let measures: Vec<segments::Measure> = new.iter().map(|new| segments::measure(new.payload.message)).collect();
    let arguments = [
        organization,
        Datum::from(now),
        array(new.iter().map(|new| ids::datum(new.id)), pg_sys::UUIDOID),
        times(&|new| new.payload.due_at),
        times(&|new| new.payload.valid_until),
        array(new.iter().map(|new| Datum::from(new.payload.priority)), pg_sys::INT2OID),
        array(measures.iter().map(|measure| Datum::from(measure.segments as i16)), pg_sys::INT2OID),
        array(measures.iter().map(|measure| text_datum(measure.encoding.word())), pg_sys::TEXTOID),
        texts(&|new| Some(text_datum(&new.payload.mobile))),
        texts(&|new| Some(text_datum(new.payload.message))),
        texts(&|new| new.payload.sender.map(text_datum)),
        texts(&|new| new.payload.preferred_provider_slug.map(text_datum)),
        texts(&|new| arguments::given(new.element.idempotency_key.as_deref()).map(text_datum)),
        texts(&|new| new.element.meta.as_deref().map(text_datum)),
        array(new.iter().map(|new| Datum::from(new.later)), pg_sys::BOOLOID),
        Datum::from(server::id()),
    ];
    spi.execute(&INSERT_MANY, &arguments.map(Some));
    if new.iter().any(|new| !new.later) {
        wakeup::request();
    }
}

/// One row for each element, in order.
fn rows(call: &Call, enqueued: &[Enqueued]) -> Reply {
    // SAFETY: a valid frame of a set-returning function, which the call raises an ERROR for otherwise; three or four
    // values as the install script declares columns.
    unsafe {
        pg_sys::InitMaterializedSRF(call.frame(), 0);
        let result = (*call.frame()).resultinfo.cast::<pg_sys::ReturnSetInfo>();
        let pending = enum_label(pg_sys::SPI_gettypeid((*result).setDesc, 3), c"pending")?;
        for (ordinality, message) in (1_i64..).zip(enqueued) {
            let mut values = [
                Datum::from(ordinality),
                text_datum(&message_id::to_text(message.id)),
                message.status.unwrap_or(pending),
                Datum::from(message.replay),
            ];
            let mut nulls = [false; 4];
            pg_sys::tuplestore_putvalues(
                (*result).setResult,
                (*result).setDesc,
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
            );
        }
    }
    Ok(None)
}

sql_function!(enqueue_many_wrapper, pg_finfo_enqueue_many_wrapper, enqueue_many);
