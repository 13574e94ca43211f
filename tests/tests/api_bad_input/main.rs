//! What must be refused, and how: one row a request, with its status, code and field. Then what breaks rules of HTTP
//! itself, clients that are slow or too many, and a database that goes away.

mod batches;
mod bodies;
mod crowd;
mod fixture;
mod headers;
mod http;
mod mutated;
mod outage;
mod raw;
mod requests;
mod times;

use sms_outbox_tests::on_majors;

use batches::batches_are_all_or_none;
use bodies::{are_refused_by_field, odd_but_good_are_taken};
use crowd::{a_flood_beyond_the_limit, slow_and_silent_clients};
use headers::headers_that_are_wrong;
use http::{broken_requests, smuggled_requests};
use mutated::mutated_requests;
use outage::{away_and_back, lost_before_during_and_after_the_commit};
use requests::{ids, parameters, paths_and_methods, who_asks_comes_before_what};
use times::forms_of_datetime;

on_majors! { ends:
    are_refused_by_field, odd_but_good_are_taken, paths_and_methods, ids, parameters, headers_that_are_wrong, who_asks_comes_before_what,
    forms_of_datetime, batches_are_all_or_none, broken_requests, smuggled_requests,
    mutated_requests, slow_and_silent_clients, a_flood_beyond_the_limit, lost_before_during_and_after_the_commit, away_and_back,
}
