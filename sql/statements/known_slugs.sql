SELECT pg_catalog.string_agg(p.slug, ', ' ORDER BY p.slug) FROM sms_outbox.provider AS p
