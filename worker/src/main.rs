//! The command `sms-outbox`.

use std::process::ExitCode;

fn main() -> ExitCode {
    sms_outbox_worker::cli::main()
}
