-- What operators mean by a filter, and which ended messages it matches. One JSON object: the same keys for every move, checked in one
-- place.

CREATE FUNCTION sms_outbox.check_filter(filter jsonb, max_rows integer) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    known CONSTANT text[] := ARRAY['organization_id', 'dispatch_status', 'mobile', 'preferred_provider_slug', 'organization_app_id', 'error_code',
                                   'certainty', 'priority', 'created_after', 'created_before'];
    unknown text;
    key text;
    value jsonb;
BEGIN
    IF filter IS NULL OR jsonb_typeof(filter) <> 'object' OR filter = '{}' THEN
        RAISE EXCEPTION 'filter: a JSON object with at least one key is needed' USING ERRCODE = '22023', COLUMN = 'filter',
            HINT = 'Keys: ' || array_to_string(known, ', ') || '.';
    END IF;
    SELECT k INTO unknown FROM jsonb_object_keys(filter) AS k WHERE k <> ALL (known) LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'filter: there is no key "%"', unknown USING ERRCODE = '22023', COLUMN = 'filter',
            HINT = 'Keys: ' || array_to_string(known, ', ') || '.';
    END IF;
    -- Here rather than in the query, which says nothing where no row is looked at.
    FOR key, value IN SELECT f.key, f.value FROM jsonb_each(filter) AS f LOOP
        IF key = 'priority' THEN
            IF value NOT IN ('0', '1', '2') THEN
                RAISE EXCEPTION 'filter: priority: it must be 0, 1 or 2' USING ERRCODE = '22023', COLUMN = 'filter';
            END IF;
        ELSIF key = 'organization_app_id' THEN
            IF value::text !~ '^[0-9]{1,18}$' THEN
                RAISE EXCEPTION 'filter: organization_app_id: it must be the number of an app' USING ERRCODE = '22023', COLUMN = 'filter',
                    HINT = 'See sms_outbox.apps_installed.';
            END IF;
        ELSIF jsonb_typeof(value) <> 'string' THEN
            RAISE EXCEPTION 'filter: %: it must be a string', key USING ERRCODE = '22023', COLUMN = 'filter',
                HINT = 'For no such condition, leave the key out.';
        ELSIF key = 'certainty' AND NOT value #>> '{}' = ANY (enum_range(NULL::sms_outbox.certainty)::text[]) THEN
            RAISE EXCEPTION 'filter: certainty: there is no such certainty' USING ERRCODE = '22023', COLUMN = 'filter',
                HINT = 'One of ' || array_to_string(enum_range(NULL::sms_outbox.certainty), ', ') || '.';
        ELSIF key IN ('created_after', 'created_before') THEN
            BEGIN
                PERFORM (value #>> '{}')::timestamptz;
            EXCEPTION WHEN data_exception THEN
                RAISE EXCEPTION 'filter: %: it is no date and time', key USING ERRCODE = '22023', COLUMN = 'filter',
                    HINT = 'For example 2026-12-31T18:00:00+03:00.';
            END;
        END IF;
    END LOOP;
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'max_rows: it must be between 1 and 10000' USING ERRCODE = '22023', COLUMN = 'max_rows';
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.check_filter(jsonb, integer) IS 'Refuses (22023) a filter with an unknown key, a wrong value, or no key at all.';

CREATE FUNCTION sms_outbox.within_scope(filter jsonb, max_rows integer) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    visible CONSTANT text := sms_outbox.visible_organization();
BEGIN
    PERFORM sms_outbox.check_filter(filter, max_rows);
    IF visible = '*' THEN
        RETURN filter;
    END IF;
    PERFORM sms_outbox.require_organization(coalesce(filter ->> 'organization_id', visible));
    RETURN filter || jsonb_build_object('organization_id', visible);
END
$$;
COMMENT ON FUNCTION sms_outbox.within_scope(jsonb, integer) IS 'The filter, checked, and narrowed to the organization that the caller acts for. Internal: what takes a filter calls it.';

CREATE FUNCTION sms_outbox.matches(filter jsonb, message sms_outbox.message) RETURNS boolean
    LANGUAGE sql STABLE PARALLEL SAFE
    RETURN (filter -> 'organization_id' IS NULL OR message.organization_id = filter ->> 'organization_id')
       AND (filter -> 'mobile' IS NULL OR ltrim(message.mobile, '+') = ltrim(filter ->> 'mobile', '+'))
       AND (filter -> 'preferred_provider_slug' IS NULL OR message.preferred_provider_slug IS NOT DISTINCT FROM nullif(filter ->> 'preferred_provider_slug', ''))
       AND (filter -> 'priority' IS NULL OR message.priority = (filter ->> 'priority')::smallint)
       AND (filter -> 'created_after' IS NULL OR message.created_at >= (filter ->> 'created_after')::timestamptz)
       AND (filter -> 'created_before' IS NULL OR message.created_at < (filter ->> 'created_before')::timestamptz);
COMMENT ON FUNCTION sms_outbox.matches(jsonb, sms_outbox.message) IS 'Whether a message matches the keys of a filter that the message itself answers.';

CREATE FUNCTION sms_outbox.within_ended(filter jsonb, max_rows integer) RETURNS jsonb
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    filter := sms_outbox.within_scope(filter, max_rows);
    IF filter ->> 'dispatch_status' IS NULL OR filter ->> 'dispatch_status' NOT IN ('failed', 'dispatch_timeout', 'canceled', 'expired') THEN
        RAISE EXCEPTION 'filter: dispatch_status must say which ended messages are meant' USING ERRCODE = '22023', COLUMN = 'filter',
            HINT = 'One of failed, dispatch_timeout, canceled, expired. A dispatch_timeout may have been sent already.';
    END IF;
    RETURN filter;
END
$$;
COMMENT ON FUNCTION sms_outbox.within_ended(jsonb, integer) IS 'The filter, as within_scope() has it, for messages that ended: it says with which status. Internal: retry() and survey() call it.';

-- Inlined where it is called, so that each filter gets a plan of its own.
CREATE FUNCTION sms_outbox.ended_matching(filter jsonb)
    RETURNS TABLE (id sms_outbox.message_id, organization_id text, mobile text, ended_at timestamptz, app_id bigint, error_code text,
                   certainty sms_outbox.certainty)
    LANGUAGE sql STABLE PARALLEL RESTRICTED
BEGIN ATOMIC
    SELECT e.id, m.organization_id, m.mobile, e.ended_at, a.app_id, a.error_code, coalesce(a.certainty, 'not_sent')
      FROM sms_outbox.ended AS e
      JOIN sms_outbox.message AS m ON m.id = e.id
      -- The attempt that most likely sent it; the last one of several.
      LEFT JOIN LATERAL (
           SELECT t.app_id, t.error_code, sms_outbox.certainty(t.status, t.error_code) AS certainty
             FROM sms_outbox.attempt AS t WHERE t.id = e.id ORDER BY 3 DESC, t.attempt DESC LIMIT 1) AS a ON true
     WHERE e.status = (filter ->> 'dispatch_status')::sms_outbox.dispatch_status
       AND (filter -> 'organization_id' IS NULL OR e.organization_id = filter ->> 'organization_id')
       AND sms_outbox.matches(filter, m)
       AND (filter -> 'organization_app_id' IS NULL OR a.app_id = (filter ->> 'organization_app_id')::bigint)
       AND (filter -> 'error_code' IS NULL OR a.error_code = filter ->> 'error_code')
       AND (filter -> 'certainty' IS NULL OR coalesce(a.certainty, 'not_sent') = (filter ->> 'certainty')::sms_outbox.certainty);
END;
COMMENT ON FUNCTION sms_outbox.ended_matching(jsonb) IS 'The ended messages that a filter of within_ended() matches; with app, error code and certainty of the attempt that most likely sent each. Internal: retry() and survey() call it.';

CREATE FUNCTION sms_outbox.survey(filter jsonb)
    RETURNS TABLE (organization_id text, organization_app_id bigint, provider_slug text, app text, error_code text, certainty sms_outbox.certainty, messages bigint,
                   oldest timestamptz, newest timestamptz)
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED
    SET search_path = pg_catalog, pg_temp SET plan_cache_mode = force_custom_plan -- for the keys of this very filter
AS $$
BEGIN
    filter := sms_outbox.within_ended(filter, 1);
    RETURN QUERY
    SELECT g.organization_id, g.app_id, p.provider_slug, p.name, g.error_code, g.certainty, g.messages, g.oldest, g.newest
      FROM (SELECT f.organization_id, f.app_id, f.error_code, f.certainty, count(*) AS messages, min(f.ended_at) AS oldest, max(f.ended_at) AS newest
              FROM sms_outbox.ended_matching(filter) AS f GROUP BY 1, 2, 3, 4) AS g
      LEFT JOIN sms_outbox.organization_app AS p ON p.app_id = g.app_id
     ORDER BY g.messages DESC, g.organization_id, g.app_id, g.error_code, g.certainty;
END
$$;
COMMENT ON FUNCTION sms_outbox.survey(jsonb) IS 'What a filter of retry() or resolve() matches, counted before anything moves: by organization, by the app that most likely sent each message, how that attempt ended, and how sure it is that it sent; with the times at which the oldest and the newest of them ended. error_code is that of the attempt; messages that were never tried have no app.';
