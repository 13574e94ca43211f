//! LISTEN on a connection of its own, which always reads: one that does not would pin the horizon of the whole server.

use std::future::poll_fn;
use std::time::{Duration, Instant};

use tokio::sync::Notify;
use tokio_postgres::AsyncMessage;

use super::PostgresOutbox;
use super::connect::{ConnectError, causes};
use crate::metrics::worker;

/// How often the connection is proven to be alive. Between proofs a dead one only costs the poll interval.
const PROOF_INTERVAL: Duration = Duration::from_secs(30);
const PROOF_TIMEOUT: Duration = Duration::from_secs(5);

/// Why listening ended. It never ends well.
#[derive(Debug, thiserror::Error)]
pub(crate) enum ListenError {
    /// No connection came about.
    #[error(transparent)]
    Connect(#[from] ConnectError),
    /// The connection broke.
    #[error("the listening connection broke: {}", causes(.0))]
    Broken(#[from] tokio_postgres::Error),
    /// The connection is silent: half open.
    #[error("the listening connection is silent")]
    Silent,
}

impl PostgresOutbox {
    /// Listens until the connection ends; wakes once when it listens (for what was missed before) and at each notification.
    pub(crate) async fn listen(&self, wake: &Notify) -> Result<std::convert::Infallible, ListenError> {
        let (client, mut connection) = self.target.open().await?;
        worker::connected_to_listen();
        let mut messages = poll_fn(move |context| connection.poll_message(context));
        let mut reading = Box::pin(async move {
            loop {
                match (&mut messages).await {
                    Some(Ok(AsyncMessage::Notification(_))) => {
                        worker::notified();
                        wake.notify_one();
                    }
                    Some(Ok(_)) => {}
                    Some(Err(error)) => return ListenError::Broken(error),
                    None => return ListenError::Silent,
                }
            }
        });
        let talking = async {
            let asked = Instant::now();
            answered(client.batch_execute("LISTEN sms_outbox")).await?;
            worker::listening(asked.elapsed());
            tracing::debug!("listening");
            wake.notify_one();
            loop {
                tokio::time::sleep(PROOF_INTERVAL).await;
                let asked = Instant::now();
                answered(client.simple_query("")).await?;
                worker::listening(asked.elapsed());
            }
        };
        tokio::select! {
            error = &mut reading => Err(error),
            error = talking => error,
        }
    }
}

/// A half-open connection neither answers nor breaks.
async fn answered<T>(call: impl Future<Output = Result<T, tokio_postgres::Error>>) -> Result<T, ListenError> {
    let answer = tokio::time::timeout(PROOF_TIMEOUT, call).await;
    Ok(answer.map_err(|_| ListenError::Silent)??)
}
