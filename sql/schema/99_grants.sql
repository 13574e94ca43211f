-- Everything belongs to sms_outbox_owner or sms_outbox_tenant (90_row_security.sql), no superusers both and without login; nothing
-- is granted to PUBLIC. docs/roles.md is the matrix that comes of it.

DO $$
DECLARE
    member record;
BEGIN
    FOR member IN
        SELECT d.classid, d.objid, i.type, i.identity
          FROM pg_catalog.pg_depend AS d
          JOIN pg_catalog.pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'sms_outbox'
          CROSS JOIN LATERAL pg_catalog.pg_identify_object(d.classid, d.objid, 0) AS i
         WHERE d.refclassid = 'pg_catalog.pg_extension'::pg_catalog.regclass AND d.deptype = 'e'
           AND i.type IN ('schema', 'table', 'view', 'function', 'type', 'operator', 'operator class', 'operator family')
         ORDER BY d.classid, d.objid
    LOOP
        -- The row type of a table is a type too, and follows its table; that of an array (a member from PostgreSQL 18 on) its element.
        CONTINUE WHEN member.type = 'type' AND EXISTS (
            SELECT FROM pg_catalog.pg_type AS t LEFT JOIN pg_catalog.pg_class AS c ON c.oid = t.typrelid
             WHERE t.oid = member.objid AND (c.relkind <> 'c' OR t.typcategory = 'A'));
        EXECUTE pg_catalog.format('ALTER %s %s OWNER TO sms_outbox_owner', member.type, member.identity);
        IF member.type IN ('function', 'type') THEN
            EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM PUBLIC', member.type, member.identity);
        END IF;
    END LOOP;
END
$$;

-- ALTER DEFAULT PRIVILEGES of the installing superuser may have given others what was made: that ends here.
DO $$
DECLARE
    given record;
BEGIN
    FOR given IN
        SELECT DISTINCT o.kind, o.identity, CASE a.grantee WHEN 0 THEN 'PUBLIC' ELSE pg_catalog.quote_ident(pg_catalog.pg_get_userbyid(a.grantee)) END AS grantee
          FROM (SELECT 'TABLE' AS kind, c.oid::pg_catalog.regclass::text AS identity, c.relacl AS acl, c.oid, c.tableoid FROM pg_catalog.pg_class AS c
                UNION ALL SELECT 'FUNCTION', p.oid::pg_catalog.regprocedure::text, p.proacl, p.oid, p.tableoid FROM pg_catalog.pg_proc AS p
                UNION ALL SELECT 'TYPE', t.oid::pg_catalog.regtype::text, t.typacl, t.oid, t.tableoid FROM pg_catalog.pg_type AS t
                UNION ALL SELECT 'SCHEMA', pg_catalog.quote_ident(n.nspname), n.nspacl, n.oid, n.tableoid FROM pg_catalog.pg_namespace AS n) AS o
          JOIN pg_catalog.pg_depend AS d ON d.classid = o.tableoid AND d.objid = o.oid AND d.deptype = 'e'
          JOIN pg_catalog.pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'sms_outbox'
          CROSS JOIN LATERAL pg_catalog.aclexplode(o.acl) AS a
         WHERE pg_catalog.pg_get_userbyid(a.grantee) NOT LIKE 'sms\_outbox\_%'
    LOOP
        EXECUTE pg_catalog.format('REVOKE ALL ON %s %s FROM %s', given.kind, given.identity, given.grantee);
    END LOOP;
END
$$;

-- What shows an organization its rows, and nothing that works for all.
DO $$
DECLARE
    shown pg_catalog.regclass;
BEGIN
    FOR shown IN
        SELECT c.oid FROM pg_catalog.pg_class AS c
         WHERE c.relkind = 'v' AND c.relnamespace IN ('sms_outbox'::pg_catalog.regnamespace, 'sms_outbox_api'::pg_catalog.regnamespace)
           AND c.oid NOT IN ('sms_outbox.app_state'::pg_catalog.regclass, 'sms_outbox.worker_stats'::pg_catalog.regclass,
                             'sms_outbox.health'::pg_catalog.regclass)
    LOOP
        EXECUTE pg_catalog.format('ALTER VIEW %s OWNER TO sms_outbox_tenant', shown);
    END LOOP;
