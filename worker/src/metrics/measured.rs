//! An outbox and a delivery that count what goes through them.

use std::future::Future;
use std::time::{Duration, Instant};

use super::worker;
use crate::dispatcher::Deliver;
use crate::message::MessageId;
use crate::outbox::{
    App, Claim, Claimed, Finish, Finished, Heartbeat, Lease, Look, Looked, OrganizationId, Outbox, OutboxError,
    Outcome, Reconcile, Resolution, Unclear,
};

/// Counts and times what the inner one does.
#[derive(Debug)]
pub struct Measured<T>(pub T);

async fn timed<T>(
    call: &'static str,
    work: impl Future<Output = Result<T, OutboxError>> + Send,
) -> Result<T, OutboxError> {
    let begun = Instant::now();
    let answer = work.await;
    worker::called(call, begun.elapsed(), answer.is_ok());
    answer
}

impl<O: Outbox> Outbox for Measured<O> {
    async fn look(&self, look: &Look) -> Result<Looked, OutboxError> {
        timed("look", self.0.look(look)).await
    }

    async fn apps(&self, organizations: &[OrganizationId]) -> Result<Vec<App>, OutboxError> {
        let apps = timed("apps", self.0.apps(organizations)).await?;
        worker::apps(&apps);
        Ok(apps)
    }

    async fn claim(&self, claims: &[Claim]) -> Result<Vec<Claimed>, OutboxError> {
        let answers = timed("claim", self.0.claim(claims)).await?;
        worker::claimed(&answers);
        Ok(answers)
    }

    async fn finish(&self, outcomes: &[Finish]) -> Result<Vec<Finished>, OutboxError> {
        timed("finish", self.0.finish(outcomes)).await
    }

    async fn leases(&self) -> Result<Vec<(MessageId, i16)>, OutboxError> {
        timed("leases", self.0.leases()).await
    }

    async fn heartbeat(&self, beat: &Heartbeat) -> Result<Vec<String>, OutboxError> {
        timed("heartbeat", self.0.heartbeat(beat)).await
    }
}

impl<O: Reconcile> Reconcile for Measured<O> {
    async fn unclear(&self, after: Duration, most: u32) -> Result<Vec<Unclear>, OutboxError> {
        timed("unclear", self.0.unclear(after, most)).await
    }

    async fn resolve(&self, resolution: &Resolution) -> Result<bool, OutboxError> {
        timed("resolve", self.0.resolve(resolution)).await
    }
}

impl<D: Deliver> Deliver for Measured<D> {
    async fn deliver(&self, lease: &Lease, claimed: Instant) -> Outcome {
        worker::begun(lease, claimed.elapsed());
        let outcome = self.0.deliver(lease, claimed).await;
        worker::ended(lease, &outcome);
        outcome
    }
}
