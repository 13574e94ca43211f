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

CREATE FUNCTION sms_outbox.set_organization(organization_id text, default_region text DEFAULT NULL, time_zone text DEFAULT NULL) RETURNS void
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
    INSERT INTO sms_outbox.organization AS o (organization_id, default_region, time_zone)
    VALUES (set_organization.organization_id, set_organization.default_region, coalesce(set_organization.time_zone, 'Asia/Riyadh'))
    ON CONFLICT ON CONSTRAINT organization_pkey DO UPDATE
       SET default_region = coalesce(set_organization.default_region, o.default_region),
           time_zone = coalesce(set_organization.time_zone, o.time_zone);
END
$$;
COMMENT ON FUNCTION sms_outbox.set_organization(text, text, text) IS 'Makes or changes an organization: the region that numbers without a country code belong to (ISO 3166; unset: the setting sms_outbox.default_region), and the time zone of datetimes without one (Asia/Riyadh unless set). NULL leaves as it is.';

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
