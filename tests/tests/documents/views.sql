-- The views that a role may read, as Markdown.
SELECT format(E'### `%s`\n\nFor %s.\n\n%s\n\nColumns: %s.\n', c.oid::regclass,
              (SELECT string_agg(r.rolname, ', ' ORDER BY r.rolname) FROM pg_roles AS r
                WHERE r.rolname LIKE 'sms\_outbox\_%' AND r.rolname <> 'sms_outbox_owner' AND has_table_privilege(r.oid, c.oid, 'SELECT')),
              obj_description(c.oid, 'pg_class'),
              (SELECT string_agg(format('`%s`', a.attname), ', ' ORDER BY a.attnum) FROM pg_attribute AS a WHERE a.attrelid = c.oid AND a.attnum > 0))
  FROM pg_class AS c
 WHERE c.relnamespace = 'sms_outbox'::regnamespace AND c.relkind = 'v'
   AND EXISTS (SELECT FROM pg_roles AS r WHERE r.rolname LIKE 'sms\_outbox\_%' AND r.rolname <> 'sms_outbox_owner' AND has_table_privilege(r.oid, c.oid, 'SELECT'))
 ORDER BY c.relname COLLATE "C";
