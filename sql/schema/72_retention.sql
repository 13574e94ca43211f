-- Retention: whole partitions are dropped; what must go from a partition that stays is deleted in batches.

CREATE FUNCTION sms_outbox.is_day_over(lower_id sms_outbox.message_id, upper_id sms_outbox.message_id, sent_before timestamptz) RETURNS boolean
    LANGUAGE sql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT NOT EXISTS (SELECT FROM sms_outbox.ready AS r WHERE r.id >= lower_id AND r.id < upper_id)
       AND NOT EXISTS (SELECT FROM sms_outbox.scheduled AS s WHERE s.id >= lower_id AND s.id < upper_id)
       AND NOT EXISTS (SELECT FROM sms_outbox.lease AS l WHERE l.id >= lower_id AND l.id < upper_id)
       AND NOT EXISTS (SELECT FROM sms_outbox.ended AS e WHERE e.id >= lower_id AND e.id < upper_id)
       -- The counts know it to the minute; the attempts of a day may be ten millions, and this is asked under the lock of a drop.
       AND NOT EXISTS (SELECT FROM sms_outbox.tally AS t
                        WHERE t.day = sms_outbox.day_of(lower_id) AND t.status = 'sent' AND t.minute > sent_before - interval '1 minute')
$$;
COMMENT ON FUNCTION sms_outbox.is_day_over(sms_outbox.message_id, sms_outbox.message_id, timestamptz) IS 'Whether every message between these ids is sent, and was before that time.';

CREATE FUNCTION sms_outbox.drop_day(day date, sent_before timestamptz) RETURNS boolean
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    partition record;
    patience CONSTANT text := current_setting('lock_timeout');
BEGIN
    SELECT * INTO partition FROM sms_outbox.partitions() AS p WHERE p.day = drop_day.day;
    -- A waiting DROP makes every enqueue wait behind it, since it locks the parents too: not while somebody uses this day, nor
    -- while a transaction that lasts uses any other; and never for long. A prepared transaction has no pid.
    PERFORM pg_stat_clear_snapshot();
    IF EXISTS (SELECT FROM pg_locks AS k LEFT JOIN pg_stat_activity AS s ON s.pid = k.pid
                WHERE k.locktype = 'relation' AND k.database = (SELECT d.oid FROM pg_database AS d WHERE d.datname = current_database())
                  AND k.pid IS DISTINCT FROM pg_backend_pid()
                  AND (k.relation IN (partition.message, partition.attempt)
                       OR k.relation IN ('sms_outbox.message'::regclass, 'sms_outbox.attempt'::regclass)
                          AND (k.pid IS NULL OR s.xact_start < clock_timestamp() - interval '50 ms'))) THEN
        RETURN false;
    END IF;
    BEGIN
        PERFORM set_config('lock_timeout', '50ms', true);
        EXECUTE format('LOCK TABLE %s, %s IN ACCESS EXCLUSIVE MODE', partition.message, partition.attempt);
        -- Only now, in a new statement: a late writer may have come before the lock.
        IF NOT sms_outbox.is_day_over(partition.lower_id, partition.upper_id, sent_before) THEN
            PERFORM set_config('lock_timeout', patience, true);
            RETURN false;
        END IF;
        DELETE FROM sms_outbox.tally AS t WHERE t.day = drop_day.day;
        INSERT INTO sms_outbox.maintenance (task, ran_at, "position") VALUES ('sweep ' || to_char(drop_day.day, 'YYYYMMDD'), '-infinity', partition.lower_id)
        ON CONFLICT ON CONSTRAINT maintenance_pkey DO UPDATE SET "position" = excluded."position";
        -- The drop locks the parents, until the commit: so it comes last, and message, which enqueues need, last in it.
        EXECUTE format('DROP TABLE %s, %s', partition.attempt, partition.message);
        PERFORM set_config('lock_timeout', patience, true);
        RETURN true;
    EXCEPTION WHEN lock_not_available THEN
        RETURN false;
    END;
END
$$;
COMMENT ON FUNCTION sms_outbox.drop_day(date, timestamptz) IS 'Drops the partitions of a day whose messages were all sent before that time; says whether it did. It gives up where it would have to wait for more than 50 ms, to be called again.';

