-- One statement for all: payloads, and for each where it waits.
WITH new AS MATERIALIZED (
    SELECT * FROM ROWS FROM (
        pg_catalog.unnest($3), pg_catalog.unnest($4), pg_catalog.unnest($5), pg_catalog.unnest($6), pg_catalog.unnest($7),
        pg_catalog.unnest($8), pg_catalog.unnest($9), pg_catalog.unnest($10), pg_catalog.unnest($11), pg_catalog.unnest($12),
        pg_catalog.unnest($13), pg_catalog.unnest($14), pg_catalog.unnest($15)
    ) AS new (id, due_at, valid_until, priority, segments, encoding, mobile, body, sender, preferred_provider_slug,
              idempotency_key, meta, later)
), message AS (
    INSERT INTO sms_outbox.message (id, created_at, due_at, valid_until, priority, segments, encoding, organization_id,
                                    mobile, body, sender, preferred_provider_slug, idempotency_key, meta)
    SELECT id::sms_outbox.message_id, $2, due_at, valid_until, priority, segments, encoding, $1,
           mobile, body, sender, preferred_provider_slug, idempotency_key, COALESCE(meta::pg_catalog.jsonb, '{}'::pg_catalog.jsonb)
      FROM new
), scheduled AS (
    INSERT INTO sms_outbox.scheduled (id, since, due_at, valid_until, server, priority, organization_id, preferred_provider_slug, reason)
    SELECT id::sms_outbox.message_id, due_at, due_at, valid_until, $16, priority, $1, preferred_provider_slug, 'datetime'
      FROM new WHERE later
)
INSERT INTO sms_outbox.ready (id, since, valid_until, server, priority, organization_id, preferred_provider_slug)
SELECT id::sms_outbox.message_id, $2, valid_until, $16, priority, $1, preferred_provider_slug
  FROM new WHERE NOT later
