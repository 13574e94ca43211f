//! The shop: an application that speaks SQL through psql, and keeps its own journal of what it committed.

use anyhow::{Context, Result, ensure};
use sms_outbox_tests::Database;
use sms_outbox_tests::history::Commit;
use sms_outbox_tests::history::journal::Transaction;

/// An order and the SMS that tells its customer.
pub(crate) struct Order {
    pub(crate) number: u32,
    /// The organization: each branch of the shop has its own apps.
    pub(crate) branch: &'static str,
    /// As the customer wrote it.
    pub(crate) mobile: &'static str,
    /// As it must be understood.
    pub(crate) to: &'static str,
    pub(crate) text: &'static str,
    /// More arguments of `sms_outbox_enqueue`, in SQL.
    pub(crate) more: &'static str,
}

/// What `sms_outbox_enqueue` answered.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Answer {
    pub(crate) id: String,
    pub(crate) status: String,
    pub(crate) replay: bool,
}

/// The application.
#[derive(Default)]
pub(crate) struct Shop {
    /// What psql said was committed.
    pub(crate) journal: Vec<Commit>,
}

/// The shop's own table. The outbox does not know it, nor it the outbox.
pub(crate) const SCHEMA: &str = "CREATE TABLE orders (number integer PRIMARY KEY, branch text NOT NULL);
    GRANT SELECT, INSERT ON orders TO app";

impl Order {
    /// The transaction, to be ended by `COMMIT` or `ROLLBACK`.
    fn transaction(&self, end: &str) -> String {
        let Self { number, branch, mobile, text, more, .. } = self;
        format!(
            "BEGIN;
            INSERT INTO orders (number, branch) VALUES ({number}, '{branch}') ON CONFLICT DO NOTHING;
            SELECT * FROM sms_outbox_enqueue('{mobile}', '{text}', organization_id => '{branch}',
                meta => '{{\"order\": {number}}}' {}{more});
            {end};",
            if more.is_empty() { "" } else { ", " }
        )
    }

    /// The same as a person reads it.
    pub(crate) fn shown(&self, end: &str) -> String {
        let Self { number, mobile, more, .. } = self;
        let comma = if more.is_empty() { "" } else { ", " };
        format!("BEGIN; INSERT INTO orders ({number} …); sms_outbox_enqueue('{mobile}', …{comma}{more}); {end}")
    }

    pub(crate) fn committed(&self, id: &str) -> Result<Commit> {
        let (to, text) = (self.to.to_owned(), self.text.to_owned());
        Ok(Commit::Enqueued { id: id.parse()?, to, text, outcome: Transaction::Committed, replay: false })
    }
}

impl Shop {
    /// Commits an order with its SMS. A replay is no new message.
    pub(crate) async fn commit(&mut self, database: &Database, order: &Order) -> Result<Answer> {
        let answer = answer(&database.psql_as("app", &order.transaction("COMMIT")).await?)?;
        if !answer.replay {
            self.journal.push(order.committed(&answer.id)?);
        }
        Ok(answer)
    }

    /// Commits an order alone: its SMS goes another way.
    pub(crate) async fn place(&self, database: &Database, order: &Order) -> Result<()> {
        let Order { number, branch, .. } = order;
        let insert = format!("INSERT INTO orders (number, branch) VALUES ({number}, '{branch}')");
        database.psql_as("app", &insert).await.map(drop)
    }

    /// Begins the same and takes it back.
    pub(crate) async fn roll_back(&self, database: &Database, order: &Order) -> Result<Answer> {
        answer(&database.psql_as("app", &order.transaction("ROLLBACK")).await?)
    }

    /// Commits many orders in one transaction; their messages queue in this order.
    pub(crate) async fn commit_all(&mut self, database: &Database, orders: &[Order]) -> Result<Vec<Answer>> {
        let branch = orders.first().context("no order")?.branch;
        let rows: Vec<String> = orders.iter().map(|order| format!("({}, '{branch}')", order.number)).collect();
        let messages: Vec<serde_json::Value> = orders
            .iter()
            .map(|order| {
                serde_json::json!({"mobile": order.mobile, "message": order.text, "meta": {"order": order.number}})
            })
            .collect();
        let script = format!(
            "BEGIN;
            INSERT INTO orders (number, branch) VALUES {};
            SELECT id, dispatch_status, idempotent_replay FROM sms_outbox_enqueue_many('{}', '{branch}') ORDER BY ordinality;
            COMMIT;",
            rows.join(", "),
            serde_json::Value::from(messages),
        );
        let output = database.psql_as("app", &script).await?;
        let answers = output.lines().map(answer).collect::<Result<Vec<_>>>()?;
        ensure!(answers.len() == orders.len(), "{} orders got {} messages", orders.len(), answers.len());
        for (order, answer) in orders.iter().zip(&answers) {
            self.journal.push(order.committed(&answer.id)?);
        }
        Ok(answers)
    }
}

/// Reads the row that psql printed.
fn answer(row: &str) -> Result<Answer> {
    let fields: Vec<&str> = row.trim_end().split('|').collect();
    let [id, status, replay] = fields[..] else { anyhow::bail!("psql printed '{row}', not one row of three columns") };
    Ok(Answer { id: id.to_owned(), status: status.to_owned(), replay: replay == "t" })
}
