-- What operators know of messages that may have been sent. They speak of messages; what is unclear is attempts.

CREATE FUNCTION sms_outbox.check_told(verdict sms_outbox.attempt_status, detail text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF verdict IS NULL OR verdict NOT IN ('accepted', 'not_sent') THEN
        RAISE EXCEPTION 'verdict: accepted or not_sent is needed' USING ERRCODE = '22023', COLUMN = 'verdict';
    END IF;
    IF detail IS NULL OR btrim(detail) = '' OR length(detail) > 500 THEN
        RAISE EXCEPTION 'detail: how it is known is needed, in 1 to 500 characters' USING ERRCODE = '22023', COLUMN = 'detail';
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.check_told(sms_outbox.attempt_status, text) IS 'Refuses (22023) what no operator can tell of a message. Internal: both forms of resolve() for messages call it.';

CREATE FUNCTION sms_outbox.settle_message(id sms_outbox.message_id, verdict sms_outbox.attempt_status, detail text) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
    SET plan_cache_mode = force_generic_plan -- planning for each message again cost three times as much as all the rest
AS $$
DECLARE
    unclear smallint;
    settled boolean := false;
BEGIN
    -- Unless an attempt is known to have sent it: then nothing is open.
    IF EXISTS (SELECT FROM sms_outbox.attempt AS a WHERE a.id = settle_message.id AND a.status = 'accepted') AND verdict = 'accepted' THEN
        RETURN false;
    END IF;
    -- Sent by one of them: by the one that most likely did; else by one that was only concluded not to have. Not sent by any.
    FOR unclear IN
        SELECT a.attempt FROM sms_outbox.attempt AS a
         WHERE a.id = settle_message.id
           AND (a.status = 'unclear' OR verdict = 'accepted' AND EXISTS (
                    SELECT FROM sms_outbox.evidence AS v WHERE v.id = a.id AND v.attempt = a.attempt AND v.verdict <> 'unclear'))
         ORDER BY sms_outbox.certainty(a.status, a.error_code) DESC, a.attempt DESC LIMIT CASE verdict WHEN 'accepted' THEN 1 END
    LOOP
        settled := sms_outbox.settle_unclear(
            ROW(id, unclear, verdict, NULL, NULL, CASE verdict WHEN 'not_sent' THEN 'Not sent, as an operator knows.' END, NULL, NULL, NULL)::sms_outbox.outcome,
            'operator', session_user::text, detail) OR settled;
    END LOOP;
    RETURN settled;
END
$$;
COMMENT ON FUNCTION sms_outbox.settle_message(sms_outbox.message_id, sms_outbox.attempt_status, text) IS 'Settles the unclear attempts of a message by an operator''s word; says whether there were any. Internal: both forms of resolve() for messages call it.';

CREATE FUNCTION sms_outbox.resolve(id sms_outbox.message_id, verdict sms_outbox.attempt_status, detail text) RETURNS sms_outbox.dispatch_status
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sms_outbox.require_read_committed();
    PERFORM sms_outbox.check_told(verdict, detail);
    PERFORM sms_outbox.only_visible(id);
    IF NOT sms_outbox.settle_message(id, verdict, detail) THEN
        RAISE EXCEPTION 'the message is %; no attempt of it is unclear', sms_outbox.status_of(id)
            USING ERRCODE = '55000', COLUMN = 'id', CONSTRAINT = 'wrong_state', DETAIL = 'dispatch_status: ' || sms_outbox.status_of(id);
    END IF;
    RETURN sms_outbox.status_of(id);
END
$$;
COMMENT ON FUNCTION sms_outbox.resolve(sms_outbox.message_id, sms_outbox.attempt_status, text) IS 'Tells what an operator knows of a message that may have been sent: accepted, by the attempt that most likely sent it, makes it sent, and drops a next try that waits (also where an operator or a look-up had said not_sent); not_sent, by none of its unclear attempts, makes a dispatch_timeout failed, and a retry then risks nothing. detail says how it is known, and is kept as evidence with the login. Refuses with 55000 where no attempt is unclear, with P0002 where there is no such message.';

CREATE FUNCTION sms_outbox.resolve(filter jsonb, verdict sms_outbox.attempt_status, detail text, dry_run boolean DEFAULT true, max_rows integer DEFAULT 1000)
    RETURNS TABLE (matched bigint, moved bigint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan -- for the keys of this very filter
AS $$
DECLARE
    found_ids sms_outbox.message_id[];
    one sms_outbox.message_id;
BEGIN
    PERFORM sms_outbox.require_read_committed();
    PERFORM sms_outbox.check_told(verdict, detail);
    filter := sms_outbox.within_ended(filter, max_rows);
    SELECT count(*), array_agg(f.id ORDER BY f.id) INTO matched, found_ids
      FROM (SELECT m.id FROM sms_outbox.ended_matching(filter) AS m WHERE m.certainty > 'not_sent'
             LIMIT CASE WHEN dry_run IS FALSE THEN max_rows END) AS f;
    moved := 0;
    IF dry_run IS FALSE THEN
        FOREACH one IN ARRAY coalesce(found_ids, '{}') LOOP
            moved := moved + sms_outbox.settle_message(one, verdict, detail)::integer;
        END LOOP;
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION sms_outbox.resolve(jsonb, sms_outbox.attempt_status, text, boolean, integer) IS 'Tells what an operator knows of all messages that a filter matches and that may have been sent; the filter is that of retry(). A dry run, unless told otherwise, only counts; survey() tells more. Otherwise moves the first max_rows that it finds: commit, and call again while moved is not 0.';
