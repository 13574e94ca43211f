//! The words of the outbox as types: leaf types without input or output.

use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

/// The id of a message: a UUID version 7 made in the database. The queue functions speak UUID; people and the
/// API see its text form, `r` and 26 characters of lower-case Crockford base 32.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct MessageId(pub Uuid);

const CROCKFORD: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

impl fmt::Display for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let bits = self.0.as_u128();
        f.write_str("r")?;
        for place in (0..26).rev() {
            let digit = (bits >> (place * 5)) & 31;
            write!(f, "{}", CROCKFORD[digit as usize] as char)?;
        }
        Ok(())
    }
}

impl fmt::Debug for MessageId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// Why a text is no message id.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("id: not a message id; it is 'r' and 26 characters of 0-9 a-z without i, l, o and u")]
pub struct InvalidMessageId;

impl FromStr for MessageId {
    type Err = InvalidMessageId;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let digits = text.strip_prefix('r').ok_or(InvalidMessageId)?;
        if digits.len() != 26 {
            return Err(InvalidMessageId);
        }
        let mut bits: u128 = 0;
        for (place, byte) in digits.bytes().enumerate() {
            let digit = CROCKFORD.iter().position(|c| *c == byte).ok_or(InvalidMessageId)?;
            // 26 digits hold 130 bits: the first may only be 0 to 7.
            if place == 0 && digit > 7 {
                return Err(InvalidMessageId);
            }
            bits = (bits << 5) | digit as u128;
        }
        Ok(Self(Uuid::from_u128(bits)))
    }
}

impl Serialize for MessageId {
    fn serialize<S: serde::Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

/// The id of an organization app: one installed provider integration.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(transparent)]
pub struct AppId(pub i64);

impl fmt::Display for AppId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

/// A mobile number in E.164, `+` and digits. `Debug` and `Display` mask it, so that no log can show it.
#[derive(Clone, PartialEq, Eq)]
pub struct MobileNumber(String);

impl MobileNumber {
    /// Takes a number as the database normalized it.
    pub fn new(e164: impl Into<String>) -> Self {
        Self(e164.into())
    }

    /// `+966501234567`: for providers that want the plus.
    pub fn e164(&self) -> &str {
        &self.0
    }

    /// `966501234567`: for providers that want digits alone.
    pub fn digits(&self) -> &str {
        self.0.trim_start_matches('+')
    }
}

impl fmt::Display for MobileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&mask(&self.0))
    }
}

impl fmt::Debug for MobileNumber {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Display::fmt(self, f)
    }
}

/// `+966501234567` → `+9665•••67`: enough to recognize one's own number, too little to dial it.
pub fn mask(number: &str) -> String {
    let chars: Vec<char> = number.chars().collect();
    if chars.len() < 8 {
        return "•••".to_owned();
    }
    let head: String = chars[..5].iter().collect();
    let tail: String = chars[chars.len() - 2..].iter().collect();
    format!("{head}•••{tail}")
}

/// The text of a message. `Debug` shows its length alone; there is no `Display`.
#[derive(Clone, PartialEq, Eq)]
pub struct Body(String);

impl Body {
    /// Takes the text as it is.
    pub fn new(text: impl Into<String>) -> Self {
        Self(text.into())
    }

    /// The text itself, for the request to the provider and nothing else.
    pub fn text(&self) -> &str {
        &self.0
    }
}

impl fmt::Debug for Body {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Body({} characters)", self.0.chars().count())
    }
}

/// Order of service: urgent first.
pub const PRIORITIES: usize = 3;

