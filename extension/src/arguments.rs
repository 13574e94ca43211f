//! What an enqueue may be given: every check that needs no database. Empty strings mean 'not given'.

use crate::datetime::Micros;
use crate::phone;
use crate::refusal::Refusal;

const LONGEST_MESSAGE: usize = 1600;
const LONGEST_KEY: usize = 255;
const LARGEST_META: usize = 16 * 1024;
const MICROS_PER_SECOND: i64 = 1_000_000;
const DAY: Micros = 24 * 3_600 * MICROS_PER_SECOND;

/// Priority of a message that names none.
const NORMAL: i32 = 1;

/// The fields of one message as a caller gave them, texts checked to be texts and times to be times.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Fields<'a> {
    pub(crate) mobile: Option<&'a str>,
    pub(crate) message: Option<&'a str>,
    pub(crate) sender: Option<&'a str>,
    pub(crate) datetime: Option<Micros>,
    pub(crate) preferred_provider_slug: Option<&'a str>,
    pub(crate) priority: Option<i32>,
    pub(crate) valid_until: Option<Micros>,
}

/// What is to be sent, checked but for what depends on the clock and on the installed apps.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Payload<'a> {
    pub(crate) mobile: String,
    pub(crate) message: &'a str,
    pub(crate) sender: Option<&'a str>,
    pub(crate) due_at: Option<Micros>,
    pub(crate) preferred_provider_slug: Option<&'a str>,
    pub(crate) priority: i16,
    pub(crate) valid_until: Option<Micros>,
}

/// An optional text that is there and not empty.
pub(crate) fn given(text: Option<&str>) -> Option<&str> {
    text.filter(|text| !text.is_empty())
}

impl<'a> Fields<'a> {
    /// Checks each field by itself.
    pub(crate) fn check(self, region: &str) -> Result<Payload<'a>, Refusal> {
        Ok(Payload {
            mobile: mobile(self.mobile, region)?,
            message: message(self.message)?,
            sender: given(self.sender).map(sender).transpose()?,
            due_at: self.datetime.map(|at| finite("datetime", at)).transpose()?,
            preferred_provider_slug: given(self.preferred_provider_slug),
            priority: priority(self.priority)?,
            valid_until: self.valid_until.map(|at| finite("valid_until", at)).transpose()?,
        })
    }
}

impl Payload<'_> {
    /// Checks the times against the clock; says whether the message has to wait for its time.
    pub(crate) fn is_later(&self, now: Micros, schedule_limit_seconds: i32) -> Result<bool, Refusal> {
        let due_at = self.due_at.unwrap_or(now);
        if due_at < now - DAY {
            return Err(Refusal::argument(
                "datetime",
                "is more than 24 hours ago",
                "Give a time to come, or none for now; up to 24 hours ago also means now.",
            ));
        }
        if due_at > now.saturating_add(i64::from(schedule_limit_seconds) * MICROS_PER_SECOND) {
            return Err(Refusal::argument(
                "datetime",
                "is further ahead than sms_outbox.schedule_limit allows",
                "Give an earlier time, or let an administrator raise the setting.",
            ));
        }
        if let Some(valid_until) = self.valid_until {
            if valid_until <= now {
                return Err(Refusal::argument("valid_until", "is not in the future", "Give a time to come, or none."));
            }
            if valid_until <= due_at {
                return Err(Refusal::argument(
                    "valid_until",
                    "is not after datetime",
                    "Give a time after datetime, or none.",
                ));
            }
        }
        Ok(due_at > now)
    }
}

fn mobile(text: Option<&str>, region: &str) -> Result<String, Refusal> {
    let fault = match text {
        None => "is missing",
        Some(text) => match phone::normalize(text, region) {
            Ok(number) => return Ok(number),
            Err(fault) => return Err(Refusal::argument("mobile", fault.fault(), fault.cure())),
        },
    };
    Err(Refusal::argument("mobile", fault, phone::Fault::Empty.cure()))
}

