//! Which server this is: queue rows carry the one that queued them, so a restored copy, a clone or a promoted standby
//! knows the rows of before.

use pgrx::pg_sys;
use pgrx::pg_sys::Datum;

use crate::call::{Call, Reply, sql_function};

/// A hash of system identifier, timeline and database. Not kept: a session survives the promotion of its standby.
pub(crate) fn id() -> i32 {
    // SAFETY: plain reads of the control file's copy and of the WAL state. On a standby, the timeline that it replays
    // is its primary's, so that views show there what they show on the primary.
    let (system, timeline, database) = unsafe {
        let timeline = if pg_sys::RecoveryInProgress() {
            let mut timeline = 0;
            pg_sys::GetXLogReplayRecPtr(&raw mut timeline);
            timeline
        } else {
            pg_sys::GetWALInsertionTimeLine()
        };
        (pg_sys::GetSystemIdentifier(), timeline, pg_sys::MyDatabaseId.to_u32())
    };
    fold(system, timeline, database)
}

fn fold(system: u64, timeline: u32, database: u32) -> i32 {
    let mixed = mix(mix(system) ^ (u64::from(timeline) << 32 | u64::from(database)));
    (mixed >> 32) as i32
}

/// The finalizer of splitmix64.
fn mix(bits: u64) -> u64 {
    let bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    bits ^ (bits >> 31)
}

/// `sms_outbox.server_id()`.
fn server_id(_call: &Call) -> Reply {
    Ok(Some(Datum::from(id())))
}

sql_function!(server_id_wrapper, pg_finfo_server_id_wrapper, server_id);

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::HashSet;

    #[test]
    fn every_part_counts() {
        let mut seen = HashSet::new();
        for system in 0..10 {
            for timeline in 1..10 {
                for database in 16_384..16_394 {
                    assert!(seen.insert(fold(7_300_000_000_000_000_000 + system, timeline, database)));
                }
            }
        }
        assert_eq!(fold(7_300_000_000_000_000_000, 1, 5), fold(7_300_000_000_000_000_000, 1, 5));
    }
}
