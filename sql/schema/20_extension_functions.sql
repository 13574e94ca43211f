-- What only code inside the server can do: the functions of extension/.

CREATE FUNCTION @extschema@.sms_outbox_enqueue(
    mobile text,
    message text,
    sender text DEFAULT NULL,
    datetime timestamptz DEFAULT NULL,
    preferred_provider_slug text DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    meta jsonb DEFAULT '{}',
    organization_id text DEFAULT NULL,
    priority integer DEFAULT NULL,
    valid_until timestamptz DEFAULT NULL
) RETURNS TABLE (id text, dispatch_status sms_outbox.dispatch_status, idempotent_replay boolean)
    LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE ROWS 1 SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'enqueue_wrapper';
COMMENT ON FUNCTION @extschema@.sms_outbox_enqueue(text, text, text, timestamptz, text, text, jsonb, text, integer, timestamptz) IS
'Queues one SMS in the caller''s transaction: sent after it commits, never if it rolls back. mobile in any usual writing; datetime in the future delays it; the same idempotency_key again returns the first message as it is now; priority 0 urgent, 1 normal, 2 bulk; not sent after valid_until. organization_id defaults to the caller''s organization, see visible_organization(). Empty strings mean ''not given''.';

CREATE FUNCTION @extschema@.sms_outbox_enqueue_many(messages jsonb, organization_id text DEFAULT NULL)
    RETURNS TABLE (ordinality bigint, id text, dispatch_status sms_outbox.dispatch_status, idempotent_replay boolean)
    LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'enqueue_many_wrapper';
COMMENT ON FUNCTION @extschema@.sms_outbox_enqueue_many(jsonb, text) IS
'Queues an array of at most 10000 SMS, all or none: objects with the fields of sms_outbox_enqueue(). Returns one row for each, numbered and in order. Errors name the element, from 0: messages[17].mobile. A datetime without an offset is in the organization''s time zone.';

REVOKE ALL ON FUNCTION @extschema@.sms_outbox_enqueue(text, text, text, timestamptz, text, text, jsonb, text, integer, timestamptz),
                       @extschema@.sms_outbox_enqueue_many(jsonb, text) FROM PUBLIC;
GRANT EXECUTE ON FUNCTION @extschema@.sms_outbox_enqueue(text, text, text, timestamptz, text, text, jsonb, text, integer, timestamptz),
                          @extschema@.sms_outbox_enqueue_many(jsonb, text) TO sms_outbox_app, sms_outbox_operator;

-- For callers that have times as text, and at a fixed place for those that do not know where the extension was created: the API
-- and PostgREST.
CREATE FUNCTION sms_outbox.enqueue_text(
    mobile text,
    message text,
    sender text DEFAULT NULL,
    datetime text DEFAULT NULL,
    preferred_provider_slug text DEFAULT NULL,
    idempotency_key text DEFAULT NULL,
    meta jsonb DEFAULT '{}',
    organization_id text DEFAULT NULL,
    priority integer DEFAULT NULL,
    valid_until text DEFAULT NULL
) RETURNS TABLE (id text, dispatch_status sms_outbox.dispatch_status, idempotent_replay boolean)
    LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE ROWS 1 SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'enqueue_text_wrapper';
COMMENT ON FUNCTION sms_outbox.enqueue_text(text, text, text, text, text, text, jsonb, text, integer, text) IS
'sms_outbox_enqueue() with datetime and valid_until as JSON has them: RFC 3339, or YYYY-MM-DD HH:MM[:SS] (also with T) in the organization''s time zone; empty means none.';

CREATE FUNCTION sms_outbox.enqueue_many(messages jsonb, organization_id text DEFAULT NULL)
    RETURNS TABLE (ordinality bigint, id text, dispatch_status sms_outbox.dispatch_status, idempotent_replay boolean)
    LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'enqueue_many_wrapper';
COMMENT ON FUNCTION sms_outbox.enqueue_many(jsonb, text) IS 'sms_outbox_enqueue_many(), in this schema.';

CREATE FUNCTION sms_outbox.visible_organization() RETURNS text
    LANGUAGE c STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'visible_organization_wrapper';
