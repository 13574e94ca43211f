//! How often limits refused: a refused call rolls back, so it is counted in shared memory, and the maintainer writes the
//! counts down (sql/schema/66_limits.sql). Without preload nothing is counted.

use std::hash::{DefaultHasher, Hash, Hasher};
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};

use pgrx::pg_sys::{self, Datum, Oid};

use crate::board::board;
use crate::call::{Call, Reply, sql_function, text_datum};
use crate::queue::array;
use crate::statement::{Spi, Statement, statement};

static ADD_REFUSALS: Statement = statement!("add_refusals", [TEXTARRAYOID, TEXTARRAYOID, INT8ARRAYOID]);

/// The codes of refusals; a slot has a counter for each.
const CODES: [&str; 7] = [
    "messages_per_minute",
    "messages_per_day",
    "recipient_per_hour",
    "segments_per_day",
    "recipient_suppressed",
    "destination_not_allowed",
    "sender_not_allowed",
];

/// Organizations, of all databases, that can be counted. Further ones are not.
const SLOTS: usize = 1024;
/// Slots that are tried for one.
const TRIES: usize = 32;
/// Longest id of an organization.
const ID_WORDS: usize = 64 / 8;

const FREE: u32 = 0;
const BEING_TAKEN: u32 = 1;
const TAKEN: u32 = 2;

/// All counters; zeroed memory is none.
#[repr(C)]
pub(crate) struct Counters {
    slots: [Slot; SLOTS],
}

/// The counters of one organization: once taken, its own until the database is gone.
#[repr(C)]
struct Slot {
    state: AtomicU32,
    database: AtomicU32,
    organization: [AtomicU64; ID_WORDS],
    counts: [AtomicU32; CODES.len()],
}

/// An id as words, filled up with zeros, which no id holds.
fn words(organization: &str) -> [u64; ID_WORDS] {
    let mut bytes = [0; ID_WORDS * 8];
    let length = organization.len().min(bytes.len());
    bytes[..length].copy_from_slice(&organization.as_bytes()[..length]);
    std::array::from_fn(|word| u64::from_le_bytes(std::array::from_fn(|byte| bytes[word * 8 + byte])))
}

impl Slot {
    fn is_of(&self, database: u32, organization: &[u64; ID_WORDS]) -> bool {
        self.state.load(Ordering::Acquire) == TAKEN
            && self.database.load(Ordering::Relaxed) == database
            && self.organization.iter().zip(organization).all(|(word, other)| word.load(Ordering::Relaxed) == *other)
    }

    fn take(&self, database: u32, organization: &[u64; ID_WORDS]) -> bool {
        if self.state.compare_exchange(FREE, BEING_TAKEN, Ordering::Acquire, Ordering::Relaxed).is_err() {
            return false;
        }
        self.database.store(database, Ordering::Relaxed);
        for (word, value) in self.organization.iter().zip(organization) {
            word.store(*value, Ordering::Relaxed);
        }
        self.state.store(TAKEN, Ordering::Release);
        true
    }

    fn name(&self) -> String {
        let bytes = self.organization.iter().flat_map(|word| word.load(Ordering::Relaxed).to_le_bytes());
        bytes.take_while(|byte| *byte != 0).map(char::from).collect()
    }
}

impl Counters {
    fn add(&self, database: u32, organization: &str, code: usize) {
        let words = words(organization);
        let mut hasher = DefaultHasher::new();
        (database, words).hash(&mut hasher);
        let first = hasher.finish() as usize % SLOTS;
        // Two that take a slot for the same organization at once may take one each: they are added up later.
        for place in 0..TRIES {
            let slot = &self.slots[(first + place) % SLOTS];
            if slot.is_of(database, &words) || slot.take(database, &words) {
                slot.counts[code].fetch_add(1, Ordering::Relaxed);
                return;
            }
        }
    }

    /// Frees the slots of databases that are gone.
    pub(crate) fn retain(&self, exists: impl Fn(Oid) -> bool) {
        for slot in &self.slots {
            if slot.state.load(Ordering::Acquire) == TAKEN
                && !exists(Oid::from_u32(slot.database.load(Ordering::Relaxed)))
            {
                slot.counts.iter().for_each(|count| count.store(0, Ordering::Relaxed));
                slot.state.store(FREE, Ordering::Release);
            }
        }
    }
}

/// Counts a refusal of a limit.
pub(crate) fn count(organization: &str, code: &str) {
    // SAFETY: a plain read.
    let database = unsafe { pg_sys::MyDatabaseId };
    if let (Some(board), Some(code)) = (board(), CODES.iter().position(|known| *known == code)) {
        board.refusals().add(database.to_u32(), organization, code);
    }
}

