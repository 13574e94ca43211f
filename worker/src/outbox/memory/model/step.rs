//! What may happen next, and what it changes.

use super::super::{ClaimResult, Ending, MessageRow, Place};
use super::property::Broken;
use super::worker::{Stage, Worker, name};
use super::{NOW, Setup, Token, Twin, World, message};
use crate::message::{AppId, AttemptStatus, DeliveryStatus, DispatchStatus, Evidence, MessageId};
use crate::outbox::Xid;

/// One step. Workers are named by their place among the workers.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Step {
    /// An application's transaction ends.
    Commit(Xid),
    Rollback(Xid),
    /// A worker reads the log behind its marks.
    Look(usize),
    /// A claim is committed, and its answer arrives or is lost.
    Claim {
        worker: usize,
        id: MessageId,
        app: Option<AppId>,
        answered: bool,
    },
    /// The bytes of an attempt go out.
    Send {
        worker: usize,
        id: MessageId,
        attempt: i16,
    },
    /// An attempt ends without a request: its lease is over, as the worker counts.
    Refrain {
        worker: usize,
        id: MessageId,
        attempt: i16,
    },
    /// A provider deals with a request; its answer arrives, if the worker still waits.
    Answer {
        request: Token,
        status: AttemptStatus,
    },
    /// A worker waits no longer: time-out, reset, or an answer that cannot be read.
    GiveUp {
        worker: usize,
        id: MessageId,
        attempt: i16,
    },
    /// An outcome is recorded, and the answer arrives or is lost: then it is recorded again.
    Finish {
        worker: usize,
        id: MessageId,
        attempt: i16,
        answered: bool,
    },
    /// A worker gives back leases that it does not know.
    GiveBack(usize),
    /// The lease, or the backoff, is over by the clock of the database, and maintenance finds it.
    TimeOut(MessageId),
    /// The validity of a waiting message is over.
    PassValidity(MessageId),
    Maintain,
    Crash(usize),
    Cancel(MessageId),
    Retry(MessageId),
    /// The provider's receipt for a message that it took.
    Receipt {
        id: MessageId,
        attempt: i16,
        told: DeliveryStatus,
    },
    /// The provider is asked what became of an unclear attempt, and knows.
    LookUp {
        id: MessageId,
        attempt: i16,
    },
    /// Everything was kept for long enough.
    DropDay,
    /// Nothing more is going to happen by itself.
    Rest,
}

impl Setup {
    /// Steps that come in the end, whatever else happens: processes live, providers and the network answer or fail, time
    /// passes.
    pub(super) fn fair_steps(&self, world: &World, steps: &mut Vec<Step>) {
        for (number, worker) in world.workers.iter().enumerate() {
            for ((id, attempt), stage) in &worker.attempts {
                let (worker, id, attempt, incarnation) = (number, *id, *attempt, worker.incarnation);
                match stage {
                    Stage::Claimed(_) => {
                        let granted = world.granted.contains(&Token { id, attempt, worker: incarnation });
                        if granted || self.stops_workers {
                            steps.push(Step::Send { worker, id, attempt });
                        }
                        if !granted {
                            steps.push(Step::Refrain { worker, id, attempt });
                        }
                    }
                    Stage::Sent => steps.push(Step::GiveUp { worker, id, attempt }),
                    Stage::Ended(_) => steps.push(Step::Finish { worker, id, attempt, answered: true }),
                }
            }
        }
        for request in &world.wire {
            steps.extend(self.answers.iter().map(|status| Step::Answer { request: *request, status: *status }));
        }
        for xid in world.open.keys() {
            steps.extend([Step::Commit(*xid), Step::Rollback(*xid)]);
        }
        for (id, message) in &world.queue.messages {
            match &message.place {
                Place::Leased(lease) => {
                    steps.push(Step::TimeOut(*id));
                    let holder = world.workers.iter().position(|worker| *worker.name() == lease.worker);
                    steps.extend(holder.map(Step::GiveBack));
                }
                Place::Scheduled(_) => steps.push(Step::TimeOut(*id)),
                Place::Ready(_) if message.valid_until.is_some_and(|end| end <= NOW) => steps.push(Step::Maintain),
                _ => {}
            }
        }
        if self.clock_of_maintenance() != NOW {
            steps.push(Step::Maintain);
        }
        for number in 0..world.workers.len() {
            self.claims(world, number, true, steps);
            if self.looks {
                steps.push(Step::Look(number));
            }
        }
    }

