//! Apps of every provider, all of which send to the shop's pretend one.

use anyhow::Result;
use serde_json::{Value, json};

use super::Shop;

/// The providers that the worker knows.
pub(crate) const SLUGS: [&str; 5] = ["taqnyat-sms", "mora-sms", "twilio-sms", "generic-http", "sandbox"];

/// The credential by which the pretend provider names the account of each.
pub(crate) fn account(slug: &str) -> String {
    match slug {
        "twilio-sms" => format!("AC{}", "0a".repeat(16)),
        other => format!("{other}-account"),
    }
}

/// The configuration of an app of this provider that sends to `url`.
pub(crate) fn config(slug: &str, url: &str) -> Value {
    let account = account(slug);
    match slug {
        "taqnyat-sms" => json!({"bearer_token": account, "sender": "MyShop", "base_url": format!("{url}/taqnyat")}),
        "mora-sms" => {
            json!({"username": account, "api_key": "key", "sender": "MyShop", "base_url": format!("{url}/mora")})
        }
        "twilio-sms" => {
            json!({"account_sid": account, "auth_token": "secret", "sender": "+15005550006", "base_url": format!("{url}/twilio")})
        }
        "generic-http" => json!({
            "url": format!("{url}/generic/send"),
            "headers": {"Authorization": "Bearer {{ secrets.token }}"},
            "secrets": {"token": account},
            "body": {"to": "{{ mobile }}", "text": "{{ message }}", "from": "{{ sender }}", "reference": "{{ reference }}"},
            "success": {"status": [200], "pointer": "/status", "values": ["ok"]},
            "message_id": "/id",
            "error_code": "/code",
            "outcomes": {"bad_recipient": "refused_recipient", "bad_text": "refused_content", "bad_key": "refused_account",
                         "no_balance": "refused_account", "slow_down": "throttled"},
            "sender": "MyShop",
        }),
        _ => json!({"token": account, "sender": "MyShop", "base_url": format!("{url}/sandbox")}),
    }
}

impl Shop {
    /// Installs an app of any provider for organization `shop`; `more` are further arguments: `"position" => 1`.
    pub(crate) async fn install(&self, slug: &str, more: &str) -> Result<i64> {
        self.install_for("shop", slug, config(slug, self.sandbox.url()), more).await
    }

    /// Installs an app of the `sandbox` provider with an account of its own.
    pub(crate) async fn install_account(&self, token: &str, more: &str) -> Result<i64> {
        self.install_for("shop", "sandbox", self.token(token), more).await
    }

    /// Installs an app whose provider refuses connections.
    pub(crate) async fn install_dead(&self, more: &str) -> Result<i64> {
        // Port 1 is privileged, and nobody listens there.
        self.install_for("shop", "sandbox", json!({"token": "dead", "base_url": "http://127.0.0.1:1"}), more).await
    }

    /// Installs any app.
    pub(crate) async fn install_for(&self, organization: &str, slug: &str, config: Value, more: &str) -> Result<i64> {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let install = format!("SELECT sms_outbox.install_app($1, $2, $2, $3{more})");
        self.database.value(&install, &[&organization, &slug, &config]).await
    }

    /// Configuration of an app of the `sandbox` provider with this account.
    pub(crate) fn token(&self, token: &str) -> Value {
        json!({"token": token, "base_url": format!("{}/sandbox", self.sandbox.url())})
    }
}