fn message(text: Option<&str>) -> Result<&str, Refusal> {
    let fault = match text {
        None => "is missing".to_owned(),
        Some("") => "is empty".to_owned(),
        Some(text) => match text.chars().count() {
            0..=LONGEST_MESSAGE => return Ok(text),
            length => format!("has {length} characters, more than {LONGEST_MESSAGE}"),
        },
    };
    Err(Refusal::argument("message", &fault, "Give 1 to 1600 characters."))
}

fn sender(text: &str) -> Result<&str, Refusal> {
    let digits = text.strip_prefix('+').unwrap_or(text);
    let number = (3..=15).contains(&digits.len()) && digits.bytes().all(|byte| byte.is_ascii_digit());
    let name = text.len() <= 11
        && text.bytes().all(|byte| byte.is_ascii_alphanumeric() || b" -_.&".contains(&byte))
        && text.bytes().any(|byte| byte.is_ascii_alphabetic());
    if number || name {
        return Ok(text);
    }
    Err(Refusal::argument(
        "sender",
        "is neither a sender name nor a number",
        "Give a name of 1 to 11 characters of A-Z a-z 0-9 space - _ . & with at least one letter, or 3 to 15 digits, or none.",
    ))
}

fn finite(column: &'static str, at: Micros) -> Result<Micros, Refusal> {
    if at == Micros::MIN || at == Micros::MAX {
        return Err(Refusal::argument(column, "is infinite", "Give a time, or none."));
    }
    Ok(at)
}

fn priority(priority: Option<i32>) -> Result<i16, Refusal> {
    match priority.unwrap_or(NORMAL) {
        priority @ 0..=2 => Ok(priority as i16),
        _ => Err(Refusal::argument("priority", "is not 0, 1 or 2", "0 is urgent, 1 normal (the default), 2 bulk.")),
    }
}

/// Checks an idempotency key; empty is none.
pub(crate) fn idempotency_key(key: Option<&str>) -> Result<Option<&str>, Refusal> {
    match given(key) {
        Some(key) if key.chars().count() > LONGEST_KEY => Err(Refusal::argument(
            "idempotency_key",
            "has more than 255 characters",
            "Give 1 to 255 characters, or none.",
        )),
        key => Ok(key),
    }
}

/// Checks the name of an organization.
pub(crate) fn organization_id(id: &str) -> Result<&str, Refusal> {
    let good =
        (1..=64).contains(&id.len()) && id.bytes().all(|byte| byte.is_ascii_alphanumeric() || b"_-.:".contains(&byte));
    if good {
        return Ok(id);
    }
    Err(Refusal::argument(
        "organization_id",
        "is not an organization's id",
        "Give 1 to 64 characters of A-Z a-z 0-9 _ - . :",
    ))
}

/// Checks the kind and the size, in bytes of its text, of what an application keeps with a message.
pub(crate) fn meta(is_object: bool, bytes: usize) -> Result<(), Refusal> {
    let fault = if !is_object {
        "is not a JSON object"
    } else if bytes > LARGEST_META {
        "is larger than 16 KiB"
    } else {
        return Ok(());
    };
    Err(Refusal::argument("meta", fault, "Give a JSON object of at most 16384 bytes, or none."))
}

#[cfg(test)]
mod tests {
    use super::*;

    const NOW: Micros = 800_000_000 * MICROS_PER_SECOND;
    const LIMIT: i32 = 90 * 86_400;

    fn good<'a>() -> Fields<'a> {
        Fields { mobile: Some("0501234567"), message: Some("hello"), ..Fields::default() }
    }

