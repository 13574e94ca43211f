//! A worker's process: what it has read of the log, and its attempts.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::{Arc, LazyLock};

use super::super::State;
use crate::message::{AppId, AttemptStatus, MessageId};
use crate::outbox::Look;
use crate::scheduler::marks::{Marks, lasts};

/// How far an attempt has come in its worker.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub(super) enum Stage {
    /// The claim was answered: nothing is sent yet.
    Claimed(AppId),
    /// Bytes are out.
    Sent,
    /// It has ended so, and is to be recorded.
    Ended(AttemptStatus),
}

/// One incarnation of a worker.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Worker {
    pub(super) incarnation: u8,
    pub(super) marks: Marks,
    /// Messages that its looks found, and that it has not asked for since.
    pub(super) found: BTreeSet<MessageId>,
    pub(super) attempts: BTreeMap<(MessageId, i16), Stage>,
}

impl Worker {
    pub(super) fn new(incarnation: u8, forgetful: bool) -> Self {
        let mut marks = Marks::default();
        if forgetful {
            marks.forgetful = true;
        }
        Self { incarnation, marks, found: BTreeSet::new(), attempts: BTreeMap::new() }
    }

    /// Each incarnation has a name of its own.
    pub(super) fn name(&self) -> &'static Arc<str> {
        name(self.incarnation)
    }

    /// One look, as the scheduler makes and takes in those that follow the log.
    pub(super) fn look(&mut self, queue: &State, page: u32) {
        let look = Look { ranges: self.marks.ranges(), organizations: Vec::new(), page };
        let looked = queue.look(&look);
        self.found.extend(looked.entries.iter().map(|entry| entry.id));
        self.marks.note_ended(&looked.snapshot);
        for (range, last) in look.ranges.iter().zip(lasts(&look, &looked)) {
            self.marks.observe(range, last, &looked.snapshot);
        }
    }
}

static NAMES: LazyLock<Vec<Arc<str>>> = LazyLock::new(|| (0..16).map(|n| format!("w{n}").into()).collect());

pub(super) fn name(incarnation: u8) -> &'static Arc<str> {
    &NAMES[usize::from(incarnation)]
}
