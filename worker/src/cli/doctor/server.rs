//! What the server's own settings and sessions mean for the queue. Pure: facts in, findings out.

use super::Finding;
use crate::cli::terminal::age;
use crate::outbox::postgres::operator::server::{Facts, Versions};

/// Open for longer, a transaction is worth a word: claims and late commits wait behind it, dead rows pile up.
const LONG_TRANSACTION: f64 = 300.0;
/// Transactions behind which the horizon stands before autovacuum's own emergency is in sight.
const OLD_HORIZON: i64 = 50_000_000;

pub(super) fn versions(versions: &Versions) -> Finding {
    let installed = versions.installed.as_deref().unwrap_or("none");
    match versions.available.as_deref() {
        Some(available) if available == installed => Finding::ok("extension", format!("sms_outbox {installed}")),
        Some(available) => Finding::warn(
            "extension",
            format!("sms_outbox {installed} is installed, {available} is on the server's disk"),
            "run: sms-outbox install",
        ),
        None => Finding::critical(
            "extension",
            format!("sms_outbox {installed} is installed, but its files are gone from the server's disk"),
            "on the server run: make install PG_CONFIG=…, or install the package",
        ),
    }
}

pub(super) fn examine(facts: &Facts) -> Vec<Finding> {
    let mut findings = vec![preload(facts), durability(facts), transactions(facts)];
    if facts.in_recovery {
        findings.push(Finding::critical(
            "recovery",
            "this server is a standby: nothing can be enqueued or claimed",
            "point database_url at the primary; with several hosts in it add target_session_attrs=read-write",
        ));
    }
    if facts.default_isolation != "read committed" {
        findings.push(Finding::critical(
            "isolation",
            format!("default_transaction_isolation is {}: claim and finish refuse it", facts.default_isolation),
            "ALTER ROLE … SET default_transaction_isolation = 'read committed' for the workers' logins",
        ));
    }
    if facts.autovacuum != "on" {
        findings.push(Finding::critical(
            "autovacuum",
            "autovacuum is off: dead rows of the queue are never removed",
            "ALTER SYSTEM SET autovacuum = on; SELECT pg_reload_conf()",
        ));
    }
    if let Some(open) = facts.oldest_prepared {
        let gid = facts.oldest_prepared_gid.as_deref().unwrap_or("?");
        let detail = format!("prepared transaction {gid} is open for {}", age(open));
        findings.push(if open > LONG_TRANSACTION {
            Finding::warn(
                "prepared",
                detail,
                "finish it: COMMIT PREPARED or ROLLBACK PREPARED; it holds locks and dead rows",
            )
        } else {
            Finding::ok("prepared", detail)
        });
    }
    if !facts.idle_slots.is_empty() {
        findings.push(Finding::warn(
            "slots",
            format!("replication slots that nobody reads keep dead rows and WAL: {}", facts.idle_slots.join(", ")),
            "start their reader again, or SELECT pg_drop_replication_slot(…)",
        ));
    }
    findings
}

fn preload(facts: &Facts) -> Finding {
    match facts.preloaded {
        Some(true) => Finding::ok("preload", format!("sms_outbox is preloaded, wakeup = {}", facts.wakeup)),
        Some(false) => Finding::warn(
            "preload",
            "sms_outbox is not in shared_preload_libraries: no background worker, and no wake-ups with wakeup = coalesced",
            "add it to shared_preload_libraries and restart; or run sms-outbox maintain from a scheduler every few seconds, \
             and set sms_outbox.wakeup = trigger",
        ),
        None => Finding::ok("preload", "not visible to this login; background_worker tells whether it works"),
    }
}

fn durability(facts: &Facts) -> Finding {
    let off: Vec<&str> = [("fsync", &facts.fsync), ("full_page_writes", &facts.full_page_writes)]
        .into_iter()
        .filter(|(_, value)| *value == "off")
        .map(|(name, _)| name)
        .collect();
    if !off.is_empty() {
        return Finding::critical(
            "durability",
            format!(
                "off: {}; after a crash of the machine the database may be corrupt, and messages sent twice",
                off.join(", ")
            ),
            "ALTER SYSTEM SET … = on; SELECT pg_reload_conf()",
        );
    }
    let mut off = facts.asynchronous.clone();
    if facts.synchronous_commit == "off" {
        off.insert(0, "this login".to_owned());
    }
    if !off.is_empty() {
        return Finding::warn(
            "durability",
            format!(
                "synchronous_commit is off for {}: a crash of the server may lose what was committed in the {} before, messages \
                 included that applications took for queued. Claims and outcomes are durable all the same: nothing is sent twice",
                off.join(", "),
                age(facts.asynchronous_for)
            ),
            "set synchronous_commit = on for whoever enqueues messages that must not be lost",
        );
    }
    Finding::ok("durability", format!("fsync and full_page_writes on, synchronous_commit {}", facts.synchronous_commit))
}

