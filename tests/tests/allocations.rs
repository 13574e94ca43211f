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

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Where the worker writes how often it has asked.
const COUNT_FILE: &str = "ALLOCATIONS_FILE";

const MESSAGES: i32 = 3000;

/// A row to read, an HTTP request with its answer, and a row to write: 139 were counted (128 connections kept, logs at warn).
const MOST: f64 = 220.0;

fn main() -> ExitCode {
    if std::env::args().nth(1).as_deref() == Some("worker") {
        let file = PathBuf::from(std::env::var_os(COUNT_FILE).expect("named by the test"));
        std::thread::spawn(move || write_counts(&file));
        return sms_outbox_worker::cli::main();
    }
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    match runtime.block_on(are_few(Major::V18)) {
        Ok(()) => {
            // As the harness says it: the tests are counted by this line.
            println!("test result: ok. 1 passed; 0 failed; 0 ignored");
            ExitCode::SUCCESS
        }
        Err(error) => {
            eprintln!("{error:?}");
            ExitCode::FAILURE
        }
    }
}

/// A line for each count, until the process ends.
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

async fn are_few(major: Major) -> Result<()> {
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
    println!("{each:.1} allocations a message");
    ensure!(each > 1.0 && each <= MOST, "{each:.1} allocations a message, and {MOST} are allowed");
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    shop.check().await.map(drop)
}

/// A count that is taken after this call.
async fn count(file: &Path) -> Result<f64> {
    let _ = std::fs::remove_file(file);
    let read = async || Ok(std::fs::read_to_string(file).ok());
    let text = poll("the worker counts", read, async || String::new()).await?;
    text.parse().with_context(|| text.clone())
}
