//! What is aimed at: each a ratio of figures of one run, or a figure that needs none.

use crate::OURS;
use crate::record::{Figure, Line};

/// What our figure is divided by.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Against {
    /// A figure of another case or contender.
    Figure {
        part: &'static str,
        case: &'static str,
        who: &'static str,
    },
    /// The figure, in the same case, of the best peer: of the highest, or of the lowest one.
    HighestPeer,
    LowestPeer,
    /// Nothing: the figure itself is judged.
    Nothing,
}

/// What is aimed at.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Bound {
    AtLeast(f64),
    AtMost(f64),
}

/// A goal.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Goal {
    pub(crate) text: &'static str,
    pub(crate) part: &'static str,
    pub(crate) case: &'static str,
    pub(crate) who: &'static str,
    pub(crate) against: Against,
    pub(crate) bound: Bound,
}

/// Where a goal stands.
#[derive(Clone, Debug)]
pub(crate) struct Standing {
    pub(crate) ratio: Spread,
    pub(crate) ours: f64,
    pub(crate) other: Option<(String, f64)>,
    pub(crate) unit: String,
    pub(crate) reached: bool,
    pub(crate) noisy: usize,
}

/// The middle of several values, and how far they lie apart.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Spread {
    pub(crate) median: f64,
    pub(crate) least: f64,
    pub(crate) most: f64,
    pub(crate) count: usize,
}

impl Spread {
    /// Of these values, if there is one.
    pub(crate) fn of(mut values: Vec<f64>) -> Option<Self> {
        values.sort_by(f64::total_cmp);
        let (least, most, count) = (*values.first()?, *values.last()?, values.len());
        let middle = count / 2;
        let median = if count % 2 == 1 { values[middle] } else { f64::midpoint(values[middle - 1], values[middle]) };
        Some(Self { median, least, most, count })
    }
}

const fn goal(text: &'static str, part: &'static str, case: &'static str, against: Against, bound: Bound) -> Goal {
    Goal { text, part, case, who: OURS, against, bound }
}

const fn figure(part: &'static str, case: &'static str, who: &'static str) -> Against {
    Against::Figure { part, case, who }
}

use Against::{HighestPeer, LowestPeer, Nothing};
use Bound::{AtLeast, AtMost};

/// All of them, in the order of the table.
pub(crate) const GOALS: &[Goal] = &[
    goal(
        "enqueue, one a transaction, 1 client ÷ bare INSERT",
        "enqueue",
        "1 client",
        figure("enqueue", "1 client", "bare"),
        AtLeast(0.85),
    ),
    goal("the same, 16 clients", "enqueue", "16 clients", figure("enqueue", "16 clients", "bare"), AtLeast(0.85)),
    goal(
        "a message inside one transaction ÷ bare, set-based",
        "one transaction",
        "set-based",
        figure("one transaction", "set-based", "bare"),
        AtMost(2.0),
    ),
    goal(
        "the same, one by one in a PL/pgSQL loop",
        "one transaction",
        "PL/pgSQL loop",
        figure("one transaction", "PL/pgSQL loop", "bare"),
        AtMost(2.0),
    ),
    goal(
        "enqueue with an idempotency key ÷ without, 1 client",
        "enqueue",
        "1 client, key",
        figure("enqueue", "1 client", OURS),
        AtLeast(0.8),
    ),
    goal("the same, 16 clients", "enqueue", "16 clients, key", figure("enqueue", "16 clients", OURS), AtLeast(0.8)),
    goal("drain, an HTTP request each ÷ best peer", "drain", "a request each", HighestPeer, AtLeast(3.0)),
    goal(
        "drain ÷ our own HTTP client alone",
        "drain",
        "a request each",
        figure("drain", "a request each", "our HTTP client"),
        AtLeast(0.6),
    ),
    goal("drain with no request ÷ best peer", "no request", "claim and finish", HighestPeer, AtLeast(2.0)),
    goal("commit to request, idle, p50 ÷ best peer", "latency", "idle, p50", LowestPeer, AtMost(1.0)),
    goal("commit to request, idle, p99 ÷ best peer", "latency", "idle, p99", LowestPeer, AtMost(0.8)),
    goal(
        "commit to request at half load ÷ idle, p99",
        "latency",
        "half load, p99",
        figure("latency", "idle, p99", OURS),
        AtMost(5.0),
    ),
    goal(
        "claim and finish under a pinned snapshot, last ÷ first",
        "backlog",
        "snapshot pinned, at last",
        figure("backlog", "snapshot pinned, at first", OURS),
        AtLeast(0.8),
    ),
    goal(
        "CPU of a claim, large backlog ÷ 1k",
        "backlog",
        "look and claim of 100, at the large backlog",
        figure("backlog", "look and claim of 100, at 1k", OURS),
        AtMost(2.0),
    ),
    goal(
        "WAL of a message, enqueue to sent, without page images",
        "storage",
        "WAL without page images",
        Nothing,
        AtMost(1600.0),
    ),
    goal("disk of a kept message", "storage", "disk", Nothing, AtMost(1100.0)),
    goal(
        "retention of up to 1M: the longest enqueue meanwhile",
        "retention",
        "longest enqueue meanwhile",
        Nothing,
        AtMost(1000.0),
    ),
    goal("the same: dead rows left", "retention", "dead rows left", Nothing, AtMost(0.0)),
    goal("the same: disk left", "retention", "disk left", Nothing, AtMost(5.0)),
    goal(
        "a quiet organization's p99, beside a backlog ÷ alone",
        "latency",
        "beside a backlog, p99",
        figure("latency", "alone, p99", OURS),
        AtMost(3.0),
    ),
    goal("memory of a worker at the large backlog", "workers", "memory at the large backlog", Nothing, AtMost(64.0)),
    goal(
        "the same ÷ at 10k",
        "workers",
        "memory at the large backlog",
        figure("workers", "memory at 10k", OURS),
        AtMost(1.1),
    ),
    goal("two workers ÷ one", "workers", "2 workers", figure("workers", "1 worker", OURS), AtLeast(1.0)),
    goal("four workers ÷ one", "workers", "4 workers", figure("workers", "1 worker", OURS), AtLeast(1.0)),
    goal(
        "a provider of 100 ms, 256 in flight ÷ 64",
        "workers",
        "100 ms an answer, 256 in flight",
        figure("workers", "100 ms an answer, 64 in flight", OURS),
        AtLeast(3.6),
    ),
    Goal {
        who: "the provider",
        ..goal(
            "what the pretend provider takes ÷ what our worker sends",
            "HTTP alone",
            "takes at most",
            figure("drain", "a request each", OURS),
            AtLeast(5.0),
        )
    },
];

