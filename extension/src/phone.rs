//! Phone numbers: any usual writing to E.164, and refusal of what cannot receive an SMS.

use std::str::FromStr;

use phonenumber::country::Id;
use phonenumber::metadata::DATABASE;
use phonenumber::{Mode, Type};

/// Why a text is no number that an SMS can go to. Never holds the number.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    Empty,
    TooLong,
    ForeignCharacter,
    NotANumber,
    Landline,
    UnknownRegion,
}

impl Fault {
    pub(crate) const fn fault(self) -> &'static str {
        match self {
            Self::Empty => "is empty",
            Self::TooLong => "is too long for a phone number",
            Self::ForeignCharacter => "holds a character that is in no phone number",
            Self::NotANumber => "is no valid mobile number",
            Self::Landline => "is a landline, which cannot receive an SMS",
            Self::UnknownRegion => "is no region of the world's numbering plan",
        }
    }

    pub(crate) const fn cure(self) -> &'static str {
        match self {
            Self::UnknownRegion => "Give the two capital letters of ISO 3166, like SA.",
            _ => {
                "Give one mobile number, like +966501234567, 00966501234567, or 0501234567 in the organization's default region; \
                 numbers of other countries begin with + or 00 and the country code."
            }
        }
    }
}

/// Longest text that is looked at: a number of 15 digits with marks between all of them, and some to spare.
const LONGEST_TEXT: usize = 64;
/// `00`, 15 digits of E.164, and a stray trunk zero.
const MOST_DIGITS: usize = 18;

/// Whether the numbering plan knows the region.
pub(crate) fn is_region(region: &str) -> bool {
    region.len() == 2 && Id::from_str(region).is_ok()
}

/// The region that a number in E.164 belongs to.
pub(crate) fn region_of(number: &str) -> Option<Id> {
    if number.starts_with("+966") {
        return Some(Id::SA);
    }
    phonenumber::parse(None, number).ok()?.country().id()
}

/// Loads the numbering plans, which costs some 90 ms and 6 MB: once, before backends are forked.
pub(crate) fn warm() {
    let _ = normalize("+12015550123", "US");
}

/// The number in E.164, `+` and digits. A number without a country code is one of `region`.
pub(crate) fn normalize(text: &str, region: &str) -> Result<String, Fault> {
    let cleaned = clean(text)?;
    if let Some(national) = saudi(&cleaned, region) {
        return saudi_mobile(national);
    }
    let number = if cleaned.international {
        phonenumber::parse(None, format!("+{}", cleaned.digits))
    } else {
        let region = Id::from_str(region).map_err(|_| Fault::UnknownRegion)?;
        phonenumber::parse(Some(region), &cleaned.digits)
    }
    .map_err(|_| Fault::NotANumber)?;
    if !number.is_valid() {
        return Err(Fault::NotANumber);
    }
    // Many plans cannot tell mobile from fixed: refuse only what is surely a landline.
    if number.number_type(&DATABASE) == Type::FixedLine {
        return Err(Fault::Landline);
    }
    Ok(number.format().mode(Mode::E164).to_string())
}

/// A number as dialled: digits alone, and whether they begin with a country code.
struct Cleaned {
    international: bool,
    digits: String,
}

fn clean(text: &str) -> Result<Cleaned, Fault> {
    if text.len() > LONGEST_TEXT * 4 || text.chars().count() > LONGEST_TEXT {
        return Err(Fault::TooLong);
    }
    let mut international = false;
    let mut digits = String::with_capacity(MOST_DIGITS);
    for c in text.chars() {
        match c {
            '0'..='9' => digits.push(c),
            // Arabic-Indic, extended Arabic-Indic and full-width digits.
            '\u{660}'..='\u{669}' => digits.push(ascii_digit(c, '\u{660}')),
            '\u{6f0}'..='\u{6f9}' => digits.push(ascii_digit(c, '\u{6f0}')),
            '\u{ff10}'..='\u{ff19}' => digits.push(ascii_digit(c, '\u{ff10}')),
            '+' | '\u{ff0b}' if digits.is_empty() && !international => international = true,
            c if is_mark(c) => {}
            _ => return Err(Fault::ForeignCharacter),
        }
    }
    if digits.is_empty() {
        return Err(if international { Fault::NotANumber } else { Fault::Empty });
    }
    if digits.len() > MOST_DIGITS {
        return Err(Fault::TooLong);
    }
    if let Some(rest) = digits.strip_prefix("00") {
        digits = rest.to_owned();
        international = true;
    }
    Ok(Cleaned { international, digits })
}

fn ascii_digit(c: char, zero: char) -> char {
    char::from(b'0' + (u32::from(c) - u32::from(zero)) as u8)
}

/// What people and word processors put between digits: spaces, dashes, dots, brackets, marks of direction.
fn is_mark(c: char) -> bool {
    c.is_whitespace()
        || matches!(c, '-' | '\u{2010}'..='\u{2015}' | '\u{2212}' | '.' | '(' | ')' | '/')
        || matches!(c, '\u{61c}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}' | '\u{2060}' | '\u{2066}'..='\u{2069}' | '\u{feff}')
}

