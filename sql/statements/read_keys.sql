-- The status is NULL where the message is gone: its key then counts as absent.
SELECT i.key, i.id, CASE WHEN m.id IS NOT NULL THEN sms_outbox.status_of(i.id) END,
       m.mobile, m.body, m.sender, m.preferred_provider_slug, m.due_at, m.priority
  FROM sms_outbox.idempotency AS i LEFT JOIN sms_outbox.message AS m ON m.id OPERATOR(pg_catalog.=) i.id
 WHERE i.organization_id OPERATOR(pg_catalog.=) $1 AND i.key OPERATOR(pg_catalog.=) ANY ($2)
