//! What `sms_outbox.metrics()` tells: `sql/schema/86_metrics.sql`.

use super::{Kind, Metric, Source, metrics};

metrics! { DATABASE of Database:
    QUEUE_MESSAGES = Gauge, "sms_outbox_queue_messages", ["status", "priority"], "Messages that have not ended: pending (due and waiting), scheduled (not due yet: a datetime or a backoff), sending, held (queued by another server).";
    QUEUE_OLDEST = Gauge, "sms_outbox_queue_oldest_seconds", ["status", "priority"], "Age of the oldest of them: since it was due, or since its attempt began where it is being sent; 0 where there is none.";
    ENDED_MESSAGES = Gauge, "sms_outbox_ended_messages", ["status"], "Messages kept that have ended. No counter: retention deletes them, and a retry takes one back.";
    ENDED_LAST_HOUR = Gauge, "sms_outbox_ended_last_hour_messages", ["status"], "Messages that ended in the last hour, less those taken back.";
    APP_ATTEMPTS = Counter, "sms_outbox_app_attempts_total", ["organization_app_id", "provider", "outcome"], "Attempts that ended since the installation, also those whose worker never reported.";
    APP_IN_FLIGHT = Gauge, "sms_outbox_app_in_flight", ["organization_app_id", "provider"], "Attempts in flight over all workers.";
    APP_BREAKERS_OPEN = Gauge, "sms_outbox_app_breakers_open", ["organization_app_id", "provider", "reason"], "1 while the app's breaker is open or lets one message through as a probe, else 0; a number of apps where several share the label other.";
    APP_PAUSED = Gauge, "sms_outbox_app_paused", ["organization_app_id", "provider"], "1 while the app or its organization is paused, else 0; a number of apps likewise.";
    WORKERS_ALIVE = Gauge, "sms_outbox_workers_alive", [], "Workers that reported in the last 10 s.";
    MAINTENANCE_RAN = Gauge, "sms_outbox_maintenance_last_run_timestamp_seconds", ["task"], "When each of the tasks that run once a minute last ran, as Unix time of the database.";
    MAINTENANCE_AGE = Gauge, "sms_outbox_maintenance_age_seconds", [], "How long ago maintenance last ran, by the clock of the database; its rarer tasks run once a minute.";
    LEASES_OVERDUE = Gauge, "sms_outbox_leases_overdue", [], "Attempts whose lease is over for more than 30 s: maintenance ought to have ended them.";
    PARTITIONS_AHEAD = Gauge, "sms_outbox_partitions_ahead", [], "Daily partitions made for the days after today; missing before the first app is installed.";
    RETENTION_LAG = Gauge, "sms_outbox_retention_lag_seconds", [], "How far the oldest partition is past the time at which retention ought to have dropped it.";
    HORIZON_AGE = Gauge, "sms_outbox_horizon_age_seconds", ["holder"], "Age of the oldest transaction that keeps dead rows from being cleaned: a session's, or a prepared one.";
    HORIZON_TRANSACTIONS = Gauge, "sms_outbox_horizon_transactions", [], "Transactions since the oldest one that anything still needs to see, replication slots and standbys included.";
    PREPARED_TRANSACTIONS = Gauge, "sms_outbox_prepared_transactions", [], "Prepared transactions of the server.";
}
