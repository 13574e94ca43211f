INSERT INTO sms_outbox.ready (id, since, valid_until, server, priority, organization_id, preferred_provider_slug)
VALUES ($1::sms_outbox.message_id, $2, $3, $4, $5, $6, $7)