/// The national part of a Saudi number: the usual case, decided without the metadata of the world.
fn saudi<'a>(cleaned: &'a Cleaned, region: &str) -> Option<&'a str> {
    let digits = cleaned.digits.as_str();
    let home = region == "SA";
    match digits.strip_prefix("966") {
        Some(national) if cleaned.international || (home && digits.len() > 10) => {
            Some(national.strip_prefix('0').unwrap_or(national))
        }
        _ if home && !cleaned.international => Some(digits.strip_prefix('0').unwrap_or(digits)),
        _ => None,
    }
}

/// libphonenumber's pattern of Saudi mobiles: 579[0-8]\d{5} | 5(?:[013-689]\d|7[0-8])\d{6}.
fn saudi_mobile(national: &str) -> Result<String, Fault> {
    let mobile = match national.as_bytes() {
        [b'5', b'7', b'9', fourth, ..] => *fourth <= b'8',
        [b'5', second, ..] => *second != b'2',
        _ => false,
    };
    match national.as_bytes() {
        _ if mobile && national.len() == 9 => Ok(format!("+966{national}")),
        [b'1', b'1'..=b'7', ..] if national.len() == 9 => Err(Fault::Landline),
        _ => Err(Fault::NotANumber),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn every_usual_writing_of_a_saudi_mobile() {
        for text in [
            "0501234567",
            "501234567",
            "966501234567",
            "+966501234567",
            "00966501234567",
            "+9660501234567",
            "9660501234567",
            "009660501234567",
            "+966 50 123 4567",
            " (+966) 50-123.4567 ",
            "\u{202a}+966\u{a0}50\u{2011}1234567\u{202c}",
            "٠٥٠١٢٣٤٥٦٧",
            "+٩٦٦٥٠١٢٣٤٥٦٧",
            "۰۵۰۱۲۳۴۵۶۷",
            "００９６６５０１２３４５６７",
        ] {
            assert_eq!(normalize(text, "SA").as_deref(), Ok("+966501234567"), "{text}");
        }
    }

    #[test]
    fn what_is_no_saudi_mobile() {
        for (text, fault) in [
            ("", Fault::Empty),
            (" - ", Fault::Empty),
            ("+", Fault::NotANumber),
            ("9665012345678", Fault::NotANumber),
            ("05012345678", Fault::NotANumber),
            ("050123456", Fault::NotANumber),
            ("0521234567", Fault::NotANumber),
            ("+966521234567", Fault::NotANumber),
            ("0579912345", Fault::NotANumber),
            ("920012345", Fault::NotANumber),
            ("0112345678", Fault::Landline),
            ("+966112345678", Fault::Landline),
            ("966126543210", Fault::Landline),
            ("050123456a", Fault::ForeignCharacter),
            ("0501234567;0501234568", Fault::ForeignCharacter),
            ("050+1234567", Fault::ForeignCharacter),
            ("٠٥٠١٢٣٤٥٦٧٨٩٠١٢٣٤٥٦", Fault::TooLong),
        ] {
            assert_eq!(normalize(text, "SA"), Err(fault), "{text}");
        }
        assert_eq!(normalize(&" ".repeat(1000), "SA"), Err(Fault::TooLong));
    }

    #[test]
    fn other_countries() {
        for (text, region, expected) in [
            ("+14155552671", "SA", Ok("+14155552671")),
            ("001 415 555 2671", "SA", Ok("+14155552671")),
            ("(415) 555-2671", "US", Ok("+14155552671")),
            ("01012345678", "EG", Ok("+201012345678")),
            ("+20 10 1234 5678", "SA", Ok("+201012345678")),
            ("0501234567", "AE", Ok("+971501234567")),
            ("+39 347 123 4567", "SA", Ok("+393471234567")),
            ("966501234567", "EG", Err(Fault::NotANumber)),
            ("14155552671", "SA", Err(Fault::NotANumber)),
            ("+442079460123", "SA", Err(Fault::Landline)),
            ("02 2736 1234", "EG", Err(Fault::Landline)),
            ("+999123456789", "SA", Err(Fault::NotANumber)),
            ("01012345678", "XX", Err(Fault::UnknownRegion)),
        ] {
            assert_eq!(normalize(text, region).as_deref(), expected.as_ref().map(|text| *text), "{text} in {region}");
        }
    }

    #[test]
    fn regions() {
        assert!(is_region("SA") && is_region("US"));
        assert!(!is_region("") && !is_region("sa") && !is_region("XX") && !is_region("SAU"));
    }

    #[test]
    fn the_fast_path_agrees_with_the_metadata() {
        for national in (0..1000).map(|prefix| format!("5{prefix:03}12345")) {
            let known = phonenumber::parse(None, format!("+966{national}")).is_ok_and(|number| number.is_valid());
            assert_eq!(saudi_mobile(&national).is_ok(), known, "{national}");
        }
    }

    proptest! {
        #[test]
        fn nothing_makes_it_panic(text in "\\PC{0,80}", region in "[A-Z]{2}|\\PC{0,3}") {
            let _ = normalize(&text, &region);
        }

        #[test]
        fn whatever_is_dialled_comes_out_as_e164(text in "[+]?[0-9 ().-]{0,20}", region in "SA|US|EG|DE|IT|AE|IN|BR|MX") {
            if let Ok(number) = normalize(&text, &region) {
                prop_assert!(number.starts_with('+') && (8..=16).contains(&number.len()), "{}", number);
                prop_assert!(number[1..].bytes().all(|byte| byte.is_ascii_digit()));
                // What the database stores is read back as itself.
                prop_assert_eq!(normalize(&number, "SA"), Ok(number.clone()));
            }
        }
    }
}
