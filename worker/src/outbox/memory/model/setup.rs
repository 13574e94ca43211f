//! What is explored: who is there, and how much of what may happen.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};
use std::time::Duration;

use super::super::{AppRow, MessageRow, Place, Rules, State};
use super::property::Breaches;
use super::twin::Twin;
use super::worker::Worker;
use super::{NOW, World, message};
use crate::message::AttemptStatus::{Accepted, NotSent, RefusedContent, RefusedRecipient, Throttled};
use crate::message::DispatchStatus::{Canceled, DispatchTimeout, Expired, Failed, Sent};
use crate::message::{AppId, AttemptStatus, DispatchStatus};

/// How often what may go wrong or be asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) struct Budget {
    pub(super) crashes: u8,
    pub(super) lost_answers: u8,
    pub(super) cancels: u8,
    pub(super) retries: u8,
    pub(super) expiries: u8,
    pub(super) throttles: u8,
    pub(super) drops: u8,
    pub(super) receipts: u8,
    pub(super) look_ups: u8,
}

pub(super) const NOTHING: Budget = Budget {
    crashes: 0,
    lost_answers: 0,
    cancels: 0,
    retries: 0,
    expiries: 0,
    throttles: 0,
    drops: 0,
    receipts: 0,
    look_ups: 0,
};

/// One configuration.
#[derive(Clone, Debug)]
pub(super) struct Setup {
    pub(super) name: &'static str,
    pub(super) workers: u8,
    /// Messages that are committed from the start.
    pub(super) messages: u8,
    /// Messages in transactions that are open at the start.
    pub(super) late: u8,
    pub(super) apps: u8,
    pub(super) max_attempts: u16,
    /// What a provider may answer.
    pub(super) answers: &'static [AttemptStatus],
    /// Providers deduplicate by the id of the message.
    pub(super) deduplicates: bool,
    /// The apps opted in to be tried again after an unclear end.
    pub(super) resends: bool,
    /// Workers claim what they found in the log; otherwise whatever waits.
    pub(super) looks: bool,
    pub(super) page: u32,
    /// A worker may be stopped between its look at the clock and the write, past its lease.
    pub(super) stops_workers: bool,
    pub(super) budget: Budget,
    /// States that some message comes to.
    pub(super) reaches: &'static [DispatchStatus],
    pub(super) twin: Option<Twin>,
}

impl Setup {
    /// Two workers, one message, two apps, nothing that goes wrong but what providers and time do.
    pub(super) const fn new(name: &'static str) -> Self {
        Self {
            name,
            workers: 2,
            messages: 1,
            late: 0,
            apps: 2,
            max_attempts: 2,
            answers: &[Accepted, NotSent],
            deduplicates: false,
            resends: false,
            looks: false,
            page: 1,
            stops_workers: true,
            budget: NOTHING,
            reaches: &[Sent, DispatchTimeout],
            twin: None,
        }
    }

    /// Apps of one organization that may be used at any time.
    pub(super) fn installed(&self) -> BTreeMap<AppId, AppRow> {
        let mut app = AppRow::new(Arc::clone(&ORGANIZATION), Arc::clone(&SLUG));
        app.resend_unclear = self.resends;
        (1..=self.apps).map(|number| (AppId(number.into()), app.clone())).collect()
    }

    pub(super) fn begin(&self) -> World {
        let mut queue = State {
            rules: Rules { max_attempts: self.max_attempts, lease_timeout: Duration::from_secs(120) },
            ..State::default()
        };
        let (mut open, mut committed) = (BTreeMap::new(), BTreeSet::new());
        for number in 0..self.late + self.messages {
            let id = message(number);
            // The late ones first: they took their places in the log before the others.
            let xid = if number < self.late { queue.begin() } else { queue.next_xid() };
            if number < self.late {
                open.insert(xid, id);
            } else {
                committed.insert(id);
            }
            queue.messages.insert(id, waiting(Place::Ready(xid), (self.budget.expiries > 0).then_some(NOW * 2)));
        }
        let forgetful = self.twin == Some(Twin::ForgetfulLook);
        World {
            queue,
            workers: (0..self.workers).map(|incarnation| Worker::new(incarnation, forgetful)).collect(),
            wire: BTreeSet::new(),
            accepted: BTreeSet::new(),
            effects: BTreeMap::new(),
            granted: BTreeSet::new(),
            committed,
            open,
            reported: BTreeSet::new(),
            risked: BTreeMap::new(),
            stale_retries: BTreeSet::new(),
            left: self.budget,
            incarnations: self.workers,
            broken: Breaches::new(),
            at_rest: false,
        }
    }
}

static ORGANIZATION: LazyLock<Arc<str>> = LazyLock::new(|| "shop".into());
static SLUG: LazyLock<Arc<str>> = LazyLock::new(|| "sandbox".into());

fn waiting(place: Place, valid_until: Option<Duration>) -> MessageRow {
    MessageRow {
        organization: Arc::clone(&ORGANIZATION),
        pinned: None,
        priority: 1,
        due_at: if let Place::Scheduled(due_at) = place { Some(due_at) } else { None },
        valid_until,
        place,
        last_attempt: 0,
        tries: 0,
        refused_by: BTreeSet::new(),
        avoid: BTreeSet::new(),
        attempts: BTreeMap::new(),
        receipts: BTreeMap::new(),
    }
}

