//! Printing: data to standard output as a table or JSON, everything else to standard error; colours on a terminal only.

use std::io::{self, IsTerminal, Write};

use clap::ValueEnum;
use comfy_table::{ContentArrangement, Table, presets};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;

/// How data is printed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, ValueEnum)]
pub(super) enum Format {
    /// Aligned columns for a person.
    Table,
    /// JSON for a program.
    Json,
}

/// What a finding or a word means, for its colour.
#[derive(Clone, Copy)]
pub(super) enum Tone {
    Good,
    Warn,
    Bad,
    Faint,
}

/// Where a command's words go.
pub(super) struct Terminal {
    format: Format,
    colours: bool,
}

impl Terminal {
    pub(super) fn new(format: Format) -> Self {
        // https://no-color.org: set and not empty, whatever the value.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self { format, colours: !refused }
    }

    pub(super) fn colours(&self) -> bool {
        self.colours
    }

    pub(super) fn is_json(&self) -> bool {
        self.format == Format::Json
    }

    /// Data as JSON.
    pub(super) fn json(&self, data: &impl Serialize) -> anyhow::Result<()> {
        let text = serde_json::to_string_pretty(data)?;
        writeln!(io::stdout().lock(), "{text}")?;
        Ok(())
    }

    /// A line of data.
    pub(super) fn line(&self, text: &str) -> anyhow::Result<()> {
        writeln!(io::stdout().lock(), "{}", printable(text))?;
        Ok(())
    }

    /// A line of data with a coloured word in front.
    pub(super) fn finding(&self, tone: Tone, word: &str, text: &str) -> anyhow::Result<()> {
        let word = self.paint(io::stdout().is_terminal(), tone, word);
        writeln!(io::stdout().lock(), "{word} {}", printable(text))?;
        Ok(())
    }

    /// Rows under headings.
    pub(super) fn table(&self, headings: &[&str], rows: Vec<Vec<String>>) -> anyhow::Result<()> {
        writeln!(io::stdout().lock(), "{}", table(headings, rows))?;
        Ok(())
    }

    /// Text as it is, for pages made by this program.
    pub(super) fn raw(&self, bytes: &[u8]) -> anyhow::Result<()> {
        io::stdout().lock().write_all(bytes)?;
        Ok(())
    }

    /// What was done, or what to do next.
    pub(super) fn note(&self, text: &str) {
        // Standard error may be closed; there is nobody left to tell.
        let _ = writeln!(io::stderr().lock(), "{}", printable(text));
    }

    /// A question, to be answered on the same line.
    pub(super) fn prompt(&self, text: &str) {
        let _ = write!(io::stderr().lock(), "{}", printable(text));
    }

    pub(super) fn warning(&self, text: &str) {
        let word = self.paint(io::stderr().is_terminal(), Tone::Warn, "warning:");
        let _ = writeln!(io::stderr().lock(), "{word} {}", printable(text));
    }

    pub(super) fn error(&self, text: &str) {
        let word = self.paint(io::stderr().is_terminal(), Tone::Bad, "error:");
        let _ = writeln!(io::stderr().lock(), "{word} {}", printable(text));
    }

    /// Clears the screen for a watched page, where there is a screen.
    pub(super) fn clear(&self) -> anyhow::Result<()> {
        if io::stdout().is_terminal() {
            write!(io::stdout().lock(), "\x1b[H\x1b[2J")?;
        }
        Ok(())
    }

    /// Progress of long work, on standard error and only for a person. Without `total` it spins.
    pub(super) fn progress(&self, total: Option<u64>, what: &str) -> ProgressBar {
        let template = if total.is_some() { "{msg} {wide_bar} {pos}/{len} {eta}" } else { "{spinner} {msg} {pos}" };
        let bar = total.map_or_else(ProgressBar::new_spinner, ProgressBar::new);
        if let Ok(style) = ProgressStyle::with_template(template) {
            bar.set_style(style);
        }
        bar.with_message(what.to_owned())
    }

    fn paint(&self, is_terminal: bool, tone: Tone, text: &str) -> String {
        if !(self.colours && is_terminal) {
            return text.to_owned();
        }
        let code = match tone {
            Tone::Good => "32",
            Tone::Warn => "33",
            Tone::Bad => "31;1",
            Tone::Faint => "2",
        };
        format!("\x1b[{code}m{text}\x1b[0m")
    }
}

