//! `sms-outbox app seal`.

use anyhow::{Context, bail};
use clap::Args;
use serde_json::json;

use crate::cli::credentials::KeyArgs;
use crate::cli::failure::Usage;
use crate::cli::terminal::{Terminal, count};
use crate::cli::{Global, session};
use crate::outbox::postgres::operator::apps;
use crate::provider::Registry;
use crate::provider::credential::seal_config;
use crate::provider::seal::{SealingKeys, is_id};

/// Seal the credentials of installed apps, or seal them again with the newest key
///
/// Without --yes nothing is written. References and what the newest key has sealed already stay as they are, and no value
/// is shown. Log in as a member of sms_outbox_operator and of sms_outbox_worker, to which alone the database gives credentials.
#[derive(Debug, Args)]
pub(in crate::cli) struct SealArgs {
    /// Only apps of this organization
    #[arg(long, short = 'g', value_name = "ID")]
    organization: Option<String>,
    /// Do it, rather than count
    #[arg(long)]
    yes: bool,
    /// Print a new key as a line for the file of keys, and do nothing else [default id: by chance]
    #[arg(long, value_name = "KEY_ID", num_args = 0..=1, default_missing_value = "", conflicts_with_all = ["organization", "yes"])]
    new_key: Option<String>,
    #[command(flatten)]
    keys: KeyArgs,
}

pub(super) async fn run(global: &Global, terminal: &Terminal, args: &SealArgs) -> anyhow::Result<()> {
    if let Some(id) = &args.new_key {
        return new_key(terminal, id);
    }
    let keys = args.keys.keys()?;
    let Some(newest) = keys.newest() else {
        let cure = "credential_keys_file: no key is given; make one: sms-outbox app seal --new-key > FILE, then name FILE \
                    in --credential-keys-file here and for all workers";
        return Err(Usage(cure.to_owned()).into());
    };
    let client = session::open(global, "app seal").await?;
    let (mut apps, mut sealed, mut resealed) = (0, 0, 0);
    for app in apps::credentials(&client, args.organization.as_deref()).await? {
        let fields = Registry::new().get(&app.provider_slug).map(|provider| provider.fields());
        let Some(fields) = fields else {
            terminal.warning(&format!("app {} is left out: its provider is unknown here", app.app_id));
            continue;
        };
        let mut config = app.config.clone();
        let done = seal_config(&keys, &app.organization_id, &app.provider_slug, fields, &mut config)
            .with_context(|| format!("app {}", app.app_id))?;
        if done.changed.is_empty() {
            continue;
        }
        apps += 1;
        sealed += i64::try_from(done.sealed.len())?;
        resealed += i64::try_from(done.resealed.len())?;
        if args.yes && !apps::replace_credentials(&client, &app, &done.changed.into()).await? {
            bail!("app {} was changed meanwhile; run this again", app.app_id);
        }
    }
    if terminal.is_json() {
        return terminal
            .json(&json!({"apps": apps, "sealed": sealed, "resealed": resealed, "key": newest, "done": args.yes}));
    }
    let (verb, all) = (if args.yes { "sealed" } else { "would seal" }, count(sealed + resealed, "credential"));
    let apps_changed = count(apps, "app");
    terminal.line(&format!(
        "{verb} {all} ({sealed} plain, {resealed} of older keys) with key {newest}, in {apps_changed}"
    ))?;
    if !args.yes && apps > 0 {
        terminal.note("nothing is written yet; all workers must have the key first, then: sms-outbox app seal --yes");
    }
    Ok(())
}

fn new_key(terminal: &Terminal, id: &str) -> anyhow::Result<()> {
    let chance = uuid::Uuid::new_v4().simple().to_string();
    let made = format!("k{}", &chance[..8]);
    let id = if id.is_empty() { &made } else { id };
    if !is_id(id) {
        return Err(Usage("new_key: an id is 1 to 32 of A-Z a-z 0-9 _ -".to_owned()).into());
    }
    terminal.raw(format!("{}\n", SealingKeys::generate(id)).as_bytes())
}
