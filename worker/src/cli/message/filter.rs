//! Which messages are meant, where no ids are given.

use clap::Args;
use serde_json::{Map, Value, json};
use tokio_postgres::Client;

use super::list::status;
use crate::cli::{when, when::When};
use crate::message::{Certainty, DispatchStatus};

/// Conditions that all hold.
#[derive(Debug, Default, PartialEq, Args)]
#[command(next_help_heading = "Filter")]
pub(in crate::cli) struct FilterArgs {
    /// Of this organization
    #[arg(long, short = 'g', value_name = "ID", conflicts_with = "ids")]
    organization: Option<String>,
    /// With this status
    #[arg(long, short, value_name = "STATUS", value_parser = status, conflicts_with = "ids")]
    status: Option<DispatchStatus>,
    /// To this number
    #[arg(long, value_name = "NUMBER", conflicts_with = "ids")]
    mobile: Option<String>,
    /// Pinned to this provider
    #[arg(long, value_name = "SLUG", conflicts_with = "ids")]
    provider: Option<String>,
    /// Tried by this app; where several tried, the one that most likely sent it
    #[arg(long, value_name = "APP", conflicts_with = "ids")]
    app: Option<i64>,
    /// That app's attempt ended with this error code
    #[arg(long, value_name = "CODE", conflicts_with = "ids")]
    error_code: Option<String>,
    /// That attempt is so sure to have sent it: not_sent, unknown, possible, likely
    #[arg(long, value_name = "WORD", value_parser = certainty, conflicts_with = "ids")]
    certainty: Option<Certainty>,
    /// With this priority
    #[arg(long, value_name = "N", conflicts_with = "ids")]
    priority: Option<i32>,
    /// Enqueued after this time, such as -2h or '2026-11-24 09:00'
    #[arg(long, value_name = "TIME", value_parser = when::parse, conflicts_with = "ids", allow_hyphen_values = true)]
    created_after: Option<When>,
    /// Enqueued before this time
    #[arg(long, value_name = "TIME", value_parser = when::parse, conflicts_with = "ids", allow_hyphen_values = true)]
    created_before: Option<When>,
}

impl FilterArgs {
    /// Whether it says nothing.
    pub(super) fn is_empty(&self) -> bool {
        *self == Self::default()
    }

    /// As the database takes it.
    pub(super) async fn json(&self, client: &Client) -> anyhow::Result<Map<String, Value>> {
        let created_after = when::moment(self.created_after, client).await?;
        let created_before = when::moment(self.created_before, client).await?;
        let pairs = [
            ("organization_id", json!(self.organization)),
            ("dispatch_status", json!(self.status)),
            ("mobile", json!(self.mobile)),
            ("preferred_provider_slug", json!(self.provider)),
            ("organization_app_id", json!(self.app)),
            ("error_code", json!(self.error_code)),
            ("certainty", json!(self.certainty)),
            ("priority", json!(self.priority)),
            ("created_after", json!(created_after)),
            ("created_before", json!(created_before)),
        ];
        Ok(pairs
            .into_iter()
            .filter(|(_, value)| !value.is_null())
            .map(|(key, value)| (key.to_owned(), value))
            .collect())
    }
}

fn certainty(word: &str) -> Result<Certainty, String> {
    Certainty::from_word(word).ok_or_else(|| {
        let words: Vec<&str> = Certainty::ALL.iter().map(|certainty| certainty.word()).collect();
        format!("no such certainty; there are {}", words.join(", "))
    })
}
