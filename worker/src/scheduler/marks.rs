//! How far the log of each priority has been read, and which transactions were passed while they were running.
//!
//! Transaction ids are given out in one order and commit in another. So nothing is passed in silence: whatever a
//! place moves past while a snapshot calls it running is remembered, and read by its exact id once it has ended.
//! Rows of a transaction below the snapshot's `xmax` that is not running are visible to that very statement.
//!
//! Where more than a page has come, the mark jumps to the end, and what it jumped over, the *gap*, is read page by page beside what
//! comes next, so that a new message need not wait until a backlog has been read.

use std::collections::BTreeMap;

use uuid::Uuid;

use crate::message::PRIORITIES;
use crate::outbox::{Look, Looked, Mark, Range, Snapshot, Xid};

/// Most exact reads in one look.
const MOST_EXACT_READS: usize = 256;

/// What is known of a transaction that was running when it was passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
enum Known {
    /// Nothing since. Most end within milliseconds, so the next look asks for it on the chance.
    Untried,
    /// It was running still: not asked for again until a snapshot shows its end.
    Running,
    /// It has ended, and its rows are to be read.
    Ended,
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Late {
    /// Its last row that was read.
    read: Uuid,
    known: Known,
}

/// A stretch of the log that the mark jumped over.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Gap {
    /// How far it has been read.
    after: Mark,
    before: Xid,
}

#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
struct Log {
    mark: Mark,
    /// One at a time: while it is read, the mark goes on page by page.
    gap: Option<Gap>,
    late: BTreeMap<Xid, Late>,
}

/// The places of one worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub(crate) struct Marks {
    logs: [Log; PRIORITIES],
    /// Forgets late transactions: only to prove that the tests notice.
    #[cfg(test)]
    pub(crate) forgetful: bool,
}

impl Marks {
    /// How far this priority has been read.
    pub(crate) fn of(&self, priority: u8) -> Mark {
        self.logs.get(usize::from(priority)).map_or_else(Mark::default, |log| log.mark)
    }

    /// Remembered transactions, over all priorities.
    #[cfg(test)]
    pub(crate) fn remembered(&self) -> usize {
        self.logs.iter().map(|log| log.late.len()).sum()
    }

    /// Whether a remembered transaction is known to have ended, and its rows wait to be read.
    pub(crate) fn has_ended_late(&self) -> bool {
        self.logs.iter().any(|log| log.late.values().any(|late| late.known == Known::Ended))
    }

    /// What to read next, urgent first, and older before newer. While more has to be read exactly than fits one look, the marks stand
    /// still: so the memory of late transactions cannot grow faster than it is worked off.
    pub(crate) fn ranges(&self) -> Vec<Range> {
        let exact: Vec<Range> = (0..).zip(&self.logs).flat_map(|(priority, log)| exact(priority, log)).collect();
        if exact.len() > MOST_EXACT_READS {
            return exact.into_iter().take(MOST_EXACT_READS).collect();
        }
        let follow = |(priority, log): (u8, &Log)| {
            let gap = log.gap.map(|gap| Range { priority, after: gap.after, before: Some(gap.before) });
            gap.into_iter().chain([Range { priority, after: log.mark, before: None }])
        };
        (0..).zip(&self.logs).flat_map(follow).chain(exact).collect()
    }

    /// Takes in what became of one range of a look: `last` is its last row where the page was full.
    pub(crate) fn observe(&mut self, range: &Range, last: Option<Mark>, snapshot: &Snapshot) {
        let Some(log) = self.logs.get(usize::from(range.priority)) else { return };
        match (range.before, log.gap) {
            // An exact read may be the very same range: what is said of the one first holds for the gap.
            (Some(before), Some(gap)) if gap == (Gap { after: range.after, before }) => {
                self.observe_gap(range.priority, gap, last, snapshot);
            }
            (Some(_), _) => self.observe_exact(range, last, snapshot),
            (None, _) => self.observe_end(range, last, snapshot),
        }
    }

