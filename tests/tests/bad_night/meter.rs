//! Buffers by kind of call and tenth of the night.

use std::fmt::Write;

use sms_outbox_tests::Major;

use crate::night::{BATCH, KINDS, REFUSED, Reading};

/// Buffers of one call at most so many times those of the first tenth.
const MOST: f64 = 2.0;

#[derive(Default)]
pub(crate) struct Meter {
    parts: Vec<(Reading, f64)>,
}

impl Meter {
    pub(crate) fn add(&mut self, reading: Reading, seconds: f64) {
        self.parts.push((reading, seconds));
    }

    fn series(&self, kind: &str) -> Vec<f64> {
        self.parts.iter().map(|(reading, _)| reading.get(kind).map_or(f64::NAN, |(buffers, by)| buffers / by)).collect()
    }

    /// Kinds that read more in the last tenth than twice what they read in the first. What is called every few seconds alone may read
    /// as much as two claims: it reads the leases of the last seconds, of which the first tenth has none, or a row that it wrote each time.
    pub(crate) fn faults(&self) -> Vec<String> {
        let claim = self.series("claim")[0];
        let mut faults = Vec::new();
        for kind in KINDS {
            let series = self.series(kind);
            let (first, last) = (series[0], series[series.len() - 1]);
            let most =
                if ["leases", "heartbeat", "run_maintenance"].contains(&kind) { first.max(claim) } else { first }
                    * MOST;
            // Nor is what was not called at all.
            if last.is_nan() || most.is_nan() || last > most {
                faults.push(format!("{kind}: {first:.1} buffers in the first tenth, {last:.1} in the last"));
            }
        }
        faults
    }

    pub(crate) fn table(&self) -> String {
        let mut text = String::from("| buffers |");
        for part in 1..=self.parts.len() {
            let _ = write!(text, " {part} |");
        }
        let _ = write!(text, " last ÷ first |\n| --- |{}\n", " ---: |".repeat(self.parts.len() + 1));
        for kind in KINDS {
            let series = self.series(kind);
            let _ = write!(text, "| {kind} |");
            for value in &series {
                let _ = write!(text, " {value:.1} |");
            }
            let _ = writeln!(text, " {:.2} |", series[series.len() - 1] / series[0]);
        }
        let _ = write!(text, "| seconds |");
        for (_, seconds) in &self.parts {
            let _ = write!(text, " {seconds:.0} |");
        }
        text + " |\n"
    }

    pub(crate) fn summary(&self, messages: usize, major: Major, setting: &str, table: &str) -> String {
        let seconds: f64 = self.parts.iter().map(|(_, seconds)| seconds).sum();
        let verdict = match self.faults().as_slice() {
            [] => "what each call reads stayed flat".to_owned(),
            faults => format!("NOT flat: {}", faults.join("; ")),
        };
        format!(
            "# Bad night: {messages} messages, {verdict}\n\n\
             `make bad-night MESSAGES={messages}`; PostgreSQL {major}; {setting}.\n\n\
             {messages} messages waited. Held for the whole run: a snapshot in the database, and a transaction that writes in another one; \
             autovacuum off. Then one session drained all of it in {seconds:.0} s: claims of {BATCH}, each finished at once, one message in \
             {REFUSED} refused; and after ten claims each, what workers and the server call every few seconds. Buffers (pages of 8 kB, found in \
             memory or not) of one call, by tenth of the night:\n\n{table}"
        )
    }
}
