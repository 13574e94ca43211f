-- Taking messages out of the queue, one attempt each.

CREATE FUNCTION sms_outbox.require_read_committed() RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF current_setting('transaction_isolation') <> 'read committed' THEN
        RAISE EXCEPTION 'the queue is moved in READ COMMITTED only; this transaction is %', upper(current_setting('transaction_isolation'))
            USING ERRCODE = '0A000', HINT = 'BEGIN ISOLATION LEVEL READ COMMITTED.';
    END IF;
    -- A claim that is lost in a crash would be sent twice. A SET clause would end before the commit does.
    IF current_setting('synchronous_commit') = 'off' THEN
        PERFORM set_config('synchronous_commit', 'on', true);
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.require_read_committed() IS 'Called first by everything that moves messages: refuses other isolation levels, where a moved row could be missed, and makes the commit durable where it would not be.';

CREATE FUNCTION sms_outbox.claim(worker text, ids sms_outbox.message_id[], apps bigint[])
    RETURNS TABLE (id sms_outbox.message_id, result text, attempt smallint, app_id bigint, provider_slug text, lease_seconds double precision,
                   mobile text, message text, sender text, config jsonb, traceparent text, waited_seconds double precision, organization_id text, segments smallint)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_generic_plan
    -- Whatever the statistics say: keys are looked up, by the index of the key, and the payloads are hashed, not compared each with each.
    -- Pages too count nothing: where statistics call a table empty that dead rows fill, to read a whole index of nothing seems cheaper
    -- than to look ten up. What is left is a tie, which the key wins.
    SET enable_seqscan = off SET enable_mergejoin = off SET enable_material = off SET cpu_operator_cost = 0 SET cpu_index_tuple_cost = 0
    SET random_page_cost = 0 SET seq_page_cost = 0
AS $$
#variable_conflict use_column
DECLARE
    this_server CONSTANT integer := sms_outbox.server_id();
    lasts CONSTANT interval := sms_outbox.setting('lease_timeout')::interval;
    probes bigint[];
    probe_ids sms_outbox.message_id[];
    sorted sms_outbox.message_id[];
