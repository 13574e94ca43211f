-- What workers report, in time or late.

CREATE FUNCTION sms_outbox.finish(worker text, ids sms_outbox.message_id[], attempts smallint[], statuses sms_outbox.attempt_status[],
                                  http_statuses smallint[], error_codes text[], error_messages text[], responses text[],
                                  provider_message_ids text[], retry_after double precision[])
    RETURNS TABLE (id sms_outbox.message_id, attempt smallint, applied boolean, dispatch_status sms_outbox.dispatch_status)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    outcomes sms_outbox.outcome[];
    concluded sms_outbox.concluded[];
    late sms_outbox.outcome;
    recorded boolean;
BEGIN
    PERFORM sms_outbox.require_read_committed();
    -- conclude() takes NULL for 'whoever holds it', which is maintenance's alone.
    IF finish.worker IS NULL OR length(finish.worker) NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'worker: a name of 1 to 100 characters is needed' USING ERRCODE = '22023', COLUMN = 'worker';
    END IF;
    -- IS NOT TRUE: an array that is NULL would silently be padded with NULLs.
    IF (cardinality(ids) <= 10000 AND cardinality(ids) = ALL (ARRAY[
            cardinality(attempts), cardinality(statuses), cardinality(http_statuses), cardinality(error_codes), cardinality(error_messages),
            cardinality(responses), cardinality(provider_message_ids), cardinality(retry_after)])) IS NOT TRUE THEN
        RAISE EXCEPTION 'all arrays must have the same number of elements, 10000 at most' USING ERRCODE = '22023', COLUMN = 'ids';
    END IF;
    IF array_position(ids, NULL) IS NOT NULL OR array_position(attempts, NULL) IS NOT NULL OR array_position(statuses, NULL) IS NOT NULL THEN
        RAISE EXCEPTION 'ids, attempts and statuses must not hold NULL' USING ERRCODE = '22023',
            COLUMN = CASE WHEN array_position(ids, NULL) IS NOT NULL THEN 'ids'
                          WHEN array_position(attempts, NULL) IS NOT NULL THEN 'attempts' ELSE 'statuses' END;
    END IF;
    -- The same attempt twice in one call: the first outcome counts.
    SELECT array_agg(ROW(f.id, f.attempt, f.status, f.http_status, f.error_code, f.error_message, f.response::json,
                         f.provider_message_id, f.retry_after)::sms_outbox.outcome ORDER BY f.place)
      INTO outcomes
      FROM (SELECT DISTINCT ON (u.id, u.attempt) u.*
              FROM unnest(ids, attempts, statuses, http_statuses, error_codes, error_messages, responses, provider_message_ids, retry_after)
                   WITH ORDINALITY AS u (id, attempt, status, http_status, error_code, error_message, response, provider_message_id, retry_after, place)
             ORDER BY u.id, u.attempt, u.place) AS f;
    IF outcomes IS NULL THEN
        RETURN;
    END IF;
    concluded := sms_outbox.conclude(finish.worker, outcomes);
    RETURN QUERY SELECT c.id, c.attempt, true, c.dispatch_status FROM unnest(concluded) AS c;

    IF cardinality(concluded) < cardinality(outcomes) THEN
        FOR late IN
            SELECT o.* FROM unnest(outcomes) AS o
             WHERE NOT EXISTS (SELECT FROM unnest(concluded) AS c WHERE c.id = o.id AND c.attempt = o.attempt)
             ORDER BY o.id, o.attempt
        LOOP
            recorded := sms_outbox.conclude_late(finish.worker, late);
            -- In a statement of its own, which sees what that one did.
            RETURN QUERY SELECT late.id, late.attempt, recorded, sms_outbox.status_of(late.id);
        END LOOP;
    END IF;
    -- Last: these rows are shared by all messages of an app, and whoever waited for a message while holding one would deadlock.
    PERFORM sms_outbox.note_app_health(concluded);
END
$$;
COMMENT ON FUNCTION sms_outbox.finish(text, sms_outbox.message_id[], smallint[], sms_outbox.attempt_status[], smallint[], text[], text[], text[], text[], double precision[]) IS
'Records how attempts ended: element n of each array belongs to message ids[n], attempt attempts[n]. http_statuses, error_codes, error_messages, responses (JSON text), provider_message_ids and retry_after (seconds, for throttled) may hold NULLs. For each says whether this call recorded it and where the message is now. Harmless when repeated. Without the live lease of this worker an outcome changes nothing of a newer attempt; but a definite outcome of an attempt that had ended as unclear, and an acceptance or an unclear end whose claim was lost in a failover, are recorded.';

CREATE FUNCTION sms_outbox.conclude_late(worker text, late sms_outbox.outcome) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    made_by text;
    organization text;
