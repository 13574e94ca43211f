//! Load: more than providers take, and tables of many millions. What went out is counted at the pretend provider, by its
//! clock; how fast something was is compared within one run, never with a fixed time. `make pressure` runs the long ones.

#[path = "../pressure/measure.rs"]
mod measure;
#[path = "../shop/mod.rs"]
mod shop;

mod maintenance;
mod overload;
