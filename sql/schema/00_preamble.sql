-- What must be true before anything is made, and the roles that everything is granted to.

\echo Use "CREATE EXTENSION sms_outbox" to load this file. \quit

-- CREATE EXTENSION puts the target schema on the path: whoever may create there could slip an operator into our views.
SET LOCAL search_path = pg_catalog, pg_temp;

DO $$
BEGIN
    IF current_setting('server_version_num')::integer < 150000 THEN
        RAISE EXCEPTION 'sms_outbox needs PostgreSQL 15 or newer; this is %', current_setting('server_version')
            USING ERRCODE = 'feature_not_supported';
    END IF;
    IF current_setting('server_encoding') <> 'UTF8' THEN
        RAISE EXCEPTION 'sms_outbox needs a database with encoding UTF8; this one has %', current_setting('server_encoding')
            USING ERRCODE = 'feature_not_supported',
                  HINT = 'CREATE DATABASE … ENCODING ''UTF8'' TEMPLATE template0, then install there.';
    END IF;
END
$$;

-- Group roles belong to the server, not to the database: another database may have made them already.
DO $$
DECLARE
    role_name text;
BEGIN
    FOREACH role_name IN ARRAY ARRAY['sms_outbox_owner', 'sms_outbox_tenant', 'sms_outbox_api', 'sms_outbox_app', 'sms_outbox_worker',
                                     'sms_outbox_operator', 'sms_outbox_monitor']
    LOOP
        IF NOT EXISTS (SELECT FROM pg_catalog.pg_roles WHERE rolname = role_name) THEN
            BEGIN
                -- The owner works for all organizations. A policy that lets it see every row would do, but where there is any
                -- policy the planner keeps comparisons that are not leakproof, such as of xid8, out of the indexes.
                EXECUTE pg_catalog.format('CREATE ROLE %I NOLOGIN %s', role_name, CASE role_name WHEN 'sms_outbox_owner' THEN 'BYPASSRLS' END);
            EXCEPTION WHEN duplicate_object OR unique_violation THEN
                NULL; -- the same installation in another database was faster
            END;
        END IF;
    END LOOP;
    -- Somebody else may have made them, to be handed what they own.
    SELECT r.rolname INTO role_name FROM pg_catalog.pg_roles AS r
     WHERE r.rolname IN ('sms_outbox_owner', 'sms_outbox_tenant')
       AND (r.rolsuper OR r.rolcanlogin OR r.rolbypassrls <> (r.rolname = 'sms_outbox_owner'));
    IF FOUND THEN
        RAISE EXCEPTION 'role % exists, and is not as this extension makes it', role_name
            USING ERRCODE = 'object_not_in_prerequisite_state',
                  HINT = pg_catalog.format('ALTER ROLE %I NOLOGIN NOSUPERUSER %s, if it was made for this; else rename it.', role_name,
                                           CASE role_name WHEN 'sms_outbox_owner' THEN 'BYPASSRLS' ELSE 'NOBYPASSRLS' END);
    END IF;
END
$$;

CREATE SCHEMA sms_outbox;
COMMENT ON SCHEMA sms_outbox IS 'The SMS outbox: messages enqueued in application transactions, claimed by workers, and what became of them. Tables are touched through functions only.';

GRANT USAGE ON SCHEMA sms_outbox TO sms_outbox_tenant, sms_outbox_api, sms_outbox_app, sms_outbox_worker, sms_outbox_operator, sms_outbox_monitor;
