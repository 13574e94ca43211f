-- What the login ($1) and the role that acts ($2) are bound to; NULL: nothing. Two look-ups by key: an OR would be a bitmap.
SELECT NULLIF(pg_catalog.concat_ws(',',
           (SELECT COALESCE(b.organization_id, '*') FROM sms_outbox.role_binding AS b WHERE b.role OPERATOR(pg_catalog.=) $1),
           (SELECT COALESCE(b.organization_id, '*') FROM sms_outbox.role_binding AS b WHERE b.role OPERATOR(pg_catalog.=) $2)), '')
