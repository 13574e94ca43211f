-- What an operator must know at 3 a.m., each with its cure.

CREATE FUNCTION sms_outbox.counted(amount bigint, noun text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN amount || ' ' || noun || CASE WHEN amount = 1 THEN '' ELSE 's' END;
COMMENT ON FUNCTION sms_outbox.counted(bigint, text) IS '1 message, 2 messages. Internal: health_checks() calls it.';

CREATE FUNCTION sms_outbox.health_checks() RETURNS TABLE ("check" text, status text, detail text)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
DECLARE
    this_server CONSTANT integer := sms_outbox.server_id();
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
    alive integer;
    oldest interval;
    amount bigint;
    perhaps bigint;
    perhaps_names text;
    last_day date;
    first_day date;
    names text;
    since timestamptz;
BEGIN
    SELECT count(*) INTO alive FROM sms_outbox.worker AS w WHERE w.heartbeat_at > clock_timestamp() - interval '10 seconds';
    -- The head of the log of each priority, not the whole queue.
    SELECT max(now() - head.since) INTO oldest
      FROM generate_series(0, 2) AS p (priority)
      CROSS JOIN LATERAL (SELECT r.since FROM sms_outbox.ready AS r
                           WHERE r.server = this_server AND r.priority = p.priority ORDER BY r.xid, r.id LIMIT 1) AS head;
    "check" := 'worker_alive';
    status := CASE WHEN alive > 0 THEN 'ok' WHEN oldest IS NOT NULL THEN 'critical' ELSE 'warn' END;
    detail := CASE WHEN alive > 0 THEN alive || ' alive' ELSE 'no worker has reported in the last 10 s; start one: sms-outbox worker' END;
    RETURN NEXT;

    "check" := 'old_pending';
    status := CASE WHEN oldest > interval '1 hour' THEN 'critical' WHEN oldest > interval '5 minutes' THEN 'warn' ELSE 'ok' END;
    detail := CASE WHEN oldest IS NULL THEN 'nothing waits' ELSE 'the oldest due message waits for ' || date_trunc('second', oldest)
              || CASE WHEN oldest > interval '5 minutes' THEN '; see sms_outbox.waiting for the reasons' ELSE '' END END;
    RETURN NEXT;

    SELECT count(*) INTO amount FROM (SELECT FROM sms_outbox.lease AS l WHERE l.expires_at < clock_timestamp() - interval '30 seconds' LIMIT 1000) AS stuck;
    "check" := 'stuck_sending';
    status := CASE WHEN amount > 0 THEN 'critical' ELSE 'ok' END;
    detail := CASE WHEN amount > 0 THEN sms_outbox.counted(amount, 'lease') || ' over for more than 30 s; maintenance does not run: see background_worker' ELSE 'none' END;
    RETURN NEXT;

    "check" := 'background_worker';
    IF EXISTS (SELECT FROM pg_stat_activity AS s WHERE s.backend_type = 'sms_outbox maintainer' AND s.datname = current_database()) THEN
        status := 'ok';
        detail := 'alive';
    ELSIF position('sms_outbox' IN current_setting('shared_preload_libraries')) = 0 THEN
        status := 'warn';
        detail := 'sms_outbox is not in shared_preload_libraries: no wake-ups on commit, and any scheduler must call sms_outbox.run_maintenance() each second; add it and restart the server';
    ELSE
        status := 'critical';
        detail := 'not running in this database although preloaded; see the server''s log';
    END IF;
    RETURN NEXT;

    SELECT max(p.day), min(p.day) INTO last_day, first_day FROM sms_outbox.partitions() AS p;
    "check" := 'partitions_ahead';
    status := CASE WHEN last_day IS NULL THEN 'ok' WHEN last_day <= today THEN 'critical' WHEN last_day < today + 3 THEN 'warn' ELSE 'ok' END;
    detail := CASE WHEN last_day IS NULL THEN 'none yet; the first install_app makes them' ELSE 'made up to ' || last_day
              || CASE WHEN last_day < today + 3 THEN '; call sms_outbox.prepare_partitions()' ELSE '' END END;
    RETURN NEXT;

    "check" := 'retention';
    amount := today - first_day - ceil(extract(epoch FROM greatest(sms_outbox.setting('retention_sent')::interval, sms_outbox.setting('retention_failed')::interval)) / 86400);
    status := CASE WHEN amount > 3 THEN 'warn' ELSE 'ok' END;
    detail := CASE WHEN amount > 3 THEN 'the partition of ' || first_day || ' is ' || amount || ' days behind: it holds an unfinished message, or somebody reads it all the time'
              ELSE 'up to date' END;
    RETURN NEXT;

    SELECT count(*) INTO amount FROM (
        (SELECT FROM sms_outbox.ready AS r WHERE r.server < this_server LIMIT 10000)
        UNION ALL (SELECT FROM sms_outbox.ready AS r WHERE r.server > this_server LIMIT 10000)
        UNION ALL (SELECT FROM sms_outbox.scheduled AS s WHERE s.server <> this_server LIMIT 10000)) AS held;
    "check" := 'held';
    status := CASE WHEN amount > 0 THEN 'warn' ELSE 'ok' END;
    detail := CASE WHEN amount > 0 THEN CASE WHEN amount >= 10000 THEN '10000 or more messages' ELSE sms_outbox.counted(amount, 'message') END
              || CASE WHEN amount = 1 THEN ' was' ELSE ' were' END || ' queued by another server (restore, clone or promotion) and not sent; when that server sends nothing any more: SELECT sms_outbox.release_held()'
              ELSE 'none' END;
    RETURN NEXT;

    SELECT coalesce(sum(g.messages), 0), min(g.oldest),
           array_to_string((array_agg(g.messages || ' by app ' || g.app_id || coalesce(' (' || g.provider_slug || ')', '') ORDER BY g.messages DESC, g.app_id))[1:3], ', ')
      INTO amount, since, names
      FROM (SELECT a.app_id, p.provider_slug, count(*) AS messages, min(u.ended_at) AS oldest
              -- By organization: so the index finds them among all ends.
              FROM (SELECT e.id, e.ended_at
                      FROM sms_outbox.organization AS o
                      CROSS JOIN LATERAL (SELECT d.id, d.ended_at FROM sms_outbox.ended AS d
                                           WHERE d.organization_id = o.organization_id AND d.status = 'dispatch_timeout' LIMIT 1000) AS e
                     LIMIT 1000) AS u
              CROSS JOIN LATERAL (SELECT t.app_id FROM sms_outbox.attempt AS t WHERE t.id = u.id AND t.status = 'unclear' ORDER BY t.attempt DESC LIMIT 1) AS a
              LEFT JOIN sms_outbox.organization_app AS p ON p.app_id = a.app_id
             GROUP BY 1, 2) AS g;
    "check" := 'unclear';
    status := CASE WHEN amount > 0 THEN 'warn' ELSE 'ok' END;
    detail := CASE WHEN amount > 0 THEN CASE WHEN amount >= 1000 THEN '1000 or more messages' ELSE sms_outbox.counted(amount, 'message') END
              || ' may have been sent or not, the first since ' || to_char(since AT TIME ZONE 'UTC', 'YYYY-MM-DD HH24:MI') || ' UTC: ' || names
              || '; how to decide: docs/guides/unclear.md' ELSE 'none' END;
    RETURN NEXT;

    -- What was accepted twice was unclear once, and there is evidence of it. The newest ends of the evidence, not all of it. Where
    -- it came after a retry, the next attempt may be in flight, or may have ended as unclear: nobody can call that one back.
    SELECT count(*) FILTER (WHERE d.twice), array_to_string((array_agg(d.id::text ORDER BY d.id DESC) FILTER (WHERE d.twice))[1:3], ', '),
           count(*) FILTER (WHERE NOT d.twice), array_to_string((array_agg(d.id::text ORDER BY d.id DESC) FILTER (WHERE NOT d.twice))[1:3], ', ')
      INTO amount, names, perhaps, perhaps_names
      FROM (SELECT v.id, (SELECT count(*) FROM sms_outbox.attempt AS a WHERE a.id = v.id AND a.status = 'accepted') > 1 AS twice
              FROM (SELECT DISTINCT n.id FROM (SELECT e.* FROM sms_outbox.evidence AS e ORDER BY e.id DESC LIMIT 10000) AS n
                     WHERE n.verdict = 'accepted' AND n.at > now() - interval '1 day') AS v) AS d
     WHERE d.twice OR sms_outbox.has_unclear(d.id) OR EXISTS (SELECT FROM sms_outbox.lease AS l WHERE l.id = d.id);
    "check" := 'sent_twice';
    status := CASE WHEN amount + perhaps > 0 THEN 'warn' ELSE 'ok' END;
    detail := CASE WHEN amount + perhaps = 0 THEN 'none in the last day' ELSE concat_ws('; ',
        CASE WHEN amount > 0 THEN sms_outbox.counted(amount, 'message') || ' of which a provider turned out in the last day to have accepted two attempts, so the recipient may have got it twice: ' || names END,
        CASE WHEN perhaps > 0 THEN sms_outbox.counted(perhaps, 'message') || ' of which one attempt turned out to be accepted while another is in flight or unclear, so the recipient may get it twice: ' || perhaps_names END)
        END;
    RETURN NEXT;

    SELECT string_agg(s.app_id || ' (' || s.provider_slug || ': ' || s.reason || ')', ', ' ORDER BY s.app_id) INTO names
      FROM sms_outbox.app_state AS s WHERE s.reason IN ('account_refused', 'breaker_open');
    "check" := 'apps';
    status := CASE WHEN names IS NULL THEN 'ok' ELSE 'warn' END;
    detail := coalesce('apps with an open breaker: ' || names || '; see sms_outbox.app_stats for their last error', 'no breaker is open');
    RETURN NEXT;

    -- The pretend provider takes any text.
    SELECT count(*) INTO amount
      FROM sms_outbox.organization_app AS a JOIN sms_outbox.provider AS p ON p.slug = a.provider_slug
     WHERE a.uninstalled_at IS NULL AND a.provider_slug <> 'sandbox'
       AND EXISTS (SELECT FROM sms_outbox.credentials_held(p.config, a.config) AS h WHERE h.held = 'plain');
    "check" := 'credentials';
    status := CASE WHEN amount > 0 THEN 'warn' ELSE 'ok' END;
    detail := CASE WHEN amount > 0 THEN sms_outbox.counted(amount, 'app') || CASE WHEN amount = 1 THEN ' holds' ELSE ' hold' END || ' plain credentials, which every copy and backup of the database shows; seal them: sms-outbox app seal'
              ELSE 'none is plain' END;
    RETURN NEXT;

    SELECT max(x.age) INTO oldest FROM (
        SELECT now() - s.xact_start AS age FROM pg_stat_activity AS s WHERE s.backend_xmin IS NOT NULL OR s.backend_xid IS NOT NULL
        UNION ALL SELECT now() - p.prepared FROM pg_prepared_xacts AS p) AS x;
    "check" := 'horizon';
    status := CASE WHEN oldest > interval '10 minutes' THEN 'warn' ELSE 'ok' END;
    detail := CASE WHEN oldest > interval '10 minutes' THEN 'a transaction is open for ' || date_trunc('second', oldest)
              || ' (see pg_stat_activity and pg_prepared_xacts): dead rows cannot be cleaned and grow until it ends' ELSE 'no long transaction' END;
    RETURN NEXT;

    "check" := 'notifications';
    status := CASE WHEN pg_notification_queue_usage() > 0.5 THEN 'critical' WHEN pg_notification_queue_usage() > 0.1 THEN 'warn' ELSE 'ok' END;
    detail := CASE status WHEN 'ok' THEN 'they are read' ELSE 'the server''s queue of notifications is ' || round((100 * pg_notification_queue_usage())::numeric)
              || '% full: a session that called LISTEN is in a long transaction or does not read; when it is full every NOTIFY fails. End that session' END;
    RETURN NEXT;
END
$$;
COMMENT ON FUNCTION sms_outbox.health_checks() IS 'The checks of the view health.';

CREATE VIEW sms_outbox.health AS SELECT h."check", h.status, h.detail FROM sms_outbox.health_checks() AS h;
COMMENT ON VIEW sms_outbox.health IS 'The condition of the outbox: each check is ok, warn or critical, and its detail names the cure.';