BEGIN
    PERFORM sms_outbox.require_read_committed();
    IF worker IS NULL OR length(worker) NOT BETWEEN 1 AND 100 THEN
        RAISE EXCEPTION 'worker: a name of 1 to 100 characters is needed' USING ERRCODE = '22023', COLUMN = 'worker';
    END IF;
    IF cardinality(ids) > 10000 OR coalesce(cardinality(ids), 0) <> coalesce(cardinality(apps), 0) THEN
        RAISE EXCEPTION 'ids and apps must have the same number of elements, 10000 at most; they have % and %', cardinality(ids), cardinality(apps)
            USING ERRCODE = '22023', COLUMN = 'ids';
    END IF;

    -- A breaker that is due lets exactly one message through: whoever moves its time on, for the one message that it locked.
    IF EXISTS (SELECT FROM sms_outbox.app_health AS h WHERE h.app_id = ANY (apps) AND h.blocked_until IS NOT NULL) THEN
        SELECT array_agg(s.app_id) INTO probes
          FROM sms_outbox.app_state AS s WHERE s.app_id = ANY (apps) AND s.state = 'probe';
    END IF;
    IF probes IS NOT NULL THEN
        WITH candidate AS (
            -- The first message that may go by it: one that cannot be sent would tell nothing, and the next probe is a minute away.
            SELECT DISTINCT ON (u.app_id) u.app_id, r.id
              FROM (SELECT DISTINCT ON (w.id) w.* FROM unnest(ids, apps) WITH ORDINALITY AS w (id, app_id, place) ORDER BY w.id, w.place) AS u
              JOIN sms_outbox.ready AS r ON r.id = u.id
              JOIN sms_outbox.organization_app AS a ON a.app_id = u.app_id AND a.organization_id = r.organization_id
             WHERE u.app_id = ANY (probes) AND r.server = this_server AND (r.valid_until <= clock_timestamp()) IS NOT TRUE
               AND a.provider_slug = coalesce(r.preferred_provider_slug, a.provider_slug)
               AND NOT a.app_id = ANY (coalesce(r.refused_by, '{}'))
             ORDER BY u.app_id, u.place
        ), granted AS (
            UPDATE sms_outbox.app_health AS h SET blocked_until = clock_timestamp() + interval '60 seconds', probe_id = c.id
              FROM candidate AS c
             WHERE h.app_id = c.app_id
               AND h.app_id = ANY (ARRAY(SELECT f.app_id FROM sms_outbox.app_health AS f
                                          WHERE f.app_id = ANY (probes) AND f.blocked_until <= clock_timestamp()
                                          ORDER BY f.app_id FOR UPDATE SKIP LOCKED))
            RETURNING h.probe_id
        )
        SELECT array_agg(g.probe_id) INTO probe_ids FROM granted AS g;
    END IF;

    -- Bounds let the executor leave out the other days: by an array alone it would open every partition at each call.
    sorted := ARRAY(SELECT u.id FROM unnest(ids) AS u (id) WHERE u.id IS NOT NULL ORDER BY u.id);

    RETURN QUERY
    WITH asked AS MATERIALIZED (
        -- The same id twice would break the lease's key: the first wish counts.
        SELECT DISTINCT ON (u.id) u.id, u.app_id, u.place
          FROM unnest(ids, apps) WITH ORDINALITY AS u (id, app_id, place)
         WHERE u.id IS NOT NULL ORDER BY u.id, u.place
    ), app AS MATERIALIZED (
        SELECT s.app_id, s.organization_id, s.provider_slug, s.state, a.config
          FROM sms_outbox.app_state AS s JOIN sms_outbox.organization_app AS a ON a.app_id = s.app_id WHERE s.app_id = ANY (apps)
    ), locked AS MATERIALIZED (
        SELECT r.* FROM sms_outbox.ready AS r
         WHERE r.id = ANY (ids) AND (r.server = this_server) IS TRUE
         ORDER BY r.id FOR UPDATE SKIP LOCKED
    ), judged AS MATERIALIZED (
        SELECT k.id, k.app_id, k.place, l.since, l.valid_until, l.server, l.priority, l.last_attempt, l.tries, l.organization_id,
               l.preferred_provider_slug, l.refused_by, l.avoid,
               -- Seen but not locked: somebody else holds it at this moment.
               CASE WHEN l.id IS NULL AND (SELECT r.id FROM sms_outbox.ready AS r WHERE r.id = k.id AND (r.server = this_server) IS TRUE) IS NOT NULL THEN 'locked'
                    WHEN l.id IS NULL OR l.valid_until <= clock_timestamp() THEN 'gone'
                    -- The number of an attempt is a smallint.
                    WHEN l.last_attempt = 32767 THEN 'failed'
                    WHEN k.app_id IS NULL AND NOT sms_outbox.app_left(l.organization_id, l.preferred_provider_slug, l.refused_by) THEN 'failed'
                    WHEN k.app_id IS NULL THEN 'app_unavailable'
                    WHEN s.app_id IS NULL OR s.organization_id <> l.organization_id
                      OR s.provider_slug <> coalesce(l.preferred_provider_slug, s.provider_slug)
                      OR s.app_id = ANY (coalesce(l.refused_by, '{}')) THEN 'app_unavailable'
                    WHEN s.state = 'open' AND NOT s.app_id = ANY (coalesce(probes, '{}')) OR l.id = ANY (probe_ids) THEN 'leased'
                    ELSE 'app_unavailable' END AS result
          FROM asked AS k LEFT JOIN locked AS l ON l.id = k.id LEFT JOIN app AS s ON s.app_id = k.app_id
    ), taken AS (
        -- Not by ctid: a version that is younger than this snapshot would be leased, and not be found here.
        DELETE FROM sms_outbox.ready AS r
         WHERE r.id = ANY (ARRAY(SELECT j.id FROM judged AS j WHERE j.result IN ('leased', 'failed')))
    ), leased AS (
        INSERT INTO sms_outbox.lease (id, app_id, started_at, expires_at, since, valid_until, server, attempt, priority, tries,
                                      organization_id, worker, preferred_provider_slug, refused_by, avoid)
        SELECT j.id, j.app_id, clock_timestamp(), clock_timestamp() + lasts, j.since, j.valid_until, j.server, j.last_attempt + 1, j.priority, j.tries,
               j.organization_id, claim.worker, j.preferred_provider_slug, j.refused_by, j.avoid
          FROM judged AS j WHERE j.result = 'leased'
    ), failed AS (
        INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
        SELECT j.id, clock_timestamp(),
               CASE WHEN j.last_attempt > 0 AND sms_outbox.has_unclear(j.id) THEN 'dispatch_timeout' ELSE 'failed' END::sms_outbox.dispatch_status,
               j.last_attempt, j.organization_id, CASE WHEN j.last_attempt = 32767 THEN 'attempts_spent' ELSE 'no_app' END
          FROM judged AS j WHERE j.result = 'failed'
        RETURNING id, organization_id, status
    ), counted AS (
        INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
        SELECT sms_outbox.day_of(f.id), date_trunc('minute', now()), f.status, 1, f.organization_id FROM failed AS f
    )
    SELECT j.id, j.result,
           CASE j.result WHEN 'leased' THEN (j.last_attempt + 1)::smallint END,
           j.app_id, a.provider_slug,
           CASE j.result WHEN 'leased' THEN extract(epoch FROM lasts)::double precision END,
           m.mobile, m.body, m.sender,
           CASE WHEN j.result = 'leased' AND row_number() OVER (PARTITION BY j.app_id, j.result ORDER BY j.place) = 1 THEN a.config END,
           m.meta ->> 'traceparent',
           CASE j.result WHEN 'leased' THEN greatest(extract(epoch FROM clock_timestamp() - j.since), 0)::double precision END,
           j.organization_id, m.segments
      FROM judged AS j
      LEFT JOIN app AS a ON a.app_id = j.app_id AND j.result = 'leased'
      LEFT JOIN sms_outbox.message AS m ON m.id = j.id AND m.id = ANY (ids) AND m.id BETWEEN sorted[1] AND sorted[cardinality(sorted)] AND j.result = 'leased'
     ORDER BY j.place;
