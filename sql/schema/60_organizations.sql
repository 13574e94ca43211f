-- Operators: organizations and their apps.

CREATE FUNCTION sms_outbox.check_organization_id(organization_id text) RETURNS void
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    IF organization_id IS NULL OR organization_id !~ '^[A-Za-z0-9_.:-]{1,64}$' THEN
        RAISE EXCEPTION 'organization_id: it is 1 to 64 characters of A-Z a-z 0-9 _ - . :' USING ERRCODE = '22023', COLUMN = 'organization_id',
            HINT = 'For example shop or org:42.';
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.check_organization_id(text) IS 'Refuses (22023) what is no organization id.';

CREATE FUNCTION sms_outbox.is_region(region text) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    -- No number at all, in its national writing: the numbering plan is asked for the region alone.
    PERFORM sms_outbox.normalize_mobile('1', region);
    RETURN true;
EXCEPTION WHEN invalid_parameter_value THEN
    DECLARE
        refused text;
    BEGIN
        GET STACKED DIAGNOSTICS refused = COLUMN_NAME;
        RETURN refused <> 'region';
    END;
END
$$;
COMMENT ON FUNCTION sms_outbox.is_region(text) IS 'Whether phone numbers can belong to this region: two capital letters of ISO 3166.';

CREATE FUNCTION sms_outbox.check_limits(counts jsonb, destinations jsonb, senders text[]) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL SAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    most CONSTANT integer := 500;
    field text;
    refused bigint;
BEGIN
    SELECT c.key INTO field FROM jsonb_each_text(counts) AS c WHERE c.value::bigint < 0 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%: it must be at least 1', field USING ERRCODE = '22023', COLUMN = field, HINT = '0 takes the limit away, NULL leaves it as it is.';
    END IF;
    SELECT l.name INTO field FROM (SELECT d.key, jsonb_array_length(d.value) FROM jsonb_each(jsonb_strip_nulls(destinations)) AS d
                                   UNION ALL SELECT 'allowed_senders', cardinality(senders)) AS l (name, entries)
     WHERE l.entries > most LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%: it has more than % entries', field, most USING ERRCODE = '22023', COLUMN = field, HINT = 'Shorter prefixes, and regions, cover more numbers each.';
    END IF;
    SELECT d.key, e.place INTO field, refused
      FROM jsonb_each(jsonb_strip_nulls(destinations)) AS d, jsonb_array_elements_text(d.value) WITH ORDINALITY AS e (destination, place)
     WHERE (e.destination ~ '^\+[1-9][0-9]{0,14}$' OR e.destination ~ '^[A-Z]{2}$' AND sms_outbox.is_region(e.destination)) IS NOT TRUE
     ORDER BY 1, 2 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION '%: entry % is neither a prefix nor a region', field, refused USING ERRCODE = '22023', COLUMN = field,
            HINT = 'A prefix is + and the first digits of a number, like +9665; a region two capital letters of ISO 3166, like SA. An empty array takes the rule away.';
    END IF;
    SELECT e.place INTO refused FROM unnest(senders) WITH ORDINALITY AS e (sender, place)
     WHERE (e.sender ~ '^\+?[0-9]{3,15}$' OR e.sender ~ '^[A-Za-z0-9 _.&-]{1,11}$' AND e.sender ~ '[A-Za-z]') IS NOT TRUE ORDER BY 1 LIMIT 1;
    IF FOUND THEN
        RAISE EXCEPTION 'allowed_senders: entry % is neither a sender name nor a number', refused USING ERRCODE = '22023', COLUMN = 'allowed_senders',
            HINT = '1 to 11 characters of A-Z a-z 0-9 space - _ . & with at least one letter, or 3 to 15 digits. An empty array takes the rule away.';
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.check_limits(jsonb, jsonb, text[]) IS 'Refuses (22023) limits that cannot be. Internal: set_organization() calls it.';

