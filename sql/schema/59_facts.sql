-- What enqueue asks at every call, each session remembers (extension/src/facts.rs). These tables say when it changed.

CREATE FUNCTION sms_outbox.announce_change() RETURNS trigger
    LANGUAGE c VOLATILE PARALLEL UNSAFE AS 'MODULE_PATHNAME', 'announce_change_wrapper';
COMMENT ON FUNCTION sms_outbox.announce_change() IS 'Trigger: makes every session read the table''s rows anew that it has remembered, after the commit. Internal.';
REVOKE ALL ON FUNCTION sms_outbox.announce_change() FROM PUBLIC;

-- Always: what logical replication brings fires no other trigger.
DO $$
DECLARE
    tablename name;
BEGIN
    FOREACH tablename IN ARRAY '{organization,organization_app,role_binding,provider}'::name[] LOOP
        EXECUTE format('CREATE TRIGGER announce_change AFTER INSERT OR UPDATE OR DELETE ON sms_outbox.%I
                            FOR EACH STATEMENT EXECUTE FUNCTION sms_outbox.announce_change()', tablename);
        EXECUTE format('ALTER TABLE sms_outbox.%I ENABLE ALWAYS TRIGGER announce_change', tablename);
    END LOOP;
END
$$;
