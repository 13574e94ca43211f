-- What an organization ($1) has enqueued at a time ($2) in its zone ($3): the sums that fold_usage() keeps, and what came since.
-- $4 is when the minute of $2 began.
SELECT c.day, (c.day OPERATOR(pg_catalog.+) 1)::pg_catalog.timestamp AT TIME ZONE $3,
       COALESCE(t.minute_messages, 0) OPERATOR(pg_catalog.+) COALESCE(d.minute_messages, 0),
       COALESCE(t.messages, 0) OPERATOR(pg_catalog.+) COALESCE(d.messages, 0),
       COALESCE(t.segments, 0) OPERATOR(pg_catalog.+) COALESCE(d.segments, 0)
  FROM (SELECT ($2 AT TIME ZONE $3)::pg_catalog.date AS day) AS c
  LEFT JOIN LATERAL (
       SELECT u.messages, u.segments, CASE WHEN u.minute OPERATOR(pg_catalog.=) $4 THEN u.minute_messages END AS minute_messages
         FROM sms_outbox.usage_day AS u
        WHERE u.organization_id OPERATOR(pg_catalog.=) $1 AND u.day OPERATOR(pg_catalog.=) c.day) AS d ON true
 CROSS JOIN LATERAL (
       SELECT pg_catalog.sum(u.messages) AS messages, pg_catalog.sum(u.segments) AS segments,
              pg_catalog.sum(u.messages) FILTER (WHERE u.at OPERATOR(pg_catalog.>=) $4) AS minute_messages
         FROM sms_outbox.usage AS u
        WHERE u.organization_id OPERATOR(pg_catalog.=) $1 AND u.day OPERATOR(pg_catalog.=) c.day
          AND u.at OPERATOR(pg_catalog.>=) (SELECT COALESCE(pg_catalog.max(f.folded_until), '-infinity')
                                              FROM sms_outbox.usage_day AS f WHERE f.organization_id OPERATOR(pg_catalog.=) $1)) AS t
