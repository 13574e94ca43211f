//! The invariants. Eleven and twelve are about what comes in the end: where nothing more can happen by itself, the world is
//! at rest ([`Step::Rest`](super::step::Step::Rest)), and everything must have been dealt with by then.

use std::collections::BTreeSet;

use stateright::Property;

use super::super::{MessageRow, Place};
use super::worker::name;
use super::{Setup, World};
use crate::message::{AttemptStatus, DispatchStatus, MessageId};

pub(super) const ONE_LEASE: &str = "1 a message has at most one live lease, and leases only grow";
pub(super) const CLAIM_FIRST: &str = "2 bytes go out only after the commit of the claim";
pub(super) const ACCEPTED_ONCE: &str = "3 providers accept a message at most once, but for risky retries";
pub(super) const EFFECT_ONCE: &str = "4 with a deduplicating provider it takes effect at most once";
pub(super) const EVIDENCE: &str = "5 sent has evidence";
pub(super) const REPORTED: &str = "5 what a worker reported as accepted is sent";
pub(super) const FAILED: &str = "6 failed means that no provider accepted it";
pub(super) const STALE: &str = "7 a stale lease changes nothing of a newer attempt";
pub(super) const ONE_PLACE: &str = "8 a committed message is in exactly one place, a rolled-back one in none";
pub(super) const DROPPED: &str = "9 no day that holds an unfinished message is dropped";
pub(super) const TAKEN_BACK: &str = "10 canceled and expired: no request is made after that";
pub(super) const RECEIPTS: &str = "receipts move a delivery status forwards only";
pub(super) const TRIED: &str = "11 every due message is tried in the end";
pub(super) const LEASES_END: &str = "12 every lease ends";

/// An invariant of a step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(super) enum Broken {
    OneLease,
    ClaimFirst,
    Stale,
    Dropped,
    TakenBack,
    Receipt,
}

pub(super) type Breaches = BTreeSet<Broken>;

pub(super) fn all(setup: &Setup) -> Vec<Property<Setup>> {
    let mut all = vec![
        Property::<Setup>::always(ONE_LEASE, |_, world| {
            !world.broken.contains(&Broken::OneLease) && has_one_lease(world)
        }),
        Property::<Setup>::always(CLAIM_FIRST, |_, world| !world.broken.contains(&Broken::ClaimFirst)),
        Property::<Setup>::always(EVIDENCE, |_, world| {
            each(world, |id, row| {
                row.status() != DispatchStatus::Sent
                    || row.attempts.iter().any(|(number, attempt)| {
                        attempt.status == AttemptStatus::Accepted && world.accepted.contains(&(id, *number))
                    })
            })
        }),
        Property::<Setup>::always(REPORTED, |_, world| {
            each(world, |id, row| !world.reported.contains(&id) || row.status() == DispatchStatus::Sent)
        }),
        Property::<Setup>::always(FAILED, |_, world| {
            each(world, |id, row| row.status() != DispatchStatus::Failed || !world.effects.contains_key(&id))
        }),
        Property::<Setup>::always(STALE, |_, world| !world.broken.contains(&Broken::Stale)),
        Property::<Setup>::always(ONE_PLACE, |_, world| has_one_place(world)),
        Property::<Setup>::always(DROPPED, |_, world| !world.broken.contains(&Broken::Dropped)),
        Property::<Setup>::always(TAKEN_BACK, |_, world| !world.broken.contains(&Broken::TakenBack)),
        Property::<Setup>::always(RECEIPTS, |_, world| !world.broken.contains(&Broken::Receipt)),
        Property::<Setup>::eventually(TRIED, |_, world| {
            world.at_rest && each(world, |_, row| !matches!(row.place, Place::Ready(_) | Place::Scheduled(_)))
        }),
        Property::<Setup>::eventually(LEASES_END, |_, world| {
            world.at_rest && each(world, |_, row| !matches!(row.place, Place::Leased(_)))
        }),
    ];
    if setup.deduplicates {
        all.push(Property::<Setup>::always(EFFECT_ONCE, |_, world| {
            world.effects.values().all(|effects| *effects <= 1)
        }));
    } else if !setup.resends {
        all.push(Property::<Setup>::always(ACCEPTED_ONCE, |_, world| {
            world.effects.iter().all(|(id, effects)| *effects <= 1 + world.risked.get(id).copied().unwrap_or(0))
        }));
    }
    all.extend(setup.reaches.iter().map(|status| reaches(*status)));
    all
}

/// That a setup comes to what it is there for.
fn reaches(status: DispatchStatus) -> Property<Setup> {
    use DispatchStatus::*;
    let occurs: fn(&Setup, &World) -> bool = match status {
        Pending => |_, world| occurs(world, Pending),
        Sending => |_, world| occurs(world, Sending),
        Sent => |_, world| occurs(world, Sent),
        Failed => |_, world| occurs(world, Failed),
        DispatchTimeout => |_, world| occurs(world, DispatchTimeout),
        Canceled => |_, world| occurs(world, Canceled),
        Expired => |_, world| occurs(world, Expired),
    };
    Property::sometimes(status.word(), occurs)
}

fn occurs(world: &World, status: DispatchStatus) -> bool {
    world.queue.messages.values().any(|row| row.status() == status)
}

fn each(world: &World, holds: impl Fn(MessageId, &MessageRow) -> bool) -> bool {
    world.queue.messages.iter().all(|(id, row)| holds(*id, row))
}

/// What was granted and has not ended is what the database holds, and no more than one for a message.
fn has_one_lease(world: &World) -> bool {
    let mut leased = 0;
    let held = world.queue.messages.iter().all(|(id, row)| match &row.place {
        Place::Leased(lease) => {
            leased += 1;
            world
                .granted
                .iter()
                .any(|token| token.id == *id && token.attempt == lease.attempt && *name(token.worker) == lease.worker)
        }
        _ => true,
    });
    held && leased == world.granted.len()
}

fn has_one_place(world: &World) -> bool {
    let open = |id| world.open.values().any(|of| *of == id);
    world.committed.iter().all(|id| world.queue.messages.contains_key(id))
        && each(world, |id, row| {
            let accepted = row.attempts.values().any(|attempt| attempt.status == AttemptStatus::Accepted);
            let consistent = match row.place {
                Place::Accepted => accepted,
                Place::Leased(_) => true,
                _ => !accepted,
            };
            consistent && (world.committed.contains(&id) != open(id))
        })
}
