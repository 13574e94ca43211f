//! Ids of this session, and the partitions that they must fall into, remembered until the table changes.

use std::cell::{Cell, RefCell};
use std::ffi::{CStr, c_int};

use pgrx::pg_sys::{self, Datum, Oid};

use crate::call::{Call, Reply, sql_function};
use crate::message_id::{self, Generator, Stretch, Stretches};
use crate::refusal::{Refusal, State};

/// The partitions of `sms_outbox.message`, as long as the relation cache has said nothing else.
struct Known {
    relation: Oid,
    stretches: Stretches,
}

thread_local! {
    static KNOWN: RefCell<Option<Known>> = const { RefCell::new(None) };
    static CHANGED: Cell<bool> = const { Cell::new(true) };
    static GENERATOR: RefCell<Generator> = RefCell::new(Generator::default());
    static RANDOMNESS: RefCell<Randomness> = const { RefCell::new(Randomness { bytes: [0; 1024], left: 0 }) };
}

/// Asks to be told of changes. Once in a session.
pub(crate) fn watch() {
    // SAFETY: the callback is a plain function that touches only this session's cells.
    unsafe { pg_sys::CacheRegisterRelcacheCallback(Some(relation_changed), Datum::null()) };
}

unsafe extern "C-unwind" fn relation_changed(_arg: Datum, relation: Oid) {
    // The borrow fails only while the table is being read, and then what is read may be outdated.
    let concerns = KNOWN.with(|known| match known.try_borrow() {
        Ok(known) => relation == Oid::INVALID || known.as_ref().is_none_or(|known| known.relation == relation),
        Err(_) => true,
    });
    if concerns {
        CHANGED.set(true);
    }
}

/// Makes the next id at a time in microseconds since 2000.
pub(crate) fn next(now: i64) -> Result<u128, Refusal> {
    let stretch_missing = || {
        Refusal::new(State::NotReady, "sms_outbox has no partition for messages")
            .with_hint("Run SELECT sms_outbox.prepare_partitions(); the background worker does so by itself when sms_outbox is in shared_preload_libraries.")
    };
    if CHANGED.get() {
        // Cleared first: a change that comes while reading sets it again.
        CHANGED.set(false);
        let read = read();
        KNOWN.set(read);
    }
    let micros = (now + EPOCH_DIFFERENCE).max(0) as u64;
    KNOWN.with_borrow(|known| {
        let stretches = &known.as_ref().ok_or_else(stretch_missing)?.stretches;
        let random = RANDOMNESS.with_borrow_mut(Randomness::take);
        GENERATOR.with_borrow_mut(|generator| generator.next(micros, random, stretches)).ok_or_else(stretch_missing)
    })
}

/// The lowest id of a time.
pub(crate) fn floor(at: i64) -> u128 {
    u128::from((at + EPOCH_DIFFERENCE).max(0) as u64 / 1000) << 80
}

/// When an id was made, in microseconds since 2000.
pub(crate) fn time_of(id: u128) -> i64 {
    (id >> 80) as i64 * 1000 - EPOCH_DIFFERENCE
}

/// Microseconds from 1970 to 2000.
const EPOCH_DIFFERENCE: i64 = 946_684_800_000_000;

/// Reads the bounds from the relation cache: no query, and no lock but the lightest.
fn read() -> Option<Known> {
    // SAFETY: names are C strings; the relation is locked while its partition descriptor is read, and closed after.
    unsafe {
        let schema = pg_sys::get_namespace_oid(c"sms_outbox".as_ptr(), true);
        let relation = pg_sys::get_relname_relid(c"message".as_ptr(), schema);
        if relation == Oid::INVALID {
            return None;
        }
        let opened = pg_sys::table_open(relation, pg_sys::AccessShareLock as c_int);
        let descriptor = pg_sys::RelationGetPartitionDesc(opened, true);
        let stretches = Stretches::new(stretches_of(descriptor));
        pg_sys::table_close(opened, pg_sys::AccessShareLock as c_int);
        Some(Known { relation, stretches })
    }
}

/// # Safety
/// `descriptor` is the partition descriptor of an open relation partitioned by range of one column of 16 bytes.
unsafe fn stretches_of(descriptor: pg_sys::PartitionDesc) -> Vec<Stretch> {
    // SAFETY: by the caller's promise; bound i ends partition indexes[i] and begins indexes[i + 1], -1 is none.
    unsafe {
        if (*descriptor).nparts == 0 {
            return Vec::new();
        }
        let bounds = &*(*descriptor).boundinfo;
        let millis = |bound: usize| match **bounds.kind.add(bound) {
            pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_VALUE => {
                let bytes = (**bounds.datums.add(bound)).cast_mut_ptr::<[u8; 16]>().read_unaligned();
                (u128::from_be_bytes(bytes) >> 80) as u64
            }
            pg_sys::PartitionRangeDatumKind::PARTITION_RANGE_DATUM_MINVALUE => 0,
            _ => 1 << 48,
        };
        (1..bounds.ndatums as usize)
            .filter(|bound| *bounds.indexes.add(*bound) >= 0)
            .map(|bound| Stretch { from: millis(bound - 1), until: millis(bound) })
            .collect()
    }
}

