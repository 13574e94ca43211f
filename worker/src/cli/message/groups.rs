//! Ended messages, counted by how they ended and how sure it is that they were sent.

use tokio_postgres::Client;

use super::sure;
use crate::cli::terminal::{Terminal, age, or_dash};
use crate::outbox::postgres::operator::moves::Group;
use crate::outbox::postgres::operator::server;

/// Prints them, most first.
pub(in crate::cli) async fn print(client: &Client, terminal: &Terminal, groups: Vec<Group>) -> anyhow::Result<()> {
    let now = server::now(client).await?;
    let ago = |at: jiff::Timestamp| age(now.duration_since(at).as_secs_f64());
    let rows = groups.into_iter().map(|group| {
        vec![
            group.organization_id,
            or_dash(group.organization_app_id),
            or_dash(group.provider_slug),
            or_dash(group.error_code),
            group.messages.to_string(),
            ago(group.oldest),
            ago(group.newest),
            format!("{}: {}", group.certainty, sure::why(group.certainty)),
        ]
    });
    let headings = ["organization", "app", "provider", "error code", "messages", "oldest", "newest", "certainty"];
    terminal.table(&headings, rows.collect())
}