    fn claims(&self, world: &World, number: usize, answered: bool, steps: &mut Vec<Step>) {
        let worker = &world.workers[number];
        // Of workers that have done nothing yet one stands for all.
        let is_fresh = |worker: &Worker| worker.attempts.is_empty() && !is_named(world, worker);
        if !self.looks && is_fresh(worker) && world.workers[..number].iter().any(is_fresh) {
            return;
        }
        for (id, message) in &world.queue.messages {
            let asks = if self.looks { worker.found.contains(id) } else { matches!(message.place, Place::Ready(_)) };
            if !asks {
                continue;
            }
            let apps = (1..=self.apps).map(|app| AppId(app.into())).filter(|app| !message.refused_by.contains(app));
            let before = steps.len();
            steps.extend(apps.map(|app| Step::Claim { worker: number, id: *id, app: Some(app), answered }));
            if steps.len() == before {
                steps.push(Step::Claim { worker: number, id: *id, app: None, answered });
            }
        }
    }

    /// Faults, and what people ask for, while the setup has some of it left.
    pub(super) fn other_steps(&self, world: &World, steps: &mut Vec<Step>) {
        let (left, ids) = (world.left, world.queue.messages.keys());
        for number in 0..world.workers.len() {
            if left.crashes > 0 {
                steps.push(Step::Crash(number));
            }
            if left.lost_answers > 0 {
                self.claims(world, number, false, steps);
                for ((id, attempt), stage) in &world.workers[number].attempts {
                    if matches!(stage, Stage::Ended(_)) {
                        steps.push(Step::Finish { worker: number, id: *id, attempt: *attempt, answered: false });
                    }
                }
            }
        }
        for id in ids {
            if left.cancels > 0 {
                steps.push(Step::Cancel(*id));
            }
            if left.retries > 0 {
                steps.push(Step::Retry(*id));
            }
            if left.expiries > 0 {
                steps.push(Step::PassValidity(*id));
            }
        }
        if left.drops > 0 {
            steps.push(Step::DropDay);
        }
        if left.receipts > 0 {
            for (id, attempt) in &world.accepted {
                let told = [DeliveryStatus::Queued, DeliveryStatus::Delivered];
                steps.extend(told.map(|told| Step::Receipt { id: *id, attempt: *attempt, told }));
            }
        }
        if left.look_ups > 0 {
            for (id, message) in &world.queue.messages {
                let unclear = message.attempts.iter().filter(|(_, row)| row.status == AttemptStatus::Unclear);
                steps.extend(unclear.map(|(attempt, _)| Step::LookUp { id: *id, attempt: *attempt }));
            }
        }
    }

