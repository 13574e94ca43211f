-- What is learned of an attempt after it ended as unclear: by a late answer, a look-up, a receipt or an operator. One rule for all.

CREATE FUNCTION sms_outbox.settle_unclear(told sms_outbox.outcome, source text, told_by text, detail text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    known sms_outbox.attempt;
BEGIN
    -- In the order in which everything else locks them: the lease, the end, the ledger.
    PERFORM FROM sms_outbox.lease AS l WHERE l.id = told.id FOR UPDATE;
    PERFORM FROM sms_outbox.ended AS e WHERE e.id = told.id FOR UPDATE;
    SELECT * INTO known FROM sms_outbox.attempt AS a WHERE a.id = told.id AND a.attempt = told.attempt FOR UPDATE;
    -- What the provider answered stands. What somebody only concluded, that it was not sent, gives way to an acceptance.
    IF NOT FOUND OR NOT (known.status = 'unclear' OR told.status = 'accepted' AND known.status <> 'accepted' AND EXISTS (
            SELECT FROM sms_outbox.evidence AS e
             WHERE e.id = told.id AND e.attempt = told.attempt AND e.verdict <> 'unclear' AND e.source IN ('look-up', 'operator'))) THEN
        RETURN false;
    END IF;
    INSERT INTO sms_outbox.evidence (id, at, was_finished_at, attempt, source, verdict, organization_id, told_by, was_error_code, detail)
    VALUES (told.id, clock_timestamp(), CASE WHEN told.status <> 'unclear' THEN known.finished_at END, told.attempt, source, told.status,
            known.organization_id, told_by, CASE WHEN told.status <> 'unclear' THEN known.error_code END, detail);
    IF told.status = 'unclear' THEN
        RETURN false;
    END IF;
    UPDATE sms_outbox.attempt AS a
       SET status = told.status, finished_at = clock_timestamp(),
           http_status = coalesce(told.http_status, a.http_status),
           error_code = CASE WHEN told.status = 'accepted' THEN told.error_code ELSE coalesce(told.error_code, a.error_code) END,
           error_message = CASE WHEN told.status = 'accepted' THEN told.error_message ELSE coalesce(told.error_message, a.error_message) END,
           response = coalesce(told.response, a.response),
           provider_message_id = coalesce(told.provider_message_id, a.provider_message_id)
     WHERE a.id = told.id AND a.attempt = told.attempt;
    DELETE FROM sms_outbox.look_up AS u WHERE u.id = told.id AND u.attempt = told.attempt;
    IF told.status = 'accepted' THEN
        PERFORM sms_outbox.settle_accepted(told.id, told.attempt);
    ELSE
        -- Failed means that no provider accepted it: not while another attempt is unclear.
        WITH changed AS (
            UPDATE sms_outbox.ended AS e SET status = 'failed', reason = told.status::text, ended_at = clock_timestamp()
             WHERE e.id = told.id AND e.status = 'dispatch_timeout' AND NOT sms_outbox.has_unclear(told.id)
            RETURNING e.id, e.organization_id
        )
        INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
        SELECT sms_outbox.day_of(c.id), date_trunc('minute', now()), s.status, s.messages, c.organization_id
          FROM changed AS c, (VALUES ('dispatch_timeout'::sms_outbox.dispatch_status, -1), ('failed', 1)) AS s (status, messages);
    END IF;
    RETURN true;
END
$$;
COMMENT ON FUNCTION sms_outbox.settle_unclear(sms_outbox.outcome, text, text, text) IS 'Corrects the ledger where an attempt had ended as unclear, and moves its message: accepted makes it sent, from wherever it is; anything else makes a dispatch_timeout failed, unless another attempt is unclear. An acceptance also corrects what a look-up or an operator had said was not sent. Keeps the evidence. Says whether it corrected. Internal: finish(), resolve() and record_receipt() call it.';

CREATE FUNCTION sms_outbox.resolve(id sms_outbox.message_id, attempt integer, verdict sms_outbox.attempt_status, evidence text,
                                   provider_message_id text DEFAULT NULL, detail text DEFAULT NULL, worker text DEFAULT NULL)
    RETURNS TABLE (applied boolean, dispatch_status sms_outbox.dispatch_status)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_variable
DECLARE
    refused CONSTANT text := CASE
        WHEN attempt IS NULL OR attempt NOT BETWEEN 1 AND 32767 THEN 'attempt: a number from 1 to 32767 is needed'
        WHEN verdict IS NULL OR verdict = 'throttled'
             THEN 'verdict: accepted, not_sent, refused_recipient, refused_content, refused_account, or unclear for asked in vain is needed'
        WHEN evidence IS NULL OR evidence NOT IN ('look-up', 'receipt', 'operator') THEN 'evidence: look-up, receipt or operator is needed'
        WHEN length(provider_message_id) NOT BETWEEN 1 AND 255 THEN 'provider_message_id: 1 to 255 characters are needed'
        WHEN length(detail) > 500 THEN 'detail: 500 characters at most'
        WHEN length(worker) > 100 THEN 'worker: 100 characters at most'
    END;
BEGIN
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused USING ERRCODE = '22023', COLUMN = split_part(refused, ':', 1);
    END IF;
    -- A worker may tell what it looked up, and no more.
    IF evidence <> 'look-up' AND NOT pg_has_role(session_user, 'sms_outbox_operator', 'MEMBER') THEN
        RAISE EXCEPTION 'evidence: only an operator may give "%"', evidence USING ERRCODE = '42501', COLUMN = 'evidence';
    END IF;
    PERFORM sms_outbox.require_read_committed();
    PERFORM sms_outbox.only_visible(id);
    applied := sms_outbox.settle_unclear(
        ROW(id, attempt, verdict, NULL, NULL, CASE WHEN verdict <> 'accepted' THEN 'not sent, as became known by ' || evidence END,
            NULL, provider_message_id, NULL)::sms_outbox.outcome,
        evidence, CASE evidence WHEN 'look-up' THEN coalesce(worker, session_user::text) ELSE session_user::text END, detail);
    dispatch_status := sms_outbox.status_of(id);
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION sms_outbox.resolve(sms_outbox.message_id, integer, sms_outbox.attempt_status, text, text, text, text) IS
'Tells what became known of an attempt that had ended as unclear: accepted makes the message sent, and drops a next try that waits; not_sent and refused_* make a dispatch_timeout failed, unless another attempt is unclear too; it is not queued again by itself, but a retry then risks nothing. unclear only notes that somebody asked in vain. evidence says how it is known: look-up, receipt or operator (workers may say look-up alone, with their name as worker). applied says whether it corrected the ledger: any other attempt, one that is live or was answered, stays as it is. An acceptance also corrects what a look-up or an operator had called not sent. P0002 where there is no such message.';

CREATE FUNCTION sms_outbox.delivery_rank(status sms_outbox.delivery_status) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE status WHEN 'unknown' THEN 0 WHEN 'queued' THEN 1 ELSE 2 END;
COMMENT ON FUNCTION sms_outbox.delivery_rank(sms_outbox.delivery_status) IS 'How final a delivery_status is. Receipts move it only to a higher rank: whatever their order, and however often they come, the end is the same.';

CREATE FUNCTION sms_outbox.record_receipt(id sms_outbox.message_id, attempt integer, delivery_status sms_outbox.delivery_status,
                                          code text DEFAULT NULL, at timestamptz DEFAULT NULL)
    RETURNS TABLE (result text, dispatch_status sms_outbox.dispatch_status)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
#variable_conflict use_variable
DECLARE
    visible CONSTANT text := sms_outbox.visible_organization();
    organization text;
    known sms_outbox.attempt_status;
BEGIN
    PERFORM sms_outbox.require_read_committed();
    IF delivery_status IS NULL THEN
        RAISE EXCEPTION 'delivery_status: it is missing' USING ERRCODE = '22023', COLUMN = 'delivery_status';
    END IF;
    IF length(code) > 100 THEN
        RAISE EXCEPTION 'code: 100 characters at most' USING ERRCODE = '22023', COLUMN = 'code';
    END IF;
    -- Whoever reads it may know no other, and no infinity.
    IF at < '2000-01-01+00' OR at >= '10000-01-01+00' THEN
        RAISE EXCEPTION 'at: a time from 2000 to 9999 is needed' USING ERRCODE = '22023', COLUMN = 'at';
    END IF;
    SELECT m.organization_id INTO organization FROM sms_outbox.message AS m WHERE m.id = record_receipt.id AND visible IN (m.organization_id, '*');
    result := 'unknown';
    IF NOT FOUND THEN
        RETURN NEXT;
        RETURN;
    END IF;
    -- An attempt that is live cannot end while this holds its lease, and then finds the receipt; one that ends at this moment is
    -- waited for, and is then in the ledger.
    PERFORM FROM sms_outbox.lease AS l WHERE l.id = record_receipt.id AND l.attempt = record_receipt.attempt FOR UPDATE;
    IF NOT FOUND THEN
        SELECT a.status INTO known FROM sms_outbox.attempt AS a WHERE a.id = record_receipt.id AND a.attempt = record_receipt.attempt;
        IF NOT FOUND THEN
            dispatch_status := sms_outbox.status_of(id);
            RETURN NEXT;
            RETURN;
        END IF;
    END IF;
    INSERT INTO sms_outbox.receipt AS r (id, at, recorded_at, attempt, delivery_status, organization_id, code)
    VALUES (id, coalesce(at, clock_timestamp()), clock_timestamp(), attempt, delivery_status, organization, code)
    ON CONFLICT ON CONSTRAINT receipt_pkey DO UPDATE
       SET at = excluded.at, recorded_at = excluded.recorded_at, delivery_status = excluded.delivery_status, code = excluded.code
     WHERE sms_outbox.delivery_rank(excluded.delivery_status) > sms_outbox.delivery_rank(r.delivery_status);
    result := CASE WHEN FOUND THEN 'recorded' ELSE 'repeated' END;
    -- A provider that reports on it has taken it.
    IF known <> 'accepted' THEN
        PERFORM sms_outbox.settle_unclear(ROW(id, attempt, 'accepted', NULL, NULL, NULL, NULL, NULL, NULL)::sms_outbox.outcome,
                                          'receipt', 'provider', delivery_status::text);
    END IF;
    dispatch_status := sms_outbox.status_of(id);
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION sms_outbox.record_receipt(sms_outbox.message_id, integer, sms_outbox.delivery_status, text, timestamptz) IS
'Records what a provider''s receipt says of an attempt: delivery_status, the provider''s own code, and when it happened (now, where not given). The status only moves forwards: queued, then one of delivered, undelivered, rejected and expired, of which the first stays. result: recorded; repeated (it told nothing new); unknown (the caller sees no such message, or it has no such attempt: nothing is kept). A receipt proves that an unclear attempt was accepted: the message is sent. One that comes while the attempt is live is kept, and proves it when the attempt ends as unclear.';

CREATE FUNCTION sms_outbox.follow_up_unclear(concluded sms_outbox.concluded[]) RETURNS sms_outbox.concluded[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    parked record;
    sent sms_outbox.message_id[] := '{}';
BEGIN
    INSERT INTO sms_outbox.look_up (id, since, app_id, attempt, organization_id)
    SELECT c.id, clock_timestamp(), c.app_id, c.attempt, a.organization_id
      FROM unnest(concluded) AS c
      JOIN sms_outbox.organization_app AS a ON a.app_id = c.app_id
      JOIN sms_outbox.provider AS p ON p.slug = a.provider_slug
     WHERE c.status = 'unclear' AND p.looks_up;
    FOR parked IN
        SELECT r.id, r.attempt, r.delivery_status FROM unnest(concluded) AS c JOIN sms_outbox.receipt AS r ON r.id = c.id AND r.attempt = c.attempt
         WHERE c.status = 'unclear' ORDER BY r.id
    LOOP
        PERFORM sms_outbox.settle_unclear(ROW(parked.id, parked.attempt, 'accepted', NULL, NULL, NULL, NULL, NULL, NULL)::sms_outbox.outcome,
                                          'receipt', 'provider', parked.delivery_status::text);
        sent := sent || parked.id;
    END LOOP;
    RETURN ARRAY(SELECT ROW(c.id, c.attempt, CASE WHEN c.id = ANY (sent) THEN 'sent' ELSE c.dispatch_status END,
                            c.app_id, c.status, c.error_code, c.error_message, c.retry_after)::sms_outbox.concluded
                   FROM unnest(concluded) AS c);
END
$$;
COMMENT ON FUNCTION sms_outbox.follow_up_unclear(sms_outbox.concluded[]) IS 'What is done about attempts that ended as unclear: a receipt that came before proves that it was accepted; otherwise the provider is to be asked, where it can be. Returns where the messages are then. Internal: conclude() calls it.';

CREATE FUNCTION sms_outbox.unclear(after interval, max_rows integer)
    RETURNS TABLE (id sms_outbox.message_id, attempt smallint, app_id bigint, organization_id text, provider_slug text, config jsonb,
                   mobile text, message text, sender text, started_at timestamptz, finished_at timestamptz, age_seconds double precision,
                   taken_ids text[], has_twin boolean)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    -- Times the first pause: after a minute, five more minutes and half an hour, where that is a minute.
    waits CONSTANT integer[] := '{1,5,30}';
    due sms_outbox.look_up[];
BEGIN
    PERFORM sms_outbox.require_read_committed();
    IF after IS NULL OR after < interval '0' OR after > interval '1 day' THEN
        RAISE EXCEPTION 'after: it must be between 0 and 1 day' USING ERRCODE = '22023', COLUMN = 'after';
    END IF;
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'max_rows: it must be between 1 and 10000' USING ERRCODE = '22023', COLUMN = 'max_rows';
    END IF;
    -- Asked from now on, whether or not this worker lives to tell: a look-up that is lost costs one of three.
    WITH chosen AS MATERIALIZED (
        SELECT f.* FROM generate_series(1, cardinality(waits)) AS n
          CROSS JOIN LATERAL (SELECT u.* FROM sms_outbox.look_up AS u
                               WHERE u.asked = n - 1 AND u.since <= clock_timestamp() - after * waits[n]
                               ORDER BY u.since LIMIT max_rows FOR UPDATE SKIP LOCKED) AS f
         LIMIT max_rows
    ), again AS (
        UPDATE sms_outbox.look_up AS u SET asked = u.asked + 1, since = clock_timestamp()
          FROM chosen AS c WHERE u.id = c.id AND u.attempt = c.attempt AND c.asked + 1 < cardinality(waits)
    ), last AS (
        DELETE FROM sms_outbox.look_up AS u USING chosen AS c WHERE u.id = c.id AND u.attempt = c.attempt AND c.asked + 1 >= cardinality(waits)
    )
    SELECT array_agg(ROW(c.*)::sms_outbox.look_up) INTO due FROM chosen AS c;
    IF due IS NULL THEN
        RETURN;
    END IF;
    RETURN QUERY
    SELECT t.id, t.attempt, t.app_id, t.organization_id, a.provider_slug,
           CASE WHEN row_number() OVER (PARTITION BY t.app_id ORDER BY t.id, t.attempt) = 1 THEN a.config END,
           m.mobile, m.body, m.sender, t.started_at, t.finished_at,
           extract(epoch FROM clock_timestamp() - t.finished_at)::double precision,
           coalesce(w.taken_ids, '{}'), coalesce(w.has_twin, false) OR EXISTS (
               SELECT FROM sms_outbox.message AS n JOIN sms_outbox.lease AS l ON l.id = n.id
                WHERE n.organization_id = t.organization_id AND n.mobile = m.mobile AND n.body = m.body AND l.app_id = t.app_id)
      FROM unnest(due) AS u
      JOIN sms_outbox.attempt AS t ON t.id = u.id AND t.attempt = u.attempt AND t.status = 'unclear'
      JOIN sms_outbox.message AS m ON m.id = u.id
      JOIN sms_outbox.organization_app AS a ON a.app_id = u.app_id AND a.uninstalled_at IS NULL
      -- The same text to the same number by the same app: the provider's answer may speak of those.
      CROSS JOIN LATERAL (
          SELECT array_agg(o.provider_message_id) FILTER (WHERE o.provider_message_id IS NOT NULL) AS taken_ids,
                 bool_or((o.status = 'unclear' OR o.status = 'accepted' AND o.provider_message_id IS NULL)
                         AND o.started_at < t.finished_at + interval '1 hour' AND o.finished_at > t.started_at - interval '1 hour') AS has_twin
            FROM sms_outbox.message AS n JOIN sms_outbox.attempt AS o ON o.id = n.id
           WHERE n.organization_id = t.organization_id AND n.mobile = m.mobile AND n.body = m.body
             AND o.app_id = t.app_id AND NOT (o.id = t.id AND o.attempt = t.attempt)) AS w
     ORDER BY t.id, t.attempt;
END
$$;
COMMENT ON FUNCTION sms_outbox.unclear(interval, integer) IS
'Attempts that ended as unclear and are due to be looked up at their provider: each is given out three times at most, this long after it ended, then five and thirty times as long after the last time, to one worker at a time. Only apps whose provider has a look-up. With everything that a look-up needs; config stands on the first row of each app. age_seconds is the time since the attempt ended. taken_ids are the provider''s ids of other attempts with the same number and text by the same app; has_twin says that there is one whose id is not known, so that what the provider shows may be that one''s. What was found is told by resolve() with evidence look-up; also, as unclear, that nothing was.';