macro_rules! words {
    ($(#[$meta:meta])* $name:ident { $($(#[$variant_meta:meta])* $variant:ident = $word:literal),+ $(,)? }) => {
        $(#[$meta])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
        pub enum $name { $($(#[$variant_meta])* #[serde(rename = $word)] $variant),+ }

        impl $name {
            /// Every value, in the order of the database's enum.
            pub const ALL: &'static [Self] = &[$(Self::$variant),+];

            /// The word used in SQL, JSON, logs and metrics.
            pub const fn word(self) -> &'static str {
                match self { $(Self::$variant => $word),+ }
            }

            /// The value that a word stands for.
            pub fn from_word(word: &str) -> Option<Self> {
                match word { $($word => Some(Self::$variant),)+ _ => None }
            }
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(self.word())
            }
        }
    };
}

words! {
    /// Where a message is in its life.
    DispatchStatus {
        /// Waits to be claimed: moved on by a claim, a cancel or its end of validity.
        Pending = "pending",
        /// Leased to one attempt: moved on by `finish`, or by maintenance when the lease is over.
        Sending = "sending",
        /// A provider accepted it. Nothing moves it on.
        Sent = "sent",
        /// Known not to have been sent, and given up. Moved on by an operator's retry.
        Failed = "failed",
        /// Nobody knows whether it was sent. Moved on by a late answer, a receipt, a look-up or an operator's retry.
        DispatchTimeout = "dispatch_timeout",
        /// Taken back while it waited. Moved on by an operator's retry.
        Canceled = "canceled",
        /// Its time was over while it waited. Moved on by an operator's retry.
        Expired = "expired",
    }
}

words! {
    /// How one attempt ended. The only words for it, in adapters, ledger, metrics and documents.
    AttemptStatus {
        /// Known not to have been sent: the next app may try at once, or the same one later.
        NotSent = "not_sent",
        /// This recipient can never work: the message fails, the app is untouched.
        RefusedRecipient = "refused_recipient",
        /// This app refuses this message: the next app may try.
        RefusedContent = "refused_content",
        /// The app's own account is refused: its breaker opens; the attempt is not counted.
        RefusedAccount = "refused_account",
        /// The provider asks to slow down; the attempt is not counted.
        Throttled = "throttled",
        /// The provider took it, and said so in its own words.
        Accepted = "accepted",
        /// It may or may not have been sent. Never sent again by itself.
        Unclear = "unclear",
    }
}

words! {
    /// What a provider's receipts say of a message that it took.
    DeliveryStatus {
        /// Nothing yet, or nothing that is understood.
        Unknown = "unknown",
        /// On its way.
        Queued = "queued",
        /// Arrived. Final, as all that follow.
        Delivered = "delivered",
        /// Did not arrive.
        Undelivered = "undelivered",
        /// Refused by the network, or withdrawn.
        Rejected = "rejected",
        /// Given up after its time.
        Expired = "expired",
    }
}

impl DeliveryStatus {
    const fn rank(self) -> u8 {
        match self {
            Self::Unknown => 0,
            Self::Queued => 1,
            Self::Delivered | Self::Undelivered | Self::Rejected | Self::Expired => 2,
        }
    }

    /// What is known after one more receipt. Only forwards: whatever the order in which receipts come, and however often,
    /// the first final one stays.
    #[must_use]
    pub const fn advanced_by(self, told: Self) -> Self {
        if told.rank() > self.rank() { told } else { self }
    }
}

words! {
    /// How it became known what an unclear attempt came to.
    Evidence {
        /// The worker that made it heard of it after all.
        LateAnswer = "late answer",
        /// The provider was asked.
        LookUp = "look-up",
        /// The provider reported on the message.
        Receipt = "receipt",
        /// An operator found out.
        Operator = "operator",
    }
}

impl Evidence {
    /// Whether it was concluded rather than heard: that nothing was sent then gives way to an acceptance.
    pub const fn is_concluded(self) -> bool {
        matches!(self, Self::LookUp | Self::Operator)
    }
}

words! {
    /// How sure it is that an attempt sent its message, as the function `certainty` says it; the greatest of a message's
    /// attempts is what is known of the message.
    Certainty {
        /// Nothing went out, or the provider refused it.
        NotSent = "not_sent",
        /// The worker died or was cut off: not even known whether its request began.
        Unknown = "unknown",
        /// The request began, and no answer says what became of it.
        Possible = "possible",
        /// The provider answered with success, in words that could not be read.
        Likely = "likely",
        /// Accepted, or proven since.
        Sent = "sent",
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn receipts_move_a_status_forwards_only() {
        for before in DeliveryStatus::ALL {
            for told in DeliveryStatus::ALL {
                let after = before.advanced_by(*told);
                assert_eq!(after.advanced_by(*told), after, "{told} twice");
                assert!(after.rank() >= before.rank(), "{before} went back to {after}");
                assert!(before.rank() < 2 || after == *before, "{before} was final, and became {after}");
                assert_eq!(after.rank(), before.rank().max(told.rank()), "{before} and {told}");
            }
        }
    }

    #[test]
    fn id_text_keeps_value_and_order() {
        let low = MessageId(Uuid::from_u128(0x019a_b000_0000_7000_8000_0000_0000_0000));
        let high = MessageId(Uuid::from_u128(0x019a_b000_0001_7000_8000_0000_0000_0000));
        assert_eq!(low.to_string().len(), 27);
        assert!(low.to_string() < high.to_string());
        assert_eq!(low.to_string().parse(), Ok(low));
        assert_eq!(MessageId(Uuid::max()).to_string().parse(), Ok(MessageId(Uuid::max())));
    }

    #[test]
    fn id_text_refuses_what_is_no_id() {
        let good = MessageId(Uuid::from_u128(7)).to_string();
        let overflow = format!("r8{}", &good[2..]);
        for bad in ["", "r", &good[1..], &good.to_uppercase(), &overflow, &good.replace('7', "u")] {
            assert_eq!(bad.parse::<MessageId>(), Err(InvalidMessageId), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_number_and_no_text() {
        let shown = format!("{:?} {:?}", MobileNumber::new("+966501234567"), Body::new("secret"));
        assert_eq!(shown, "+9665•••67 Body(6 characters)");
    }
}
