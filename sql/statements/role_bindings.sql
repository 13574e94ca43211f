-- What the login ($1) and the role that acts ($2) are bound to; NULL: nothing.
SELECT pg_catalog.string_agg(COALESCE(b.organization_id, '*'), ',')
  FROM sms_outbox.role_binding AS b
 WHERE b.role OPERATOR(pg_catalog.=) $1 OR b.role OPERATOR(pg_catalog.=) $2
