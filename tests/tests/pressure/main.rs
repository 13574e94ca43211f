//! Limits over the whole fleet, breakers and fairness. What went out is counted at the pretend provider, by its clock; how
//! fast something was is compared within one run, never with a fixed time.

#[path = "../shop/mod.rs"]
mod shop;

mod breaker;
mod fairness;
mod horizon;
mod limits;
mod measure;
