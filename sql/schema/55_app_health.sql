-- The breaker and the throttle of each app, moved by what its attempts said.

CREATE FUNCTION sms_outbox.note_app_health(concluded sms_outbox.concluded[]) RETURNS void
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    app record;
    health sms_outbox.app_health;
BEGIN
    -- Nothing is written, and no row locked, while all is well. Nor for each batch in which a recipient or a text is refused: while
    -- somebody's snapshot keeps dead rows, a row that is written all the time costs every claim that reads it more and more.
    IF NOT EXISTS (SELECT FROM unnest(concluded) AS c WHERE c.status NOT IN ('accepted', 'refused_recipient', 'refused_content'))
       AND NOT EXISTS (SELECT FROM (SELECT c.app_id, bool_or(c.status <> 'accepted') AS erred FROM unnest(concluded) AS c GROUP BY c.app_id) AS c
                         LEFT JOIN sms_outbox.app_health AS h ON h.app_id = c.app_id
                        WHERE h.failures > 0 OR h.blocked_reason IS NOT NULL
                           OR c.erred AND (h.last_error_at BETWEEN clock_timestamp() - interval '1 second' AND clock_timestamp()) IS NOT TRUE) THEN
        RETURN;
    END IF;
    concluded := ARRAY(SELECT c FROM unnest(concluded) AS c WHERE NOT sms_outbox.is_given_back(c.status, c.error_code));
    FOR app IN
        SELECT c.app_id,
               bool_or(c.status IN ('accepted', 'refused_recipient', 'refused_content')) AS answers,
               bool_or(c.status = 'refused_account') AS account,
               max(least(greatest(coalesce(c.retry_after, 1), 0.1), 3600)) FILTER (WHERE c.status = 'throttled') AS throttled,
               count(*) FILTER (WHERE c.status IN ('not_sent', 'unclear'))::integer AS failures,
               array_agg(c.id) FILTER (WHERE c.status IN ('not_sent', 'unclear')) AS failed_ids,
               bool_or(c.status <> 'accepted') AS erred,
               (array_agg(c.error_code) FILTER (WHERE c.status <> 'accepted'))[1] AS error_code,
               (array_agg(c.error_message) FILTER (WHERE c.status <> 'accepted'))[1] AS error_message
          FROM unnest(concluded) AS c GROUP BY c.app_id ORDER BY c.app_id
    LOOP
        INSERT INTO sms_outbox.app_health (app_id) VALUES (app.app_id) ON CONFLICT (app_id) DO NOTHING;
        SELECT * INTO health FROM sms_outbox.app_health AS h WHERE h.app_id = app.app_id FOR UPDATE;
        IF app.erred THEN
            health.last_error_at := clock_timestamp();
            health.last_error_code := app.error_code;
            health.last_error_message := app.error_message;
        END IF;
        IF app.account THEN
            health.blocked_reason := 'account';
            health.blocked_until := greatest(health.blocked_until, clock_timestamp() + interval '60 seconds');
            health.probe_id := NULL;
        ELSIF app.answers THEN
            health.failures := 0;
            health.throttles := 0;
            IF health.blocked_reason IN ('account', 'failing') OR health.blocked_until <= clock_timestamp() THEN
                health.blocked_reason := NULL;
                health.blocked_until := NULL;
                health.probe_id := NULL;
            END IF;
        ELSIF app.failures > 0 AND health.blocked_reason IS DISTINCT FROM 'failing' AND health.blocked_reason IS DISTINCT FROM 'account' THEN
            health.failures := least(health.failures + app.failures, 5);
            IF health.failures = 5 THEN
                health.blocked_reason := 'failing';
                health.blocked_until := greatest(health.blocked_until, clock_timestamp() + interval '1 second');
            END IF;
        ELSIF health.probe_id = ANY (app.failed_ids) THEN
            -- The probe failed as well: twice as long, a minute at most. Others that were in flight before tell nothing new.
            health.failures := least(health.failures + 1, 11);
            health.blocked_until := clock_timestamp()
                + CASE health.blocked_reason WHEN 'account' THEN 60 ELSE least(60, 2 ^ (health.failures - 5)) END * interval '1 second';
            health.probe_id := NULL;
        END IF;
        IF app.throttled IS NOT NULL THEN
            -- Asked again in vain: longer each time, a minute at most, whatever the provider says. Beside an open breaker too: its
            -- probe waits for as long.
            health.throttles := least(health.throttles + 1, 7);
            health.blocked_reason := coalesce(health.blocked_reason, 'throttled');
            health.blocked_until := greatest(health.blocked_until, clock_timestamp()
                + greatest(app.throttled, CASE WHEN health.throttles > 1 THEN least(60, 2 ^ (health.throttles - 1)) ELSE 0 END) * interval '1 second');
        END IF;
        UPDATE sms_outbox.app_health AS h
           SET failures = health.failures, throttles = health.throttles, blocked_until = health.blocked_until, blocked_reason = health.blocked_reason, probe_id = health.probe_id,
               last_error_at = health.last_error_at, last_error_code = health.last_error_code, last_error_message = health.last_error_message
         WHERE h.app_id = app.app_id;
    END LOOP;
END
$$;
COMMENT ON FUNCTION sms_outbox.note_app_health(sms_outbox.concluded[]) IS 'Moves the breaker and the throttle of each app by what its attempts said: a refused account opens the breaker for 60 s, and again with each probe that does not answer; five failures in a row open it for 1 s, doubling with each failed probe to 60 s; any real answer closes it; Retry-After (1 s where not given, 1 hour at most) blocks for that time, and longer when it comes again and again: doubling to 60 s; and no breaker lets a probe through before that.';
