//! Waiting for the outcome of one message.

use std::time::Duration;

use anyhow::bail;
use tokio::time::{Instant, sleep};
use tokio_postgres::Client;

use super::{concealed, reason};
use crate::cli::terminal::{Terminal, count, or_dash};
use crate::message::DispatchStatus;
use crate::outbox::postgres::operator::messages::{self, Message};

/// Waits until the message waits no longer, or the time is over; returns it as it is then.
pub(in crate::cli) async fn wait(
    client: &Client,
    terminal: &Terminal,
    id: &str,
    limit: Duration,
) -> anyhow::Result<Message> {
    let end = Instant::now() + limit;
    let progress = terminal.progress(None, "waiting for the outcome");
    loop {
        let Some(message) = messages::get(client, id).await? else { bail!("id: message {id} is gone") };
        if !is_moving(&message) || Instant::now() >= end {
            progress.finish_and_clear();
            return Ok(message);
        }
        progress.tick();
        sleep(Duration::from_millis(200).min(end - Instant::now())).await;
    }
}

/// Waits and prints the outcome; anything but `sent` is a failure.
pub(in crate::cli) async fn report(
    client: &Client,
    terminal: &Terminal,
    id: &str,
    limit: Duration,
) -> anyhow::Result<()> {
    let message = concealed(wait(client, terminal, id, limit).await?);
    if terminal.is_json() {
        terminal.json(&message)?;
    } else {
        let by = or_dash(message.provider_slug.as_deref());
        let attempts = count(message.attempt_count, "attempt");
        terminal.line(&format!("{id} {} {by} after {attempts}", message.dispatch_status))?;
    }
    if message.dispatch_status != DispatchStatus::Sent.word() {
        let why = reason(&message).unwrap_or_else(|| "no reason is known yet; sms-outbox status says more".to_owned());
        if is_moving(&message) {
            bail!("not sent within {} s, {}: {why}", limit.as_secs_f64(), message.dispatch_status);
        }
        if message.dispatch_status == DispatchStatus::DispatchTimeout.word() {
            bail!("nobody knows whether it was sent, {}: {why}", message.dispatch_status);
        }
        bail!("not sent, {}: {why}", message.dispatch_status);
    }
    Ok(())
}

/// Whether it may still be sent by itself.
fn is_moving(message: &Message) -> bool {
    [DispatchStatus::Pending, DispatchStatus::Sending].iter().any(|status| status.word() == message.dispatch_status)
}
