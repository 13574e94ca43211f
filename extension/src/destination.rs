//! Rules about where a message may go: each a prefix of numbers, like `+9665`, or a region of ISO 3166, like `SA`.

use std::cell::OnceCell;

use phonenumber::country::Id;

use crate::phone;

/// A number that is held against several rules.
pub(crate) struct Destination<'a> {
    number: &'a str,
    /// Looked up when the first rule that is a region asks.
    region: OnceCell<Option<Id>>,
}

impl<'a> Destination<'a> {
    /// `number` is in E.164.
    pub(crate) fn new(number: &'a str) -> Self {
        Self { number, region: OnceCell::new() }
    }

    /// Whether any of the rules matches.
    pub(crate) fn matches(&self, rules: &[String]) -> bool {
        rules.iter().any(|rule| self.matches_one(rule))
    }

    fn matches_one(&self, rule: &str) -> bool {
        if rule.starts_with('+') {
            return self.number.starts_with(rule);
        }
        let region = self.region.get_or_init(|| phone::region_of(self.number));
        region.as_ref().is_some_and(|region| region.as_ref() == rule)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn matches(number: &str, rules: &[&str]) -> bool {
        let rules: Vec<String> = rules.iter().map(|rule| (*rule).to_owned()).collect();
        Destination::new(number).matches(&rules)
    }

    #[test]
    fn prefixes_and_regions() {
        for (number, rules, expected) in [
            ("+966501234567", &["SA"][..], true),
            ("+966501234567", &["AE"], false),
            ("+966501234567", &["AE", "+96650"], true),
            ("+966501234567", &["+96651", "+97"], false),
            ("+966501234567", &["+966501234567"], true),
            ("+966501234567", &["+9665012345678"], false),
            ("+966501234567", &[], false),
            ("+971501234567", &["AE"], true),
            // One country code, many regions.
            ("+12015550123", &["US"], true),
            ("+12015550123", &["CA"], false),
            ("+14165550123", &["CA"], true),
            ("+14165550123", &["US"], false),
            ("+14165550123", &["+1"], true),
            ("+18765550123", &["US", "CA"], false),
            ("+18765550123", &["JM"], true),
            ("+77012345678", &["KZ"], true),
            ("+77012345678", &["RU"], false),
            ("+447400123456", &["GB"], true),
        ] {
            assert_eq!(matches(number, rules), expected, "{number} {rules:?}");
        }
    }
}
