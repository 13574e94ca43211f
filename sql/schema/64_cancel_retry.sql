-- Operators: taking messages back, and giving them another life.

CREATE FUNCTION sms_outbox.cancel_waiting(wanted sms_outbox.message_id[]) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET cpu_operator_cost = 0 SET cpu_index_tuple_cost = 0 SET random_page_cost = 0 SET seq_page_cost = 0
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
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
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
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
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
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET cpu_operator_cost = 0 SET cpu_index_tuple_cost = 0 SET random_page_cost = 0 SET seq_page_cost = 0
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
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    wanted CONSTANT sms_outbox.message_id[] := sms_outbox.only_visible(id);
    now_is sms_outbox.dispatch_status;
    attempted sms_outbox.certainty;
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
    -- A warning, so that it also stands in the server's log.
    SELECT max(sms_outbox.certainty(a.status, a.error_code)) INTO attempted FROM sms_outbox.attempt AS a WHERE a.id = retry.id;
    IF attempted > 'not_sent' THEN
        RAISE WARNING 'message % may have been sent already (certainty: %): its recipient may get it twice', id, attempted;
    END IF;
    RETURN 'pending';
END
$$;
COMMENT ON FUNCTION sms_outbox.retry(sms_outbox.message_id) IS 'Sends an ended message again: from failed, dispatch_timeout, canceled or expired, with its full number of attempts; an end of validity that has passed is dropped. A dispatch_timeout may have been sent already: retrying it risks a second SMS, and warns of it; without that WARNING every attempt is known not to have sent. Refuses with 55000 and the present state otherwise, with P0002 when there is none, with 42501 (recipient_suppressed) a number on the suppression list.';

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
    IF coalesce(filter ->> 'dispatch_status', 'pending') <> 'pending' OR filter ?| ARRAY['organization_app_id', 'error_code', 'certainty'] THEN
        RAISE EXCEPTION 'filter: only pending messages can be canceled' USING ERRCODE = '22023', COLUMN = 'filter',
            HINT = 'Leave dispatch_status, organization_app_id, error_code and certainty out.';
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
    RETURNS TABLE (matched bigint, moved bigint, suppressed bigint, risky bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan -- for the keys of this very filter
AS $$
DECLARE
    overrides CONSTANT boolean := sms_outbox.overrides_limits();
    found_ids sms_outbox.message_id[];
BEGIN
    PERFORM sms_outbox.require_read_committed();
    filter := sms_outbox.within_ended(filter, max_rows);
    -- By the suppressed numbers, which are few beside the messages.
    SELECT count(*) INTO suppressed
      FROM sms_outbox.suppression AS s
      JOIN sms_outbox.ended_matching(filter) AS f ON f.organization_id = s.organization_id AND f.mobile = s.mobile
     WHERE NOT overrides;
    SELECT count(*), count(*) FILTER (WHERE f.certainty > 'not_sent'), array_agg(f.id) INTO matched, risky, found_ids
      FROM (SELECT m.id, m.certainty
              FROM sms_outbox.ended_matching(filter) AS m
             WHERE overrides OR NOT EXISTS (
                       SELECT FROM sms_outbox.suppression AS s WHERE s.organization_id = m.organization_id AND s.mobile = m.mobile)
             LIMIT CASE WHEN dry_run IS FALSE THEN max_rows END) AS f;
    moved := CASE WHEN dry_run IS FALSE THEN sms_outbox.requeue_ended(found_ids) ELSE 0 END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION sms_outbox.retry(jsonb, boolean, integer) IS 'Retries ended messages by filter: dispatch_status (needed), organization_id, mobile, preferred_provider_slug, priority, created_after, created_before; and by the attempt that most likely sent the message, its organization_app_id, error_code and certainty. A dry run, unless told otherwise, only counts; survey() tells more. Otherwise moves the first max_rows that it finds: commit, and call again while moved is not 0. risky counts those of matched that may have been sent already, or were: their recipients may get a second SMS. Messages to numbers on the suppression list are passed over, and not in matched: suppressed counts them.';

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
    UPDATE sms_outbox.lease AS l SET released = true WHERE l.server <> this_server;
    UPDATE sms_outbox.scheduled AS s SET server = this_server, last_attempt = sms_outbox.past_lost_claims(s.last_attempt) WHERE s.server <> this_server;
    GET DIAGNOSTICS later = ROW_COUNT;
    UPDATE sms_outbox.ready AS r SET server = this_server, xid = pg_current_xact_id(), last_attempt = sms_outbox.past_lost_claims(r.last_attempt) WHERE r.server <> this_server;
    GET DIAGNOSTICS due = ROW_COUNT;
    PERFORM sms_outbox.wake();
    RETURN due + later;
END
$$;
COMMENT ON FUNCTION sms_outbox.release_held() IS 'Lets messages go that another server queued: after a restore, a clone or a promotion, once an operator knows that the other server sends nothing any more. Returns how many. Until then they wait, and health says so.';
