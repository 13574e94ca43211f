//! How sure it is that a message was sent, and what a retry of it risks, in words for a person.

use crate::cli::terminal::or_dash;
use crate::message::Certainty;
use crate::outbox::postgres::operator::messages::Attempt;

/// What is known of the sending, to stand behind a subject.
pub(super) fn words(certainty: Certainty) -> String {
    let known = match certainty {
        Certainty::NotSent => return "was surely not sent".to_owned(),
        Certainty::Sent => return "was sent for sure".to_owned(),
        Certainty::Unknown | Certainty::Possible => "may have been sent",
        Certainty::Likely => "was likely sent",
    };
    format!("{known}: {}", why(certainty))
}

/// Why no more is known.
pub(super) fn why(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::NotSent => "no attempt got so far",
        Certainty::Unknown => "the worker was cut off, and nobody knows whether the request had begun",
        Certainty::Possible => "the request had begun, and no answer says what became of it",
        Certainty::Likely => "the provider answered with success, in words that could not be read",
        Certainty::Sent => "a provider accepted it",
    }
}

/// What a retry of a message risks of which so much is known.
pub(super) fn risk(certainty: Certainty) -> &'static str {
    match certainty {
        Certainty::NotSent => "a retry risks nothing",
        _ => "a retry risks a second SMS",
    }
}

/// The attempt that most likely sent the message; the last one of several.
pub(super) fn decisive(attempts: &[Attempt]) -> Option<&Attempt> {
    attempts.iter().max_by_key(|attempt| (attempt.certainty, attempt.attempt))
}

/// What is known of a message: what its attempts leave open.
pub(super) fn certainty(attempts: &[Attempt]) -> Certainty {
    decisive(attempts).and_then(|attempt| attempt.certainty).unwrap_or(Certainty::NotSent)
}

/// `app 7 (taqnyat-sms, Taqnyat)`
pub(super) fn app(attempt: &Attempt) -> String {
    let slug = or_dash(attempt.provider_slug.as_deref());
    let names = match &attempt.app {
        Some(name) if *name != slug => format!("{slug}, {name}"),
        _ => slug,
    };
    format!("app {} ({names})", or_dash(attempt.organization_app_id))
}
