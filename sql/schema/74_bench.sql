-- What `sms-outbox bench` puts into the queue to measure with goes without a trace, unlike anything else.

CREATE FUNCTION sms_outbox.forget_bench(organization_id text, max_rows integer DEFAULT 2000) RETURNS bigint
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp SET enable_seqscan = off
AS $$
#variable_conflict use_column
DECLARE
    batch sms_outbox.message_id[];
    apps bigint[];
BEGIN
    PERFORM sms_outbox.require_read_committed();
    IF (forget_bench.organization_id ~ '^sms-outbox-bench:[0-9a-f]{12}$') IS NOT TRUE THEN
        RAISE EXCEPTION 'organization_id: it is none that sms-outbox bench makes' USING ERRCODE = '22023', COLUMN = 'organization_id',
            HINT = 'Such an organization is sms-outbox-bench: and 12 hexadecimal digits; no other is ever forgotten.';
    END IF;
    IF max_rows IS NULL OR max_rows NOT BETWEEN 1 AND 10000 THEN
        RAISE EXCEPTION 'max_rows: it must be between 1 and 10000' USING ERRCODE = '22023', COLUMN = 'max_rows';
    END IF;
    PERFORM sms_outbox.require_organization(forget_bench.organization_id);
    SELECT array_agg(a.app_id) INTO apps FROM sms_outbox.organization_app AS a WHERE a.organization_id = forget_bench.organization_id;
    IF EXISTS (SELECT FROM sms_outbox.organization_app AS a WHERE a.app_id = ANY (apps) AND a.provider_slug <> 'sandbox') THEN
        RAISE EXCEPTION 'organization_id: "%" has an app of a real provider', forget_bench.organization_id USING ERRCODE = '55000', COLUMN = 'organization_id',
            HINT = 'Only what sms-outbox bench made is forgotten, and that sends nothing.';
    END IF;
    SELECT array_agg(f.id ORDER BY f.id) INTO batch
      FROM (SELECT m.id FROM sms_outbox.message AS m WHERE m.organization_id = forget_bench.organization_id ORDER BY m.id LIMIT max_rows) AS f;
    IF batch IS NOT NULL THEN
        -- A worker that came alive may be moving them at this moment: until one look finds none in any place that moves.
        LOOP
            PERFORM FROM sms_outbox.lease AS l WHERE l.id = ANY (batch) ORDER BY l.id FOR UPDATE;
            DELETE FROM sms_outbox.lease AS l WHERE l.id = ANY (batch);
            DELETE FROM sms_outbox.scheduled AS s WHERE s.id = ANY (batch);
            DELETE FROM sms_outbox.ready AS r WHERE r.id = ANY (batch);
            EXIT WHEN NOT EXISTS (SELECT FROM sms_outbox.lease AS l WHERE l.id = ANY (batch))
                  AND NOT EXISTS (SELECT FROM sms_outbox.scheduled AS s WHERE s.id = ANY (batch))
                  AND NOT EXISTS (SELECT FROM sms_outbox.ready AS r WHERE r.id = ANY (batch));
        END LOOP;
        PERFORM sms_outbox.forget(batch);
        RETURN cardinality(batch);
    END IF;
    -- Not while another session folds the counts: those of the organization would come back.
    PERFORM FROM sms_outbox.maintenance AS m WHERE m.task = 'fold' FOR UPDATE;
    DELETE FROM sms_outbox.tally AS t WHERE t.organization_id = forget_bench.organization_id;
    DELETE FROM sms_outbox.app_tally AS t WHERE t.app_id = ANY (apps);
    DELETE FROM sms_outbox.app_health AS h WHERE h.app_id = ANY (apps);
    DELETE FROM sms_outbox.organization_app AS a WHERE a.app_id = ANY (apps);
    DELETE FROM sms_outbox.organization AS o WHERE o.organization_id = forget_bench.organization_id;
    RETURN 0;
END
$$;
COMMENT ON FUNCTION sms_outbox.forget_bench(text, integer) IS 'Deletes what sms-outbox bench made: of an organization sms-outbox-bench: with 12 hexadecimal digits, the next max_rows messages in any state with all that belongs to them, and returns how many; when none are left, its counts, its apps and the organization itself, and returns 0. Commit, and call again until then. Refuses any other organization (22023), and one that has an app of a real provider (55000).';
