//! Workers that die, stand still or have a wrong clock, at each place of a message's way. Where a worker is held the fail
//! points say: `worker/src/failpoint.rs`.

mod clock;
mod killed;
mod late;
#[path = "../shop/mod.rs"]
mod shop;
mod stopped;

use std::path::Path;
use std::process::Command;

use anyhow::{Result, ensure};
use shop::Shop;
use sms_outbox_tests::{Major, Worker, paths};

/// What a worker does is the same on every server: one is enough. Races in SQL have tests of their own on the others.
const MAJOR: Major = Major::V18;

/// Another worker, and a message that it has sent: service is back.
async fn alive_again(shop: &mut Shop) -> Result<Worker> {
    let worker = shop.quick_worker().await?;
    let next = shop.queue("").await?;
    shop.wait_for_status(&next, "sent").await?;
    Ok(worker)
}

/// The program that people run has nothing of this.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_ordinary_command_has_no_fail_points() -> Result<()> {
    let has = |program: &Path| Command::new("grep").args(["-qaF", "fail point reached"]).arg(program).status();
    ensure!(has(&paths::command_with_failpoints()?)?.success(), "the words that are looked for are not the right ones");
    ensure!(has(&paths::command()?)?.code() == Some(1), "the command has fail points");

    let mut shop = Shop::open(MAJOR, "ordinary").await?;
    shop.install("sandbox", "").await?;
    let mut worker = shop.worker()?.set("FAILPOINTS", "claim=pause;claimed=pause;finish=pause").start().await?;
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "sent").await?;
    ensure!(worker.drain().await?.success());
    shop.close().await.map(drop)
}

/// The feature in a release build is an error of the compiler.
#[test]
fn a_release_build_refuses_fail_points() -> Result<()> {
    let mut compile = Command::new("rustc");
    compile.args(["--edition=2024", "--crate-type=lib", "--emit=metadata", "-Cdebug-assertions=off"]);
    compile.args(["--cfg=feature=\"failpoints\"", "-o", "/dev/null"]).arg(paths::checkout("worker/src/failpoint.rs"));
    let errors = String::from_utf8(compile.output()?.stderr)?;
    ensure!(errors.contains("error: feature failpoints: a release build has no fail points"), "{errors}");
    Ok(())
}
