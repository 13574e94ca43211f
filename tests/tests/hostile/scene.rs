//! The organization that is attacked, who attacks it, and with what.

use anyhow::Result;
use sms_outbox_tests::{Major, Queue};
use tokio_postgres::{Client, SimpleQueryMessage};

/// In every text of the victim's, and in nothing else.
pub(crate) const MARK: &str = "Q7VICTIM";
pub(crate) const VICTIM: &str = "victim.Q7VICTIM";
pub(crate) const MOBILE: &str = "0557654321";
/// The end of the victim's number, in whatever form.
pub(crate) const DIGITS: &str = "57654321";

/// Calls with what is the victim's in the place of `ID`, `ORG`, `KEY`, `MOBILE`, `APP` and `SECRET` (the id of an API key).
pub(crate) const PROBES: &[&str] = &[
    "SELECT * FROM sms_outbox_enqueue('MOBILE', 'x', organization_id => 'ORG')",
    "SELECT * FROM sms_outbox_enqueue('MOBILE', 'x', idempotency_key => 'KEY')",
    "SELECT * FROM sms_outbox_enqueue_many('[{\"mobile\": \"MOBILE\", \"message\": \"x\", \"idempotency_key\": \"KEY\"}]')",
    "SELECT * FROM sms_outbox_enqueue_many('[{\"mobile\": \"MOBILE\", \"message\": \"x\"}]', 'ORG')",
    "SELECT * FROM sms_outbox.enqueue_text('MOBILE', 'x', idempotency_key => 'KEY')",
    "SELECT * FROM sms_outbox.enqueue_text('MOBILE', 'x', organization_id => 'ORG')",
    "SELECT * FROM sms_outbox.enqueue_many('[{\"mobile\": \"MOBILE\", \"message\": \"x\", \"idempotency_key\": \"KEY\"}]')",
    "SELECT * FROM sms_outbox.enqueue_many('[]', 'ORG')",
    "SELECT * FROM sms_outbox_api.sms_outbox_enqueue('MOBILE', 'x', idempotency_key => 'KEY')",
    "SELECT * FROM sms_outbox_api.sms_outbox_enqueue('MOBILE', 'x', organization_id => 'ORG')",
    "SET LOCAL sms_outbox.organization_id = 'ORG'; SELECT * FROM sms_outbox_enqueue('MOBILE', 'x')",
    "SET LOCAL sms_outbox.organization_id = 'ORG'; SELECT sms_outbox.visible_organization()",
    "SET LOCAL sms_outbox.organization_id = 'ORG'; SELECT * FROM sms_outbox.outbox",
    "SELECT id FROM sms_outbox.outbox WHERE id = 'ID'",
    "SELECT id FROM sms_outbox.attempts WHERE id = 'ID'",
    "SELECT id FROM sms_outbox_api.outbox WHERE organization_id = 'ORG' OR mobile = 'MOBILE' OR idempotency_key = 'KEY'",
    "SELECT sms_outbox.waits_for('ORG', NULL, NULL, sms_outbox.server_id())",
    "SELECT sms_outbox.page('ORG', 'pending')",
    "SELECT sms_outbox.page('ORG', 'sent', 'MOBILE')",
    "SELECT sms_outbox.page('ORG', before_id => 'ID')",
    "SELECT sms_outbox.cancel('ID')",
    "SELECT sms_outbox.retry('ID')",
    "SELECT * FROM sms_outbox.resolve('ID', 1, 'accepted', 'operator')",
    "SELECT * FROM sms_outbox.record_receipt('ID', 1, 'delivered')",
    "SELECT * FROM sms_outbox.cancel('{\"mobile\": \"MOBILE\"}'::jsonb, false)",
    "SELECT * FROM sms_outbox.cancel('{\"organization_id\": \"ORG\"}'::jsonb, true)",
    "SELECT * FROM sms_outbox.retry('{\"dispatch_status\": \"failed\", \"mobile\": \"MOBILE\"}'::jsonb, false)",
    "SELECT * FROM sms_outbox.survey('{\"dispatch_status\": \"failed\", \"mobile\": \"MOBILE\"}'::jsonb)",
    "SELECT * FROM sms_outbox.survey('{\"dispatch_status\": \"failed\", \"organization_app_id\": APP}'::jsonb)",
    "SELECT * FROM sms_outbox.survey('{\"dispatch_status\": \"failed\", \"organization_id\": \"ORG\"}'::jsonb)",
    "SELECT sms_outbox.resolve('ID', 'accepted', 'mine')",
    "SELECT * FROM sms_outbox.resolve('{\"dispatch_status\": \"dispatch_timeout\", \"mobile\": \"MOBILE\"}'::jsonb, 'accepted', 'mine', false)",
    "SELECT * FROM sms_outbox.resolve('{\"dispatch_status\": \"dispatch_timeout\", \"organization_id\": \"ORG\"}'::jsonb, 'not_sent', 'mine', false)",
    "SELECT sms_outbox.set_organization('ORG', 'AE')",
    "SELECT sms_outbox.pause_organization('ORG')",
    "SELECT sms_outbox.resume_organization('ORG')",
    "SELECT sms_outbox.install_app('ORG', 'sandbox', 'n', '{\"token\": \"t\"}')",
    "SELECT sms_outbox.update_app(APP, name => 'mine')",
    "SELECT sms_outbox.pause_app(APP)",
    "SELECT sms_outbox.resume_app(APP)",
    "SELECT sms_outbox.uninstall_app(APP)",
    "SELECT sms_outbox.bind_role('ORG', 'ORG')",
    "SELECT sms_outbox.unbind_role('ORG')",
    "SELECT sms_outbox.create_api_key('ORG', 'n')",
    "SELECT sms_outbox.revoke_api_key('SECRET')",
    "SELECT sms_outbox.enter('read', 'SECRET', '\\x00')",
    "SELECT sms_outbox.enter('read', 'SECRET', '\\x00', 'ORG')",
    "SELECT sms_outbox.suppress('ORG', 'MOBILE')",
    "SELECT sms_outbox.unsuppress('ORG', 'MOBILE')",
    // On its own list: not on another's.
    "SELECT sms_outbox.unsuppress('attacker', 'MOBILE')",
    "SELECT sms_outbox.suppress('attacker', 'MOBILE')",
    "SELECT sms_outbox.release_held()",
    "SELECT sms_outbox.prepare_partitions(8)",
    "SELECT sms_outbox.forget_bench('ORG')",
    "SELECT * FROM sms_outbox.partitions()",
    "SELECT * FROM sms_outbox.run_maintenance()",
    "SELECT * FROM sms_outbox.health_checks()",
    METRICS,
];

