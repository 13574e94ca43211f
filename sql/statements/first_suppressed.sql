-- The first of these numbers ($2, from 1) that the organization ($1) must not write to.
SELECT pg_catalog.min(w.place)
  FROM pg_catalog.unnest($2) WITH ORDINALITY AS w (mobile, place)
 CROSS JOIN LATERAL (SELECT FROM sms_outbox.suppression AS s
                      WHERE s.organization_id OPERATOR(pg_catalog.=) $1 AND s.mobile OPERATOR(pg_catalog.=) w.mobile LIMIT 1) AS s
