-- What time does to messages. Every task is bounded in rows, skips what others hold, and may run twice at once.
-- Pages are read in the order of an index: a bitmap, which stale statistics may suggest, would be made of all that is there.

-- While somebody's snapshot keeps dead rows, an index of times holds an entry for everything that ever was in the queue, and whoever
-- reads it from its beginning reads them all. So a task whose read took many pages of the index makes the next one a minute later, and a
-- millisecond for each page, so that it costs the same however many there are; until then it reads on from a mark, before which nothing
-- was left. Pages are counted, since time would tell of a busy machine as well. Where nothing is found it is read once.

CREATE FUNCTION sms_outbox.read_from(task text) RETURNS timestamptz
    LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT coalesce(min(m.ran_at), '-infinity') FROM sms_outbox.maintenance AS m
     WHERE m.task = read_from.task || ' mark' AND m.ran_at < clock_timestamp()
       AND EXISTS (SELECT FROM sms_outbox.maintenance AS w
                    WHERE w.task = read_from.task || ' whole' AND w.ran_at > clock_timestamp() - interval '1 minute')
$$;
COMMENT ON FUNCTION sms_outbox.read_from(text) IS 'After what time a task of maintenance has to read an index of times: from its beginning (-infinity), unless that took many pages and was done within the last minute and as many milliseconds as it took pages. Internal: time_out_leases(), expire() and stage_due() call it.';

CREATE FUNCTION sms_outbox.note_read(task text, read_after timestamptz, began timestamptz, pages bigint, nothing_left boolean) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    mark CONSTANT text := note_read.task || ' mark';
    whole CONSTANT text := note_read.task || ' whole';
BEGIN
    IF read_after = '-infinity' THEN
        IF pages < 50 THEN
            DELETE FROM sms_outbox.maintenance AS m WHERE m.task IN (mark, whole);
            RETURN;
        END IF;
        INSERT INTO sms_outbox.maintenance (task, ran_at) VALUES (whole, began + pages * interval '1 millisecond')
        ON CONFLICT ON CONSTRAINT maintenance_pkey DO UPDATE SET ran_at = excluded.ran_at;
    END IF;
    -- Ten seconds for what has its time by then and commits later; what is later still, the next whole read finds.
    IF nothing_left THEN
        INSERT INTO sms_outbox.maintenance (task, ran_at) VALUES (mark, greatest(read_after, began - interval '10 seconds'))
        ON CONFLICT ON CONSTRAINT maintenance_pkey DO UPDATE SET ran_at = excluded.ran_at;
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.note_read(text, timestamptz, timestamptz, bigint, boolean) IS 'Keeps what read_from() tells: a task has read what was due after read_after and until it began, and so many pages of the index for it; nothing_left says that of it nothing is left. Internal: as read_from().';

