//! Whether LISTEN works on this way to the database: behind a transaction pooler it is accepted and then silent.

use std::time::Duration;

use futures_util::StreamExt;
use futures_util::stream::poll_fn;
use tokio::sync::mpsc;
use tokio::time::timeout;
use tokio_postgres::{AsyncMessage, Client};

use super::Finding;
use crate::outbox::postgres::connect::Target;
use crate::outbox::postgres::operator::server;

const CURE: &str = "give workers a direct connection to the server (or a pooler in session mode); \
                    else start them with --no-listen, so that they poll, behind a pooler that carries prepared \
                    statements (PgBouncer 1.21 or newer with max_prepared_statements)";

/// Two connections that are served by one server process at the same time can only stand behind a transaction pooler.
pub(super) async fn examine(target: &Target, client: &Client) -> anyhow::Result<Finding> {
    let (listener, mut connection) = target.open().await?;
    let (heard, mut notifications) = mpsc::channel(1);
    let served = tokio::spawn(async move {
        let mut messages = poll_fn(move |context| connection.poll_message(context));
        while let Some(Ok(message)) = messages.next().await {
            if matches!(message, AsyncMessage::Notification(_)) {
                // One is enough; a full channel has told it already.
                let _ = heard.try_send(());
            }
        }
    });
    let pooled = server::backend_pid(&listener).await? == server::backend_pid(client).await?;
    server::listen_doctor(&listener).await?;
    server::notify_doctor(client).await?;
    let arrived = timeout(Duration::from_secs(2), notifications.recv()).await.is_ok_and(|heard| heard.is_some());
    served.abort();
    Ok(match (pooled, arrived) {
        (false, true) => Finding::ok("listen", "a notification arrived on a second connection"),
        (true, _) => Finding::warn("listen", "a transaction pooler stands between: wake-ups get lost", CURE),
        (false, false) => Finding::warn("listen", "a notification did not arrive within 2 s: wake-ups get lost", CURE),
    })
}
