//! `sms-outbox app install` and `app update`.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::{AppArgs, PolicyArgs, done, given_config};
use crate::cli::credentials::{EgressArgs, KeyArgs};
use crate::cli::failure::Usage;
use crate::cli::terminal::Terminal;
use crate::cli::{Global, session};
use crate::outbox::postgres::operator::apps;
use crate::provider::credential::seal_config;
use crate::provider::{Registry, egress};

/// Install an SMS app for an organization, which is made if it is new
///
/// CONFIG is any of: key=value, key=@FILE, @FILE.json, '{"key": …}', or - for JSON on standard input. Other users of the machine
/// can see arguments: give secrets as key=@FILE or on standard input. sms-outbox app providers lists each provider's fields.
#[derive(Debug, Args)]
pub(in crate::cli) struct InstallArgs {
    /// The organization
    organization: String,
    /// The provider, such as taqnyat-sms
    provider: String,
    /// Credentials and options
    #[arg(value_name = "CONFIG")]
    config: Vec<String>,
    /// What people call it [default: the provider's name]
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    store: StoreArgs,
}

/// How credentials are stored, and what is said of addresses.
#[derive(Debug, Args)]
#[command(next_help_heading = "Credentials and addresses")]
struct StoreArgs {
    #[command(flatten)]
    keys: KeyArgs,
    #[command(flatten)]
    egress: EgressArgs,
}

/// Change an app: new credentials, name, order or limits
///
/// CONFIG, where given, replaces the whole configuration, and closes the app's breaker. It is written as for install.
#[derive(Debug, Args)]
pub(in crate::cli) struct UpdateArgs {
    #[command(flatten)]
    app: AppArgs,
    /// Credentials and options, all of them
    #[arg(value_name = "CONFIG")]
    config: Vec<String>,
    /// What people call it
    #[arg(long)]
    name: Option<String>,
    #[command(flatten)]
    policy: PolicyArgs,
    #[command(flatten)]
    store: StoreArgs,
}

pub(super) async fn install(global: &Global, terminal: &Terminal, args: &InstallArgs) -> anyhow::Result<()> {
    let config = checked_config(terminal, &args.organization, &args.provider, &args.config, &args.store)?;
    let known = Registry::new().get(&args.provider).map(|provider| provider.name());
    let name = args.name.as_deref().or(known).unwrap_or(&args.provider);
    let client = session::open(global, "app install").await?;
    let app_id =
        apps::install(&client, &args.organization, &args.provider, name, &config, &args.policy.policy()).await?;
    if terminal.is_json() {
        return terminal
            .json(&json!({"app_id": app_id, "organization_id": args.organization, "provider_slug": args.provider}));
    }
    terminal.line(&format!("app {app_id} installed: {} for organization {}", args.provider, args.organization))?;
    terminal.note(&format!("try it with one real SMS: sms-outbox app test {app_id} --mobile NUMBER --yes"));
    Ok(())
}

pub(super) async fn update(global: &Global, terminal: &Terminal, args: &UpdateArgs) -> anyhow::Result<()> {
    let policy = args.policy.policy();
    if args.config.is_empty() && args.name.is_none() && policy.is_empty() {
        return Err(Usage("nothing to change: give CONFIG, --name, or one of the order and limits".to_owned()).into());
    }
    let client = session::open(global, "app update").await?;
    let mut config = None;
    if !args.config.is_empty() {
        let installed = apps::list(&client, None).await?;
        let Some(app) = installed.into_iter().find(|app| app.app_id == args.app.app_id) else {
            bail!("app_id: there is no installed app {}; see sms-outbox app list", args.app.app_id);
        };
        config = Some(checked_config(terminal, &app.organization_id, &app.provider_slug, &args.config, &args.store)?);
    }
    apps::update(&client, args.app.app_id, args.name.as_deref(), config.as_ref(), &policy).await?;
    done(terminal, args.app.app_id, "updated")
}

/// Reads the configuration, and has the provider check it before the database stores it: an address that is none, a
/// template that does not compile. A provider that this binary does not know is left to the database. What is secret is
/// sealed where there is a key.
fn checked_config(
    terminal: &Terminal,
    organization: &str,
    slug: &str,
    words: &[String],
    store: &StoreArgs,
) -> anyhow::Result<Value> {
    let keys = store.keys.keys()?;
    let given = given_config::read(slug, words)?;
    if !given.visible.is_empty() {
        terminal.warning(&format!(
            "{}: other users of this machine can see arguments, and shells keep them; better give {}=@FILE or JSON on standard input",
            given.visible.join(", "),
            given.visible[0],
        ));
    }
    let mut config = Value::Object(given.config);
    if let Some(provider) = Registry::new().get(slug) {
        provider.open(&config)?;
        warn_of_addresses(terminal, slug, &config, store);
        let done = seal_config(&keys, organization, slug, provider.fields(), &mut config)?;
        // The pretend provider takes any text.
        if !done.plain.is_empty() && slug != "sandbox" {
            terminal.warning(&format!(
                "{}: stored as plain text, for want of a key; see --credential-keys-file, or give env:NAME or file:PATH",
                done.plain.join(", "),
            ));
        }
    }
    Ok(config)
}

/// What workers would refuse at each attempt is better said now; they may be started with more than is known here.
fn warn_of_addresses(terminal: &Terminal, slug: &str, config: &Value, store: &StoreArgs) {
    for (field, to_loopback) in [("url", false), ("base_url", true)] {
        let url = config.get(field).and_then(Value::as_str).and_then(|text| text.parse().ok());
        if url.is_some_and(|url| !egress::may_begin(&url, to_loopback, &store.egress.allowed())) {
            terminal.warning(&format!(
                "{field}: workers refuse {slug} apps that lead into their own network, unless they are started with --allow-address",
            ));
        }
    }
}