CREATE FUNCTION sms_outbox.forget(gone sms_outbox.message_id[]) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
BEGIN
    DELETE FROM sms_outbox.idempotency AS i
     USING sms_outbox.message AS m
     WHERE m.id = ANY (gone) AND m.idempotency_key IS NOT NULL
       AND i.organization_id = m.organization_id AND i.key = m.idempotency_key AND i.id = m.id;
    WITH counted AS (
        SELECT sms_outbox.day_of(m.id) AS day, sms_outbox.status_of(m.id) AS status, m.organization_id, count(*) AS messages
          FROM sms_outbox.message AS m WHERE m.id = ANY (gone) GROUP BY 1, 2, 3
    )
    INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
    SELECT c.day, '-infinity', c.status, -c.messages, c.organization_id FROM counted AS c WHERE c.status IS NOT NULL;
    DELETE FROM sms_outbox.ended AS e WHERE e.id = ANY (gone);
    DELETE FROM sms_outbox.receipt AS r WHERE r.id = ANY (gone);
    DELETE FROM sms_outbox.evidence AS v WHERE v.id = ANY (gone);
    DELETE FROM sms_outbox.look_up AS u WHERE u.id = ANY (gone);
    DELETE FROM sms_outbox.attempt AS a WHERE a.id = ANY (gone);
    DELETE FROM sms_outbox.message AS m WHERE m.id = ANY (gone);
END
$$;
COMMENT ON FUNCTION sms_outbox.forget(sms_outbox.message_id[]) IS 'Deletes ended messages with all that belongs to them. Internal: prune() calls it.';

