-- What was asked for, and the ledger of what was tried. Written once; partitioned by day of the id.
-- The parents have no key and the partitions (made at run time, see 45_partitions.sql) are no members of the extension:
-- only so do pg_dump and pg_restore keep their rows.

CREATE TABLE sms_outbox.message (
    id sms_outbox.message_id NOT NULL,
    created_at timestamptz NOT NULL,
    due_at timestamptz,
    valid_until timestamptz,
    priority smallint NOT NULL,
    segments smallint NOT NULL,
    encoding text NOT NULL,
    organization_id text NOT NULL,
    mobile text NOT NULL,
    body text NOT NULL,
    sender text,
    preferred_provider_slug text,
    idempotency_key text,
    meta jsonb NOT NULL
) PARTITION BY RANGE (id);
COMMENT ON TABLE sms_outbox.message IS 'The messages as they were enqueued. Never updated. Where a message is now, ready, scheduled, lease, ended and attempt say.';

CREATE TABLE sms_outbox.attempt (
    id sms_outbox.message_id NOT NULL,
    started_at timestamptz NOT NULL,
    finished_at timestamptz NOT NULL,
    app_id bigint NOT NULL,
    attempt smallint NOT NULL,
    http_status smallint,
    status sms_outbox.attempt_status NOT NULL,
    organization_id text NOT NULL,
    worker text NOT NULL,
    provider_message_id text,
    error_code text,
    error_message text,
    response json
) PARTITION BY RANGE (id);
COMMENT ON TABLE sms_outbox.attempt IS 'The ledger: one row for each attempt that is over. Only an unclear one is ever updated, when a late answer tells.';

CREATE TABLE sms_outbox.idempotency (
    organization_id text NOT NULL,
    key text NOT NULL,
    id sms_outbox.message_id NOT NULL,
    mismatches integer NOT NULL DEFAULT 0,
    PRIMARY KEY (organization_id, key)
);
COMMENT ON TABLE sms_outbox.idempotency IS 'Which message an idempotency key stands for. Apart from message, since uniqueness must hold across its partitions.';
COMMENT ON COLUMN sms_outbox.idempotency.mismatches IS 'How often the key came again with another payload, which was not sent.';

SELECT pg_catalog.pg_extension_config_dump('sms_outbox.message', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.attempt', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.idempotency', '');
