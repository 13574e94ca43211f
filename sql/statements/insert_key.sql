-- Waits for a transaction that is writing the same key, for no other.
INSERT INTO sms_outbox.idempotency (organization_id, key, id)
VALUES ($1, $2, $3::sms_outbox.message_id)
ON CONFLICT (organization_id, key) DO NOTHING
