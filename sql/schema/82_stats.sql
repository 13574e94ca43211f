-- Counts and conditions, for DBAs and operators.

CREATE VIEW sms_outbox.organizations AS
SELECT o.organization_id, o.default_region, o.time_zone, o.paused_at IS NOT NULL AS paused, o.paused_reason, o.created_at
  FROM sms_outbox.organization AS o;
COMMENT ON VIEW sms_outbox.organizations IS 'The organizations and their settings.';

CREATE VIEW sms_outbox.apps_installed AS
SELECT a.app_id, a.organization_id, a.provider_slug, a.name, a."position", a.weight, a.max_in_flight, a.rate, a.rate_unit, a.burst, a.resend_unclear,
       a.paused_at IS NOT NULL AS paused, a.paused_reason, s.state,
       ARRAY(SELECT k FROM pg_catalog.jsonb_object_keys(a.config) AS k ORDER BY k) AS config_set,
       coalesce((SELECT pg_catalog.jsonb_object_agg(h.field, h.held)
                   FROM sms_outbox.provider AS p CROSS JOIN LATERAL sms_outbox.credentials_held(p.config, a.config) AS h
                  WHERE p.slug = a.provider_slug AND h.held <> 'template'), '{}') AS credentials,
       -- Scheme, host and port: no path, and nothing with a user name in it.
       pg_catalog.substring(coalesce(a.config ->> 'base_url', a.config ->> 'url'), '^https?://[^/?#@]+(?=[/?#]|$)') AS address,
       a.installed_at
  FROM sms_outbox.organization_app AS a JOIN sms_outbox.visible_app_state AS s ON s.app_id = a.app_id;
COMMENT ON VIEW sms_outbox.apps_installed IS 'The installed apps. config_set names the fields that are set; credentials says how secret ones hold theirs: sealed and the name of the key, env or file (references), plain. Never a value.';

CREATE VIEW sms_outbox.queue_stats AS
WITH waiting AS (
    SELECT r.organization_id, pg_catalog.count(*) AS pending, pg_catalog.min(r.since) AS oldest,
           pg_catalog.count(*) FILTER (WHERE r.server <> sms_outbox.server_id()) AS held
      FROM sms_outbox.ready AS r GROUP BY 1
), later AS (
    SELECT s.organization_id, pg_catalog.count(*) AS scheduled,
           pg_catalog.count(*) FILTER (WHERE s.server <> sms_outbox.server_id()) AS held
      FROM sms_outbox.scheduled AS s GROUP BY 1
), sending AS (
    SELECT l.organization_id, pg_catalog.count(*) AS sending FROM sms_outbox.lease AS l GROUP BY 1
), done AS (
    SELECT t.organization_id,
           pg_catalog.sum(t.messages) FILTER (WHERE t.status = 'sent') AS sent,
           pg_catalog.sum(t.messages) FILTER (WHERE t.status = 'failed') AS failed,
           pg_catalog.sum(t.messages) FILTER (WHERE t.status = 'dispatch_timeout') AS dispatch_timeout,
           pg_catalog.sum(t.messages) FILTER (WHERE t.status = 'canceled') AS canceled,
           pg_catalog.sum(t.messages) FILTER (WHERE t.status = 'expired') AS expired,
           pg_catalog.sum(t.messages) FILTER (WHERE t.status = 'sent' AND t.minute > pg_catalog.now() - interval '1 hour') AS sent_last_hour,
           pg_catalog.sum(t.messages) FILTER (WHERE t.status = 'failed' AND t.minute > pg_catalog.now() - interval '1 hour') AS failed_last_hour
      FROM sms_outbox.tally AS t GROUP BY 1
)
SELECT o.organization_id,
       coalesce(w.pending, 0) + coalesce(s.scheduled, 0) AS pending,
       coalesce(s.scheduled, 0) AS scheduled,
       coalesce(w.held, 0) + coalesce(s.held, 0) AS held,
       coalesce(l.sending, 0) AS sending,
       coalesce(d.sent, 0)::bigint AS sent,
       coalesce(d.failed, 0)::bigint AS failed,
       coalesce(d.dispatch_timeout, 0)::bigint AS dispatch_timeout,
       coalesce(d.canceled, 0)::bigint AS canceled,
       coalesce(d.expired, 0)::bigint AS expired,
       CASE WHEN w.oldest IS NOT NULL THEN greatest(pg_catalog.now() - w.oldest, interval '0') END AS oldest_pending_age,
       coalesce(d.sent_last_hour, 0)::bigint AS sent_last_hour,
       coalesce(d.failed_last_hour, 0)::bigint AS failed_last_hour
  FROM sms_outbox.organization AS o
  LEFT JOIN waiting AS w ON w.organization_id = o.organization_id
  LEFT JOIN later AS s ON s.organization_id = o.organization_id
  LEFT JOIN sending AS l ON l.organization_id = o.organization_id
  LEFT JOIN done AS d ON d.organization_id = o.organization_id;
COMMENT ON VIEW sms_outbox.queue_stats IS 'Messages by organization and status. What waits and is being sent is counted, what has ended is added up as it ends. pending includes scheduled (not due yet) and held (see release_held); oldest_pending_age is that of the oldest due message.';

