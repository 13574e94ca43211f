-- Where each message is. One rule: a row says where a message is; who deletes that row, and nobody else, inserts the next.
-- A message is in exactly one of ready, scheduled, lease, ended, or has an accepted attempt.
--
-- Carried from row to row: since (when the message was first due), server (which server queued it: rows of another one are
-- held), last_attempt (number of its last attempt), tries (attempts that count), refused_by (apps that refused it for good),
-- avoid (apps that failed in this round).
--
-- A session keeps its plans, those too that it made while a table was next to empty, where all indexes seem to cost the same; a table
-- that only dead rows fill, since somebody's snapshot keeps them, seems empty as well. A plan that looks up ids by an index that only ends
-- with the id reads the whole of it, later for a million rows. Hence: keys come after the other indexes, since of equals the planner
-- takes the newest; functions that look up several ids set the costs of descents and of index entries to 0, since to look up ten seems to
-- cost more than to read a whole index of three, and claim() those of pages too; and they compare a server by IS TRUE, which no index serves.

CREATE TABLE sms_outbox.ready (
    id sms_outbox.message_id,
    xid xid8 NOT NULL DEFAULT pg_catalog.pg_current_xact_id(),
    since timestamptz NOT NULL,
    valid_until timestamptz,
    server integer NOT NULL,
    priority smallint NOT NULL,
    last_attempt smallint NOT NULL DEFAULT 0,
    tries smallint NOT NULL DEFAULT 0,
    organization_id text NOT NULL,
    preferred_provider_slug text,
    refused_by bigint[],
    avoid bigint[]
);
CREATE INDEX ready_log ON sms_outbox.ready (server, priority, xid, id);
CREATE INDEX ready_by_organization ON sms_outbox.ready (organization_id, id);
CREATE INDEX ready_expiry ON sms_outbox.ready (valid_until) WHERE valid_until IS NOT NULL;
ALTER TABLE sms_outbox.ready ADD PRIMARY KEY (id);
COMMENT ON TABLE sms_outbox.ready IS 'Messages that wait and are due. Read by look() as a log in commit-safe order, claimed by key.';
COMMENT ON COLUMN sms_outbox.ready.xid IS 'Transaction that put the row here: makes late commits visible to readers of the log.';

CREATE TABLE sms_outbox.scheduled (
    id sms_outbox.message_id,
    due_at timestamptz NOT NULL,
    since timestamptz NOT NULL,
    valid_until timestamptz,
    server integer NOT NULL,
    priority smallint NOT NULL,
    last_attempt smallint NOT NULL DEFAULT 0,
    tries smallint NOT NULL DEFAULT 0,
    organization_id text NOT NULL,
    preferred_provider_slug text,
    refused_by bigint[],
    reason text NOT NULL CHECK (reason IN ('datetime', 'backoff'))
);
CREATE INDEX scheduled_due ON sms_outbox.scheduled (due_at);
CREATE INDEX scheduled_by_organization ON sms_outbox.scheduled (organization_id, id);
CREATE INDEX scheduled_expiry ON sms_outbox.scheduled (valid_until) WHERE valid_until IS NOT NULL;
ALTER TABLE sms_outbox.scheduled ADD PRIMARY KEY (id);
COMMENT ON TABLE sms_outbox.scheduled IS 'Messages that wait for their time: a datetime in the future, or the end of a backoff.';

CREATE TABLE sms_outbox.lease (
    id sms_outbox.message_id,
    app_id bigint NOT NULL,
    started_at timestamptz NOT NULL,
    expires_at timestamptz NOT NULL,
    since timestamptz NOT NULL,
    valid_until timestamptz,
    server integer NOT NULL,
    attempt smallint NOT NULL,
    priority smallint NOT NULL,
    tries smallint NOT NULL,
    organization_id text NOT NULL,
    worker text NOT NULL,
    preferred_provider_slug text,
    refused_by bigint[],
    avoid bigint[],
    released boolean NOT NULL DEFAULT false
);
CREATE INDEX lease_expiry ON sms_outbox.lease (expires_at);
ALTER TABLE sms_outbox.lease ADD PRIMARY KEY (id);
COMMENT ON COLUMN sms_outbox.lease.server IS 'The server that queued the message and whose claim this is: it serves no others.';
COMMENT ON COLUMN sms_outbox.lease.released IS 'An operator released held messages meanwhile: if this one goes back to the queue, it is the present server''s.';
COMMENT ON TABLE sms_outbox.lease IS 'The live attempts. The key allows one a message; (id, attempt, worker) is the token; deleting the row is the fence.';

CREATE TABLE sms_outbox.ended (
    id sms_outbox.message_id,
    ended_at timestamptz NOT NULL,
    status sms_outbox.dispatch_status NOT NULL CHECK (status IN ('failed', 'dispatch_timeout', 'canceled', 'expired')),
    last_attempt smallint NOT NULL,
    organization_id text NOT NULL,
    reason text NOT NULL
);
CREATE INDEX ended_by_status ON sms_outbox.ended (organization_id, status, id);
ALTER TABLE sms_outbox.ended ADD PRIMARY KEY (id);
COMMENT ON TABLE sms_outbox.ended IS 'Every end but an accepted attempt. A row goes by retry, by a late acceptance, or by retention.';

-- Dead rows come as fast as messages: clean by a fixed number, not by a share of an empty table.
ALTER TABLE sms_outbox.ready SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000000);
ALTER TABLE sms_outbox.lease SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000000);
ALTER TABLE sms_outbox.scheduled SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000000);

-- Counts. Insert-only, so that no counter is a hot row; maintenance folds them.
CREATE TABLE sms_outbox.tally (
    day date NOT NULL,
    minute timestamptz NOT NULL,
    status sms_outbox.dispatch_status NOT NULL,
    messages bigint NOT NULL,
    organization_id text NOT NULL
);
COMMENT ON TABLE sms_outbox.tally IS 'Ended messages by organization, status, day of the id (so that a dropped partition takes its counts along) and minute of the end. Corrections are negative.';

CREATE TABLE sms_outbox.app_tally (
    app_id bigint NOT NULL,
    minute timestamptz NOT NULL,
    status sms_outbox.attempt_status NOT NULL,
    latency_bucket smallint NOT NULL,
    attempts bigint NOT NULL
);
COMMENT ON TABLE sms_outbox.app_tally IS 'Attempts by app, outcome, minute and latency: bucket b holds answers of at most 2^(b/2) ms.';

SELECT pg_catalog.pg_extension_config_dump('sms_outbox.ready', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.scheduled', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.lease', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.ended', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.tally', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.app_tally', '');

CREATE TABLE sms_outbox.maintenance (
    task text PRIMARY KEY,
    ran_at timestamptz NOT NULL,
    "position" sms_outbox.message_id
);
COMMENT ON TABLE sms_outbox.maintenance IS 'When each of the rarer tasks of run_maintenance() last ran, and how far a long one got.';
