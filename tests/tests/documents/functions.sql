-- The functions that a role may call, as a page of Markdown: what docs/guides/sql.md holds.
WITH function AS (
    SELECT p.oid, p.oid::regproc::text AS name, obj_description(p.oid, 'pg_proc') AS comment,
           -- As people write them.
           regexp_replace(replace(pg_get_function_arguments(p.oid), 'timestamp with time zone', 'timestamptz'), '(DEFAULT [^:,]*)::[a-z ]+', '\1', 'g') AS arguments,
           replace(pg_get_function_result(p.oid), 'timestamp with time zone', 'timestamptz') AS result,
           ARRAY(SELECT r.rolname FROM pg_roles AS r
                  WHERE r.rolname IN ('sms_outbox_app', 'sms_outbox_worker', 'sms_outbox_operator', 'sms_outbox_monitor')
                    AND has_function_privilege(r.oid, p.oid, 'EXECUTE') ORDER BY r.rolname) AS roles
      FROM pg_proc AS p JOIN pg_depend AS d ON d.classid = 'pg_proc'::regclass AND d.objid = p.oid AND d.deptype = 'e'
      JOIN pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'sms_outbox'
     WHERE p.proname NOT LIKE 'message\_id\_%'
)
SELECT format(E'### `%s`\n\n```text\n%s(%s)\n→ %s\n```\n\nFor %s.\n\n%s\n', name, name,
              CASE WHEN length(arguments) > 80 THEN E'\n    ' || replace(arguments, ', ', E',\n    ') ELSE arguments END,
              result, array_to_string(roles, ', '), comment)
  FROM function WHERE roles <> '{}' ORDER BY name NOT LIKE 'sms\_outbox\_enqueue%', name COLLATE "C", arguments COLLATE "C";