END
$$;
ALTER FUNCTION sms_outbox.waits_for(text, text, bigint[], integer) OWNER TO sms_outbox_tenant;

-- health_checks() looks at the sessions of others and at the preloaded libraries.
GRANT pg_read_all_stats, pg_read_all_settings TO sms_outbox_owner;

GRANT USAGE ON TYPE sms_outbox.message_id, sms_outbox.dispatch_status, sms_outbox.attempt_status, sms_outbox.delivery_status, sms_outbox.certainty
   TO sms_outbox_tenant, sms_outbox_api, sms_outbox_app, sms_outbox_worker, sms_outbox_operator, sms_outbox_monitor;
-- Input and output too: the planner calls them like any function where it folds a cast of a constant text.
GRANT EXECUTE ON FUNCTION
    sms_outbox.message_id_in(cstring), sms_outbox.message_id_out(sms_outbox.message_id), sms_outbox.message_id(text),
    sms_outbox.message_id_lt(sms_outbox.message_id, sms_outbox.message_id), sms_outbox.message_id_le(sms_outbox.message_id, sms_outbox.message_id),
    sms_outbox.message_id_eq(sms_outbox.message_id, sms_outbox.message_id), sms_outbox.message_id_ne(sms_outbox.message_id, sms_outbox.message_id),
    sms_outbox.message_id_ge(sms_outbox.message_id, sms_outbox.message_id), sms_outbox.message_id_gt(sms_outbox.message_id, sms_outbox.message_id),
    sms_outbox.message_id_cmp(sms_outbox.message_id, sms_outbox.message_id), sms_outbox.message_id_hash(sms_outbox.message_id),
    sms_outbox.certainty(sms_outbox.attempt_status, text), sms_outbox.waits_for(text, text, bigint[], integer), sms_outbox.server_id(), sms_outbox.visible_organization(),
    sms_outbox.counts_refusals()
   TO sms_outbox_tenant, sms_outbox_api, sms_outbox_app, sms_outbox_worker, sms_outbox_operator, sms_outbox_monitor;

GRANT EXECUTE ON FUNCTION sms_outbox.credentials_held(jsonb, jsonb) TO sms_outbox_tenant;

-- Applications: enqueue (see 20_extension_functions.sql) and read.
GRANT SELECT ON sms_outbox.outbox, sms_outbox.attempts, sms_outbox_api.outbox, sms_outbox_api.attempts TO sms_outbox_app, sms_outbox_operator;
GRANT EXECUTE ON FUNCTION
    sms_outbox.enqueue_text(text, text, text, text, text, text, jsonb, text, integer, text),
    sms_outbox.http_status(text, text),
    sms_outbox_api.sms_outbox_enqueue(text, text, text, text, text, text, jsonb, text, integer, text)
   TO sms_outbox_app, sms_outbox_operator;

-- The HTTP API: as an application, for the organization that enter() names; and cancel and retry for keys that may.
GRANT SELECT ON sms_outbox.outbox, sms_outbox.attempts TO sms_outbox_api;
GRANT EXECUTE ON FUNCTION
    sms_outbox.enter(text, text, bytea, text),
    sms_outbox.enqueue_text(text, text, text, text, text, text, jsonb, text, integer, text),
    sms_outbox.enqueue_many(jsonb, text),
    sms_outbox.page(text, text, text, timestamptz, timestamptz, sms_outbox.message_id, integer),
    sms_outbox.cancel(sms_outbox.message_id), sms_outbox.retry(sms_outbox.message_id),
    sms_outbox.record_receipt(sms_outbox.message_id, integer, sms_outbox.delivery_status, text, timestamptz)
   TO sms_outbox_api;