fn transactions(facts: &Facts) -> Finding {
    let pid = facts.oldest_transaction_pid.unwrap_or_default();
    match facts.oldest_transaction {
        Some(open) if open > LONG_TRANSACTION => Finding::warn(
            "transactions",
            format!(
                "process {pid} has a transaction open for {}, the horizon is {} transactions old",
                age(open),
                facts.horizon_age
            ),
            format!(
                "see SELECT * FROM pg_stat_activity WHERE pid = {pid}; end it, or SELECT pg_terminate_backend({pid}); \
                 idle_in_transaction_session_timeout prevents the usual kind"
            ),
        ),
        _ if facts.horizon_age > OLD_HORIZON => Finding::warn(
            "transactions",
            format!("the horizon is {} transactions old", facts.horizon_age),
            "look for old transactions in pg_stat_activity, pg_prepared_xacts and pg_replication_slots",
        ),
        None if !facts.sees_sessions => {
            Finding::ok("transactions", "not visible to this login; horizon tells of long ones")
        }
        open => Finding::ok(
            "transactions",
            format!("oldest open for {}, horizon {} transactions old", age(open.unwrap_or(0.0)), facts.horizon_age),
        ),
    }
}

/// What to do about an unwell check of the view `health`, where its detail does not say it.
pub(super) fn cure(check: &str) -> Option<&'static str> {
    let cures = [
        ("old_pending", "sms-outbox status tells what the messages wait for"),
        ("stuck_sending", "run: sms-outbox maintain"),
        ("partitions_ahead", "run: sms-outbox maintain; if that fails, the server's log says why"),
        ("retention", "end long transactions and dumps that read old partitions, then run: sms-outbox maintain"),
        ("held", "when the old server sends no more: sms-outbox release-held --yes"),
        ("apps", "see the last error in sms_outbox.app_stats; new credentials: sms-outbox app update APP …"),
    ];
    cures.into_iter().find(|(name, _)| *name == check).map(|(_, cure)| cure)
}

#[cfg(test)]
mod tests {
    use super::super::Severity;
    use super::*;

    fn well() -> Facts {
        Facts {
            in_recovery: false,
            preloaded: Some(true),
            fsync: "on".to_owned(),
            full_page_writes: "on".to_owned(),
            synchronous_commit: "on".to_owned(),
            asynchronous: Vec::new(),
            asynchronous_for: 0.6,
            autovacuum: "on".to_owned(),
            wakeup: "coalesced".to_owned(),
            default_isolation: "read committed".to_owned(),
            sees_sessions: true,
            oldest_transaction: Some(2.0),
            oldest_transaction_pid: Some(7),
            horizon_age: 10,
            oldest_prepared: None,
            oldest_prepared_gid: None,
            idle_slots: Vec::new(),
        }
    }

    fn worst(facts: Facts) -> (String, Severity) {
        let mut findings = examine(&facts);
        findings.sort_by_key(|finding| finding.status);
        let last = findings.pop().expect("there are findings");
        assert_eq!(
            last.status == Severity::Ok,
            last.cure.is_none(),
            "every bad finding has a cure, and no other: {last:?}"
        );
        (last.check, last.status)
    }

    #[test]
    fn a_sound_server_has_no_finding() {
        assert_eq!(worst(well()).1, Severity::Ok);
    }

    #[test]
    fn what_risks_truth_is_critical_and_what_costs_speed_is_a_warning() {
        let off = || "off".to_owned();
        let cases = [
            (Facts { fsync: off(), ..well() }, "durability", Severity::Critical),
            (Facts { full_page_writes: off(), ..well() }, "durability", Severity::Critical),
            (Facts { synchronous_commit: off(), ..well() }, "durability", Severity::Warn),
            (Facts { asynchronous: vec!["role shop".to_owned()], ..well() }, "durability", Severity::Warn),
            (Facts { autovacuum: off(), ..well() }, "autovacuum", Severity::Critical),
            (Facts { in_recovery: true, ..well() }, "recovery", Severity::Critical),
            (Facts { default_isolation: "serializable".to_owned(), ..well() }, "isolation", Severity::Critical),
            (Facts { preloaded: Some(false), ..well() }, "preload", Severity::Warn),
            (Facts { oldest_transaction: Some(301.0), ..well() }, "transactions", Severity::Warn),
            (Facts { horizon_age: OLD_HORIZON + 1, ..well() }, "transactions", Severity::Warn),
            (Facts { oldest_prepared: Some(301.0), ..well() }, "prepared", Severity::Warn),
            (Facts { idle_slots: vec!["s".to_owned()], ..well() }, "slots", Severity::Warn),
        ];
        for (facts, check, status) in cases {
            assert_eq!(worst(facts), (check.to_owned(), status));
        }
    }
}
