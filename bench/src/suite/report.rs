//! Writes tables and charts into docs/benchmarks.md from the raw results, between two marks.

use std::fs;
use std::path::Path;

use anyhow::{Context, Result};
use sms_outbox_bench::say;
use sms_outbox_tests::paths;

use crate::OURS;
use crate::chart::{bars, number_of};
use crate::goals::{self, Bound, GOALS, Goal, Spread};
use crate::parts::budget;
use crate::record::{Line, Run};

const BEGIN: &str = "<!-- The suite writes from here: make bench -->";
const END: &str = "<!-- to here -->";

/// What is drawn: file, title, part, case.
const CHARTS: [(&str, &str, &str, &str); 6] = [
    ("enqueue-1", "Enqueue, one a transaction, 1 client", "enqueue", "1 client"),
    ("enqueue-16", "Enqueue, one a transaction, 16 clients", "enqueue", "16 clients"),
    ("drain", "Drain, an HTTP request each", "drain", "a request each"),
    ("no-request", "Drain, no request", "no request", "claim and finish"),
    ("latency-p50", "Commit to request, idle queue, p50 (less is better)", "latency", "idle, p50"),
    ("latency-p99", "Commit to request, idle queue, p99 (less is better)", "latency", "idle, p99"),
];

/// Writes the page and the charts.
pub(crate) fn write(lines: &[Line]) -> Result<()> {
    let page = paths::checkout("docs/benchmarks.md");
    let text = fs::read_to_string(&page)?;
    let (before, rest) = text.split_once(BEGIN).with_context(|| format!("{} has no '{BEGIN}'", page.display()))?;
    let (_, after) = rest.split_once(END).with_context(|| format!("{} has no '{END}'", page.display()))?;
    let mut tables = String::new();
    for line in lines {
        if let Line::Run(run) = line {
            tables.push_str(&heading(run));
        }
    }
    tables.push_str(&goals_table(lines));
    tables.push_str(&charts(lines, &paths::checkout("docs/benchmarks"))?);
    tables.push_str(&budget_table(lines));
    tables.push_str(&figures_table(lines));
    tables.push_str(&peers_table(lines));
    fs::write(&page, format!("{before}{BEGIN}\n\n{}\n{END}{after}", tables.trim_end()))?;
    say(&format!("written: {}", page.display()));
    Ok(())
}

fn heading(run: &Run) -> String {
    format!("`{}`, {}, {}; {}; {}.\n\n", run.command, run.began, run.machine, run.postgres, run.settings.join(", "))
}

fn goals_table(lines: &[Line]) -> String {
    let mut table = "| what | ratio, median (least to most) | goal | reached | ours | against |\n| --- | --- | --- | --- | --- | --- |\n".to_owned();
    for goal in GOALS {
        table.push_str(&goal_row(goal, lines));
    }
    table.push_str(&format!(
        "\n'noisy': figures in whose round other programs used more than {:.0}% of the machine; they may be wrong by as much.\n\n",
        crate::load::NOISY * 100.0
    ));
    table
}

fn goal_row(goal: &Goal, lines: &[Line]) -> String {
    let aim = match goal.bound {
        Bound::AtLeast(bound) => format!("≥ {}", number_of(bound)),
        Bound::AtMost(bound) => format!("≤ {}", number_of(bound)),
    };
    let Some(standing) = goal.standing(lines) else {
        return format!("| {} | not measured in this run | {aim} | | | |\n", goal.text);
    };
    let spread = if standing.ratio.count > 1 {
        format!(" ({} to {})", number_of(standing.ratio.least), number_of(standing.ratio.most))
    } else {
        String::new()
    };
    let noisy = if standing.noisy > 0 { format!(", {} noisy", standing.noisy) } else { String::new() };
    let other = standing.other.map(|(who, value)| format!("{} {who}", number_of(value))).unwrap_or_default();
    format!(
        "| {} | {}{spread}{noisy} | {aim} | {} | {} {} | {other} |\n",
        goal.text,
        number_of(standing.ratio.median),
        if standing.reached { "yes" } else { "**no**" },
        number_of(standing.ours),
        standing.unit,
    )
}

/// The cases and contenders that there are, in the order in which they were measured.
fn contenders(lines: &[Line]) -> Vec<(&str, &str, &str)> {
    let mut seen = Vec::new();
    for figure in goals::all(lines) {
        let key = (figure.part.as_str(), figure.case.as_str(), figure.who.as_str());
        if !seen.contains(&key) {
            seen.push(key);
        }
    }
    seen
}

