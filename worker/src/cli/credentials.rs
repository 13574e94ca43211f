//! Flags that several commands share: the keys of sealed credentials, and where requests may go.

use std::convert::Infallible;
use std::path::PathBuf;

use anyhow::Context;
use clap::Args;
use secrecy::{ExposeSecret, SecretString};

use super::failure::Usage;
use crate::provider::egress::Networks;
use crate::provider::seal::SealingKeys;

/// The keys of sealed credentials.
#[derive(Debug, Args)]
pub(super) struct KeyArgs {
    /// File with the keys of sealed credentials, one ID:BASE64 a line: the first seals, all open
    #[arg(long, env = "SMS_OUTBOX_CREDENTIAL_KEYS_FILE", value_name = "FILE")]
    credential_keys_file: Option<PathBuf>,
    /// The keys themselves, divided by lines or commas: for the environment, where no file can be had
    #[arg(long, env = "SMS_OUTBOX_CREDENTIAL_KEYS", value_name = "KEYS", hide = true, value_parser = secret)]
    credential_keys: Option<SecretString>,
}

fn secret(text: &str) -> Result<SecretString, Infallible> {
    Ok(text.into())
}

impl KeyArgs {
    /// The keys; none where none are given.
    pub(super) fn keys(&self) -> anyhow::Result<SealingKeys> {
        let file = self.credential_keys_file.as_ref().filter(|path| !path.as_os_str().is_empty());
        let text = self.credential_keys.as_ref().filter(|text| !text.expose_secret().is_empty());
        match (file, text) {
            (None, None) => Ok(SealingKeys::default()),
            (Some(_), Some(_)) => Err(Usage(
                "credential_keys: give SMS_OUTBOX_CREDENTIAL_KEYS or credential_keys_file, not both".to_owned(),
            )
            .into()),
            (Some(path), None) => {
                let name = path.display();
                let text = std::fs::read_to_string(path)
                    .with_context(|| format!("credential_keys_file: {name} cannot be read"))?;
                SealingKeys::parse(&text).with_context(|| format!("credential_keys_file: {name}"))
            }
            (None, Some(text)) => {
                SealingKeys::parse(&text.expose_secret().replace(',', "\n")).context("credential_keys")
            }
        }
    }
}

/// Where requests may go.
#[derive(Debug, Args)]
pub(super) struct EgressArgs {
    /// Networks of this machine's surroundings that requests to providers may go to, such as 10.1.0.0/16,127.0.0.1
    #[arg(long, env = "SMS_OUTBOX_ALLOW_ADDRESS", value_name = "CIDR")]
    allow_address: Option<Networks>,
}

impl EgressArgs {
    pub(super) fn allowed(&self) -> Networks {
        self.allow_address.clone().unwrap_or_default()
    }
}
