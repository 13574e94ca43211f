//! The protocol as a model that is the code: a checker takes the rules of [`life`](super::life), of retention and of the
//! [`Marks`] through everything that workers, providers, operators, time and faults may do, within the bounds of a
//! [`Setup`], and looks at every state that can be reached. `docs/model.md` says how to read what it finds.
//!
//! A step of the world is one transaction of the database, one act of a worker's process, or one of a provider. The rules
//! are called, never written down again; what is added here is who calls them when, and what really happened: which
//! requests providers took ([`World::accepted`]), and which leases were granted and have not ended ([`World::granted`]).

mod property;
mod setup;
mod step;
mod tests;
mod twin;
mod worker;

use std::collections::{BTreeMap, BTreeSet};
use std::time::Duration;

use stateright::Property;
use uuid::Uuid;

use self::property::{Breaches, Broken};
use self::setup::{Budget, Setup};
use self::step::Step;
use self::twin::Twin;
use self::worker::Worker;
use super::State;
use crate::message::MessageId;
use crate::outbox::Xid;

/// The clock of the database stands; the end of a lease, of a backoff or of a validity is a step of its own, so that it may
/// come at any moment.
const NOW: Duration = Duration::from_secs(100_000);

/// What proves a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
struct Token {
    id: MessageId,
    attempt: i16,
    /// The incarnation of the worker.
    worker: u8,
}

/// Everything at one moment.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct World {
    /// The database: the state that the rules move. Its apps are put in for each step: their breakers, which decide how soon
    /// something is tried and not whether, are left out.
    queue: State,
    workers: Vec<Worker>,
    /// Requests whose bytes are out, and which no provider has dealt with.
    wire: BTreeSet<Token>,
    /// Attempts that a provider took.
    accepted: BTreeSet<(MessageId, i16)>,
    /// How often a message took effect at its recipient.
    effects: BTreeMap<MessageId, u8>,
    /// Leases that were granted, and neither finished by their holder nor over by the clock of the database.
    granted: BTreeSet<Token>,
    /// Messages of transactions that are committed, and not dropped by retention.
    committed: BTreeSet<MessageId>,
    /// Messages of open transactions.
    open: BTreeMap<Xid, MessageId>,
    /// Messages of which a worker reported an acceptance, and was answered or not.
    reported: BTreeSet<MessageId>,
    /// Retries of messages that may have been sent already.
    risked: BTreeMap<MessageId, u8>,
    /// Retries that another session began while the message was at its end: a broken twin's.
    stale_retries: BTreeSet<MessageId>,
    /// What may still go wrong or be asked for.
    left: Budget,
    incarnations: u8,
    /// Invariants that a step broke which cannot be seen in the state behind it.
    broken: Breaches,
    /// Nothing more happens by itself, and nothing more is asked for.
    at_rest: bool,
}

impl World {
    fn breach(&mut self, broken: Broken) {
        self.broken.insert(broken);
    }
}

/// The `number`-th message of a setup.
fn message(number: u8) -> MessageId {
    MessageId(Uuid::from_u128(u128::from(number) + 1))
}

impl stateright::Model for Setup {
    type State = World;
    type Action = Step;

    fn init_states(&self) -> Vec<World> {
        vec![self.begin()]
    }

    fn actions(&self, world: &World, steps: &mut Vec<Step>) {
        if world.at_rest {
            return;
        }
        self.fair_steps(world, steps);
        if steps.iter().all(|step| self.next_state(world, *step).is_none()) {
            steps.clear();
            steps.push(Step::Rest);
        }
        self.other_steps(world, steps);
    }

    fn next_state(&self, world: &World, step: Step) -> Option<World> {
        let mut next = world.clone();
        next.queue.apps = self.installed();
        self.take(&mut next, step);
        next.queue.apps.clear();
        if !self.looks {
            forget_log(&mut next.queue);
        }
        (next != *world).then_some(next)
    }

    fn properties(&self) -> Vec<Property<Self>> {
        property::all(self)
    }
}

/// Where no worker reads the log, the place of a committed message in it tells nothing.
fn forget_log(queue: &mut State) {
    for message in queue.messages.values_mut() {
        if let super::Place::Ready(xid) = &mut message.place
            && !queue.running.contains(xid)
        {
            *xid = 0;
        }
    }
    queue.last_xid = queue.running.last().copied().unwrap_or(0);
}