    /// Changes the world; not at all where the step is not possible.
    pub(super) fn take(&self, world: &mut World, step: Step) {
        match step {
            Step::Commit(xid) => {
                world.queue.commit(xid);
                world.committed.extend(world.open.remove(&xid));
            }
            Step::Rollback(xid) => {
                world.queue.rollback(xid);
                world.open.remove(&xid);
            }
            Step::Look(worker) => world.workers[worker].look(&world.queue, self.page),
            Step::Claim { worker, id, app, answered } => self.claim(world, worker, id, app, answered),
            Step::Send { worker, id, attempt } => self.send(world, worker, id, attempt),
            Step::Refrain { worker, id, attempt } => {
                let token = Token { id, attempt, worker: world.workers[worker].incarnation };
                if !world.granted.contains(&token) {
                    end(world, worker, id, attempt, AttemptStatus::NotSent);
                }
            }
            Step::Answer { request, status } => self.answer(world, request, status),
            Step::GiveUp { worker, id, attempt } => end(world, worker, id, attempt, AttemptStatus::Unclear),
            Step::Finish { worker, id, attempt, answered } => self.finish(world, worker, id, attempt, answered),
            Step::GiveBack(worker) => self.give_back(world, worker),
            Step::TimeOut(id) => {
                match world.queue.messages.get_mut(&id).map(|message| &mut message.place) {
                    Some(Place::Leased(lease)) => lease.expires_at = NOW,
                    Some(Place::Scheduled(due_at)) => *due_at = NOW,
                    _ => return,
                }
                self.maintain(world);
                if self.twin == Some(Twin::ResendOnTimeout) {
                    world.queue.retry(NOW, id);
                }
            }
            Step::PassValidity(id) => {
                let Some(message) = world.queue.messages.get_mut(&id) else { return };
                if message.valid_until.is_some_and(|end| end > NOW) {
                    message.valid_until = Some(NOW);
                    world.left.expiries -= 1;
                }
            }
            Step::Maintain => self.maintain(world),
            Step::Crash(worker) => {
                if world.workers[worker].attempts.is_empty() && !self.looks {
                    return;
                }
                world.left.crashes -= 1;
                world.workers[worker] = Worker::new(world.incarnations, self.twin == Some(Twin::ForgetfulLook));
                world.incarnations += 1;
            }
            Step::Cancel(id) => {
                if self.cancel(world, id) {
                    world.left.cancels -= 1;
                }
            }
            Step::Retry(id) => self.retry(world, id),
            Step::Receipt { id, attempt, told } => self.receipt(world, id, attempt, told),
            Step::LookUp { id, attempt } => look_up(world, id, attempt),
            Step::DropDay => self.drop_day(world),
            Step::Rest => world.at_rest = true,
        }
    }

    fn claim(&self, world: &mut World, number: usize, id: MessageId, app: Option<AppId>, answered: bool) {
        let worker = &mut world.workers[number];
        let incarnation = worker.incarnation;
        if let (Some(Twin::ClaimAfterSending), Some(app)) = (self.twin, app) {
            let Some(message) = world.queue.messages.get(&id) else { return };
            worker.attempts.insert((id, message.last_attempt + 1), Stage::Claimed(app));
            return;
        }
        let before = world.queue.messages.get(&id).map(|message| message.attempts.keys().next_back().copied());
        match world.queue.claim(NOW, name(incarnation), id, app) {
            ClaimResult::Leased(attempt) => {
                let earlier = world.granted.iter().filter(|token| token.id == id).map(|token| token.attempt).max();
                let grows = attempt > before.flatten().max(earlier).unwrap_or(0);
                if answered {
                    worker.found.remove(&id);
                    worker.attempts.extend(app.map(|app| ((id, attempt), Stage::Claimed(app))));
                } else {
                    world.left.lost_answers -= 1;
                }
                world.granted.insert(Token { id, attempt, worker: incarnation });
                if !grows {
                    world.breach(Broken::OneLease);
                }
            }
            ClaimResult::Gone | ClaimResult::Failed if answered => {
                worker.found.remove(&id);
            }
            _ => {}
        }
    }