COMMENT ON FUNCTION sms_outbox.visible_organization() IS
'Whose rows the caller sees: an organization''s, * for every organization''s, NULL for none. By what bind_role() ties the login or the role of SET ROLE to; else by the claim organization_id of request.jwt.claims; else by the setting sms_outbox.organization_id. Refuses (42501) where a weaker one names another organization than a stronger one. Row security asks it.';

CREATE FUNCTION sms_outbox.enter(scope text, key_id text, key_digest bytea, organization_id text DEFAULT NULL) RETURNS text
    LANGUAGE c VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
    AS 'MODULE_PATHNAME', 'enter_wrapper';
COMMENT ON FUNCTION sms_outbox.enter(text, text, bytea, text) IS 'How each request of the HTTP API begins: from here to the end of the transaction it acts for one organization, which is returned. With a key: key_id and the SHA-256 of the whole key; an organization named beside must be the key''s. Without (NULL): the API has checked a session token, and names its organization. Refuses with 28000 a key that is unknown, wrong, expired or revoked, all alike; with 42501 (missing_scope, organization_mismatch) one that may not. For sms_outbox_api.';

CREATE FUNCTION sms_outbox.overrides_limits() RETURNS boolean
    LANGUAGE c STABLE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'overrides_limits_wrapper';
COMMENT ON FUNCTION sms_outbox.overrides_limits() IS 'Whether limits and suppression lists do not hold for the caller: an operator who has set sms_outbox.override_limits.';

-- The rest runs no SQL, so there is no search_path to pin.

CREATE FUNCTION sms_outbox.counts_refusals() RETURNS boolean
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'counts_refusals_wrapper';
COMMENT ON FUNCTION sms_outbox.counts_refusals() IS 'Whether this server counts what limits refuse: with sms_outbox in shared_preload_libraries.';

CREATE FUNCTION sms_outbox.normalize_mobile(mobile text, region text) RETURNS text
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'normalize_mobile_wrapper';
COMMENT ON FUNCTION sms_outbox.normalize_mobile(text, text) IS 'A mobile number in E.164, with +. Without a country code it is one of the region (ISO 3166). Error 22023 where no SMS can go there.';

CREATE FUNCTION sms_outbox.measure(message text, OUT encoding text, OUT segments integer)
    LANGUAGE c IMMUTABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'measure_wrapper';
COMMENT ON FUNCTION sms_outbox.measure(text) IS 'How a text travels (GSM-7 or UCS-2), and how many SMS it takes.';

CREATE FUNCTION sms_outbox.server_id() RETURNS integer
    LANGUAGE c STABLE PARALLEL SAFE AS 'MODULE_PATHNAME', 'server_id_wrapper';
COMMENT ON FUNCTION sms_outbox.server_id() IS 'This server: a hash of system identifier, timeline and database. Queue rows carry that of the server which queued them, so a restored copy, a clone or a promoted standby holds the rows of before until release_held().';

CREATE FUNCTION sms_outbox.setting(name text) RETURNS text
    LANGUAGE c STABLE STRICT PARALLEL SAFE AS 'MODULE_PATHNAME', 'setting_wrapper';
COMMENT ON FUNCTION sms_outbox.setting(text) IS 'The setting sms_outbox.<name> as SHOW prints it, like 2min. The call loads the library, which knows the defaults.';

CREATE FUNCTION sms_outbox.wake() RETURNS void
    LANGUAGE c VOLATILE PARALLEL RESTRICTED AS 'MODULE_PATHNAME', 'wake_wrapper';
COMMENT ON FUNCTION sms_outbox.wake() IS 'Asks for one wake-up of the workers when this transaction commits, in the way of the setting sms_outbox.wakeup.';

REVOKE ALL ON FUNCTION sms_outbox.enqueue_text(text, text, text, text, text, text, jsonb, text, integer, text), sms_outbox.enqueue_many(jsonb, text),
                       sms_outbox.visible_organization(), sms_outbox.enter(text, text, bytea, text), sms_outbox.overrides_limits(),
                       sms_outbox.counts_refusals(),
                       sms_outbox.normalize_mobile(text, text), sms_outbox.measure(text), sms_outbox.server_id(),
                       sms_outbox.setting(text), sms_outbox.wake() FROM PUBLIC;

-- The launcher learns of the extension when CREATE EXTENSION commits, rather than at its next look.
SELECT sms_outbox.wake();
