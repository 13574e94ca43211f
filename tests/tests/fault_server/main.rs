//! Faults of the server, while workers and applications are at work: it dies, whole or in part; its disk is full; its horizon is
//! pinned; a listener never reads.

#[path = "../shop/mod.rs"]
mod shop;

mod crash;
mod disk;
mod horizon;
mod listener;

use crash::{
    claims_are_durable_whatever_the_settings_say, every_process_of_the_server_may_be_killed,
    transaction_ids_that_are_given_twice_hide_nothing,
};
use disk::a_full_disk_loses_nothing;
use horizon::{a_pinned_horizon_makes_no_claim_dearer, writers_elsewhere_hide_nothing};
use listener::a_listener_that_never_reads_stops_nobody;
use sms_outbox_tests::on_majors;

on_majors! { faults:
    every_process_of_the_server_may_be_killed, transaction_ids_that_are_given_twice_hide_nothing,
    claims_are_durable_whatever_the_settings_say, a_full_disk_loses_nothing, a_pinned_horizon_makes_no_claim_dearer,
    writers_elsewhere_hide_nothing, a_listener_that_never_reads_stops_nobody,
}
