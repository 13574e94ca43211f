//! The loop of a worker: wait, look, schedule, claim, deliver, finish. It holds no rule of its own: what may be sent
//! next is the [`Scheduler`]'s to say, what an outcome means the outbox's.

mod finisher;
mod heart;
mod start;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::FutureExt;
use tokio::sync::{Notify, mpsc, watch};
use tokio::task::JoinSet;
use tokio_util::sync::CancellationToken;

use self::finisher::Settled;
pub use self::start::run;
use crate::failpoint::{self, Point};
use crate::logging::Told;
use crate::message::{AppId, AttemptStatus, MessageId};
use crate::metrics::worker::{Cause, woken};
use crate::outbox::{CLAIM_ANSWER_LOST, Claimed, Finish, Lease, Outbox, OutboxError, Outcome};
use crate::scheduler::Scheduler;

/// How often leases are compared with what is in flight: an answer of `claim` may have been lost.
const RECONCILE_INTERVAL: Duration = Duration::from_secs(5);

/// Few large calls beat many small ones: most of what a small one costs the database does not depend on its size. So a small
/// claim, and a small batch of outcomes, begins no sooner than `patience` after the one before; the first after a lull at once.
#[derive(Clone, Copy, Debug)]
struct Gather {
    /// A call for so many messages is not small.
    enough: usize,
    patience: Duration,
}

impl Gather {
    fn new(concurrency: usize) -> Self {
        Self { enough: concurrency / 4, patience: Duration::from_millis(10) }
    }
}

/// Pause after an error of the database, so that a restarting one is not stormed.
const ERROR_PAUSE: Duration = Duration::from_millis(500);

/// One attempt at handing a message to a provider.
pub trait Deliver: Send + Sync + 'static {
    /// Makes the attempt, and says how it ended. `claimed` was read before the claim was asked for.
    fn deliver(&self, lease: &Lease, claimed: Instant) -> impl Future<Output = Outcome> + Send;
}

/// The attempt of a message: what a lease is proven by.
type Token = (MessageId, i16);

/// How the dispatcher is run.
#[derive(Clone, Copy, Debug)]
pub struct Options {
    /// Most attempts in flight; one that ended counts until it is recorded.
    pub concurrency: usize,
    /// Longest pause between two looks.
    pub poll_interval: Duration,
    /// How long to wait at the end for attempts in flight.
    pub drain_timeout: Duration,
}

/// What the parts of a worker tell each other.
#[derive(Clone)]
pub struct Signals {
    /// There may be something to claim.
    pub wake: Arc<Notify>,
    /// Names of the live workers, this one included.
    pub workers: watch::Receiver<Vec<String>>,
    /// Claim nothing more; end when nothing is in flight.
    pub shutdown: CancellationToken,
    /// End now.
    pub abort: CancellationToken,
    /// What the worker says of itself.
    pub counters: Arc<heart::Counters>,
}

/// The loop's state.
pub struct Dispatcher<O, D> {
    outbox: Arc<O>,
    deliver: Arc<D>,
    scheduler: Scheduler,
    options: Options,
    gather: Gather,
    signals: Signals,
    started: Instant,
    in_flight: HashMap<Token, AppId>,
    tasks: JoinSet<()>,
    ended: mpsc::Sender<Finish>,
    settled: mpsc::Receiver<Settled>,
    /// Begun, and still leased because the database refuses their outcome: never to be given back as not sent.
    lost: HashSet<Token>,
    next_look: Duration,
    /// Something was claimed since the last look: what is held in memory may run short.
    claimed_since_look: bool,
    next_reconcile: Duration,
    /// No small claim before this.
    next_small_claim: Duration,
    /// A small claim waits for that time.
    holds_back: bool,
    not_before: Duration,
    told: Told,
}

impl<O: Outbox, D: Deliver> Dispatcher<O, D> {
    /// A dispatcher; the finisher that records its outcomes runs from now on.
    pub fn new(outbox: Arc<O>, deliver: Arc<D>, scheduler: Scheduler, options: Options, signals: Signals) -> Self {
        let (ended, unrecorded) = mpsc::channel(options.concurrency.max(1));
        let (report, settled) = mpsc::channel(options.concurrency.max(1));
        let gather = Gather::new(options.concurrency);
        tokio::spawn(finisher::run(outbox.clone(), unrecorded, report, signals.counters.clone(), gather));
        Self {
            outbox,
            deliver,
            scheduler,
            options,
            gather,
            signals,
            started: Instant::now(),
            in_flight: HashMap::new(),
            tasks: JoinSet::new(),
            ended,
            settled,
            lost: HashSet::new(),
            next_look: Duration::ZERO,
            claimed_since_look: false,
            next_reconcile: RECONCILE_INTERVAL,
            next_small_claim: Duration::ZERO,
            holds_back: false,
            not_before: Duration::ZERO,
            told: Told::default(),
        }
    }

