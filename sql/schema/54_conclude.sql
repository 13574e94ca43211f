-- How an attempt ends: the one place with the rules of what happens next. finish() calls it for outcomes, maintenance for leases
-- that are over.

CREATE TYPE sms_outbox.outcome AS (
    id sms_outbox.message_id,
    attempt smallint,
    status sms_outbox.attempt_status,
    http_status smallint,
    error_code text,
    error_message text,
    response json,
    provider_message_id text,
    retry_after double precision
);
COMMENT ON TYPE sms_outbox.outcome IS 'How one attempt ended.';

CREATE TYPE sms_outbox.concluded AS (
    id sms_outbox.message_id,
    attempt smallint,
    dispatch_status sms_outbox.dispatch_status,
    app_id bigint,
    status sms_outbox.attempt_status,
    error_code text,
    error_message text,
    retry_after double precision
);
COMMENT ON TYPE sms_outbox.concluded IS 'One attempt that conclude() ended: where its message is now, and what it says of the app.';

CREATE FUNCTION sms_outbox.conclude(worker text, outcomes sms_outbox.outcome[]) RETURNS sms_outbox.concluded[]
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE
    SET search_path = pg_catalog, pg_temp SET enable_seqscan = off SET enable_mergejoin = off
    SET plan_cache_mode = force_generic_plan
AS $$
#variable_conflict use_column
DECLARE
    max_attempts CONSTANT integer := sms_outbox.setting('max_attempts')::integer;
    repeated sms_outbox.message_id[];
    accepted_before sms_outbox.message_id[];
    unclear_before sms_outbox.message_id[];
    suppressed sms_outbox.message_id[];
    held tid[];
    concluded sms_outbox.concluded[];
