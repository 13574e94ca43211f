-- Operators: the installed apps.

-- The same rules as worker/src/provider/credential.rs has.
CREATE FUNCTION sms_outbox.credentials_held(fields jsonb, config jsonb) RETURNS TABLE (field text, held text)
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
BEGIN ATOMIC
    SELECT t.field,
           CASE WHEN t.text ~ '^sealed:v1:[A-Za-z0-9_-]{1,32}:[A-Za-z0-9+/]{38,}={0,2}$' THEN 'sealed ' || pg_catalog.split_part(t.text, ':', 3)
                WHEN t.text ~ '^env:[A-Za-z_][A-Za-z0-9_]{0,127}$' THEN 'env'
                WHEN t.text ~ '^file:/.' THEN 'file'
                WHEN t.text ~ '^(sealed|env|file):' THEN 'malformed'
                -- A header that takes its credential from another field is none.
                WHEN t.within AND t.text ~ '\{\{-?\s*secrets\.' THEN 'template'
                ELSE 'plain' END
      FROM pg_catalog.jsonb_each(fields) AS f (name, declared)
      CROSS JOIN LATERAL (
          SELECT f.name, false, config ->> f.name WHERE pg_catalog.jsonb_typeof(config -> f.name) = 'string'
          UNION ALL
          SELECT f.name || '.' || e.key, true, e.value #>> '{}'
            FROM pg_catalog.jsonb_each(CASE pg_catalog.jsonb_typeof(config -> f.name) WHEN 'object' THEN config -> f.name END) AS e (key, value)
           WHERE pg_catalog.jsonb_typeof(e.value) = 'string') AS t (field, within, text)
     WHERE (f.declared ->> 'secret')::boolean AND t.text <> '';
END;
COMMENT ON FUNCTION sms_outbox.credentials_held(jsonb, jsonb) IS 'How the secret fields of a configuration hold their credentials, by the fields of the provider: sealed with a key, env or file (references), template, plain; never a value. Internal: views and checks call it.';

-- The configuration of an app is checked against the catalog when it is installed, not when a message fails.
CREATE FUNCTION sms_outbox.check_config(provider_slug text, config jsonb) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    fields jsonb;
    field text;
    part text;
    declared jsonb;
BEGIN
    SELECT p.config INTO fields FROM sms_outbox.provider AS p WHERE p.slug = provider_slug;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'provider_slug: there is no provider "%"', provider_slug
            USING ERRCODE = '22023', COLUMN = 'provider_slug',
                  HINT = 'Known: ' || (SELECT string_agg(p.slug, ', ' ORDER BY p.slug) FROM sms_outbox.provider AS p) || '.';
    END IF;
    IF config IS NULL OR jsonb_typeof(config) <> 'object' THEN
        RAISE EXCEPTION 'config: it must be a JSON object' USING ERRCODE = '22023', COLUMN = 'config',
            HINT = 'Its fields: ' || (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(fields) AS k) || '.';
    END IF;
    FOR field IN SELECT k FROM jsonb_object_keys(config) AS k LOOP
        IF NOT fields ? field THEN
            RAISE EXCEPTION 'config: provider "%" has no field "%"', provider_slug, field
                USING ERRCODE = '22023', COLUMN = 'config',
                      HINT = 'Its fields: ' || (SELECT string_agg(k, ', ' ORDER BY k) FROM jsonb_object_keys(fields) AS k) || '.';
        END IF;
    END LOOP;
    FOR field, declared IN SELECT f.key, f.value FROM jsonb_each(fields) AS f LOOP
        IF config -> field IS NULL OR config -> field = 'null' OR config -> field = '""' THEN
            IF (declared ->> 'required')::boolean THEN
                RAISE EXCEPTION 'config: field "%" is missing', field
                    USING ERRCODE = '22023', COLUMN = 'config', HINT = declared ->> 'description';
            END IF;
        ELSIF jsonb_typeof(config -> field) <> declared ->> 'type' THEN
            RAISE EXCEPTION 'config: field "%" must be a %, not a %', field, declared ->> 'type', jsonb_typeof(config -> field)
                USING ERRCODE = '22023', COLUMN = 'config', HINT = declared ->> 'description';
        ELSIF (declared ->> 'secret')::boolean AND jsonb_typeof(config -> field) = 'object' THEN
            SELECT e.key INTO part FROM jsonb_each(config -> field) AS e WHERE jsonb_typeof(e.value) <> 'string';
            IF FOUND THEN
                RAISE EXCEPTION 'config: field "%.%" must be a string', field, part
                    USING ERRCODE = '22023', COLUMN = 'config', HINT = declared ->> 'description';
            END IF;
        END IF;
    END LOOP;
    FOR field, part IN SELECT h.field, h.held FROM sms_outbox.credentials_held(fields, config) AS h LOOP
        IF part = 'malformed' THEN
            RAISE EXCEPTION 'config: field "%" begins like a sealed value or a reference and is none', field
                USING ERRCODE = '22023', COLUMN = 'config', HINT = 'Write env:NAME or file:/absolute/path, or seal the text: sms-outbox app install with --credential-keys-file.';
        ELSIF part = 'plain' AND NOT sms_outbox.setting('plain_credentials')::boolean THEN
            RAISE EXCEPTION 'config: field "%" holds a credential as plain text, which the setting sms_outbox.plain_credentials forbids', field
                USING ERRCODE = '22023', COLUMN = 'config', HINT = 'Write env:NAME or file:/absolute/path, or seal the text: sms-outbox app install with --credential-keys-file.';
        END IF;
    END LOOP;
