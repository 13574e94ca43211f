-- The keys come sorted, so that two callers with the same keys never wait for each other in a circle.
INSERT INTO sms_outbox.idempotency (organization_id, key, id)
SELECT $1, new.key, new.id::sms_outbox.message_id
  FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) AS new (key, id)
ON CONFLICT (organization_id, key) DO NOTHING
RETURNING key
