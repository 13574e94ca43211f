-- Operators: taking messages back, and giving them another life.

CREATE FUNCTION sms_outbox.cancel_waiting(wanted sms_outbox.message_id[]) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    canceled bigint := 0;
    moved bigint;
BEGIN
    -- Two statements, again while either finds some: one alone misses a row that is being moved to the other at this moment.
    LOOP
        WITH taken AS (
            DELETE FROM sms_outbox.scheduled AS s
             WHERE s.id = ANY (ARRAY(SELECT f.id FROM sms_outbox.scheduled AS f WHERE f.id = ANY (wanted) ORDER BY f.id FOR UPDATE))
            RETURNING s.id, s.last_attempt, s.organization_id
        ), ended AS (
            INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
            SELECT t.id, clock_timestamp(), 'canceled', t.last_attempt, t.organization_id, 'canceled' FROM taken AS t RETURNING id, organization_id
        )
        INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
        SELECT sms_outbox.day_of(e.id), date_trunc('minute', now()), 'canceled', 1, e.organization_id FROM ended AS e;
        GET DIAGNOSTICS moved = ROW_COUNT;
        canceled := canceled + moved;
        WITH taken AS (
            DELETE FROM sms_outbox.ready AS r
             WHERE r.id = ANY (ARRAY(SELECT f.id FROM sms_outbox.ready AS f WHERE f.id = ANY (wanted) ORDER BY f.id FOR UPDATE))
            RETURNING r.id, r.last_attempt, r.organization_id
        ), ended AS (
            INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
            SELECT t.id, clock_timestamp(), 'canceled', t.last_attempt, t.organization_id, 'canceled' FROM taken AS t RETURNING id, organization_id
        )
        INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
        SELECT sms_outbox.day_of(e.id), date_trunc('minute', now()), 'canceled', 1, e.organization_id FROM ended AS e;
        GET DIAGNOSTICS moved = ROW_COUNT;
        canceled := canceled + moved;
        EXIT WHEN NOT EXISTS (SELECT FROM sms_outbox.scheduled AS s WHERE s.id = ANY (wanted))
              AND NOT EXISTS (SELECT FROM sms_outbox.ready AS r WHERE r.id = ANY (wanted));
    END LOOP;
    RETURN canceled;
END
$$;
COMMENT ON FUNCTION sms_outbox.cancel_waiting(sms_outbox.message_id[]) IS 'Ends those of the messages that wait as canceled; returns how many. Internal: both forms of cancel() call it.';

CREATE FUNCTION sms_outbox.only_visible(id sms_outbox.message_id) RETURNS sms_outbox.message_id[]
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    visible CONSTANT text := sms_outbox.visible_organization();
BEGIN
    IF id IS NULL THEN
        RAISE EXCEPTION 'id: it is no id of a message' USING ERRCODE = '22023', COLUMN = 'id', HINT = 'An id is r and 26 digits and letters, as sms_outbox_enqueue() returned it.';
    END IF;
    -- Another organization's message is no message at all.
    IF NOT EXISTS (SELECT FROM sms_outbox.message AS m WHERE m.id = only_visible.id AND visible IN (m.organization_id, '*')) THEN
        RAISE EXCEPTION 'id: there is no message %', id USING ERRCODE = 'P0002', COLUMN = 'id', CONSTRAINT = 'not_found';
    END IF;
    RETURN ARRAY[id];
END
$$;
COMMENT ON FUNCTION sms_outbox.only_visible(sms_outbox.message_id) IS 'The message, for a caller that may see it; refuses with P0002 otherwise. Internal: cancel() and retry() call it.';

CREATE FUNCTION sms_outbox.cancel(id sms_outbox.message_id) RETURNS sms_outbox.dispatch_status
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    now_is sms_outbox.dispatch_status;
BEGIN
    PERFORM sms_outbox.require_read_committed();
    IF sms_outbox.cancel_waiting(sms_outbox.only_visible(id)) = 0 THEN
        now_is := sms_outbox.status_of(id);
        RAISE EXCEPTION 'the message is %; only a pending one can be canceled', now_is USING ERRCODE = '55000', COLUMN = 'id', CONSTRAINT = 'wrong_state', DETAIL = 'dispatch_status: ' || now_is;
    END IF;
    RETURN 'canceled';
END
$$;
COMMENT ON FUNCTION sms_outbox.cancel(sms_outbox.message_id) IS 'Takes back a message that waits: no request is made for it any more. Refuses with 55000 and its present state when it is beyond that, with P0002 when there is none.';