END
$$;
COMMENT ON FUNCTION sms_outbox.check_config(text, jsonb) IS 'Refuses (22023) an app configuration that the provider''s catalog entry does not allow: an unknown field, a missing one, a wrong type, a secret that is neither sealed nor a reference where the setting sms_outbox.plain_credentials is off.';

CREATE FUNCTION sms_outbox.install_app(
    organization_id text, provider_slug text, name text, config jsonb, "position" integer DEFAULT 100, weight integer DEFAULT 1,
    max_in_flight integer DEFAULT 16, rate double precision DEFAULT NULL, resend_unclear boolean DEFAULT false,
    rate_unit text DEFAULT 'messages', burst integer DEFAULT NULL) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    new_id bigint;
BEGIN
    PERFORM sms_outbox.check_organization_id(install_app.organization_id);
    PERFORM sms_outbox.require_organization(install_app.organization_id);
    PERFORM sms_outbox.check_app(install_app.name, install_app."position", install_app.weight, install_app.max_in_flight, install_app.rate,
                                 install_app.rate_unit, install_app.burst);
    PERFORM sms_outbox.check_config(install_app.provider_slug, install_app.config);
    PERFORM sms_outbox.prepare_partitions();
    INSERT INTO sms_outbox.organization (organization_id) VALUES (install_app.organization_id) ON CONFLICT DO NOTHING;
    INSERT INTO sms_outbox.organization_app AS a (organization_id, provider_slug, name, config, "position", weight, max_in_flight, rate, resend_unclear, rate_unit, burst)
    VALUES (install_app.organization_id, install_app.provider_slug, install_app.name, install_app.config, install_app."position",
            install_app.weight, install_app.max_in_flight, install_app.rate, coalesce(install_app.resend_unclear, false),
            install_app.rate_unit, install_app.burst)
    RETURNING a.app_id INTO new_id;
    PERFORM sms_outbox.wake();
    RETURN new_id;
END
$$;
COMMENT ON FUNCTION sms_outbox.install_app(text, text, text, jsonb, integer, integer, integer, double precision, boolean, text, integer) IS
'Installs a provider integration for an organization and returns its app id. config holds credentials and options as the provider''s catalog entry names them. Apps of lower position are tried first; among equal positions weight is their share. max_in_flight (requests) and rate (messages a second, or segments where rate_unit says so) hold over the whole fleet of workers; burst is how many messages or segments may go at once after a pause (NULL: what one second of rate allows). resend_unclear: an attempt with an unclear end is made again, at the risk of a second SMS.';

