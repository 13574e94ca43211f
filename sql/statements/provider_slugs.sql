-- Slugs that the organization can name, and slugs that anybody can.
SELECT (SELECT pg_catalog.string_agg(DISTINCT a.provider_slug, ',')
          FROM sms_outbox.organization_app AS a
         WHERE a.organization_id OPERATOR(pg_catalog.=) $1 AND a.uninstalled_at IS NULL),
       (SELECT pg_catalog.string_agg(p.slug, ',' ORDER BY p.slug) FROM sms_outbox.provider AS p)