    fn column(fields: Fields<'_>) -> Option<&'static str> {
        match fields.check("SA") {
            Ok(payload) => payload.is_later(NOW, LIMIT).err().and_then(|refusal| refusal.column),
            Err(refusal) => refusal.column,
        }
    }

    #[test]
    fn a_good_one_passes_with_defaults() {
        let payload = Fields { sender: Some(""), preferred_provider_slug: Some(""), ..good() }.check("SA").unwrap();
        assert_eq!((payload.mobile.as_str(), payload.priority), ("+966501234567", 1));
        assert_eq!((payload.sender, payload.preferred_provider_slug), (None, None));
        assert_eq!(payload.is_later(NOW, LIMIT), Ok(false));
    }

    #[test]
    fn each_field_is_named() {
        let long = "a".repeat(1601);
        let longest = "م".repeat(1600);
        assert_eq!(column(Fields { mobile: None, ..good() }), Some("mobile"));
        assert_eq!(column(Fields { mobile: Some(""), ..good() }), Some("mobile"));
        assert_eq!(column(Fields { message: None, ..good() }), Some("message"));
        assert_eq!(column(Fields { message: Some(""), ..good() }), Some("message"));
        assert_eq!(column(Fields { message: Some(&long), ..good() }), Some("message"));
        assert_eq!(column(Fields { message: Some(&longest), ..good() }), None);
        assert_eq!(column(Fields { priority: Some(3), ..good() }), Some("priority"));
        assert_eq!(column(Fields { priority: Some(-1), ..good() }), Some("priority"));
        assert_eq!(column(Fields { datetime: Some(Micros::MAX), ..good() }), Some("datetime"));
        assert_eq!(column(Fields { datetime: Some(Micros::MIN), ..good() }), Some("datetime"));
        assert_eq!(column(Fields { valid_until: Some(Micros::MAX), ..good() }), Some("valid_until"));
    }

    #[test]
    fn senders() {
        for text in ["MyShop", "A", "My Shop-_.&", "12345678901", "+966501234567", "123", "1A", "Shop-AD"] {
            assert_eq!(column(Fields { sender: Some(text), ..good() }), None, "{text}");
        }
        for text in ["MyShopIsLong", "12", "+12", "1234567890123456", "متجر", "a!b", "...", "My\nShop", "+Shop"] {
            assert_eq!(column(Fields { sender: Some(text), ..good() }), Some("sender"), "{text}");
        }
    }

    #[test]
    fn times_against_the_clock() {
        let at = |offset: Micros| Fields { datetime: Some(NOW + offset), ..good() }.check("SA").unwrap();
        assert_eq!(at(1).is_later(NOW, LIMIT), Ok(true));
        assert_eq!(at(0).is_later(NOW, LIMIT), Ok(false));
        assert_eq!(at(-DAY).is_later(NOW, LIMIT), Ok(false));
        assert!(at(-DAY - 1).is_later(NOW, LIMIT).is_err());
        assert_eq!(at(90 * DAY).is_later(NOW, LIMIT), Ok(true));
        assert!(at(90 * DAY + 1).is_later(NOW, LIMIT).is_err());
        assert_eq!(column(Fields { valid_until: Some(NOW), ..good() }), Some("valid_until"));
        assert_eq!(column(Fields { valid_until: Some(NOW + 1), ..good() }), None);
        assert_eq!(
            column(Fields { datetime: Some(NOW + 5), valid_until: Some(NOW + 5), ..good() }),
            Some("valid_until")
        );
        assert_eq!(column(Fields { datetime: Some(NOW + 5), valid_until: Some(NOW + 6), ..good() }), None);
    }

    #[test]
    fn keys_organizations_and_meta() {
        assert_eq!(idempotency_key(Some("")), Ok(None));
        assert!(idempotency_key(Some(&"م".repeat(255))).is_ok());
        assert!(idempotency_key(Some(&"a".repeat(256))).is_err());
        assert!(organization_id("org_1-a.b:C").is_ok());
        for id in ["", " ", "a b", "é", &"a".repeat(65)] {
            assert!(organization_id(id).is_err(), "{id}");
        }
        assert!(meta(true, 16_384).is_ok());
        assert!(meta(true, 16_385).is_err());
        assert!(meta(false, 2).is_err());
    }
}
