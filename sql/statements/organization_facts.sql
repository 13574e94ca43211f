-- What enqueue must know of an organization ($1), its limits too, and what the caller's roles ($2, $3) are bound to. Always one row: an
-- organization without a row has no apps either.
SELECT NULLIF(pg_catalog.concat_ws(',',
           (SELECT COALESCE(b.organization_id, '*') FROM sms_outbox.role_binding AS b WHERE b.role OPERATOR(pg_catalog.=) $2),
           (SELECT COALESCE(b.organization_id, '*') FROM sms_outbox.role_binding AS b WHERE b.role OPERATOR(pg_catalog.=) $3)), ''),
       o.default_region, o.time_zone,
       EXISTS (SELECT FROM sms_outbox.organization_app AS a
                WHERE a.organization_id OPERATOR(pg_catalog.=) $1 AND a.uninstalled_at IS NULL),
       o.messages_per_minute, o.messages_per_day, o.messages_per_recipient_hour, o.segments_per_day,
       pg_catalog.array_to_string(o.allowed_destinations, ','), pg_catalog.array_to_string(o.blocked_destinations, ','),
       pg_catalog.array_to_string(o.allowed_senders, ','),
       o.suppresses
  FROM (VALUES ($1)) AS asked (organization_id)
  LEFT JOIN sms_outbox.organization AS o ON o.organization_id OPERATOR(pg_catalog.=) asked.organization_id