    fn observe_end(&mut self, range: &Range, last: Option<Mark>, snapshot: &Snapshot) {
        let Some(log) = self.logs.get_mut(usize::from(range.priority)) else { return };
        let mut reached = reached(last, snapshot);
        if let (Some(last), None) = (last, log.gap) {
            log.gap = Some(Gap { after: last, before: snapshot.xmax });
            reached = end_of(snapshot);
        }
        // An older snapshot than the one before (another server behind a pooler) moves nothing back.
        log.mark = log.mark.max(reached);
        self.pass(range.priority, range.after, reached, snapshot);
    }

    fn observe_gap(&mut self, priority: u8, gap: Gap, last: Option<Mark>, snapshot: &Snapshot) {
        let Some(log) = self.logs.get_mut(usize::from(priority)) else { return };
        let end = Mark { xid: gap.before, id: Uuid::nil() };
        // An older snapshot does not see all of the gap.
        let reached = last.unwrap_or(end.min(end_of(snapshot)));
        log.gap = (reached < end).then_some(Gap { after: reached.max(gap.after), ..gap });
        self.pass(priority, gap.after, reached, snapshot);
    }

    /// A place moves from `from` to `to` by a look with this snapshot: what runs in between may commit behind it.
    pub(crate) fn pass(&mut self, priority: u8, from: Mark, to: Mark, snapshot: &Snapshot) {
        let Some(log) = self.logs.get_mut(usize::from(priority)) else { return };
        #[cfg(test)]
        if self.forgetful {
            return;
        }
        let start = snapshot.in_progress.partition_point(|xid| *xid < from.xid);
        let passed = snapshot.in_progress.iter().skip(start).take_while(|xid| **xid < to.xid);
        for xid in passed {
            let untried = Late { read: Uuid::nil(), known: Known::Untried };
            let late = log.late.entry(*xid).or_insert(untried);
            // Read from its beginning, whatever was read of it before: this snapshot is older, and saw less.
            if !late.read.is_nil() {
                *late = untried;
            }
        }
    }

    /// Notes which remembered transactions this snapshot shows as ended. Called before the ranges are observed.
    pub(crate) fn note_ended(&mut self, snapshot: &Snapshot) {
        for log in &mut self.logs {
            for (xid, late) in log.late.range_mut(..snapshot.xmax) {
                if has_ended(*xid, snapshot) {
                    late.known = Known::Ended;
                }
            }
        }
    }

    /// By the exact read's own snapshot: an older one than that which showed the end may not see the rows yet.
    fn observe_exact(&mut self, range: &Range, last: Option<Mark>, snapshot: &Snapshot) {
        let xid = range.after.xid;
        let Some(log) = self.logs.get_mut(usize::from(range.priority)) else { return };
        match (last, log.late.get_mut(&xid)) {
            (Some(last), Some(late)) => late.read = late.read.max(last.id),
            (None, Some(_)) if has_ended(xid, snapshot) => {
                log.late.remove(&xid);
            }
            (None, Some(late)) => late.known = Known::Running,
            (_, None) => {}
        }
    }
}

/// The last row of each range of a look whose page was full. Fewer rows: the range is exhausted, and its last row is no limit.
pub(crate) fn lasts(look: &Look, looked: &Looked) -> Vec<Option<Mark>> {
    let mut lasts: Vec<(usize, Option<Mark>)> = vec![(0, None); look.ranges.len()];
    for entry in &looked.entries {
        if let Some((rows, last)) = lasts.get_mut(entry.range) {
            (*rows, *last) = (*rows + 1, Some(Mark { xid: entry.xid, id: entry.id.0 }));
        }
    }
    let full = |(rows, last): (usize, Option<Mark>)| last.filter(|_| rows >= look.page as usize);
    lasts.into_iter().map(full).collect()
}