    /// Runs until shut down. Returns how many attempts it left behind without a recorded outcome: none, unless
    /// the drain time ran out or it was aborted.
    pub async fn run(mut self) -> usize {
        let (shutdown, abort) = (self.signals.shutdown.clone(), self.signals.abort.clone());
        while !shutdown.is_cancelled() {
            tokio::select! {
                () = self.turn() => {}
                () = abort.cancelled() => return self.in_flight.len(),
            }
            tokio::select! {
                () = self.wait() => {}
                () = shutdown.cancelled() => {}
                () = abort.cancelled() => return self.in_flight.len(),
            }
        }
        tracing::info!(in_flight = self.in_flight.len(), "stopping: claiming nothing more");
        let patience = self.options.drain_timeout;
        tokio::select! {
            () = self.drain() => {}
            () = tokio::time::sleep(patience) => {}
            () = abort.cancelled() => {}
        }
        self.in_flight.len()
    }

    fn now(&self) -> Duration {
        self.started.elapsed()
    }

    /// Reads and claims as much as there is room for.
    async fn turn(&mut self) {
        while self.now() >= self.not_before && !self.signals.shutdown.is_cancelled() {
            let worked = match self.step().await {
                Ok(worked) => worked,
                Err(error) => {
                    if self.told.is_news(&error) {
                        tracing::warn!(%error, "the outbox did not answer; nothing is claimed until it does");
                    }
                    self.not_before = self.now() + ERROR_PAUSE;
                    return;
                }
            };
            if self.told.is_over() {
                tracing::info!("claiming again");
            }
            self.collect();
            if !worked {
                return;
            }
        }
    }

    /// One look, one read of apps and one claim, each where it is due. Says whether another step may find more.
    async fn step(&mut self) -> Result<bool, OutboxError> {
        if self.signals.workers.has_changed().unwrap_or(false) {
            let workers = self.signals.workers.borrow_and_update().clone();
            self.scheduler.set_workers(&workers);
        }
        if self.now() >= self.next_reconcile {
            self.next_reconcile = self.now() + RECONCILE_INTERVAL;
            self.reconcile().await?;
        }
        let mut more = false;
        let runs_short = self.claimed_since_look && self.scheduler.runs_short();
        if runs_short || self.now() >= self.next_look {
            self.claimed_since_look = false;
            let look = self.scheduler.next_look(self.now());
            let looked = self.outbox.look(&look).await?;
            more = self.scheduler.observe(self.now(), &look, &looked);
            self.next_look = if more { self.now() } else { self.now() + self.options.poll_interval };
        }
        let unknown = self.scheduler.organizations_needing_apps(self.now());
        if !unknown.is_empty() {
            let apps = self.outbox.apps(&unknown).await?;
            self.scheduler.set_apps(self.now(), &unknown, apps);
        }
        Ok(self.claim().await? || more)
    }

    /// Claims what the scheduler picks, and begins the attempts.
    async fn claim(&mut self) -> Result<bool, OutboxError> {
        let free = self.options.concurrency.saturating_sub(self.in_flight.len());
        let most = free.min(self.scheduler.held());
        let is_small = (1..self.gather.enough).contains(&most);
        // A rate lets one message after another through, each at its time.
        self.holds_back = is_small && self.now() < self.next_small_claim && !self.scheduler.is_paced();
        if self.holds_back {
            return Ok(false);
        }
        let claims = self.scheduler.plan(self.now(), free);
        if claims.is_empty() {
            return Ok(false);
        }
        self.next_small_claim = self.now() + self.gather.patience;
        // Before the call: the lease begins while it runs, and must never end before our own count of it.
        let asked = Instant::now();
        failpoint::reach(Point::Claim).await;
        let answers = match self.outbox.claim(&claims).await {
            Ok(answers) => answers,
            Err(error) => {
                // Perhaps it was committed all the same: then these are our leases, and reconcile gives them back.
                self.scheduler.unasked(self.now(), &claims);
                self.next_reconcile = Duration::ZERO;
                return Err(error);
            }
        };
        self.scheduler.claimed(self.now(), &claims, &answers);
        self.claimed_since_look = true;
        for answer in answers {
            if let Claimed::Leased(lease) = answer {
                self.begin(*lease, asked);
            }
        }
        Ok(true)
    }

