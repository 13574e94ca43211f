//! What both forms of enqueue do with the tables of keys.

use pgrx::pg_sys::{self, Datum};

use crate::arguments::Payload;
use crate::call::text_datum;
use crate::ids;
use crate::refusal::{Refusal, State};
use crate::statement::{Rows, Spi, Statement, statement};

static READ_KEYS: Statement = statement!("read_keys", [TEXTOID, TEXTARRAYOID]);
static TAKE_KEY: Statement = statement!("take_key", [TEXTOID, TEXTOID, UUIDOID, UUIDOID]);
static COUNT_MISMATCHES: Statement = statement!("count_mismatches", [TEXTOID, TEXTARRAYOID]);

/// The message that a key stands for already.
pub(crate) struct Existing {
    pub(crate) id: u128,
    /// Where the message is now, as the enum's value.
    pub(crate) status: Datum,
    mobile: String,
    message: String,
    sender: Option<String>,
    preferred_provider_slug: Option<String>,
    due_at: Option<i64>,
    priority: i16,
}

impl Existing {
    fn read(rows: &Rows, row: usize, id: u128, status: Datum) -> Self {
        let text = |column| rows.text(row, column).map(str::to_owned);
        Self {
            id,
            status,
            mobile: text(4).unwrap_or_default(),
            message: text(5).unwrap_or_default(),
            sender: text(6),
            preferred_provider_slug: text(7),
            due_at: rows.get(row, 8).map(|datum| datum.value() as i64),
            priority: rows.get(row, 9).map_or(0, |datum| datum.value() as i16),
        }
    }

    /// Whether a request asks for the same message. A bad one does not.
    pub(crate) fn is_same(&self, payload: Option<&Payload<'_>>) -> bool {
        payload.is_some_and(|payload| {
            self.mobile == payload.mobile
                && self.message == payload.message
                && self.sender.as_deref() == payload.sender
                && self.preferred_provider_slug.as_deref() == payload.preferred_provider_slug
                && self.due_at == payload.due_at
                && self.priority == payload.priority
        })
    }
}

/// What became of a key that was taken already.
pub(crate) enum Taken {
    /// It stands for this message.
    Replay(Box<Existing>),
    /// Its message was gone, so the new message took it.
    Ours,
    /// Its row went while we looked: try to insert it again.
    Gone,
}

/// Reads what taken keys, sorted, stand for, in statements of their own: only these see what was committed meanwhile.
pub(crate) fn resolve(spi: &Spi, organization: Datum, keys: &[(&str, u128)]) -> Vec<Taken> {
    let texts = array(keys.iter().map(|(key, _)| text_datum(key)), pg_sys::TEXTOID);
    let rows = spi.execute(&READ_KEYS, &[Some(organization), Some(texts)]);
    let mut found: Vec<Taken> = keys.iter().map(|_| Taken::Gone).collect();
    let mut stale = Vec::new();
    for row in 0..rows.count() {
        let Some(place) = rows.text(row, 1).and_then(|key| keys.binary_search_by_key(&key, |(known, _)| known).ok())
        else {
            continue;
        };
        let Some(id) = rows.get(row, 2).map(ids::from_datum) else { continue };
        match rows.get(row, 3) {
            Some(status) => found[place] = Taken::Replay(Box::new(Existing::read(&rows, row, id, status))),
            None => stale.push((place, id)),
        }
    }
    for (place, old) in stale {
        let (key, new) = keys[place];
        let arguments = [Some(organization), Some(text_datum(key)), Some(ids::datum(old)), Some(ids::datum(new))];
        if spi.execute(&TAKE_KEY, &arguments).count() == 1 {
            found[place] = Taken::Ours;
        }
    }
    found
}

/// Times that a key is tried while retention or another caller changes it under our hands.
pub(crate) const KEY_TRIES: usize = 10;

pub(crate) fn key_contended() -> Refusal {
    Refusal::new(State::SerializationFailure, "idempotency_key: the key kept changing hands")
        .with_column("idempotency_key")
        .with_hint("Try the transaction again.")
}

/// Counts that these keys came again with another payload.
pub(crate) fn count_mismatches(spi: &Spi, organization: Datum, keys: &[&str]) {
    if !keys.is_empty() {
        let keys = array(keys.iter().map(|key| text_datum(key)), pg_sys::TEXTOID);
        spi.execute(&COUNT_MISMATCHES, &[Some(organization), Some(keys)]);
    }
}

/// An array of SQL without NULLs.
pub(crate) fn array(elements: impl Iterator<Item = Datum>, element_type: pg_sys::Oid) -> Datum {
    nullable_array(elements.map(Some), element_type)
}

/// An array of SQL.
pub(crate) fn nullable_array(elements: impl Iterator<Item = Option<Datum>>, element_type: pg_sys::Oid) -> Datum {
    let (mut values, mut nulls): (Vec<Datum>, Vec<bool>) =
        elements.map(|element| (element.unwrap_or(Datum::null()), element.is_none())).unzip();
    let (mut length, mut by_value, mut alignment) = (0, false, 0);
    // SAFETY: as many values as nulls; the type's storage is asked of the catalog.
    unsafe {
        pg_sys::get_typlenbyvalalign(element_type, &raw mut length, &raw mut by_value, &raw mut alignment);
        let mut dimension = values.len() as i32;
        let mut lower_bound = 1;
        let array = if values.is_empty() {
            pg_sys::construct_empty_array(element_type)
        } else {
            pg_sys::construct_md_array(
                values.as_mut_ptr(),
                nulls.as_mut_ptr(),
                1,
                &raw mut dimension,
                &raw mut lower_bound,
                element_type,
                i32::from(length),
                by_value,
                alignment,
            )
        };
        Datum::from(array)
    }
}
