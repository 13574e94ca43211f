-- What applications and DBAs read of messages.

-- Each table under these views holds back the rows of other organizations (90_row_security.sql), so the views themselves need no
-- security_barrier: no join enters such a view by index, and an application joins outbox to its own tables by id.

CREATE VIEW sms_outbox.visible_app_state WITH (security_barrier) AS
SELECT s.* FROM sms_outbox.app_state AS s WHERE (SELECT sms_outbox.visible_organization()) = ANY (ARRAY[s.organization_id, '*']);
COMMENT ON VIEW sms_outbox.visible_app_state IS 'app_state, of the organization that the caller acts for.';

CREATE FUNCTION sms_outbox.waits_for(organization text, pinned text, refused_by bigint[], server integer) RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER PARALLEL RESTRICTED SET search_path = pg_catalog, pg_temp
AS $$
    SELECT CASE
        WHEN server <> sms_outbox.server_id() THEN 'release_held'
        ELSE coalesce((SELECT CASE WHEN bool_or(s.state IN ('open', 'probe')) THEN 'worker' ELSE min(s.reason) END
                         FROM sms_outbox.visible_app_state AS s
                        WHERE s.organization_id = organization AND (pinned IS NULL OR s.provider_slug = pinned)
                          AND NOT s.app_id = ANY (coalesce(refused_by, '{}'))), 'no_app') END
$$;
COMMENT ON FUNCTION sms_outbox.waits_for(text, text, bigint[], integer) IS 'What a due message waits for. worker: a free worker, or room at the app; organization_paused, app_paused; throttled: the provider asked to slow down; breaker_open: the provider fails; account_refused: it refuses our credentials, balance or account; release_held: another server queued it, see release_held(); no_app: nobody can send it, and a worker will end it.';

-- Few enough tables in FROM for the planner to reorder them with an application's own (join_collapse_limit is 8): what else is
-- shown is looked up in the list of columns.
CREATE VIEW sms_outbox.outbox AS
SELECT m.id,
       m.organization_id,
       m.mobile,
       m.body AS message,
       m.sender,
       m.due_at AS datetime,
       m.preferred_provider_slug,
       m.idempotency_key,
       m.meta,
       CASE WHEN a.status = 'accepted' THEN 'sent'
            WHEN e.id IS NOT NULL THEN e.status
            WHEN l.id IS NOT NULL THEN 'sending'
            WHEN r.id IS NOT NULL OR s.id IS NOT NULL THEN 'pending' END::sms_outbox.dispatch_status AS dispatch_status,
       (SELECT p.provider_slug FROM sms_outbox.organization_app AS p
         WHERE p.app_id = coalesce(CASE WHEN a.status IS DISTINCT FROM 'accepted' THEN l.app_id END, a.app_id)) AS provider_slug,
       coalesce(CASE WHEN a.status IS DISTINCT FROM 'accepted' THEN l.app_id END, a.app_id) AS claimed_organization_app_id,
       a.response,
       CASE WHEN a.status = 'accepted' THEN NULL ELSE coalesce(CASE WHEN e.status <> 'dispatch_timeout' THEN e.reason END, a.error_code) END AS error_code,
       CASE WHEN a.status = 'accepted' THEN NULL ELSE a.error_message END AS error_message,
       (SELECT count(*) FROM sms_outbox.attempt AS n WHERE n.id = m.id AND n.status NOT IN ('refused_account', 'throttled'))
           + CASE WHEN l.id IS NULL THEN 0 ELSE 1 END AS attempt_count,
       a.provider_message_id,
       coalesce((SELECT v.delivery_status FROM sms_outbox.receipt AS v WHERE v.id = m.id AND v.attempt = a.attempt AND a.status = 'accepted'), 'unknown') AS delivery_status,
       m.encoding,
       m.segments,
       m.priority,
       m.valid_until,
       s.due_at AS next_attempt_at,
       CASE WHEN a.status = 'accepted' OR e.id IS NOT NULL OR l.id IS NOT NULL THEN NULL
            WHEN s.id IS NOT NULL AND s.server = sms_outbox.server_id() THEN s.reason
            WHEN r.id IS NOT NULL OR s.id IS NOT NULL
            THEN sms_outbox.waits_for(m.organization_id, m.preferred_provider_slug, r.refused_by, coalesce(r.server, s.server)) END AS waits_for,
       coalesce((SELECT i.mismatches FROM sms_outbox.idempotency AS i
                  WHERE i.organization_id = m.organization_id AND i.key = m.idempotency_key AND i.id = m.id), 0) AS idempotency_mismatch,
       m.created_at,
       coalesce(CASE WHEN a.status IS DISTINCT FROM 'accepted' THEN l.started_at END, a.started_at) AS claimed_at,
       CASE WHEN a.status = 'accepted' THEN a.finished_at END AS sent_at,
       CASE WHEN a.status = 'accepted' THEN a.finished_at ELSE e.ended_at END AS finalized_at
  FROM sms_outbox.message AS m
  LEFT JOIN sms_outbox.ready AS r ON r.id = m.id
  LEFT JOIN sms_outbox.scheduled AS s ON s.id = m.id
  LEFT JOIN sms_outbox.lease AS l ON l.id = m.id
  LEFT JOIN sms_outbox.ended AS e ON e.id = m.id
  LEFT JOIN LATERAL (
       SELECT t.* FROM sms_outbox.attempt AS t WHERE t.id = m.id ORDER BY (t.status = 'accepted') DESC, t.attempt DESC LIMIT 1) AS a ON true;
