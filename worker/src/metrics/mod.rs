//! Numbers for Prometheus. [`catalog`] is the list of all of them, [`worker`] and [`api`] count what their processes do,
//! [`database`] asks `sms_outbox.metrics()` for what all processes share, and [`exporter`] writes the text that is scraped.
//!
//! A label has few values, known beforehand: never a number, a text, a message or an organization that a caller chose.
//! Without [`Exporter::start`] nothing is recorded, and counting costs a look at an empty place.

pub mod api;
pub mod catalog;
pub mod database;
mod exporter;
mod listener;
mod measured;
pub mod worker;

pub use self::exporter::Exporter;
pub use self::listener::serve;
pub use self::measured::Measured;
