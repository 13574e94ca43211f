-- What became known of attempts after they were over, what receipts say of what was sent, and what is still to be asked.
-- Apart from the ledger, and written for the few attempts that need it: the way of a message that goes well pays nothing.

CREATE TABLE sms_outbox.evidence (
    id sms_outbox.message_id NOT NULL,
    at timestamptz NOT NULL,
    was_finished_at timestamptz,
    attempt smallint NOT NULL,
    source text NOT NULL CHECK (source IN ('late answer', 'look-up', 'receipt', 'operator')),
    verdict sms_outbox.attempt_status NOT NULL,
    organization_id text NOT NULL,
    told_by text NOT NULL,
    was_error_code text,
    detail text
);
CREATE INDEX evidence_by_attempt ON sms_outbox.evidence (id, attempt);
COMMENT ON TABLE sms_outbox.evidence IS 'Who told what, and when, of an attempt that had ended as unclear. Insert only. A verdict of unclear: somebody asked, and learned nothing.';
COMMENT ON COLUMN sms_outbox.evidence.was_finished_at IS 'When the attempt had ended, before this corrected the ledger; was_error_code as what. NULL where it corrected nothing.';

CREATE TABLE sms_outbox.receipt (
    id sms_outbox.message_id NOT NULL,
    at timestamptz NOT NULL,
    recorded_at timestamptz NOT NULL,
    attempt smallint NOT NULL,
    delivery_status sms_outbox.delivery_status NOT NULL,
    organization_id text NOT NULL,
    code text,
    PRIMARY KEY (id, attempt)
) WITH (fillfactor = 80);
COMMENT ON TABLE sms_outbox.receipt IS 'The farthest that receipts of an attempt have told, in one row. It may be there before the attempt is over.';
COMMENT ON COLUMN sms_outbox.receipt.at IS 'When it happened, as the provider says. Shown, and nothing is decided by it.';
COMMENT ON COLUMN sms_outbox.receipt.code IS 'The provider''s own word or code.';

CREATE TABLE sms_outbox.look_up (
    id sms_outbox.message_id NOT NULL,
    since timestamptz NOT NULL,
    app_id bigint NOT NULL,
    attempt smallint NOT NULL,
    asked smallint NOT NULL DEFAULT 0,
    organization_id text NOT NULL,
    PRIMARY KEY (id, attempt)
);
CREATE INDEX look_up_due ON sms_outbox.look_up (asked, since);
COMMENT ON TABLE sms_outbox.look_up IS 'Unclear attempts that the provider can still be asked about: a row goes when it is known, or when it was asked often enough.';
COMMENT ON COLUMN sms_outbox.look_up.since IS 'When it was asked last; before, when the attempt ended.';

SELECT pg_catalog.pg_extension_config_dump('sms_outbox.evidence', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.receipt', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.look_up', '');
-- Of maintenance only what would be missed: days that are gone, with receipts that are not. See 72_retention.sql.
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.maintenance', 'WHERE task LIKE ''sweep %''');
