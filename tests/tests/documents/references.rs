//! The lists in the references, against what the database, the catalog and the command say.

use std::fmt::Write as _;
use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use sms_outbox_tests::process::output;
use sms_outbox_tests::{Database, paths, worker};

/// Compares every list, or writes it where `UPDATE_DOCUMENTS` is set.
pub(crate) async fn compare(database: &Database) -> Result<Vec<String>> {
    let lists = [
        ("docs/guides/sql.md", "functions", database.psql(include_str!("functions.sql")).await?),
        ("docs/guides/sql.md", "views", database.psql(include_str!("views.sql")).await?),
        ("docs/guides/settings.md", "settings", database.psql(include_str!("settings.sql")).await?),
        ("docs/guides/providers.md", "providers", providers()?),
    ];
    let mut faults = Vec::new();
    for (path, name, list) in lists {
        let file = paths::checkout(path);
        let text = fs::read_to_string(&file)?;
        let (begin, end) = (format!("<!-- begin {name} -->"), format!("<!-- end {name} -->"));
        let (head, rest) = text.split_once(&begin).with_context(|| format!("{path} has no {begin}"))?;
        let (written, tail) = rest.split_once(&end).with_context(|| format!("{path} has no {end}"))?;
        let list = format!("\n\n{}\n\n", list.trim());
        if list == written {
            continue;
        }
        if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
            fs::write(&file, format!("{head}{begin}{list}{end}{tail}"))?;
        } else {
            let at = list.lines().zip(written.lines()).find(|(is, was)| is != was);
            faults.push(format!(
                "{path}: the list of {name} is old, at {at:?}: UPDATE_DOCUMENTS=1 make test-flow TEST=documents"
            ));
        }
    }
    Ok(faults)
}

fn providers() -> Result<String> {
    let catalog = fs::read_to_string(paths::checkout("worker/src/provider/catalog.json"))?;
    // In the catalog's own order, which a map would lose.
    let catalog: Vec<Provider> = serde_json::from_str(&catalog)?;
    let mut page = String::new();
    for provider in catalog {
        write!(
            page,
            "\n\n## `{}`: {}\n\n| field | type | | |\n| --- | --- | --- | --- |",
            provider.slug, provider.name
        )?;
        let mut fields: Vec<(&String, &Value)> = provider.config.iter().collect();
        fields.sort_by_key(|(name, field)| (field["required"] != true, *name));
        for (name, field) in fields {
            let is = |word: &str| (field[word] == true).then(|| word.to_owned());
            let flags = ["required", "secret"].iter().filter_map(|word| is(word)).collect::<Vec<_>>().join(", ");
            let text = |key: &str| field[key].as_str().unwrap_or_default();
            write!(page, "\n| `{name}` | {} | {flags} | {} |", text("type"), text("description"))?;
        }
    }
    Ok(page)
}

#[derive(serde::Deserialize)]
struct Provider {
    slug: String,
    name: String,
    config: serde_json::Map<String, Value>,
}

/// Flags, variables and defaults in the help of the commands that settings.md does not have, and the other way round.
pub(crate) async fn command_settings() -> Result<Vec<String>> {
    let page = fs::read_to_string(paths::checkout("docs/guides/settings.md"))?;
    let mut faults = Vec::new();
    let (common, _) = page.split_once("\nOf `sms-outbox ").context("no section of a command")?;
    for name in ["worker", "api"] {
        let (_, own) = page
            .split_once(&format!("\nOf `sms-outbox {name}`:\n"))
            .with_context(|| format!("no section of {name}"))?;
        let own = own.split("\nOf `sms-outbox ").next().unwrap_or_default();
        let rows: Vec<&str> = common.lines().chain(own.lines()).filter(|line| line.starts_with("| `--")).collect();
        let mut command = worker::command(name)?;
        command.arg("--help");
        faults.extend(differences(name, &rows, &output(command).await?)?);
    }
    Ok(faults)
}

fn differences(name: &str, rows: &[&str], help: &str) -> Result<Vec<String>> {
    let mut faults = Vec::new();
    let mut row = None;
    for line in help.lines().map(str::trim) {
        if line.starts_with('-') && !line.starts_with("- ") {
            let flag = line.split_whitespace().find(|word| word.starts_with("--")).context("a flag")?;
            let named = |row: &&&str| row.starts_with(&format!("| `{flag}` |"));
            row = rows.iter().find(named).copied();
            if row.is_none() && flag != "--help" {
                faults.push(format!("{flag} of {name} is missing"));
            }
        }
        for value in ["[env: ", "[default: "].iter().filter_map(|key| line.strip_prefix(key)?.strip_suffix(']')) {
            if row.is_some_and(|row| !row.contains(&format!("`{value}`"))) {
                faults.push(format!("{row:?} does not say {value}"));
            }
        }
    }
    for row in rows {
        let flag = row.split('`').nth(1).context("a flag")?;
        if !help.contains(&format!("{flag} ")) && !help.contains(&format!("{flag}\n")) {
            faults.push(format!("{flag} is no flag of {name}"));
        }
    }
    Ok(faults)
}
