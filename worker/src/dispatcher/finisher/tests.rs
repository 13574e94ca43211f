//! What becomes of outcomes that a database does not take.

use std::sync::Mutex;

use uuid::Uuid;

use super::*;
use crate::dispatcher::own_outcome;
use crate::message::MessageId;
use crate::outbox::{App, Claim, Claimed, Finished, Heartbeat, Look, Looked, OrganizationId};

/// A database that refuses a response of one kind, everything of one message, and does not serve at first.
#[derive(Default)]
struct Picky {
    away: Mutex<u32>,
    taken: Mutex<Vec<Finish>>,
}

const BAD: &str = "bad";
const NEVER: MessageId = MessageId(Uuid::from_u128(99));

impl Outbox for Picky {
    async fn finish(&self, outcomes: &[Finish]) -> Result<Vec<Finished>, OutboxError> {
        {
            let mut away = self.away.lock().unwrap();
            if *away > 0 {
                *away -= 1;
                return Err(OutboxError::Unavailable("permission denied".into()));
            }
        }
        if outcomes.iter().any(|finish| finish.id == NEVER || finish.outcome.response.as_deref() == Some(BAD)) {
            return Err(OutboxError::Refused { sqlstate: "22P02".into(), message: "bad".into() });
        }
        self.taken.lock().unwrap().extend_from_slice(outcomes);
        Ok(Vec::new())
    }

    async fn look(&self, _: &Look) -> Result<Looked, OutboxError> {
        Ok(Looked::default())
    }

    async fn apps(&self, _: &[OrganizationId]) -> Result<Vec<App>, OutboxError> {
        Ok(Vec::new())
    }

    async fn claim(&self, _: &[Claim]) -> Result<Vec<Claimed>, OutboxError> {
        Ok(Vec::new())
    }

    async fn leases(&self) -> Result<Vec<(MessageId, i16)>, OutboxError> {
        Ok(Vec::new())
    }

    async fn heartbeat(&self, _: &Heartbeat) -> Result<Vec<String>, OutboxError> {
        Ok(Vec::new())
    }
}

fn accepted(id: MessageId, response: &str) -> Finish {
    let outcome = Outcome {
        response: Some(response.to_owned()),
        provider_message_id: Some("p".to_owned()),
        ..own_outcome(AttemptStatus::Accepted, "ok", "taken")
    };
    Finish { id, attempt: 1, outcome }
}

async fn finish_all(outbox: Picky, finishes: &[Finish]) -> (Vec<Finish>, Settled) {
    let outbox = Arc::new(outbox);
    let (ended, unrecorded) = mpsc::channel(finishes.len());
    let (report, mut settled) = mpsc::channel(finishes.len());
    for finish in finishes {
        ended.send(finish.clone()).await.unwrap();
    }
    drop(ended);
    run(outbox.clone(), unrecorded, report, Arc::default(), Gather::new(1)).await;
    let settled = settled.recv().await.unwrap();
    (outbox.taken.lock().unwrap().clone(), settled)
}

#[tokio::test]
async fn a_refused_text_costs_itself_alone() {
    let id = |number| MessageId(Uuid::from_u128(number));
    let finishes = [accepted(id(1), "good"), accepted(id(2), BAD), accepted(NEVER, "good"), accepted(id(3), "good")];
    let (taken, settled) = finish_all(Picky::default(), &finishes).await;
    assert_eq!(taken, [finishes[0].clone(), without_texts(&finishes[1]), finishes[3].clone()]);
    assert_eq!(settled.over.len(), 4, "what is lost takes no room for ever");
    assert_eq!(settled.lost, [(NEVER, 1)]);
    assert_eq!(taken[1].outcome.status, AttemptStatus::Accepted);
}

#[tokio::test]
async fn what_somebody_can_mend_is_waited_for() {
    let outbox = Picky { away: Mutex::new(2), ..Picky::default() };
    let finishes = [accepted(MessageId(Uuid::from_u128(1)), "good")];
    let (taken, settled) = finish_all(outbox, &finishes).await;
    assert_eq!((taken, settled.lost.len()), (finishes.to_vec(), 0));
}

#[tokio::test]
async fn few_wait_for_more_but_not_the_first_after_a_lull() {
    let one = |number| accepted(MessageId(Uuid::from_u128(number)), "good");
    for (patience, counts, wait) in
        [(Duration::from_hours(1), vec![1, 10], 300), (Duration::from_nanos(1), vec![1, 3, 7], 60_000)]
    {
        let (ended, unrecorded) = mpsc::channel(100);
        let (report, mut settled) = mpsc::channel(100);
        let gather = Gather { enough: 10, patience };
        let counters = Arc::new(Counters::default());
        counters.in_flight(11);
        tokio::spawn(run(Arc::new(Picky::default()), unrecorded, report, counters.clone(), gather));
        let mut recorded = Vec::new();
        for sent in [1, 3, 7] {
            for number in 0..sent {
                ended.send(one(number)).await.unwrap();
            }
            let shortly = tokio::time::timeout(Duration::from_millis(wait), settled.recv());
            recorded.extend(shortly.await.ok().flatten().map(|settled| settled.over.len()));
        }
        assert_eq!(recorded, counts);
        counters.in_flight(2);
        for number in 0..2 {
            ended.send(one(number)).await.unwrap();
        }
        assert_eq!(settled.recv().await.unwrap().over.len(), 2, "nothing else is in flight");
    }
}
