//! What must turn up nowhere, and how it is looked for.

use std::fmt::Write as _;

use base64::Engine;
use base64::engine::general_purpose::{STANDARD_NO_PAD, URL_SAFE_NO_PAD};

/// Texts that occur in nothing but what the test sends. Numbers end as the sandbox needs them for each kind of failure.
const NUMBER: &str = "5579900";
/// Quotes, a line break and letters beyond ASCII: what is escaped when it is repeated.
pub(crate) const BODY: &str = "رمز \"one\"\nQ7BODYcanary";
pub(crate) const META: &str = "Q7METAcanary";
pub(crate) const KEY: &str = "Q7KEYcanary";
pub(crate) const SECRET: &str = "Q7SECRETcanary";
pub(crate) const PASSWORD: &str = "Q7PASSWORDcanary";

/// A number as it is written at home, without the zero: what every way to write it ends with.
pub(crate) fn number(ending: usize) -> String {
    format!("{NUMBER}{ending:02}")
}

/// The needles: each as it is, and as somebody might write it.
#[derive(Default)]
pub(crate) struct Planted(Vec<(&'static str, String)>);

impl Planted {
    pub(crate) fn new() -> Self {
        let mut planted = Self::default();
        for ending in 1..=14 {
            planted.add("a number", &number(ending));
        }
        planted.add("a body", "Q7BODYcanary");
        planted.add("meta", META);
        planted.add("an idempotency key", KEY);
        planted.add("a provider's secret", SECRET);
        planted.add("a password", PASSWORD);
        planted
    }

    /// Adds a needle.
    pub(crate) fn add(&mut self, what: &'static str, text: &str) {
        let hex = text.bytes().fold(String::new(), |mut hex, byte| {
            let _ = write!(hex, "{byte:02x}");
            hex
        });
        // The last characters of base 64 depend on what follows.
        let base64 = |encoded: String| encoded[..encoded.len() - 2].to_owned();
        for form in [
            text.to_owned(),
            hex.clone(),
            hex.to_uppercase(),
            base64(STANDARD_NO_PAD.encode(text)),
            base64(URL_SAFE_NO_PAD.encode(text)),
        ] {
            if form.len() >= 6 {
                self.0.push((what, form));
            }
        }
    }

    /// What of it is in a text, with the line.
    pub(crate) fn found_in(&self, text: &str) -> Vec<String> {
        let mut found = Vec::new();
        for line in text.lines() {
            if let Some((what, _)) = self.0.iter().find(|(_, form)| line.contains(form.as_str())) {
                found.push(format!("{what}: {}", line.chars().take(600).collect::<String>()));
            }
        }
        found
    }

    /// The kinds of needles that are in a text.
    pub(crate) fn kinds_in(&self, text: &str) -> Vec<&'static str> {
        let mut kinds: Vec<_> =
            self.0.iter().filter(|(_, form)| text.contains(form.as_str())).map(|(what, _)| *what).collect();
        kinds.dedup();
        kinds
    }
}
