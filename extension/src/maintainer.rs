//! The maintainer: the background worker of one database. It sends the coalesced NOTIFY for committed messages and runs
//! `sms_outbox.run_maintenance()`. Transactions are short, none is open while it sleeps, and it leaves when the
//! extension goes.

use std::ffi::{CStr, c_int};

use pgrx::pg_sys::panic::CaughtError;
use pgrx::pg_sys::{self, Datum, Oid, PgTryBuilder};

use crate::board::{Place, board};
use crate::launcher::{exit, prepare_signals, sleep};
use crate::refused::{self, Written};
use crate::statement::{Spi, Statement, statement};
use crate::{settings, wakeup};

static RUN_MAINTENANCE: Statement = statement!("run_maintenance", []);

/// Least time between two notifications: workers that are awake anyway gain nothing from more.
const NOTIFY_INTERVAL: i64 = 5_000;
/// Pause after an error: doubled each time, up to the longest.
const FIRST_PAUSE: i64 = 1_000_000;
const LONGEST_PAUSE: i64 = 60_000_000;
/// Maintenance rather waits for its next turn than makes others wait behind it.
const LOCK_TIMEOUT: &CStr = c"1s";
const STATEMENT_TIMEOUT_MILLIS: c_int = 60_000;

unsafe extern "C-unwind" {
    // Not in pgrx's bindings. A background worker has to arm statement_timeout by itself.
    fn enable_timeout_after(timeout: c_int, millis: c_int);
    fn disable_timeout(timeout: c_int, keep_indicator: bool);
}

/// STATEMENT_TIMEOUT of the server's enum TimeoutId, in all supported versions.
const STATEMENT_TIMEOUT: c_int = 3;

/// Entry point of a maintainer's process; `database` is its oid. Ends by `proc_exit` alone.
#[doc(hidden)]
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sms_outbox_maintainer_main(database: Datum) {
    let database = Oid::from_u32(database.value() as u32);
    prepare_signals();
    let Some(place) = board().and_then(|board| board.find(database)) else { exit(0) };
    // SAFETY: the usual order of a background worker.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnectionByOid(database, Oid::INVALID, 0);
        // Somebody is dropping the database, or another maintainer is here already.
        if place.held_until() > pg_sys::GetCurrentTimestamp() || !place.attach() {
            exit(0);
        }
        pg_sys::before_shmem_exit(Some(leave), Datum::null());
        set(c"application_name", c"sms_outbox maintainer");
        set(c"lock_timeout", LOCK_TIMEOUT);
    }
    Maintainer { place, next_notify: 0, next_maintenance: 0, pause: 0, complaint: None }.run()
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn leave(_code: c_int, _arg: Datum) {
    // SAFETY: a plain read.
    let database = unsafe { pg_sys::MyDatabaseId };
    if let Some(board) = board()
        && let Some(place) = board.find(database)
    {
        place.detach();
        board.wake_launcher();
    }
}

fn set(name: &CStr, value: &CStr) {
    // SAFETY: C strings of known settings, in this process alone.
    unsafe {
        pg_sys::SetConfigOption(
            name.as_ptr(),
            value.as_ptr(),
            pg_sys::GucContext::PGC_USERSET,
            pg_sys::GucSource::PGC_S_SESSION,
        );
    }
}

struct Maintainer {
    place: &'static Place,
    next_notify: i64,
    next_maintenance: i64,
    pause: i64,
    /// The error that was logged last: the same one again is not.
    complaint: Option<String>,
}

impl Maintainer {
    fn run(mut self) -> ! {
        loop {
            let now = now();
            let mut next = self.next_maintenance;
            if self.place.wake_wanted() {
                if now >= self.next_notify {
                    self.notify();
                } else {
                    next = next.min(self.next_notify);
                }
            }
            if now >= self.next_maintenance {
                self.maintain();
                continue;
            }
            sleep(next - now);
        }
    }

    /// One NOTIFY for all that was committed since the last one.
    fn notify(&mut self) {
        self.place.take_wake();
        if self.transaction(c"sending a wake-up", wakeup::notify).is_none() {
            self.place.put_wake_back();
        }
        self.next_notify = now() + NOTIFY_INTERVAL.max(self.pause);
    }

