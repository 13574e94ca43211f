//! Which faults happen when: drawn from the seed before anything runs, so that a run can be had again.

use std::fmt;
use std::time::Duration;

use crate::stage::{PROVIDERS, WORKERS};

/// Behaviours of the pretend provider that leave it open whether it sent.
pub(crate) const UNCLEAR: [&str; 7] =
    ["error_500", "accept_then_500", "reset_after_read", "reset_after_accept", "truncate", "garbage", "redirect"];

/// Behaviours that tell.
const DEFINITE: [&str; 4] = ["throttle", "refuse_content", "refuse_recipient", "delay"];

/// One fault.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Fault {
    /// SIGKILL, and another worker in its place.
    KillWorker(usize),
    /// SIGSTOP for so many seconds, then SIGCONT.
    StopWorker(usize, u64),
    /// All connections of a worker are cut.
    CutWorker(usize),
    /// A connection of an application is cut.
    CutApplication,
    /// SIGKILL of a backend: the server restarts itself.
    CrashServer,
    /// SIGKILL of the background worker, to the same end.
    KillMaintainer,
    /// Immediate shutdown, and a start.
    RestartServer,
    /// SIGKILL of a pretend provider with all of its connections, and a start.
    KillProvider(usize),
    /// A pretend provider does this with so many requests.
    Misbehave(usize, &'static str, u64),
}

impl Fault {
    /// Its kind, as the summary counts it.
    pub(crate) fn kind(self) -> &'static str {
        match self {
            Self::KillWorker(_) => "worker killed",
            Self::StopWorker(_, seconds) if seconds > crate::stage::LEASE_SECONDS => "worker stopped past its lease",
            Self::StopWorker(..) => "worker stopped for a while",
            Self::CutWorker(_) => "worker's connections cut",
            Self::CutApplication => "application's connection cut",
            Self::CrashServer => "backend killed: server restarts",
            Self::KillMaintainer => "background worker killed: server restarts",
            Self::RestartServer => "server stopped at once and started",
            Self::KillProvider(_) => "provider killed, its connections cut",
            Self::Misbehave(_, what, _) => what,
        }
    }
}

impl fmt::Display for Fault {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::KillWorker(which) | Self::CutWorker(which) => write!(formatter, "{} {which}", self.kind()),
            Self::StopWorker(which, seconds) => write!(formatter, "worker {which} stopped for {seconds} s"),
            Self::KillProvider(which) => write!(formatter, "{} ({which})", self.kind()),
            Self::Misbehave(which, what, times) => write!(formatter, "provider {which}: {what}, {times} times"),
            _ => formatter.write_str(self.kind()),
        }
    }
}

/// The faults of a stretch of time, each with when it is due. `round` makes each round's another one.
pub(crate) fn draw(seed: u64, round: u64, length: Duration) -> Vec<(Duration, Fault)> {
    let mut dice = fastrand::Rng::with_seed(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15).wrapping_add(round));
    let mut plan = Vec::new();
    let mut due = Duration::from_secs(2);
    while due < length {
        plan.push((due, fault(&mut dice)));
        due += Duration::from_millis(dice.u64(500..4000));
    }
    plan
}

fn fault(dice: &mut fastrand::Rng) -> Fault {
    // Worker 0 is never killed: its memory shows what an hour does.
    let mortal = dice.usize(1..WORKERS);
    let provider = dice.usize(..PROVIDERS);
    match dice.u32(..100) {
        0..18 => Fault::KillWorker(mortal),
        18..24 => Fault::StopWorker(mortal, dice.u64(1..6)),
        24..26 => Fault::StopWorker(mortal, crate::stage::LEASE_SECONDS + 5),
        26..34 => Fault::CutWorker(dice.usize(..WORKERS)),
        34..42 => Fault::CutApplication,
        42..45 => Fault::CrashServer,
        45..47 => Fault::KillMaintainer,
        47..50 => Fault::RestartServer,
        50..55 => Fault::KillProvider(provider),
        55..85 => Fault::Misbehave(provider, UNCLEAR[dice.usize(..UNCLEAR.len())], dice.u64(1..4)),
        _ => Fault::Misbehave(provider, DEFINITE[dice.usize(..DEFINITE.len())], dice.u64(1..20)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_seed_draws_the_same_faults_again() {
        let minute = Duration::from_secs(60);
        assert_eq!(draw(7, 1, minute), draw(7, 1, minute));
        assert_ne!(draw(7, 1, minute), draw(7, 2, minute));
        assert_ne!(draw(7, 1, minute), draw(8, 1, minute));
        let hour = draw(7, 1, minute * 60);
        for kind in ["worker killed", "worker stopped past its lease", "server stopped at once and started", "truncate"]
        {
            assert!(hour.iter().any(|(_, fault)| fault.kind() == kind), "{kind}");
        }
        assert!(hour.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }
}