CREATE FUNCTION sms_outbox.set_organization(
    organization_id text,
    default_region text DEFAULT NULL,
    time_zone text DEFAULT NULL,
    messages_per_minute integer DEFAULT NULL,
    messages_per_day integer DEFAULT NULL,
    messages_per_recipient_hour integer DEFAULT NULL,
    segments_per_day integer DEFAULT NULL,
    allowed_destinations text[] DEFAULT NULL,
    blocked_destinations text[] DEFAULT NULL,
    allowed_senders text[] DEFAULT NULL
) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
#variable_conflict use_column
BEGIN
    PERFORM sms_outbox.check_organization_id(set_organization.organization_id);
    PERFORM sms_outbox.require_organization(set_organization.organization_id);
    IF NOT sms_outbox.is_region(default_region) THEN
        RAISE EXCEPTION 'default_region: "%" is not a two-letter ISO 3166 region', default_region
            USING ERRCODE = '22023', COLUMN = 'default_region', HINT = 'For example SA or AE, in capitals.';
    END IF;
    IF time_zone IS NOT NULL AND NOT EXISTS (SELECT FROM pg_timezone_names AS z WHERE z.name = set_organization.time_zone) THEN
        RAISE EXCEPTION 'time_zone: "%" is not a time zone that this server knows', time_zone
            USING ERRCODE = '22023', COLUMN = 'time_zone', HINT = 'Names such as Asia/Riyadh: see pg_timezone_names.';
    END IF;
    PERFORM sms_outbox.check_limits(
        jsonb_build_object('messages_per_minute', messages_per_minute, 'messages_per_day', messages_per_day,
                           'messages_per_recipient_hour', messages_per_recipient_hour, 'segments_per_day', segments_per_day),
        jsonb_build_object('allowed_destinations', allowed_destinations, 'blocked_destinations', blocked_destinations), allowed_senders);
    INSERT INTO sms_outbox.organization AS o (organization_id, default_region, time_zone, messages_per_minute, messages_per_day,
                                              messages_per_recipient_hour, segments_per_day, allowed_destinations, blocked_destinations, allowed_senders)
    VALUES (set_organization.organization_id, set_organization.default_region, coalesce(set_organization.time_zone, 'Asia/Riyadh'),
            nullif(set_organization.messages_per_minute, 0),
            nullif(set_organization.messages_per_day, 0),
            nullif(set_organization.messages_per_recipient_hour, 0),
            nullif(set_organization.segments_per_day, 0),
            nullif(set_organization.allowed_destinations, '{}'),
            nullif(set_organization.blocked_destinations, '{}'),
            nullif(set_organization.allowed_senders, '{}'))
    ON CONFLICT ON CONSTRAINT organization_pkey DO UPDATE
       SET default_region = coalesce(set_organization.default_region, o.default_region),
           time_zone = coalesce(set_organization.time_zone, o.time_zone),
           messages_per_minute = nullif(coalesce(set_organization.messages_per_minute, o.messages_per_minute), 0),
           messages_per_day = nullif(coalesce(set_organization.messages_per_day, o.messages_per_day), 0),
           messages_per_recipient_hour = nullif(coalesce(set_organization.messages_per_recipient_hour, o.messages_per_recipient_hour), 0),
           segments_per_day = nullif(coalesce(set_organization.segments_per_day, o.segments_per_day), 0),
           allowed_destinations = nullif(coalesce(set_organization.allowed_destinations, o.allowed_destinations), '{}'),
           blocked_destinations = nullif(coalesce(set_organization.blocked_destinations, o.blocked_destinations), '{}'),
           allowed_senders = nullif(coalesce(set_organization.allowed_senders, o.allowed_senders), '{}');
END
$$;
COMMENT ON FUNCTION sms_outbox.set_organization(text, text, text, integer, integer, integer, integer, text[], text[], text[]) IS 'Makes or changes an organization: the region that numbers without a country code belong to (ISO 3166; unset: the setting sms_outbox.default_region), the time zone of datetimes without one (Asia/Riyadh unless set), and what it may enqueue: messages a calendar minute, a day of its time zone, and to one number within an hour; segments a day; destinations, each a prefix like +9665 or a region like SA (a number must match one of the allowed, where any are set, and none of the blocked); senders that a message may name, in any case (one that names none is not affected). NULL leaves as it is; 0, or an empty array, takes a limit away.';

CREATE FUNCTION sms_outbox.pause_organization(organization_id text, reason text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sms_outbox.require_organization(organization_id);
    UPDATE sms_outbox.organization AS o SET paused_at = coalesce(o.paused_at, now()), paused_reason = reason
     WHERE o.organization_id = pause_organization.organization_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'organization_id: there is no organization "%"', organization_id USING ERRCODE = 'P0002', COLUMN = 'organization_id',
            HINT = 'The view sms_outbox.organizations lists them; install_app() and set_organization() make one.';
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.pause_organization(text, text) IS 'Nothing of the organization is claimed until resume_organization(); it may still enqueue, and attempts in flight end.';

CREATE FUNCTION sms_outbox.resume_organization(organization_id text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sms_outbox.require_organization(organization_id);
    UPDATE sms_outbox.organization AS o SET paused_at = NULL, paused_reason = NULL WHERE o.organization_id = resume_organization.organization_id;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'organization_id: there is no organization "%"', organization_id USING ERRCODE = 'P0002', COLUMN = 'organization_id',
            HINT = 'The view sms_outbox.organizations lists them; install_app() and set_organization() make one.';
    END IF;
    PERFORM sms_outbox.wake();
END
$$;
COMMENT ON FUNCTION sms_outbox.resume_organization(text) IS 'Ends pause_organization().';
