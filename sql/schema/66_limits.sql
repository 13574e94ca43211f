-- Limits against abuse: what an organization may enqueue, and whom nobody may write to. extension/src/limits.rs checks them in the
-- caller's transaction; the limits themselves are columns of sms_outbox.organization.

CREATE TABLE sms_outbox.suppression (
    organization_id text NOT NULL,
    mobile text NOT NULL,
    reason text,
    created_at timestamptz NOT NULL DEFAULT pg_catalog.clock_timestamp(),
    PRIMARY KEY (organization_id, mobile)
);
COMMENT ON TABLE sms_outbox.suppression IS 'Numbers that an organization must not write to. See suppress().';

-- No row is ever shared by two callers, so none waits for another. What a long tail would cost a reader, fold_usage() saves it.
CREATE TABLE sms_outbox.usage (
    at timestamptz NOT NULL,
    day date NOT NULL,
    messages integer NOT NULL,
    segments integer NOT NULL,
    organization_id text NOT NULL
);
CREATE INDEX usage_tail ON sms_outbox.usage (organization_id, at);
COMMENT ON TABLE sms_outbox.usage IS 'What was enqueued in the last seconds: a row for each call of an organization with a limit by minute or day. day is that of the organization''s time zone.';

CREATE TABLE sms_outbox.usage_day (
    organization_id text NOT NULL,
    day date NOT NULL,
    messages bigint NOT NULL,
    segments bigint NOT NULL,
    minute timestamptz NOT NULL,
    minute_messages bigint NOT NULL,
    folded_until timestamptz NOT NULL,
    PRIMARY KEY (organization_id, day)
) WITH (fillfactor = 50);
COMMENT ON TABLE sms_outbox.usage_day IS 'What was enqueued earlier, added up by fold_usage(): in the day, and in its latest minute.';
COMMENT ON COLUMN sms_outbox.usage_day.folded_until IS 'Rows of usage before this time are in here; readers add those from it on.';

CREATE TABLE sms_outbox.refusal (
    organization_id text NOT NULL,
    day date NOT NULL,
    code text NOT NULL,
    refused bigint NOT NULL,
    PRIMARY KEY (organization_id, day, code)
) WITH (fillfactor = 50);
COMMENT ON TABLE sms_outbox.refusal IS 'What limits refused, by day of the organization and code. A refused call rolls back: it is counted in shared memory, and the background worker writes it here.';

-- As ready: dead rows come as fast as messages.
ALTER TABLE sms_outbox.usage SET (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 5000, autovacuum_analyze_scale_factor = 0, autovacuum_analyze_threshold = 1000000000);

SELECT pg_catalog.pg_extension_config_dump('sms_outbox.suppression', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.usage', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.usage_day', '');
SELECT pg_catalog.pg_extension_config_dump('sms_outbox.refusal', '');

