-- Lists of messages, newest first. One statement for each kind of question, each with an index of its own.
--
-- Pages cost nothing here, so that rows read decide: else the planner takes the primary key, in whose order the rows lie, for cheaper
-- than the right index, and reads every organization's rows for one's. (Rows compared as wholes, (organization, id), have no such rival,
-- but before PostgreSQL 18 a scan does not stop where the second column ends the range.)
--
-- It belongs to sms_outbox_owner and checks the organization itself: under row security the planner keeps comparisons that are not
-- leakproof (of an enum, such as a status) out of the index.

CREATE FUNCTION sms_outbox.page(
    organization_id text, dispatch_status text DEFAULT NULL, mobile text DEFAULT NULL, created_after timestamptz DEFAULT NULL,
    created_before timestamptz DEFAULT NULL, before_id sms_outbox.message_id DEFAULT NULL, "rows" integer DEFAULT 20)
    RETURNS SETOF sms_outbox.message_id
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
    SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off SET enable_sort = off
    SET random_page_cost = 0 SET seq_page_cost = 0
AS $$
DECLARE
    first CONSTANT sms_outbox.message_id := sms_outbox.id_floor(coalesce(created_after, '1970-01-01Z'));
    -- The end, exclusive.
    past sms_outbox.message_id := sms_outbox.id_floor(coalesce(created_before, '9999-12-31Z'));
    wanted sms_outbox.dispatch_status;
    number text;
BEGIN
    IF organization_id IS NULL THEN
        RAISE EXCEPTION 'organization_id: it is missing' USING ERRCODE = '22023', COLUMN = 'organization_id';
    END IF;
    PERFORM sms_outbox.require_organization(organization_id);
    IF "rows" IS NULL OR "rows" NOT BETWEEN 1 AND 1001 THEN
        RAISE EXCEPTION 'rows: it must be between 1 and 1001' USING ERRCODE = '22023', COLUMN = 'rows';
    END IF;
    IF NOT coalesce(dispatch_status, '') = ANY (enum_range(NULL::sms_outbox.dispatch_status)::text[] || ''::text) THEN
        RAISE EXCEPTION 'dispatch_status: there is no such status' USING ERRCODE = '22023', COLUMN = 'dispatch_status',
            HINT = 'One of ' || array_to_string(enum_range(NULL::sms_outbox.dispatch_status), ', ') || '.';
    END IF;
    wanted := nullif(dispatch_status, '');
    past := CASE WHEN before_id < past THEN before_id ELSE past END;
    IF mobile <> '' THEN
        number := sms_outbox.normalize_mobile(mobile, coalesce(
            (SELECT o.default_region FROM sms_outbox.organization AS o WHERE o.organization_id = page.organization_id),
            sms_outbox.setting('default_region')));
        RETURN QUERY
        SELECT m.id FROM sms_outbox.message AS m
         WHERE m.organization_id = page.organization_id AND m.mobile = number AND m.id >= first AND m.id < past
           AND (wanted IS NULL OR sms_outbox.status_of(m.id) = wanted)
         ORDER BY m.id DESC LIMIT "rows";
    ELSIF wanted IS NULL THEN
        RETURN QUERY
        SELECT m.id FROM sms_outbox.message AS m
         WHERE m.organization_id = page.organization_id AND m.id >= first AND m.id < past
         ORDER BY m.id DESC LIMIT "rows";
    ELSIF wanted = 'pending' THEN
        RETURN QUERY
        SELECT w.id
          FROM ((SELECT r.id FROM sms_outbox.ready AS r
                  WHERE r.organization_id = page.organization_id AND r.id >= first AND r.id < past ORDER BY r.id DESC LIMIT "rows")
                UNION ALL
                (SELECT s.id FROM sms_outbox.scheduled AS s
                  WHERE s.organization_id = page.organization_id AND s.id >= first AND s.id < past ORDER BY s.id DESC LIMIT "rows")) AS w
         ORDER BY w.id DESC LIMIT "rows";
    ELSIF wanted = 'sending' THEN
        -- As many as are in flight: few, whatever waits.
        RETURN QUERY
        SELECT l.id FROM sms_outbox.lease AS l
         WHERE l.organization_id = page.organization_id AND l.id >= first AND l.id < past
         ORDER BY l.id DESC LIMIT "rows";
    ELSIF wanted = 'sent' THEN
        RETURN QUERY
        -- Two accepted attempts are one message.
        SELECT DISTINCT ON (a.id) a.id FROM sms_outbox.attempt AS a
         WHERE a.organization_id = page.organization_id AND coalesce(a.status = 'accepted', false) AND a.id >= first AND a.id < past
         ORDER BY a.id DESC LIMIT "rows";
    ELSE
        RETURN QUERY
        SELECT e.id FROM sms_outbox.ended AS e
         WHERE e.organization_id = page.organization_id AND e.status = wanted AND e.id >= first AND e.id < past
         ORDER BY e.id DESC LIMIT "rows";
    END IF;
END
$$;
COMMENT ON FUNCTION sms_outbox.page(text, text, text, timestamptz, timestamptz, sms_outbox.message_id, integer) IS
'Ids of an organization''s messages, newest first: by dispatch_status, by mobile (in any usual writing), created from created_after (to the millisecond) until before created_before, older than before_id (the last one of the page before). NULL or an empty text asks for no such condition. At most 1001 rows. Ids only grow, so pages neither repeat nor skip while messages arrive. Refuses (22023) what is no status and no number, and (42501) another organization than the caller''s.';
