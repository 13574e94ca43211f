//! What costs the server speed. Pure: facts in, findings out. What is no worse than PostgreSQL's own defaults is told only
//! where the server itself has counted what it costs.

use super::Finding;
use crate::cli::terminal::{age, size};
use crate::outbox::postgres::operator::server::Speed;

const MEBIBYTE: i64 = 1 << 20;
/// These three are PostgreSQL's own defaults.
const SMALL_BUFFERS: i64 = 128 * MEBIBYTE;
const SMALL_WAL: i64 = 1024 * MEBIBYTE;
const SHORT_CHECKPOINTS: i64 = 300;
/// So many checkpoints tell a habit from a backup or a restart.
const MANY_CHECKPOINTS: i64 = 10;
/// Connections of one worker: four for its calls, and the one that listens.
const OF_A_WORKER: i64 = 5;

pub(super) fn examine(speed: &Speed) -> Vec<Finding> {
    let mut findings = vec![checkpoints(speed), memory(speed), connections(speed)];
    if speed.jit {
        findings.push(Finding::warn(
            "jit",
            "jit is on: a short statement that the planner takes for costly takes longer to compile than to run",
            "ALTER DATABASE … SET jit = off; on for the sessions that make reports",
        ));
    }
    findings
}

fn checkpoints(speed: &Speed) -> Finding {
    let larger = format!(
        "ALTER SYSTEM SET max_wal_size = '{}'; SELECT pg_reload_conf(); the disk of pg_wal must have that room{}",
        size((speed.max_wal_size * 4).max(4 * SMALL_WAL)),
        if speed.wal_compression == "off" { "; wal_compression = on makes whole pages smaller" } else { "" }
    );
    let why = "after each checkpoint, every page goes into the WAL whole when it is first changed";
    let (timed, requested) = (speed.checkpoints_timed, speed.checkpoints_requested);
    if requested >= MANY_CHECKPOINTS && requested > timed {
        return Finding::warn(
            "checkpoints",
            format!(
                "{requested} of {} checkpoints came before their time, as they do when max_wal_size ({}) is full: {why}",
                timed + requested,
                size(speed.max_wal_size)
            ),
            larger,
        );
    }
    if speed.max_wal_size < SMALL_WAL {
        return Finding::warn(
            "checkpoints",
            format!(
                "max_wal_size is {}: under load it is full in no time, which begins a checkpoint, and {why}",
                size(speed.max_wal_size)
            ),
            larger,
        );
    }
    if speed.checkpoint_timeout < SHORT_CHECKPOINTS {
        return Finding::warn(
            "checkpoints",
            format!("checkpoint_timeout is {}: {why}", age(speed.checkpoint_timeout as f64)),
            "ALTER SYSTEM SET checkpoint_timeout = '15min'; SELECT pg_reload_conf(); recovery after a crash takes longer then",
        );
    }
    Finding::ok(
        "checkpoints",
        format!(
            "every {}, max_wal_size {}, wal_compression {}",
            age(speed.checkpoint_timeout as f64),
            size(speed.max_wal_size),
            speed.wal_compression
        ),
    )
}

fn memory(speed: &Speed) -> Finding {
    let detail = format!("shared_buffers {}", size(speed.shared_buffers));
    if speed.shared_buffers >= SMALL_BUFFERS {
        return Finding::ok("memory", detail);
    }
    Finding::warn(
        "memory",
        format!("{detail}: the queue's pages are read again and again"),
        "ALTER SYSTEM SET shared_buffers to a quarter of the machine's memory, and restart",
    )
}

fn connections(speed: &Speed) -> Finding {
    let room = speed.max_connections - speed.reserved_connections;
    let free = (room - speed.connections).max(0);
    let detail =
        format!("{free} of {room} are free; each of the {} workers alive takes up to {OF_A_WORKER}", speed.workers);
    // One more worker, or a tenth: whoever comes when none is left is turned away, an application as well.
    if free >= OF_A_WORKER && free * 10 >= room {
        return Finding::ok("connections", detail);
    }
    Finding::warn(
        "connections",
        format!("{detail}; whoever finds none is turned away, applications too"),
        "put applications behind a pooler, or raise max_connections and restart",
    )
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    /// PostgreSQL as it comes, on a machine without a compiler library.
    fn defaults() -> Speed {
        Speed {
            shared_buffers: SMALL_BUFFERS,
            max_wal_size: SMALL_WAL,
            checkpoint_timeout: 300,
            wal_compression: "off".to_owned(),
            jit: false,
            max_connections: 100,
            reserved_connections: 3,
            connections: 20,
            workers: 2,
            checkpoints_timed: 100,
            checkpoints_requested: 9,
        }
    }

    fn warned(speed: Speed) -> Vec<String> {
        let findings = examine(&speed).into_iter().filter(|finding| finding.status != Severity::Ok);
        findings
            .inspect(|finding| assert!(finding.cure.is_some(), "{finding:?}"))
            .map(|finding| finding.check)
            .collect()
    }

    #[test]
    fn a_server_as_it_comes_is_told_nothing() {
        assert_eq!(warned(defaults()), [""; 0]);
    }

    #[test]
    fn what_costs_speed_is_a_warning_with_its_cure() {
        let cases = [
            (Speed { shared_buffers: SMALL_BUFFERS - 1, ..defaults() }, "memory"),
            (Speed { max_wal_size: SMALL_WAL - 1, ..defaults() }, "checkpoints"),
            (Speed { checkpoint_timeout: 299, ..defaults() }, "checkpoints"),
            (Speed { checkpoints_timed: 9, checkpoints_requested: 10, ..defaults() }, "checkpoints"),
            (Speed { jit: true, ..defaults() }, "jit"),
            (Speed { connections: 93, ..defaults() }, "connections"),
            (Speed { max_connections: 1000, connections: 900, ..defaults() }, "connections"),
        ];
        for (speed, check) in cases {
            assert_eq!(warned(speed), [check]);
        }
    }

    #[test]
    fn a_few_early_checkpoints_are_no_habit() {
        assert_eq!(warned(Speed { checkpoints_timed: 0, checkpoints_requested: 9, ..defaults() }), [""; 0]);
    }
}
