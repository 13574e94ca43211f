-- The numbers that monitoring scrapes. Names, kinds and help stand in worker/src/metrics/catalog/database.rs.

CREATE FUNCTION sms_outbox.metrics() RETURNS TABLE (name text, labels jsonb, value double precision)
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
    -- Compiling would cost more than a million rows do.
    SET jit = off
AS $$
#variable_conflict use_column
DECLARE
    this_server CONSTANT integer := sms_outbox.server_id();
    at CONSTANT timestamptz := clock_timestamp();
    today CONSTANT date := (at AT TIME ZONE 'UTC')::date;
    kept CONSTANT interval := greatest(sms_outbox.setting('retention_sent')::interval, sms_outbox.setting('retention_failed')::interval);
BEGIN
    -- Numbers of all organizations: not for a login that acts for one. The API's logins act for none by themselves.
    IF NOT pg_has_role(session_user, 'sms_outbox_api', 'MEMBER') THEN
        PERFORM sms_outbox.require_organization(NULL);
    END IF;

    RETURN QUERY
    WITH unfinished AS (
        SELECT CASE WHEN r.server = this_server THEN 'pending' ELSE 'held' END AS status, r.priority, count(*) AS messages, min(r.since) AS oldest
          FROM sms_outbox.ready AS r GROUP BY 1, 2
        UNION ALL
        SELECT CASE WHEN s.server = this_server THEN 'scheduled' ELSE 'held' END, s.priority, count(*), min(s.since)
          FROM sms_outbox.scheduled AS s GROUP BY 1, 2
        UNION ALL
        SELECT 'sending', l.priority, count(*), min(l.started_at) FROM sms_outbox.lease AS l GROUP BY 2
    ), queue AS (
        SELECT jsonb_build_object('status', w.status, 'priority', p.word) AS labels, coalesce(sum(u.messages), 0) AS messages, min(u.oldest) AS oldest
          FROM unnest('{pending,scheduled,sending,held}'::text[]) AS w (status)
         CROSS JOIN (VALUES (0, 'urgent'), (1, 'normal'), (2, 'bulk')) AS p (priority, word)
          LEFT JOIN unfinished AS u ON u.status = w.status AND u.priority = p.priority
         GROUP BY 1
    ), finished AS (
        SELECT jsonb_build_object('status', e.status) AS labels, coalesce(sum(t.messages), 0) AS messages,
               coalesce(sum(t.messages) FILTER (WHERE t.minute > at - interval '1 hour'), 0) AS lately
          FROM unnest('{sent,failed,dispatch_timeout,canceled,expired}'::sms_outbox.dispatch_status[]) AS e (status)
          LEFT JOIN sms_outbox.tally AS t ON t.status = e.status
         GROUP BY 1
    ), app AS (
        -- Apps that were ever installed, so that none changes its label, which would make counters fall: the first hundred have
        -- their own, those after them share one.
        SELECT a.app_id, a.uninstalled_at IS NULL AS installed, a.paused_at IS NOT NULL OR o.paused_at IS NOT NULL AS paused, h.blocked_reason,
               jsonb_build_object('provider', a.provider_slug, 'organization_app_id',
                   CASE WHEN row_number() OVER (ORDER BY a.app_id) <= 100 THEN a.app_id::text ELSE 'other' END) AS labels
          FROM sms_outbox.organization_app AS a
          JOIN sms_outbox.organization AS o ON o.organization_id = a.organization_id
          LEFT JOIN sms_outbox.app_health AS h ON h.app_id = a.app_id
    ), attempted AS (
        SELECT t.app_id, t.status, sum(t.attempts) AS attempts FROM sms_outbox.app_tally AS t GROUP BY 1, 2
    ), leased AS (
        SELECT l.app_id, count(*) AS attempts FROM sms_outbox.lease AS l GROUP BY 1
    ), holder AS (
        SELECT 'session' AS kind, s.xact_start AS since, greatest(age(s.backend_xmin), age(s.backend_xid)) AS transactions
          FROM pg_stat_activity AS s
         WHERE (s.backend_xmin IS NOT NULL OR s.backend_xid IS NOT NULL) AND s.pid <> pg_backend_pid()
           AND (s.datname = current_database() OR s.datname IS NULL)
        UNION ALL
        SELECT 'prepared', p.prepared, age(p.transaction) FROM pg_prepared_xacts AS p WHERE p.database = current_database()
        UNION ALL
        SELECT 'slot', NULL, age(r.xmin) FROM pg_replication_slots AS r WHERE r.xmin IS NOT NULL
    ), task AS (
        -- One that goes on at once has no time.
        SELECT m.task, m.ran_at FROM sms_outbox.maintenance AS m WHERE isfinite(m.ran_at)
    ), day AS (
        SELECT max(p.day) AS last, min(p.day) AS first FROM sms_outbox.partitions() AS p
    ), number (name, labels, value) AS (
        SELECT 'queue_messages', q.labels, q.messages::double precision FROM queue AS q
        UNION ALL
        SELECT 'queue_oldest_seconds', q.labels, greatest(extract(epoch FROM at - q.oldest), 0) FROM queue AS q
        UNION ALL
        SELECT 'ended_messages', f.labels, f.messages FROM finished AS f
        UNION ALL
        SELECT 'ended_last_hour_messages', f.labels, greatest(f.lately, 0) FROM finished AS f
        UNION ALL
        SELECT 'app_attempts_total', a.labels || jsonb_build_object('outcome', w.outcome), coalesce(sum(t.attempts), 0)
          FROM app AS a CROSS JOIN unnest(enum_range(NULL::sms_outbox.attempt_status)) AS w (outcome)
          LEFT JOIN attempted AS t ON t.app_id = a.app_id AND t.status = w.outcome
         WHERE a.installed OR t.app_id IS NOT NULL GROUP BY 2
        UNION ALL
        SELECT 'app_in_flight', a.labels, coalesce(sum(l.attempts), 0)
          FROM app AS a LEFT JOIN leased AS l ON l.app_id = a.app_id WHERE a.installed OR l.app_id IS NOT NULL GROUP BY 2
        UNION ALL
        SELECT 'app_breakers_open', a.labels || jsonb_build_object('reason', w.word), count(*) FILTER (WHERE a.blocked_reason = w.reason)
          FROM app AS a CROSS JOIN (VALUES ('account', 'account_refused'), ('failing', 'breaker_open')) AS w (reason, word) WHERE a.installed GROUP BY 2
        UNION ALL
        SELECT 'app_paused', a.labels, count(*) FILTER (WHERE a.paused) FROM app AS a WHERE a.installed GROUP BY 2
        UNION ALL
        SELECT 'workers_alive', '{}', count(*) FROM sms_outbox.worker AS w WHERE w.heartbeat_at > at - interval '10 seconds'
        UNION ALL
        SELECT 'maintenance_last_run_timestamp_seconds', jsonb_build_object('task', t.task), extract(epoch FROM t.ran_at) FROM task AS t
        UNION ALL
        -- One that never ran is as old as the first organization.
        SELECT 'maintenance_age_seconds', '{}', coalesce(greatest(extract(epoch FROM at - coalesce(max(t.ran_at),
                   (SELECT min(o.created_at) FROM sms_outbox.organization AS o))), 0), 0) FROM task AS t
        UNION ALL
        SELECT 'leases_overdue', '{}', count(*) FROM sms_outbox.lease AS l WHERE l.expires_at < at - interval '30 seconds'
        UNION ALL
        SELECT 'partitions_ahead', '{}', greatest(d.last - today, 0) FROM day AS d WHERE d.last IS NOT NULL
        UNION ALL
        SELECT 'retention_lag_seconds', '{}', coalesce(greatest(extract(epoch FROM at - kept - (d.first + 1)::timestamp AT TIME ZONE 'UTC'), 0), 0) FROM day AS d
        UNION ALL
        SELECT 'horizon_age_seconds', jsonb_build_object('holder', k.kind), coalesce(greatest(extract(epoch FROM at - min(h.since)), 0), 0)
          FROM (VALUES ('session'), ('prepared')) AS k (kind) LEFT JOIN holder AS h ON h.kind = k.kind GROUP BY 2
        UNION ALL
        SELECT 'horizon_transactions', '{}', coalesce(max(h.transactions), 0) FROM holder AS h
        UNION ALL
        SELECT 'prepared_transactions', '{}', count(*) FROM pg_prepared_xacts
    )
    SELECT 'sms_outbox_' || n.name, n.labels, n.value FROM number AS n;
END
$$;
COMMENT ON FUNCTION sms_outbox.metrics() IS 'The numbers that monitoring scrapes, of all organizations, as the API shows them on /metrics: name, labels and value of each. No label names an organization, a message or a person. One statement, one snapshot; it counts what waits, which costs a fifth of a second for each million.';
