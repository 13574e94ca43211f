//! The command `sms-outbox` as tests hold it: see `src/failpoint.rs`.

use std::process::ExitCode;

fn main() -> ExitCode {
    let _points = fail::FailScenario::setup();
    sms_outbox_worker::cli::main()
}