-- Workers: the queue, and nothing else.
GRANT EXECUTE ON FUNCTION
    sms_outbox.look(smallint[], xid8[], sms_outbox.message_id[], xid8[], integer, text[]),
    sms_outbox.apps(text[]),
    sms_outbox.heartbeat(text, text, text, integer, bigint, bigint, bigint),
    sms_outbox.goodbye(text),
    sms_outbox.claim(text, sms_outbox.message_id[], bigint[]),
    sms_outbox.leases(text),
    sms_outbox.app_credentials(bigint),
    sms_outbox.finish(text, sms_outbox.message_id[], smallint[], sms_outbox.attempt_status[], smallint[], text[], text[], text[], text[], double precision[]),
    sms_outbox.unclear(interval, integer),
    sms_outbox.resolve(sms_outbox.message_id, integer, sms_outbox.attempt_status, text, text, text, text),
    sms_outbox.setting(text)
   TO sms_outbox_worker;

-- Operators.
GRANT EXECUTE ON FUNCTION
    sms_outbox.set_organization(text, text, text, integer, integer, integer, integer, text[], text[], text[]),
    sms_outbox.pause_organization(text, text), sms_outbox.resume_organization(text),
    sms_outbox.install_app(text, text, text, jsonb, integer, integer, integer, double precision, boolean, text, integer),
    sms_outbox.update_app(bigint, jsonb, text, integer, integer, integer, double precision, boolean, text, integer),
    sms_outbox.uninstall_app(bigint), sms_outbox.pause_app(bigint, text), sms_outbox.resume_app(bigint),
    sms_outbox.cancel(sms_outbox.message_id), sms_outbox.cancel(jsonb, boolean, integer),
    sms_outbox.retry(sms_outbox.message_id), sms_outbox.retry(jsonb, boolean, integer), sms_outbox.survey(jsonb),
    sms_outbox.resolve(sms_outbox.message_id, integer, sms_outbox.attempt_status, text, text, text, text),
    sms_outbox.resolve(sms_outbox.message_id, sms_outbox.attempt_status, text), sms_outbox.resolve(jsonb, sms_outbox.attempt_status, text, boolean, integer),
    sms_outbox.record_receipt(sms_outbox.message_id, integer, sms_outbox.delivery_status, text, timestamptz),
    sms_outbox.suppress(text, text, text), sms_outbox.unsuppress(text, text),
    sms_outbox.bind_role(name, text), sms_outbox.unbind_role(name),
    sms_outbox.create_api_key(text, text, text[], timestamptz), sms_outbox.revoke_api_key(text),
    sms_outbox.page(text, text, text, timestamptz, timestamptz, sms_outbox.message_id, integer),
    sms_outbox.release_held(), sms_outbox.prepare_partitions(integer), sms_outbox.run_maintenance(),
    sms_outbox.forget_bench(text, integer)
   TO sms_outbox_operator;

-- Conditions and counts hold no number and no body.
GRANT SELECT ON sms_outbox.queue_stats, sms_outbox.waiting, sms_outbox.app_stats, sms_outbox.worker_stats, sms_outbox.health,
                sms_outbox.organizations, sms_outbox.apps_installed, sms_outbox.misplaced,
                sms_outbox.masked_outbox, sms_outbox.masked_attempts
   TO sms_outbox_operator, sms_outbox_monitor;
GRANT SELECT ON sms_outbox.limits, sms_outbox.refusals TO sms_outbox_app, sms_outbox_operator, sms_outbox_monitor;
GRANT SELECT ON sms_outbox.provider, sms_outbox.suppressed, sms_outbox.api_keys, sms_outbox.role_bindings TO sms_outbox_operator;
GRANT SELECT ON sms_outbox.provider TO sms_outbox_tenant;
-- What it is given it may look at: the view apps_installed calls it.
GRANT EXECUTE ON FUNCTION sms_outbox.credentials_held(jsonb, jsonb) TO sms_outbox_operator, sms_outbox_monitor;
GRANT EXECUTE ON FUNCTION sms_outbox.health_checks(), sms_outbox.partitions(), sms_outbox.setting(text) TO sms_outbox_operator, sms_outbox_monitor;
GRANT EXECUTE ON FUNCTION sms_outbox.metrics() TO sms_outbox_api, sms_outbox_operator, sms_outbox_monitor;
