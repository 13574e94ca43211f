-- What enqueue must know of an organization: region and time zone, where set, and slugs of its installed apps.
SELECT o.default_region, COALESCE(o.time_zone, 'Asia/Riyadh'),
       (SELECT pg_catalog.string_agg(a.provider_slug, ',')
          FROM sms_outbox.organization_app AS a
         WHERE a.organization_id OPERATOR(pg_catalog.=) $1 AND a.uninstalled_at IS NULL)
  FROM (SELECT) AS one LEFT JOIN sms_outbox.organization AS o ON o.organization_id OPERATOR(pg_catalog.=) $1
