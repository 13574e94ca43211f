-- Numbers ($2, each with as many new messages as $3 says) that would get more than $4 messages of the organization ($1) with ids
-- from $5 to $6: place, messages there are, and the one that must grow old first (none where the new ones alone are too many).
SELECT w.place, pg_catalog.cardinality(s.ids), s.ids[$4 OPERATOR(pg_catalog.-) w.messages OPERATOR(pg_catalog.+) 1]::pg_catalog.uuid
  FROM ROWS FROM (pg_catalog.unnest($2), pg_catalog.unnest($3)) WITH ORDINALITY AS w (mobile, messages, place)
 CROSS JOIN LATERAL (
       SELECT ARRAY(SELECT m.id FROM sms_outbox.message AS m
                     WHERE m.organization_id OPERATOR(pg_catalog.=) $1 AND m.mobile OPERATOR(pg_catalog.=) w.mobile
                       AND m.id OPERATOR(pg_catalog.>=) $5::sms_outbox.message_id AND m.id OPERATOR(pg_catalog.<) $6::sms_outbox.message_id
                     ORDER BY m.id DESC LIMIT $4) AS ids) AS s
 WHERE pg_catalog.cardinality(s.ids) OPERATOR(pg_catalog.+) w.messages OPERATOR(pg_catalog.>) $4
 ORDER BY w.place