END
$$;
COMMENT ON FUNCTION sms_outbox.claim(text, sms_outbox.message_id[], bigint[]) IS
'Takes messages out of the queue, one attempt each: message ids[n] by app apps[n]. Commit before any byte goes to a provider. Answers for each distinct id, in the order asked: leased (then with everything needed for one attempt; the lease lasts lease_seconds; config stands on the first row of each app; traceparent is that of meta; waited_seconds is the time since the message was due; segments is what it costs of a rate in segments), gone (moved by somebody else, out of time, or unknown), locked (held at this moment: ask again), app_unavailable (the app is paused, blocked, uninstalled, of another organization, not the pinned provider, or refused this message: read apps() again). An app of NULL says that no installed app matches: where that is true the message ends (as dispatch_timeout where an earlier attempt is unclear), and the answer is failed. Refuses isolation levels above READ COMMITTED (0A000); makes itself durable where synchronous_commit is off.';

CREATE FUNCTION sms_outbox.leases(worker text)
    RETURNS TABLE (id sms_outbox.message_id, attempt smallint, app_id bigint, started_at timestamptz, expires_at timestamptz)
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL RESTRICTED
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_bitmapscan = off
AS $$
    -- Maintenance has ended what was over before its mark. Dead rows of before, which somebody's snapshot keeps, may be millions.
    -- In no order: the planner would read all of the key for it.
    SELECT l.id, l.attempt, l.app_id, l.started_at, l.expires_at FROM sms_outbox.lease AS l
     WHERE l.expires_at > (SELECT coalesce(max(m.ran_at), '-infinity') FROM sms_outbox.maintenance AS m WHERE m.task = 'time_out mark' AND m.ran_at < clock_timestamp())
       AND l.worker = leases.worker AND l.server = sms_outbox.server_id()
$$;
COMMENT ON FUNCTION sms_outbox.leases(text) IS 'The live leases of this worker. After a lost answer of claim, the worker finishes those that it never began as not_sent with error_code claim_answer_lost: that counts as no attempt, and says nothing of the app. Leases from before a promotion are not shown: what the worker finished there may be lost, and such a lease then ends as unclear.';
