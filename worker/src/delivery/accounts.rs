//! Apps as they were opened last: checking a configuration and parsing its address was a twentieth of the worker's CPU, and
//! the next attempt needs the same.

use std::collections::HashMap;
use std::sync::{Arc, Mutex, PoisonError};

use serde_json::Value;

use crate::message::AppId;
use crate::provider::{Account, ConfigError, Provider, config};

/// Apps that are kept; with one more all are opened anew.
const MOST_KEPT: usize = 1000;

/// An app with its configuration as it was at some attempt.
pub(super) struct Opened {
    slug: &'static str,
    config: Value,
    /// What the configuration holds that must not be kept elsewhere.
    pub(super) secrets: Vec<String>,
    pub(super) account: Box<dyn Account>,
}

/// The apps that attempts were made by.
#[derive(Default)]
pub(super) struct Accounts(Mutex<HashMap<AppId, Arc<Opened>>>);

impl Accounts {
    /// The app with this configuration, credentials resolved: the one that was kept, where that is the same.
    pub(super) fn open(&self, app: AppId, provider: &dyn Provider, config: &Value) -> Result<Arc<Opened>, ConfigError> {
        let slug = provider.slug();
        let mut kept = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(known) = kept.get(&app).filter(|known| known.slug == slug && known.config == *config) {
            return Ok(known.clone());
        }
        let account = provider.open(config)?;
        let secrets = config::secrets(provider.fields(), config).into_iter().map(str::to_owned).collect();
        let opened = Arc::new(Opened { slug, config: config.clone(), secrets, account });
        if kept.len() >= MOST_KEPT {
            kept.clear();
        }
        kept.insert(app, opened.clone());
        Ok(opened)
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::provider::sandbox::Sandbox;

    #[test]
    fn an_app_is_opened_anew_only_where_its_configuration_changed() {
        let accounts = Accounts::default();
        let open = |app, token| accounts.open(AppId(app), &Sandbox, &json!({"token": token})).unwrap();
        let first = open(1, "one");
        assert!(Arc::ptr_eq(&first, &open(1, "one")));
        let changed = open(1, "two");
        assert_eq!((first.secrets.as_slice(), changed.secrets.as_slice()), (&["one".into()][..], &["two".into()][..]));
        assert!(!Arc::ptr_eq(&changed, &open(2, "two")));
        assert!(accounts.open(AppId(1), &Sandbox, &json!({})).is_err());
        assert!(Arc::ptr_eq(&changed, &open(1, "two")), "a faulty one is not kept");
        for app in 3..3 + MOST_KEPT as i64 {
            open(app, "one");
        }
        assert!(accounts.0.lock().unwrap().len() <= MOST_KEPT);
    }
}
