//! Memory and file descriptors of every process, over time.

use std::collections::BTreeMap;
use std::fs;
use std::time::{Duration, Instant};

use anyhow::Result;

use crate::stage::Stage;

/// What one process, or the server's all together, used at one moment.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sample {
    pub(crate) minutes: f64,
    pub(crate) pid: u32,
    pub(crate) kilobytes: u64,
    pub(crate) descriptors: usize,
}

/// By name, over time.
#[derive(Debug, Default)]
pub(crate) struct Meter(pub(crate) BTreeMap<String, Vec<Sample>>);

impl Meter {
    /// Measures until it is dropped.
    pub(crate) async fn run(&mut self, stage: &Stage, started: Instant, every: Duration) -> Result<()> {
        loop {
            self.measure(stage, started.elapsed().as_secs_f64() / 60.0).await;
            tokio::time::sleep(every).await;
        }
    }

    async fn measure(&mut self, stage: &Stage, minutes: f64) {
        let mut pids = vec![("the soak itself".to_owned(), std::process::id())];
        // Who is being killed or stopped is measured the next time.
        if let Ok(mut workers) = stage.workers.try_lock() {
            for (number, worker) in workers.iter_mut().enumerate() {
                pids.push((format!("worker {number}"), worker.process().id()));
            }
        }
        if let Ok(mut providers) = stage.providers.try_write() {
            for (number, provider) in providers.iter_mut().enumerate() {
                pids.push((format!("provider {number}"), provider.process().id()));
            }
        }
        for (name, pid) in pids {
            if let Some(kilobytes) = memory(pid, "VmRSS:") {
                self.note(name, Sample { minutes, pid, kilobytes, descriptors: descriptors(pid) });
            }
        }
        // What the server's processes share would be counted once each: of all only what is their own.
        let server = stage.cluster.process_ids();
        let kilobytes = server.iter().filter_map(|pid| memory(*pid, "RssAnon:")).sum();
        let descriptors = server.iter().map(|pid| descriptors(*pid)).sum();
        let pid = server.first().copied().unwrap_or_default();
        self.note("server (unshared)".to_owned(), Sample { minutes, pid, kilobytes, descriptors });
    }

    fn note(&mut self, name: String, sample: Sample) {
        self.0.entry(name).or_default().push(sample);
    }
}

fn memory(pid: u32, field: &str) -> Option<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status")).ok()?;
    status.lines().find_map(|line| line.strip_prefix(field))?.split_whitespace().next()?.parse().ok()
}

fn descriptors(pid: u32) -> usize {
    fs::read_dir(format!("/proc/{pid}/fd")).map_or(0, Iterator::count)
}
