//! The summary of a run, in Markdown, to be kept beside the documents.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::time::Duration;

use sms_outbox_tests::history::Verdict;

use crate::meter::{Meter, Sample};
use crate::round::Outcome;

/// What a reader must know to have the same run again.
pub(crate) struct Setting {
    pub(crate) command: String,
    pub(crate) version: String,
    pub(crate) server: String,
    pub(crate) machine: String,
    pub(crate) rate: u64,
}

/// Bars of a chart, from none to most.
const BARS: [char; 8] = ['▁', '▂', '▃', '▄', '▅', '▆', '▇', '█'];
const CHART_WIDTH: usize = 60;

pub(crate) fn write(setting: &Setting, rounds: &[Outcome], last: &Verdict, canceled: u64, meter: &Meter) -> String {
    let mut text = String::new();
    let good = last.holds() && rounds.iter().all(|round| round.verdict.holds());
    let counts = &last.counts;
    let loaded: Duration = rounds.iter().map(|round| round.loaded).sum();
    let faults = all_faults(rounds);
    let unclear = counts.by_status.get("dispatch_timeout").copied().unwrap_or_default();
    let _ = writeln!(
        text,
        "# Soak: {} messages, {} faults, {}\n",
        counts.committed,
        faults.values().sum::<u64>(),
        if good { "every rule held" } else { "NOT every rule held" }
    );
    let _ = writeln!(
        text,
        "`{}`; sms_outbox {}, PostgreSQL {}; {}.\n",
        setting.command, setting.version, setting.server, setting.machine
    );
    let _ = writeln!(text, "| | |\n| --- | ---: |");
    let mut line = |what: &str, value: String| {
        let _ = writeln!(text, "| {what} | {value} |");
    };
    line("under load", format!("{:.0} s in {} rounds", loaded.as_secs_f64(), rounds.len()));
    line("committed messages", counts.committed.to_string());
    line(
        "a second, on average, faults and all (asked for)",
        format!("{:.0} ({})", counts.committed as f64 / loaded.as_secs_f64(), setting.rate),
    );
    line("rolled back", rounds.iter().map(|round| round.rolled_back).sum::<u64>().to_string());
    line("repeated under their key", rounds.iter().map(|round| round.replayed).sum::<u64>().to_string());
    line("the connection broke at COMMIT", rounds.iter().map(|round| round.in_doubt).sum::<u64>().to_string());
    line("canceled by an operator", canceled.to_string());
    line("retried by an operator", counts.retries.to_string());
    for (status, count) in &counts.by_status {
        line(&format!("ended as `{status}`"), count.to_string());
    }
    line("requests, accepted", format!("{}, {}", counts.requests, counts.accepted));
    line("**lost**", format!("**{}**", counts.lost));
    line("**accepted twice without leave**", format!("**{}**", counts.twice));
    line(
        "unclear by a fault, by id (beside them, by a stopped worker or a killed provider)",
        format!("{} ({})", counts.unclear_expected, unclear.saturating_sub(counts.unclear_expected)),
    );
    line("unclear found", unclear.to_string());

    let _ = writeln!(text, "\n## Faults\n\n| fault | times |\n| --- | ---: |");
    for (kind, times) in &faults {
        let _ = writeln!(text, "| {kind} | {times} |");
    }
    let _ = writeln!(
        text,
        "\n## Rounds\n\nEach ends when its last message is over, and is then judged by itself; in the end all of them are, at once.\n"
    );
    let _ = writeln!(
        text,
        "| round | load | until all was over | messages | faults | lost | twice | unclear | rules |\n| ---: | ---: | ---: | ---: | ---: | ---: | ---: | ---: | --- |"
    );
    for (number, round) in rounds.iter().enumerate() {
        let counts = &round.verdict.counts;
        let _ = writeln!(
            text,
            "| {} | {:.0} s | {:.0} s | {} | {} | {} | {} | {} | {} |",
            number + 1,
            round.loaded.as_secs_f64(),
            round.settled.as_secs_f64(),
            counts.committed,
            round.faults.values().sum::<u64>(),
            counts.lost,
            counts.twice,
            counts.by_status.get("dispatch_timeout").copied().unwrap_or_default(),
            if round.verdict.holds() { "hold" } else { "BROKEN" },
        );
    }
    resources(&mut text, meter);
    let _ = writeln!(text, "\n## Verdict on all messages\n\n```text\n{last}\n```");
    text
}

fn all_faults(rounds: &[Outcome]) -> BTreeMap<&'static str, u64> {
    let mut faults = BTreeMap::new();
    for (kind, times) in rounds.iter().flat_map(|round| &round.faults) {
        *faults.entry(*kind).or_default() += times;
    }
    faults
}

fn resources(text: &mut String, meter: &Meter) {
    let _ = writeln!(text, "\n## Memory and file descriptors\n");
    let _ = writeln!(
        text,
        "Resident memory, from the start to the end; of the server what its processes do not share. Worker 0 is never killed.\n"
    );
    let _ = writeln!(
        text,
        "| process | lives | at first | median | most | at last | descriptors, most | at last |\n| --- | ---: | ---: | ---: | ---: | ---: | ---: | ---: |"
    );
    for (name, samples) in &meter.0 {
        let (Some(first), Some(last)) = (samples.first(), samples.last()) else { continue };
        let mut sorted: Vec<u64> = samples.iter().map(|sample| sample.kilobytes).collect();
        sorted.sort_unstable();
        let lives = samples.windows(2).filter(|pair| pair[0].pid != pair[1].pid).count() + 1;
        let megabytes = |kilobytes: u64| format!("{} MB", kilobytes / 1024);
        let _ = writeln!(
            text,
            "| {name} | {lives} | {} | {} | {} | {} | {} | {} |",
            megabytes(first.kilobytes),
            megabytes(sorted[sorted.len() / 2]),
            megabytes(sorted.last().copied().unwrap_or_default()),
            megabytes(last.kilobytes),
            samples.iter().map(|sample| sample.descriptors).max().unwrap_or_default(),
            last.descriptors,
        );
    }
    let _ = writeln!(text, "\n```text");
    for (name, samples) in &meter.0 {
        let _ = writeln!(text, "{name:<18} memory      {}", chart(samples, |sample| sample.kilobytes as f64));
        let _ = writeln!(text, "{:<18} descriptors {}", "", chart(samples, |sample| sample.descriptors as f64));
    }
    let minutes =
        meter.0.values().filter_map(|samples| samples.last()).map(|sample| sample.minutes).fold(0.0, f64::max);
    let _ = writeln!(text, "{:<30} 0 {:>width$}\n```", "", format!("{minutes:.0} minutes"), width = CHART_WIDTH - 2);
}

/// One bar for each stretch of time: the most in it, from nothing to the most of all.
fn chart(samples: &[Sample], value: impl Fn(&Sample) -> f64) -> String {
    let most = samples.iter().map(&value).fold(1.0, f64::max);
    let stretch = samples.len().div_ceil(CHART_WIDTH).max(1);
    let bar = |stretch: &[Sample]| {
        let part = stretch.iter().map(&value).fold(0.0, f64::max) / most;
        BARS[((part * 7.0).round() as usize).min(7)]
    };
    samples.chunks(stretch).map(bar).collect()
}