CREATE FUNCTION sms_outbox.check_app(
    name text, "position" integer, weight integer, max_in_flight integer, rate double precision, rate_unit text, burst integer) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    field text := CASE
        WHEN name IS NULL OR length(name) NOT BETWEEN 1 AND 100 THEN 'name: 1 to 100 characters are needed'
        WHEN "position" IS NULL OR "position" NOT BETWEEN 0 AND 1000000 THEN 'position: it must be between 0 and 1000000'
        WHEN weight IS NULL OR weight NOT BETWEEN 1 AND 1000 THEN 'weight: it must be between 1 and 1000'
        WHEN max_in_flight IS NULL OR max_in_flight NOT BETWEEN 1 AND 10000 THEN 'max_in_flight: it must be between 1 and 10000'
        WHEN NOT (rate > 0 AND rate <= 100000) THEN 'rate: it must be above 0 and at most 100000 a second, or NULL for no limit'
        WHEN rate_unit IS NULL OR rate_unit NOT IN ('messages', 'segments') THEN 'rate_unit: it must be messages or segments'
        WHEN burst NOT BETWEEN 1 AND 100000 THEN 'burst: it must be between 1 and 100000, or NULL for what one second of rate allows'
    END;
BEGIN
    IF field IS NOT NULL THEN
        RAISE EXCEPTION '%', field USING ERRCODE = '22023', COLUMN = split_part(field, ':', 1);
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.check_app(text, integer, integer, integer, double precision, text, integer) IS 'Refuses (22023) values out of bounds for an app.';

CREATE FUNCTION sms_outbox.installed_app(app_id bigint) RETURNS sms_outbox.organization_app
    LANGUAGE plpgsql VOLATILE PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    app sms_outbox.organization_app;
    visible CONSTANT text := sms_outbox.visible_organization();
BEGIN
    SELECT * INTO app FROM sms_outbox.organization_app AS a
     WHERE a.app_id = installed_app.app_id AND a.uninstalled_at IS NULL AND visible IN (a.organization_id, '*') FOR UPDATE;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'app_id: there is no installed app %', coalesce(app_id::text, 'NULL')
            USING ERRCODE = 'P0002', COLUMN = 'app_id', HINT = 'SELECT app_id, organization_id, name FROM sms_outbox.apps_installed.';
    END IF;
    RETURN app;
END
$$;
COMMENT ON FUNCTION sms_outbox.installed_app(bigint) IS 'The app, locked for a change; refuses (P0002) where it is not installed, or not the caller''s.';

