INSERT INTO sms_outbox.scheduled (id, since, due_at, valid_until, server, priority, organization_id, preferred_provider_slug, reason)
VALUES ($1::sms_outbox.message_id, $2, $2, $3, $4, $5, $6, $7, 'datetime')
