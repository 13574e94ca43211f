//! How busy the machine was, and with whom: what others used of it while something was measured.

use std::collections::HashMap;
use std::fs;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, Result};

/// Above this share of the machine, used by others, a round is marked as noisy.
pub(crate) const NOISY: f64 = 0.1;

/// Ticks of /proc a second, fixed by the kernel's interface.
const TICKS: f64 = 100.0;

/// A moment to measure from.
pub(crate) struct Load {
    begun: Instant,
    all: u64,
    ours: u64,
}

impl Load {
    /// Now.
    pub(crate) fn begin() -> Result<Self> {
        Ok(Self { begun: Instant::now(), all: all()?, ours: ours(std::process::id()) })
    }

    /// The share of the machine that processes used, since then, which neither this one nor its children started.
    pub(crate) fn foreign(&self) -> Result<f64> {
        let cores = thread::available_parallelism()?.get() as f64;
        let could = self.begun.elapsed().as_secs_f64() * TICKS * cores;
        let all = all()?.saturating_sub(self.all) as f64;
        let ours = ours(std::process::id()).saturating_sub(self.ours) as f64;
        Ok(((all - ours) / could).clamp(0.0, 1.0))
    }
}

/// How long it looks whether others are quiet, and pauses where they are not.
const PROBE: Duration = Duration::from_millis(250);
const PAUSE: Duration = Duration::from_secs(2);

/// Waits until others are quiet, at most so long. Returns how long it waited.
pub(crate) async fn wait_for_quiet(patience: Duration) -> Result<Duration> {
    let begun = Instant::now();
    while begun.elapsed() < patience {
        let load = Load::begin()?;
        tokio::task::spawn_blocking(spin).await?;
        if load.foreign()? <= NOISY {
            break;
        }
        tokio::time::sleep(PAUSE).await;
    }
    Ok(begun.elapsed())
}

/// Keeps all cores busy: what other guests of the host take is seen by those alone who want it.
fn spin() {
    let cores = thread::available_parallelism().map_or(1, usize::from);
    thread::scope(|scope| {
        for _ in 0..cores {
            scope.spawn(|| {
                let begun = Instant::now();
                while begun.elapsed() < PROBE {
                    std::hint::spin_loop();
                }
            });
        }
    });
}

/// Ticks that the machine was busy with anything, also with other guests of its host.
fn all() -> Result<u64> {
    let stat = fs::read_to_string("/proc/stat")?;
    let line = stat.lines().next().context("/proc/stat is empty")?;
    let ticks: Vec<u64> = line.split_whitespace().skip(1).filter_map(|field| field.parse().ok()).collect();
    // user, nice, system, idle, iowait, irq, softirq, steal; guests are in user.
    Ok([0, 1, 2, 5, 6, 7].iter().filter_map(|place| ticks.get(*place)).sum())
}

/// Ticks of a process and all below it. What has ended is in the times of the parent that waited for it.
fn ours(root: u32) -> u64 {
    let mut parents = HashMap::new();
    let mut times = HashMap::new();
    for entry in fs::read_dir("/proc").into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse::<u32>().ok()) else { continue };
        let Some((parent, ticks)) = stat(pid) else { continue };
        parents.insert(pid, parent);
        times.insert(pid, ticks);
    }
    let is_ours = |mut pid: u32| {
        while pid > 1 {
            if pid == root {
                return true;
            }
            pid = parents.get(&pid).copied().unwrap_or(0);
        }
        false
    };
    times.iter().filter(|(pid, _)| is_ours(**pid)).map(|(_, ticks)| ticks).sum()
}

/// The parent of a process, and its ticks with those of the children that it waited for.
fn stat(pid: u32) -> Option<(u32, u64)> {
    let text = fs::read_to_string(format!("/proc/{pid}/stat")).ok()?;
    let fields: Vec<&str> = text.rsplit_once(") ")?.1.split(' ').collect();
    let ticks = fields.get(11..15)?.iter().filter_map(|field| field.parse::<u64>().ok()).sum();
    Some((fields.get(1)?.parse().ok()?, ticks))
}

/// CPU of one process, in microseconds, exact to the nanosecond where `ticks` are not.
pub(crate) fn cpu_us(pid: u32) -> Result<f64> {
    let mut nanos = 0;
    for task in fs::read_dir(format!("/proc/{pid}/task"))?.flatten() {
        let text = fs::read_to_string(task.path().join("schedstat")).unwrap_or_default();
        nanos += text.split(' ').next().and_then(|field| field.parse::<u64>().ok()).unwrap_or(0);
    }
    Ok(nanos as f64 / 1000.0)
}

/// A figure of /proc/PID/status, such as `VmHWM`, in MiB.
pub(crate) fn memory_mib(pid: u32, figure: &str) -> Result<f64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix(figure)).with_context(|| format!("no {figure}"))?;
    let kib: f64 = line.trim_start_matches(':').trim().trim_end_matches(" kB").parse()?;
    Ok(kib / 1024.0)
}

#[cfg(test)]
mod tests {
    use std::process::Command;

    use super::*;

    /// Processes that keep all cores busy, and that the shell which began them has left to others.
    struct Busy(Vec<String>);

    impl Busy {
        fn begin() -> Self {
            let begin = "timeout 30 sh -c 'while :; do :; done' >/dev/null 2>&1 & echo $!";
            let cores = thread::available_parallelism().map_or(1, usize::from);
            let begun = (0..cores).map(|_| Command::new("sh").args(["-c", begin]).output().expect("a shell"));
            Self(begun.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).collect())
        }
    }

    impl Drop for Busy {
        fn drop(&mut self) {
            // They end by themselves otherwise.
            let _ = Command::new("kill").args(&self.0).status();
        }
    }

    #[tokio::test]
    async fn waits_for_others_but_not_for_ever() {
        let patience = Duration::from_secs(3);
        let _busy = Busy::begin();
        let waited = wait_for_quiet(patience).await.expect("a wait");
        assert!(waited >= patience, "others took all cores, and it waited only {waited:?}");
    }
}
