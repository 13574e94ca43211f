//! What the story needs: a server, a database, the pretend providers, the installed apps, a worker.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use sms_outbox_tests::sandbox::Acceptance;
use sms_outbox_tests::{Api, Cluster, Database, Major, Sandbox, Worker};

use crate::shop::{self, Order, Shop};
use crate::terminal::Terminal;

/// The shortest that there is: nobody wants to wait two minutes for the lease of a killed worker.
pub(crate) const LEASE: &str = "10s";
/// Fits into the lease.
const HTTP_TIMEOUT: &str = "5s";
/// So that a killed worker holds so many messages, and no more.
pub(crate) const CONCURRENCY: usize = 2;

/// What the database knows of the providers' credentials: where a worker finds them.
const CREDENTIAL: &str = "env:DEMO_CREDENTIAL";

/// Everything that runs.
pub(crate) struct Stage<'a> {
    pub(crate) terminal: &'a Terminal,
    pub(crate) shop: Shop,
    /// In the order of their end: first who uses the others.
    pub(crate) workers: Vec<Worker>,
    pub(crate) api: Api,
    /// The key of the web front, for riyadh.
    pub(crate) key: String,
    /// The gateway of taqnyat-sms, which goes down.
    pub(crate) taqnyat: Sandbox,
    /// The gateways of all others.
    pub(crate) others: Sandbox,
    pub(crate) database: Database,
}

/// How the database says that a message stands.
#[derive(Debug)]
pub(crate) struct Standing {
    pub(crate) status: String,
    pub(crate) slug: Option<String>,
    pub(crate) provider_message_id: Option<String>,
}

impl<'a> Stage<'a> {
    /// Starts everything but the first worker's rivals.
    pub(crate) async fn build(terminal: &'a Terminal) -> Result<Self> {
        terminal.heading("sms_outbox: a shop with two branches sends its SMS");
        let started = Instant::now();
        let cluster = Cluster::options(Major::V18).start().await?;
        let database = Database::create(&cluster, "shop").await?;
        database.sql(shop::SCHEMA).await?;
        database.sql(&format!("ALTER DATABASE shop SET sms_outbox.lease_timeout = '{LEASE}'")).await?;
        let version: String = database.value("SHOW server_version", &[]).await?;
        terminal.does("server", format!("PostgreSQL {version} of its own, CREATE EXTENSION sms_outbox"));

        let (taqnyat, others) = (Sandbox::start().await?, Sandbox::start().await?);
        terminal.does("providers", "2 x 'sms-outbox sandbox': one speaks as Taqnyat, one as all others");
        for (branch, region, zone) in [("riyadh", "SA", "Asia/Riyadh"), ("london", "GB", "Europe/London")] {
            let set = format!("SELECT sms_outbox.set_organization('{branch}', '{region}', '{zone}')");
            database.psql_as("operator", &set).await?;
        }
        for (branch, slug, position, config) in apps(&taqnyat, &others) {
            let install = format!(
                "SELECT sms_outbox.install_app('{branch}', '{slug}', '{slug} of {branch}', '{config}', \"position\" => {position})"
            );
            database.psql_as("operator", &install).await?;
        }
        terminal.does("riyadh", "its apps in order: taqnyat-sms, mora-sms, sandbox");
        terminal.does("london", "its apps in order: twilio-sms, sandbox, mora-sms");
        let api = Api::start(&database).await?;
        let key = Api::key(&database, "riyadh", &["enqueue", "read", "operate"]).await?;
        let mut stage =
            Self { terminal, shop: Shop::default(), workers: Vec::new(), api, key, taqnyat, others, database };
        stage.start_worker("worker-1").await?;
        terminal.does("worker-1", format!("'sms-outbox worker', {CONCURRENCY} requests at a time"));
        terminal.does("api", "'sms-outbox api', and a key for riyadh");
        terminal.sees("all is up", started.elapsed());
        Ok(stage)
    }

    /// Starts a worker process.
    pub(crate) async fn start_worker(&mut self, name: &str) -> Result<()> {
        let worker = Worker::options(&self.database)?
            .name(name)
            .set("SMS_OUTBOX_HTTP_TIMEOUT", HTTP_TIMEOUT)
            // So that a killed worker's last word about itself is fresh.
            .set("SMS_OUTBOX_HEARTBEAT_INTERVAL", "1s")
            .set("SMS_OUTBOX_CONCURRENCY", &CONCURRENCY.to_string())
            .set("DEMO_CREDENTIAL", "demo")
            .start()
            .await?;
        self.workers.push(worker);
        Ok(())
    }

