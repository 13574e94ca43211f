//! The launcher: one background worker of the server, which sees to it that every database with the extension has a
//! maintainer. It decides by what is, not by what happened: a lost event costs one round of its timer.

use std::collections::HashMap;
use std::ffi::{CStr, c_char, c_int, c_long, c_void};

use pgrx::pg_sys::{self, Datum, Oid};

use crate::board::{Board, board};

/// Longest time between two rounds.
const ROUND_SECONDS: i64 = 10;
/// Pause after a maintainer that ended by itself: doubled each time, up to the longest.
const FIRST_PAUSE: i64 = 1;
const LONGEST_PAUSE: i64 = 60;
/// How often a database without the extension is looked into. CREATE EXTENSION calls by itself.
const ABSENT_PAUSE: i64 = 60;
const LONGEST_ABSENT_PAUSE: i64 = 600;
/// How long a database is left alone after DROP DATABASE asked for it: core waits 5 seconds for sessions to leave.
const HOLD_SECONDS: i64 = 15;
/// Pause of the server before it starts a launcher again that ended.
const RESTART_SECONDS: c_int = 5;
/// Maintainers being started at once: looking into a thousand databases must not take all worker slots.
const MOST_STARTING: usize = 2;

const MICROS_PER_SECOND: i64 = 1_000_000;
const LIBRARY: &CStr = c"$libdir/sms_outbox";

unsafe extern "C-unwind" {
    // The server's own handlers, as the plain functions that pqsignal takes.
    fn SignalHandlerForConfigReload(signal: c_int);
    fn die(signal: c_int);
    // pgrx's binding returns in some majors.
    fn proc_exit(code: c_int) -> !;
}

static mut PREVIOUS_ACCESS_HOOK: pg_sys::object_access_hook_type = None;

/// Registers the launcher; only while shared_preload_libraries are loaded.
pub(crate) fn register() {
    let mut worker = worker(c"sms_outbox launcher", c"sms_outbox_launcher_main");
    worker.bgw_restart_time = RESTART_SECONDS;
    // SAFETY: single-threaded start-up of the postmaster; the worker is copied.
    unsafe {
        pg_sys::RegisterBackgroundWorker(&raw mut worker);
        PREVIOUS_ACCESS_HOOK = pg_sys::object_access_hook;
        pg_sys::object_access_hook = Some(object_accessed);
    }
}

fn worker(name: &CStr, function: &CStr) -> pg_sys::BackgroundWorker {
    let mut worker = pg_sys::BackgroundWorker {
        bgw_flags: (pg_sys::BGWORKER_SHMEM_ACCESS | pg_sys::BGWORKER_BACKEND_DATABASE_CONNECTION) as c_int,
        // Nothing runs on a standby; it starts on promotion.
        bgw_start_time: pg_sys::BgWorkerStartTime::BgWorkerStart_RecoveryFinished,
        bgw_restart_time: pg_sys::BGW_NEVER_RESTART,
        ..Default::default()
    };
    fill(&mut worker.bgw_name, name);
    fill(&mut worker.bgw_type, name);
    fill(&mut worker.bgw_library_name, LIBRARY);
    fill(&mut worker.bgw_function_name, function);
    worker
}

/// Copies a text into a zeroed field, leaving room for its end.
fn fill(field: &mut [c_char], text: &CStr) {
    let room = field.len() - 1;
    for (to, from) in field[..room].iter_mut().zip(text.to_bytes()) {
        *to = *from as c_char;
    }
}

/// DROP DATABASE waits a few seconds for sessions to leave: let ours leave at once. Runs after the permission check.
#[pgrx::pg_guard]
unsafe extern "C-unwind" fn object_accessed(
    access: pg_sys::ObjectAccessType::Type,
    class: Oid,
    object: Oid,
    part: c_int,
    arg: *mut c_void,
) {
    // SAFETY: the previous hook is called as this one was; the clock is read.
    unsafe {
        if let Some(previous) = PREVIOUS_ACCESS_HOOK {
            previous(access, class, object, part, arg);
        }
        if access == pg_sys::ObjectAccessType::OAT_DROP
            && class == pg_sys::DatabaseRelationId
            && let Some(place) = board().and_then(|board| board.find(object))
        {
            place.dismiss(pg_sys::GetCurrentTimestamp() + HOLD_SECONDS * MICROS_PER_SECOND);
        }
    }
}

