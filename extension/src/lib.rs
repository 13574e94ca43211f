//! Binds sms_outbox to PostgreSQL: what only code inside the server can do. A fast checked enqueue, a wake-up that
//! costs the committing application nothing, and a background worker for time-outs and retention.
//!
//! What the queue guarantees lives in `sql/`. There also stand the declarations of the functions below
//! (`sql/schema/20_extension_functions.sql`) and the statements that they run (`sql/statements/`).
#![allow(unsafe_code, reason = "binds PostgreSQL, whose interface is C")]

use std::backtrace::Backtrace;

use pgrx::pg_sys;

mod arguments;
mod board;
mod call;
mod caller;
mod datetime;
mod destination;
mod element;
mod enqueue;
mod enqueue_many;
mod enter;
mod facts;
mod ids;
mod launcher;
mod limits;
mod maintainer;
mod message_id;
mod phone;
mod queue;
mod refusal;
mod refused;
mod segments;
mod server;
mod settings;
mod statement;
mod text_functions;
mod usage;
mod wakeup;

pgrx::pg_module_magic!(name = c"sms_outbox", version);

/// Called once in each process that loads the library; in the postmaster, when it is preloaded.
#[doc(hidden)]
#[pgrx::pg_guard]
pub extern "C-unwind" fn _PG_init() {
    silence_backtraces();
    settings::define();
    ids::watch();
    facts::watch();
    wakeup::register();
    // SAFETY: a plain read.
    if unsafe { pg_sys::process_shared_preload_libraries_in_progress } {
        board::reserve();
        launcher::register();
        phone::warm();
    }
}

/// pgrx puts the stack into the DETAIL of an ERROR where the server runs with RUST_BACKTRACE set, for any application to
/// see. The standard library asks for it once, and this library has a standard library of its own: let it be told no.
fn silence_backtraces() {
    const SETTING: &str = "RUST_LIB_BACKTRACE";
    let before = std::env::var_os(SETTING);
    // SAFETY: PostgreSQL's processes have one thread.
    unsafe { std::env::set_var(SETTING, "0") };
    drop(Backtrace::capture());
    // SAFETY: as above.
    unsafe {
        match before {
            Some(value) => std::env::set_var(SETTING, value),
            None => std::env::remove_var(SETTING),
        }
    }
}
