-- Refusals by organization ($1) and code ($2), each so often ($3), to the counts of today in the organization's time zone.
INSERT INTO sms_outbox.refusal AS r (organization_id, day, code, refused)
SELECT n.organization_id, (pg_catalog.now() AT TIME ZONE o.time_zone)::pg_catalog.date, n.code, pg_catalog.sum(n.refused)::pg_catalog.int8
  FROM ROWS FROM (pg_catalog.unnest($1), pg_catalog.unnest($2), pg_catalog.unnest($3)) AS n (organization_id, code, refused)
  JOIN sms_outbox.organization AS o ON o.organization_id OPERATOR(pg_catalog.=) n.organization_id
 GROUP BY 1, 2, 3
ON CONFLICT ON CONSTRAINT refusal_pkey DO UPDATE SET refused = r.refused OPERATOR(pg_catalog.+) EXCLUDED.refused
