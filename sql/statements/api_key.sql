-- What enter() judges a key ($1) by: whether it is live, has the scope ($2), and was used within the minute.
SELECT k.digest, k.organization_id,
       k.revoked_at IS NULL AND COALESCE(k.expires_at OPERATOR(pg_catalog.>) pg_catalog.clock_timestamp(), true),
       $2 OPERATOR(pg_catalog.=) ANY (k.scopes),
       k.last_used_at OPERATOR(pg_catalog.>=) (pg_catalog.clock_timestamp() OPERATOR(pg_catalog.-) '1 minute'::pg_catalog.interval)
  FROM sms_outbox.api_key AS k WHERE k.key_id OPERATOR(pg_catalog.=) $1
