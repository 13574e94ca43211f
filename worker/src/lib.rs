//! The worker side of sms_outbox: claims messages that PostgreSQL holds and hands each to a provider over HTTP.
//!
//! The walk of one message: [`notifier`] wakes, [`outbox`] looks, [`scheduler`] picks, [`outbox`] claims,
//! [`delivery`] asks a [`provider`], [`outbox`] finishes; [`dispatcher`] is the loop around them. What ends as unclear the
//! [`reconciler`] looks up later.

pub mod api;
pub mod cli;
pub mod config;
pub mod delivery;
pub mod dispatcher;
mod failpoint;
pub mod logging;
pub mod message;
pub mod metrics;
pub mod notifier;
pub mod outbox;
pub mod provider;
pub mod reconciler;
pub mod sandbox;
pub mod scheduler;
pub mod trace;