/// What was written down in a transaction, to be taken off the counters once it is committed.
#[derive(Default)]
pub(crate) struct Written(Vec<(usize, usize, u32)>);

/// Writes down what was counted in this database. Only its maintainer does.
pub(crate) fn write(spi: &Spi) -> Written {
    let Some(board) = board() else { return Written::default() };
    // SAFETY: a plain read.
    let database = unsafe { pg_sys::MyDatabaseId }.to_u32();
    let mut written = Vec::new();
    let (mut organizations, mut codes, mut counts) = (Vec::new(), Vec::new(), Vec::new());
    for (place, slot) in board.refusals().slots.iter().enumerate() {
        if slot.state.load(Ordering::Acquire) != TAKEN || slot.database.load(Ordering::Relaxed) != database {
            continue;
        }
        for (code, count) in slot.counts.iter().enumerate() {
            let count = count.load(Ordering::Relaxed);
            if count > 0 {
                written.push((place, code, count));
                organizations.push(text_datum(&slot.name()));
                codes.push(text_datum(CODES[code]));
                counts.push(Datum::from(i64::from(count)));
            }
        }
    }
    if !written.is_empty() {
        let arguments = [
            Some(array(organizations.into_iter(), pg_sys::TEXTOID)),
            Some(array(codes.into_iter(), pg_sys::TEXTOID)),
            Some(array(counts.into_iter(), pg_sys::INT8OID)),
        ];
        spi.execute(&ADD_REFUSALS, &arguments);
    }
    Written(written)
}

impl Written {
    /// Takes it off the counters: what was counted meanwhile stays.
    pub(crate) fn committed(self) {
        let Some(board) = board() else { return };
        for (place, code, count) in self.0 {
            board.refusals().slots[place].counts[code].fetch_sub(count, Ordering::Relaxed);
        }
    }
}

/// `sms_outbox.counts_refusals()`.
fn counts_refusals(_: &Call) -> Reply {
    Ok(Some(Datum::from(board().is_some())))
}

sql_function!(counts_refusals_wrapper, pg_finfo_counts_refusals_wrapper, counts_refusals);

#[cfg(test)]
mod tests {
    use super::*;

    fn counters() -> Box<Counters> {
        // SAFETY: zeroed memory is a valid, empty one.
        unsafe { Box::new_zeroed().assume_init() }
    }

    fn of(counters: &Counters, database: u32, organization: &str) -> [u32; CODES.len()] {
        let words = words(organization);
        let slots = counters.slots.iter().filter(|slot| slot.is_of(database, &words));
        slots.fold([0; CODES.len()], |sum, slot| {
            std::array::from_fn(|code| sum[code] + slot.counts[code].load(Ordering::Relaxed))
        })
    }

    #[test]
    fn each_organization_has_its_own() {
        let counters = counters();
        let longest = "x".repeat(64);
        for organization in ["shop", "shop2", &longest] {
            for database in [1, 2] {
                for _ in 0..database {
                    counters.add(database, organization, 3);
                }
            }
        }
        for organization in ["shop", "shop2", &longest] {
            assert_eq!(of(&counters, 1, organization), [0, 0, 0, 1, 0, 0, 0]);
            assert_eq!(of(&counters, 2, organization), [0, 0, 0, 2, 0, 0, 0]);
        }
        let names: Vec<String> = counters.slots.iter().map(Slot::name).filter(|name| name == &longest).collect();
        assert_eq!(names.len(), 2);
        counters.retain(|database| database == Oid::from_u32(2));
        assert_eq!(of(&counters, 1, "shop"), [0; 7]);
        assert_eq!(of(&counters, 2, "shop")[3], 2);
    }

    #[test]
    fn too_many_organizations_are_no_fault() {
        let counters = counters();
        for organization in 0..2 * SLOTS {
            counters.add(1, &organization.to_string(), 0);
        }
        let counted: u32 = counters.slots.iter().map(|slot| slot.counts[0].load(Ordering::Relaxed)).sum();
        assert!(counted as usize <= SLOTS && counted as usize > SLOTS / 2);
    }

    #[test]
    fn nothing_is_lost_at_once() {
        let counters = counters();
        std::thread::scope(|scope| {
            for _ in 0..8 {
                scope.spawn(|| (0..10_000).for_each(|n| counters.add(1, ["a", "b", "c"][n % 3], n % CODES.len())));
            }
        });
        let all: u32 = ["a", "b", "c"].into_iter().flat_map(|organization| of(&counters, 1, organization)).sum();
        assert_eq!(all, 80_000);
    }
}
