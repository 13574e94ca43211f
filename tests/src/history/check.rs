//! The rules of a message's life, and which message breaks which. Pure: everything that is judged stands in the journals.

use std::collections::BTreeSet;

use jiff::{SignedDuration, Timestamp};

use super::gather::{Attempt, Expectation, Histories, History, Seen, Standing};
use super::journal::{Id, Outcome, Place, Reading, Status};
use super::verdict::{Breach, Verdict};

/// What must hold of every message.
pub const RULES: [(u8, &str); 13] = [
    (1, "a message has one live attempt at a time; its attempts are numbered 1, 2, 3, … and follow one another"),
    (2, "a request comes after the claim of its attempt was written, and an attempt is one request at most"),
    (
        3,
        "a provider that does not deduplicate accepts a message once, and what is unclear is not tried again; but after an operator's retry, or by an app that sends unclear ones again",
    ),
    (4, "a provider that deduplicates lets a key take effect once within its window"),
    (5, "sent has a proof, and the provider did accept it"),
    (6, "failed means that no provider accepted it, and so does every attempt that is known not to have sent"),
    (7, "an attempt's acceptance is that of its own request, not of an earlier one's"),
    (8, "what was committed is in exactly one place, as it was enqueued; what was rolled back is nowhere"),
    (9, "a message is gone only when it had ended and was kept as long as promised"),
    (10, "no request is made after canceled or expired"),
    (11, "a due message is tried while a worker and an app are there for it"),
    (12, "an attempt ends with its lease while maintenance runs"),
    (13, "dispatch_timeout are exactly the messages that a fault left unclear"),
];

/// How long what ought to happen soon may take, before it counts as never.
const PATIENCE: SignedDuration = SignedDuration::from_secs(120);

/// Judges every message.
pub fn check(all: &Histories) -> Verdict {
    let mut verdict = Verdict::default();
    for line in &all.stray {
        let what = format!("line {line} of the provider's journal: a request for a message that nobody enqueued");
        verdict.broken.push(Breach { rule: 8, message: None, what });
    }
    for line in &all.ambiguous {
        let what = format!("line {line} of the provider's journal fits several messages: give each its own text");
        verdict.unreadable.push(what);
    }
    let mut ids: Vec<&Id> = all.messages.keys().collect();
    ids.sort_unstable();
    for id in ids {
        let mut case = Case { id: *id, history: &all.messages[id], all, verdict: &mut verdict };
        case.count();
        case.judge();
    }
    let broken = |rule: u8| verdict.broken.iter().filter(move |breach| breach.rule == rule);
    let twice: BTreeSet<Option<Id>> = broken(3).map(|breach| breach.message).collect();
    verdict.counts.twice = twice.len();
    verdict
}

/// One message on trial.
struct Case<'a> {
    id: Id,
    history: &'a History,
    all: &'a Histories,
    verdict: &'a mut Verdict,
}

impl<'a> Case<'a> {
    fn breaks(&mut self, rule: u8, what: impl Into<String>) {
        self.verdict.broken.push(Breach { rule, message: Some(self.id), what: what.into() });
    }

    fn unknown(&mut self, what: impl Into<String>) {
        self.verdict.unknown.insert(self.id, what.into());
    }

    /// The last reading of the database.
    fn last(&self) -> (usize, Reading) {
        let last = self.all.readings.len() - 1;
        (last, self.all.readings[last])
    }

    /// How the database said that it stands, and whether it still says so.
    fn standing(&self) -> Option<(&'a Standing, bool)> {
        self.history.database.as_ref().map(|(reading, standing)| (standing, *reading == self.last().0))
    }

    fn count(&mut self) {
        let history = self.history;
        let counts = &mut self.verdict.counts;
        counts.committed += usize::from(history.committed > 0);
        counts.requests += history.requests.len();
        counts.retries += history.retries.len();
        counts.unclear_expected += usize::from(history.unclear == Some(Expectation::Unclear));
        let accepted = history.effects().count();
        counts.accepted += accepted;
        if let Some((standing, true)) = self.standing() {
            let counts = &mut self.verdict.counts;
            let word = standing.status.map_or("nowhere", Status::word);
            *counts.by_status.entry(word.to_owned()).or_default() += 1;
            counts.accepted_unclear += usize::from(standing.is(Status::DispatchTimeout) && accepted > 0);
            counts.claims_lost += standing.attempts.iter().filter(|attempt| attempt.claim_lost).count();
        }
    }

