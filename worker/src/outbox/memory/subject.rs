//! The memory outbox as a subject of the conformance suite.

use std::collections::BTreeSet;

use anyhow::{Context, Result, ensure};

use super::{AppRow, AttemptRow, MemoryOutbox, MessageRow, NewMessage, Place, State};
use crate::message::{AppId, AttemptStatus, Body, DeliveryStatus, DispatchStatus, Evidence, MessageId, MobileNumber};
use crate::outbox::conformance::{self, Enqueue, Install, LedgerLine, Standing, Subject};
use crate::outbox::{ReceiptResult, Xid};

fn new_message(outbox: &MemoryOutbox, message: Enqueue) -> NewMessage {
    let now = outbox.now();
    NewMessage {
        mobile: MobileNumber::new(message.mobile),
        body: Body::new(message.message),
        priority: message.priority,
        pinned: message.pinned.map(Into::into),
        due_at: message.due_in.map(|due_in| now + due_in),
        valid_until: message.valid_for.map(|valid_for| now + valid_for),
        traceparent: message.traceparent.and_then(|text| text.parse().ok()),
        ..NewMessage::of(&message.organization)
    }
}

fn ledger(message: &MessageRow) -> Vec<LedgerLine> {
    let line = |(attempt, row): (&i16, &AttemptRow)| LedgerLine {
        attempt: *attempt,
        status: row.status,
        error_code: row.error_code.clone(),
        told_by: row.told_by,
    };
    message.attempts.iter().map(line).collect()
}

/// As the tables would hold it; what a row does not carry is forgotten.
fn standing(state: &State, id: &MessageId) -> Option<Standing> {
    let message = state.committed(*id)?;
    let table = match message.place {
        Place::Ready(_) => "ready",
        Place::Scheduled(_) => "scheduled",
        Place::Leased(_) => "lease",
        Place::Ended(..) => "ended",
        Place::Accepted => "",
    };
    let (queued, in_round) = (matches!(table, "ready" | "scheduled" | "lease"), matches!(table, "ready" | "lease"));
    Some(Standing {
        status: message.status(),
        table: table.to_owned(),
        tries: if queued { message.tries } else { 0 },
        refused_by: if queued { message.refused_by.clone() } else { BTreeSet::new() },
        avoid: if in_round { message.avoid.clone() } else { BTreeSet::new() },
        attempts: ledger(message),
        receipts: message.receipts.clone(),
    })
}

impl Subject for MemoryOutbox {
    type Outbox = Self;
    type Transaction = Xid;

    async fn worker(&self, name: &str) -> Result<Self> {
        Ok(self.with_worker(name))
    }

    async fn enqueue(&self, message: Enqueue) -> Result<MessageId> {
        Ok(self.enqueue(new_message(self, message)))
    }

    async fn begin(&self) -> Result<Xid> {
        Ok(self.begin())
    }

    async fn enqueue_in(&self, transaction: &Xid, message: Enqueue) -> Result<MessageId> {
        Ok(self.enqueue_in(*transaction, new_message(self, message)))
    }

    async fn end(&self, transaction: Xid, commit: bool) -> Result<()> {
        if commit {
            self.commit(transaction)
        } else {
            self.rollback(transaction)
        }
        Ok(())
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
        self.pass_validity_of(id);
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
        self.state().messages.get(&id).map(ledger).context("the message does not exist")
    }

    async fn standings(&self, ids: &[MessageId]) -> Result<Vec<Option<Standing>>> {
        let state = self.state();
        Ok(ids.iter().map(|id| standing(&state, id)).collect())
    }
}
