//! The memory outbox as a subject of the conformance suite.

use anyhow::{Context, Result, ensure};

use super::{AppRow, MemoryOutbox, NewMessage, Place, Rules};
use crate::message::{AppId, AttemptStatus, Body, DeliveryStatus, DispatchStatus, Evidence, MessageId, MobileNumber};
use crate::outbox::ReceiptResult;
use crate::outbox::conformance::{self, Enqueue, Install, LedgerLine, MAX_ATTEMPTS, Subject};

impl Subject for MemoryOutbox {
    type Outbox = Self;

    async fn worker(&self, name: &str) -> Result<Self> {
        Ok(self.with_worker(name))
    }

    async fn enqueue(&self, message: Enqueue) -> Result<MessageId> {
        let now = self.now();
        Ok(self.enqueue(NewMessage {
            mobile: MobileNumber::new(message.mobile),
            body: Body::new(message.message),
            priority: message.priority,
            pinned: message.pinned.map(Into::into),
            due_at: message.due_in.map(|due_in| now + due_in),
            valid_until: message.valid_for.map(|valid_for| now + valid_for),
            traceparent: message.traceparent.and_then(|text| text.parse().ok()),
            ..NewMessage::of(&message.organization)
        }))
    }

    async fn install_app(&self, app: Install) -> Result<AppId> {
        let mut row = AppRow::new(app.organization.into(), app.slug.as_str().into());
        row.resend_unclear = app.resend_unclear;
        row.looks_up = app.slug == conformance::FIRST;
        Ok(self.install_app(row, serde_json::json!({})))
    }

    async fn uninstall_app(&self, app: AppId) -> Result<()> {
        self.uninstall_app(app);
        Ok(())
    }

    async fn set_app_paused(&self, app: AppId, paused: bool) -> Result<()> {
        self.set_app_paused(app, paused);
        Ok(())
    }

    async fn set_organization_paused(&self, organization: &str, paused: bool) -> Result<()> {
        self.set_organization_paused(organization, paused);
        Ok(())
    }

    async fn cancel(&self, id: MessageId) -> Result<bool> {
        Ok(self.cancel(id))
    }

    async fn retry(&self, id: MessageId) -> Result<bool> {
        Ok(self.retry(id))
    }

    async fn resolve(&self, id: MessageId, attempt: i16, verdict: AttemptStatus, evidence: Evidence) -> Result<bool> {
        Ok(self.resolve(id, attempt, verdict, evidence))
    }

    async fn record_receipt(&self, id: MessageId, attempt: i16, told: DeliveryStatus) -> Result<ReceiptResult> {
        Ok(self.record_receipt(id, attempt, told))
    }

    async fn delivery(&self, id: MessageId, attempt: i16) -> Result<Option<DeliveryStatus>> {
        let state = self.state();
        let message = state.messages.get(&id).context("the message does not exist")?;
        Ok(message.receipts.get(&attempt).copied())
    }

    async fn expire_lease(&self, id: MessageId) -> Result<()> {
        let leased = matches!(self.state().messages[&id].place, Place::Leased(_));
        ensure!(leased, "the message has no lease");
        self.pass_time_of(id);
        Ok(())
    }

    async fn make_due(&self, id: MessageId) -> Result<()> {
        let scheduled = matches!(self.state().messages[&id].place, Place::Scheduled(_));
        ensure!(scheduled, "the message is not scheduled");
        self.pass_time_of(id);
        Ok(())
    }

    async fn pass_validity(&self, id: MessageId) -> Result<()> {
        let waits = matches!(self.state().messages[&id].place, Place::Ready(_));
        ensure!(waits, "the message does not wait");
        self.pass_time_of(id);
        Ok(())
    }

    async fn pass_block(&self, app: AppId) -> Result<()> {
        self.pass_block_of(app);
        Ok(())
    }

    async fn run_maintenance(&self) -> Result<()> {
        self.run_maintenance();
        Ok(())
    }

    async fn status(&self, id: MessageId) -> Result<DispatchStatus> {
        self.status(id).context("the message does not exist")
    }

    async fn attempts(&self, id: MessageId) -> Result<Vec<LedgerLine>> {
        let state = self.state();
        let message = state.messages.get(&id).context("the message does not exist")?;
        let line = |(attempt, row): (&i16, &super::AttemptRow)| LedgerLine {
            attempt: *attempt,
            status: row.status,
            error_code: row.error_code.clone(),
            told_by: row.told_by,
        };
        Ok(message.attempts.iter().map(line).collect())
    }
}

fn subject() -> MemoryOutbox {
    let outbox = MemoryOutbox::new("operator");
    outbox.set_rules(Rules { max_attempts: MAX_ATTEMPTS, ..Rules::default() });
    outbox
}

#[tokio::test]
async fn passes_the_conformance_suite() -> Result<()> {
    conformance::run(|| async { Ok(subject()) }).await
}

/// The suite runs on one shared queue too, as it does on a cluster.
#[tokio::test]
async fn cases_do_not_disturb_each_other() -> Result<()> {
    let shared = subject();
    conformance::run(|| async { Ok(shared.clone()) }).await
}
