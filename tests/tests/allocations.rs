//! How often a worker asks for memory: per message, in its hot path, by an allocator that counts. Its program is this test's own:
//! called with `worker` it is the command, so that nothing but the worker is counted.

mod shop;

use std::alloc::System;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, Result, ensure};
use shop::Shop;
use sms_outbox_tests::wait::poll;
use sms_outbox_tests::{Major, Worker, run};
use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};
use tokio::runtime::Runtime;

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Where the worker writes how often it has asked.
const COUNT_FILE: &str = "ALLOCATIONS_FILE";

const MESSAGES: i32 = 3000;

/// A row to read, an HTTP request with its answer, and a row to write: 139 were counted.
const MOST: f64 = 220.0;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        if let Some(file) = std::env::var_os(COUNT_FILE) {
            std::thread::spawn(move || write_counts(&PathBuf::from(file)));
        }
        return sms_outbox_worker::cli::main();
    }
    report(&Runtime::new().map_err(Into::into).and_then(|runtime| runtime.block_on(are_few(Major::V18))))
}

/// As the harness of other tests says it, by whose line they are counted.
#[expect(clippy::print_stdout, reason = "it is this program's only output")]
fn report(result: &Result<f64>) -> ExitCode {
    match result {
        Ok(each) => {
            println!("{each:.1} allocations a message\ntest result: ok. 1 passed; 0 failed; 0 ignored");
            ExitCode::SUCCESS
        }
        Err(error) => {
            println!("{error:?}\ntest result: FAILED. 0 passed; 1 failed; 0 ignored");
            ExitCode::FAILURE
        }
    }
}

/// Writes the count again and again, until the process ends.
#[expect(clippy::disallowed_methods, reason = "a thread of its own, in which nothing else waits")]
fn write_counts(file: &Path) {
    loop {
        let count = ALLOCATOR.stats().allocations;
        // A reader sees a whole count or the one before.
        let whole = file.with_extension("whole");
        if std::fs::write(&whole, count.to_string()).and_then(|()| std::fs::rename(&whole, file)).is_err() {
            return;
        }
        std::thread::sleep(Duration::from_millis(100));
    }
}

async fn are_few(major: Major) -> Result<f64> {
    let mut shop = Shop::open(major, "allocations").await?;
    shop.install_account("north", "max_in_flight => 1000").await?;
    let file = run::fresh("allocations")?;
    let mut worker = Worker::options_by(&shop.database, &std::env::current_exe()?)?
        .set(COUNT_FILE, file.to_str().context("a path of text")?)
        .set("SMS_OUTBOX_LOG_LEVEL", "warn")
        .start()
        .await?;
    // Connections and prepared statements come with the first ones.
    shop.queue_many("shop", 500, "").await?;
    shop.wait_until_settled().await?;
    let before = count(&file).await?;
    shop.queue_many("shop", MESSAGES, "").await?;
    shop.wait_until_settled().await?;
    let each = (count(&file).await? - before) / f64::from(MESSAGES);
    ensure!(each > 1.0 && each <= MOST, "{each:.1} allocations a message, and {MOST} are allowed");
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    shop.check().await?;
    Ok(each)
}

/// A count that is taken after this call.
async fn count(file: &Path) -> Result<f64> {
    let _ = std::fs::remove_file(file);
    let read = async || Ok(std::fs::read_to_string(file).ok());
    let text = poll("the worker counts", read, async || String::new()).await?;
    text.parse().with_context(|| text.clone())
}