CREATE FUNCTION sms_outbox.update_app(
    app_id bigint, config jsonb DEFAULT NULL, name text DEFAULT NULL, "position" integer DEFAULT NULL, weight integer DEFAULT NULL,
    max_in_flight integer DEFAULT NULL, rate double precision DEFAULT NULL, resend_unclear boolean DEFAULT NULL,
    rate_unit text DEFAULT NULL, burst integer DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    app sms_outbox.organization_app := sms_outbox.installed_app(app_id);
BEGIN
    app.config := coalesce(config, app.config);
    app.name := coalesce(name, app.name);
    app."position" := coalesce("position", app."position");
    app.weight := coalesce(weight, app.weight);
    app.max_in_flight := coalesce(max_in_flight, app.max_in_flight);
    app.rate := CASE WHEN rate = 0 THEN NULL ELSE coalesce(rate, app.rate) END;
    app.rate_unit := coalesce(rate_unit, app.rate_unit);
    app.burst := CASE WHEN burst = 0 THEN NULL ELSE coalesce(burst, app.burst) END;
    app.resend_unclear := coalesce(resend_unclear, app.resend_unclear);
    PERFORM sms_outbox.check_app(app.name, app."position", app.weight, app.max_in_flight, app.rate, app.rate_unit, app.burst);
    IF config IS NOT NULL THEN
        PERFORM sms_outbox.check_config(app.provider_slug, config);
        -- New credentials deserve a new try: what the old ones were refused for is forgotten.
        DELETE FROM sms_outbox.app_health AS h WHERE h.app_id = app.app_id;
    END IF;
    UPDATE sms_outbox.organization_app AS a
       SET config = app.config, name = app.name, "position" = app."position", weight = app.weight,
           max_in_flight = app.max_in_flight, rate = app.rate, rate_unit = app.rate_unit, burst = app.burst, resend_unclear = app.resend_unclear
     WHERE a.app_id = app.app_id;
    PERFORM sms_outbox.wake();
END
$$;
COMMENT ON FUNCTION sms_outbox.update_app(bigint, jsonb, text, integer, integer, integer, double precision, boolean, text, integer) IS 'Changes an installed app; NULL leaves as it is, a rate of 0 removes the limit, a burst of 0 makes it what one second of rate allows. config replaces the whole configuration, and closes the app''s breaker. Claims made from now on use the new one.';

CREATE FUNCTION sms_outbox.app_credentials(app bigint DEFAULT NULL)
    RETURNS TABLE (app_id bigint, organization_id text, provider_slug text, config jsonb)
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
DECLARE
    visible CONSTANT text := sms_outbox.visible_organization();
BEGIN
    IF app IS NOT NULL THEN
        RETURN QUERY SELECT a.app_id, a.organization_id, a.provider_slug, a.config FROM sms_outbox.installed_app(app) AS a;
        RETURN;
    END IF;
    RETURN QUERY SELECT a.app_id, a.organization_id, a.provider_slug, a.config FROM sms_outbox.organization_app AS a
                  WHERE a.uninstalled_at IS NULL AND visible IN (a.organization_id, '*') ORDER BY a.app_id;
END
$$;
COMMENT ON FUNCTION sms_outbox.app_credentials(bigint) IS 'The configurations of installed apps, credentials included: beside claim() the only way to them, for workers and for sms-outbox app seal. One app is locked until the end of the transaction.';

CREATE FUNCTION sms_outbox.uninstall_app(app_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    app CONSTANT sms_outbox.organization_app := sms_outbox.installed_app(app_id);
BEGIN
    -- The credentials go at once; the rest stays, for the history.
    UPDATE sms_outbox.organization_app AS a SET uninstalled_at = now(), config = '{}' WHERE a.app_id = app.app_id;
    DELETE FROM sms_outbox.app_health AS h WHERE h.app_id = app.app_id;
    PERFORM sms_outbox.wake();
END
$$;
COMMENT ON FUNCTION sms_outbox.uninstall_app(bigint) IS 'Removes an app and its credentials. Its attempts in flight finish, its history stays; messages that no other app can send end as failed.';

CREATE FUNCTION sms_outbox.pause_app(app_id bigint, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    app CONSTANT sms_outbox.organization_app := sms_outbox.installed_app(app_id);
BEGIN
    UPDATE sms_outbox.organization_app AS a SET paused_at = coalesce(a.paused_at, now()), paused_reason = reason WHERE a.app_id = app.app_id;
END
$$;
COMMENT ON FUNCTION sms_outbox.pause_app(bigint, text) IS 'The app gets no message until resume_app(). Others of its organization carry on; what only it could send waits.';

CREATE FUNCTION sms_outbox.resume_app(app_id bigint) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    app CONSTANT sms_outbox.organization_app := sms_outbox.installed_app(app_id);
BEGIN
    UPDATE sms_outbox.organization_app AS a SET paused_at = NULL, paused_reason = NULL WHERE a.app_id = app.app_id;
    UPDATE sms_outbox.app_health AS h SET failures = 0, throttles = 0, blocked_until = NULL, blocked_reason = NULL, probe_id = NULL WHERE h.app_id = app.app_id;
    PERFORM sms_outbox.wake();
END
$$;
COMMENT ON FUNCTION sms_outbox.resume_app(bigint) IS 'Ends pause_app(), and closes the app''s breaker: the next message tries it.';
