-- Locked in the order of the keys, as insert_keys does.
WITH again AS (
    SELECT i.organization_id, i.key
      FROM sms_outbox.idempotency AS i
     WHERE i.organization_id OPERATOR(pg_catalog.=) $1 AND i.key OPERATOR(pg_catalog.=) ANY ($2)
     ORDER BY i.key COLLATE pg_catalog."C"
       FOR NO KEY UPDATE
)
UPDATE sms_outbox.idempotency AS i SET mismatches = i.mismatches OPERATOR(pg_catalog.+) 1
  FROM again
 WHERE i.organization_id OPERATOR(pg_catalog.=) again.organization_id AND i.key OPERATOR(pg_catalog.=) again.key