/// Where a range that follows the log has got to: below where it began, if the snapshot is an older one.
pub(crate) fn reached(last: Option<Mark>, snapshot: &Snapshot) -> Mark {
    last.unwrap_or(end_of(snapshot))
}

/// Behind everything that this snapshot sees.
fn end_of(snapshot: &Snapshot) -> Mark {
    Mark { xid: snapshot.xmax, id: Uuid::nil() }
}

fn has_ended(xid: Xid, snapshot: &Snapshot) -> bool {
    xid < snapshot.xmax && snapshot.in_progress.binary_search(&xid).is_err()
}

fn exact(priority: u8, log: &Log) -> impl Iterator<Item = Range> {
    log.late.iter().filter(|(_, late)| late.known != Known::Running).map(move |(xid, late)| Range {
        priority,
        after: Mark { xid: *xid, id: late.read },
        before: Some(*xid + 1),
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(xmax: Xid, in_progress: &[Xid]) -> Snapshot {
        Snapshot { xmax, in_progress: in_progress.to_vec() }
    }

    fn at(xid: Xid, id: u128) -> Mark {
        Mark { xid, id: Uuid::from_u128(id) }
    }

    /// One look in which the first range of priority 1, its gap where there is one, ends at `last` (a full page) or is exhausted.
    fn look(marks: &mut Marks, last: Option<Mark>, snapshot: &Snapshot) {
        let ranges = marks.ranges();
        let first = ranges.iter().position(|range| range.priority == 1);
        marks.note_ended(snapshot);
        for (place, range) in ranges.iter().enumerate() {
            marks.observe(range, last.filter(|_| Some(place) == first), snapshot);
        }
    }

    fn exact_reads(marks: &Marks) -> Vec<(u8, Xid)> {
        let exact = marks.ranges().into_iter().filter(|range| range.before == Some(range.after.xid + 1));
        exact.map(|range| (range.priority, range.after.xid)).collect()
    }

    /// The gap of priority 1: read behind which place, up to which transaction.
    fn gap(marks: &Marks) -> Option<(Mark, Xid)> {
        marks.logs[1].gap.map(|gap| (gap.after, gap.before))
    }

    #[test]
    fn what_was_running_is_read_once_by_exact_id_and_then_forgotten() {
        let mut marks = Marks::default();
        look(&mut marks, None, &snapshot(10, &[4, 7]));
        assert_eq!(marks.of(1), at(10, 0));
        assert_eq!(exact_reads(&marks), [(0, 4), (0, 7), (1, 4), (1, 7), (2, 4), (2, 7)]);
        // Still running: not asked again until a snapshot shows its end.
        look(&mut marks, None, &snapshot(12, &[4, 11]));
        assert_eq!(exact_reads(&marks), [(0, 11), (1, 11), (2, 11)]);
        look(&mut marks, None, &snapshot(13, &[4]));
        assert_eq!((exact_reads(&marks).len(), marks.remembered()), (0, 3));
        look(&mut marks, None, &snapshot(14, &[]));
        assert!(marks.has_ended_late());
        look(&mut marks, None, &snapshot(14, &[]));
        assert_eq!(marks.remembered(), 0);
    }

    #[test]
    fn the_mark_jumps_over_what_a_page_does_not_hold_and_the_gap_is_read_beside_what_comes_next() {
        let mut marks = Marks::default();
        look(&mut marks, Some(at(6, 99)), &snapshot(20, &[4, 7]));
        assert_eq!((marks.of(1), gap(&marks)), (at(20, 0), Some((at(6, 99), 20))));
        // What runs is remembered, within the gap too.
        assert_eq!(exact_reads(&marks), [(0, 4), (0, 7), (1, 4), (1, 7), (2, 4), (2, 7)]);
        look(&mut marks, Some(at(12, 5)), &snapshot(25, &[7]));
        assert_eq!((marks.of(1), gap(&marks)), (at(25, 0), Some((at(12, 5), 20))));
        look(&mut marks, None, &snapshot(26, &[7]));
        assert_eq!((marks.of(1), gap(&marks)), (at(26, 0), None));
    }

    #[test]
    fn while_a_gap_is_read_the_mark_goes_on_by_pages() {
        let mut marks = Marks::default();
        look(&mut marks, Some(at(6, 99)), &snapshot(20, &[]));
        let end = Range { priority: 1, after: marks.of(1), before: None };
        marks.observe(&end, Some(at(22, 7)), &snapshot(30, &[21, 25]));
        assert_eq!((marks.of(1), gap(&marks)), (at(22, 7), Some((at(6, 99), 20))));
        assert!(exact_reads(&marks).contains(&(1, 21)) && !exact_reads(&marks).contains(&(1, 25)));
    }

    #[test]
    fn a_gap_read_with_an_older_snapshot_is_not_read_to_its_end() {
        let mut marks = Marks::default();
        look(&mut marks, Some(at(6, 99)), &snapshot(20, &[]));
        look(&mut marks, None, &snapshot(15, &[9]));
        assert_eq!((marks.of(1), gap(&marks)), (at(20, 0), Some((at(15, 0), 20))));
        assert_eq!(exact_reads(&marks).first(), Some(&(1, 9)));
        look(&mut marks, None, &snapshot(3, &[]));
        assert_eq!(gap(&marks), Some((at(15, 0), 20)), "and one that is older still moves it not back");
    }

    #[test]
    fn an_exact_read_may_be_the_same_range_as_the_gap() {
        let mut marks = Marks::default();
        look(&mut marks, Some(at(18, 99)), &snapshot(20, &[19]));
        let range = Range { priority: 1, after: at(19, 0), before: Some(20) };
        // An older snapshot ends within the gap, where 19 begins.
        look(&mut marks, None, &snapshot(19, &[]));
        marks.note_ended(&snapshot(21, &[]));
        assert_eq!(marks.ranges().iter().filter(|other| **other == range).count(), 2, "{:?}", marks.ranges());
        // Both of them are full pages: neither is at its end.
        (0..2).for_each(|_| marks.observe(&range, Some(at(19, 5)), &snapshot(21, &[])));
        assert_eq!((gap(&marks), marks.has_ended_late()), (Some((at(19, 5), 20)), true));
        look(&mut marks, None, &snapshot(21, &[]));
        assert_eq!((gap(&marks), marks.remembered()), (None, 0));
    }

    #[test]
    fn an_older_snapshot_moves_no_mark_back_and_forgets_nothing() {
        let mut marks = Marks::default();
        look(&mut marks, None, &snapshot(20, &[15]));
        look(&mut marks, None, &snapshot(12, &[5]));
        assert_eq!(marks.of(1), at(20, 0));
        // 15 is beyond the older snapshot: that it is not called running proves nothing.
        assert_eq!(marks.remembered(), 3);
        look(&mut marks, None, &snapshot(21, &[]));
        assert!(marks.has_ended_late());
        look(&mut marks, None, &snapshot(21, &[]));
        assert_eq!(marks.remembered(), 0);
    }

    #[test]
    fn a_place_within_a_transaction_that_an_older_snapshot_calls_running_remembers_it() {
        let mut marks = Marks::default();
        look(&mut marks, Some(at(6, 50)), &snapshot(10, &[]));
        look(&mut marks, Some(at(7, 50)), &snapshot(10, &[6]));
        assert!(exact_reads(&marks).contains(&(1, 6)));
    }

    #[test]
    fn while_many_have_ended_the_marks_stand_still() {
        let mut marks = Marks::default();
        let running: Vec<Xid> = (1..=500).collect();
        look(&mut marks, None, &snapshot(501, &running));
        let mut looks = 0;
        while marks.remembered() > 0 {
            assert!(marks.ranges().len() <= MOST_EXACT_READS + PRIORITIES);
            look(&mut marks, None, &snapshot(600, &[]));
            looks += 1;
            assert!(looks < 10);
        }
    }
}
