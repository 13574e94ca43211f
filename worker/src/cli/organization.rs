//! `sms-outbox organization`.

use clap::{Args, Subcommand};
use serde_json::json;

use super::failure::Usage;
use super::terminal::{Terminal, or_dash};
use super::{Global, session};
use crate::outbox::postgres::operator::limits::{self, Limits};
use crate::outbox::postgres::operator::organizations::{self, Settings};

/// Look at organizations, set their region, time zone and limits, pause and resume them
#[derive(Debug, Subcommand)]
pub(super) enum OrganizationCommand {
    /// List organizations
    List,
    Limits(LimitsArgs),
    Set(SetArgs),
    Pause(PauseArgs),
    Resume(ResumeArgs),
}

/// Make an organization, or change it
#[derive(Debug, Args)]
pub(super) struct SetArgs {
    /// The organization
    organization: String,
    /// Region of numbers without a country code, such as SA
    #[arg(long, value_name = "REGION")]
    default_region: Option<String>,
    /// Time zone of times without one, such as Asia/Riyadh; its midnight begins the day of limits
    #[arg(long, value_name = "ZONE")]
    time_zone: Option<String>,
    #[command(flatten)]
    limits: LimitFlags,
}

/// Limits on what an organization may enqueue.
#[derive(Debug, Args)]
#[command(next_help_heading = "Limits (0, or an empty LIST, takes one away)")]
struct LimitFlags {
    /// Messages in a calendar minute
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    messages_per_minute: Option<i32>,
    /// Messages in a day
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    messages_per_day: Option<i32>,
    /// Messages to one number within an hour
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    messages_per_recipient_hour: Option<i32>,
    /// Segments in a day: what providers charge for
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(i32).range(0..))]
    segments_per_day: Option<i32>,
    /// Where messages may go: prefixes and regions, such as SA,+9715
    #[arg(long, value_name = "LIST", value_parser = list_of)]
    allowed_destinations: Option<List>,
    /// Where none may go, even where it is allowed
    #[arg(long, value_name = "LIST", value_parser = list_of)]
    blocked_destinations: Option<List>,
    /// Senders that a message may name
    #[arg(long, value_name = "LIST", value_parser = list_of)]
    allowed_senders: Option<List>,
}

/// Comma-separated texts, also none at all.
#[derive(Clone, Debug)]
struct List(Vec<String>);

fn list_of(text: &str) -> Result<List, std::convert::Infallible> {
    Ok(List(text.split(',').map(str::trim).filter(|entry| !entry.is_empty()).map(str::to_owned).collect()))
}

impl SetArgs {
    fn settings(&self) -> Settings<'_> {
        fn list(list: &Option<List>) -> Option<&[String]> {
            list.as_ref().map(|List(entries)| entries.as_slice())
        }
        Settings {
            default_region: self.default_region.as_deref(),
            time_zone: self.time_zone.as_deref(),
            messages_per_minute: self.limits.messages_per_minute,
            messages_per_day: self.limits.messages_per_day,
            messages_per_recipient_hour: self.limits.messages_per_recipient_hour,
            segments_per_day: self.limits.segments_per_day,
            allowed_destinations: list(&self.limits.allowed_destinations),
            blocked_destinations: list(&self.limits.blocked_destinations),
            allowed_senders: list(&self.limits.allowed_senders),
        }
    }
}

/// Show what organizations may enqueue, and what they have
#[derive(Debug, Args)]
pub(super) struct LimitsArgs {
    /// Only this organization
    organization: Option<String>,
}

/// Pause all apps of an organization: its messages wait
#[derive(Debug, Args)]
pub(super) struct PauseArgs {
    /// The organization
    organization: String,
    /// Why, for whoever looks at it next
    #[arg(long, value_name = "TEXT")]
    reason: Option<String>,
}

/// End the pause of an organization
#[derive(Debug, Args)]
pub(super) struct ResumeArgs {
    /// The organization
    organization: String,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, command: OrganizationCommand) -> anyhow::Result<()> {
    let (organization, done) = match command {
        OrganizationCommand::List => return list(global, terminal).await,
        OrganizationCommand::Limits(args) => return show_limits(global, terminal, &args).await,
        OrganizationCommand::Set(args) => {
            let settings = args.settings();
            if settings == Settings::default() {
                return Err(Usage("nothing to set: give --default-region, --time-zone or a limit".to_owned()).into());
            }
            let client = session::open(global, "organization set").await?;
            organizations::set(&client, &args.organization, &settings).await?;
            (args.organization, "set")
        }
        OrganizationCommand::Pause(args) => {
            let client = session::open(global, "organization pause").await?;
            organizations::pause(&client, &args.organization, args.reason.as_deref()).await?;
            (args.organization, "paused")
        }
        OrganizationCommand::Resume(args) => {
            let client = session::open(global, "organization resume").await?;
            organizations::resume(&client, &args.organization).await?;
            (args.organization, "resumed")
        }
    };
    if terminal.is_json() {
        return terminal.json(&json!({"organization_id": organization, "result": done}));
    }
    terminal.line(&format!("organization {organization} {done}"))
}

async fn list(global: &Global, terminal: &Terminal) -> anyhow::Result<()> {
    let client = session::open(global, "organization list").await?;
    let found = organizations::list(&client).await?;
    if terminal.is_json() {
        return terminal.json(&found);
    }
    if found.is_empty() {
        terminal
            .note("no organizations yet; installing an app makes one: sms-outbox app install ORGANIZATION PROVIDER …");
        return Ok(());
    }
    let rows = found.into_iter().map(|o| {
        let state = if o.paused { format!("paused: {}", or_dash(o.paused_reason)) } else { "active".to_owned() };
        vec![o.organization_id, or_dash(o.default_region), or_dash(o.time_zone), state]
    });
    terminal.table(&["organization", "region", "time zone", "state"], rows.collect())
}

async fn show_limits(global: &Global, terminal: &Terminal, args: &LimitsArgs) -> anyhow::Result<()> {
    let client = session::open(global, "organization limits").await?;
    let found = limits::list(&client, args.organization.as_deref()).await?;
    if terminal.is_json() {
        return terminal.json(&found);
    }
    if found.is_empty() {
        terminal.note("no such organization; sms-outbox organization list shows them");
        return Ok(());
    }
    let headings = [
        "organization",
        "this minute",
        "today",
        "segments today",
        "per recipient",
        "allowed",
        "blocked",
        "senders",
        "suppressed",
    ];
    terminal.table(&headings, found.into_iter().map(cells).collect())
}

fn cells(limits: Limits) -> Vec<String> {
    // Used of limit: 7/60.
    let part = |used: Option<i64>, limit: Option<i64>| match (used, limit) {
        (Some(used), Some(limit)) => format!("{used}/{limit}"),
        _ => or_dash(None::<i64>),
    };
    let list = |entries: Option<Vec<String>>| or_dash(entries.map(|entries| entries.join(",")));
    vec![
        limits.organization_id,
        part(limits.messages_this_minute, limits.messages_per_minute),
        part(limits.messages_today, limits.messages_per_day),
        part(limits.segments_today, limits.segments_per_day),
        or_dash(limits.messages_per_recipient_hour.map(|limit| format!("{limit}/h"))),
        list(limits.allowed_destinations),
        list(limits.blocked_destinations),
        list(limits.allowed_senders),
        limits.suppressed_numbers.to_string(),
    ]
}
