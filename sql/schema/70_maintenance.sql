-- What time does to messages. Every task is bounded in rows, skips what others hold, and may run twice at once.
-- Pages are read in the order of an index: a bitmap, which stale statistics may suggest, would be made of all that is there.

CREATE FUNCTION sms_outbox.time_out_leases(max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    over sms_outbox.outcome[];
    concluded sms_outbox.concluded[];
BEGIN
    SELECT array_agg(ROW(l.id, l.attempt, 'unclear', NULL, 'lease_expired',
                         'the worker did not report in time; it may have been sent', NULL, NULL, NULL)::sms_outbox.outcome)
      INTO over
      FROM (SELECT id, attempt FROM sms_outbox.lease WHERE expires_at <= clock_timestamp()
             ORDER BY expires_at LIMIT max_rows FOR UPDATE SKIP LOCKED) AS l;
    concluded := sms_outbox.conclude(NULL, over);
    PERFORM sms_outbox.note_app_health(concluded);
    RETURN cardinality(concluded);
END
$$;
COMMENT ON FUNCTION sms_outbox.time_out_leases(integer) IS 'Ends leases that are over as unclear. By the clock of this server alone.';

CREATE FUNCTION sms_outbox.stage_due(max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    moved bigint;
BEGIN
    WITH due AS (
        DELETE FROM sms_outbox.scheduled AS s
         WHERE s.id = ANY (ARRAY(SELECT f.id FROM sms_outbox.scheduled AS f WHERE f.due_at <= clock_timestamp()
                                  ORDER BY f.due_at LIMIT max_rows FOR UPDATE SKIP LOCKED))
        RETURNING s.*
    )
    INSERT INTO sms_outbox.ready (id, since, valid_until, server, priority, last_attempt, tries, organization_id, preferred_provider_slug, refused_by)
    SELECT d.id, d.since, d.valid_until, d.server, d.priority, d.last_attempt, d.tries, d.organization_id, d.preferred_provider_slug, d.refused_by
      FROM due AS d;
    GET DIAGNOSTICS moved = ROW_COUNT;
    IF moved > 0 THEN
        PERFORM sms_outbox.wake();
    END IF;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION sms_outbox.stage_due(integer) IS 'Moves messages whose time has come from scheduled to ready.';

CREATE FUNCTION sms_outbox.expire(max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    oldest CONSTANT timestamptz := now() - sms_outbox.setting('retention_pending')::interval;
    behind CONSTANT sms_outbox.message_id := (SELECT m."position" FROM sms_outbox.maintenance AS m WHERE m.task = 'expire');
    reached sms_outbox.message_id;
    late sms_outbox.message_id[];
    moved bigint;
BEGIN
    -- An id is older than its message's due time, so the range of ids holds all that can be too old; and beside it what was
    -- scheduled long before it came due, which may be millions: each call reads on from where the last one got.
    SELECT (array_agg(p.id ORDER BY p.id))[max_rows], array_agg(p.id) FILTER (WHERE p.since < oldest) INTO reached, late
      FROM (SELECT r.id, r.since FROM sms_outbox.ready AS r
             WHERE r.id > coalesce(behind, sms_outbox.id_floor('epoch')) AND r.id < sms_outbox.id_floor(oldest)
             ORDER BY r.id LIMIT max_rows) AS p;
    IF reached IS DISTINCT FROM behind THEN
        INSERT INTO sms_outbox.maintenance AS m (task, ran_at, "position") VALUES ('expire', now(), reached)
        ON CONFLICT ON CONSTRAINT maintenance_pkey DO UPDATE SET ran_at = now(), "position" = reached;
    END IF;
    WITH over AS (
        SELECT r.id, CASE WHEN r.valid_until <= now() THEN 'valid_until' ELSE 'retention_pending' END AS reason
          FROM sms_outbox.ready AS r
         WHERE r.id = ANY (late || ARRAY(SELECT v.id FROM sms_outbox.ready AS v WHERE v.valid_until <= now() LIMIT max_rows))
         ORDER BY r.id FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM sms_outbox.ready AS r USING over AS o WHERE r.id = ANY (ARRAY(SELECT x.id FROM over AS x)) AND o.id = r.id
        RETURNING r.id, r.last_attempt, r.organization_id, o.reason
    ), over_scheduled AS (
        SELECT s.id, 'valid_until' AS reason FROM sms_outbox.scheduled AS s WHERE s.valid_until <= now() LIMIT max_rows FOR UPDATE SKIP LOCKED
    ), taken_scheduled AS (
        DELETE FROM sms_outbox.scheduled AS s WHERE s.id = ANY (ARRAY(SELECT x.id FROM over_scheduled AS x))
        RETURNING s.id, s.last_attempt, s.organization_id, 'valid_until' AS reason
    ), ended AS (
        INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
        SELECT t.id, clock_timestamp(), 'expired', t.last_attempt, t.organization_id, t.reason
          FROM (SELECT * FROM taken UNION ALL SELECT * FROM taken_scheduled) AS t
        RETURNING id, organization_id
    )
    INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
    SELECT sms_outbox.day_of(e.id), date_trunc('minute', now()), 'expired', 1, e.organization_id FROM ended AS e;
    GET DIAGNOSTICS moved = ROW_COUNT;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION sms_outbox.expire(integer) IS 'Ends waiting messages past their valid_until, or due for longer than the setting sms_outbox.retention_pending, as expired. Of what may be too old each call reads at most max_rows rows, and the next one reads on.';

CREATE FUNCTION sms_outbox.fold_tallies(max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    hour_ago CONSTANT timestamptz := date_trunc('minute', now()) - interval '1 hour';
    folded bigint;
    folded_apps bigint;
BEGIN
    -- Rows that stand alone for what they count stay as they are. No other session updates or deletes rows meanwhile: see
    -- is_due() and prune().
    WITH alike AS (
        SELECT t.ctid AS place, t.*, greatest(t.minute, hour_ago - interval '1 minute') AS slot,
               count(*) OVER (PARTITION BY t.day, greatest(t.minute, hour_ago - interval '1 minute'), t.status, t.organization_id) AS copies
          FROM sms_outbox.tally AS t
    ), old AS MATERIALIZED (
        SELECT a.* FROM alike AS a WHERE a.copies > 1 LIMIT max_rows
    ), gone AS (
        DELETE FROM sms_outbox.tally AS t WHERE t.ctid = ANY (ARRAY(SELECT o.place FROM old AS o)) RETURNING 1
    ), added AS (
        -- The last minute stays: it tells retention when the last message of a day ended.
        INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
        SELECT o.day, max(o.minute), o.status, sum(o.messages), o.organization_id
          FROM old AS o GROUP BY o.day, o.slot, o.status, o.organization_id HAVING sum(o.messages) <> 0
    )
    SELECT count(*) INTO folded FROM gone;
    WITH alike AS (
        SELECT t.ctid AS place, t.*, greatest(t.minute, hour_ago - interval '1 minute') AS slot,
               CASE WHEN t.minute < hour_ago THEN 0 ELSE t.latency_bucket END AS bucket,
               count(*) OVER (PARTITION BY t.app_id, greatest(t.minute, hour_ago - interval '1 minute'), t.status,
                                           CASE WHEN t.minute < hour_ago THEN 0 ELSE t.latency_bucket END) AS copies
          FROM sms_outbox.app_tally AS t
    ), old AS MATERIALIZED (
        SELECT a.* FROM alike AS a WHERE a.copies > 1 LIMIT max_rows
    ), gone AS (
        DELETE FROM sms_outbox.app_tally AS t WHERE t.ctid = ANY (ARRAY(SELECT o.place FROM old AS o)) RETURNING 1
    ), added AS (
        INSERT INTO sms_outbox.app_tally (app_id, minute, status, latency_bucket, attempts)
        SELECT o.app_id, max(o.minute), o.status, o.bucket, sum(o.attempts)
          FROM old AS o GROUP BY o.app_id, o.slot, o.status, o.bucket
    )
    SELECT count(*) INTO folded_apps FROM gone;
    RETURN greatest(folded, folded_apps);
END
$$;
COMMENT ON FUNCTION sms_outbox.fold_tallies(integer) IS 'Adds up the counts: by minute for the last hour, in one row before that. Returns how many rows of one table it added up, max_rows at most.';

CREATE FUNCTION sms_outbox.is_due(task text, every interval) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    INSERT INTO sms_outbox.maintenance (task, ran_at) VALUES (is_due.task, '-infinity') ON CONFLICT ON CONSTRAINT maintenance_pkey DO NOTHING;
    UPDATE sms_outbox.maintenance AS m SET ran_at = now()
     WHERE m.task = ANY (ARRAY(SELECT f.task FROM sms_outbox.maintenance AS f
                                WHERE f.task = is_due.task AND f.ran_at NOT BETWEEN now() - every AND now() FOR UPDATE SKIP LOCKED));
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION sms_outbox.is_due(text, interval) IS 'Whether a rarer task is to run now; then nobody else runs it at the same time. One that seems to have run later than now is due: the clock was set back.';

CREATE FUNCTION sms_outbox.run_maintenance() RETURNS TABLE (task text, moved bigint, more boolean)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    batch CONSTANT integer := 2000;
BEGIN
    PERFORM sms_outbox.require_read_committed();
    task := 'time_out';
    moved := sms_outbox.time_out_leases(batch);
    more := moved = batch;
    RETURN NEXT;
    task := 'expire';
    moved := sms_outbox.expire(batch);
    more := moved >= batch;
    RETURN NEXT;
    task := 'stage_due';
    moved := sms_outbox.stage_due(batch);
    more := moved = batch;
    RETURN NEXT;
    task := 'usage';
    moved := sms_outbox.fold_usage(batch * 10);
    more := moved = batch * 10;
    RETURN NEXT;
    task := 'partitions';
    moved := CASE WHEN sms_outbox.is_due('partitions', interval '1 minute') THEN sms_outbox.prepare_partitions() ELSE 0 END;
    more := false;
    RETURN NEXT;
    task := 'fold';
    moved := CASE WHEN sms_outbox.is_due('fold', interval '1 minute') THEN sms_outbox.fold_tallies(batch * 10) ELSE 0 END;
    more := moved = batch * 10;
    IF more THEN
        UPDATE sms_outbox.maintenance AS m SET ran_at = '-infinity' WHERE m.task = 'fold';
    END IF;
    RETURN NEXT;
    task := 'prune';
    moved := CASE WHEN sms_outbox.is_due('prune', interval '1 minute') THEN sms_outbox.prune(batch) ELSE 0 END;
    more := moved >= batch;
    IF more THEN
        UPDATE sms_outbox.maintenance AS m SET ran_at = '-infinity' WHERE m.task = 'prune';
    END IF;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION sms_outbox.run_maintenance() IS 'Everything that time does: leases that are over, expiry, due schedules, partitions ahead, counts, retention. The background worker calls it each sms_outbox.maintenance_interval; without preload any scheduler may. Bounded per call: commit, and call again while any task says more.';
