//! A session in which the server tells the plan of every statement, of those inside functions too.

use std::future::poll_fn;

use anyhow::{Context, Result};
use serde_json::Value;
use sms_outbox_tests::Database;
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, Config, NoTls};

/// Such a session.
pub(crate) struct Explained {
    client: Client,
    notices: UnboundedReceiver<String>,
}

/// What one call did.
#[derive(Debug)]
pub(crate) struct Called {
    /// Rows that it returned.
    pub(crate) rows: usize,
    /// Pages that it touched, with everything inside.
    pub(crate) pages: f64,
    /// The steps of the plans of all its statements.
    pub(crate) steps: Vec<Step>,
}

/// One step of a plan.
#[derive(Debug)]
pub(crate) struct Step {
    pub(crate) kind: String,
    /// Without the day, where it is of a partition.
    pub(crate) table: Option<String>,
    pub(crate) index: Option<String>,
    /// Rows that its parts gave to it, in all their runs.
    pub(crate) input: f64,
    /// Rows that it read, those too that it passed over, in all its runs.
    pub(crate) read: f64,
    /// Pages that it touched, with its parts.
    pub(crate) pages: f64,
    /// Whether it ran at all.
    pub(crate) ran: bool,
}

impl Explained {
    /// A superuser's session, with plans of this kind: `force_generic_plan` or `force_custom_plan`.
    pub(crate) async fn open(database: &Database, plans: &str) -> Result<Self> {
        let config: Config = database.cluster().socket_url(database.name(), "postgres").parse()?;
        let (client, mut connection) = config.connect(NoTls).await?;
        let (sender, notices) = unbounded_channel();
        tokio::spawn(async move {
            while let Some(Ok(message)) = poll_fn(|context| connection.poll_message(context)).await {
                if let AsyncMessage::Notice(notice) = message {
                    // Nobody listens any more when the session ends.
                    let _ = sender.send(notice.message().to_owned());
                }
            }
        });
        client
            .batch_execute(&format!(
                "LOAD 'auto_explain';
                 SET auto_explain.log_nested_statements = on; SET auto_explain.log_analyze = on; SET auto_explain.log_buffers = on;
                 SET auto_explain.log_timing = off; SET auto_explain.log_format = json; SET auto_explain.log_level = notice;
                 SET client_min_messages = notice; SET jit = off; SET plan_cache_mode = {plans}"
            ))
            .await?;
        Ok(Self { client, notices })
    }

    /// The session, for what is not looked at.
    pub(crate) fn client(&self) -> &Client {
        &self.client
    }

    /// Runs a query.
    pub(crate) async fn call(&mut self, query: &str) -> Result<Called> {
        self.client.batch_execute("SET auto_explain.log_min_duration = 0").await?;
        let rows = self.client.simple_query(query).await.context(query.to_owned())?;
        self.client.batch_execute("SET auto_explain.log_min_duration = -1").await?;
        let rows = rows.iter().filter(|message| matches!(message, tokio_postgres::SimpleQueryMessage::Row(_))).count();
        let mut called = Called { rows, pages: 0.0, steps: Vec::new() };
        while let Ok(notice) = self.notices.try_recv() {
            let Some(plan) = notice.split_once("plan:\n").map(|(_, plan)| plan) else { continue };
            let plan: Value = serde_json::from_str(plan).with_context(|| plan.to_owned())?;
            let plan = &plan["Plan"];
            // The outermost statement ends last.
            called.pages = pages(plan);
            walk(plan, &mut called.steps);
        }
        anyhow::ensure!(!called.steps.is_empty(), "the server told no plan of {query}");
        Ok(called)
    }
}

impl Step {
    /// The index, or the table, and the pages that it took.
    pub(crate) fn name(&self) -> Option<String> {
        let on = self.index.as_ref().or(self.table.as_ref())?;
        Some(format!("{} on {on}: {}", self.kind, self.pages))
    }
}

fn number(plan: &Value, field: &str) -> f64 {
    plan[field].as_f64().unwrap_or_default()
}

fn pages(plan: &Value) -> f64 {
    number(plan, "Shared Hit Blocks") + number(plan, "Shared Read Blocks")
}

fn walk(plan: &Value, steps: &mut Vec<Step>) {
    let text = |field: &str| plan[field].as_str().map(without_day);
    let parts = || plan["Plans"].as_array().into_iter().flatten();
    let runs = number(plan, "Actual Loops");
    steps.push(Step {
        kind: plan["Node Type"].as_str().unwrap_or_default().to_owned(),
        table: text("Relation Name"),
        index: text("Index Name"),
        input: parts().map(|part| number(part, "Actual Rows") * number(part, "Actual Loops")).sum(),
        read: (number(plan, "Actual Rows") + number(plan, "Rows Removed by Filter")) * runs,
        pages: pages(plan),
        ran: runs > 0.0,
    });
    parts().for_each(|part| walk(part, steps));
}

/// `message_p20261128_pkey` is `message_pkey`.
fn without_day(name: &str) -> String {
    match name.find("_p2") {
        Some(at) if name.len() >= at + 10 => format!("{}{}", &name[..at], &name[at + 10..]),
        _ => name.to_owned(),
    }
}
