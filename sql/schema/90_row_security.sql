-- Who sees which rows. Two roles own everything, and neither can log in or is a superuser:
--
-- sms_outbox_owner   tables, and the functions that work for all organizations (claim, finish, maintenance). It bypasses row security.
-- sms_outbox_tenant  the views and functions that show an organization its rows. It sees those of visible_organization().
--
-- Everybody else, whatever may have been granted by mistake, sees none. What a function of sms_outbox_owner does for one
-- organization it must check itself: enqueue by its Caller, operators' functions by require_organization().

DO $$
DECLARE
    secured regclass;
    -- Asked once for each table of a statement (IN would ask twice). COALESCE, since the planner takes it for one half of the rows; the bare comparison, without
    -- statistics, for a hundredth, and then it joins large tables each with each.
    visible CONSTANT text := 'COALESCE((SELECT sms_outbox.visible_organization()) = ANY (ARRAY[organization_id, ''*'']), false)';
    of_visible_app CONSTANT text := 'app_id IN (SELECT a.app_id FROM sms_outbox.organization_app AS a)';
BEGIN
    FOR secured IN
        SELECT c.oid FROM pg_catalog.pg_class AS c
         WHERE c.relnamespace = 'sms_outbox'::pg_catalog.regnamespace AND c.relkind IN ('r', 'p') AND NOT c.relispartition
           AND EXISTS (SELECT FROM pg_catalog.pg_attribute AS t WHERE t.attrelid = c.oid AND t.attname IN ('organization_id', 'app_id'))
         ORDER BY 1
    LOOP
        EXECUTE pg_catalog.format('ALTER TABLE %s ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', secured);
        EXECUTE pg_catalog.format('CREATE POLICY visible ON %s FOR SELECT TO sms_outbox_tenant USING (%s)', secured,
            CASE WHEN EXISTS (SELECT FROM pg_catalog.pg_attribute AS t WHERE t.attrelid = secured AND t.attname = 'organization_id')
                 THEN visible ELSE of_visible_app END);
        EXECUTE pg_catalog.format('GRANT SELECT ON %s TO sms_outbox_tenant', secured);
    END LOOP;
END
$$;
GRANT SELECT ON sms_outbox.app_state TO sms_outbox_tenant;
