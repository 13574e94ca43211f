//! What README and docs show is what happens: their blocks of SQL and shell run here, page by page, each on a server of
//! its own, and what a `console` block shows is compared with what comes. Lists in the references are compared with the
//! database and the catalog; `UPDATE_DOCUMENTS=1` writes them anew.

mod guarantees;
mod masks;
mod names;
mod page;
mod references;
mod session;

use anyhow::{Context, Result, ensure};
use page::{Page, Step};
use session::Session;
use sms_outbox_tests::{Cluster, Database, Major};

/// The pages with blocks that run, and whether the database has the extension when they begin.
const RUN: &[(&str, bool)] = &[
    ("README.md", false),
    ("docs/guides/credentials.md", true),
    ("docs/guides/enqueue.md", false),
    ("docs/guides/http.md", false),
    ("docs/guides/keys-and-tokens.md", true),
    ("docs/guides/limits.md", true),
    ("docs/guides/measure.md", false),
    ("docs/guides/metrics.md", true),
    ("docs/guides/operate.md", true),
    ("docs/guides/postgrest.md", true),
    ("docs/guides/providers.md", false),
    ("docs/guides/settings.md", true),
    ("docs/guides/sql.md", true),
    ("docs/guides/unclear.md", true),
    ("docs/guides/write-a-worker.md", false),
];

macro_rules! pages {
    ($($test:ident $path:literal),+ $(,)?) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $test() -> Result<()> {
                follow($path).await
            }
        )+
    };
}

pages! {
    the_tour_of_the_readme "README.md",
    credentials "docs/guides/credentials.md",
    enqueue "docs/guides/enqueue.md",
    http "docs/guides/http.md",
    keys_and_tokens "docs/guides/keys-and-tokens.md",
    limits "docs/guides/limits.md",
    measure "docs/guides/measure.md",
    metrics "docs/guides/metrics.md",
    operate "docs/guides/operate.md",
    postgrest "docs/guides/postgrest.md",
    providers "docs/guides/providers.md",
    settings "docs/guides/settings.md",
    sql "docs/guides/sql.md",
    unclear "docs/guides/unclear.md",
    a_worker_in_another_language "docs/guides/write-a-worker.md",
}

/// Does what a reader does.
async fn follow(path: &str) -> Result<()> {
    let page = Page::read(path)?;
    let (_, extension) = RUN.iter().find(|(run, _)| *run == path).context("add the page to RUN")?;
    let cluster = Cluster::start_new(Major::V18).await?;
    let database = Database::create_empty(&cluster, "tour").await?;
    if *extension {
        database.sql("CREATE EXTENSION sms_outbox").await?;
    }
    let session = Session::new(&database, &page).await?;
    let faults = session.follow(&page).await?;
    ensure!(faults.is_empty(), "{path} does not say what happens:\n{}", faults.join("\n"));
    Ok(())
}

#[test]
fn every_page_with_blocks_is_run() -> Result<()> {
    for path in page::all()? {
        let page = Page::read(&path)?;
        let runs = page.steps.iter().any(|step| matches!(step, Step::Command { .. } | Step::Sql { .. }));
        ensure!(runs == RUN.iter().any(|(run, _)| *run == path), "{path}: has blocks that run: {runs}; see RUN");
        for (line, reason) in &page.not_run {
            ensure!(reason.len() > 10, "{path}:{line}: not-run needs a reason");
        }
    }
    Ok(())
}

#[test]
fn every_promise_is_proven() -> Result<()> {
    let faults = guarantees::faults()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[test]
fn links_lead_somewhere() -> Result<()> {
    let faults = names::dead_links()?;
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn references_say_what_there_is() -> Result<()> {
    let cluster = Cluster::start_new(Major::V18).await?;
    let database = Database::create(&cluster, "references").await?;
    let mut faults = references::compare(&database).await?;
    faults.extend(names::unknown(&database).await?);
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

#[tokio::test]
async fn settings_of_the_command_are_listed() -> Result<()> {
    let faults = references::command_settings().await?;
    ensure!(faults.is_empty(), "docs/guides/settings.md: {}", faults.join("\n"));
    Ok(())
}
