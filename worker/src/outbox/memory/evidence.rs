//! What is learned of an attempt after it ended as unclear: by a late answer, a look-up, a receipt or an operator. The same
//! rules stand in `sql/schema/57_evidence.sql`.

use std::sync::Arc;

use super::life::{AttemptRow, Ending, Place, State};
use crate::message::{AttemptStatus, DeliveryStatus, DispatchStatus, Evidence, MessageId};
use crate::outbox::ReceiptResult;

impl State {
    /// An outcome without its live lease: only what was unknown can still become known.
    pub(super) fn finish_late(&mut self, worker: &Arc<str>, id: MessageId, attempt: i16, ending: &Ending<'_>) -> bool {
        let Some(message) = self.messages.get_mut(&id) else {
            return false;
        };
        let error_code = ending.error_code.map(str::to_owned);
        if let Some(row) = message.attempts.get_mut(&attempt) {
            let own = row.worker == *worker && ending.status != AttemptStatus::Unclear;
            let settled = own && self.settle_unclear(id, attempt, ending.status, Evidence::LateAnswer);
            if settled
                && error_code.is_some()
                && let Some(row) = self.messages.get_mut(&id).and_then(|message| message.attempts.get_mut(&attempt))
            {
                row.error_code = error_code;
            }
            return settled;
        }
        // Its claim is lost (asynchronous promotion). A number that another lease holds now stays that lease's.
        let taken = matches!(&message.place, Place::Leased(lease) if lease.attempt == attempt);
        if attempt < 1 || taken || message.has_accepted_attempt() {
            return false;
        }
        match (ending.status, &message.place) {
            (AttemptStatus::Accepted, _) => {}
            (AttemptStatus::Unclear, Place::Ready(xid)) if self.running.contains(xid) => return false,
            // A number that the queue knows to be given is not that of a lost claim.
            (AttemptStatus::Unclear, Place::Ready(_) | Place::Scheduled(_)) if message.last_attempt < attempt => {
                message.place = Place::Ended(DispatchStatus::DispatchTimeout, "claim_lost");
            }
            _ => return false,
        }
        let error_code = Some("claim_lost".to_owned());
        let told_by = (ending.status == AttemptStatus::Accepted).then_some(Evidence::LateAnswer);
        let row = AttemptRow { app: None, status: ending.status, worker: Arc::clone(worker), error_code, told_by };
        message.attempts.insert(attempt, row);
        message.last_attempt = message.last_attempt.max(attempt);
        if ending.status == AttemptStatus::Accepted {
            self.settle_accepted(id);
        }
        true
    }

    /// Tells what became known of an attempt. True if it corrected the ledger.
    pub fn resolve(&mut self, id: MessageId, attempt: i16, verdict: AttemptStatus, evidence: Evidence) -> bool {
        verdict != AttemptStatus::Unclear && self.settle_unclear(id, attempt, verdict, evidence)
    }

    /// Records what a receipt says of an attempt, live or over.
    pub fn record_receipt(&mut self, id: MessageId, attempt: i16, told: DeliveryStatus) -> ReceiptResult {
        if self.committed(id).is_none() {
            return ReceiptResult::Unknown;
        }
        let Some(message) = self.messages.get_mut(&id) else {
            return ReceiptResult::Unknown;
        };
        let live = matches!(&message.place, Place::Leased(lease) if lease.attempt == attempt);
        if !live && !message.attempts.contains_key(&attempt) {
            return ReceiptResult::Unknown;
        }
        let known = message.receipts.get(&attempt).copied();
        let after = known.map_or(told, |known| known.advanced_by(told));
        message.receipts.insert(attempt, after);
        // A provider that reports on it has taken it.
        self.settle_unclear(id, attempt, AttemptStatus::Accepted, Evidence::Receipt);
        if known == Some(after) { ReceiptResult::Repeated } else { ReceiptResult::Recorded }
    }

    /// Corrects the ledger where an attempt had ended as unclear, and moves its message.
    fn settle_unclear(&mut self, id: MessageId, attempt: i16, status: AttemptStatus, evidence: Evidence) -> bool {
        let Some(message) = self.messages.get_mut(&id) else {
            return false;
        };
        let Some(row) = message.attempts.get_mut(&attempt) else {
            return false;
        };
        let accepted = status == AttemptStatus::Accepted;
        // What the provider answered stands. What somebody only concluded, that it was not sent, gives way to an acceptance.
        let doubted =
            accepted && row.status != AttemptStatus::Accepted && row.told_by.is_some_and(Evidence::is_concluded);
        if row.status != AttemptStatus::Unclear && !doubted {
            return false;
        }
        row.status = status;
        row.told_by = Some(evidence);
        if accepted {
            row.error_code = None;
            self.settle_accepted(id);
        } else if matches!(message.place, Place::Ended(DispatchStatus::DispatchTimeout, _))
            && !message.has_unclear_attempt()
        {
            message.place = Place::Ended(DispatchStatus::Failed, status.word());
        }
        true
    }

    /// A waiting next try is dropped. A live lease stays: bytes may be on their way, and both are shown.
    fn settle_accepted(&mut self, id: MessageId) {
        if let Some(message) = self.messages.get_mut(&id)
            && !matches!(message.place, Place::Leased(_))
        {
            message.place = Place::Accepted;
        }
    }
}
