-- The whole schema of the extension as the catalog tells it, one line a fact, in an order that no oid decides.
WITH member AS (
    SELECT d.classid, d.objid
      FROM pg_depend AS d JOIN pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'sms_outbox'
     WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e'
), grants AS (
    SELECT g.classid, g.objid, string_agg(g.line, '; ' ORDER BY g.line) AS line
      FROM (SELECT o.classid, o.objid,
                   coalesce(r.rolname, 'PUBLIC') || ': ' || string_agg(a.privilege_type, ', ' ORDER BY a.privilege_type) AS line
              FROM (SELECT 'pg_class'::regclass AS classid, oid AS objid, relacl AS acl, relowner AS owner FROM pg_class
                    UNION ALL SELECT 'pg_proc'::regclass, oid, coalesce(proacl, acldefault('f', proowner)), proowner FROM pg_proc
                    UNION ALL SELECT 'pg_type'::regclass, oid, coalesce(typacl, acldefault('T', typowner)), typowner FROM pg_type
                    UNION ALL SELECT 'pg_namespace'::regclass, oid, nspacl, nspowner FROM pg_namespace) AS o
              CROSS JOIN LATERAL aclexplode(o.acl) AS a LEFT JOIN pg_roles AS r ON r.oid = a.grantee
             WHERE a.grantee <> o.owner GROUP BY o.classid, o.objid, r.rolname) AS g
     GROUP BY g.classid, g.objid
), fact AS (
    SELECT 1 AS part, n.nspname::text AS name, 0 AS place,
           format('schema %s, owner %s', n.nspname, n.nspowner::regrole) AS line, 'pg_namespace'::regclass AS classid, n.oid AS objid
      FROM pg_namespace AS n JOIN member AS m ON m.classid = 'pg_namespace'::regclass AND m.objid = n.oid
    UNION ALL
    SELECT 2, format_type(t.oid, NULL), 0,
           format('type %s, owner %s%s', format_type(t.oid, NULL), t.typowner::regrole,
                  ': ' || (SELECT string_agg(e.enumlabel, ', ' ORDER BY e.enumsortorder) FROM pg_enum AS e WHERE e.enumtypid = t.oid)),
           'pg_type'::regclass, t.oid
      FROM pg_type AS t JOIN member AS m ON m.classid = 'pg_type'::regclass AND m.objid = t.oid
      LEFT JOIN pg_class AS c ON c.oid = t.typrelid
     WHERE t.typcategory <> 'A' AND (c.oid IS NULL OR c.relkind = 'c')
    UNION ALL
    SELECT 3, c.oid::regclass::text, 0,
           format('%s %s, owner %s%s%s', CASE c.relkind WHEN 'r' THEN 'table' WHEN 'p' THEN 'partitioned table' WHEN 'v' THEN 'view' WHEN 'S' THEN 'sequence' ELSE 'composite' END,
                  c.oid::regclass, c.relowner::regrole, ' ' || pg_get_partkeydef(c.oid), ' with ' || array_to_string(c.reloptions, ', ')),
           'pg_class'::regclass, c.oid
      FROM pg_class AS c
     WHERE c.relnamespace IN ('sms_outbox'::regnamespace, 'sms_outbox_api'::regnamespace) AND NOT c.relispartition AND c.relkind IN ('r', 'p', 'v', 'S', 'c')
    UNION ALL
    SELECT 3, c.oid::regclass::text, a.attnum,
           format('  %s %s%s%s', a.attname, format_type(a.atttypid, a.atttypmod), CASE WHEN a.attnotnull THEN ' not null' END,
                  CASE WHEN a.attidentity <> '' THEN ' identity' ELSE ' default ' || pg_get_expr(d.adbin, d.adrelid) END),
           NULL, NULL
      FROM pg_attribute AS a JOIN pg_class AS c ON c.oid = a.attrelid
      LEFT JOIN pg_attrdef AS d ON d.adrelid = a.attrelid AND d.adnum = a.attnum
     WHERE c.relnamespace IN ('sms_outbox'::regnamespace, 'sms_outbox_api'::regnamespace) AND NOT c.relispartition AND c.relkind IN ('r', 'p', 'v', 'c')
       AND a.attnum > 0 AND NOT a.attisdropped
    UNION ALL
    SELECT 3, i.indrelid::regclass::text, 2000, format('  %s', pg_get_indexdef(i.indexrelid)), NULL, NULL
      FROM pg_index AS i JOIN pg_class AS c ON c.oid = i.indrelid
     WHERE c.relnamespace IN ('sms_outbox'::regnamespace, 'sms_outbox_api'::regnamespace) AND NOT c.relispartition
    UNION ALL
    SELECT 3, k.conrelid::regclass::text, 2001, format('  constraint %s %s', k.conname, pg_get_constraintdef(k.oid)), NULL, NULL
      FROM pg_constraint AS k JOIN pg_class AS c ON c.oid = k.conrelid
     WHERE c.relnamespace IN ('sms_outbox'::regnamespace, 'sms_outbox_api'::regnamespace) AND NOT c.relispartition AND k.contype IN ('c', 'f')
    UNION ALL
    SELECT 3, k.polrelid::regclass::text, 2002,
           format('  policy %s%s to %s using %s', k.polname, CASE k.polcmd WHEN 'r' THEN ' for select' END,
                  (SELECT string_agg(u::regrole::text, ', ') FROM unnest(k.polroles) AS u), pg_get_expr(k.polqual, k.polrelid)), NULL, NULL
      FROM pg_policy AS k JOIN pg_class AS c ON c.oid = k.polrelid WHERE NOT c.relispartition
    UNION ALL
    SELECT 3, t.tgrelid::regclass::text, 2003, format('  %s%s', pg_get_triggerdef(t.oid), CASE t.tgenabled WHEN 'A' THEN ' always' END), NULL, NULL
      FROM pg_trigger AS t JOIN pg_class AS c ON c.oid = t.tgrelid
     WHERE c.relnamespace = 'sms_outbox'::regnamespace AND NOT t.tgisinternal
    UNION ALL
    SELECT 4, p.oid::regprocedure::text, 0,
           format('function %s.%s(%s) returns %s, language %s, %s%s%s, parallel %s, owner %s%s', n.nspname, p.proname, pg_get_function_arguments(p.oid),
                  pg_get_function_result(p.oid), l.lanname,
                  CASE p.provolatile WHEN 'i' THEN 'immutable' WHEN 's' THEN 'stable' ELSE 'volatile' END,
                  CASE WHEN p.proisstrict THEN ', strict' END, CASE WHEN p.prosecdef THEN ', security definer' END,
                  CASE p.proparallel WHEN 's' THEN 'safe' WHEN 'r' THEN 'restricted' ELSE 'unsafe' END, p.proowner::regrole,
                  ', set ' || array_to_string(p.proconfig, '; ')),
           'pg_proc'::regclass, p.oid
      FROM pg_proc AS p JOIN member AS m ON m.classid = 'pg_proc'::regclass AND m.objid = p.oid
      JOIN pg_namespace AS n ON n.oid = p.pronamespace JOIN pg_language AS l ON l.oid = p.prolang
    UNION ALL
    SELECT 5, i.identity, 0, format('%s %s', i.type, i.identity), NULL, NULL
      FROM member AS m CROSS JOIN LATERAL pg_identify_object(m.classid, m.objid, 0) AS i
     WHERE m.classid IN ('pg_cast'::regclass, 'pg_operator'::regclass, 'pg_opclass'::regclass, 'pg_opfamily'::regclass)
    UNION ALL
    SELECT 6, s.name, 0,
           format('setting %s: %s%s, default %s%s, context %s', s.name, s.vartype, ' in ' || s.unit, s.boot_val,
                  CASE WHEN s.min_val IS NOT NULL THEN ', from ' || s.min_val || ' to ' || s.max_val
                       WHEN s.enumvals IS NOT NULL THEN ', one of ' || array_to_string(s.enumvals, ', ') END, s.context),
           NULL, NULL
      FROM pg_settings AS s WHERE s.name LIKE 'sms\_outbox.%'
)
SELECT f.line || coalesce(E'\n    granted to ' || g.line, '')
       || coalesce(E'\n    ' || obj_description(f.objid, f.classid::regclass::text), '')
  FROM fact AS f LEFT JOIN grants AS g ON g.classid = f.classid AND g.objid = f.objid
 ORDER BY f.part, f.name COLLATE "C", f.place, f.line COLLATE "C"
