//! Who is let in: keys and session tokens against a running API, and all the ways to be turned away.

mod command;
mod keys;
mod tokens;

use sms_outbox_tests::on_majors;

use command::{keys_are_made_listed_and_revoked_by_the_command, unsafe_settings_are_refused_at_the_start};
use keys::{
    a_key_acts_for_its_organization_and_scopes, an_attacker_learns_nothing_of_others, every_401_is_the_same,
    keys_end_within_seconds,
};
use tokens::{a_token_acts_for_its_claims, hostile_tokens_are_refused, keys_rotate_without_a_restart};

on_majors! { ends:
    keys_are_made_listed_and_revoked_by_the_command, unsafe_settings_are_refused_at_the_start,
    a_key_acts_for_its_organization_and_scopes, every_401_is_the_same, keys_end_within_seconds,
    an_attacker_learns_nothing_of_others, a_token_acts_for_its_claims, hostile_tokens_are_refused, keys_rotate_without_a_restart,
}

/// Where messages are.
const OUTBOX: &str = "/api/v1/sms/outbox";