    fn send(&self, world: &mut World, number: usize, id: MessageId, attempt: i16) {
        let worker = &mut world.workers[number];
        let token = Token { id, attempt, worker: worker.incarnation };
        if !self.stops_workers && !world.granted.contains(&token) && self.twin != Some(Twin::ClaimAfterSending) {
            return;
        }
        worker.attempts.insert((id, attempt), Stage::Sent);
        world.wire.insert(token);
        let Some(message) = world.queue.messages.get(&id) else { return };
        let ledger = message.attempts.get(&attempt).filter(|row| row.worker == *name(token.worker));
        let leased = matches!(&message.place, Place::Leased(lease) if lease.attempt == attempt && lease.worker == *name(token.worker));
        let (is_claimed, is_unclear) =
            (leased || ledger.is_some(), ledger.is_some_and(|row| row.status == AttemptStatus::Unclear));
        let taken_back = matches!(message.status(), DispatchStatus::Canceled | DispatchStatus::Expired);
        if !is_claimed && !world.granted.contains(&token) {
            world.breach(Broken::ClaimFirst);
        }
        // A worker that was stopped between its look at the clock and the write is past holding back.
        if taken_back && !is_unclear {
            world.breach(Broken::TakenBack);
        }
    }

    fn answer(&self, world: &mut World, request: Token, status: AttemptStatus) {
        if status == AttemptStatus::Throttled {
            let Some(left) = world.left.throttles.checked_sub(1) else { return };
            world.left.throttles = left;
        }
        world.wire.remove(&request);
        if status == AttemptStatus::Accepted {
            world.accepted.insert((request.id, request.attempt));
            let effects = world.effects.entry(request.id).or_default();
            *effects = if self.deduplicates { 1 } else { *effects + 1 };
        }
        let worker = world.workers.iter().position(|worker| worker.incarnation == request.worker);
        if let Some(worker) = worker
            && world.workers[worker].attempts.get(&(request.id, request.attempt)) == Some(&Stage::Sent)
        {
            end(world, worker, request.id, request.attempt, status);
        }
    }

    fn finish(&self, world: &mut World, number: usize, id: MessageId, attempt: i16, answered: bool) {
        let worker = &mut world.workers[number];
        let Some(Stage::Ended(status)) = worker.attempts.get(&(id, attempt)).copied() else { return };
        let token = Token { id, attempt, worker: worker.incarnation };
        if answered {
            worker.attempts.remove(&(id, attempt));
        } else {
            let before = world.queue.clone();
            self.record(world, token, status);
            if world.queue != before {
                world.left.lost_answers -= 1;
            }
            return;
        }
        self.record(world, token, status);
    }

    fn give_back(&self, world: &mut World, number: usize) {
        let worker = &world.workers[number];
        let unknown: Vec<Token> = world
            .queue
            .messages
            .iter()
            .filter_map(|(id, message)| match &message.place {
                Place::Leased(lease) if lease.worker == *worker.name() => {
                    Some(Token { id: *id, attempt: lease.attempt, worker: worker.incarnation })
                }
                _ => None,
            })
            .filter(|token| {
                self.twin == Some(Twin::GivesBackWhatItBegan)
                    || !worker.attempts.contains_key(&(token.id, token.attempt))
            })
            .collect();
        for token in unknown {
            self.record(world, token, AttemptStatus::NotSent);
        }
    }

    /// Calls the rule of `finish`, and sees that a stale outcome leaves newer attempts alone.
    fn record(&self, world: &mut World, token: Token, status: AttemptStatus) {
        let before = world.queue.messages.get(&token.id).cloned();
        let ending = Ending { status, error_code: None, retry_after: None };
        self.finish_by(world, token, &ending);
        let (Some(before), Some(after)) = (before, world.queue.messages.get(&token.id)) else { return };
        let is_own = |place: &Place| {
            matches!(place, Place::Leased(lease)
                if lease.attempt == token.attempt && lease.worker == *name(token.worker))
        };
        let newer = |row: &MessageRow| {
            row.attempts.range(token.attempt + 1..).map(|(number, row)| (*number, row.status)).collect::<Vec<_>>()
        };
        let leaves_newer = newer(&before) == newer(after)
            && (!matches!(before.place, Place::Leased(_)) || is_own(&before.place) || before.place == after.place);
        if is_own(&before.place) && !is_own(&after.place) {
            world.granted.remove(&token);
        }
        if status == AttemptStatus::Accepted {
            world.reported.insert(token.id);
        }
        if !leaves_newer {
            world.breach(Broken::Stale);
        }
    }

