//! A worker's loop without a dispatcher, on the memory outbox; and what the scheduler promises.

mod long_log;
mod model;
mod policy;

use futures_util::FutureExt;

use super::*;
use crate::message::AttemptStatus;
use crate::outbox::Outbox;
use crate::outbox::memory::{AppRow, MemoryOutbox, State};

fn now<T>(future: impl Future<Output = Result<T, crate::outbox::OutboxError>>) -> Option<T> {
    future.now_or_never().and_then(Result::ok)
}

/// A worker's loop without a dispatcher.
struct Worker {
    outbox: MemoryOutbox,
    scheduler: Scheduler,
    /// Apps of attempts in flight.
    in_flight: Vec<(MessageId, i16, AppId)>,
}

impl Worker {
    fn new(queue: &MemoryOutbox, name: &str, limits: Limits) -> Self {
        Self { outbox: queue.with_worker(name), scheduler: Scheduler::new(name, limits), in_flight: Vec::new() }
    }

    fn look(&mut self, at: &State) -> bool {
        let look = self.scheduler.next_look(self.outbox.now());
        self.scheduler.observe(self.outbox.now(), &look, &at.look(&look))
    }

    fn look_on(&mut self) {
        for _ in 0..1000 {
            if !self.look(&self.outbox.state()) {
                return;
            }
        }
        panic!("there is always more");
    }

    fn read_apps(&mut self) {
        let organizations = self.scheduler.organizations_needing_apps(self.outbox.now());
        if let Some(apps) = now(self.outbox.apps(&organizations)) {
            self.scheduler.set_apps(self.outbox.now(), &organizations, apps);
        }
    }

    fn claim(&mut self, free: usize) -> Vec<Claim> {
        let claims = self.scheduler.plan(self.outbox.now(), free);
        match now(self.outbox.claim(&claims)) {
            Some(answers) => {
                self.scheduler.claimed(self.outbox.now(), &claims, &answers);
                let leases = answers.iter().filter_map(|answer| match answer {
                    Claimed::Leased(lease) => Some((lease.id, lease.attempt, lease.app)),
                    _ => None,
                });
                self.in_flight.extend(leases);
            }
            None => {
                self.scheduler.unasked(self.outbox.now(), &claims);
                self.give_back_lost_leases();
            }
        }
        claims
    }

    /// What was leased by a call whose answer was lost never began.
    fn give_back_lost_leases(&mut self) {
        for (id, attempt) in now(self.outbox.leases()).unwrap_or_default() {
            if !self.in_flight.iter().any(|(known, number, _)| (*known, *number) == (id, attempt)) {
                finish(&self.outbox, id, attempt, AttemptStatus::Throttled);
            }
        }
    }

    fn finish(&mut self, most: usize, status: AttemptStatus) {
        let ended = most.min(self.in_flight.len());
        for (id, attempt, app) in self.in_flight.drain(..ended) {
            finish(&self.outbox, id, attempt, status);
            self.scheduler.released(app);
        }
    }

    fn round(&mut self) {
        self.look_on();
        self.read_apps();
        self.claim(4);
    }
}

fn finish(outbox: &MemoryOutbox, id: MessageId, attempt: i16, status: AttemptStatus) {
    let outcome = crate::outbox::Outcome {
        status,
        http_status: None,
        error_code: None,
        error_message: None,
        response: None,
        provider_message_id: None,
        retry_after: Some(Duration::from_millis(10)),
    };
    now(outbox.finish(&[crate::outbox::Finish { id, attempt, outcome }])).expect("finish");
}

fn install(queue: &MemoryOutbox, organization: &str, slug: &str, max_in_flight: u32) -> AppId {
    let mut row = AppRow::new(organization.into(), slug.into());
    row.max_in_flight = max_in_flight;
    queue.install_app(row, serde_json::Value::Null)
}

/// So small that every path is taken: pages of two, lanes of two, ten messages in all.
const TINY: Limits = Limits { entries: 12, lane: 2, page: 2 };