    /// One bounded piece of maintenance; the next follows at once while there is more.
    fn maintain(&mut self) {
        let interval = i64::from(settings::maintenance_interval()) * 1000;
        let wait = match self.transaction(c"maintenance", maintenance) {
            Some(Piece::Absent) => {
                self.place.set_absent(true);
                self.place.take_wake();
                exit(0);
            }
            Some(Piece::Done { more, refusals }) => {
                refusals.committed();
                if more { 0 } else { interval }
            }
            None => interval.max(self.pause),
        };
        self.next_maintenance = now() + wait;
    }

    /// Runs something in a transaction of its own. An error is logged once and followed by a growing pause.
    fn transaction<T>(&mut self, activity: &CStr, body: fn() -> T) -> Option<T> {
        // SAFETY: no transaction is open here; the error path aborts what was begun.
        let result = unsafe {
            pg_sys::SetCurrentStatementStartTimestamp();
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_RUNNING, activity.as_ptr());
            let result = PgTryBuilder::new(|| {
                pg_sys::StartTransactionCommand();
                enable_timeout_after(STATEMENT_TIMEOUT, STATEMENT_TIMEOUT_MILLIS);
                let result = body();
                disable_timeout(STATEMENT_TIMEOUT, false);
                pg_sys::CommitTransactionCommand();
                Ok(result)
            })
            .catch_others(|error| Err(describe(&error)))
            .execute();
            if result.is_err() {
                disable_timeout(STATEMENT_TIMEOUT, false);
                pg_sys::AbortCurrentTransaction();
            }
            pg_sys::pgstat_report_stat(true);
            pg_sys::pgstat_report_activity(pg_sys::BackendState::STATE_IDLE, std::ptr::null());
            result
        };
        match result {
            Ok(result) => {
                self.pause = 0;
                self.complaint = None;
                Some(result)
            }
            Err(complaint) => {
                self.pause = (self.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                if self.complaint.as_ref() != Some(&complaint) {
                    pgrx::log!("sms_outbox: {} failed, will be tried again: {complaint}", activity.to_string_lossy());
                    self.complaint = Some(complaint);
                }
                None
            }
        }
    }
}

fn now() -> i64 {
    // SAFETY: reads the clock.
    unsafe { pg_sys::GetCurrentTimestamp() }
}

/// Code and message, never the detail: that may quote a row.
fn describe(error: &CaughtError) -> String {
    match error {
        CaughtError::PostgresError(report)
        | CaughtError::ErrorReport(report)
        | CaughtError::RustPanic { ereport: report, .. } => {
            format!("{}: {}", report.sql_error_code(), report.message())
        }
    }
}

/// What one piece of maintenance found.
enum Piece {
    /// The database has no such extension, or no longer.
    Absent,
    Done {
        more: bool,
        refusals: Written,
    },
}

/// Runs as the extension's owner, who is no superuser.
fn maintenance() -> Piece {
    // SAFETY: inside a transaction. The extension is locked before any table of it, as DROP EXTENSION does, so that the
    // two never wait for each other in a circle; then it is looked up again, since the lock may have come after a drop.
    unsafe {
        let name = c"sms_outbox".as_ptr();
        let extension = pg_sys::get_extension_oid(name, true);
        if extension == Oid::INVALID {
            return Piece::Absent;
        }
        pg_sys::LockDatabaseObject(pg_sys::ExtensionRelationId, extension, 0, pg_sys::AccessShareLock as c_int);
        if pg_sys::get_extension_oid(name, true) != extension {
            return Piece::Absent;
        }
        let mut user = Oid::INVALID;
        let mut context = 0;
        pg_sys::GetUserIdAndSecContext(&raw mut user, &raw mut context);
        let owner = pg_sys::get_role_oid(c"sms_outbox_owner".as_ptr(), false);
        pg_sys::SetUserIdAndSecContext(owner, context | pg_sys::SECURITY_LOCAL_USERID_CHANGE as c_int);
        pg_sys::PushActiveSnapshot(pg_sys::GetTransactionSnapshot());
        let spi = Spi::connect();
        let more = spi.execute(&RUN_MAINTENANCE, &[]).flag(0, 1);
        let refusals = refused::write(&spi);
        spi.finish();
        pg_sys::PopActiveSnapshot();
        pg_sys::SetUserIdAndSecContext(user, context);
        Piece::Done { more, refusals }
    }
}