CREATE FUNCTION sms_outbox.prune_keys(lower_id sms_outbox.message_id, upper_id sms_outbox.message_id, max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    most CONSTANT integer := max_rows * 10;
    behind sms_outbox.message_id;
    reached sms_outbox.message_id;
    read bigint;
    batch sms_outbox.message_id[];
BEGIN
    SELECT m."position" INTO behind FROM sms_outbox.maintenance AS m WHERE m.task = 'prune' AND m."position" >= lower_id AND m."position" < upper_id;
    -- Few messages have a key, perhaps none: what is read is bounded, not what is found.
    SELECT count(*), (array_agg(k.id ORDER BY k.id DESC))[1], array_agg(k.id) FILTER (WHERE k.keyed) INTO read, reached, batch
      FROM (SELECT m.id, m.idempotency_key IS NOT NULL AS keyed FROM sms_outbox.message AS m
             WHERE m.id >= coalesce(behind, lower_id) AND m.id < upper_id ORDER BY m.id LIMIT most) AS k;
    DELETE FROM sms_outbox.idempotency AS i
     USING sms_outbox.message AS m
     WHERE m.id = ANY (batch) AND i.organization_id = m.organization_id AND i.key = m.idempotency_key AND i.id = m.id;
    UPDATE sms_outbox.maintenance AS m SET "position" = coalesce(reached, behind) WHERE m.task = 'prune';
    RETURN CASE WHEN read < most THEN 0 ELSE max_rows END;
END
$$;
COMMENT ON FUNCTION sms_outbox.prune_keys(sms_outbox.message_id, sms_outbox.message_id, integer) IS 'Forgets the next idempotency keys of a day that is about to be dropped; 0 when none are left. Internal: prune() calls it.';

CREATE FUNCTION sms_outbox.sweep_dropped_days(max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    swept record;
    upper_id sms_outbox.message_id;
    batch sms_outbox.message_id[];
    moved bigint := 0;
BEGIN
    FOR swept IN SELECT m.task, m."position" AS lower_id FROM sms_outbox.maintenance AS m WHERE m.task LIKE 'sweep %' ORDER BY m.task LOOP
        upper_id := sms_outbox.id_floor((to_date(right(swept.task, 8), 'YYYYMMDD') + 1)::timestamp AT TIME ZONE 'UTC');
        SELECT array_agg(DISTINCT f.id ORDER BY f.id) INTO batch
          FROM ((SELECT r.id FROM sms_outbox.receipt AS r WHERE r.id >= swept.lower_id AND r.id < upper_id ORDER BY r.id LIMIT max_rows)
                UNION ALL (SELECT v.id FROM sms_outbox.evidence AS v WHERE v.id >= swept.lower_id AND v.id < upper_id ORDER BY v.id LIMIT max_rows)
                UNION ALL (SELECT u.id FROM sms_outbox.look_up AS u WHERE u.id >= swept.lower_id AND u.id < upper_id ORDER BY u.id LIMIT max_rows)
                ORDER BY 1 LIMIT max_rows) AS f;
        IF batch IS NULL THEN
            DELETE FROM sms_outbox.maintenance AS m WHERE m.task = swept.task;
            CONTINUE;
        END IF;
        DELETE FROM sms_outbox.receipt AS r WHERE r.id = ANY (batch);
        DELETE FROM sms_outbox.evidence AS v WHERE v.id = ANY (batch);
        DELETE FROM sms_outbox.look_up AS u WHERE u.id = ANY (batch);
        -- Where to go on: what was deleted is not read again, however long a reader keeps it from being cleaned away.
        UPDATE sms_outbox.maintenance AS m SET "position" = batch[cardinality(batch)] WHERE m.task = swept.task;
        moved := moved + cardinality(batch);
        EXIT WHEN moved >= max_rows;
    END LOOP;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION sms_outbox.sweep_dropped_days(integer) IS 'Deletes receipts and evidence of days that were dropped, so many messages at most; returns of how many. After the drop, when no more can come: a receipt is recorded only where its attempt is. Internal: prune() calls it.';

CREATE FUNCTION sms_outbox.prune(max_rows integer) RETURNS bigint
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
DECLARE
    sent_before CONSTANT timestamptz := now() - sms_outbox.setting('retention_sent')::interval;
    failed_before CONSTANT timestamptz := now() - sms_outbox.setting('retention_failed')::interval;
    partition record;
    batch sms_outbox.message_id[];
    moved bigint := 0;
BEGIN
    -- Not while another session folds the counts: those of a dropped day would come back.
    PERFORM FROM sms_outbox.maintenance AS m WHERE m.task = 'fold' FOR UPDATE;
    -- Workers that went without a goodbye.
    DELETE FROM sms_outbox.worker AS w WHERE w.heartbeat_at < now() - interval '1 day';
    -- Today's is needed, in any time zone.
    DELETE FROM sms_outbox.usage_day AS u WHERE u.day < (now() AT TIME ZONE 'UTC')::date - 2;
    DELETE FROM sms_outbox.refusal AS r WHERE r.day < (now() AT TIME ZONE 'UTC')::date - 30;
    moved := sms_outbox.sweep_dropped_days(max_rows);
    IF moved >= max_rows THEN
        RETURN moved;
    END IF;
    FOR partition IN
        SELECT * FROM sms_outbox.partitions() AS p
         WHERE p.day + 1 <= (greatest(sent_before, failed_before) AT TIME ZONE 'UTC')::date ORDER BY p.day
    LOOP
        SELECT array_agg(f.id) INTO batch
          FROM (SELECT e.id FROM sms_outbox.ended AS e
                 WHERE e.id >= partition.lower_id AND e.id < partition.upper_id AND e.ended_at < failed_before
                 ORDER BY e.id LIMIT max_rows FOR UPDATE SKIP LOCKED) AS f;
        IF batch IS NOT NULL THEN
            PERFORM sms_outbox.forget(batch);
            moved := moved + cardinality(batch);
        END IF;
        IF moved >= max_rows THEN
            RETURN moved;
        END IF;
        IF sms_outbox.is_day_over(partition.lower_id, partition.upper_id, sent_before) THEN
            moved := moved + sms_outbox.prune_keys(partition.lower_id, partition.upper_id, max_rows);
            IF moved >= max_rows THEN
                RETURN moved;
            END IF;
            IF sms_outbox.drop_day(partition.day, sent_before) THEN
                -- The parents stay locked until the commit: that must come now, and the other days with the next call.
                RETURN max_rows;
            END IF;
        ELSIF (partition.day + 2)::timestamp AT TIME ZONE 'UTC' < sent_before THEN
            -- A day later it is still not over, as it would be if its last messages had only ended a while after midnight: it stays
            -- for a few of its messages, and the sent ones go one by one.
            SELECT array_agg(f.id) INTO batch
              FROM (SELECT a.id FROM sms_outbox.attempt AS a
                     WHERE a.id >= partition.lower_id AND a.id < partition.upper_id AND a.status = 'accepted' AND a.finished_at < sent_before
                       AND NOT EXISTS (SELECT FROM sms_outbox.lease AS l WHERE l.id = a.id)
                     ORDER BY a.id LIMIT max_rows) AS f;
            IF batch IS NOT NULL THEN
                PERFORM sms_outbox.forget(batch);
                moved := moved + cardinality(batch);
            END IF;
            IF moved >= max_rows THEN
                RETURN moved;
            END IF;
        END IF;
    END LOOP;
    RETURN moved;
END
$$;
COMMENT ON FUNCTION sms_outbox.prune(integer) IS 'Deletes what was kept long enough: sent messages after the setting sms_outbox.retention_sent, every other end after sms_outbox.retention_failed, both counted from the end. Equal settings let whole days be dropped; with different ones the days stay until the longer is over, and rows are deleted. A message that waits or is being sent is never deleted.';