BEGIN
    SELECT a.worker INTO made_by FROM sms_outbox.attempt AS a WHERE a.id = late.id AND a.attempt = late.attempt;
    IF FOUND THEN
        RETURN made_by = conclude_late.worker AND late.status <> 'unclear'
           AND sms_outbox.settle_unclear(late, 'late answer', conclude_late.worker, NULL);
    END IF;

    -- No trace of the attempt: its claim was lost when an asynchronous standby took over. Then it matters whether it was sent, or may
    -- have been; of two that tell it at once the second finds it told.
    IF late.status NOT IN ('accepted', 'unclear') OR late.attempt < 1 THEN
        RETURN false;
    END IF;
    -- Held where it waits, so that nobody claims it under this very number meanwhile.
    PERFORM FROM sms_outbox.scheduled AS s WHERE s.id = late.id FOR UPDATE;
    PERFORM FROM sms_outbox.ready AS r WHERE r.id = late.id FOR UPDATE;
    SELECT m.organization_id INTO organization FROM sms_outbox.message AS m WHERE m.id = late.id FOR UPDATE;
    IF NOT FOUND OR EXISTS (SELECT FROM sms_outbox.lease AS l WHERE l.id = late.id AND l.attempt = late.attempt)
       OR EXISTS (SELECT FROM sms_outbox.attempt AS a WHERE a.id = late.id AND (a.status = 'accepted' OR a.attempt = late.attempt)) THEN
        RETURN false;
    END IF;
    IF late.status = 'unclear' THEN
        -- A number that the queue knows to be given is not that of a lost claim.
        DELETE FROM sms_outbox.ready AS r WHERE r.id = late.id AND r.last_attempt < late.attempt;
        IF NOT FOUND THEN
            DELETE FROM sms_outbox.scheduled AS s WHERE s.id = late.id AND s.last_attempt < late.attempt;
            IF NOT FOUND THEN
                RETURN false;
            END IF;
        END IF;
        INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
        VALUES (late.id, clock_timestamp(), 'dispatch_timeout', late.attempt, organization, 'claim_lost');
        INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
        VALUES (sms_outbox.day_of(late.id), date_trunc('minute', now()), 'dispatch_timeout', 1, organization);
    END IF;
    INSERT INTO sms_outbox.attempt (id, started_at, finished_at, app_id, attempt, http_status, status, organization_id, worker, provider_message_id, error_code, error_message, response)
    VALUES (late.id, clock_timestamp(), clock_timestamp(), 0, late.attempt, late.http_status, late.status, organization, conclude_late.worker,
            late.provider_message_id, 'claim_lost', CASE late.status WHEN 'accepted' THEN 'accepted by an attempt whose claim was lost in a failover'
            ELSE 'the claim was lost in a failover, and how the attempt ended is unclear; it may have been sent' END, late.response);
    IF late.status = 'accepted' THEN
        INSERT INTO sms_outbox.evidence (id, at, attempt, source, verdict, organization_id, told_by, detail)
        VALUES (late.id, clock_timestamp(), late.attempt, 'late answer', 'accepted', organization, conclude_late.worker, 'its claim was lost in a failover');
        PERFORM sms_outbox.settle_accepted(late.id, late.attempt);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION sms_outbox.conclude_late(text, sms_outbox.outcome) IS 'Records an outcome that comes without its live lease, where it still tells something; says whether it did. Internal: finish() calls it.';

CREATE FUNCTION sms_outbox.settle_accepted(accepted sms_outbox.message_id, by_attempt smallint) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    organization text;
    row_status sms_outbox.dispatch_status;
    ended_as sms_outbox.dispatch_status;
BEGIN
    -- A waiting next try is dropped; one that is in flight cannot be called back, and both are shown. Until one look finds the
    -- message nowhere else, or its lease is locked, whose end then waits for this: it may be moving at this moment.
    LOOP
        PERFORM FROM sms_outbox.lease AS l WHERE l.id = accepted FOR UPDATE;
        EXIT WHEN FOUND;
        DELETE FROM sms_outbox.scheduled AS s WHERE s.id = accepted;
        DELETE FROM sms_outbox.ready AS r WHERE r.id = accepted;
        DELETE FROM sms_outbox.ended AS e WHERE e.id = accepted RETURNING e.status INTO row_status;
        ended_as := coalesce(row_status, ended_as);
        EXIT WHEN NOT EXISTS (SELECT FROM sms_outbox.lease AS l WHERE l.id = accepted)
              AND NOT EXISTS (SELECT FROM sms_outbox.scheduled AS s WHERE s.id = accepted)
              AND NOT EXISTS (SELECT FROM sms_outbox.ready AS r WHERE r.id = accepted)
              AND NOT EXISTS (SELECT FROM sms_outbox.ended AS e WHERE e.id = accepted);
    END LOOP;
    SELECT m.organization_id INTO organization FROM sms_outbox.message AS m WHERE m.id = accepted;
    INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
    SELECT sms_outbox.day_of(accepted), date_trunc('minute', now()), s.status, s.messages, organization
      FROM (VALUES (ended_as, -1),
                   (CASE WHEN NOT EXISTS (SELECT FROM sms_outbox.attempt AS a
                                           WHERE a.id = accepted AND a.status = 'accepted' AND a.attempt <> by_attempt)
                         THEN 'sent'::sms_outbox.dispatch_status END, 1)) AS s (status, messages)
     WHERE s.status IS NOT NULL;
END
$$;
COMMENT ON FUNCTION sms_outbox.settle_accepted(sms_outbox.message_id, smallint) IS 'Makes a message sent whose attempt turned out to be accepted after it had gone elsewhere. Internal: settle_unclear() and conclude_late() call it.';
