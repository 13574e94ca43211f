//! Checks journals that lie in files: `history check --commits F --database F --provider F [--unclear F]`. Exit code 0 where
//! every rule holds for every message, 1 where one is broken, 2 where that is not known.

use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;

use sms_outbox_tests::history::{Files, check_files};

const USAGE: &str = "usage: history check --commits FILE --database FILE --provider FILE [--unclear FILE]";
const NOT_KNOWN: u8 = 2;

fn main() -> ExitCode {
    let Some(files) = arguments() else {
        let _ = writeln!(io::stderr(), "{USAGE}");
        return ExitCode::from(NOT_KNOWN);
    };
    let verdict = check_files(&files);
    // A verdict that nobody could read is none.
    match writeln!(io::stdout(), "{verdict}") {
        Ok(()) => ExitCode::from(verdict.exit_code()),
        Err(_) => ExitCode::from(NOT_KNOWN),
    }
}

fn arguments() -> Option<Files> {
    let mut words = std::env::args_os().skip(1);
    if words.next()? != "check" {
        return None;
    }
    let (mut commits, mut database, mut provider, mut unclear) = (None, None, None, None);
    while let Some(word) = words.next() {
        let place = match word.to_str()? {
            "--commits" => &mut commits,
            "--database" => &mut database,
            "--provider" => &mut provider,
            "--unclear" => &mut unclear,
            _ => return None,
        };
        if place.replace(PathBuf::from(words.next()?)).is_some() {
            return None;
        }
    }
    Some(Files { commits: commits?, database: database?, provider: provider?, unclear })
}
