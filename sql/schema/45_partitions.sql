-- Days of messages: made ahead, dropped whole. See 72_retention.sql for the dropping.
--
-- A function that is one expression has a body that is bound when it is made (RETURN): it needs no search_path, and so the
-- planner can put the expression itself into the query; with a SET clause each call costs 5 µs.

CREATE FUNCTION sms_outbox.id_floor(at timestamptz) RETURNS sms_outbox.message_id
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (lpad(to_hex(floor(extract(epoch FROM at) * 1000)::bigint), 12, '0') || repeat('0', 20))::uuid::sms_outbox.message_id;
COMMENT ON FUNCTION sms_outbox.id_floor(timestamptz) IS 'The lowest id of a time.';

CREATE FUNCTION sms_outbox.day_of(id sms_outbox.message_id) RETURNS date
    LANGUAGE sql IMMUTABLE STRICT PARALLEL SAFE
    RETURN (timestamp 'epoch' + ('x' || left(replace(id::uuid::text, '-', ''), 12))::bit(48)::bigint * interval '1 millisecond')::date;
COMMENT ON FUNCTION sms_outbox.day_of(sms_outbox.message_id) IS 'The day (UTC) in an id: the partition that the message is in.';

CREATE FUNCTION sms_outbox.partitions()
    RETURNS TABLE (day date, lower_id sms_outbox.message_id, upper_id sms_outbox.message_id, message regclass, attempt regclass)
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT d.day, sms_outbox.id_floor(d.day::timestamp AT TIME ZONE 'UTC'), sms_outbox.id_floor((d.day + 1)::timestamp AT TIME ZONE 'UTC'), d.message,
           to_regclass('sms_outbox.attempt_p' || to_char(d.day, 'YYYYMMDD'))
      FROM (SELECT to_date(right(c.relname, 8), 'YYYYMMDD') AS day, c.oid::regclass AS message
              FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
             WHERE i.inhparent = 'sms_outbox.message'::regclass) AS d
     ORDER BY d.day
$$;
COMMENT ON FUNCTION sms_outbox.partitions() IS 'The days that exist, oldest first.';

CREATE FUNCTION sms_outbox.prepare_partitions(days_ahead integer DEFAULT 7) RETURNS integer
    LANGUAGE plpgsql VOLATILE SECURITY DEFINER PARALLEL UNSAFE SET search_path = pg_catalog, pg_temp
AS $$
DECLARE
    today CONSTANT date := (now() AT TIME ZONE 'UTC')::date;
    made integer := 0;
    target date;
    parent text;
    leaf text;
    lower_id sms_outbox.message_id;
    upper_id sms_outbox.message_id;
BEGIN
    IF days_ahead IS NULL OR days_ahead NOT BETWEEN 1 AND 400 THEN
        RAISE EXCEPTION 'days_ahead: % is not between 1 and 400', days_ahead USING ERRCODE = '22023', COLUMN = 'days_ahead';
    END IF;
    -- The common case takes no lock at all.
    IF (SELECT count(*) FROM sms_outbox.partitions() AS p WHERE p.day BETWEEN today AND today + days_ahead) = days_ahead + 1 THEN
        RETURN 0;
    END IF;
    PERFORM pg_advisory_xact_lock('sms_outbox.message'::regclass::oid::integer, 1);
    FOR target IN
        SELECT (today + n)::date FROM generate_series(0, days_ahead) AS n
        EXCEPT SELECT p.day FROM sms_outbox.partitions() AS p ORDER BY 1
    LOOP
        lower_id := sms_outbox.id_floor(target::timestamp AT TIME ZONE 'UTC');
        upper_id := sms_outbox.id_floor((target + 1)::timestamp AT TIME ZONE 'UTC');
        FOREACH parent IN ARRAY ARRAY['message', 'attempt'] LOOP
            leaf := parent || '_p' || to_char(target, 'YYYYMMDD');
            -- LIKE, CHECK, then ATTACH: unlike CREATE TABLE … PARTITION OF it waits for no reader and no writer of the parent.
            EXECUTE format('CREATE TABLE sms_outbox.%I (LIKE sms_outbox.%I INCLUDING COMMENTS INCLUDING STORAGE, '
                           'CONSTRAINT bounds CHECK (id >= %L AND id < %L))', leaf, parent, lower_id, upper_id);
            -- Named by nobody: seen through the parent only, whose policy then holds. So a leaf lets nobody in.
            EXECUTE format('ALTER TABLE sms_outbox.%I ENABLE ROW LEVEL SECURITY, FORCE ROW LEVEL SECURITY', leaf);
            IF parent = 'message' THEN
                EXECUTE format('CREATE INDEX %I ON sms_outbox.%I (organization_id, id)', leaf || '_by_organization', leaf);
                EXECUTE format('CREATE INDEX %I ON sms_outbox.%I (organization_id, mobile, id)', leaf || '_by_mobile', leaf);
            ELSE
                -- For lists of what was sent. A condition that the planner cannot prove from status = 'accepted': else it reads this
                -- index from end to end where a key look-up would do.
                EXECUTE format('CREATE INDEX %I ON sms_outbox.%I (organization_id, id) WHERE coalesce(status = ''accepted'', false)', leaf || '_sent', leaf);
            END IF;
            -- After the other indexes, as in 42_queue.sql.
            EXECUTE format('ALTER TABLE sms_outbox.%I ADD PRIMARY KEY (%s)', leaf, CASE parent WHEN 'message' THEN 'id' ELSE 'id, attempt' END);
            EXECUTE format('ALTER TABLE sms_outbox.%I ATTACH PARTITION sms_outbox.%I FOR VALUES FROM (%L) TO (%L)',
                           parent, leaf, lower_id, upper_id);
            EXECUTE format('ALTER TABLE sms_outbox.%I DROP CONSTRAINT bounds', leaf);
        END LOOP;
        made := made + 1;
    END LOOP;
    RETURN made;
END
$$;
COMMENT ON FUNCTION sms_outbox.prepare_partitions(integer) IS 'Makes the partitions of today and the days ahead that are missing; returns how many days it made. Called by install_app and by maintenance.';