fn table(headings: &[&str], rows: Vec<Vec<String>>) -> String {
    let mut table = Table::new();
    table.load_preset(presets::NOTHING).set_content_arrangement(ContentArrangement::Disabled);
    table.set_header(headings.iter().map(|heading| heading.to_uppercase()));
    for row in rows {
        table.add_row(row.iter().map(|cell| printable(cell)));
    }
    for column in table.column_iter_mut() {
        column.set_padding((0, 2));
    }
    let text = table.to_string();
    let lines: Vec<&str> = text.lines().map(str::trim_end).collect();
    lines.join("\n")
}

/// Texts of applications and providers may hold control characters: a terminal must not obey them.
pub(super) fn printable(text: &str) -> String {
    text.chars().map(|c| if c.is_control() && c != '\n' { '\u{fffd}' } else { c }).collect()
}

/// One line of at most `most` characters.
pub(super) fn shortened(text: &str, most: usize) -> String {
    let line = text.split_whitespace().collect::<Vec<_>>().join(" ");
    if line.chars().count() <= most {
        return line;
    }
    line.chars().take(most.saturating_sub(1)).chain(['…']).collect()
}

/// A missing value in a table.
pub(super) fn or_dash<T: ToString>(value: Option<T>) -> String {
    value.map_or_else(|| "-".to_owned(), |value| value.to_string())
}

/// `2026-11-23 17:47:30Z`: to the second, in UTC.
pub(super) fn time(at: jiff::Timestamp) -> String {
    at.strftime("%Y-%m-%d %H:%M:%SZ").to_string()
}

/// Seconds as the two largest units: `4s`, `2m 5s`, `3h 10m`, `2d 4h`.
pub(super) fn age(seconds: f64) -> String {
    let seconds = seconds.max(0.0);
    if seconds < 1.0 {
        return format!("{:.0}ms", seconds * 1000.0);
    }
    let whole = seconds as u64;
    let (days, hours, minutes, rest) = (whole / 86_400, whole / 3600 % 24, whole / 60 % 60, whole % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{rest}s"),
        (0, 0, _) => format!("{minutes}m {rest}s"),
        (0, _, _) => format!("{hours}h {minutes}m"),
        _ => format!("{days}d {hours}h"),
    }
}

/// Bytes as PostgreSQL writes them in settings: `64MB`, `1GB`.
pub(super) fn size(bytes: i64) -> String {
    let units = [(1 << 30, "GB"), (1 << 20, "MB"), (1 << 10, "kB")];
    match units.into_iter().find(|(unit, _)| bytes >= *unit) {
        Some((unit, name)) if bytes % unit == 0 || bytes / unit >= 10 => format!("{}{name}", bytes / unit),
        Some((unit, name)) => format!("{:.1}{name}", bytes as f64 / unit as f64),
        None => format!("{bytes}B"),
    }
}

/// `1 message`, `2 messages`.
pub(super) fn count(number: i64, noun: &str) -> String {
    if number == 1 { format!("1 {noun}") } else { format!("{number} {noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tables_are_aligned_and_carry_no_control_characters() {
        let rows = vec![vec!["a".to_owned(), "10".to_owned()], vec!["\x1b[31mlong".to_owned(), "2".to_owned()]];
        assert_eq!(table(&["name", "n"], rows), "NAME       N\na          10\n\u{fffd}[31mlong  2");
    }

    #[test]
    fn ages_read_at_a_glance() {
        let shown: Vec<String> = [0.0421, 4.9, 125.0, 11_400.0, 187_200.0].into_iter().map(age).collect();
        assert_eq!(shown, ["42ms", "4s", "2m 5s", "3h 10m", "2d 4h"]);
    }

    #[test]
    fn sizes_are_written_like_settings() {
        let shown: Vec<String> = [1 << 30, 3 << 29, 64 << 20, 123_456_789, 512].into_iter().map(size).collect();
        assert_eq!(shown, ["1GB", "1.5GB", "64MB", "117MB", "512B"]);
    }

    #[test]
    fn long_texts_become_one_short_line() {
        assert_eq!(shortened("a\n  b", 5), "a b");
        assert_eq!(shortened("abcdef", 4), "abc…");
    }
}
