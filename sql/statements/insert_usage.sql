INSERT INTO sms_outbox.usage (organization_id, at, day, messages, segments) VALUES ($1, $2, $3, $4, $5)