BEGIN
    -- In a statement of its own, so that what follows sees what was committed while this waited. In order of the id, and leases of
    -- newer attempts too, which a late outcome needs (settle_accepted): opposite orders would deadlock. A lease that maintenance
    -- takes at this moment is waited for, and is then gone.
    SELECT array_agg(k.tid) INTO held
      FROM (SELECT l.ctid AS tid FROM sms_outbox.lease AS l WHERE l.id = ANY (ARRAY(SELECT o.id FROM unnest(outcomes) AS o)) ORDER BY l.id FOR UPDATE) AS k;
    -- Another attempt of the message may have been accepted after all: then nothing of it is tried again. Or it is unclear still:
    -- then it is never said to have failed. Asked apart, and not where a first attempt was accepted: inside the statement below it
    -- would open every partition at each call. A first attempt that was not may stand beside one whose claim a failover lost.
    SELECT array_agg(o.id ORDER BY o.id) INTO repeated FROM unnest(outcomes) AS o WHERE o.attempt > 1 OR o.status <> 'accepted';
    IF repeated IS NOT NULL THEN
        SELECT array_agg(t.id) FILTER (WHERE t.status = 'accepted'), array_agg(t.id) FILTER (WHERE t.status = 'unclear')
          INTO accepted_before, unclear_before
          FROM sms_outbox.attempt AS t
         WHERE t.id = ANY (repeated) AND t.id BETWEEN repeated[1] AND repeated[cardinality(repeated)];
    END IF;
    -- Whose number was put on the suppression list meanwhile is not tried again. Apart as well, and only where something failed.
    suppressed := ARRAY(SELECT o.id FROM unnest(outcomes) AS o WHERE o.status <> 'accepted' AND sms_outbox.is_suppressed(o.id));
    WITH locked AS MATERIALIZED (
        -- By place, without another look-up: rows that were locked before this statement's snapshot stay where they are. Apart from the
        -- join, for whose order the planner would read the whole key where statistics call the table empty, and dead rows fill it.
        SELECT l.ctid AS tid, l.* FROM sms_outbox.lease AS l
         WHERE l.ctid = ANY (held) AND (conclude.worker IS NULL OR l.worker = conclude.worker)
    ), live AS MATERIALIZED (
        SELECT l.*, o.status, o.http_status, o.error_code, o.error_message, o.response, o.provider_message_id, o.retry_after
          FROM unnest(outcomes) AS o JOIN locked AS l ON l.id = o.id AND l.attempt = o.attempt
    ), released AS (
        DELETE FROM sms_outbox.lease AS l WHERE l.ctid = ANY (ARRAY(SELECT v.tid FROM live AS v))
    ), counted AS MATERIALIZED (
        SELECT v.*, a.resend_unclear, sms_outbox.is_given_back(v.status, v.error_code) AS given_back,
               v.tries + CASE WHEN v.status IN ('refused_account', 'throttled') THEN 0 WHEN sms_outbox.is_given_back(v.status, v.error_code) THEN 0 ELSE 1 END AS spent,
               CASE WHEN v.status = 'refused_content' THEN v.app_id || coalesce(v.refused_by, '{}') ELSE v.refused_by END AS refused,
               CASE WHEN v.released THEN sms_outbox.server_id() ELSE v.server END AS goes_to,
               CASE WHEN v.released THEN sms_outbox.past_lost_claims(v.attempt) ELSE v.attempt END AS numbered_to,
               CASE WHEN v.status = 'not_sent' AND NOT sms_outbox.is_given_back(v.status, v.error_code) THEN v.app_id || coalesce(v.avoid, '{}') ELSE v.avoid END AS avoided
          -- An app that is uninstalled has opted in for nothing any more.
          FROM live AS v LEFT JOIN sms_outbox.organization_app AS a ON a.app_id = v.app_id AND a.uninstalled_at IS NULL
    ), judged AS MATERIALIZED (
        SELECT c.*,
               CASE
                   WHEN c.status = 'accepted' THEN 'sent'
                   WHEN c.id = ANY (accepted_before) THEN 'sent'
                   WHEN c.status = 'refused_recipient' THEN 'failed'
                   WHEN c.status = 'refused_content' AND NOT sms_outbox.app_left(c.organization_id, c.preferred_provider_slug, c.refused) THEN 'failed'
                   WHEN c.status = 'unclear' AND (NOT coalesce(c.resend_unclear, false) OR c.spent >= max_attempts OR c.id = ANY (suppressed)) THEN 'dispatch_timeout'
                   WHEN c.id = ANY (suppressed) THEN 'canceled'
                   WHEN c.given_back THEN 'ready'
                   WHEN c.status IN ('refused_content', 'not_sent') AND c.spent >= max_attempts THEN 'failed'
                   WHEN c.status = 'unclear' THEN 'scheduled'
                   WHEN c.status = 'not_sent' AND NOT EXISTS (
                            SELECT FROM sms_outbox.app_state AS s
                             WHERE s.organization_id = c.organization_id AND s.state = 'open'
                               AND (c.preferred_provider_slug IS NULL OR s.provider_slug = c.preferred_provider_slug)
                               AND NOT s.app_id = ANY (coalesce(c.refused, '{}')) AND NOT s.app_id = ANY (c.avoided)) THEN 'scheduled'
                   ELSE 'ready' END AS verdict,
               CASE WHEN c.status = 'refused_recipient' THEN 'recipient_refused'
                    WHEN c.status = 'unclear' THEN coalesce(c.error_code, 'unclear')
                    WHEN c.status = 'refused_content' AND NOT sms_outbox.app_left(c.organization_id, c.preferred_provider_slug, c.refused) THEN 'refused'
                    WHEN c.id = ANY (suppressed) THEN 'recipient_suppressed'
                    ELSE 'attempts_spent' END AS cause
          FROM counted AS c
    ), decided AS MATERIALIZED (
        SELECT j.*,
               CASE WHEN j.verdict = 'failed' AND j.id = ANY (unclear_before) THEN 'dispatch_timeout' ELSE j.verdict END AS next,
               CASE WHEN j.verdict = 'failed' AND j.id = ANY (unclear_before) THEN 'unclear_before' ELSE j.cause END AS reason
          FROM judged AS j
    ), ledger AS (
        INSERT INTO sms_outbox.attempt (id, started_at, finished_at, app_id, attempt, http_status, status, organization_id, worker,
                                        provider_message_id, error_code, error_message, response)
        SELECT d.id, d.started_at, clock_timestamp(), d.app_id, d.attempt, d.http_status, d.status, d.organization_id, d.worker,
               d.provider_message_id, d.error_code, d.error_message, d.response
          FROM decided AS d
    ), requeued AS (
        INSERT INTO sms_outbox.ready (id, since, valid_until, server, priority, last_attempt, tries, organization_id,
                                      preferred_provider_slug, refused_by, avoid)
        SELECT d.id, d.since, d.valid_until, d.goes_to, d.priority, d.numbered_to, d.spent, d.organization_id,
               d.preferred_provider_slug, d.refused, d.avoided
          FROM decided AS d WHERE d.next = 'ready'
    ), delayed AS (
        INSERT INTO sms_outbox.scheduled (id, due_at, since, valid_until, server, priority, last_attempt, tries, organization_id,
                                          preferred_provider_slug, refused_by, reason)
        SELECT d.id, clock_timestamp() + sms_outbox.backoff(d.spent, random()), d.since, d.valid_until, d.goes_to, d.priority, d.numbered_to, d.spent,
               d.organization_id, d.preferred_provider_slug, d.refused, 'backoff'
          FROM decided AS d WHERE d.next = 'scheduled'
    ), stopped AS (
        INSERT INTO sms_outbox.ended (id, ended_at, status, last_attempt, organization_id, reason)
        SELECT d.id, clock_timestamp(), d.next::sms_outbox.dispatch_status, d.attempt, d.organization_id, d.reason
          FROM decided AS d WHERE d.next IN ('failed', 'dispatch_timeout', 'canceled')
    ), tallied AS (
        INSERT INTO sms_outbox.tally (day, minute, status, messages, organization_id)
        SELECT sms_outbox.day_of(d.id), date_trunc('minute', now()), d.next::sms_outbox.dispatch_status, count(*), d.organization_id
          FROM decided AS d
         WHERE d.next IN ('failed', 'dispatch_timeout', 'canceled') OR d.status = 'accepted' AND d.id = ANY (accepted_before) IS NOT TRUE
         GROUP BY 1, 3, 5
    ), app_tallied AS (
        INSERT INTO sms_outbox.app_tally (app_id, minute, status, latency_bucket, attempts)
        SELECT d.app_id, date_trunc('minute', now()), d.status, sms_outbox.latency_bucket(clock_timestamp() - d.started_at), count(*)
          FROM decided AS d GROUP BY 1, 3, 4
    )
    SELECT array_agg(ROW(d.id, d.attempt, CASE WHEN d.next IN ('ready', 'scheduled') THEN 'pending' ELSE d.next END,
                         d.app_id, d.status, d.error_code, d.error_message, d.retry_after)::sms_outbox.concluded)
      INTO concluded FROM decided AS d;
    IF EXISTS (SELECT FROM unnest(concluded) AS c WHERE c.status = 'unclear') THEN
        concluded := sms_outbox.follow_up_unclear(concluded);
    END IF;
    -- What goes back to the queue is there for the next app at once, not at the next poll.
    IF EXISTS (SELECT FROM unnest(concluded) AS c WHERE c.dispatch_status = 'pending') THEN
        PERFORM sms_outbox.wake();
    END IF;
    RETURN coalesce(concluded, '{}');
END
$$;
COMMENT ON FUNCTION sms_outbox.conclude(text, sms_outbox.outcome[]) IS 'Ends the live attempts that the outcomes name: releases the lease, writes the ledger, and puts the message where it belongs next. Of this worker only, or of any where worker is NULL. Returns those that it ended; what has no such lease is left alone. Internal: finish() and time_out_leases() call it, and then note_app_health().';
