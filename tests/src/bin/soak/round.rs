//! A few minutes of load and faults, after which everything settles and every message of it is judged.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result};
use futures_util::StreamExt;
use futures_util::stream::FuturesUnordered;
use sms_outbox_tests::history::journal::Writer;
use sms_outbox_tests::history::{Files, Verdict, check_files, read};
use tokio::task::JoinSet;

use crate::applications::{Round, application, operator};
use crate::books::Books;
use crate::pace::Pace;
use crate::plan;
use crate::stage::{PROVIDERS, Stage};

const APPLICATIONS: u64 = 4;

/// What the whole run has in common.
pub(crate) struct Run {
    pub(crate) stage: Arc<Stage>,
    pub(crate) pace: Arc<Pace>,
    pub(crate) number: Arc<AtomicU64>,
    pub(crate) canceled: Arc<AtomicU64>,
    pub(crate) seed: u64,
    pub(crate) folder: PathBuf,
    /// Lines of the providers' journals that earlier rounds have read.
    pub(crate) read: [u64; PROVIDERS],
}

/// What came out of a round.
pub(crate) struct Outcome {
    pub(crate) verdict: Verdict,
    pub(crate) faults: BTreeMap<&'static str, u64>,
    pub(crate) files: Files,
    /// From the first enqueue to the last, and then until all was over.
    pub(crate) loaded: Duration,
    pub(crate) settled: Duration,
    pub(crate) rolled_back: u64,
    pub(crate) replayed: u64,
    pub(crate) in_doubt: u64,
}

impl Run {
    /// Plays a round and judges it.
    pub(crate) async fn round(&mut self, number: u64, length: Duration) -> Result<Outcome> {
        let folder = self.folder.join(format!("round-{number}"));
        fs::create_dir_all(&folder)?;
        let books = Arc::new(Books::open(&folder)?);
        let first: String =
            self.stage.admin().await?.value("SELECT sms_outbox.id_floor(clock_timestamp())::text", &[]).await?;
        let round = Arc::new(Round {
            stage: self.stage.clone(),
            books: books.clone(),
            pace: self.pace.clone(),
            number: self.number.clone(),
            over: AtomicBool::new(false),
            first: first.clone(),
        });
        let started = Instant::now();
        self.play(&round, number, length).await?;
        let loaded = started.elapsed();
        self.stage.settle().await?;
        let settled = started.elapsed() - loaded;

        let files = Files {
            commits: books.commits_file().to_owned(),
            database: folder.join("database"),
            provider: folder.join("provider"),
            unclear: Some(folder.join("unclear")),
        };
        let mut writer = Writer::create(&files.provider)?;
        for (place, provider) in self.stage.providers.read().await.iter().enumerate() {
            if provider.journal_file().exists() {
                books.read_provider(provider.journal_file(), self.read[place])?;
            }
            self.read[place] = read::read_sandbox(provider, self.read[place], &mut writer).await?;
        }
        writer.end()?;
        books.close(&folder.join("unclear"))?;
        let verdict = judge(&self.stage, &files, &first).await?;
        let count = |count: &AtomicU64| count.load(Ordering::Relaxed);
        Ok(Outcome {
            verdict,
            faults: books.faults(),
            files,
            loaded,
            settled,
            rolled_back: count(&books.rolled_back),
            replayed: count(&books.replayed),
            in_doubt: count(&books.in_doubt),
        })
    }

    async fn play(&self, round: &Arc<Round>, number: u64, length: Duration) -> Result<()> {
        let mut people = JoinSet::new();
        for place in 0..APPLICATIONS {
            let seed = self.seed.wrapping_add(number * 1000 + place);
            people.spawn(application(round.clone(), seed, place == 0));
        }
        people.spawn(operator(round.clone(), self.canceled.clone()));
        let mut faults = FuturesUnordered::new();
        let started = Instant::now();
        for (due, fault) in plan::draw(self.seed, number, length) {
            // Some last a while: others happen meanwhile.
            let due = tokio::time::sleep_until((started + due).into());
            tokio::pin!(due);
            loop {
                tokio::select! {
                    () = &mut due => break,
                    Some(ended) = faults.next() => ended?,
                    Some(ended) = people.join_next() => ended??,
                }
            }
            faults.push(async move {
                round.stage.inject(fault, &round.books).await.with_context(|| format!("fault: {fault}"))
            });
        }
        tokio::time::sleep_until((started + length).into()).await;
        round.over.store(true, Ordering::Relaxed);
        while let Some(ended) = people.join_next().await {
            ended??;
        }
        while let Some(ended) = faults.next().await {
            ended?;
        }
        Ok(())
    }

    /// Judges every message of all rounds at once.
    pub(crate) async fn judge_all(&self, rounds: &[Outcome]) -> Result<Verdict> {
        let files = Files {
            commits: self.folder.join("commits"),
            database: self.folder.join("database"),
            provider: self.folder.join("provider"),
            unclear: Some(self.folder.join("unclear")),
        };
        let unclear = |round: &Outcome| round.files.unclear.clone().unwrap_or_default();
        append(&files.commits, rounds.iter().map(|round| round.files.commits.clone()))?;
        append(&self.folder.join("unclear"), rounds.iter().map(unclear))?;
        let mut writer = Writer::create(&files.provider)?;
        for provider in &*self.stage.providers.read().await {
            read::read_sandbox(provider, 0, &mut writer).await?;
        }
        writer.end()?;
        judge(&self.stage, &files, read::FIRST).await
    }
}

async fn judge(stage: &Stage, files: &Files, first: &str) -> Result<Verdict> {
    let mut writer = Writer::create(&files.database)?;
    read::read_database(&*stage.admin().await?, first, &mut writer).await?;
    writer.end()?;
    let files = files.clone();
    Ok(tokio::task::spawn_blocking(move || check_files(&files)).await?)
}

/// Several journals as one.
fn append(file: &Path, parts: impl Iterator<Item = PathBuf>) -> Result<()> {
    let mut writer = Writer::create(file)?;
    for part in parts {
        writer.append(&part)?;
    }
    writer.end()
}
