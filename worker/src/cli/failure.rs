//! The one place that turns an error into words and an exit code: field, fault, cure.

use std::io;
use std::process::ExitCode;

use tokio_postgres::error::DbError;

use super::terminal::Terminal;
use crate::outbox::postgres::connect::ConnectError;

/// Exit code for wrong usage, as clap's.
pub(super) const USAGE: u8 = 2;
/// Exit code for an extension newer than this binary: a supervisor should not restart, but call a person.
pub(super) const EXTENSION_NEWER: u8 = 3;

/// A usage fault that only shows after parsing.
#[derive(Debug, thiserror::Error)]
#[error("{0}")]
pub(super) struct Usage(pub(super) String);

/// Prints the error and chooses the exit code.
pub(super) fn exit(terminal: &Terminal, error: &anyhow::Error) -> ExitCode {
    let cause =
        |kind: io::ErrorKind| error.chain().any(|c| c.downcast_ref::<io::Error>().is_some_and(|e| e.kind() == kind));
    if cause(io::ErrorKind::BrokenPipe) {
        // `sms-outbox message list | head`: the reader has what it wanted.
        return ExitCode::SUCCESS;
    }
    for (n, line) in render(error).lines().enumerate() {
        if n == 0 { terminal.error(line) } else { terminal.note(&format!("  {line}")) }
    }
    ExitCode::from(code(error))
}

fn code(error: &anyhow::Error) -> u8 {
    if error.chain().any(|cause| cause.is::<Usage>()) {
        return USAGE;
    }
    match error.chain().find_map(|cause| cause.downcast_ref::<ConnectError>()) {
        Some(ConnectError::ExtensionNewer { .. }) => EXTENSION_NEWER,
        Some(ConnectError::MissingUrl | ConnectError::InvalidUrl { .. }) => USAGE,
        _ => 1,
    }
}

/// The first line says what is wrong and with which field; further lines the detail and the cure.
pub(super) fn render(error: &anyhow::Error) -> String {
    let database = error.chain().find_map(|cause| cause.downcast_ref::<tokio_postgres::Error>());
    if let Some(database) = database {
        if let Some(refusal) = database.as_db_error() {
            return refused(refusal);
        }
        if database.is_closed() {
            return "the connection to the database was lost; nothing is known of the last call: look with status or \
                    message show, then try again"
                .to_owned();
        }
    }
    let mut text = String::new();
    for cause in error.chain().map(ToString::to_string) {
        // Layers often repeat the words of the layer below.
        if text.is_empty() {
            text = cause;
        } else if !text.contains(&cause) {
            text = format!("{text}: {cause}");
        }
    }
    text
}

fn refused(error: &DbError) -> String {
    let field = error.column().map(|column| format!("{column}: ")).unwrap_or_default();
    let message = error.message().strip_prefix(field.as_str()).unwrap_or(error.message());
    let mut lines = vec![format!("{field}{message} (SQLSTATE {})", error.code().code())];
    lines.extend(error.detail().map(str::to_owned));
    lines.extend(error.hint().map(|hint| format!("hint: {hint}")));
    if error.hint().is_none() {
        lines.extend(cure(error.code().code()).map(|cure| format!("hint: {cure}")));
    }
    lines.join("\n")
}

/// Cures for what PostgreSQL itself raises without a hint.
fn cure(sqlstate: &str) -> Option<&'static str> {
    match sqlstate {
        "42501" => Some(
            "log in as a member of sms_outbox_operator, for enqueue and app test also of sms_outbox_app, for install as superuser",
        ),
        "42P01" | "42883" | "42703" | "3F000" => {
            Some("the extension is not what this binary expects: run sms-outbox install")
        }
        "55P03" | "57014" => Some("something else holds it; see pg_stat_activity, then try again"),
        "40001" | "40P01" => Some("another transaction was in the way; try again"),
        "25006" => Some("this server is a read-only standby; connect to the primary"),
        "53100" => Some("the server's disk is full: free space first"),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use anyhow::anyhow;

    #[test]
    fn layers_are_told_once() {
        let error = anyhow!("disk on fire").context("cannot write: disk on fire").context("man pages");
        assert_eq!(render(&error), "man pages: cannot write: disk on fire");
    }

    #[test]
    fn exit_codes_tell_usage_from_failure() {
        let newer =
            ConnectError::ExtensionNewer { database: "d".to_owned(), found: "9.0.0".to_owned(), binary: "0.1.0" };
        assert_eq!(code(&anyhow::Error::new(newer).context("worker")), EXTENSION_NEWER);
        assert_eq!(code(&ConnectError::MissingUrl.into()), USAGE);
        assert_eq!(code(&Usage("both".to_owned()).into()), USAGE);
        assert_eq!(code(&anyhow!("no")), 1);
    }
}
