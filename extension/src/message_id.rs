//! Ids of messages: UUIDs version 7 made from the clock, kept inside the partitions that exist, and their text.

/// Digits of Crockford's base 32, lower case.
const DIGITS: &[u8; 32] = b"0123456789abcdefghjkmnpqrstvwxyz";

/// Length of the text form: `r` and 26 digits.
const TEXT_LENGTH: usize = 27;

/// `r` and the 26 digits of the 128 bits.
pub(crate) fn to_text(id: u128) -> String {
    let mut text = String::with_capacity(TEXT_LENGTH);
    text.push('r');
    text.extend((0..26).rev().map(|place| char::from(DIGITS[((id >> (place * 5)) & 31) as usize])));
    text
}

/// The id that a text stands for.
pub(crate) fn from_text(text: &str) -> Option<u128> {
    let digits = text.strip_prefix('r')?.as_bytes();
    if digits.len() != 26 {
        return None;
    }
    digits.iter().enumerate().try_fold(0u128, |bits, (place, byte)| {
        let digit = DIGITS.iter().position(|digit| digit == byte)?;
        // 26 digits hold 130 bits: the first may only be 0 to 7.
        (place > 0 || digit < 8).then_some((bits << 5) | digit as u128)
    })
}

/// Milliseconds since 1970 that one stretch of partitions takes: `from` inclusive, `until` exclusive.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stretch {
    pub(crate) from: u64,
    pub(crate) until: u64,
}

/// Stretches of partitions that exist, in order and without overlap.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Stretches(Vec<Stretch>);

impl Stretches {
    /// Takes stretches in order; empty ones are left out, adjacent ones joined.
    pub(crate) fn new(stretches: impl IntoIterator<Item = Stretch>) -> Self {
        let mut joined: Vec<Stretch> = Vec::new();
        for stretch in stretches.into_iter().filter(|stretch| stretch.from < stretch.until) {
            match joined.last_mut() {
                Some(last) if last.until == stretch.from => last.until = stretch.until,
                _ => joined.push(stretch),
            }
        }
        Self(joined)
    }

    fn holds(&self, millis: u64) -> bool {
        self.0.iter().any(|stretch| (stretch.from..stretch.until).contains(&millis))
    }

    /// The nearest time that has a partition, earlier ones first: an id must not lie further ahead than it has to.
    fn nearest(&self, millis: u64) -> Option<u64> {
        let before = self.0.iter().rev().find(|stretch| stretch.from <= millis);
        match before {
            Some(stretch) => Some(millis.min(stretch.until - 1)),
            None => self.0.first().map(|stretch| stretch.from),
        }
    }
}

const RANDOM_BITS: u32 = 62;
const FRACTION_BITS: u32 = 12;

/// Makes the ids of one process, each above the one before.
#[derive(Debug, Default)]
pub(crate) struct Generator {
    /// The 122 bits of the last id that are neither version nor variant.
    last: u128,
}

impl Generator {
    /// The next id, or nothing where no partition exists. `micros` are since 1970.
    pub(crate) fn next(&mut self, micros: u64, random: u128, stretches: &Stretches) -> Option<u128> {
        let now = micros / 1000;
        let millis = stretches.nearest(now)?;
        let fraction = ((micros % 1000) << FRACTION_BITS) / 1000;
        let fresh = (u128::from(millis) << (FRACTION_BITS + RANDOM_BITS))
            | (u128::from(fraction) << RANDOM_BITS)
            | (random & ((1 << RANDOM_BITS) - 1));
        // The same moment again, or a clock that stepped back: a little above the last, still hard to guess.
        let above = self.last + 1 + (random >> 96);
        self.last = if fresh > self.last || !stretches.holds(millis_of(above)) { fresh } else { above };
        Some(with_version(self.last))
    }
}

fn millis_of(bits: u128) -> u64 {
    (bits >> (FRACTION_BITS + RANDOM_BITS)) as u64
}

/// Puts version 7 and the variant of RFC 9562 between the 122 bits.
fn with_version(bits: u128) -> u128 {
    let millis = bits >> (FRACTION_BITS + RANDOM_BITS);
    let fraction = (bits >> RANDOM_BITS) & ((1 << FRACTION_BITS) - 1);
    let random = bits & ((1 << RANDOM_BITS) - 1);
    (millis << 80) | (7 << 76) | (fraction << 64) | (2 << 62) | random
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const DAY: u64 = 86_400_000;

    fn days(days: &[u64]) -> Stretches {
        Stretches::new(days.iter().map(|day| Stretch { from: day * DAY, until: (day + 1) * DAY }))
    }

    fn time(id: u128) -> u64 {
        (id >> 80) as u64
    }

    #[test]
    fn text_refuses_what_is_no_id() {
        let good = to_text(7);
        assert_eq!(from_text(&good), Some(7));
        let overflow = format!("r8{}", &good[2..]);
        for bad in ["", "r", &good[1..], &good.to_uppercase(), &overflow, &good.replace('7', "u"), &format!("{good}0")]
        {
            assert_eq!(from_text(bad), None, "{bad}");
        }
    }

    #[test]
    fn no_partition_no_id() {
        assert_eq!(Generator::default().next(1, 1, &Stretches::default()), None);
    }

    #[test]
    fn ids_stay_inside_the_partitions() {
        let known = days(&[10, 11, 14]);
        assert_eq!(
            known,
            Stretches(vec![Stretch { from: 10 * DAY, until: 12 * DAY }, Stretch { from: 14 * DAY, until: 15 * DAY }])
        );
        let at = |day: u64| Generator::default().next(day * DAY * 1000, u128::MAX, &known).map(time);
        assert_eq!(at(5), Some(10 * DAY));
        assert_eq!(at(11), Some(11 * DAY));
        assert_eq!(at(13), Some(12 * DAY - 1));
        assert_eq!(at(20), Some(15 * DAY - 1));
    }

    #[test]
    fn version_and_variant_are_those_of_the_standard() {
        let id = Generator::default().next(11 * DAY * 1000 + 999, u128::MAX, &days(&[11])).unwrap();
        assert_eq!((id >> 76) & 15, 7);
        assert_eq!((id >> 62) & 3, 2);
    }

    #[test]
    fn a_partition_that_went_takes_its_order_along() {
        let mut generator = Generator::default();
        let late = generator.next(20 * DAY * 1000, 1, &days(&[10, 20])).unwrap();
        assert_eq!(time(late), 20 * DAY);
        let next = generator.next(20 * DAY * 1000, 1, &days(&[10])).unwrap();
        assert_eq!(time(next), 11 * DAY - 1);
    }

    proptest! {
        #[test]
        fn text_keeps_value_and_order(a: u128, b: u128) {
            prop_assert_eq!(from_text(&to_text(a)), Some(a));
            prop_assert_eq!(a.cmp(&b), to_text(a).cmp(&to_text(b)));
            prop_assert_eq!(to_text(a).len(), TEXT_LENGTH);
        }

        #[test]
        fn ids_rise_whatever_the_clock_does(clock in prop::collection::vec((8 * DAY * 1000..14 * DAY * 1000, any::<u128>()), 1..200)) {
            let known = days(&[10, 11]);
            let mut generator = Generator::default();
            let mut last = 0;
            for (micros, random) in clock {
                let id = generator.next(micros, random, &known).unwrap();
                prop_assert!(id > last);
                prop_assert!(known.holds(time(id)));
                last = id;
            }
        }
    }
}
