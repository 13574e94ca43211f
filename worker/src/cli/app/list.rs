//! `sms-outbox app list` and `app providers`.

use std::collections::BTreeMap;

use clap::Args;

use crate::cli::failure::Usage;
use crate::cli::terminal::{Terminal, or_dash};
use crate::cli::{Global, session};
use crate::outbox::postgres::operator::apps::{self, App};
use crate::provider::{Registry, catalog};

/// List installed apps, in the order in which they are tried
#[derive(Debug, Args)]
pub(in crate::cli) struct ListArgs {
    /// Only this organization
    #[arg(long, short = 'g', value_name = "ID")]
    organization: Option<String>,
}

/// List the providers that this binary knows, or the fields of one
#[derive(Debug, Args)]
pub(in crate::cli) struct ProvidersArgs {
    /// The provider
    provider: Option<String>,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: &ListArgs) -> anyhow::Result<()> {
    let client = session::open(global, "app list").await?;
    let found = apps::list(&client, args.organization.as_deref()).await?;
    if terminal.is_json() {
        return terminal.json(&found);
    }
    if found.is_empty() {
        terminal.note(
            "no app is installed; see sms-outbox app providers, then: sms-outbox app install ORGANIZATION PROVIDER …",
        );
        return Ok(());
    }
    let headings = [
        "app",
        "organization",
        "provider",
        "name",
        "position",
        "weight",
        "in flight",
        "rate",
        "unclear",
        "state",
        "config",
    ];
    terminal.table(&headings, found.into_iter().map(row).collect())
}

fn row(app: App) -> Vec<String> {
    let (state, rate) = (state(&app), rate(&app));
    vec![
        app.app_id.to_string(),
        app.organization_id,
        app.provider_slug,
        app.name,
        app.position.to_string(),
        app.weight.to_string(),
        format!("max {}", app.max_in_flight),
        rate,
        if app.resend_unclear { "sent again" } else { "kept" }.to_owned(),
        state,
        config(&app.config_set, &app.credentials),
    ]
}

/// `20/s`, `20 segments/s`, `20/s, burst 40`.
fn rate(app: &App) -> String {
    let Some(rate) = app.rate else { return "-".to_owned() };
    let unit = if app.rate_unit == "messages" { String::new() } else { format!(" {}", app.rate_unit) };
    let burst = app.burst.map_or_else(String::new, |burst| format!(", burst {burst}"));
    format!("{rate}{unit}/s{burst}")
}

/// Which fields are set, and how secret ones hold their credential.
fn config(set: &[String], credentials: &BTreeMap<String, String>) -> String {
    let held = |field: &str| -> Option<Vec<&str>> {
        let of_it = credentials.iter().filter(|(name, _)| name.split('.').next() == Some(field));
        let mut words: Vec<&str> = of_it.map(|(_, held)| held.as_str()).collect();
        words.sort_unstable();
        words.dedup();
        (!words.is_empty()).then_some(words)
    };
    let field = |field: &String| match held(field) {
        Some(words) => format!("{field} ({})", words.join(", ")),
        None => field.clone(),
    };
    set.iter().map(field).collect::<Vec<_>>().join(" ")
}

/// The state with its reason.
pub(in crate::cli) fn state(app: &App) -> String {
    match (&app.paused, &app.paused_reason) {
        (true, Some(reason)) => format!("paused: {reason}"),
        (true, None) => "paused".to_owned(),
        (false, _) => app.state.clone(),
    }
}

pub(super) fn providers(terminal: &Terminal, args: &ProvidersArgs) -> anyhow::Result<()> {
    let registry = Registry::new();
    let Some(slug) = &args.provider else {
        if terminal.is_json() {
            return terminal.json(&catalog());
        }
        let rows = registry.iter().map(|provider| {
            let required = provider.fields().iter().filter(|field| field.required).map(|field| field.name);
            vec![provider.slug().to_owned(), provider.name().to_owned(), required.collect::<Vec<_>>().join(" ")]
        });
        return terminal.table(&["provider", "name", "needs"], rows.collect());
    };
    let Some(provider) = registry.get(slug) else {
        let known: Vec<&str> = registry.iter().map(|provider| provider.slug()).collect();
        return Err(Usage(format!("provider: there is no {slug}; known are {}", known.join(", "))).into());
    };
    if terminal.is_json() {
        let all = catalog();
        let entry = all.as_array().and_then(|all| all.iter().find(|entry| entry["slug"] == *provider.slug()));
        return terminal.json(&entry);
    }
    let rows = provider.fields().iter().map(|field| {
        let mark = |is: bool, word: &str| or_dash(is.then_some(word));
        vec![
            field.name.to_owned(),
            field.kind.word().to_owned(),
            mark(field.required, "required"),
            mark(field.secret, "secret"),
            field.description.to_owned(),
        ]
    });
    terminal.table(&["field", "type", "", "", "description"], rows.collect())
}