CREATE VIEW sms_outbox.waiting AS
SELECT g.organization_id, g.waits_for, pg_catalog.sum(g.messages)::bigint AS messages, pg_catalog.max(g.oldest_age) AS oldest_age
  FROM (SELECT r.organization_id, sms_outbox.waits_for(r.organization_id, r.preferred_provider_slug, r.refused_by, r.server) AS waits_for,
               pg_catalog.count(*) AS messages, greatest(pg_catalog.now() - pg_catalog.min(r.since), interval '0') AS oldest_age
          FROM sms_outbox.ready AS r GROUP BY r.organization_id, r.preferred_provider_slug, r.refused_by, r.server
        UNION ALL
        SELECT s.organization_id, CASE WHEN s.server = sms_outbox.server_id() THEN s.reason ELSE 'release_held' END,
               pg_catalog.count(*), NULL
          FROM sms_outbox.scheduled AS s GROUP BY 1, 2) AS g
 GROUP BY 1, 2;
COMMENT ON VIEW sms_outbox.waiting IS 'Why waiting messages wait, by organization: datetime and backoff (not due yet), or what waits_for() says. oldest_age is since the message was due.';

CREATE VIEW sms_outbox.app_stats AS
WITH counts AS (
    SELECT t.app_id,
           pg_catalog.sum(t.attempts) FILTER (WHERE t.status = 'accepted') AS sent,
           pg_catalog.sum(t.attempts) FILTER (WHERE t.status IN ('not_sent', 'refused_recipient', 'refused_content', 'refused_account', 'throttled')) AS failed,
           pg_catalog.sum(t.attempts) FILTER (WHERE t.status = 'unclear') AS unclear
      FROM sms_outbox.app_tally AS t GROUP BY 1
), buckets AS (
    SELECT t.app_id, t.latency_bucket, pg_catalog.sum(pg_catalog.sum(t.attempts)) OVER (PARTITION BY t.app_id ORDER BY t.latency_bucket) AS upto,
           pg_catalog.sum(pg_catalog.sum(t.attempts)) OVER (PARTITION BY t.app_id) AS total
      FROM sms_outbox.app_tally AS t
     WHERE t.status = 'accepted' AND t.minute > pg_catalog.now() - interval '1 hour'
     GROUP BY t.app_id, t.latency_bucket
), latency AS (
    SELECT b.app_id,
           pg_catalog.min(b.latency_bucket) FILTER (WHERE b.upto >= b.total * 0.5) AS p50,
           pg_catalog.min(b.latency_bucket) FILTER (WHERE b.upto >= b.total * 0.95) AS p95
      FROM buckets AS b GROUP BY 1
)
SELECT a.app_id AS organization_app_id, a.organization_id, a.provider_slug, a.name,
       (SELECT pg_catalog.count(*) FROM sms_outbox.lease AS l WHERE l.app_id = a.app_id) AS in_flight,
       coalesce(c.sent, 0)::bigint AS sent, coalesce(c.failed, 0)::bigint AS failed, coalesce(c.unclear, 0)::bigint AS unclear,
       pg_catalog.round((2 ^ (t.p50 / 2.0))::numeric) AS p50_ms, pg_catalog.round((2 ^ (t.p95 / 2.0))::numeric) AS p95_ms,
       CASE WHEN h.blocked_reason IN ('account', 'failing') THEN CASE s.state WHEN 'probe' THEN 'half_open' ELSE 'open' END ELSE 'closed' END AS breaker,
       s.reason AS blocked_by,
       a.paused_at IS NOT NULL AS paused,
       h.last_error_at, h.last_error_code, h.last_error_message
  FROM sms_outbox.organization_app AS a
  JOIN sms_outbox.visible_app_state AS s ON s.app_id = a.app_id
  LEFT JOIN sms_outbox.app_health AS h ON h.app_id = a.app_id
  LEFT JOIN counts AS c ON c.app_id = a.app_id
  LEFT JOIN latency AS t ON t.app_id = a.app_id;
COMMENT ON VIEW sms_outbox.app_stats IS 'The installed apps: attempts in flight, by outcome since installation, the latency of accepted ones in the last hour (upper bounds of buckets that grow by the root of two), and what blocks the app now.';

CREATE VIEW sms_outbox.api_keys AS
SELECT k.key_id, 'smsk_' || k.key_id AS prefix, k.organization_id, k.name, k.scopes, k.created_at, k.expires_at, k.last_used_at, k.revoked_at
  FROM sms_outbox.api_key AS k;
COMMENT ON VIEW sms_outbox.api_keys IS 'The keys of the HTTP API: how each begins, what it may do, when it was last used (to the minute). Never the key.';

CREATE VIEW sms_outbox.role_bindings AS
SELECT b.role::text AS role, b.organization_id FROM sms_outbox.role_binding AS b;
COMMENT ON VIEW sms_outbox.role_bindings IS 'What bind_role() ties roles to; NULL is the organization that each transaction names.';

CREATE VIEW sms_outbox.worker_stats AS
SELECT w.worker AS name, w.version, w.host, w.started_at, w.heartbeat_at AS heartbeat,
       w.heartbeat_at > pg_catalog.clock_timestamp() - interval '10 seconds' AS alive, w.in_flight, w.claimed, w.sent, w.failed
  FROM sms_outbox.worker AS w;
COMMENT ON VIEW sms_outbox.worker_stats IS 'The workers heard of in the last day; counters since their start.';