/// Workers that die, and answers of the database that are lost.
pub(super) const CRASH: Setup = Setup {
    apps: 1,
    max_attempts: 1,
    budget: Budget { crashes: 1, lost_answers: 1, retries: 1, ..NOTHING },
    reaches: &[Sent, DispatchTimeout, Failed],
    ..Setup::new("crash, lost answer, retry")
};

pub(super) const FAILOVER: Setup = Setup {
    answers: &[Accepted, NotSent, RefusedContent],
    max_attempts: 3,
    budget: Budget { crashes: 1, ..NOTHING },
    reaches: &[Sent, DispatchTimeout, Failed],
    ..Setup::new("failover to the next app")
};

pub(super) const TWO_MESSAGES: Setup = Setup {
    messages: 2,
    apps: 1,
    max_attempts: 1,
    reaches: &[Sent, DispatchTimeout, Failed],
    ..Setup::new("two messages")
};

pub(super) const OPERATOR: Setup = Setup {
    apps: 1,
    answers: &[Accepted, RefusedRecipient],
    budget: Budget { cancels: 1, retries: 1, ..NOTHING },
    reaches: &[Sent, DispatchTimeout, Failed, Canceled],
    ..Setup::new("cancel and retry")
};

pub(super) const EXPIRY: Setup = Setup {
    apps: 1,
    max_attempts: 1,
    budget: Budget { expiries: 1, retries: 1, ..NOTHING },
    reaches: &[Sent, DispatchTimeout, Failed, Expired],
    ..Setup::new("expiry and retry")
};

pub(super) const LATE_COMMITS: Setup = Setup {
    workers: 1,
    late: 1,
    apps: 1,
    max_attempts: 1,
    looks: true,
    reaches: &[Sent, DispatchTimeout, Failed],
    ..Setup::new("late commit")
};

pub(super) const LATE_COMMITS_CRASH: Setup = Setup {
    workers: 1,
    late: 1,
    apps: 1,
    max_attempts: 1,
    answers: &[Accepted],
    looks: true,
    stops_workers: false,
    budget: Budget { crashes: 1, ..NOTHING },
    ..Setup::new("late commit, crash")
};

pub(super) const DEDUPLICATES: Setup = Setup {
    apps: 1,
    deduplicates: true,
    resends: true,
    budget: Budget { crashes: 1, ..NOTHING },
    ..Setup::new("deduplicating provider")
};

pub(super) const RESENDS: Setup = Setup {
    apps: 1,
    resends: true,
    answers: &[Accepted, RefusedRecipient],
    budget: Budget { crashes: 1, ..NOTHING },
    reaches: &[Sent, DispatchTimeout, Failed],
    ..Setup::new("resend_unclear")
};

pub(super) const THROTTLES: Setup = Setup {
    apps: 1,
    answers: &[Accepted, Throttled],
    budget: Budget { throttles: 2, ..NOTHING },
    ..Setup::new("throttled")
};

/// Providers are asked, and a worker's clock is right: it does not begin what a look-up has called not sent.
pub(super) const RECEIPTS_AND_LOOK_UPS: Setup = Setup {
    apps: 1,
    answers: &[Accepted, RefusedRecipient],
    stops_workers: false,
    budget: Budget { receipts: 2, look_ups: 1, retries: 1, ..NOTHING },
    reaches: &[Sent, DispatchTimeout, Failed],
    ..Setup::new("receipts and look-ups")
};

pub(super) const RETENTION: Setup = Setup {
    workers: 1,
    late: 1,
    apps: 1,
    max_attempts: 1,
    answers: &[Accepted],
    budget: Budget { drops: 2, retries: 1, ..NOTHING },
    ..Setup::new("retention")
};

/// Wider bounds, for `make model`.
pub(super) const LARGE: &[Setup] = &[
    Setup { max_attempts: 2, ..named(CRASH, "crash, lost answer, retry, two attempts") },
    Setup {
        workers: 3,
        budget: Budget { crashes: 2, lost_answers: 1, retries: 1, ..NOTHING },
        ..named(CRASH, "three workers: two crashes, lost answer, retry")
    },
    Setup {
        budget: Budget { crashes: 1, lost_answers: 1, retries: 2, ..NOTHING },
        ..named(CRASH, "crash, lost answer, two retries")
    },
    Setup {
        budget: Budget { crashes: 1, lost_answers: 1, ..NOTHING },
        ..named(TWO_MESSAGES, "two messages: crash, lost answer")
    },
    Setup { budget: Budget { cancels: 1, retries: 2, ..NOTHING }, ..named(OPERATOR, "cancel and two retries") },
    Setup { max_attempts: 2, ..named(EXPIRY, "expiry and retry, two attempts") },
    Setup { late: 2, ..named(LATE_COMMITS, "two late commits") },
    Setup { workers: 2, ..named(LATE_COMMITS_CRASH, "two workers: late commit, crash") },
    Setup { max_attempts: 3, ..named(RESENDS, "resend_unclear, three attempts") },
    Setup { max_attempts: 3, ..named(DEDUPLICATES, "deduplicating provider, three attempts") },
    Setup {
        budget: Budget { receipts: 2, look_ups: 2, retries: 1, crashes: 1, ..NOTHING },
        ..named(RECEIPTS_AND_LOOK_UPS, "receipts, look-ups, crash")
    },
];

const fn named(setup: Setup, name: &'static str) -> Setup {
    Setup { name, ..setup }
}
