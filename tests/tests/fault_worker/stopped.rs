//! A worker that stands still for longer than its lease, at each place of a message's way, and then goes on: a laptop's lid,
//! a paused container. What it then tells lands on its own attempt, and nobody has sent the message meanwhile.

use std::time::Instant;

use anyhow::{Context, Result, ensure};
use sms_outbox_tests::Fault;

use crate::shop::Shop;
use crate::{MAJOR, alive_again};

/// A worker that is stopped at a fail point, and how the message ends.
struct Stop {
    point: &'static str,
    case: &'static str,
    /// While it stands still.
    meanwhile: &'static str,
    /// When it has gone on: one of these, since an answer that comes too late to be waited for is unclear.
    ends: &'static [&'static str],
    /// How often the provider was asked.
    asked: usize,
}

async fn stopped_at(stop: Stop) -> Result<()> {
    let mut shop = Shop::open(MAJOR, &format!("stopped_at_{}", stop.point)).await?;
    shop.shorten_leases().await?;
    shop.install("sandbox", "").await?;
    let mut fault = Fault::new("7", stop.case, MAJOR);
    // Long enough for the signal to find it there, and shorter than the lease.
    let mut worker = shop.worker_at(&format!("{}=1*sleep(5000)", stop.point))?.start().await?;
    let sms = shop.queue("").await?;
    worker.wait_until_held(stop.point, 1).await?;
    worker.pause()?;
    ensure!(worker.visits(stop.point) == (1, 0), "the machine was too slow: it was not stopped there");
    let stopped = Instant::now();
    fault.injected(1);
    // Others work on, and leave its message alone.
    let _other = alive_again(&mut shop).await?;
    fault.recovered_in(stopped.elapsed());
    shop.wait_for_status(&sms, stop.meanwhile).await?;
    shop.database.wait_until("its lease is over", "SELECT NOT EXISTS (SELECT FROM sms_outbox.lease)").await?;
    worker.resume()?;
    shop.wait_until("it goes on", || worker.visits(stop.point).1 == 1).await?;
    let status = worker.drain().await?;
    ensure!(status.success(), "{status}: {}", worker.log());

    let end = shop.show(&sms, "dispatch_status").await?.context("it is nowhere")?;
    ensure!(stop.ends.contains(&end.as_str()), "{end}: {}", shop.database.evidence().await);
    ensure!(shop.ledger(&sms).await?.len() == 1, "{:?}", shop.ledger(&sms).await?);
    let seen = shop.seen(&sms).await?;
    ensure!(seen == (stop.asked, stop.asked), "asked and accepted {seen:?}");
    if stop.ends.contains(&"dispatch_timeout") {
        fault.perhaps_unclear([&sms.id])?;
    }
    shop.close_fault(fault).await.map(drop)
}

macro_rules! stops {
    ($($name:ident: $point:literal, $case:literal, $meanwhile:literal, $ends:expr, asked: $asked:literal;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> Result<()> {
                stopped_at(Stop { point: $point, case: $case, meanwhile: $meanwhile, ends: &$ends, asked: $asked }).await
            }
        )+
    };
}

stops! {
    stopped_before_the_claim: "claim", "worker stopped before the claim", "sent", ["sent"], asked: 1;
    stopped_after_the_claim: "claimed", "worker stopped after the claim, before the connection", "dispatch_timeout", ["failed"], asked: 0;
    // The clock was read: the bytes go out long after. Nobody else has sent it, so it is once all the same.
    stopped_before_the_first_byte: "write", "worker stopped when connected, before the first byte", "dispatch_timeout",
        ["sent", "dispatch_timeout"], asked: 1;
    stopped_after_the_bytes: "written", "worker stopped after the bytes", "dispatch_timeout", ["sent", "dispatch_timeout"], asked: 1;
    stopped_after_the_answer: "answered", "worker stopped after the answer", "dispatch_timeout", ["sent"], asked: 1;
    stopped_before_finish: "finish", "worker stopped before finish", "dispatch_timeout", ["sent"], asked: 1;
    stopped_after_finish: "finished", "worker stopped after finish", "sent", ["sent"], asked: 1;
}