    fn maintain(&self, world: &mut World) {
        let over: Vec<(MessageId, i16)> = world
            .queue
            .messages
            .iter()
            .filter_map(|(id, message)| match &message.place {
                Place::Leased(lease) if lease.expires_at <= NOW => Some((*id, lease.attempt)),
                _ => None,
            })
            .collect();
        world.granted.retain(|token| !over.contains(&(token.id, token.attempt)));
        world.queue.run_maintenance(self.clock_of_maintenance(), 0.0);
    }

    fn retry(&self, world: &mut World, id: MessageId) {
        let Some(message) = world.queue.messages.get(&id) else { return };
        let risks = message.attempts.values().any(|attempt| attempt.status == AttemptStatus::Unclear);
        if self.retry_by(world, id) {
            world.left.retries -= 1;
            if risks {
                *world.risked.entry(id).or_default() += 1;
            }
        }
    }

    fn receipt(&self, world: &mut World, id: MessageId, attempt: i16, told: DeliveryStatus) {
        let receipts = |world: &World| world.queue.messages.get(&id).map(|message| message.receipts.clone());
        let before = receipts(world);
        self.record_receipt(world, id, attempt, told);
        let after = receipts(world);
        let (before, after) = (before.unwrap_or_default(), after.unwrap_or_default());
        if before != after {
            world.left.receipts -= 1;
        }
        let forwards = |(number, was): (&i16, &DeliveryStatus)| {
            after.get(number).is_some_and(|is| is == was || was.advanced_by(*is) == *is)
        };
        if !before.iter().all(forwards) {
            world.breach(Broken::Receipt);
        }
    }

    fn drop_day(&self, world: &mut World) {
        let before: Vec<(MessageId, bool)> =
            world.queue.messages.iter().map(|(id, message)| (*id, message.place == Place::Accepted)).collect();
        self.drop_by(world, message(0)..message(u8::MAX));
        let gone = |id: &MessageId| !world.queue.messages.contains_key(id);
        let (lost, any) =
            (before.iter().any(|(id, settled)| !settled && gone(id)), before.iter().any(|(id, _)| gone(id)));
        if any {
            world.left.drops -= 1;
            world.committed.retain(|id| world.queue.messages.contains_key(id));
        }
        if lost {
            world.breach(Broken::Dropped);
        }
    }
}

/// Whether the database knows anything of a worker.
fn is_named(world: &World, worker: &Worker) -> bool {
    world.queue.messages.values().any(|message| {
        matches!(&message.place, Place::Leased(lease) if lease.worker == *worker.name())
            || message.attempts.values().any(|row| row.worker == *worker.name())
    })
}

/// An attempt has ended, as far as its worker knows.
fn end(world: &mut World, worker: usize, id: MessageId, attempt: i16, status: AttemptStatus) {
    world.workers[worker].attempts.insert((id, attempt), Stage::Ended(status));
}

/// A look-up is right: whoever asks waits until the attempt is surely over.
fn look_up(world: &mut World, id: MessageId, attempt: i16) {
    let is_over = world.wire.iter().all(|request| (request.id, request.attempt) != (id, attempt))
        && world
            .workers
            .iter()
            .all(|worker| !matches!(worker.attempts.get(&(id, attempt)), Some(Stage::Claimed(_) | Stage::Sent)));
    if !is_over {
        return;
    }
    let accepted = world.accepted.contains(&(id, attempt));
    let verdict = if accepted { AttemptStatus::Accepted } else { AttemptStatus::NotSent };
    if world.queue.resolve(id, attempt, verdict, Evidence::LookUp) {
        world.left.look_ups -= 1;
        if accepted {
            world.reported.insert(id);
        }
    }
}
