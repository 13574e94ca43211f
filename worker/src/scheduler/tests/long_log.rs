//! Backlogs that do not fit the window.

use super::*;
use crate::outbox::{AppState, Snapshot, Xid};

/// A log too long for the memory outbox: rows by transaction, one each, of organizations by number.
struct LongLog {
    rows: Vec<Option<u16>>,
}

impl LongLog {
    fn id(row: usize) -> MessageId {
        MessageId(uuid::Uuid::from_u128((row as u128 + 1) << 80 | 7 << 76 | row as u128))
    }

    fn look(&self, look: &Look) -> Looked {
        let snapshot = Snapshot { xmax: self.rows.len() as Xid + 1, in_progress: Vec::new() };
        let mut looked = Looked { log: 0, snapshot, entries: Vec::new() };
        for (number, range) in look.ranges.iter().enumerate().filter(|(_, range)| range.priority == 1) {
            let from = match (range.after.xid as usize).checked_sub(1) {
                Some(row) if mark_of(row) <= range.after => row + 1,
                row => row.unwrap_or(0),
            };
            let upto = range.before.map_or(self.rows.len(), |before| before as usize - 1);
            let rows = self.rows.iter().enumerate().take(upto).skip(from);
            let rows = rows.filter_map(|(row, of)| of.map(|of| (row, of)));
            let entries = rows.map(|(row, of)| Entry {
                range: number,
                id: Self::id(row),
                organization: format!("o{of}").into(),
                priority: 1,
                xid: row as Xid + 1,
                pinned: None,
                refused_by: Vec::new(),
                avoid: Vec::new(),
            });
            let asked =
                |entry: &Entry| look.organizations.is_empty() || look.organizations.contains(&entry.organization);
            looked.entries.extend(entries.filter(asked).take(look.page as usize));
        }
        looked
    }
}

fn mark_of(row: usize) -> Mark {
    Mark { xid: row as Xid + 1, id: LongLog::id(row).0 }
}

fn read_all(scheduler: &mut Scheduler, log: &LongLog) -> usize {
    for looks in 1..100_000 {
        let look = scheduler.next_look(Duration::ZERO);
        if !scheduler.observe(Duration::ZERO, &look, &log.look(&look)) {
            return looks;
        }
    }
    panic!("there is always more");
}

fn open_apps(organizations: impl IntoIterator<Item = u16>) -> (Vec<OrganizationId>, Vec<App>) {
    let app = |of: u16| App {
        id: AppId(of.into()),
        organization: format!("o{of}").into(),
        slug: "sandbox".into(),
        position: 100,
        weight: 1,
        max_in_flight: u32::MAX,
        rate: None,
        state: AppState::Open,
    };
    let apps: Vec<App> = organizations.into_iter().map(app).collect();
    (apps.iter().map(|app| app.organization.clone()).collect(), apps)
}

#[test]
fn behind_a_million_of_one_organization_the_others_message_is_in_the_first_plan() {
    let mut rows = vec![Some(0); 1_000_000];
    rows.push(Some(1));
    let mut log = LongLog { rows };
    let limits = Limits::default();
    let mut scheduler = Scheduler::new("a", limits);
    read_all(&mut scheduler, &log);
    assert_eq!(scheduler.held(), limits.lane + 1);
    let (organizations, apps) = open_apps([0, 1]);
    scheduler.set_apps(Duration::ZERO, &organizations, apps);
    let mut picked = 0;
    for turn in 0..50 {
        let claims = scheduler.plan(Duration::ZERO, 1000);
        if turn == 0 {
            assert!(claims[..2].iter().any(|claim| claim.id == LongLog::id(1_000_000)));
        }
        for claim in &claims {
            let row = (claim.id.0.as_u128() >> 80) as usize - 1;
            assert!(log.rows[row].take().is_some(), "claimed twice");
        }
        picked += claims.len();
        scheduler.claimed(Duration::ZERO, &claims, &vec![Claimed::Gone; claims.len()]);
        read_all(&mut scheduler, &log);
        assert!(scheduler.held() <= limits.lane + 1);
    }
    // The big one is read on as its window empties, and in order.
    assert_eq!(picked, 50 * LARGEST_CLAIM);
    assert!(log.rows[..picked - 1].iter().all(Option::is_none));
}

#[test]
fn while_a_backlog_is_read_what_is_new_is_seen_by_the_next_look_at_the_log() {
    let mut log = LongLog { rows: vec![Some(0); 100_000] };
    let mut scheduler = Scheduler::new("a", Limits::default());
    let (organizations, apps) = open_apps([0, 1]);
    scheduler.set_apps(Duration::ZERO, &organizations, apps);
    let mut look = |log: &LongLog| {
        let look = scheduler.next_look(Duration::ZERO);
        assert!(scheduler.observe(Duration::ZERO, &look, &log.look(&look)), "the backlog has been read");
        scheduler.plan(Duration::ZERO, 100)
    };
    for _ in 0..10 {
        look(&log);
        log.rows.push(Some(1));
        // Every other look may read on for the organization of the backlog.
        let plans = [look(&log), look(&log)];
        let new = LongLog::id(log.rows.len() - 1);
        assert!(plans.iter().flatten().any(|claim| claim.id == new));
    }
}

#[test]
fn memory_stays_within_its_bound_and_every_organization_has_a_part_of_it() {
    // 40,000 rows of 300 organizations, the first of which comes with half of them.
    let rows = (0..40_000_u32).map(|row| Some(if row % 2 == 0 { 0 } else { (row / 2 % 299) as u16 + 1 })).collect();
    let log = LongLog { rows };
    let limits = Limits { entries: 3000, lane: 1000, page: 500 };
    let mut scheduler = Scheduler::new("a", limits);
    read_all(&mut scheduler, &log);
    assert!(scheduler.held() <= 1000, "{}", scheduler.held());
    let waiting = scheduler.organizations_needing_apps(Duration::ZERO);
    assert_eq!(waiting.len(), MOST_ORGANIZATIONS);
    assert_eq!(scheduler.window.organizations().count(), 300);
}