/// What the launcher remembers of one database.
#[derive(Default)]
struct Watch {
    handle: Option<*mut pg_sys::BackgroundWorkerHandle>,
    next_try: i64,
    pause: i64,
}

/// Entry point of the launcher's process. Ends by `proc_exit` alone: returning would mean 'never again'.
#[doc(hidden)]
#[pgrx::pg_guard]
#[unsafe(no_mangle)]
pub extern "C-unwind" fn sms_outbox_launcher_main(_arg: Datum) {
    prepare_signals();
    // SAFETY: the usual order of a background worker: signals, connection (to no database: shared catalogs only), loop.
    unsafe {
        pg_sys::BackgroundWorkerInitializeConnection(std::ptr::null(), std::ptr::null(), 0);
        pg_sys::before_shmem_exit(Some(leave), Datum::null());
    }
    let Some(board) = board() else { exit(1) };
    board.attach_launcher();
    let mut watched = HashMap::new();
    loop {
        let next = reconcile(board, &mut watched);
        sleep(next);
    }
}

#[pgrx::pg_guard]
unsafe extern "C-unwind" fn leave(_code: c_int, _arg: Datum) {
    if let Some(board) = board() {
        board.detach_launcher();
    }
}

/// Handlers that let the server interrupt anything: SIGTERM as in every backend, SIGHUP to read the configuration.
pub(crate) fn prepare_signals() {
    // SAFETY: the server's own handlers.
    unsafe {
        #[cfg(not(feature = "pg18"))]
        {
            pg_sys::pqsignal(pg_sys::SIGHUP as c_int, Some(SignalHandlerForConfigReload));
            pg_sys::pqsignal(pg_sys::SIGTERM as c_int, Some(die));
        }
        #[cfg(feature = "pg18")]
        {
            pg_sys::pqsignal_be(pg_sys::SIGHUP as c_int, Some(SignalHandlerForConfigReload));
            pg_sys::pqsignal_be(pg_sys::SIGTERM as c_int, Some(die));
        }
        pg_sys::BackgroundWorkerUnblockSignals();
    }
}

/// Ends this process. With 1 the server starts the launcher again; a maintainer leaves with 0, which it does not log.
pub(crate) fn exit(code: c_int) -> ! {
    // SAFETY: runs the exit callbacks and ends.
    unsafe { proc_exit(code) }
}

/// Waits for the latch or `micros`, and takes whatever the server asks for: ending, barriers, new configuration.
pub(crate) fn sleep(micros: i64) {
    // Rounded up: waking a little early would spin.
    let millis = (micros.max(0) / 1000 + 1) as c_long;
    // SAFETY: the process' own latch; no lock and no transaction is held here.
    unsafe {
        let events = pg_sys::WL_LATCH_SET | pg_sys::WL_TIMEOUT | pg_sys::WL_EXIT_ON_PM_DEATH;
        pg_sys::WaitLatch(pg_sys::MyLatch, events as c_int, millis, pg_sys::PG_WAIT_EXTENSION);
        pg_sys::ResetLatch(pg_sys::MyLatch);
    }
    pgrx::check_for_interrupts!();
    // SAFETY: as above; the flag is set by the signal handler.
    unsafe {
        if (&raw const pg_sys::ConfigReloadPending).read_volatile() != 0 {
            (&raw mut pg_sys::ConfigReloadPending).write_volatile(0);
            pg_sys::ProcessConfigFile(pg_sys::GucContext::PGC_SIGHUP);
        }
    }
}

