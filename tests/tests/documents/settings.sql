-- The settings of the server, as Markdown.
SELECT sms_outbox.setting('organization_id') \g /dev/null
SELECT '| setting | default | bounds | who may set it | |' UNION ALL SELECT '| --- | --- | --- | --- | --- |';
SELECT format('| `%s` | %s | %s | %s | %s |', s.name,
              -- As SHOW prints it: nothing is set in the server that is asked.
              CASE current_setting(s.name) WHEN '' THEN 'empty' ELSE format('`%s`', current_setting(s.name)) END,
              CASE s.vartype WHEN 'integer' THEN concat_ws(' ', s.min_val, 'to', s.max_val, s.unit)
                             WHEN 'enum' THEN array_to_string(s.enumvals, ', ') ELSE '' END,
              CASE s.context WHEN 'user' THEN 'anybody' WHEN 'superuser' THEN 'superuser' ELSE s.context END,
              concat_ws(' ', s.short_desc, nullif(s.extra_desc, '')))
  FROM pg_settings AS s WHERE s.name LIKE 'sms\_outbox.%' ORDER BY s.name;
