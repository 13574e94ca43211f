//! A page of Markdown as a reader follows it: its blocks in order.

use std::fs;

use anyhow::{Context, Result, bail};
use sms_outbox_tests::paths;

/// What a reader does.
pub(crate) enum Step {
    /// Saves a file.
    Save { name: String, text: String },
    /// Runs statements in psql, with the rights of a role where `as=` names one; all must succeed.
    Sql { line: usize, text: String, role: Option<String> },
    /// Types a command and, where the page shows it, sees this.
    Command { line: usize, text: String, output: Option<String> },
}

/// A page.
pub(crate) struct Page {
    pub(crate) path: String,
    pub(crate) text: String,
    pub(crate) steps: Vec<Step>,
    /// Blocks that say why they are not run, by line.
    pub(crate) not_run: Vec<(usize, String)>,
}

impl Page {
    pub(crate) fn read(path: &str) -> Result<Self> {
        let text = fs::read_to_string(paths::checkout(path)).with_context(|| path.to_owned())?;
        let mut page = Self { path: path.to_owned(), text, steps: Vec::new(), not_run: Vec::new() };
        let text = page.text.clone();
        let mut lines = text.lines().enumerate();
        while let Some((number, line)) = lines.next() {
            let Some(info) = line.strip_prefix("```") else { continue };
            let block: Vec<&str> = lines.by_ref().map(|(_, line)| line).take_while(|line| *line != "```").collect();
            page.take(number + 2, info, &block).with_context(|| format!("{path}:{}", number + 1))?;
        }
        Ok(page)
    }

    /// A block whose text begins at this line.
    fn take(&mut self, line: usize, info: &str, block: &[&str]) -> Result<()> {
        let (language, rest) = info.split_once(' ').unwrap_or((info, ""));
        let text = || format!("{}\n", block.join("\n"));
        if let Some(reason) = rest.strip_prefix("not-run: ") {
            self.not_run.push((line, reason.to_owned()));
            return Ok(());
        }
        if let Some(name) = rest.strip_prefix("file=") {
            self.steps.push(Step::Save { name: name.to_owned(), text: text() });
            return Ok(());
        }
        match language {
            "sql" => {
                let role = rest.strip_prefix("as=").map(str::to_owned);
                self.steps.push(Step::Sql { line, text: text(), role });
            }
            "sh" => self.steps.push(Step::Command { line, text: text(), output: None }),
            "console" => self.transcript(line, block)?,
            "" | "text" | "json" | "rust" => {}
            other => bail!("a block of {other:?} neither runs nor is saved: add file=NAME, or not-run: and the reason"),
        }
        Ok(())
    }

    /// `$ ` begins a command, `> ` goes on with it, anything else is what it prints.
    fn transcript(&mut self, first: usize, block: &[&str]) -> Result<()> {
        for (line, row) in (first..).zip(block) {
            if let Some(command) = row.strip_prefix("$ ") {
                self.steps.push(Step::Command { line, text: format!("{command}\n"), output: Some(String::new()) });
                continue;
            }
            let Some(Step::Command { text, output: Some(output), .. }) = self.steps.last_mut() else {
                bail!("a console block begins with a command: $ …");
            };
            match row.strip_prefix("> ") {
                Some(more) if output.is_empty() => *text += &format!("{more}\n"),
                _ => *output += &format!("{row}\n"),
            }
        }
        Ok(())
    }
}

/// Every page of the repository that is for readers.
pub(crate) fn all() -> Result<Vec<String>> {
    let mut pages: Vec<String> =
        ["README.md", "ARCHITECTURE.md", "CHANGELOG.md", "CONTRIBUTING.md"].map(str::to_owned).into();
    for folder in ["docs", "docs/guides", "docs/decisions"] {
        for entry in fs::read_dir(paths::checkout(folder))? {
            let name = entry?.file_name().to_string_lossy().into_owned();
            if name.ends_with(".md") {
                pages.push(format!("{folder}/{name}"));
            }
        }
    }
    pages.sort();
    Ok(pages)
}
