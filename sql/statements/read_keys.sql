-- The status is NULL where the message is gone: its key then counts as absent. LIMIT keeps each look-up by itself: a plan that was made
-- while there was nothing may otherwise read all that is there, and compare it with the few keys.
SELECT i.key, i.id, CASE WHEN m.id IS NOT NULL THEN sms_outbox.status_of(i.id) END,
       m.mobile, m.body, m.sender, m.preferred_provider_slug, m.due_at, m.priority
  FROM pg_catalog.unnest($2) AS w (key)
 CROSS JOIN LATERAL (SELECT i.key, i.id FROM sms_outbox.idempotency AS i
                      WHERE i.organization_id OPERATOR(pg_catalog.=) $1 AND i.key OPERATOR(pg_catalog.=) w.key LIMIT 1) AS i
  LEFT JOIN LATERAL (SELECT m.* FROM sms_outbox.message AS m WHERE m.id OPERATOR(pg_catalog.=) i.id LIMIT 1) AS m ON true