COMMENT ON VIEW sms_outbox.outbox IS 'The messages, as the API shows them. dispatch_status says where each is; waits_for why a pending one waits; error_code and error_message what the last attempt met. Look up by id: that is an index look-up.';

CREATE VIEW sms_outbox.attempts AS
SELECT a.id, a.attempt, a.app_id AS organization_app_id, p.provider_slug, a.status, a.started_at, a.finished_at,
       a.http_status, a.error_code, a.error_message, a.response, a.provider_message_id, a.organization_id, a.worker,
       sms_outbox.certainty(a.status, a.error_code) AS certainty, r.delivery_status, r.code AS delivery_code, r.at AS delivery_at,
       (SELECT jsonb_agg(jsonb_build_object('at', v.at, 'source', v.source, 'verdict', v.verdict, 'by', v.told_by, 'detail', v.detail,
                                            'was_finished_at', v.was_finished_at, 'was_error_code', v.was_error_code) ORDER BY v.at)
          FROM sms_outbox.evidence AS v WHERE v.id = a.id AND v.attempt = a.attempt) AS evidence
  FROM sms_outbox.attempt AS a LEFT JOIN sms_outbox.organization_app AS p ON p.app_id = a.app_id
  LEFT JOIN sms_outbox.receipt AS r ON r.id = a.id AND r.attempt = a.attempt
UNION ALL
SELECT l.id, l.attempt, l.app_id, p.provider_slug, NULL, l.started_at, NULL, NULL, NULL, NULL, NULL, NULL, l.organization_id, l.worker, NULL,
       r.delivery_status, r.code, r.at, NULL
  FROM sms_outbox.lease AS l LEFT JOIN sms_outbox.organization_app AS p ON p.app_id = l.app_id
  LEFT JOIN sms_outbox.receipt AS r ON r.id = l.id AND r.attempt = l.attempt;
COMMENT ON VIEW sms_outbox.attempts IS 'The attempts: each row is one request to a provider that may have caused a send, or one that failed before. A live one has no status yet. certainty says how sure it is that it sent the message. delivery_status, delivery_code and delivery_at are of the provider''s receipts. evidence: what became known of an attempt that had ended as unclear, an array of objects, each with who told it (by), how it is known (source), and what the ledger had said before (was_*); a verdict of unclear is somebody who asked in vain.';

CREATE VIEW sms_outbox.masked_outbox AS
SELECT o.id, o.organization_id, pg_catalog."left"(o.mobile, 5) || '•••' || pg_catalog."right"(o.mobile, 2) AS mobile, o.sender, o.datetime,
       o.preferred_provider_slug, o.dispatch_status, o.provider_slug, o.claimed_organization_app_id, o.error_code, o.attempt_count,
       o.delivery_status, o.encoding, o.segments, o.priority, o.valid_until, o.next_attempt_at, o.waits_for, o.idempotency_mismatch,
       o.created_at, o.claimed_at, o.sent_at, o.finalized_at
  FROM sms_outbox.outbox AS o;
COMMENT ON VIEW sms_outbox.masked_outbox IS 'The messages for those who watch: the number masked, no text, meta, key or answer of a provider.';

CREATE VIEW sms_outbox.masked_attempts AS
SELECT a.id, a.attempt, a.organization_app_id, a.provider_slug, a.status, a.started_at, a.finished_at, a.http_status, a.error_code,
       a.organization_id, a.worker, a.certainty, a.delivery_status, a.delivery_at
  FROM sms_outbox.attempts AS a;
COMMENT ON VIEW sms_outbox.masked_attempts IS 'The attempts for those who watch: nothing that a provider answered but status and code.';

CREATE VIEW sms_outbox.misplaced AS
SELECT m.id, (r.id IS NOT NULL)::integer + (s.id IS NOT NULL)::integer + (l.id IS NOT NULL)::integer + (e.id IS NOT NULL)::integer
             + a.accepted AS places
  FROM sms_outbox.message AS m
  LEFT JOIN sms_outbox.ready AS r ON r.id = m.id
  LEFT JOIN sms_outbox.scheduled AS s ON s.id = m.id
  LEFT JOIN sms_outbox.lease AS l ON l.id = m.id
  LEFT JOIN sms_outbox.ended AS e ON e.id = m.id
  -- Two accepted attempts are two SMS, but one place.
  CROSS JOIN LATERAL (SELECT EXISTS (SELECT FROM sms_outbox.attempt AS t WHERE t.id = m.id AND t.status = 'accepted')::integer AS accepted) AS a
 WHERE (r.id IS NOT NULL)::integer + (s.id IS NOT NULL)::integer + (l.id IS NOT NULL)::integer + (e.id IS NOT NULL)::integer + a.accepted <> 1;
COMMENT ON VIEW sms_outbox.misplaced IS 'Proof of the rule that a message is in exactly one place: it is empty. The one exception is a message that turned out to be accepted while an operator''s retry of it is in flight. Reads every kept message.';
