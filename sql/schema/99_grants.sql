-- Everything belongs to sms_outbox_owner, which is no superuser and cannot log in; nothing is granted to PUBLIC.

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

-- health_checks() looks at the sessions of others and at the preloaded libraries.
GRANT pg_read_all_stats, pg_read_all_settings TO sms_outbox_owner;

GRANT USAGE ON TYPE sms_outbox.message_id, sms_outbox.dispatch_status, sms_outbox.attempt_status, sms_outbox.delivery_status
   TO sms_outbox_app, sms_outbox_worker, sms_outbox_operator, sms_outbox_monitor;
-- Input and output too: the planner calls them like any function where it folds a cast of a constant text.
GRANT EXECUTE ON FUNCTION
    sms_outbox.message_id_in(cstring), sms_outbox.message_id_out(sms_outbox.message_id),
    sms_outbox.message_id_lt(sms_outbox.message_id, sms_outbox.message_id), sms_outbox.message_id_le(sms_outbox.message_id, sms_outbox.message_id),
    sms_outbox.message_id_eq(sms_outbox.message_id, sms_outbox.message_id), sms_outbox.message_id_ne(sms_outbox.message_id, sms_outbox.message_id),
    sms_outbox.message_id_ge(sms_outbox.message_id, sms_outbox.message_id), sms_outbox.message_id_gt(sms_outbox.message_id, sms_outbox.message_id),
    sms_outbox.message_id_cmp(sms_outbox.message_id, sms_outbox.message_id), sms_outbox.message_id_hash(sms_outbox.message_id),
    -- Casts from and to text call these two with the rights of the caller.
    sms_outbox.message_id_in(cstring), sms_outbox.message_id_out(sms_outbox.message_id),
    sms_outbox.waits_for(text, text, bigint[], integer), sms_outbox.server_id(), sms_outbox.status_of(sms_outbox.message_id)
   TO sms_outbox_app, sms_outbox_worker, sms_outbox_operator, sms_outbox_monitor;

-- Applications: enqueue (see 20_extension_functions.sql) and read.
GRANT SELECT ON sms_outbox.outbox, sms_outbox.attempts TO sms_outbox_app, sms_outbox_operator;

-- Workers: the queue, and nothing else.
GRANT EXECUTE ON FUNCTION
    sms_outbox.look(smallint[], xid8[], sms_outbox.message_id[], xid8[], integer, text[]),
    sms_outbox.apps(text[]),
    sms_outbox.heartbeat(text, text, text, integer, bigint, bigint, bigint),
    sms_outbox.goodbye(text),
    sms_outbox.claim(text, sms_outbox.message_id[], bigint[]),
    sms_outbox.leases(text),
    sms_outbox.finish(text, sms_outbox.message_id[], smallint[], sms_outbox.attempt_status[], smallint[], text[], text[], text[], text[], double precision[]),
    sms_outbox.setting(text)
   TO sms_outbox_worker;

-- Operators.
GRANT EXECUTE ON FUNCTION
    sms_outbox.set_organization(text, text, text), sms_outbox.pause_organization(text, text), sms_outbox.resume_organization(text),
    sms_outbox.install_app(text, text, text, jsonb, integer, integer, integer, double precision, boolean),
    sms_outbox.update_app(bigint, jsonb, text, integer, integer, integer, double precision, boolean),
    sms_outbox.uninstall_app(bigint), sms_outbox.pause_app(bigint, text), sms_outbox.resume_app(bigint),
    sms_outbox.cancel(sms_outbox.message_id), sms_outbox.cancel(jsonb, boolean, integer),
    sms_outbox.retry(sms_outbox.message_id), sms_outbox.retry(jsonb, boolean, integer),
    sms_outbox.release_held(), sms_outbox.prepare_partitions(integer), sms_outbox.run_maintenance()
   TO sms_outbox_operator;

-- Conditions and counts hold no number and no body.
GRANT SELECT ON sms_outbox.queue_stats, sms_outbox.waiting, sms_outbox.app_stats, sms_outbox.worker_stats, sms_outbox.health,
                sms_outbox.organizations, sms_outbox.apps_installed, sms_outbox.misplaced
   TO sms_outbox_operator, sms_outbox_monitor;
GRANT SELECT ON sms_outbox.provider TO sms_outbox_operator;
GRANT EXECUTE ON FUNCTION sms_outbox.health_checks(), sms_outbox.partitions(), sms_outbox.setting(text) TO sms_outbox_operator, sms_outbox_monitor;