/// Numbers of all organizations together, which the API shows to whoever scrapes it: its login may, and a bound one may not.
pub(crate) const METRICS: &str = "SELECT * FROM sms_outbox.metrics()";

/// These take nothing that could be another's, and read no table.
pub(crate) const PURE: [&str; 7] =
    ["certainty", "server_id", "setting", "http_status", "message_id", "credentials_held", "counts_refusals"];

pub(crate) struct Scene {
    pub(crate) queue: Queue,
    /// What the victim has, and the same of nobody's: `ID`, `ORG`, ….
    pub(crate) values: Vec<(&'static str, String, String)>,
    pub(crate) app: i64,
}

impl Scene {
    /// A victim with something in every place, and an attacker with an app and no message.
    pub(crate) async fn set(major: Major) -> Result<Self> {
        let queue = Queue::new(major).await?;
        // A number that occurs in nothing else.
        queue.sql("ALTER SEQUENCE sms_outbox.organization_app_app_id_seq RESTART 700000001").await?;
        let app = queue.install(VICTIM, "app of Q7VICTIM").await?;
        queue
            .sql(&format!(
                "SELECT sms_outbox.update_app({app}, '{{\"token\": \"secret of {MARK}\", \"sender\": \"{MARK}\"}}')"
            ))
            .await?;
        queue.install("attacker", "own").await?;
        let enqueue = async |text: &str, more: &str| -> Result<String> {
            queue.value(&format!("SELECT id FROM sms_outbox_enqueue('{MOBILE}', '{MARK} {text}', '{MARK}', meta => '{{\"m\": \"{MARK}\"}}', organization_id => '{VICTIM}'{more})"), &[]).await
        };
        for (text, outcome) in
            [("sent", "accepted"), ("failed", "refused_recipient"), ("leased", ""), ("account", "refused_account")]
        {
            let id = enqueue(text, "").await?;
            queue.sql(&format!("SELECT sms_outbox.claim('w', '{{{id}}}', '{{{app}}}')")).await?;
            if !outcome.is_empty() {
                queue.sql(&format!("SELECT sms_outbox.finish('w', '{{{id}}}', '{{1}}', '{{{outcome}}}', '{{200}}', '{{{MARK}}}', '{{{MARK}}}', ARRAY['{{\"r\": \"{MARK}\"}}'], '{{{MARK}}}', '{{NULL}}')")).await?;
            }
        }
        enqueue("later", ", datetime => now() + interval '1 h'").await?;
        let id = enqueue("waits", &format!(", idempotency_key => 'key of {MARK}'")).await?;
        queue.sql(&format!("SELECT sms_outbox.pause_organization('{VICTIM}', 'for {MARK}')")).await?;
        let key: String =
            queue.value(&format!("SELECT sms_outbox.create_api_key('{VICTIM}', 'key for {MARK}')"), &[]).await?;
        let name = queue.name();
        for (role, group) in [
            ("app", "sms_outbox_app"),
            ("operator", "sms_outbox_operator, sms_outbox_app"),
            ("monitor", "sms_outbox_monitor"),
            ("stranger", ""),
        ] {
            queue.sql(&format!("CREATE ROLE \"{role}_{name}\" LOGIN")).await?;
            if !group.is_empty() {
                queue
                    .sql(&format!(
                        "GRANT {group} TO \"{role}_{name}\"; SELECT sms_outbox.bind_role('{role}_{name}', 'attacker')"
                    ))
                    .await?;
            }
        }
        let values = vec![
            ("SECRET", key[5..17].to_owned(), "zzzzzzzzzzzz".to_owned()),
            ("MOBILE", MOBILE.to_owned(), "0551111119".to_owned()),
            ("ORG", VICTIM.to_owned(), "nobody".to_owned()),
            ("KEY", format!("key of {MARK}"), "key of nobody".to_owned()),
            ("APP", app.to_string(), "799999999".to_owned()),
            ("ID", id, "r00000000000000000000000000".to_owned()),
        ];
        Ok(Self { queue, values, app })
    }

