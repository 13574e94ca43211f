//! What a provider is asked about an attempt that ended as unclear, and what it may answer.

use jiff::Timestamp;

use super::Sms;

/// An attempt that ended as unclear, as far as a look-up can go by it.
#[derive(Clone, Copy, Debug)]
pub struct Attempted<'a> {
    /// What was to be sent. Its reference is that of the attempt.
    pub sms: Sms<'a>,
    /// When the attempt began, by the database's clock. The provider's may differ by minutes.
    pub started_at: Timestamp,
    /// When it ended.
    pub finished_at: Timestamp,
    /// Whether no request of that attempt can still be on its way: before, absence proves nothing.
    pub is_settled: bool,
    /// Ids that the provider gave to other attempts of the app, with the same number and text.
    pub taken_ids: &'a [String],
    /// Whether there is such an attempt whose id is not known: what the provider shows may be that one.
    pub has_twin: bool,
}

/// What the provider knows of it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Found {
    /// It took the message.
    Accepted {
        /// Its id of the message.
        provider_message_id: Option<String>,
        /// Its own word for where the message is.
        status: Option<String>,
    },
    /// It did not: only where absence proves that.
    NotSent,
    /// Nothing that proves anything; why, in words of our own.
    Nothing(&'static str),
}
