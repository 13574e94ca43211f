-- A key whose message is gone passes to a new message, unless another caller was faster.
UPDATE sms_outbox.idempotency AS i SET id = $4::sms_outbox.message_id, mismatches = 0
 WHERE i.organization_id OPERATOR(pg_catalog.=) $1 AND i.key OPERATOR(pg_catalog.=) $2
   AND i.id OPERATOR(pg_catalog.=) $3::sms_outbox.message_id
