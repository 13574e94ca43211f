//! x
#![allow(dead_code)]
mod arguments;
mod datetime;
mod message_id;
mod phone;
mod refusal;
mod segments;
