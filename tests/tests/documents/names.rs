//! Links and names in the documents: each must be of something that exists.

use std::collections::BTreeSet;
use std::fs;

use anyhow::Result;
use sms_outbox_tests::{Database, paths};

use crate::page::{self, Page};

/// Links to files or headings that are not there. Those to other sites are not followed.
pub(crate) fn dead_links() -> Result<Vec<String>> {
    let mut faults = Vec::new();
    for path in page::all()? {
        let text = prose(&Page::read(&path)?.text);
        for target in text.split("](").skip(1).filter_map(|rest| rest.split(')').next()) {
            if target.contains("://") {
                continue;
            }
            let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
            let folder = path.rsplit_once('/').map_or("", |(folder, _)| folder);
            let file = if file.is_empty() { paths::checkout(&path) } else { paths::checkout(folder).join(file) };
            let found = match fs::read_to_string(&file) {
                Ok(text) => anchor.is_empty() || anchors(&text).contains(anchor),
                Err(_) => anchor.is_empty() && file.is_dir(),
            };
            if !found {
                faults.push(format!("{path}: {target} leads nowhere"));
            }
        }
    }
    Ok(faults)
}

/// Headings as a forge makes anchors of them.
fn anchors(text: &str) -> BTreeSet<String> {
    let headings =
        text.lines().filter_map(|line| line.strip_prefix('#')).map(|line| line.trim_start_matches('#').trim());
    let kept = |c: char| c.is_alphanumeric() || "_- ".contains(c);
    headings
        .map(|heading| heading.chars().filter(|c| kept(*c)).collect::<String>().to_lowercase().replace(' ', "-"))
        .collect()
}

/// The text without its blocks.
fn prose(text: &str) -> String {
    text.split("\n```").step_by(2).collect::<Vec<_>>().join("\n")
}

/// Functions, views, types and settings of `sms_outbox`, and files of the repository, that are named and do not exist.
pub(crate) async fn unknown(database: &Database) -> Result<Vec<String>> {
    let known = "SELECT p.proname::text FROM pg_proc AS p WHERE p.pronamespace = 'sms_outbox'::regnamespace
                 UNION SELECT c.relname FROM pg_class AS c WHERE c.relnamespace = 'sms_outbox'::regnamespace
                 UNION SELECT t.typname FROM pg_type AS t WHERE t.typnamespace = 'sms_outbox'::regnamespace
                 UNION SELECT split_part(s.name, '.', 2) FROM pg_settings AS s WHERE s.name LIKE 'sms\\_outbox.%'";
    let known: BTreeSet<String> =
        database.admin().query(known, &[]).await?.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let word = |c: char| c.is_ascii_alphanumeric() || c == '_';
    let mut faults = Vec::new();
    for path in page::all()? {
        let text = Page::read(&path)?.text;
        for (at, found) in text.match_indices("sms_outbox.") {
            let name: String = text[at + found.len()..].chars().take_while(|c| word(*c)).collect();
            let alone = !text[..at].ends_with(|c: char| word(c) || c == '/');
            if alone && !name.is_empty() && !known.contains(&name) {
                faults.push(format!("{path}: there is no sms_outbox.{name}"));
            }
        }
        for name in prose(&text).split('`').skip(1).step_by(2) {
            let ours = ["sql/", "extension/", "worker/", "tests/", "scripts/", "docs/"]
                .iter()
                .any(|top| name.starts_with(top));
            if ours
                && !name.contains(['<', '*', ' '])
                && !name.contains("NN_")
                && !name.contains("--A--B")
                && !paths::checkout(name).exists()
            {
                faults.push(format!("{path}: there is no file {name}"));
            }
        }
    }
    Ok(faults)
}
