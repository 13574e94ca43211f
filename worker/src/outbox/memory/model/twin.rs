//! Broken twins: each puts one mistake in the place of one rule, or of the order in which a worker calls them. That the
//! checker finds each of them proves that it would find such a mistake in the code.

use std::ops::Range;
use std::time::Duration;

use super::super::{Ending, Place};
use super::worker::name;
use super::{NOW, Setup, Token, World};
use crate::message::{AttemptStatus, DeliveryStatus, DispatchStatus, MessageId};

/// One mistake.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Twin {
    /// Two operators read that a message has ended, and both queue it.
    TwoRetriesQueue,
    /// A look forgets the transactions that are in progress behind its mark.
    ForgetfulLook,
    /// A lease that is over is queued again.
    ResendOnTimeout,
    /// `finish` moves the message without asking whose lease is live.
    FinishWithoutLease,
    /// The request goes out, and the claim is committed with its outcome.
    ClaimAfterSending,
    /// Maintenance compares the end of a lease with the clock of another machine, which is an hour ahead.
    LeaseByWallClock,
    /// A receipt is believed, whatever came before it.
    ReceiptMovesBackwards,
    /// A day is dropped because it is old.
    DropByAge,
    /// A day is looked at before its writers are waited for.
    DropBeforeLock,
    /// A worker gives back every lease that it holds, as if it had begun none of them.
    GivesBackWhatItBegan,
    /// An outcome that comes without its live lease is thrown away.
    IgnoresLateAnswer,
    /// `cancel` does not ask where the message is.
    CancelsAnywhere,
    /// An unclear end goes to the next app, as if nothing had been sent.
    FailoverOnUnclear,
    /// A refusal ends the message as failed although an earlier attempt is unclear.
    FailsBesideUnclear,
    /// A retry begins to count its attempts anew.
    RetryCountsAnew,
}

impl Setup {
    pub(super) fn finish_by(&self, world: &mut World, token: Token, ending: &Ending<'_>) {
        let Token { id, attempt, worker } = token;
        let mut ending = ending.clone();
        let place = world.queue.messages.get(&id).map(|message| message.place.clone());
        match (self.twin, place) {
            (Some(Twin::FinishWithoutLease), Some(Place::Leased(lease))) => {
                world.queue.finish(NOW, &lease.worker, id, lease.attempt, &ending, 0.0);
                return;
            }
            (Some(Twin::IgnoresLateAnswer), Some(place)) => {
                let own = |place: &Place| matches!(place, Place::Leased(lease) if lease.attempt == attempt);
                if !own(&place) {
                    return;
                }
            }
            (Some(Twin::FailoverOnUnclear), _) if ending.status == AttemptStatus::Unclear => {
                ending.status = AttemptStatus::NotSent;
            }
            (Some(Twin::ClaimAfterSending), _) => {
                let app = world.queue.apps.keys().next().copied();
                world.queue.claim(NOW, name(worker), id, app);
            }
            _ => {}
        }
        world.queue.finish(NOW, name(worker), id, attempt, &ending, 0.0);
        if self.twin == Some(Twin::FailsBesideUnclear)
            && ending.status == AttemptStatus::RefusedRecipient
            && let Some(message) = world.queue.messages.get_mut(&id)
            && let Place::Ended(status, _) = &mut message.place
        {
            *status = DispatchStatus::Failed;
        }
    }

    pub(super) fn cancel(&self, world: &mut World, id: MessageId) -> bool {
        if self.twin == Some(Twin::CancelsAnywhere)
            && let Some(message) = world.queue.messages.get_mut(&id)
        {
            message.place = Place::Ended(DispatchStatus::Canceled, "canceled");
            return true;
        }
        world.queue.cancel(id)
    }

    pub(super) fn retry_by(&self, world: &mut World, id: MessageId) -> bool {
        if self.twin == Some(Twin::TwoRetriesQueue) {
            if world.stale_retries.remove(&id) {
                let xid = world.queue.next_xid();
                if let Some(message) = world.queue.messages.get_mut(&id) {
                    message.place = Place::Ready(xid);
                }
                return true;
            }
            world.stale_retries.insert(id);
        }
        let moved = world.queue.retry(NOW, id);
        if self.twin == Some(Twin::TwoRetriesQueue) && !moved {
            world.stale_retries.remove(&id);
        }
        if self.twin == Some(Twin::RetryCountsAnew)
            && moved
            && let Some(message) = world.queue.messages.get_mut(&id)
        {
            message.last_attempt = 0;
        }
        moved
    }

    pub(super) fn record_receipt(&self, world: &mut World, id: MessageId, attempt: i16, told: DeliveryStatus) {
        world.queue.record_receipt(id, attempt, told);
        if self.twin == Some(Twin::ReceiptMovesBackwards)
            && let Some(message) = world.queue.messages.get_mut(&id)
        {
            message.receipts.insert(attempt, told);
        }
    }

    pub(super) fn drop_by(&self, world: &mut World, day: Range<MessageId>) {
        match self.twin {
            Some(Twin::DropByAge) => world.queue.messages.clear(),
            Some(Twin::DropBeforeLock) => {
                let open: Vec<MessageId> = world.open.values().copied().collect();
                let mut seen = world.queue.clone();
                seen.messages.retain(|id, _| !open.contains(id));
                if seen.is_day_over(day) && !seen.messages.is_empty() {
                    world.queue.messages.clear();
                }
            }
            _ => {
                world.queue.drop_day(day);
            }
        }
    }

    pub(super) fn clock_of_maintenance(&self) -> Duration {
        match self.twin {
            Some(Twin::LeaseByWallClock) => NOW + Duration::from_secs(3600),
            _ => NOW,
        }
    }
}