    fn begin(&mut self, lease: Lease, asked: Instant) {
        let token = (lease.id, lease.attempt);
        self.in_flight.insert(token, lease.app);
        self.signals.counters.claimed(self.in_flight.len());
        let (deliver, ended) = (self.deliver.clone(), self.ended.clone());
        self.tasks.spawn(async move {
            failpoint::reach(Point::Claimed).await;
            // A bug in an adapter must not lose the message: what it did is unclear, and said so.
            let attempt = AssertUnwindSafe(deliver.deliver(&lease, asked)).catch_unwind().await;
            let outcome = attempt.unwrap_or_else(|_| {
                tracing::error!(message_id = %lease.id, attempt = lease.attempt, slug = %lease.slug, "the adapter panicked");
                own_outcome(AttemptStatus::Unclear, "panic", "the provider's adapter failed; it may have been sent")
            });
            let finish = Finish { id: lease.id, attempt: lease.attempt, outcome };
            failpoint::reach(Point::Answered).await;
            // The finisher outlives all attempts; without it the process is ending.
            let _ = ended.send(finish).await;
        });
    }

    /// Gives back what was claimed for us without our knowing: the answer of the claim was lost. No claim of ours is
    /// running at this moment, and what was recorded meanwhile is still in `in_flight`: it is taken out between steps
    /// only. So a lease that we do not know was never begun.
    async fn reconcile(&mut self) -> Result<(), OutboxError> {
        let leases = self.outbox.leases().await?;
        let lost: Vec<Finish> = leases
            .into_iter()
            .filter(|token| !self.in_flight.contains_key(token) && !self.lost.contains(token))
            .map(|(id, attempt)| Finish {
                id,
                attempt,
                outcome: own_outcome(
                    AttemptStatus::NotSent,
                    CLAIM_ANSWER_LOST,
                    "the answer of the claim was lost; nothing was sent",
                ),
            })
            .collect();
        if !lost.is_empty() {
            tracing::warn!(messages = lost.len(), "giving back messages whose claim was answered to nobody");
            self.outbox.finish(&lost).await?;
        }
        Ok(())
    }

    /// Takes back the room of attempts that are recorded.
    fn collect(&mut self) {
        while let Ok(settled) = self.settled.try_recv() {
            self.release(settled);
        }
        while self.tasks.try_join_next().is_some() {}
    }

    fn release(&mut self, settled: Settled) {
        self.lost.extend(settled.lost);
        for token in settled.over {
            if let Some(app) = self.in_flight.remove(&token) {
                self.scheduler.released(app);
            }
        }
        self.signals.counters.in_flight(self.in_flight.len());
    }

    /// Waits until there may be something to do.
    async fn wait(&mut self) {
        let now = self.now();
        let mut until = self.next_look.min(self.next_reconcile);
        if let Some(wake) = self.scheduler.next_wake() {
            until = until.min(wake);
        }
        if self.holds_back {
            until = until.min(self.next_small_claim);
        }
        let pause = until.max(self.not_before).saturating_sub(now);
        let wake = self.signals.wake.clone();
        let cause = tokio::select! {
            Some(settled) = self.settled.recv() => {
                self.release(settled);
                Cause::Room
            }
            () = wake.notified() => {
                self.next_look = self.now();
                Cause::Notification
            }
            Ok(()) = self.signals.workers.changed() => {
                self.signals.workers.mark_changed();
                Cause::Workers
            }
            () = tokio::time::sleep(pause) => Cause::Poll,
        };
        woken(cause);
    }

    async fn drain(&mut self) {
        // Now, since there is no later: what was claimed without our knowing would wait for its lease to be over.
        if let Err(error) = self.reconcile().await {
            tracing::warn!(%error, "cannot tell whether the answer of a claim was lost");
        }
        while !self.in_flight.is_empty() {
            match self.settled.recv().await {
                Some(settled) => self.release(settled),
                None => return,
            }
        }
    }
}

/// An outcome that no provider had a part in.
fn own_outcome(status: AttemptStatus, code: &str, message: &str) -> Outcome {
    Outcome {
        status,
        http_status: None,
        error_code: Some(code.to_owned()),
        error_message: Some(message.to_owned()),
        response: None,
        provider_message_id: None,
        retry_after: None,
    }
}
