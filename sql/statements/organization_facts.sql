-- What enqueue must know of an organization. One without a row has no apps either.
SELECT o.default_region, o.time_zone,
       EXISTS (SELECT FROM sms_outbox.organization_app AS a
                WHERE a.organization_id OPERATOR(pg_catalog.=) $1 AND a.uninstalled_at IS NULL)
  FROM sms_outbox.organization AS o
 WHERE o.organization_id OPERATOR(pg_catalog.=) $1
