//! GSM-7 or UCS-2, and how many SMS a text takes (3GPP 23.038 and 23.040, concatenated with the 8-bit reference).

/// How a text travels.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Encoding {
    /// Seven bits a character, every character in the default alphabet or its extension.
    Gsm7,
    /// UTF-16 units: one foreign character makes the whole text so.
    Ucs2,
}

impl Encoding {
    pub(crate) const fn word(self) -> &'static str {
        match self {
            Self::Gsm7 => "GSM-7",
            Self::Ucs2 => "UCS-2",
        }
    }

    /// Units that fit where the text is one SMS, and in each part where it is several.
    const fn room(self) -> (usize, usize) {
        match self {
            Self::Gsm7 => (160, 153),
            Self::Ucs2 => (70, 67),
        }
    }
}

/// What a text takes on the air.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Measure {
    pub(crate) encoding: Encoding,
    pub(crate) segments: usize,
}

/// Measures a text.
pub(crate) fn measure(text: &str) -> Measure {
    let encoding = if text.chars().all(|c| septets(c).is_some()) { Encoding::Gsm7 } else { Encoding::Ucs2 };
    let width = |c: char| match encoding {
        Encoding::Gsm7 => septets(c).unwrap_or(1),
        Encoding::Ucs2 => c.len_utf16(),
    };
    let (single, part) = encoding.room();
    if text.chars().map(width).sum::<usize>() <= single {
        return Measure { encoding, segments: 1 };
    }
    // Neither an escaped character nor a surrogate pair is split over two parts: what does not fit begins the next.
    let mut segments = 1;
    let mut used = 0;
    for width in text.chars().map(width) {
        if used + width > part {
            segments += 1;
            used = 0;
        }
        used += width;
    }
    Measure { encoding, segments }
}

/// Septets of a character in the default alphabet (1) or its extension table (2).
const fn septets(c: char) -> Option<usize> {
    match c {
        '\n' | '\r' | ' '..='Z' | '_' | 'a'..='z' => Some(1),
        '£' | '¥' | 'è' | 'é' | 'ù' | 'ì' | 'ò' | 'Ç' | 'Ø' | 'ø' | 'Å' | 'å' => Some(1),
        'Δ' | 'Φ' | 'Γ' | 'Λ' | 'Ω' | 'Π' | 'Ψ' | 'Σ' | 'Θ' | 'Ξ' => Some(1),
        'Æ' | 'æ' | 'ß' | 'É' | '¤' | '¡' | 'Ä' | 'Ö' | 'Ñ' | 'Ü' | '§' | '¿' => Some(1),
        'ä' | 'ö' | 'ñ' | 'ü' | 'à' => Some(1),
        '\u{c}' | '^' | '{' | '}' | '\\' | '[' | '~' | ']' | '|' | '€' => Some(2),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn gsm(segments: usize) -> Measure {
        Measure { encoding: Encoding::Gsm7, segments }
    }

    fn ucs(segments: usize) -> Measure {
        Measure { encoding: Encoding::Ucs2, segments }
    }

    #[test]
    fn the_alphabet_is_exactly_the_standards() {
        // Codes 0x00 to 0x7F without ESC, as 3GPP 23.038 lists them.
        let default = "@£$¥èéùìòÇ\nØø\rÅåΔ_ΦΓΛΩΠΨΣΘΞÆæßÉ !\"#¤%&'()*+,-./0123456789:;<=>?\
                       ¡ABCDEFGHIJKLMNOPQRSTUVWXYZÄÖÑÜ§¿abcdefghijklmnopqrstuvwxyzäöñüà";
        assert_eq!(default.chars().count(), 127);
        let extension = "\u{c}^{}\\[~]|€";
        for c in (0..=0x10ffff).filter_map(char::from_u32) {
            let expected = match c {
                c if default.contains(c) => Some(1),
                c if extension.contains(c) => Some(2),
                _ => None,
            };
            assert_eq!(septets(c), expected, "{c:?}");
        }
    }

    #[test]
    fn boundaries() {
        for (units, segments) in [(0, 1), (1, 1), (160, 1), (161, 2), (306, 2), (307, 3), (459, 3), (460, 4)] {
            assert_eq!(measure(&"a".repeat(units)), gsm(segments), "{units} septets");
        }
        for (units, segments) in [(1, 1), (70, 1), (71, 2), (134, 2), (135, 3), (201, 3), (202, 4)] {
            assert_eq!(measure(&"م".repeat(units)), ucs(segments), "{units} units");
        }
    }

    #[test]
    fn no_pair_is_split() {
        assert_eq!(measure(&"€".repeat(80)), gsm(1));
        assert_eq!(measure(&"€".repeat(81)), gsm(2));
        // 153 is odd: 76 escaped characters a part, so 152 in two and the next in a third.
        assert_eq!(measure(&"€".repeat(152)), gsm(2));
        assert_eq!(measure(&"€".repeat(153)), gsm(3));
        assert_eq!(measure(&format!("{}€{}", "a".repeat(152), "a".repeat(151))), gsm(2));
        assert_eq!(measure(&format!("{}€{}", "a".repeat(152), "a".repeat(152))), gsm(3));
        // 67 is odd: 33 surrogate pairs a part.
        assert_eq!(measure(&"😀".repeat(35)), ucs(1));
        assert_eq!(measure(&"😀".repeat(36)), ucs(2));
        assert_eq!(measure(&"😀".repeat(66)), ucs(2));
        assert_eq!(measure(&"😀".repeat(67)), ucs(3));
        assert_eq!(measure(&format!("{}😀{}", "م".repeat(66), "م".repeat(65))), ucs(2));
        assert_eq!(measure(&format!("{}😀{}", "م".repeat(66), "م".repeat(66))), ucs(3));
    }

    #[test]
    fn look_alikes_make_the_whole_text_ucs2() {
        for text in ["ç", "`", "“quoted”", "…", "–", "\t", "\u{a0}", "١٢٣"] {
            assert_eq!(measure(text), ucs(1), "{text:?}");
        }
        assert_eq!(measure("Ça va\r\n{ok}"), gsm(1));
    }

    proptest! {
        #[test]
        fn segments_fit_their_units(text in "\\PC{0,800}") {
            let measured = measure(&text);
            let units: usize = match measured.encoding {
                Encoding::Gsm7 => text.chars().filter_map(septets).sum(),
                Encoding::Ucs2 => text.encode_utf16().count(),
            };
            let (single, part) = measured.encoding.room();
            if units <= single {
                prop_assert_eq!(measured.segments, 1);
            } else {
                // At most one unit of each part but the last is lost to a pair that is not split.
                prop_assert!(measured.segments >= units.div_ceil(part));
                prop_assert!(measured.segments <= units.div_ceil(part - 1));
            }
        }

        #[test]
        fn a_longer_text_takes_no_fewer(text in "[a-z€{م😀]{0,400}", more in "[a-z€{م😀]{0,50}") {
            let longer = text.clone() + &more;
            prop_assert!(measure(&longer).segments >= measure(&text).segments);
        }
    }
}