    fn judge(&mut self) {
        if self.history.later {
            return self.unknown("the provider was asked to send it after the database was read");
        }
        self.committed_once_or_not_at_all();
        self.accepted_once();
        self.expected_end();
        let Some((standing, present)) = self.standing() else { return };
        self.attempts_in_order(standing);
        self.requests_of_attempts(standing);
        self.truthful_ledger(standing);
        if matches!(standing.status, Some(Status::Canceled | Status::Expired)) {
            self.quiet_after_its_end(standing);
        }
        if present {
            self.in_one_place(standing);
            self.moves_on(standing);
        } else {
            self.gone_in_time(standing);
        }
    }

    /// Rule 8, of what applications did.
    fn committed_once_or_not_at_all(&mut self) {
        let history = self.history;
        let known = self.standing().is_some();
        if history.committed > 1 {
            self.breaks(8, format!("{} calls got it as a new message", history.committed));
        }
        if history.committed == 0 && history.in_doubt == 0 {
            let why = if history.rolled_back > 0 { "rolled back" } else { "enqueued by nobody" };
            if known {
                self.breaks(8, format!("{why}, and in the database"));
            }
            if !history.requests.is_empty() {
                self.breaks(8, format!("{why}, and the provider was asked to send it"));
            }
            if history.replayed > 0 {
                self.breaks(8, format!("{why}, and another call got it as a replay"));
            }
        } else if !known {
            if history.committed > 0 || history.replayed > 0 {
                self.verdict.counts.lost += 1;
                self.breaks(8, "lost: committed, and not in the database");
            } else if !history.requests.is_empty() {
                self.breaks(8, "not in the database, and the provider was asked to send it");
            }
        }
        if history.payload_differs {
            self.breaks(8, "the journals have different numbers or texts for it");
        }
    }

    /// Rules 3 and 4.
    fn accepted_once(&mut self) {
        let mut effects: Vec<&Seen> = self.history.effects().collect();
        effects.sort_by_key(|seen| seen.at);
        for pair in effects.windows(2) {
            let [first, second] = pair else { continue };
            if let (Some((key, window, _)), Some((same, ..))) = (first.deduplication, second.deduplication)
                && key == same
            {
                if second.at < first.at + SignedDuration::from_secs(window) {
                    self.breaks(4, format!("its key took effect at {} and at {}", first.at, second.at));
                }
            } else if first.attempt.is_some() && first.attempt == second.attempt {
                self.breaks(3, format!("accepted twice in one attempt, at {} and at {}", first.at, second.at));
            } else if !self.may_be_sent_again(first.at, second.at) {
                self.breaks(3, format!("accepted at {} and again at {}", first.at, second.at));
            }
        }
    }

    /// Whether somebody took the risk of a second SMS between two moments: an operator, or the owner of the app.
    fn may_be_sent_again(&self, from: Timestamp, upto: Timestamp) -> bool {
        let resent = |attempt: &Attempt| {
            attempt.resends
                && matches!(attempt.outcome, Outcome::Unclear | Outcome::Accepted)
                && (attempt.started_at..=attempt.finished_at).contains(&from)
        };
        self.history.retries.iter().any(|at| (from..=upto).contains(at))
            || self.standing().is_some_and(|(standing, _)| standing.attempts.iter().any(resent))
    }

    /// Rule 13.
    fn expected_end(&mut self) {
        let unclear =
            self.standing().is_some_and(|(standing, present)| present && standing.is(Status::DispatchTimeout));
        match self.history.unclear {
            Some(Expectation::Unclear) if !unclear => {
                let word = self.standing().and_then(|(standing, _)| standing.status).map_or("nowhere", Status::word);
                self.breaks(13, format!("a fault left it unclear, and it is {word}"));
            }
            None if unclear && self.all.unclear_known => self.breaks(13, "no fault left it unclear"),
            _ => {}
        }
    }