/// Starts what is missing; says after how many microseconds to look again.
fn reconcile(board: &Board, watched: &mut HashMap<Oid, Watch>) -> i64 {
    let databases = databases();
    board.retain(|database| databases.contains(&database));
    watched.retain(|database, _| databases.contains(database));
    // SAFETY: reads the clock.
    let now = unsafe { pg_sys::GetCurrentTimestamp() };
    let mut next = now + ROUND_SECONDS * MICROS_PER_SECOND;
    let mut starting = 0;
    for database in databases {
        let Some(place) = board.take(database) else { continue };
        let watch = watched.entry(database).or_default();
        if place.is_served() {
            watch.pause = 0;
            continue;
        }
        if let Some(handle) = watch.handle {
            if is_running(handle) {
                starting += 1;
                continue;
            }
            forget(handle);
            watch.handle = None;
            let (first, longest) =
                if place.is_absent() { (ABSENT_PAUSE, LONGEST_ABSENT_PAUSE) } else { (FIRST_PAUSE, LONGEST_PAUSE) };
            watch.pause = (watch.pause * 2).clamp(first, longest);
            watch.next_try = now + watch.pause * MICROS_PER_SECOND;
        }
        if place.is_absent() && place.wake_wanted() {
            // Something of the extension was committed there.
            place.set_absent(false);
            *watch = Watch::default();
        }
        let due = watch.next_try.max(place.held_until());
        if due > now {
            next = next.min(due);
        } else if starting < MOST_STARTING {
            watch.handle = start(database);
            if watch.handle.is_some() {
                starting += 1;
            } else {
                watch.pause = (watch.pause * 2).clamp(FIRST_PAUSE, LONGEST_PAUSE);
                watch.next_try = now + watch.pause * MICROS_PER_SECOND;
            }
        }
    }
    next - now
}

/// Databases that can be connected to and are no templates.
fn databases() -> Vec<Oid> {
    let mut found = Vec::new();
    // SAFETY: a scan of a shared catalog in a transaction of its own, as the autovacuum launcher does it.
    unsafe {
        pg_sys::StartTransactionCommand();
        pg_sys::GetTransactionSnapshot();
        let relation = pg_sys::table_open(pg_sys::DatabaseRelationId, pg_sys::AccessShareLock as c_int);
        let scan = pg_sys::table_beginscan_catalog(relation, 0, std::ptr::null_mut());
        loop {
            let tuple = pg_sys::heap_getnext(scan, pg_sys::ScanDirection::ForwardScanDirection);
            if tuple.is_null() {
                break;
            }
            let form = &*pg_sys::GETSTRUCT(tuple).cast::<pg_sys::FormData_pg_database>();
            // A connection limit of -2 marks a database whose DROP was interrupted.
            if form.datallowconn && !form.datistemplate && form.datconnlimit != -2 {
                found.push(form.oid);
            }
        }
        pg_sys::table_endscan(scan);
        pg_sys::table_close(relation, pg_sys::AccessShareLock as c_int);
        pg_sys::CommitTransactionCommand();
    }
    found
}

/// Starts the maintainer of a database; nothing when the server has no slot for another worker.
fn start(database: Oid) -> Option<*mut pg_sys::BackgroundWorkerHandle> {
    let mut worker = worker(c"sms_outbox maintainer", c"sms_outbox_maintainer_main");
    worker.bgw_main_arg = Datum::from(database);
    let mut handle = std::ptr::null_mut();
    // SAFETY: the worker is copied; the handle must outlive any transaction.
    unsafe {
        worker.bgw_notify_pid = pg_sys::MyProcPid;
        let previous = pg_sys::MemoryContextSwitchTo(pg_sys::TopMemoryContext);
        let started = pg_sys::RegisterDynamicBackgroundWorker(&raw mut worker, &raw mut handle);
        pg_sys::MemoryContextSwitchTo(previous);
        started.then_some(handle)
    }
}

fn is_running(handle: *mut pg_sys::BackgroundWorkerHandle) -> bool {
    let mut process = 0;
    // SAFETY: a handle of this process.
    let status = unsafe { pg_sys::GetBackgroundWorkerPid(handle, &raw mut process) };
    matches!(status, pg_sys::BgwHandleStatus::BGWH_STARTED | pg_sys::BgwHandleStatus::BGWH_NOT_YET_STARTED)
}

fn forget(handle: *mut pg_sys::BackgroundWorkerHandle) {
    // SAFETY: allocated by RegisterDynamicBackgroundWorker, and not used again.
    unsafe { pg_sys::pfree(handle.cast()) };
}
