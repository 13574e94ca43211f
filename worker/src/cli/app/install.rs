//! `sms-outbox app install` and `app update`.

use anyhow::bail;
use clap::Args;
use serde_json::{Value, json};

use super::{AppArgs, PolicyArgs, done, given_config};
use crate::cli::failure::Usage;
use crate::cli::terminal::Terminal;
use crate::cli::{Global, session};
use crate::outbox::postgres::operator::apps;
use crate::provider::Registry;

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
}

pub(super) async fn install(global: &Global, terminal: &Terminal, args: &InstallArgs) -> anyhow::Result<()> {
    let config = checked_config(terminal, &args.provider, &args.config)?;
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
        config = Some(checked_config(terminal, &app.provider_slug, &args.config)?);
    }
    apps::update(&client, args.app.app_id, args.name.as_deref(), config.as_ref(), &policy).await?;
    done(terminal, args.app.app_id, "updated")
}

/// Reads the configuration, and has the provider check it before the database stores it: an address that is none, a
/// template that does not compile. A provider that this binary does not know is left to the database.
fn checked_config(terminal: &Terminal, slug: &str, words: &[String]) -> anyhow::Result<Value> {
    let given = given_config::read(slug, words)?;
    if !given.visible.is_empty() {
        terminal.warning(&format!(
            "{}: other users of this machine can see arguments, and shells keep them; better give {}=@FILE or JSON on standard input",
            given.visible.join(", "),
            given.visible[0],
        ));
    }
    let config = Value::Object(given.config);
    if let Some(provider) = Registry::new().get(slug) {
        provider.open(&config)?;
    }
    Ok(config)
}
