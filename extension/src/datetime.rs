//! `datetime` as text in JSON: RFC 3339, or a local time in the organization's time zone.

/// Microseconds since 2000-01-01, as PostgreSQL counts.
pub(crate) type Micros = i64;

/// A time as it was written.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Written {
    /// With an offset: one moment everywhere.
    Moment(Micros),
    /// Without: a clock on the wall, still to be placed in a time zone.
    Local(Micros),
}

const DAYS_1970_TO_2000: i64 = 10_957;
const MICROS_PER_SECOND: i64 = 1_000_000;

/// Reads `YYYY-MM-DD[T ]HH:MM[:SS[.ffffff]]`, followed by `Z`, `±HH:MM` or nothing.
pub(crate) fn parse(text: &str) -> Option<Written> {
    let mut rest = text.as_bytes();
    let year = number(&mut rest, 4)?;
    literal(&mut rest, b"-")?;
    let month = number(&mut rest, 2)?;
    literal(&mut rest, b"-")?;
    let day = number(&mut rest, 2)?;
    literal(&mut rest, b"Tt ")?;
    let hour = number(&mut rest, 2)?;
    literal(&mut rest, b":")?;
    let minute = number(&mut rest, 2)?;
    let mut second = 0;
    let mut fraction = 0;
    if literal(&mut rest, b":").is_some() {
        second = number(&mut rest, 2)?;
        if literal(&mut rest, b".").is_some() {
            fraction = micros(&mut rest)?;
        }
    }
    if year == 0 || !(1..=12).contains(&month) || !(1..=days_in(year, month)).contains(&day) {
        return None;
    }
    if hour > 23 || minute > 59 || second > 59 {
        return None;
    }
    let seconds = days_since_2000(year, month, day) * 86_400 + hour * 3_600 + minute * 60 + second;
    let offset = match rest {
        [] => None,
        b"Z" | b"z" => Some(0),
        [sign @ (b'+' | b'-'), ..] => {
            rest = &rest[1..];
            let hours = number(&mut rest, 2)?;
            literal(&mut rest, b":")?;
            let minutes = number(&mut rest, 2)?;
            if hours > 15 || minutes > 59 || !rest.is_empty() {
                return None;
            }
            let seconds = hours * 3_600 + minutes * 60;
            Some(if *sign == b'+' { seconds } else { -seconds })
        }
        _ => return None,
    };
    Some(match offset {
        Some(offset) => Written::Moment((seconds - offset) * MICROS_PER_SECOND + fraction),
        None => Written::Local(seconds * MICROS_PER_SECOND + fraction),
    })
}

fn number(rest: &mut &[u8], digits: usize) -> Option<i64> {
    let (head, tail) = rest.split_at_checked(digits)?;
    *rest = tail;
    head.iter().try_fold(0, |value, byte| byte.is_ascii_digit().then(|| value * 10 + i64::from(byte - b'0')))
}

fn literal(rest: &mut &[u8], one_of: &[u8]) -> Option<()> {
    let (head, tail) = rest.split_first()?;
    one_of.contains(head).then(|| *rest = tail)
}

/// Digits after the point; those beyond the sixth are dropped.
fn micros(rest: &mut &[u8]) -> Option<i64> {
    let digits = rest.iter().take_while(|byte| byte.is_ascii_digit()).count();
    if digits == 0 || digits > 9 {
        return None;
    }
    let nanos = number(rest, digits)? * 10_i64.pow(9 - digits as u32);
    Some(nanos / 1_000)
}

fn days_in(year: i64, month: i64) -> i64 {
    match month {
        2 if year % 4 == 0 && (year % 100 != 0 || year % 400 == 0) => 29,
        2 => 28,
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Howard Hinnant's `days_from_civil`, counted from 2000.
fn days_since_2000(year: i64, month: i64, day: i64) -> i64 {
    let year = if month <= 2 { year - 1 } else { year };
    let era = year.div_euclid(400);
    let year_of_era = year.rem_euclid(400);
    let day_of_year = (153 * ((month + 9) % 12) + 2) / 5 + day - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * 146_097 + day_of_era - 719_468 - DAYS_1970_TO_2000
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const HOUR: i64 = 3_600 * MICROS_PER_SECOND;
    const DAY: i64 = 24 * HOUR;

    #[test]
    fn moments_and_local_times() {
        for (text, expected) in [
            ("2000-01-01T00:00:00Z", Written::Moment(0)),
            ("2000-01-01t03:00:00+03:00", Written::Moment(0)),
            ("1999-12-31 20:30:00-03:30", Written::Moment(0)),
            ("2000-01-01 00:00", Written::Local(0)),
            ("2000-03-01T00:00:01.5", Written::Local(60 * DAY + 1_500_000)),
            ("2026-11-23T12:00:00.123456789Z", Written::Moment(9_823 * DAY + 12 * HOUR + 123_456)),
        ] {
            assert_eq!(parse(text), Some(expected), "{text}");
        }
    }

    #[test]
    fn garbage() {
        for text in [
            "",
            "now",
            "infinity",
            "tomorrow",
            "2026-11-23",
            "2026-11-23T",
            "2026-13-01T00:00",
            "2026-02-29T00:00",
            "2026-00-10T00:00",
            "0000-01-01T00:00",
            "2026-01-01T24:00",
            "2026-01-01T00:60",
            "2026-01-01T00:00:60Z",
            "2026-01-01T00:00Zulu",
            "2026-01-01T00:00:00.Z",
            "2026-01-01T00:00+3",
            "2026-01-01T00:00+0300",
            "2026-01-01T00:00+16:00",
            "12026-01-01T00:00",
            "٢٠٢٦-٠١-٠١T00:00",
            "2026-1-1 0:0",
        ] {
            assert_eq!(parse(text), None, "{text}");
        }
    }

    proptest! {
        #[test]
        fn days_follow_each_other(year in 1_i64..9999, month in 1_i64..=12, day in 1_i64..=31) {
            prop_assume!(day <= days_in(year, month));
            let (next_year, next_month, next_day) = match (month, day == days_in(year, month)) {
                (_, false) => (year, month, day + 1),
                (12, true) => (year + 1, 1, 1),
                (_, true) => (year, month + 1, 1),
            };
            prop_assert_eq!(days_since_2000(year, month, day) + 1, days_since_2000(next_year, next_month, next_day));
        }

        #[test]
        fn nothing_makes_it_panic(text in "[-0-9T:.Z+ ]{0,40}") {
            let _ = parse(&text);
        }
    }
}
