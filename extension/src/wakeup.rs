//! Tells workers of committed messages without slowing the commit: the commit callback sets a flag in shared memory
//! and, only if it was clear, a latch. The maintainer then sends one NOTIFY for many commits.
//!
//! In a commit callback an ERROR is a PANIC: atomics and SetLatch, nothing else.

use std::ffi::{CStr, c_char, c_void};
use std::sync::atomic::{AtomicBool, Ordering};

use pgrx::pg_sys;

use crate::board::board;
use crate::call::{Call, Reply, sql_function};
use crate::settings::{self, Wakeup};

const CHANNEL: &CStr = c"sms_outbox";

/// This transaction put something into the queue. A savepoint rolled back leaves it set: a wake-up too many is harmless.
static WANTED: AtomicBool = AtomicBool::new(false);

// Not in pgrx's bindings.
unsafe extern "C-unwind" {
    fn Async_Notify(channel: *const c_char, payload: *const c_char);
}

/// Asks to be told of ends of transactions. Once in a session.
pub(crate) fn register() {
    // SAFETY: the callback keeps to atomics and SetLatch.
    unsafe { pg_sys::RegisterXactCallback(Some(transaction_ended), std::ptr::null_mut()) };
}

unsafe extern "C-unwind" fn transaction_ended(event: pg_sys::XactEvent::Type, _arg: *mut c_void) {
    match event {
        pg_sys::XactEvent::XACT_EVENT_COMMIT => {
            if WANTED.swap(false, Ordering::Relaxed)
                && let Some(board) = board()
            {
                // SAFETY: a plain read.
                board.wake(unsafe { pg_sys::MyDatabaseId });
            }
        }
        // Whoever commits a prepared transaction is another session: polling finds its rows.
        pg_sys::XactEvent::XACT_EVENT_ABORT | pg_sys::XactEvent::XACT_EVENT_PREPARE => {
            WANTED.store(false, Ordering::Relaxed);
        }
        _ => {}
    }
}

/// Asks for one wake-up of the workers when this transaction commits.
pub(crate) fn request() {
    match settings::wakeup() {
        Wakeup::coalesced => WANTED.store(true, Ordering::Relaxed),
        Wakeup::trigger => notify(),
        Wakeup::off => {}
    }
}

/// NOTIFY in this transaction.
pub(crate) fn notify() {
    // SAFETY: two C strings; an ERROR comes back as a panic, and the closure holds nothing.
    unsafe { pg_sys::ffi::pg_guard_ffi_boundary(|| Async_Notify(CHANNEL.as_ptr(), c"".as_ptr())) };
}

/// `sms_outbox.wake()`.
fn wake(_call: &Call) -> Reply {
    request();
    Ok(Some(pg_sys::Datum::null()))
}

sql_function!(wake_wrapper, pg_finfo_wake_wrapper, wake);
