//! `sms-outbox message list`.

use clap::Args;

use super::{concealed, reason};
use crate::cli::terminal::{Terminal, or_dash, shortened, time};
use crate::cli::{Global, session, when, when::When};
use crate::message::DispatchStatus;
use crate::outbox::postgres::operator::messages::{self, Listing};

/// List messages, newest first
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only this organization
    #[arg(long, short = 'g', value_name = "ID")]
    organization: Option<String>,
    /// Only this status, or these: pending, sending, sent, failed, dispatch_timeout, canceled, expired
    #[arg(long, short, value_name = "STATUS", value_delimiter = ',', value_parser = status)]
    status: Vec<DispatchStatus>,
    /// Only messages enqueued since: -2h, 2026-11-24, '2026-11-24 09:00' (local), 2026-11-24T09:00:00+03:00
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    since: Option<When>,
    /// At most this many [1 to 10000]
    #[arg(long, short = 'n', value_name = "N", default_value_t = 20, value_parser = clap::value_parser!(i64).range(1..=10_000))]
    limit: i64,
    /// Show whole numbers and texts
    #[arg(long)]
    reveal: bool,
}

/// A status by its word.
pub(super) fn status(word: &str) -> Result<DispatchStatus, String> {
    DispatchStatus::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = DispatchStatus::ALL.iter().map(|status| status.word()).collect();
        format!("no such status; there are {}", words.join(", "))
    })
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: ListArgs) -> anyhow::Result<()> {
    let client = session::open(global, "message list").await?;
    let statuses = args.status.iter().map(|status| status.word().to_owned()).collect::<Vec<_>>();
    let filtered = args.organization.is_some() || !statuses.is_empty() || args.since.is_some();
    let listing = Listing {
        organization_id: args.organization,
        dispatch_status: Some(statuses).filter(|statuses| !statuses.is_empty()),
        since: when::moment(args.since, &client).await?,
        limit: args.limit,
    };
    let found = messages::list(&client, &listing).await?;
    let found: Vec<_> =
        found.into_iter().map(|message| if args.reveal { message } else { concealed(message) }).collect();
    if terminal.is_json() {
        return terminal.json(&found);
    }
    if found.is_empty() {
        terminal.note(if filtered {
            "no message matches; leave out a filter to see more"
        } else {
            "no messages yet; enqueue one with: sms-outbox enqueue --mobile NUMBER --message TEXT --organization ID"
        });
        return Ok(());
    }
    let mut headings = vec!["id", "organization", "mobile", "status", "provider", "attempts", "created", "reason"];
    if args.reveal {
        headings.push("message");
    }
    let rows = found.iter().map(|m| {
        let mut row = vec![
            m.id.clone(),
            m.organization_id.clone(),
            m.mobile.clone(),
            m.dispatch_status.clone(),
            or_dash(m.provider_slug.as_deref().or(m.preferred_provider_slug.as_deref())),
            m.attempt_count.to_string(),
            time(m.created_at),
            shortened(&reason(m).unwrap_or_else(|| "-".to_owned()), 60),
        ];
        if args.reveal {
            row.push(shortened(m.message.as_deref().unwrap_or_default(), 60));
        }
        row
    });
    terminal.table(&headings, rows.collect())?;
    if found.len() as i64 == args.limit {
        terminal.note(&format!("the newest {} are shown; --limit shows more", args.limit));
    }
    Ok(())
}
