-- What workers read: what waits, and who could send it. Reads only; order and fairness are the worker's to decide.

CREATE FUNCTION sms_outbox.look(
    priorities smallint[], after_xid xid8[], after_id sms_outbox.message_id[], before_xid xid8[],
    page integer, organizations text[] DEFAULT NULL)
    RETURNS TABLE (snapshot pg_snapshot, range integer, id sms_outbox.message_id, organization_id text, priority smallint,
                   xid xid8, preferred_provider_slug text, refused_by bigint[], avoid bigint[], log bigint)
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    ranges CONSTANT integer := coalesce(cardinality(priorities), 0);
    seen CONSTANT pg_snapshot := pg_current_snapshot();
    this_server integer;
    this_log bigint;
    n integer;
BEGIN
    -- A standby's snapshot does not list the transactions that run: marks would pass late commits without a word.
    IF pg_is_in_recovery() THEN
        RAISE EXCEPTION 'this server is a standby; the queue is read on the primary'
            USING ERRCODE = '25006', HINT = 'Connect workers to the primary, for example with target_session_attrs=read-write.';
    END IF;
    this_server := sms_outbox.server_id();
    -- After a crash, numbers of transactions that were not durable are given again, behind marks that have passed them. Statistics
    -- begin anew then, and only then or when somebody resets them: reading the log once more does no harm.
    this_log := hashtextextended(concat_ws(' ', this_server, extract(epoch FROM pg_stat_get_bgwriter_stat_reset_time())), 0);
    IF ranges NOT BETWEEN 1 AND 1000 OR ranges <> coalesce(cardinality(after_xid), 0)
       OR ranges <> coalesce(cardinality(after_id), 0) OR ranges <> coalesce(cardinality(before_xid), 0) THEN
        RAISE EXCEPTION 'priorities, after_xid, after_id and before_xid must have the same 1 to 1000 elements'
            USING ERRCODE = '22023', COLUMN = 'priorities';
    END IF;
    IF page IS NULL OR page NOT BETWEEN 1 AND 100000 THEN
        RAISE EXCEPTION 'page: % is not between 1 and 100000', page USING ERRCODE = '22023', COLUMN = 'page';
    END IF;
    -- The function is STABLE: this snapshot is the one that every query below reads with.
    RETURN QUERY SELECT seen, NULL::integer, NULL::sms_outbox.message_id, NULL::text, NULL::smallint, NULL::xid8, NULL::text, NULL::bigint[], NULL::bigint[], this_log;
    FOR n IN 1..ranges LOOP
        IF organizations IS NULL THEN
            RETURN QUERY
            SELECT NULL::pg_snapshot, n, r.id, r.organization_id, r.priority, r.xid, r.preferred_provider_slug, r.refused_by, r.avoid, NULL::bigint
              FROM sms_outbox.ready AS r
             WHERE r.server = this_server AND r.priority = priorities[n]
               AND (r.xid, r.id) > (after_xid[n], after_id[n])
               AND r.xid < coalesce(before_xid[n], pg_snapshot_xmax(seen))
             ORDER BY r.xid, r.id LIMIT page;
        ELSE
            RETURN QUERY
            SELECT NULL::pg_snapshot, n, r.id, r.organization_id, r.priority, r.xid, r.preferred_provider_slug, r.refused_by, r.avoid, NULL::bigint
              FROM sms_outbox.ready AS r
             WHERE r.server = this_server AND r.priority = priorities[n]
               AND (r.xid, r.id) > (after_xid[n], after_id[n])
               AND r.xid < coalesce(before_xid[n], pg_snapshot_xmax(seen))
               AND r.organization_id = ANY (organizations)
             ORDER BY r.xid, r.id LIMIT page;
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION sms_outbox.look(smallint[], xid8[], sms_outbox.message_id[], xid8[], integer, text[]) IS
'Reads the log of waiting messages. Range n is: this priority, behind (after_xid, after_id), before transaction before_xid (NULL: the end of the snapshot), at most page rows, only these organizations where given. The first row is the header: it holds no message, but the snapshot of this very read, and the identity of the log, in which places mean nothing when it differs from that of the last read (after a promotion or a restore, and after a crash): read from the beginning then. A range that returned fewer than page rows is read to its end. A reader whose mark passes a transaction that the snapshot shows in progress must read that transaction''s rows again, by exact xid, once a later snapshot shows it ended. Rows that another server queued (before a restore, clone or promotion) are not shown: see release_held.';

