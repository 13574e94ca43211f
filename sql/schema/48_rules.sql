-- Small questions that more than one move asks, each answered in one place.

CREATE FUNCTION sms_outbox.app_left(organization text, pinned text, refused_by bigint[]) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
    SELECT EXISTS (SELECT FROM sms_outbox.organization_app AS a
                    WHERE a.organization_id = organization AND a.uninstalled_at IS NULL
                      AND (pinned IS NULL OR a.provider_slug = pinned)
                      AND NOT a.app_id = ANY (coalesce(refused_by, '{}')))
$$;
COMMENT ON FUNCTION sms_outbox.app_left(text, text, bigint[]) IS 'Whether any installed app could ever send the message: the pinned provider where one is pinned, none that refused it.';

CREATE FUNCTION sms_outbox.backoff(tries integer, random double precision) RETURNS interval
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN least(600.0, 2.0 * 2.0 ^ (least(tries, 20) - 1)) * (0.5 + random / 2.0) * interval '1 second';
COMMENT ON FUNCTION sms_outbox.backoff(integer, double precision) IS 'How long a message waits after its tries-th counted attempt: 2 s, doubling, 10 minutes at most, of which the given random share (0..1) of one half is taken off so that messages that failed together do not come back together.';

CREATE FUNCTION sms_outbox.status_of(id sms_outbox.message_id) RETURNS sms_outbox.dispatch_status
    LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
    SELECT CASE
        WHEN EXISTS (SELECT FROM sms_outbox.attempt AS a WHERE a.id = status_of.id AND a.status = 'accepted') THEN 'sent'
        ELSE coalesce((SELECT e.status FROM sms_outbox.ended AS e WHERE e.id = status_of.id),
                      (SELECT 'sending'::sms_outbox.dispatch_status FROM sms_outbox.lease AS l WHERE l.id = status_of.id),
                      (SELECT 'pending'::sms_outbox.dispatch_status FROM sms_outbox.ready AS r WHERE r.id = status_of.id),
                      (SELECT 'pending'::sms_outbox.dispatch_status FROM sms_outbox.scheduled AS s WHERE s.id = status_of.id)) END
$$;
COMMENT ON FUNCTION sms_outbox.status_of(sms_outbox.message_id) IS 'Where the message is in its life; NULL when there is no such message. An accepted attempt outranks every row that says otherwise. Internal: others read the view outbox.';

CREATE FUNCTION sms_outbox.has_unclear(id sms_outbox.message_id) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
    SELECT EXISTS (SELECT FROM sms_outbox.attempt AS a WHERE a.id = has_unclear.id AND a.status = 'unclear')
$$;
COMMENT ON FUNCTION sms_outbox.has_unclear(sms_outbox.message_id) IS 'Whether an attempt of the message is unclear: then it may have been sent, and never ends as failed.';

CREATE FUNCTION sms_outbox.latency_bucket(took interval) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN ceil(2 / ln(2::double precision) * ln(greatest(date_part('epoch', took) * 1000, 1)))::smallint;
COMMENT ON FUNCTION sms_outbox.latency_bucket(interval) IS 'Bucket b of app_tally holds what took at most 2^(b/2) ms.';

CREATE FUNCTION sms_outbox.certainty(status sms_outbox.attempt_status, error_code text) RETURNS sms_outbox.certainty
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE WHEN status = 'accepted' THEN 'sent'
                WHEN status <> 'unclear' THEN 'not_sent'
                WHEN error_code IN ('lease_expired', 'panic') THEN 'unknown'
                WHEN error_code = 'unreadable_answer' THEN 'likely'
                WHEN status = 'unclear' THEN 'possible' END::sms_outbox.certainty;
COMMENT ON FUNCTION sms_outbox.certainty(sms_outbox.attempt_status, text) IS 'How sure it is that an attempt which ended so sent its message; NULL for a live one. The one place that says what the error codes of unclear attempts leave open: the views, retry(), survey() and the command ask it.';

CREATE FUNCTION sms_outbox.is_given_back(status sms_outbox.attempt_status, error_code text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN coalesce(status = 'not_sent' AND error_code = 'claim_answer_lost', false);
COMMENT ON FUNCTION sms_outbox.is_given_back(sms_outbox.attempt_status, text) IS 'Whether a worker gives back what it never began, since it did not get the answer of its claim. The provider was asked nothing: it counts as no attempt, and says nothing of the app.';

CREATE FUNCTION sms_outbox.past_lost_claims(last_attempt smallint) RETURNS smallint
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN least(last_attempt + 10, 32766)::smallint;
COMMENT ON FUNCTION sms_outbox.past_lost_claims(smallint) IS 'From where attempts of a message are numbered that another server queued: claims of that server may be lost, and what their workers still report must not meet a new attempt under the same number, where it would be taken for a stranger''s.';
