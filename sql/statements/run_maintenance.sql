-- One bounded piece of every task; whether any has more to do.
SELECT pg_catalog.bool_or(m.more) FROM sms_outbox.run_maintenance() AS m