    /// Rule 1, and of rule 3 that which the provider may not have noticed.
    fn attempts_in_order(&mut self, standing: &Standing) {
        let ledger = standing.attempts.iter().map(|a| (a.number, a.started_at, Some(a)));
        let live = standing.lease.map(|lease| (lease.attempt, lease.started_at, None));
        let attempts: Vec<_> = ledger.chain(live).collect();
        let numbers: Vec<i16> = attempts.iter().map(|(number, ..)| *number).collect();
        if !numbers.iter().copied().eq((1..).take(numbers.len())) {
            self.breaks(1, format!("its attempts have the numbers {numbers:?}"));
        }
        for pair in attempts.windows(2) {
            let [(number, started, Some(attempt)), (next, next_started, _)] = pair else { continue };
            if next_started < started || *next_started < attempt.over_at {
                self.breaks(1, format!("attempt {next} began while attempt {number} was live"));
            }
            let unclear = attempt.outcome == Outcome::Unclear || attempt.over_at < attempt.finished_at;
            if unclear && !self.may_be_sent_again(*started, *next_started) {
                self.breaks(3, format!("attempt {next}, and attempt {number} had ended as unclear"));
            }
        }
    }

    /// Rule 2.
    fn requests_of_attempts(&mut self, standing: &Standing) {
        let history = self.history;
        let mut asked: BTreeSet<i16> = BTreeSet::new();
        for seen in &history.requests {
            let Some(number) = seen.attempt else {
                if standing.latest_before(seen.at).is_none() {
                    self.breaks(2, format!("a request at {} before any claim", seen.at));
                }
                continue;
            };
            if !asked.insert(number) {
                self.breaks(2, format!("two requests in attempt {number}"));
            }
            match standing.started(number) {
                None => self.breaks(2, format!("a request of attempt {number}, which the database does not know")),
                Some(started) if seen.at < started => {
                    self.breaks(2, format!("a request at {}, and attempt {number} began at {started}", seen.at));
                }
                Some(_) => {}
            }
        }
        let attempts = standing.attempts.len() + usize::from(standing.lease.is_some());
        if history.requests.len() > attempts {
            self.breaks(2, format!("{} requests, and {attempts} attempts", history.requests.len()));
        }
    }

    /// Rules 5, 6 and 7.
    fn truthful_ledger(&mut self, standing: &Standing) {
        let history = self.history;
        for attempt in &standing.attempts {
            let number = attempt.number;
            let mut own = history.effects().filter(|seen| seen.attempt.is_none_or(|named| named == number));
            match attempt.outcome {
                Outcome::Accepted => {
                    if attempt.evidence.is_none() {
                        self.breaks(5, format!("attempt {number} is accepted, and nothing proves it"));
                    }
                    let same = |seen: &Seen| {
                        attempt.provider_message_id.is_none() || attempt.provider_message_id == seen.provider_message_id
                    };
                    if !own.any(same) {
                        let elsewhere = attempt.provider_message_id.is_some() && history.effects().any(same);
                        let (rule, what) = if elsewhere {
                            (7, "has the answer of another attempt")
                        } else {
                            (5, "is accepted, and the provider did not accept it")
                        };
                        self.breaks(rule, format!("attempt {number} {what}"));
                    }
                }
                Outcome::Unclear => {}
                _ if history.effects().any(|seen| seen.attempt == Some(number)) => {
                    self.breaks(6, format!("attempt {number} is known not to have sent, and the provider accepted it"));
                }
                _ => {}
            }
        }
        if standing.is(Status::Sent) && !standing.is_accepted() {
            self.breaks(5, "sent without an accepted attempt");
        }
        if standing.is(Status::Failed) && history.effects().next().is_some() {
            self.breaks(6, "failed, and the provider accepted it");
        }
    }

    /// Rule 10.
    fn quiet_after_its_end(&mut self, standing: &Standing) {
        let word = standing.status.map_or("", Status::word);
        match standing.ended_at {
            None => self.breaks(8, format!("{word}, and nothing says since when")),
            Some(ended) => {
                if let Some(seen) = self.history.requests.iter().find(|seen| seen.at >= ended) {
                    self.breaks(10, format!("{word} at {ended}, and a request at {}", seen.at));
                }
            }
        }
    }

