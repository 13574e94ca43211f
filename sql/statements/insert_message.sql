INSERT INTO sms_outbox.message (id, created_at, due_at, valid_until, priority, segments, encoding, organization_id,
                                mobile, body, sender, preferred_provider_slug, idempotency_key, meta)
VALUES ($1::sms_outbox.message_id, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11, $12, $13, COALESCE($14, '{}'))
