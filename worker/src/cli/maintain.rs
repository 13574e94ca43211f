//! `sms-outbox maintain`.

use std::collections::BTreeMap;

use clap::Args;
use serde_json::json;

use super::terminal::Terminal;
use super::{Global, session};
use crate::outbox::postgres::operator::server;

/// Run maintenance until nothing is left to do
///
/// The extension's background worker does this by itself where the library is preloaded. Elsewhere run this every few
/// seconds from a scheduler: it ends leases that are over, moves due messages on, makes partitions, drops old ones.
#[derive(Debug, Args)]
pub(super) struct MaintainArgs {}

pub(super) async fn run(global: &Global, terminal: &Terminal, _: &MaintainArgs) -> anyhow::Result<()> {
    let client = session::open(global, "maintain").await?;
    let progress = terminal.progress(None, "maintaining");
    let mut moved: BTreeMap<String, i64> = BTreeMap::new();
    loop {
        let tasks = server::maintain(&client).await?;
        let more = tasks.iter().any(|task| task.more);
        for task in tasks {
            *moved.entry(task.task).or_default() += task.moved;
        }
        progress.set_position(moved.values().sum::<i64>().unsigned_abs());
        if !more {
            break;
        }
    }
    progress.finish_and_clear();
    if terminal.is_json() {
        let tasks: Vec<_> = moved.iter().map(|(task, moved)| json!({"task": task, "moved": moved})).collect();
        return terminal.json(&tasks);
    }
    let rows = moved.into_iter().map(|(task, moved)| vec![task, moved.to_string()]);
    terminal.table(&["task", "moved"], rows.collect())
}
