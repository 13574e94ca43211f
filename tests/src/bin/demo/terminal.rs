//! What the demo prints: readable without colours, coloured on a terminal only, at most [`WIDTH`] wide.

use std::cell::{Cell, RefCell};
use std::fmt::Display;
use std::io::{IsTerminal, Write, stdout};
use std::time::Duration;

/// Longest line, in characters.
pub(crate) const WIDTH: usize = 98;

const INDENT: usize = 4;
const LABEL: usize = 10;
const TIME: usize = 8;

const BOLD: &str = "1";
const FAINT: &str = "2";
const GREEN: &str = "32";
const RED: &str = "31";

/// Standard output.
pub(crate) struct Terminal {
    colours: bool,
    steps: Cell<u32>,
    step: RefCell<String>,
}

impl Terminal {
    pub(crate) fn new() -> Self {
        // https://no-color.org: set and not empty, whatever the value.
        let refused = std::env::var_os("NO_COLOR").is_some_and(|value| !value.is_empty());
        Self {
            colours: stdout().is_terminal() && !refused,
            steps: Cell::new(0),
            step: RefCell::new("getting ready".to_owned()),
        }
    }

    /// A heading.
    pub(crate) fn heading(&self, text: &str) {
        self.put(&format!("\n{}", self.paint(BOLD, text)));
    }

    /// The next step of the story.
    pub(crate) fn step(&self, title: &str) {
        self.steps.set(self.steps.get() + 1);
        self.step.replace(format!("step {}, '{title}'", self.steps.get()));
        self.put(&format!("\n{:>2}. {}", self.steps.get(), self.paint(BOLD, title)));
    }

    /// The step that is shown now, for errors.
    pub(crate) fn current_step(&self) -> String {
        self.step.borrow().clone()
    }

    /// What is done: by whom or what, and what.
    pub(crate) fn does(&self, who: &str, what: impl Display) {
        for (line, label) in wrap(&what.to_string(), WIDTH - INDENT - LABEL).iter().zip(labels(who)) {
            self.put(&self.paint(FAINT, &format!("{:INDENT$}{label:LABEL$}{line}", "")));
        }
    }

    /// What was observed, and how long it took.
    pub(crate) fn sees(&self, what: impl Display, took: Duration) {
        let width = WIDTH - INDENT - LABEL - TIME;
        let lines = wrap(&what.to_string(), width);
        for (place, (line, label)) in lines.iter().zip(labels("ok")).enumerate() {
            let label = self.paint(GREEN, &format!("{label:LABEL$}"));
            let time = if place + 1 == lines.len() { format!("{:>6.2} s", took.as_secs_f64()) } else { String::new() };
            let pad = width.saturating_sub(line.chars().count());
            self.put(format!("{:INDENT$}{label}{line}{:pad$}{}", "", "", self.paint(FAINT, &time)).trim_end());
        }
    }

    /// A remark.
    pub(crate) fn note(&self, text: impl Display) {
        for line in wrap(&text.to_string(), WIDTH) {
            self.put(&self.paint(FAINT, &line));
        }
    }

    /// Text as it is, for what others laid out.
    pub(crate) fn block(&self, text: &str) {
        for line in text.trim_end().lines() {
            self.put(line.trim_end());
        }
    }

    /// The last word.
    pub(crate) fn verdict(&self, good: bool, text: impl Display) {
        self.put(&format!("\n{}", self.paint(if good { GREEN } else { RED }, &text.to_string())));
    }

    fn paint(&self, colour: &str, text: &str) -> String {
        if self.colours && !text.is_empty() { format!("\x1b[{colour}m{text}\x1b[0m") } else { text.to_owned() }
    }

    fn put(&self, line: &str) {
        // A reader that left (`make demo | head`) does not end the demo: it is judged by its exit code.
        let _ = writeln!(stdout(), "{line}").and_then(|()| stdout().flush());
    }
}

/// The label on the first line, none on the others.
fn labels(first: &str) -> impl Iterator<Item = &str> {
    std::iter::once(first).chain(std::iter::repeat(""))
}

/// Breaks text between words into lines of at most `width` characters; a longer word has its own line.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split(' ') {
        let last = lines.len() - 1;
        let length = lines[last].chars().count();
        if length == 0 {
            lines[last].push_str(word);
        } else if length + 1 + word.chars().count() <= width {
            lines[last].push(' ');
            lines[last].push_str(word);
        } else {
            lines.push(word.to_owned());
        }
    }
    lines
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lines_break_between_words() {
        assert_eq!(wrap("one two three", 7), ["one two", "three"]);
        assert_eq!(wrap("طلبك جاهز", 9), ["طلبك جاهز"]);
        assert_eq!(wrap("longer-than-the-line x", 8), ["longer-than-the-line", "x"]);
        assert_eq!(wrap("", 8), [""]);
    }
}
