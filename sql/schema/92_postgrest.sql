-- For PostgREST: expose schema sms_outbox_api. The same enqueue, refusals and statuses as the HTTP API.

CREATE SCHEMA sms_outbox_api;
COMMENT ON SCHEMA sms_outbox_api IS 'What PostgREST may expose: POST /rpc/sms_outbox_enqueue, GET /outbox, GET /attempts.';
GRANT USAGE ON SCHEMA sms_outbox_api TO sms_outbox_app, sms_outbox_api, sms_outbox_operator;

CREATE FUNCTION sms_outbox.http_status(state text, code text) RETURNS integer
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    RETURN CASE
        WHEN state = '28000' THEN 401
        WHEN state = '42501' THEN 403
        WHEN state = 'P0002' THEN 404
        WHEN state = '55000' THEN 409
        WHEN state = '53400' THEN 429
        WHEN "left"(state, 2) = '22' THEN 422
        WHEN "left"(state, 2) IN ('40', '53', '55', '57') THEN 503
        ELSE 500 END;
COMMENT ON FUNCTION sms_outbox.http_status(text, text) IS 'The status that the HTTP API answers an error with, by SQLSTATE and stable code.';

CREATE FUNCTION sms_outbox_api.sms_outbox_enqueue(
    mobile text DEFAULT NULL,
    message text DEFAULT NULL,
    sender text DEFAULT NULL,
    datetime text DEFAULT NULL,
    preferred_provider_slug text DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    meta jsonb DEFAULT '{}',
    organization_id text DEFAULT NULL,
    priority integer DEFAULT NULL,
    valid_until text DEFAULT NULL,
    OUT id text, OUT dispatch_status sms_outbox.dispatch_status, OUT idempotent_replay boolean)
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    state text;
    code text;
    field text;
    fault text;
    detail text;
    hint text;
    seconds text;
BEGIN
    SELECT e.id, e.dispatch_status, e.idempotent_replay INTO id, dispatch_status, idempotent_replay
      FROM sms_outbox.enqueue_text(
        mobile => mobile, message => message, sender => sender, datetime => datetime, preferred_provider_slug => preferred_provider_slug,
        idempotency_key => idempotency_key, meta => meta, organization_id => organization_id, priority => priority,
        valid_until => valid_until) AS e;
    IF NOT idempotent_replay THEN
        PERFORM set_config('response.status', '201', true);
    END IF;
-- A lost race or a cancelled statement is not ours to dress up: PostgREST has its own words for those.
EXCEPTION WHEN data_exception OR insufficient_privilege OR object_not_in_prerequisite_state OR configuration_limit_exceeded THEN
    GET STACKED DIAGNOSTICS state = RETURNED_SQLSTATE, code = CONSTRAINT_NAME, field = COLUMN_NAME, fault = MESSAGE_TEXT,
                            detail = PG_EXCEPTION_DETAIL, hint = PG_EXCEPTION_HINT;
    seconds := substring(detail FROM 'retry_after_seconds: ([0-9]+)');
    RAISE SQLSTATE 'PGRST' USING
        MESSAGE = json_build_object('code', coalesce(nullif(code, ''), 'invalid_field'), 'message', fault,
                                    'details', coalesce(nullif(field, ''), nullif(detail, '')), 'hint', nullif(hint, ''))::text,
        DETAIL = json_build_object('status', sms_outbox.http_status(state, code),
                                   'headers', CASE WHEN seconds IS NULL THEN '{}'::json ELSE json_build_object('Retry-After', seconds) END)::text;
END
$$;
COMMENT ON FUNCTION sms_outbox_api.sms_outbox_enqueue(text, text, text, text, text, text, jsonb, text, integer, text) IS
'Queues one SMS: POST /rpc/sms_outbox_enqueue with the JSON of POST /api/v1/sms/outbox. 201 with the new message, 200 for one that its idempotency_key stood for already. Refusals carry the API''s status and code; details names the field.';

CREATE VIEW sms_outbox_api.outbox AS SELECT * FROM sms_outbox.outbox;
COMMENT ON VIEW sms_outbox_api.outbox IS 'The messages of the caller''s organization: sms_outbox.outbox.';

CREATE VIEW sms_outbox_api.attempts AS SELECT * FROM sms_outbox.attempts;
COMMENT ON VIEW sms_outbox_api.attempts IS 'The attempts of the caller''s organization: sms_outbox.attempts.';
