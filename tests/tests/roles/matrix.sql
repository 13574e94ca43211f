-- The tables of docs/roles.md, each a list of lines of Markdown: what the catalog says of the roles.
WITH member AS (
    SELECT d.classid, d.objid
      FROM pg_depend AS d JOIN pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'sms_outbox'
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
), asked (place, role) AS (
    VALUES (1, 'sms_outbox_app'), (2, 'sms_outbox_api'), (3, 'sms_outbox_worker'), (4, 'sms_outbox_operator'), (5, 'sms_outbox_monitor')
), head AS (
    SELECT string_agg(substr(role, 12), ' | ' ORDER BY place) AS names, repeat(' --- |', count(*)::integer) AS rule FROM asked
), line (list, place, name, line) AS (
    SELECT 'roles', 1, '', '| role | log in | superuser | bypass row security | create roles, databases | member of |'
    UNION ALL SELECT 'roles', 2, '', '| --- | --- | --- | --- | --- | --- |'
    UNION ALL
    SELECT 'roles', 3, r.rolname,
           format('| `%s` | %s | %s | %s | %s | %s |', r.rolname, CASE WHEN r.rolcanlogin THEN 'yes' ELSE 'no' END, CASE WHEN r.rolsuper THEN 'yes' ELSE 'no' END, CASE WHEN r.rolbypassrls THEN 'yes' ELSE 'no' END, CASE WHEN r.rolcreaterole OR r.rolcreatedb THEN 'yes' ELSE 'no' END,
                  (SELECT string_agg(format('`%s`', m.roleid::regrole), ', ' ORDER BY m.roleid::regrole::text) FROM pg_auth_members AS m WHERE m.member = r.oid))
      FROM pg_roles AS r WHERE r.rolname LIKE 'sms\_outbox\_%'
    UNION ALL SELECT 'functions', 1, '', format('| function | %s | runs as |', names) FROM head
    UNION ALL SELECT 'functions', 2, '', format('| --- |%s --- |', rule) FROM head
    UNION ALL
    SELECT 'functions', 3, p.oid::regprocedure::text,
           format('| `%s` | %s | %s |', p.oid::regprocedure,
                  (SELECT string_agg(CASE WHEN has_function_privilege(a.role, p.oid, 'EXECUTE') THEN 'x' ELSE '' END, ' | ' ORDER BY a.place) FROM asked AS a),
                  CASE WHEN p.prosecdef THEN substr(p.proowner::regrole::text, 12) ELSE 'caller' END)
      FROM pg_proc AS p JOIN member AS m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
    UNION ALL SELECT 'views', 1, '', format('| view | %s | owner |', names) FROM head
    UNION ALL SELECT 'views', 2, '', format('| --- |%s --- |', rule) FROM head
    UNION ALL
    SELECT 'views', 3, c.oid::regclass::text,
           format('| `%s` | %s | %s |', c.oid::regclass,
                  (SELECT string_agg(CASE WHEN has_table_privilege(a.role, c.oid, 'SELECT') THEN 'x' ELSE '' END, ' | ' ORDER BY a.place) FROM asked AS a),
                  substr(c.relowner::regrole::text, 12))
      FROM pg_class AS c JOIN member AS m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid WHERE c.relkind = 'v'
    UNION ALL SELECT 'tables', 1, '', '| table | row security | policies | rights beside the owner''s |'
    UNION ALL SELECT 'tables', 2, '', '| --- | --- | --- | --- |'
    UNION ALL
    SELECT 'tables', 3, c.oid::regclass::text,
           format('| `%s` | %s | %s | %s |', c.oid::regclass,
                  CASE WHEN c.relrowsecurity AND c.relforcerowsecurity THEN 'forced' ELSE 'none' END,
                  (SELECT string_agg(format('`%s` for %s', p.polname, array_to_string(ARRAY(SELECT substr(r::regrole::text, 12) FROM unnest(p.polroles) AS r), ', ')), ', ' ORDER BY p.polname DESC)
                     FROM pg_policy AS p WHERE p.polrelid = c.oid),
                  (SELECT string_agg(format('%s: %s', substr(g.grantee::regrole::text, 12), g.rights), ', ' ORDER BY g.grantee::regrole::text)
                     FROM (SELECT a.grantee, string_agg(a.privilege_type, ' ' ORDER BY a.privilege_type) AS rights
                             FROM aclexplode(c.relacl) AS a WHERE a.grantee <> c.relowner GROUP BY a.grantee) AS g))
      FROM pg_class AS c JOIN member AS m ON m.classid = 'pg_class'::regclass AND m.objid = c.oid WHERE c.relkind IN ('r', 'p')
)
SELECT l.line FROM line AS l WHERE l.list = LIST ORDER BY l.place, l.name COLLATE "C"