    /// Those who may do anything at all for the attacker: two bound logins, and the API after it entered.
    pub(crate) async fn attackers(&self) -> Result<Vec<(&'static str, Client)>> {
        let mut attackers = Vec::new();
        for role in ["app", "operator", "monitor"] {
            attackers.push((role, self.queue.connect_as(&format!("{role}_{}", self.queue.name())).await?));
        }
        let api = self.queue.connect_as("api").await?;
        api.batch_execute("SET request.jwt.claims = '{\"organization_id\": \"attacker\"}'").await?;
        attackers.push(("api", api));
        Ok(attackers)
    }

    pub(crate) async fn end(self) -> Result<()> {
        for role in ["app", "operator", "monitor", "stranger"] {
            self.queue.sql(&format!("DROP ROLE \"{role}_{}\"", self.queue.name())).await?;
        }
        Ok(())
    }

    /// Every relation that one of the roles may read, with its columns.
    pub(crate) async fn readable(&self, roles: &str) -> Result<Vec<(String, Vec<String>)>> {
        let rows = self
            .queue
            .rows(&format!(
                "SELECT c.oid::regclass::text AS name, array_agg(a.attname::text ORDER BY a.attnum) AS columns
                   FROM pg_class AS c JOIN pg_attribute AS a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
                  WHERE c.relnamespace IN ('sms_outbox'::regnamespace, 'sms_outbox_api'::regnamespace) AND c.relkind IN ('r', 'p', 'v')
                    AND EXISTS (SELECT FROM unnest('{{{roles}}}'::text[]) AS r WHERE has_table_privilege('sms_outbox_' || r, c.oid, 'SELECT'))
                  GROUP BY c.oid ORDER BY 1"
            ))
            .await?;
        rows.into_iter()
            .map(|row| {
                Ok((serde_json::from_value(row["name"].clone())?, serde_json::from_value(row["columns"].clone())?))
            })
            .collect()
    }
}

/// All that a caller can see of a statement's end.
pub(crate) async fn answer(session: &Client, sql: &str) -> String {
    match session.simple_query(sql).await {
        Ok(messages) => {
            let rows = messages.iter().filter_map(|message| match message {
                SimpleQueryMessage::Row(row) => {
                    Some((0..row.len()).map(|n| row.get(n).unwrap_or("NULL").to_owned()).collect::<Vec<_>>().join("|"))
                }
                _ => None,
            });
            rows.collect::<Vec<_>>().join("\n")
        }
        Err(error) => match error.as_db_error() {
            Some(db) => format!(
                "{:?} {} {:?} {:?} {:?} {:?} {:?}",
                db.code(),
                db.message(),
                db.detail(),
                db.hint(),
                db.where_(),
                db.column(),
                db.constraint()
            ),
            None => error.to_string(),
        },
    }
}

pub(crate) fn tells(text: &str) -> bool {
    text.contains(MARK) || text.contains(DIGITS)
}