CREATE FUNCTION sms_outbox.requeue_ended(wanted sms_outbox.message_id[]) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    moved bigint;
BEGIN
    WITH taken AS (
        DELETE FROM sms_outbox.ended AS e
         WHERE e.id = ANY (ARRAY(SELECT f.id FROM sms_outbox.ended AS f WHERE f.id = ANY (wanted) ORDER BY f.id FOR UPDATE))
        RETURNING e.id, e.status, e.last_attempt, e.organization_id
    ), counted AS (
        INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
        SELECT sms_outbox.day_of(t.id), date_trunc('minute', now()), t.status, -1, t.organization_id FROM taken AS t
    ), again AS MATERIALIZED (
        SELECT t.id, t.last_attempt, t.organization_id, m.priority, m.preferred_provider_slug,
               CASE WHEN m.valid_until > now() THEN m.valid_until END AS valid_until,
               -- One that was taken back before its time keeps its time.
               CASE WHEN m.due_at > now() THEN m.due_at END AS due_at
          FROM taken AS t JOIN sms_outbox.message AS m ON m.id = t.id AND m.id = ANY (wanted)
    ), later AS (
        INSERT INTO sms_outbox.scheduled (id, due_at, since, valid_until, server, priority, last_attempt, organization_id, preferred_provider_slug, reason)
        SELECT a.id, a.due_at, a.due_at, a.valid_until, sms_outbox.server_id(), a.priority, a.last_attempt, a.organization_id, a.preferred_provider_slug, 'datetime'
          FROM again AS a WHERE a.due_at IS NOT NULL
    ), due AS (
        INSERT INTO sms_outbox.ready (id, since, valid_until, server, priority, last_attempt, organization_id, preferred_provider_slug)
        SELECT a.id, now(), a.valid_until, sms_outbox.server_id(), a.priority, a.last_attempt, a.organization_id, a.preferred_provider_slug
          FROM again AS a WHERE a.due_at IS NULL
    )
    SELECT count(*) INTO moved FROM again;
    IF moved > 0 THEN
        PERFORM sms_outbox.wake();
    END IF;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION sms_outbox.requeue_ended(sms_outbox.message_id[]) IS 'Puts ended messages back into the queue with fresh attempts; returns how many. Internal: both forms of retry() call it.';

CREATE FUNCTION sms_outbox.retry(id sms_outbox.message_id) RETURNS sms_outbox.dispatch_status
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    wanted CONSTANT sms_outbox.message_id[] := sms_outbox.only_visible(id);
    now_is sms_outbox.dispatch_status;
BEGIN
    PERFORM sms_outbox.require_read_committed();
    IF sms_outbox.is_suppressed(id) AND NOT sms_outbox.overrides_limits() THEN
        RAISE EXCEPTION 'mobile: this number is on the organization''s suppression list' USING ERRCODE = '42501', COLUMN = 'mobile', CONSTRAINT = 'recipient_suppressed',
            HINT = 'sms_outbox.unsuppress() takes it off; an operator may SET LOCAL sms_outbox.override_limits = on.';
    END IF;
    IF sms_outbox.requeue_ended(wanted) = 0 THEN
        now_is := sms_outbox.status_of(id);
        RAISE EXCEPTION 'the message is %; only failed, dispatch_timeout, canceled and expired ones can be retried', now_is
            USING ERRCODE = '55000', COLUMN = 'id', CONSTRAINT = 'wrong_state', DETAIL = 'dispatch_status: ' || now_is;
    END IF;
    RETURN 'pending';
END
$$;
COMMENT ON FUNCTION sms_outbox.retry(sms_outbox.message_id) IS 'Sends an ended message again: from failed, dispatch_timeout, canceled or expired, with its full number of attempts; an end of validity that has passed is dropped. A dispatch_timeout may have been sent already: retrying it risks a second SMS. Refuses with 55000 and the present state otherwise, with P0002 when there is none, with 42501 (recipient_suppressed) a number on the suppression list.';

-- A filter as one JSON object: the same keys for both, checked in one place.
CREATE FUNCTION sms_outbox.check_filter(filter jsonb, max_rows integer) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known CONSTANT text[] := ARRAY['organization_id', 'dispatch_status', 'mobile', 'preferred_provider_slug', 'error_code', 'priority', 'created_after', 'created_before'];
    unknown text;
    key text;
    value jsonb;
