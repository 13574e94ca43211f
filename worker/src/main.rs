//! The command `sms-outbox`.

use std::process::ExitCode;

use mimalloc::MiMalloc;

/// A message asks for memory more than a hundred times, and gives it back on another thread: a quarter of the worker's CPU
/// went into the system's allocator.
#[global_allocator]
static ALLOCATOR: MiMalloc = MiMalloc;

fn main() -> ExitCode {
    sms_outbox_worker::cli::main()
}
