//! Retention: what was kept for long enough goes, a day at once. The same rule stands in `sql/schema/72_retention.sql`.

use std::ops::Range;

use super::life::{Place, State};
use crate::message::MessageId;

impl State {
    /// Whether every message between these ids is sent and nothing of it is in flight. One whose transaction is open is
    /// not: whoever drops a day waits for its writers first.
    pub fn is_day_over(&self, day: Range<MessageId>) -> bool {
        self.messages.range(day).all(|(_, message)| message.place == Place::Accepted)
    }

    /// Drops a day that was kept for long enough. False if it is not over.
    pub fn drop_day(&mut self, day: Range<MessageId>) -> bool {
        let over = self.is_day_over(day.clone());
        if over {
            self.messages.retain(|id, _| !day.contains(id));
        }
        over
    }
}