CREATE FUNCTION sms_outbox.time_out_leases(max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    began CONSTANT timestamptz := clock_timestamp();
    read_after CONSTANT timestamptz := sms_outbox.read_from('time_out');
    pages_before CONSTANT bigint := pg_stat_get_xact_blocks_fetched('sms_outbox.lease_expiry'::regclass);
    found boolean;
    over sms_outbox.outcome[];
    concluded sms_outbox.concluded[];
BEGIN
    found := EXISTS (SELECT FROM sms_outbox.lease AS l WHERE l.expires_at > read_after AND l.expires_at <= began);
    IF found THEN
        SELECT array_agg(ROW(l.id, l.attempt, 'unclear', NULL, 'lease_expired',
                             'the worker did not report in time; it may have been sent', NULL, NULL, NULL)::sms_outbox.outcome)
          INTO over
          FROM (SELECT id, attempt FROM sms_outbox.lease WHERE expires_at > read_after AND expires_at <= began
                 ORDER BY expires_at LIMIT max_rows FOR UPDATE SKIP LOCKED) AS l;
    END IF;
    -- Before they are moved: the reads alone count. What another session holds is there still.
    PERFORM sms_outbox.note_read('time_out', read_after, began, pg_stat_get_xact_blocks_fetched('sms_outbox.lease_expiry'::regclass) - pages_before, NOT found);
    IF over IS NULL THEN
        RETURN 0;
    END IF;
    concluded := sms_outbox.conclude(NULL, over);
    PERFORM sms_outbox.note_app_health(concluded);
    RETURN cardinality(concluded);
END
$$;
COMMENT ON FUNCTION sms_outbox.time_out_leases(integer) IS 'Ends leases that are over as unclear. By the clock of this server alone.';

CREATE FUNCTION sms_outbox.stage_due(max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET cpu_operator_cost = 0 SET cpu_index_tuple_cost = 0 SET random_page_cost = 0 SET seq_page_cost = 0 SET enable_bitmapscan = off
AS $$
DECLARE
    began CONSTANT timestamptz := clock_timestamp();
    read_after CONSTANT timestamptz := sms_outbox.read_from('stage_due');
    pages_before CONSTANT bigint := pg_stat_get_xact_blocks_fetched('sms_outbox.scheduled_due'::regclass);
    found boolean;
    due_ids sms_outbox.message_id[];
    moved bigint;
BEGIN
    found := EXISTS (SELECT FROM sms_outbox.scheduled AS s WHERE s.due_at > read_after AND s.due_at <= began);
    IF found THEN
        due_ids := ARRAY(SELECT f.id FROM sms_outbox.scheduled AS f WHERE f.due_at > read_after AND f.due_at <= began
                          ORDER BY f.due_at LIMIT max_rows FOR UPDATE SKIP LOCKED);
    END IF;
    PERFORM sms_outbox.note_read('stage_due', read_after, began, pg_stat_get_xact_blocks_fetched('sms_outbox.scheduled_due'::regclass) - pages_before, NOT found);
    WITH due AS (
        DELETE FROM sms_outbox.scheduled AS s WHERE s.id = ANY (due_ids) RETURNING s.*
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
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET cpu_operator_cost = 0 SET cpu_index_tuple_cost = 0 SET random_page_cost = 0 SET seq_page_cost = 0 SET enable_bitmapscan = off
AS $$
DECLARE
    oldest CONSTANT timestamptz := now() - sms_outbox.setting('retention_pending')::interval;
    behind CONSTANT sms_outbox.message_id := (SELECT m."position" FROM sms_outbox.maintenance AS m WHERE m.task = 'expire');
    read_after CONSTANT timestamptz := sms_outbox.read_from('expire');
    pages_before CONSTANT bigint := pg_stat_get_xact_blocks_fetched('sms_outbox.ready_expiry'::regclass) + pg_stat_get_xact_blocks_fetched('sms_outbox.scheduled_expiry'::regclass);
    began timestamptz;
    reached sms_outbox.message_id;
    late sms_outbox.message_id[];
    found boolean;
    invalid sms_outbox.message_id[];
    invalid_scheduled sms_outbox.message_id[];
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
    began := clock_timestamp();
    invalid := ARRAY(SELECT r.id FROM sms_outbox.ready AS r WHERE r.valid_until > read_after AND r.valid_until <= began ORDER BY r.valid_until LIMIT max_rows);
    found := EXISTS (SELECT FROM sms_outbox.scheduled AS s WHERE s.valid_until > read_after AND s.valid_until <= began);
    IF found THEN
        invalid_scheduled := ARRAY(SELECT s.id FROM sms_outbox.scheduled AS s WHERE s.valid_until > read_after AND s.valid_until <= began
                                    ORDER BY s.valid_until LIMIT max_rows FOR UPDATE SKIP LOCKED);
    END IF;
    PERFORM sms_outbox.note_read('expire', read_after, began, pg_stat_get_xact_blocks_fetched('sms_outbox.ready_expiry'::regclass) + pg_stat_get_xact_blocks_fetched('sms_outbox.scheduled_expiry'::regclass) - pages_before,
        invalid = '{}' AND NOT found);
    WITH over AS (
        SELECT r.id, CASE WHEN r.valid_until <= began THEN 'valid_until' ELSE 'retention_pending' END AS reason
          FROM sms_outbox.ready AS r
         WHERE r.id = ANY (late || invalid) ORDER BY r.id FOR UPDATE SKIP LOCKED
    ), taken AS (
        DELETE FROM sms_outbox.ready AS r USING over AS o WHERE r.id = ANY (ARRAY(SELECT x.id FROM over AS x)) AND o.id = r.id
        RETURNING r.id, r.last_attempt, r.organization_id, o.reason
    ), taken_scheduled AS (
        DELETE FROM sms_outbox.scheduled AS s WHERE s.id = ANY (invalid_scheduled)
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
