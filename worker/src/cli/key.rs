//! `sms-outbox key`.

use clap::{Args, Subcommand, ValueEnum};
use jiff::Timestamp;
use serde_json::json;

use super::terminal::{Terminal, or_dash, time};
use super::when::{self, When};
use super::{Global, session};
use crate::outbox::postgres::operator::keys::{self, Key};

const PREFIX: &str = "smsk_";

/// Make, list and revoke the keys by which applications call the HTTP API
#[derive(Debug, Subcommand)]
pub(super) enum KeyCommand {
    Create(CreateArgs),
    List(ListArgs),
    Revoke(RevokeArgs),
}

/// Make a key for an organization; it is shown this once
///
/// The key goes to standard output, everything else to standard error: sms-outbox key create shop web > web.key
#[derive(Debug, Args)]
pub(super) struct CreateArgs {
    /// The organization that its bearer acts for
    organization: String,
    /// What it is for, for whoever looks at the list
    name: String,
    /// What it allows
    #[arg(long, value_name = "LIST", value_delimiter = ',', value_enum, default_value = "enqueue,read")]
    scopes: Vec<KeyScope>,
    /// When it ends: 2027-01-01, or +2160h from now [default: never]
    #[arg(long, value_name = "TIME", value_parser = when::parse, allow_hyphen_values = true)]
    expires: Option<When>,
}

/// What a key allows.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum KeyScope {
    /// Queue messages.
    Enqueue,
    /// Look at messages.
    Read,
    /// Cancel and retry.
    Operate,
}

/// List keys: what they allow, when they were used, never the keys themselves
#[derive(Debug, Args)]
pub(super) struct ListArgs {
    /// Only this organization
    #[arg(long, short = 'g', value_name = "ID")]
    organization: Option<String>,
}

/// Revoke a key: the next request with it is refused
#[derive(Debug, Args)]
pub(super) struct RevokeArgs {
    /// The key as the list shows it, such as smsk_3k9x0a1b2c3d; a whole key that leaked will do too
    #[arg(value_name = "KEY", value_parser = key_id)]
    key_id: String,
}

/// The public id in any writing of a key. The rest of a whole key is dropped, and repeated nowhere.
fn key_id(text: &str) -> Result<String, String> {
    let text = text.strip_prefix(PREFIX).unwrap_or(text);
    let id = text.split('_').next().unwrap_or_default();
    let fits = id.len() == 12 && id.bytes().all(|b| b.is_ascii_digit() || b.is_ascii_lowercase());
    if fits { Ok(id.to_owned()) } else { Err("not a key; write it as in: sms-outbox key list".to_owned()) }
}

pub(super) async fn run(global: &Global, terminal: &Terminal, command: KeyCommand) -> anyhow::Result<()> {
    match command {
        KeyCommand::Create(args) => create(global, terminal, &args).await,
        KeyCommand::List(args) => list(global, terminal, &args).await,
        KeyCommand::Revoke(args) => revoke(global, terminal, &args).await,
    }
}

async fn create(global: &Global, terminal: &Terminal, args: &CreateArgs) -> anyhow::Result<()> {
    let words = args.scopes.iter().filter_map(|scope| scope.to_possible_value());
    let scopes: Vec<String> = words.map(|word| word.get_name().to_owned()).collect();
    let client = session::open(global, "key create").await?;
    let expires_at = when::moment(args.expires, &client).await?;
    let key = keys::create(&client, &args.organization, &args.name, &scopes, expires_at).await?;
    if terminal.is_json() {
        let id = key_id(&key).unwrap_or_default();
        return terminal.json(&json!({
            "key": key, "key_id": id, "organization_id": args.organization, "name": args.name, "scopes": scopes,
            "expires_at": expires_at,
        }));
    }
    terminal.line(&key)?;
    terminal.note("this key is not shown again: the database keeps only its digest");
    Ok(())
}

async fn list(global: &Global, terminal: &Terminal, args: &ListArgs) -> anyhow::Result<()> {
    let client = session::open(global, "key list").await?;
    let found = keys::list(&client, args.organization.as_deref()).await?;
    if terminal.is_json() {
        return terminal.json(&found);
    }
    if found.is_empty() {
        terminal.note("no keys; make one: sms-outbox key create ORGANIZATION NAME");
        return Ok(());
    }
    let headings = ["key", "organization", "name", "scopes", "state", "created", "expires", "last used"];
    terminal.table(&headings, found.into_iter().map(cells).collect())
}

fn cells(key: Key) -> Vec<String> {
    let shown = |at: Option<Timestamp>| or_dash(at.map(time));
    let state = match key.revoked_at {
        Some(at) => format!("revoked {}", time(at)),
        None => key.state,
    };
    vec![
        key.prefix,
        key.organization_id,
        key.name,
        key.scopes.join(" "),
        state,
        time(key.created_at),
        shown(key.expires_at),
        shown(key.last_used_at),
    ]
}

async fn revoke(global: &Global, terminal: &Terminal, args: &RevokeArgs) -> anyhow::Result<()> {
    let client = session::open(global, "key revoke").await?;
    keys::revoke(&client, &args.key_id).await?;
    if terminal.is_json() {
        return terminal.json(&json!({"key_id": args.key_id, "result": "revoked"}));
    }
    terminal.line(&format!("key {PREFIX}{} revoked", args.key_id))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_named_by_any_of_its_writings() {
        let whole = format!("smsk_0123456789az_{}", "0".repeat(64));
        for writing in ["0123456789az", "smsk_0123456789az", &whole] {
            assert_eq!(key_id(writing).as_deref(), Ok("0123456789az"));
        }
        for wrong in ["", "smsk_", "0123456789AZ", "0123456789a", "r01jd0000000000000000000000"] {
            assert!(key_id(wrong).is_err(), "{wrong}");
        }
    }
}
