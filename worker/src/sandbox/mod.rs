//! A pretend provider, for trying out and for tests. It speaks the wire of every provider that the worker knows, does
//! what rules or magic numbers tell it, good or bad, and keeps a journal of everything it accepted.
//!
//! Raw TCP, since a misbehaving server must be able to reset a connection before it read anything, or in the middle of
//! an answer.
//!
//! | path | wire |
//! | --- | --- |
//! | `/taqnyat/v1/messages` | `taqnyat-sms` with `base_url` `http://<address>/taqnyat` |
//! | `/mora/api/v1/sendsms` | `mora-sms` with `base_url` `http://<address>/mora` |
//! | `/twilio/2010-04-01/Accounts/{sid}/Messages.json` | `twilio-sms` with `base_url` `http://<address>/twilio` |
//! | `/generic/send` | `generic-http` with `url` `http://<address>/generic/send` |
//! | `/sandbox/v1/messages` | `sandbox` with `base_url` `http://<address>/sandbox` |
//! | `/control/…` | [`control`]: rules, journal, requests, counts |

mod connection;
mod control;
mod journal;
mod request;
mod rules;
mod wire;

use std::future::Future;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use tokio::net::TcpListener;
use tokio::task::JoinSet;

use self::journal::Journal;
use self::rules::Rules;

pub use self::journal::{Accepted, Seen};
pub use self::rules::{Behaviour, MAGIC_NUMBERS, MAGIC_PREFIX};

/// How the sandbox behaves.
#[derive(Clone, Debug)]
pub struct Options {
    /// File to which each accepted message is appended, a JSON object a line, before it is answered.
    pub journal: Option<PathBuf>,
    /// File to which each request that could cause a send is appended, before it is acted on.
    pub requests: Option<PathBuf>,
    /// How many accepted messages, and how many requests, are kept in memory for the control endpoint; the oldest go
    /// first.
    pub remember: usize,
    /// Whether recipients that end in a magic number are treated as [`MAGIC_NUMBERS`] says.
    pub magic_numbers: bool,
    /// How long an idle connection is kept open.
    pub idle_timeout: Duration,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            journal: None,
            requests: None,
            remember: 100_000,
            magic_numbers: true,
            idle_timeout: Duration::from_secs(60),
        }
    }
}

/// What all connections share.
struct State {
    rules: Rules,
    journal: Journal,
    idle_timeout: Duration,
}

/// Serves until `shutdown` is over, and then drops all connections.
pub async fn serve(listener: TcpListener, options: Options, shutdown: impl Future<Output = ()>) -> io::Result<()> {
    let state = Arc::new(State {
        rules: Rules::new(options.magic_numbers),
        journal: Journal::open(options.journal.as_deref(), options.requests.as_deref(), options.remember)?,
        idle_timeout: options.idle_timeout,
    });
    let mut connections = JoinSet::new();
    tokio::pin!(shutdown);
    loop {
        tokio::select! {
            () = &mut shutdown => return Ok(()),
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => {
                    connections.spawn(connection::serve(stream, state.clone()));
                }
                // Out of file descriptors, most likely: some connection will end.
                Err(error) => {
                    tracing::warn!(%error, "cannot accept a connection");
                    tokio::time::sleep(Duration::from_millis(50)).await;
                }
            },
            Some(_) = connections.join_next() => {}
        }
    }
}

#[cfg(test)]
pub(crate) mod tests;