-- One place for 'may this app be handed a message now'.
CREATE VIEW sms_outbox.app_state AS
SELECT a.app_id, a.organization_id, a.provider_slug,
       CASE WHEN a.paused_at IS NOT NULL OR o.paused_at IS NOT NULL THEN 'paused'
            WHEN h.blocked_until > pg_catalog.clock_timestamp() THEN 'blocked'
            WHEN h.blocked_until IS NOT NULL AND h.blocked_reason <> 'throttled' THEN 'probe'
            ELSE 'open' END AS state,
       CASE WHEN o.paused_at IS NOT NULL THEN 'organization_paused'
            WHEN a.paused_at IS NOT NULL THEN 'app_paused'
            WHEN h.blocked_until IS NULL OR (h.blocked_reason = 'throttled' AND h.blocked_until <= pg_catalog.clock_timestamp()) THEN NULL
            WHEN h.blocked_reason = 'account' THEN 'account_refused'
            WHEN h.blocked_reason = 'throttled' THEN 'throttled'
            ELSE 'breaker_open' END AS reason,
       greatest(pg_catalog.date_part('epoch', h.blocked_until - pg_catalog.clock_timestamp()), 0) AS blocked_seconds
  FROM sms_outbox.organization_app AS a
  JOIN sms_outbox.organization AS o ON o.organization_id = a.organization_id
  LEFT JOIN sms_outbox.app_health AS h ON h.app_id = a.app_id
 WHERE a.uninstalled_at IS NULL;
COMMENT ON VIEW sms_outbox.app_state IS 'Installed apps and whether they may be used now: open, paused, blocked (by breaker or throttle), or probe (the breaker lets one message through). reason says why not.';

CREATE FUNCTION sms_outbox.apps(organizations text[])
    RETURNS TABLE (app_id bigint, organization_id text, provider_slug text, name text, "position" integer, weight integer,
                   max_in_flight integer, rate double precision, rate_unit text, burst integer, state text, blocked_seconds double precision)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL RESTRICTED
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
BEGIN
    RETURN QUERY
    SELECT a.app_id, a.organization_id, a.provider_slug, a.name, a."position", a.weight, a.max_in_flight, a.rate, a.rate_unit,
           coalesce(a.burst, ceil(a.rate)::integer), s.state, s.blocked_seconds
      FROM sms_outbox.organization_app AS a JOIN sms_outbox.app_state AS s ON s.app_id = a.app_id
     WHERE a.organization_id = ANY (organizations) AND a.uninstalled_at IS NULL
     ORDER BY a.organization_id, a."position", a.app_id;
END
$$;
COMMENT ON FUNCTION sms_outbox.apps(text[]) IS 'The installed apps of these organizations, with the limits that hold over the whole fleet (burst: most messages, or segments, at once after a pause; NULL where rate is) and whether each may be used now (open, paused, blocked for blocked_seconds, probe). No credentials: those come with a claim.';

CREATE FUNCTION sms_outbox.heartbeat(worker text, version text, host text, in_flight integer, claimed bigint, sent bigint, failed bigint)
    RETURNS SETOF text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    before CONSTANT timestamptz := (SELECT w.heartbeat_at FROM sms_outbox.worker AS w WHERE w.worker = heartbeat.worker);
BEGIN
    IF heartbeat.worker IS NULL OR length(heartbeat.worker) NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'worker: a name of 1 to 100 characters is needed' USING ERRCODE = '22023', COLUMN = 'worker';
    END IF;
    INSERT INTO sms_outbox.worker AS w (worker, version, host, started_at, heartbeat_at, in_flight, claimed, sent, failed)
    VALUES (heartbeat.worker, heartbeat.version, heartbeat.host, now(), clock_timestamp(),
            heartbeat.in_flight, heartbeat.claimed, heartbeat.sent, heartbeat.failed)
    ON CONFLICT ON CONSTRAINT worker_pkey DO UPDATE
       SET version = excluded.version, host = excluded.host, heartbeat_at = excluded.heartbeat_at, in_flight = excluded.in_flight,
           claimed = excluded.claimed, sent = excluded.sent, failed = excluded.failed,
           started_at = CASE WHEN excluded.claimed < w.claimed THEN excluded.started_at ELSE w.started_at END;
    -- Whoever misses five beats gets no share any more. Counted from this worker's last beat but one: where the database was
    -- away nobody could beat, and the first to come back would take the limits of all.
    RETURN QUERY SELECT w.worker FROM sms_outbox.worker AS w
                  WHERE w.heartbeat_at > coalesce(before, clock_timestamp()) - interval '10 seconds' ORDER BY w.worker;
END
$$;
COMMENT ON FUNCTION sms_outbox.heartbeat(text, text, text, integer, bigint, bigint, bigint) IS 'Says that this worker lives, with its attempts in flight and its counters since its start; to be called every 2 seconds. Returns the names of all workers heard of in the 10 seconds before this one''s last call, this one included: the work is shared among them. A worker that is new among others claims nothing until they have had time for a call.';

CREATE FUNCTION sms_outbox.goodbye(worker text) RETURNS void
    LANGUAGE sql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
    DELETE FROM sms_outbox.worker AS w WHERE w.worker = goodbye.worker
$$;
COMMENT ON FUNCTION sms_outbox.goodbye(text) IS 'Called by a worker that has ended in order: the others take over its share at once, instead of after 10 seconds.';