/// Whose figures are no peer's.
const NO_PEERS: [&str; 4] = [OURS, "bare", "our HTTP client", "the provider"];

/// The figures of one contender in one case.
pub(crate) fn figures<'a>(lines: &'a [Line], part: &str, case: &str, who: &str) -> Vec<&'a Figure> {
    all(lines).filter(|figure| figure.part == part && figure.case == case && figure.who == who).collect()
}

/// All figures.
pub(crate) fn all(lines: &[Line]) -> impl Iterator<Item = &Figure> {
    lines.iter().filter_map(|line| match line {
        Line::Figure(figure) => Some(figure),
        Line::Run(_) | Line::Absent(_) => None,
    })
}

impl Goal {
    /// Where it stands by these results: the middle of the ratios of each round. Nothing where a figure is missing.
    pub(crate) fn standing(&self, lines: &[Line]) -> Option<Standing> {
        let ours = figures(lines, self.part, self.case, self.who);
        let other = match self.against {
            Nothing => None,
            Against::Figure { part, case, who } => Some((who.to_owned(), figures(lines, part, case, who))),
            HighestPeer => Some(self.best_peer(lines, 1.0)?),
            LowestPeer => Some(self.best_peer(lines, -1.0)?),
        };
        let ratios = ours.iter().filter_map(|figure| match &other {
            None => Some(figure.value),
            Some((_, others)) => Some(figure.value / others.iter().find(|other| other.round == figure.round)?.value),
        });
        let ratio = Spread::of(ratios.collect())?;
        let values = |figures: &[&Figure]| Spread::of(figures.iter().map(|figure| figure.value).collect());
        let noisy = ours.iter().chain(other.iter().flat_map(|(_, others)| others)).filter(|figure| figure.is_noisy());
        Some(Standing {
            ratio,
            ours: values(&ours)?.median,
            unit: ours.first()?.unit.clone(),
            reached: match self.bound {
                AtLeast(bound) => ratio.median >= bound,
                AtMost(bound) => ratio.median <= bound,
            },
            noisy: noisy.count(),
            other: match other {
                Some((who, others)) => Some((who, values(&others)?.median)),
                None => None,
            },
        })
    }

    fn best_peer<'a>(&self, lines: &'a [Line], sign: f64) -> Option<(String, Vec<&'a Figure>)> {
        let mut names: Vec<&str> = all(lines)
            .filter(|figure| figure.part == self.part && figure.case == self.case)
            .map(|figure| figure.who.as_str())
            .filter(|who| !NO_PEERS.contains(who))
            .collect();
        names.sort_unstable();
        names.dedup();
        let median = |who: &str| {
            let values = figures(lines, self.part, self.case, who).iter().map(|figure| figure.value).collect();
            Spread::of(values).map_or(f64::NEG_INFINITY, |spread| sign * spread.median)
        };
        let best = names.into_iter().max_by(|one, other| median(one).total_cmp(&median(other)))?;
        Some((best.to_owned(), figures(lines, self.part, self.case, best)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn line(case: &str, who: &str, round: u32, value: f64) -> Line {
        let (part, unit) = ("drain".to_owned(), "messages/s".to_owned());
        Line::Figure(Figure { part, case: case.to_owned(), who: who.to_owned(), round, value, unit, foreign: 0.0 })
    }

    #[test]
    fn compares_within_rounds_and_with_the_best_peer() {
        let case = "a request each";
        let lines = [
            line(case, OURS, 1, 30.0),
            line(case, OURS, 2, 10.0),
            line(case, "slow", 1, 1.0),
            line(case, "fast", 1, 10.0),
            line(case, "fast", 2, 5.0),
            line(case, "bare", 1, 1000.0),
        ];
        let goal = goal("", "drain", case, HighestPeer, AtLeast(3.0));
        let standing = goal.standing(&lines).expect("figures");
        assert_eq!(standing.other.map(|(who, _)| who).as_deref(), Some("fast"));
        assert!((standing.ratio.median - 2.5).abs() < 1e-9, "{:?}", standing.ratio);
        assert!((standing.ratio.least - 2.0).abs() < 1e-9 && (standing.ratio.most - 3.0).abs() < 1e-9);
        assert!(!standing.reached);
    }

    #[test]
    fn says_nothing_without_figures() {
        assert!(GOALS.iter().all(|goal| goal.standing(&[]).is_none()));
    }
}
