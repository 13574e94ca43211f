//! Under pressure: limits over the whole fleet, breakers, fairness, overload, maintenance of large tables. What went out is
//! counted at the pretend provider, by its clock; how fast something was is compared within one run, never with a fixed time.
//!
//! `make pressure` runs the long ones: ten minutes of overload, a million waiting, ten million rows.

#[path = "../shop/mod.rs"]
mod shop;

mod breaker;
mod fairness;
mod limits;
mod maintenance;
mod measure;
mod overload;