/// Strong random bytes, fetched many at a time: each fetch is a system call.
struct Randomness {
    bytes: [u8; 1024],
    left: usize,
}

impl Randomness {
    fn take(&mut self) -> u128 {
        if self.left < 16 {
            // SAFETY: the buffer is as long as it is said to be.
            let filled = unsafe { pg_sys::pg_strong_random(self.bytes.as_mut_ptr().cast(), self.bytes.len()) };
            assert!(filled, "could not get random bytes");
            self.left = self.bytes.len();
        }
        self.left -= 16;
        let mut taken = [0; 16];
        taken.copy_from_slice(&self.bytes[self.left..self.left + 16]);
        u128::from_ne_bytes(taken)
    }
}

/// An id as SQL takes it, in the current memory context.
pub(crate) fn datum(id: u128) -> Datum {
    // SAFETY: sixteen bytes are allocated and written.
    unsafe {
        let bytes = pg_sys::palloc(16).cast::<[u8; 16]>();
        bytes.write(id.to_be_bytes());
        Datum::from(bytes)
    }
}

/// The id behind a datum of uuid or message_id.
pub(crate) fn from_datum(datum: Datum) -> u128 {
    // SAFETY: both types are sixteen bytes passed by reference.
    u128::from_be_bytes(unsafe { datum.cast_mut_ptr::<[u8; 16]>().read_unaligned() })
}

/// Input of type `sms_outbox.message_id`.
/// The cast from text: it must not fail, see the declaration.
fn message_id(call: &Call) -> Reply {
    Ok(call.text(0).and_then(message_id::from_text).map(datum))
}

fn message_id_in(call: &Call) -> Reply {
    let Some(text) = call.datum(0) else { return Ok(None) };
    // SAFETY: the argument is declared cstring.
    let text = unsafe { CStr::from_ptr(text.cast_mut_ptr()) }.to_str().unwrap_or_default();
    let id = message_id::from_text(text).ok_or_else(|| {
        Refusal::new(State::InvalidText, "invalid input syntax for type sms_outbox.message_id")
            .with_hint("An id is r and 26 characters of 0-9 a-z without i, l, o and u.")
    })?;
    Ok(Some(datum(id)))
}

/// Its output.
fn message_id_out(call: &Call) -> Reply {
    Ok(call.datum(0).map(|id| {
        let text = message_id::to_text(from_datum(id));
        // SAFETY: pnstrdup copies the bytes and ends them with a NUL.
        Datum::from(unsafe { pg_sys::pnstrdup(text.as_ptr().cast(), text.len()) })
    }))
}

sql_function!(message_id_wrapper, pg_finfo_message_id_wrapper, message_id);
sql_function!(message_id_in_wrapper, pg_finfo_message_id_in_wrapper, message_id_in);
sql_function!(message_id_out_wrapper, pg_finfo_message_id_out_wrapper, message_id_out);

/// What indexes and joins compare ids by: as PostgreSQL compares a uuid. The functions of uuid themselves, under another name
/// (LANGUAGE internal), are searched for by that name among thousands each time that a statement starts.
macro_rules! like_uuid {
    ($($symbol:ident, $record:ident, $function:ident;)+) => {$(
        #[unsafe(no_mangle)]
        extern "C-unwind" fn $record() -> &'static pg_sys::Pg_finfo_record {
            const RECORD: pg_sys::Pg_finfo_record = pg_sys::Pg_finfo_record { api_version: 1 };
            &RECORD
        }

        #[unsafe(no_mangle)]
        unsafe extern "C-unwind" fn $symbol(call: pg_sys::FunctionCallInfo) -> Datum {
            // SAFETY: a valid frame, whose arguments look like those of uuid; the function raises no error.
            unsafe { pg_sys::$function(call) }
        }
    )+};
}

like_uuid! {
    message_id_lt_wrapper, pg_finfo_message_id_lt_wrapper, uuid_lt;
    message_id_le_wrapper, pg_finfo_message_id_le_wrapper, uuid_le;
    message_id_eq_wrapper, pg_finfo_message_id_eq_wrapper, uuid_eq;
    message_id_ne_wrapper, pg_finfo_message_id_ne_wrapper, uuid_ne;
    message_id_ge_wrapper, pg_finfo_message_id_ge_wrapper, uuid_ge;
    message_id_gt_wrapper, pg_finfo_message_id_gt_wrapper, uuid_gt;
    message_id_cmp_wrapper, pg_finfo_message_id_cmp_wrapper, uuid_cmp;
    message_id_sortsupport_wrapper, pg_finfo_message_id_sortsupport_wrapper, uuid_sortsupport;
    message_id_hash_wrapper, pg_finfo_message_id_hash_wrapper, uuid_hash;
    message_id_hash_extended_wrapper, pg_finfo_message_id_hash_extended_wrapper, uuid_hash_extended;
}