    /// Rule 8, of what the database says.
    fn in_one_place(&mut self, standing: &Standing) {
        let accepted = standing.is_accepted();
        let places = standing.places.len() + usize::from(accepted);
        // Accepted after all, while the attempt is in flight that somebody asked for meanwhile.
        let in_flight = accepted
            && standing.lease.is_some_and(|lease| {
                standing.attempts.first().is_some_and(|a| self.may_be_sent_again(a.started_at, lease.started_at))
            });
        if places != 1 && !(places == 2 && in_flight) {
            self.breaks(
                8,
                format!("in {places} places: {:?}{}", standing.places, if accepted { ", accepted" } else { "" }),
            );
        }
        let fits = match standing.status {
            None => false,
            Some(Status::Sent) => accepted,
            Some(Status::Sending) => standing.lease.is_some(),
            Some(Status::Pending) => standing.places.iter().any(|at| matches!(at, Place::Ready | Place::Scheduled)),
            Some(_) => standing.places.contains(&Place::Ended) && standing.ended_at.is_some(),
        };
        if !fits {
            let word = standing.status.map_or("nowhere", Status::word);
            self.breaks(8, format!("shown as {word}, and in {:?}", standing.places));
        }
    }

    /// Rules 11 and 12; what is not over yet is not known.
    fn moves_on(&mut self, standing: &Standing) {
        let (_, reading) = self.last();
        if let Some(lease) = standing.lease {
            let maintained = reading.maintained_at.is_some_and(|at| at + PATIENCE >= reading.at);
            if maintained && lease.expires_at + PATIENCE < reading.at {
                self.breaks(12, format!("sending, and its lease was over at {}", lease.expires_at));
            } else {
                self.unknown("still sending");
            }
        } else if standing.is(Status::Pending) {
            let since = standing.due_since.zip(reading.worker_since).map(|(due, worker)| due.max(worker));
            let free = standing.waits_for.as_deref() == Some("worker");
            if free && since.is_some_and(|since| since + PATIENCE < reading.at) {
                self.breaks(11, format!("due since {}, and not tried", standing.due_since.unwrap_or_default()));
            } else {
                self.unknown(format!("still pending, waits for {}", standing.waits_for.as_deref().unwrap_or("?")));
            }
        }
    }

    /// Rule 9.
    fn gone_in_time(&mut self, standing: &Standing) {
        let readings = &self.all.readings;
        let Some((seen, _)) = &self.history.database else { return };
        let (before, after) = (readings[*seen], readings[*seen + 1]);
        let kept = SignedDuration::from_secs(before.retention_seconds);
        match standing.finalized_at() {
            Some(ended) if ended + kept > after.at => {
                self.breaks(9, format!("ended at {ended}, and gone before its time"));
            }
            Some(_) => {}
            // Had it ended after the first reading, it would have been kept until after the second.
            None if before.at + kept > after.at => self.breaks(9, "gone, and it had not ended"),
            None => self.unknown("gone, and nobody saw it end"),
        }
    }
}

impl History {
    /// The acceptances, but those that the provider itself knew to be repeated.
    fn effects(&self) -> impl Iterator<Item = &Seen> {
        self.requests.iter().filter(|seen| seen.accepted && !seen.deduplication.is_some_and(|(.., known)| known))
    }
}

impl Standing {
    fn is(&self, status: Status) -> bool {
        self.status == Some(status)
    }

    fn is_accepted(&self) -> bool {
        self.attempts.iter().any(|attempt| attempt.outcome == Outcome::Accepted)
    }

    /// When an attempt was claimed. Where a failover lost its claim, the ledger knows the time of the answer alone.
    fn started(&self, number: i16) -> Option<Timestamp> {
        let ledger = self.attempts.iter().find(|attempt| attempt.number == number);
        let started = ledger.map(|attempt| if attempt.claim_lost { Timestamp::MIN } else { attempt.started_at });
        started.or(self.lease.filter(|lease| lease.attempt == number).map(|lease| lease.started_at))
    }

    fn latest_before(&self, at: Timestamp) -> Option<Timestamp> {
        let ledger = self.attempts.iter().map(|attempt| attempt.started_at);
        ledger.chain(self.lease.map(|lease| lease.started_at)).filter(|started| *started <= at).max()
    }

    fn finalized_at(&self) -> Option<Timestamp> {
        let accepted = self.attempts.iter().find(|attempt| attempt.outcome == Outcome::Accepted);
        accepted.map(|attempt| attempt.finished_at).or(self.ended_at)
    }
}
