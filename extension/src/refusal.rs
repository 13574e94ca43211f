//! Why a call is refused, and how that becomes an ERROR with SQLSTATE, MESSAGE, DETAIL, HINT, COLUMN and CONSTRAINT.
//!
//! pgrx's own reports carry no COLUMN. So the functions return a [`Refusal`], and the outermost frame raises it when
//! nothing with a destructor is left on the stack that the ERROR jumps over.

use std::ffi::CString;

/// SQLSTATE of a refusal, and nothing finer: what a caller may branch on.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum State {
    /// 22023: an argument is bad.
    InvalidArgument,
    /// 22P02: a text is no value of the type.
    InvalidText,
    /// 28000: nobody knows the caller.
    Unauthorized,
    /// 40001: try the transaction again.
    SerializationFailure,
    /// 42501: not for this caller.
    Forbidden,
    /// 53400: too much for now.
    LimitReached,
    /// 55000: the request is good, but something must be done first.
    NotReady,
}

impl State {
    const fn code(self) -> &'static [u8; 5] {
        match self {
            Self::InvalidArgument => b"22023",
            Self::InvalidText => b"22P02",
            Self::Unauthorized => b"28000",
            Self::SerializationFailure => b"40001",
            Self::Forbidden => b"42501",
            Self::LimitReached => b"53400",
            Self::NotReady => b"55000",
        }
    }

    /// The five characters as elog packs them, six bits each.
    pub(crate) fn packed(self) -> i32 {
        self.code().iter().rev().fold(0, |packed, byte| (packed << 6) | ((i32::from(*byte) - i32::from(b'0')) & 0x3f))
    }
}

/// Why a call is refused: names field, fault and cure, and never holds a number or a text.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Refusal {
    pub(crate) state: State,
    pub(crate) column: Option<&'static str>,
    /// What a program branches on, where the SQLSTATE is too coarse: the error's CONSTRAINT field.
    pub(crate) code: Option<&'static str>,
    pub(crate) message: String,
    pub(crate) detail: Option<String>,
    pub(crate) hint: Option<String>,
}

impl Refusal {
    /// A bad argument: `mobile: is not a phone number`.
    pub(crate) fn argument(column: &'static str, fault: &str, hint: impl Into<String>) -> Self {
        Self {
            column: Some(column),
            hint: Some(hint.into()),
            ..Self::new(State::InvalidArgument, format!("{column}: {fault}"))
        }
    }

    /// A refusal without a column.
    pub(crate) fn new(state: State, message: impl Into<String>) -> Self {
        Self { state, column: None, code: None, message: message.into(), detail: None, hint: None }
    }

    pub(crate) fn with_column(mut self, column: &'static str) -> Self {
        self.column = Some(column);
        self
    }

    pub(crate) fn with_code(mut self, code: &'static str) -> Self {
        self.code = Some(code);
        self
    }

    pub(crate) fn with_detail(mut self, detail: impl Into<String>) -> Self {
        self.detail = Some(detail.into());
        self
    }

    pub(crate) fn with_hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    /// The same refusal of one element of an array: `messages[17].mobile: …`.
    pub(crate) fn within(mut self, place: &str) -> Self {
        let separator = if self.column.is_some() { "." } else { ": " };
        self.message = format!("{place}{separator}{}", self.message);
        self
    }

    /// The refusal in the strings of C.
    pub(crate) fn c_strings(self) -> Texts {
        Texts {
            state: self.state.packed(),
            column: self.column.map(text),
            code: self.code.map(text),
            message: text(self.message),
            detail: self.detail.map(text),
            hint: self.hint.map(text),
        }
    }
}

/// A refusal in the strings of C.
pub(crate) struct Texts {
    pub(crate) state: i32,
    pub(crate) column: Option<CString>,
    pub(crate) code: Option<CString>,
    pub(crate) message: CString,
    pub(crate) detail: Option<CString>,
    pub(crate) hint: Option<CString>,
}

fn text(text: impl Into<Vec<u8>>) -> CString {
    let mut bytes = text.into();
    bytes.retain(|byte| *byte != 0);
    CString::new(bytes).unwrap_or_default()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_packed_as_elog_does() {
        // MAKE_SQLSTATE('2','2','0','2','3') and ('4','0','0','0','1') of the server's errcodes.h.
        assert_eq!(State::InvalidArgument.packed(), 2 | (2 << 6) | (2 << 18) | (3 << 24));
        assert_eq!(State::SerializationFailure.packed(), 4 | (1 << 24));
        assert_eq!(State::InvalidText.packed(), 2 | (2 << 6) | (32 << 12) | (2 << 24));
    }

    #[test]
    fn an_element_names_its_place() {
        let refusal = Refusal::argument("mobile", "is empty", "give one").within("messages[17]");
        assert_eq!(refusal.message, "messages[17].mobile: is empty");
        assert_eq!(refusal.column, Some("mobile"));
        let refusal = Refusal::new(State::InvalidArgument, "is no object").within("messages[2]");
        assert_eq!(refusal.message, "messages[2]: is no object");
    }
}