CREATE FUNCTION sms_outbox.fold_usage(max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    -- A call that commits within a second of its start is never missed between the tail and the sum; a later one is, until the next fold.
    until CONSTANT timestamptz := clock_timestamp() - interval '1 second';
    this_minute CONSTANT timestamptz := date_trunc('minute', clock_timestamp());
    folded bigint;
BEGIN
    WITH old AS (
        DELETE FROM sms_outbox.usage AS u
         WHERE u.ctid = ANY (ARRAY(SELECT f.ctid FROM sms_outbox.usage AS f WHERE f.at < until LIMIT max_rows FOR UPDATE SKIP LOCKED))
        RETURNING u.*
    ), total AS (
        SELECT count(*) AS calls FROM old
    ), added AS (
        INSERT INTO sms_outbox.usage_day AS d (organization_id, day, messages, segments, minute, minute_messages, folded_until)
        SELECT o.organization_id, o.day, sum(o.messages), sum(o.segments), this_minute,
               coalesce(sum(o.messages) FILTER (WHERE o.at >= this_minute), 0),
               -- Not yet where rows of before are left.
               CASE WHEN t.calls < max_rows THEN until ELSE '-infinity' END
          FROM old AS o CROSS JOIN total AS t GROUP BY o.organization_id, o.day, t.calls ORDER BY o.organization_id, o.day
        ON CONFLICT ON CONSTRAINT usage_day_pkey DO UPDATE
           SET messages = d.messages + EXCLUDED.messages, segments = d.segments + EXCLUDED.segments,
               minute = this_minute,
               minute_messages = EXCLUDED.minute_messages + CASE WHEN d.minute = this_minute THEN d.minute_messages ELSE 0 END,
               folded_until = greatest(d.folded_until, EXCLUDED.folded_until)
    )
    SELECT t.calls INTO folded FROM total AS t;
    RETURN folded;
END
$$;
COMMENT ON FUNCTION sms_outbox.fold_usage(integer) IS 'Adds calls of more than a second ago to the sums of their day and minute; returns how many calls. Internal: run_maintenance() calls it.';

CREATE FUNCTION sms_outbox.is_suppressed(id sms_outbox.message_id) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
    SELECT EXISTS (SELECT FROM sms_outbox.message AS m JOIN sms_outbox.suppression AS s ON s.organization_id = m.organization_id AND s.mobile = m.mobile
                    WHERE m.id = is_suppressed.id)
$$;
COMMENT ON FUNCTION sms_outbox.is_suppressed(sms_outbox.message_id) IS 'Whether the message''s number is on the suppression list of its organization. Internal: retry() and conclude() ask it.';

CREATE FUNCTION sms_outbox.recipient_of(organization_id text, mobile text) RETURNS text
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    region text;
BEGIN
    PERFORM sms_outbox.require_organization(organization_id);
    SELECT coalesce(o.default_region, sms_outbox.setting('default_region')) INTO region
      FROM sms_outbox.organization AS o WHERE o.organization_id = recipient_of.organization_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'organization_id: there is no such organization' USING ERRCODE = 'P0002', COLUMN = 'organization_id', CONSTRAINT = 'not_found',
            HINT = 'The view sms_outbox.organizations lists them; install_app() and set_organization() make one.';
    END IF;
    IF coalesce(mobile, '') = '' THEN
        RAISE EXCEPTION 'mobile: it is missing' USING ERRCODE = '22023', COLUMN = 'mobile', HINT = 'Give a number in any usual writing.';
    END IF;
    RETURN sms_outbox.normalize_mobile(mobile, region);
END
$$;
COMMENT ON FUNCTION sms_outbox.recipient_of(text, text) IS 'A number as the messages of an organization hold it. Internal: suppress() and unsuppress() call it.';

CREATE FUNCTION sms_outbox.suppress(organization_id text, mobile text, reason text DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    number CONSTANT text := sms_outbox.recipient_of(organization_id, mobile);
BEGIN
    PERFORM sms_outbox.require_read_committed();
    INSERT INTO sms_outbox.suppression AS s (organization_id, mobile, reason) VALUES (suppress.organization_id, number, suppress.reason)
    ON CONFLICT ON CONSTRAINT suppression_pkey DO UPDATE SET reason = coalesce(EXCLUDED.reason, s.reason);
    UPDATE sms_outbox.organization AS o SET suppresses = true WHERE o.organization_id = suppress.organization_id AND NOT o.suppresses;
    RETURN sms_outbox.cancel_waiting(ARRAY(
        SELECT m.id FROM sms_outbox.message AS m
         WHERE m.organization_id = suppress.organization_id AND m.mobile = number
           AND (EXISTS (SELECT FROM sms_outbox.ready AS r WHERE r.id = m.id) OR EXISTS (SELECT FROM sms_outbox.scheduled AS s WHERE s.id = m.id))));
END
$$;
COMMENT ON FUNCTION sms_outbox.suppress(text, text, text) IS 'Puts a number (in any usual writing) on the organization''s suppression list: messages that wait for it are canceled, how many is returned; enqueue and retry refuse it (42501, recipient_suppressed) until unsuppress(), but for an operator who sets sms_outbox.override_limits. An attempt that is in flight cannot be taken back; if it fails, none follows. Again for the same number it changes the reason, where one is given.';

CREATE FUNCTION sms_outbox.unsuppress(organization_id text, mobile text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    number CONSTANT text := sms_outbox.recipient_of(organization_id, mobile);
BEGIN
    DELETE FROM sms_outbox.suppression AS s WHERE s.organization_id = unsuppress.organization_id AND s.mobile = number;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION sms_outbox.unsuppress(text, text) IS 'Takes a number off the organization''s suppression list; says whether it was on it. Messages that were canceled stay so: retry() sends them.';

CREATE VIEW sms_outbox.suppressed AS
SELECT s.organization_id, s.mobile, s.reason, s.created_at FROM sms_outbox.suppression AS s;
COMMENT ON VIEW sms_outbox.suppressed IS 'The suppression lists: numbers that suppress() put there, why and when.';

CREATE VIEW sms_outbox.limits AS
SELECT o.organization_id,
       o.messages_per_minute, CASE WHEN c.counted THEN coalesce(t.minute_messages, 0) + coalesce(d.minute_messages, 0) END AS messages_this_minute,
       o.messages_per_day, CASE WHEN c.counted THEN coalesce(t.messages, 0) + coalesce(d.messages, 0) END AS messages_today,
       o.segments_per_day, CASE WHEN c.counted THEN coalesce(t.segments, 0) + coalesce(d.segments, 0) END AS segments_today,
       o.messages_per_recipient_hour,
       o.allowed_destinations, o.blocked_destinations, o.allowed_senders,
       (SELECT pg_catalog.count(*) FROM sms_outbox.suppression AS s WHERE s.organization_id = o.organization_id) AS suppressed_numbers
  FROM sms_outbox.organization AS o
  CROSS JOIN LATERAL (
       SELECT (pg_catalog.now() AT TIME ZONE o.time_zone)::date AS day, pg_catalog.date_trunc('minute', pg_catalog.now()) AS minute,
              coalesce(o.messages_per_minute, o.messages_per_day, o.segments_per_day) IS NOT NULL AS counted) AS c
  LEFT JOIN LATERAL (
       SELECT u.messages, u.segments, CASE WHEN u.minute = c.minute THEN u.minute_messages END AS minute_messages
         FROM sms_outbox.usage_day AS u WHERE u.organization_id = o.organization_id AND u.day = c.day) AS d ON true
  CROSS JOIN LATERAL (
       SELECT pg_catalog.sum(u.messages)::bigint AS messages, pg_catalog.sum(u.segments)::bigint AS segments,
              pg_catalog.sum(u.messages) FILTER (WHERE u.at >= c.minute)::bigint AS minute_messages
         FROM sms_outbox.usage AS u
        WHERE u.organization_id = o.organization_id AND u.day = c.day
          AND u.at >= (SELECT coalesce(pg_catalog.max(f.folded_until), '-infinity') FROM sms_outbox.usage_day AS f WHERE f.organization_id = o.organization_id)) AS t;
COMMENT ON VIEW sms_outbox.limits IS 'What each organization may enqueue (NULL: no limit), and what it has: in this calendar minute, and today in its time zone. NULL: not counted, since no limit by minute or day is set. Set by set_organization(); an operator''s sms_outbox.override_limits passes them.';

CREATE VIEW sms_outbox.refusals AS
SELECT o.organization_id, c.code,
       CASE WHEN sms_outbox.counts_refusals() THEN coalesce(pg_catalog.sum(r.refused) FILTER (WHERE r.day = c.today), 0)::bigint END AS refused_today,
       CASE WHEN sms_outbox.counts_refusals() THEN coalesce(pg_catalog.sum(r.refused), 0)::bigint END AS refused_in_30_days
  FROM sms_outbox.organization AS o
  CROSS JOIN LATERAL (
       SELECT k.code, (pg_catalog.now() AT TIME ZONE o.time_zone)::date AS today
         FROM pg_catalog.unnest(ARRAY['messages_per_minute', 'messages_per_day', 'recipient_per_hour', 'segments_per_day',
                                      'recipient_suppressed', 'destination_not_allowed', 'sender_not_allowed']) AS k (code)) AS c
  LEFT JOIN sms_outbox.refusal AS r ON r.organization_id = o.organization_id AND r.code = c.code
 GROUP BY o.organization_id, c.code;
COMMENT ON VIEW sms_outbox.refusals IS 'How many calls each limit refused, today in the organization''s time zone and in 30 days; about a second late. NULL: not counted, since sms_outbox is not in shared_preload_libraries.';