BEGIN
    IF filter IS NULL OR jsonb_typeof(filter) <> 'object' OR filter = '{}' THEN
        RAISE EXCEPTION 'filter: a JSON object with at least one key is needed' USING ERRCODE = '22023', COLUMN = 'filter',
            HINT = 'Keys: ' || array_to_string(known, ', ') || '.';
    END IF;
    SELECT k INTO unknown FROM jsonb_object_keys(filter) AS k WHERE k <> ALL (known) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'filter: there is no key "%"', unknown USING ERRCODE = '22023', COLUMN = 'filter',
            HINT = 'Keys: ' || array_to_string(known, ', ') || '.';
    END IF;
    -- Here rather than in the query, which says nothing where no row is looked at.
    FOR key, value IN SELECT f.key, f.value FROM jsonb_each(filter) AS f LOOP
        IF key = 'priority' THEN
            IF value NOT IN ('0', '1', '2') THEN
                RAISE EXCEPTION 'filter: priority: it must be 0, 1 or 2' USING ERRCODE = '22023', COLUMN = 'filter';
            END IF;
        ELSIF jsonb_typeof(value) <> 'string' THEN
            RAISE EXCEPTION 'filter: %: it must be a string', key USING ERRCODE = '22023', COLUMN = 'filter',
                HINT = 'For no such condition, leave the key out.';
        ELSIF key IN ('created_after', 'created_before') THEN
            BEGIN
                PERFORM (value #>> '{}')::timestamptz;
            EXCEPTION WHEN data_exception THEN
                RAISE EXCEPTION 'filter: %: it is no date and time', key USING ERRCODE = '22023', COLUMN = 'filter',
                    HINT = 'For example 2026-12-31T18:00:00+03:00.';
            END;
        END IF;
    END LOOP;
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'max_rows: it must be between 1 and 10000' USING ERRCODE = '22023', COLUMN = 'max_rows';
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.check_filter(jsonb, integer) IS 'Refuses (22023) a filter of cancel() or retry() with an unknown key, a wrong value, or no key at all.';

CREATE FUNCTION sms_outbox.within_scope(filter jsonb, max_rows integer) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    visible CONSTANT text := sms_outbox.visible_organization();
BEGIN
    PERFORM sms_outbox.check_filter(filter, max_rows);
    IF visible = '*' THEN
        RETURN filter;
    END IF;
    PERFORM sms_outbox.require_organization(coalesce(filter ->> 'organization_id', visible));
    RETURN filter || jsonb_build_object('organization_id', visible);
END
$$;
COMMENT ON FUNCTION sms_outbox.within_scope(jsonb, integer) IS 'The filter, checked, and narrowed to the organization that the caller acts for. Internal: cancel() and retry() call it.';

CREATE FUNCTION sms_outbox.matches(filter jsonb, message sms_outbox.message) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (filter -> 'organization_id' IS NULL OR message.organization_id = filter ->> 'organization_id')
       AND (filter -> 'mobile' IS NULL OR ltrim(message.mobile, '+') = ltrim(filter ->> 'mobile', '+'))
       AND (filter -> 'preferred_provider_slug' IS NULL OR message.preferred_provider_slug IS NOT DISTINCT FROM nullif(filter ->> 'preferred_provider_slug', ''))
       AND (filter -> 'priority' IS NULL OR message.priority = (filter ->> 'priority')::smallint)
       AND (filter -> 'created_after' IS NULL OR message.created_at >= (filter ->> 'created_after')::timestamptz)
       AND (filter -> 'created_before' IS NULL OR message.created_at < (filter ->> 'created_before')::timestamptz);
COMMENT ON FUNCTION sms_outbox.matches(jsonb, sms_outbox.message) IS 'Whether a message matches the keys of a filter that the message itself answers.';

CREATE FUNCTION sms_outbox.cancel(filter jsonb, dry_run boolean DEFAULT true, max_rows integer DEFAULT 1000)
    RETURNS TABLE (matched bigint, moved bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan -- for the keys of this very filter
AS $$
DECLARE
    found_ids sms_outbox.message_id[];
BEGIN
    PERFORM sms_outbox.require_read_committed();
    filter := sms_outbox.within_scope(filter, max_rows);
    IF coalesce(filter ->> 'dispatch_status', 'pending') <> 'pending' OR filter ? 'error_code' THEN
        RAISE EXCEPTION 'filter: only pending messages can be canceled' USING ERRCODE = '22023', COLUMN = 'filter',
            HINT = 'Leave dispatch_status and error_code out.';
    END IF;
    SELECT count(*), array_agg(f.id) INTO matched, found_ids
      FROM (SELECT w.id
              FROM (SELECT r.id, r.organization_id FROM sms_outbox.ready AS r
                    UNION ALL SELECT s.id, s.organization_id FROM sms_outbox.scheduled AS s) AS w
              JOIN sms_outbox.message AS m ON m.id = w.id
             WHERE (filter -> 'organization_id' IS NULL OR w.organization_id = filter ->> 'organization_id')
               AND sms_outbox.matches(filter, m)
             -- All are counted in a dry run only: a million, moved by thousands, would be counted a thousand times.
             LIMIT CASE WHEN dry_run IS FALSE THEN max_rows END) AS f;
    moved := CASE WHEN dry_run IS FALSE THEN sms_outbox.cancel_waiting(found_ids) ELSE 0 END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION sms_outbox.cancel(jsonb, boolean, integer) IS 'Cancels waiting messages by filter: organization_id, mobile, preferred_provider_slug, priority, created_after, created_before. A dry run, unless told otherwise, only counts. Otherwise moves the first max_rows that it finds: commit, and call again while moved is not 0.';

CREATE FUNCTION sms_outbox.retry(filter jsonb, dry_run boolean DEFAULT true, max_rows integer DEFAULT 1000)
    RETURNS TABLE (matched bigint, moved bigint, suppressed bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan -- for the keys of this very filter
AS $$
DECLARE
    overrides CONSTANT boolean := sms_outbox.overrides_limits();
    found_ids sms_outbox.message_id[];
BEGIN
    PERFORM sms_outbox.require_read_committed();
    filter := sms_outbox.within_scope(filter, max_rows);
    IF filter ->> 'dispatch_status' IS NULL OR filter ->> 'dispatch_status' NOT IN ('failed', 'dispatch_timeout', 'canceled', 'expired') THEN
        RAISE EXCEPTION 'filter: dispatch_status must say which ended messages are meant' USING ERRCODE = '22023', COLUMN = 'filter',
            HINT = 'One of failed, dispatch_timeout, canceled, expired. A dispatch_timeout may have been sent already.';
    END IF;
    -- By the suppressed numbers, which are few beside the messages.
    SELECT count(*) INTO suppressed
      FROM sms_outbox.suppression AS s
      JOIN sms_outbox.message AS m ON m.organization_id = s.organization_id AND m.mobile = s.mobile
      JOIN sms_outbox.ended AS e ON e.id = m.id
     WHERE NOT overrides
       AND e.status = (filter ->> 'dispatch_status')::sms_outbox.dispatch_status
       AND (filter -> 'organization_id' IS NULL OR s.organization_id = filter ->> 'organization_id')
       AND sms_outbox.matches(filter, m)
       AND (filter -> 'error_code' IS NULL OR filter ->> 'error_code' = (
                SELECT a.error_code FROM sms_outbox.attempt AS a WHERE a.id = e.id AND a.attempt = e.last_attempt));
    SELECT count(*), array_agg(f.id) INTO matched, found_ids
      FROM (SELECT e.id
              FROM sms_outbox.ended AS e JOIN sms_outbox.message AS m ON m.id = e.id
             WHERE e.status = (filter ->> 'dispatch_status')::sms_outbox.dispatch_status
               AND (filter -> 'organization_id' IS NULL OR e.organization_id = filter ->> 'organization_id')
               AND sms_outbox.matches(filter, m)
               AND (overrides OR NOT EXISTS (
                        SELECT FROM sms_outbox.suppression AS s WHERE s.organization_id = m.organization_id AND s.mobile = m.mobile))
               AND (filter -> 'error_code' IS NULL OR filter ->> 'error_code' = (
                        SELECT a.error_code FROM sms_outbox.attempt AS a WHERE a.id = e.id AND a.attempt = e.last_attempt))
             LIMIT CASE WHEN dry_run IS FALSE THEN max_rows END) AS f;
    moved := CASE WHEN dry_run IS FALSE THEN sms_outbox.requeue_ended(found_ids) ELSE 0 END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION sms_outbox.retry(jsonb, boolean, integer) IS 'Retries ended messages by filter: dispatch_status (needed), organization_id, mobile, preferred_provider_slug, error_code, priority, created_after, created_before. A dry run, unless told otherwise, only counts. Otherwise moves the first max_rows that it finds: commit, and call again while moved is not 0. Messages to numbers on the suppression list are passed over, and not in matched: suppressed counts them.';

CREATE FUNCTION sms_outbox.release_held() RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    this_server CONSTANT integer := sms_outbox.server_id();
    due bigint;
    later bigint;
BEGIN
    PERFORM sms_outbox.require_organization(NULL);
    PERFORM sms_outbox.require_read_committed();
    -- In the order in which rows move, so that one which moves meanwhile is found where it went. An attempt that a worker
    -- carried over a promotion gives its message back as released.
    UPDATE sms_outbox.lease AS l SET server = this_server WHERE l.server <> this_server;
    UPDATE sms_outbox.scheduled AS s SET server = this_server WHERE s.server <> this_server;
    GET DIAGNOSTICS later = ROW_COUNT;
    UPDATE sms_outbox.ready AS r SET server = this_server, xid = pg_current_xact_id() WHERE r.server <> this_server;
    GET DIAGNOSTICS due = ROW_COUNT;
    PERFORM sms_outbox.wake();
    RETURN due + later;
END
$$;
COMMENT ON FUNCTION sms_outbox.release_held() IS 'Lets messages go that another server queued: after a restore, a clone or a promotion, once an operator knows that the other server sends nothing any more. Returns how many. Until then they wait, and health says so.';