/// Each step of a message's life.
fn budget_table(lines: &[Line]) -> String {
    let mut steps: Vec<(&str, &str)> = Vec::new();
    for (_, case, who) in contenders(lines).into_iter().filter(|(part, _, _)| *part == budget::PART) {
        let step = (case.split(budget::BETWEEN).next().unwrap_or(case), who);
        if !steps.contains(&step) {
            steps.push(step);
        }
    }
    if steps.is_empty() {
        return String::new();
    }
    let mut table = "### What each step costs the server\n\nOf the backend that does it, for one message; WAL with the page images that fell due. \
        Wake-ups, the background worker and the first calls of a session are not in it.\n\n| step | CPU, µs | WAL, bytes | buffers |\n| --- | --- | --- | --- |\n"
        .to_owned();
    for (step, who) in steps {
        let cells = budget::COLUMNS.map(|(column, _)| {
            let case = format!("{step}{}{column}", budget::BETWEEN);
            let values = goals::figures(lines, budget::PART, &case, who).iter().map(|figure| figure.value).collect();
            Spread::of(values).map_or_else(String::new, |spread| number_of(spread.median))
        });
        table.push_str(&format!("| {step} | {} |\n", cells.join(" | ")));
    }
    table + "\n"
}

fn figures_table(lines: &[Line]) -> String {
    let mut table = "### All figures\n\n| part | case | who | median (least to most) | unit | rounds | noisy |\n| --- | --- | --- | --- | --- | --- | --- |\n".to_owned();
    let mut all = contenders(lines);
    all.retain(|(part, _, _)| *part != budget::PART);
    // Stable: contenders of one case stand together, as they came.
    let cases: Vec<(&str, &str)> = all.iter().map(|(part, case, _)| (*part, *case)).collect();
    all.sort_by_key(|(part, case, _)| cases.iter().position(|other| other == &(*part, *case)));
    for (part, case, who) in all {
        let figures = goals::figures(lines, part, case, who);
        let noisy = figures.iter().filter(|figure| figure.is_noisy()).count();
        let unit = figures.first().map_or("", |figure| figure.unit.as_str());
        if let Some(spread) = Spread::of(figures.iter().map(|figure| figure.value).collect()) {
            table.push_str(&format!(
                "| {part} | {case} | {who} | {} ({} to {}) | {unit} | {} | {noisy} |\n",
                number_of(spread.median),
                number_of(spread.least),
                number_of(spread.most),
                spread.count
            ));
        }
    }
    table + "\n"
}

fn peers_table(lines: &[Line]) -> String {
    let mut table = "### Versions and settings\n\n| what | version, settings |\n| --- | --- |\n".to_owned();
    for line in lines {
        if let Line::Run(run) = line {
            for (what, version) in &run.versions {
                table.push_str(&format!("| {what} | {} |\n", cell(version)));
            }
        }
    }
    let mut absent: Vec<String> = lines
        .iter()
        .filter_map(|line| match line {
            Line::Absent(absent) => {
                Some(format!("| {}, {} | no figure: {} |\n", absent.who, absent.part, cell(&absent.reason)))
            }
            Line::Run(_) | Line::Figure(_) => None,
        })
        .collect();
    absent.dedup();
    table + &absent.concat()
}

fn cell(text: &str) -> String {
    text.replace('|', "\\|").replace('\n', " ")
}

fn charts(lines: &[Line], folder: &Path) -> Result<String> {
    fs::create_dir_all(folder)?;
    let mut shown = String::new();
    for (file, title, part, case) in CHARTS {
        let rows: Vec<(String, Spread)> = contenders(lines)
            .into_iter()
            .filter(|(of, with, _)| *of == part && *with == case)
            .filter_map(|(_, _, who)| {
                let values = goals::figures(lines, part, case, who).iter().map(|figure| figure.value).collect();
                Some((who.to_owned(), Spread::of(values)?))
            })
            .collect();
        let unit = goals::figures(lines, part, case, OURS).first().map(|figure| figure.unit.clone());
        if let Some(unit) = unit {
            fs::write(folder.join(format!("{file}.svg")), bars(title, &unit, &rows))?;
            shown.push_str(&format!("![{title}](benchmarks/{file}.svg)\n\n"));
        }
    }
    Ok(shown)
}

/// Compares the ratios of a run with those that are committed: whether one is worse by more than `tolerance`, in rounds without noise.
pub(crate) fn compare(lines: &[Line], committed: &[Line], tolerance: f64) -> bool {
    let mut worse = false;
    for goal in GOALS {
        let (Some(now), Some(then)) = (goal.standing(lines), goal.standing(committed)) else { continue };
        let change = match goal.bound {
            Bound::AtLeast(_) => now.ratio.median / then.ratio.median,
            Bound::AtMost(_) => then.ratio.median / now.ratio.median,
        };
        let is_worse = change < 1.0 - tolerance;
        worse |= is_worse && now.noisy == 0;
        let verdict = match (is_worse, now.noisy) {
            (true, 0) => "WORSE",
            (true, _) => "worse, but noisy: try again",
            (false, _) => "",
        };
        say(&format!(
            "{:<58} {:>8} (committed {:>8}) {verdict}",
            goal.text,
            number_of(now.ratio.median),
            number_of(then.ratio.median)
        ));
    }
    worse
}
