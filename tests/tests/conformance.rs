//! The worker's queue on PostgreSQL passes the same suite as the one in memory: the rules of a message's life.

mod subject;

use anyhow::Result;
use sms_outbox_tests::{Major, on_majors};
use sms_outbox_worker::outbox::conformance;
use subject::Queue;

on_majors! { ends: passes_the_suite }

async fn passes_the_suite(major: Major) -> Result<()> {
    let queue = Queue::start(major).await?;
    conformance::run(|| async { Ok(queue.clone()) }).await
}
