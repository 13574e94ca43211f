-- Who acts for which organization: the ties of roles, and the keys of the HTTP API.

CREATE FUNCTION sms_outbox.require_organization(organization_id text) RETURNS void
    LANGUAGE plpgsql STABLE PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    visible CONSTANT text := sms_outbox.visible_organization();
BEGIN
    IF (visible IN ('*', organization_id)) IS NOT TRUE THEN
        RAISE EXCEPTION 'organization_id: %', CASE WHEN organization_id IS NULL THEN 'this concerns all organizations, and the caller acts for one'
                                                   ELSE 'the caller acts for another organization' END
            USING ERRCODE = '42501', COLUMN = 'organization_id', CONSTRAINT = 'organization_mismatch';
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.require_organization(text) IS 'Refuses (42501) a caller that does not act for this organization, or, with NULL, not for all. Internal: operators'' functions call it.';

CREATE FUNCTION sms_outbox.bind_role(role name, organization_id text DEFAULT NULL) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    bound regrole;
BEGIN
    PERFORM sms_outbox.require_organization(NULL);
    SELECT r.oid INTO bound FROM pg_roles AS r WHERE r.rolname = role;
    IF NOT FOUND THEN
        RAISE EXCEPTION 'role: there is no role "%"', role USING ERRCODE = '42704', COLUMN = 'role', HINT = 'CREATE ROLE makes one.';
    END IF;
    IF role LIKE 'sms\_outbox\_%' OR EXISTS (SELECT FROM pg_roles AS r WHERE r.oid = bound AND (r.rolsuper OR r.rolbypassrls)) THEN
        RAISE EXCEPTION 'role: "%" cannot be bound', role USING ERRCODE = '22023', COLUMN = 'role',
            HINT = 'Bind a login, or the role that PostgREST sets; not a group of sms_outbox, nor a role that row security does not hold.';
    END IF;
    IF organization_id IS NOT NULL THEN
        PERFORM sms_outbox.check_organization_id(organization_id);
    END IF;
    INSERT INTO sms_outbox.role_binding AS b (role, organization_id) VALUES (bound, bind_role.organization_id)
    ON CONFLICT ON CONSTRAINT role_binding_pkey DO UPDATE SET organization_id = bind_role.organization_id;
END
$$;
COMMENT ON FUNCTION sms_outbox.bind_role(name, text) IS 'Ties a role to an organization: as its login, or after SET ROLE to it, nothing of another organization can be enqueued, seen or changed. NULL: tied to the organization that each transaction names by the claim organization_id in request.jwt.claims, or by the setting sms_outbox.organization_id; without one it sees nothing. For PostgREST''s roles. unbind_role() ends it. A role that is not bound is trusted for all organizations.';

CREATE FUNCTION sms_outbox.unbind_role(role name) RETURNS boolean
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
BEGIN
    PERFORM sms_outbox.require_organization(NULL);
    DELETE FROM sms_outbox.role_binding AS b USING pg_roles AS r WHERE r.rolname = unbind_role.role AND b.role = r.oid;
    RETURN FOUND;
END
$$;
COMMENT ON FUNCTION sms_outbox.unbind_role(name) IS 'Ends bind_role(): the role is trusted for all organizations again. Says whether it was bound.';

CREATE FUNCTION sms_outbox.create_api_key(organization_id text, name text, scopes text[] DEFAULT '{enqueue,read}', expires_at timestamptz DEFAULT NULL) RETURNS text
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    new_id CONSTANT text := left(replace(gen_random_uuid()::text, '-', ''), 12);
    key CONSTANT text := 'smsk_' || new_id || '_' || replace(gen_random_uuid()::text || gen_random_uuid()::text, '-', '');
    refused CONSTANT text := CASE
        WHEN name IS NULL OR length(name) NOT BETWEEN 1 AND 100 THEN 'name: 1 to 100 characters are needed'
        WHEN coalesce(cardinality(scopes), 0) = 0 OR array_position(scopes, NULL) IS NOT NULL OR NOT scopes <@ ARRAY['enqueue', 'read', 'operate']
             THEN 'scopes: some of enqueue, read and operate are needed'
        WHEN expires_at <= now() THEN 'expires_at: it must be in the future'
    END;
BEGIN
    PERFORM sms_outbox.check_organization_id(organization_id);
    PERFORM sms_outbox.require_organization(organization_id);
    IF refused IS NOT NULL THEN
        RAISE EXCEPTION '%', refused USING ERRCODE = '22023', COLUMN = split_part(refused, ':', 1);
    END IF;
    INSERT INTO sms_outbox.api_key (key_id, organization_id, name, digest, scopes, expires_at)
    VALUES (new_id, create_api_key.organization_id, create_api_key.name, sha256(convert_to(key, 'UTF8')),
            ARRAY(SELECT DISTINCT s FROM unnest(create_api_key.scopes) AS s ORDER BY s), create_api_key.expires_at);
    RETURN key;
END
$$;
COMMENT ON FUNCTION sms_outbox.create_api_key(text, text, text[], timestamptz) IS 'Makes a key for the HTTP API and returns it: smsk_<key_id>_<secret>. It is shown this once; only its hash is kept. scopes: enqueue (send), read (messages of the organization), operate (cancel and retry). Without expires_at it is good until revoke_api_key().';

CREATE FUNCTION sms_outbox.revoke_api_key(key_id text) RETURNS void
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    visible CONSTANT text := sms_outbox.visible_organization();
BEGIN
    UPDATE sms_outbox.api_key AS k SET revoked_at = coalesce(k.revoked_at, now())
     WHERE k.key_id = revoke_api_key.key_id AND visible IN (k.organization_id, '*');
    IF NOT FOUND THEN
        RAISE EXCEPTION 'key_id: there is no key "%"', left(key_id, 12) USING ERRCODE = 'P0002', COLUMN = 'key_id', CONSTRAINT = 'not_found',
            HINT = 'The view sms_outbox.api_keys lists them; the id is the part between smsk_ and the next _.';
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.revoke_api_key(text) IS 'Ends a key at once: the next request with it is refused. key_id is the part between smsk_ and the next _.';
