//! The files for monitoring: alert rules with their tests, the dashboard, and the list in the guide.

use std::collections::BTreeSet;
use std::fmt::Write;
use std::fs;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::process::output;
use sms_outbox_tests::scrape::promtool;
use sms_outbox_tests::{paths, run};
use sms_outbox_worker::metrics::catalog::{Kind, Source, all};

const RULES: &str = "packaging/prometheus/sms-outbox.rules.yml";
const RULE_TESTS: &str = "packaging/prometheus/sms-outbox.rules.test.yml";
const DASHBOARD: &str = "packaging/grafana/sms-outbox.json";
const GUIDE: &str = "docs/guides/metrics.md";

fn read(path: &str) -> Result<String> {
    fs::read_to_string(paths::checkout(path)).with_context(|| path.to_owned())
}

/// The names of metrics in a text, without the parts of histograms.
fn names(text: &str) -> BTreeSet<&str> {
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let words = text.split(|c| !word(c)).filter(|word| word.starts_with("sms_outbox_"));
    let whole = |name: &&str| all().any(|metric| metric.name == *name);
    words
        .map(|name| {
            let parts = ["_bucket", "_sum", "_count"].iter().find_map(|end| name.strip_suffix(end));
            parts.filter(whole).unwrap_or(name)
        })
        .collect()
}

#[tokio::test]
async fn alert_rules_pass_their_tests() -> Result<()> {
    for arguments in [["check", "rules", RULES], ["test", "rules", RULE_TESTS]] {
        let mut command = promtool(&arguments).await?;
        command.current_dir(paths::checkout(""));
        output(command).await?;
    }
    let (rules, tests) = (read(RULES)?, read(RULE_TESTS)?);
    for alert in rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")) {
        let fires = tests
            .split("- eval_time")
            .any(|case| case.contains(&format!("alertname: {alert}\n")) && !case.contains("exp_alerts: []"));
        ensure!(fires, "no test sees {alert} fire");
    }
    Ok(())
}

#[tokio::test]
async fn rules_and_dashboard_use_metrics_that_exist() -> Result<()> {
    let dashboard = read(DASHBOARD)?;
    for (path, text) in [(RULES, read(RULES)?), (RULE_TESTS, read(RULE_TESTS)?), (DASHBOARD, dashboard.clone())] {
        // The annotations name what is called in SQL.
        let expressions = text.lines().filter(|line| !line.trim_start().starts_with("description:"));
        for name in names(&expressions.collect::<Vec<_>>().join("\n")) {
            ensure!(all().any(|metric| metric.name == name), "{path} uses {name}, which does not exist");
        }
    }
    // The dashboard's expressions, parsed as if they were rules; and it leaves no metric out.
    let panels: Value = serde_json::from_str(&dashboard)?;
    let targets = panels["panels"].as_array().into_iter().flatten().filter_map(|panel| panel["targets"].as_array());
    let mut rules = "groups:\n  - name: dashboard\n    rules:\n".to_owned();
    for (number, target) in targets.flatten().enumerate() {
        let expression = target["expr"].as_str().context("a target without an expression")?;
        let expression = expression.replace("$__rate_interval", "5m").replace("$api", ".*").replace("$worker", ".*");
        writeln!(rules, "      - record: dashboard:{number}\n        expr: {}", serde_json::to_string(&expression)?)?;
    }
    let file = run::fresh("rules")?;
    fs::write(&file, rules)?;
    output(promtool(&["check", "rules", file.to_str().context("a path")?]).await?).await?;
    let shown = names(&dashboard);
    for metric in all().filter(|metric| !metric.name.ends_with("_info")) {
        ensure!(shown.contains(metric.name), "the dashboard does not show {}", metric.name);
    }
    Ok(())
}

#[test]
fn the_guide_lists_every_metric() -> Result<()> {
    let mut list = String::new();
    for (source, title) in [
        (Source::Worker, "A worker, on `--metrics-listen`"),
        (Source::Api, "An API process, on `/metrics`"),
        (Source::Database, "The database, by way of each API process"),
    ] {
        write!(list, "\n\n### {title}\n\n| metric | kind | labels | |\n| --- | --- | --- | --- |")?;
        for metric in all().filter(|metric| metric.source == source) {
            let kind = match metric.kind {
                Kind::Counter => "counter",
                Kind::Gauge => "gauge",
                Kind::Histogram(_) => "histogram",
            };
            let labels: Vec<String> = metric.labels.iter().map(|label| format!("`{label}`")).collect();
            write!(list, "\n| `{}` | {kind} | {} | {} |", metric.name, labels.join(", "), metric.help)?;
        }
    }
    let list = format!("{list}\n\n");
    let guide = read(GUIDE)?;
    let (head, rest) = guide.split_once("<!-- begin metrics -->").context("no begin of the list")?;
    let (written, tail) = rest.split_once("<!-- end metrics -->").context("no end of the list")?;
    if written != list && std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        fs::write(paths::checkout(GUIDE), format!("{head}<!-- begin metrics -->{list}<!-- end metrics -->{tail}"))?;
        return Ok(());
    }
    ensure!(written == list, "{GUIDE}: the list is old: UPDATE_DOCUMENTS=1 make test-flow TEST=metrics_files");
    Ok(())
}

#[test]
fn the_guide_names_every_alert() -> Result<()> {
    let (guide, rules) = (read(GUIDE)?, read(RULES)?);
    let alerts: Vec<&str> = rules.lines().filter_map(|line| line.trim().strip_prefix("- alert: ")).collect();
    let missing: Vec<_> = alerts.iter().filter(|alert| !guide.contains(&format!("| `{alert}` |"))).collect();
    ensure!(missing.is_empty(), "{GUIDE} does not explain {missing:?}");
    Ok(())
}