    /// Runs psql as the shop would, commits an order and shows it.
    pub(crate) async fn commit(&mut self, order: &Order) -> Result<(String, Instant)> {
        self.terminal.does("psql", order.shown("COMMIT"));
        let answer = self.shop.commit(&self.database, order).await?;
        ensure!(
            !answer.replay && answer.status == "pending",
            "expected a new pending message for order {}, got {answer:?}",
            order.number
        );
        Ok((answer.id, Instant::now()))
    }

    /// Waits until a message is sent, by the app of `slug` and over its wire, once.
    pub(crate) async fn wait_sent(&self, id: &str, order: &Order, slug: &str) -> Result<Standing> {
        let what = format!("order {} is sent by {slug}", order.number);
        let sent = async || {
            Ok(Some(self.standing(id).await?)
                .filter(|standing| standing.status != "pending" && standing.status != "sending"))
        };
        let standing = self.database.wait_for(&what, sent).await?;
        ensure!(
            standing.status == "sent" && standing.slug.as_deref() == Some(slug),
            "expected: {what}; seen: {standing:?}"
        );
        let accepted = self.accepted(order)?;
        let wires: Vec<&str> = accepted.iter().map(|one| one.provider.as_str()).collect();
        ensure!(
            wires == [slug],
            "expected: {slug} accepted order {} once; seen in the providers' journals: {wires:?}",
            order.number
        );
        Ok(standing)
    }

    /// How a message stands.
    pub(crate) async fn standing(&self, id: &str) -> Result<Standing> {
        let query = "SELECT dispatch_status::text, provider_slug, provider_message_id
            FROM sms_outbox.outbox WHERE id = $1::text::sms_outbox.message_id";
        let row = self
            .database
            .admin()
            .query_opt(query, &[&id])
            .await?
            .with_context(|| format!("{id} is not in the outbox"))?;
        Ok(Standing { status: row.try_get(0)?, slug: row.try_get(1)?, provider_message_id: row.try_get(2)? })
    }

    /// The attempts of a message in words: `taqnyat-sms: not_sent (connection_refused), mora-sms: accepted`.
    pub(crate) async fn attempts(&self, id: &str) -> Result<String> {
        let query = "SELECT coalesce(string_agg(format('%s: %s%s', provider_slug, status, ' (' || error_code || ')'), ', ' ORDER BY attempt), '')
            FROM sms_outbox.attempts WHERE id = $1::text::sms_outbox.message_id";
        self.database.value(query, &[&id]).await
    }

    /// What the providers accepted of an order.
    pub(crate) fn accepted(&self, order: &Order) -> Result<Vec<Acceptance>> {
        let mut accepted = self.taqnyat.journal()?;
        accepted.extend(self.others.journal()?);
        accepted.retain(|one| digits(&one.to) == digits(order.to) && one.body == order.text);
        Ok(accepted)
    }

    /// How many requests for the number of an order reached a provider, whatever it did with them.
    pub(crate) async fn requests(&self, order: &Order) -> Result<usize> {
        let mut count = 0;
        for sandbox in [&self.taqnyat, &self.others] {
            let is_its = |request: &&Value| request["to"].as_str().is_some_and(|to| digits(to) == digits(order.to));
            count += sandbox.requests().await?.iter().filter(is_its).count();
        }
        Ok(count)
    }
}

/// A number as all journals can write it.
pub(crate) fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}

/// Branch, slug, position and configuration of each app.
fn apps(taqnyat: &Sandbox, others: &Sandbox) -> Vec<(&'static str, &'static str, i32, Value)> {
    let at = |sandbox: &Sandbox, wire: &str| format!("{}/{wire}", sandbox.url());
    let mora = json!({"api_key": CREDENTIAL, "username": "shop", "sender": "MyShop", "base_url": at(others, "mora")});
    let own = |branch: &str| json!({"token": branch, "sender": "MyShop", "base_url": at(others, "sandbox")});
    let twilio = json!({
        "account_sid": format!("AC{}", "0123456789abcdef".repeat(2)),
        "auth_token": CREDENTIAL,
        "sender": "MyShop",
        "base_url": at(others, "twilio"),
    });
    vec![
        (
            "riyadh",
            "taqnyat-sms",
            10,
            json!({"bearer_token": CREDENTIAL, "sender": "MyShop", "base_url": at(taqnyat, "taqnyat")}),
        ),
        ("riyadh", "mora-sms", 20, mora.clone()),
        ("riyadh", "sandbox", 30, own("riyadh")),
        ("london", "twilio-sms", 10, twilio),
        ("london", "sandbox", 20, own("london")),
        ("london", "mora-sms", 30, mora),
    ]
}
