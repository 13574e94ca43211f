-- Never waited for: a busy key is no hot row.
UPDATE sms_outbox.api_key AS k SET last_used_at = pg_catalog.clock_timestamp()
 WHERE k.key_id OPERATOR(pg_catalog.=) (SELECT f.key_id FROM sms_outbox.api_key AS f
                                         WHERE f.key_id OPERATOR(pg_catalog.=) $1 FOR NO KEY UPDATE SKIP LOCKED)
