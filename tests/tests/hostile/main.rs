//! Somebody prepared the ground: objects in `public` for every name that SQL may mean, a search_path that prefers them,
//! roles and rights made beforehand. And an organization that looks for another one's messages ([`attacker`]).

mod attacker;
mod scene;

use std::sync::Arc;

use anyhow::{Context, Result};
use serde_json::json;
use sms_outbox_tests::queue::{claim, enqueue, refused};
use sms_outbox_tests::{Api, Cluster, Database, Fault, Major, Queue, Sandbox, Worker, on_majors};

on_majors! { ends:
    uses_nothing_made_before, takes_over_nothing_made_before, accepts_no_powerful_owner, gives_nothing_by_default_privileges,
}

/// What a used object writes into the server's log, and raises.
const USED: &str = "hostile object used";

/// Statements of callers under a hostile search_path, by login. `WAITS`, `LEASED` and `ENDED` stand for the ids of messages.
const CALLS: &[(&str, &str)] = &[
    ("operator", "SELECT sms_outbox.set_organization('shop', 'SA', 'Asia/Riyadh')"),
    ("operator", "SELECT sms_outbox.install_app('shop', 'sandbox', 'more', '{\"token\": \"t\"}', rate => 7)"),
    ("operator", "SELECT sms_outbox.update_app(APP, '{\"token\": \"u\", \"sender\": \"S\"}', name => 'n')"),
    ("operator", "SELECT sms_outbox.pause_app(APP, 'r')"),
    ("operator", "SELECT sms_outbox.resume_app(APP)"),
    ("operator", "SELECT sms_outbox.pause_organization('shop', 'r')"),
    ("operator", "SELECT sms_outbox.resume_organization('shop')"),
    (
        "app",
        "SELECT * FROM sms_outbox_enqueue('0501234567', 'x', 'S', NULL, 'sandbox', 'k', '{\"a\": 1}', 'shop', 1, NULL)",
    ),
    (
        "app",
        "SELECT * FROM sms_outbox_enqueue('0501234567', 'other', idempotency_key => 'k', organization_id => 'shop')",
    ),
    (
        "app",
        "SELECT * FROM sms_outbox_enqueue_many('[{\"mobile\": \"0501234567\", \"message\": \"x\", \"idempotency_key\": \"k\"}]', 'shop')",
    ),
    ("app", "SELECT * FROM sms_outbox.enqueue_text('0501234567', 'x', datetime => '', organization_id => 'shop')"),
    ("app", "SELECT * FROM sms_outbox_api.sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')"),
    ("app", "SELECT * FROM sms_outbox.outbox"),
    ("app", "SELECT * FROM sms_outbox.attempts"),
    (
        "api",
        "SELECT * FROM sms_outbox.enter('enqueue', NULL, NULL, 'shop') AS c (o), LATERAL sms_outbox.enqueue_text('0501234567', 'x', organization_id => c.o)",
    ),
    (
        "api",
        "SELECT * FROM sms_outbox.enter('read', NULL, NULL, 'shop') AS c (o), LATERAL sms_outbox.page(c.o, 'pending', '0501234567') AS p (id), LATERAL (SELECT * FROM sms_outbox.outbox) AS x",
    ),
    ("api", "SELECT sms_outbox.cancel('WAITS') FROM sms_outbox.enter('operate', NULL, NULL, 'shop') AS c"),
    ("api", "SELECT sms_outbox.retry('ENDED') FROM sms_outbox.enter('operate', NULL, NULL, 'shop') AS c"),
    (
        "worker",
        "SELECT * FROM sms_outbox.look('{0,1,2}', '{0,0,0}', '{r00000000000000000000000000,r00000000000000000000000000,r00000000000000000000000000}', '{NULL,NULL,NULL}', 10)",
    ),
    ("worker", "SELECT * FROM sms_outbox.apps('{shop}')"),
    ("worker", "SELECT * FROM sms_outbox.heartbeat('w', '1', 'h', 0, 0, 0, 0)"),
    ("worker", "SELECT * FROM sms_outbox.claim('w', '{WAITS}', '{APP}')"),
    ("worker", "SELECT * FROM sms_outbox.leases('w')"),
    (
        "worker",
        "SELECT * FROM sms_outbox.finish('w', '{LEASED}', '{1}', '{not_sent}', '{500}', '{e}', '{m}', '{\"{}\"}', '{NULL}', '{NULL}')",
    ),
    (
        "worker",
        "SELECT * FROM sms_outbox.finish('w', '{LEASED}', '{1}', '{accepted}', '{200}', '{NULL}', '{NULL}', '{\"{}\"}', '{p}', '{NULL}')",
    ),
    (
        "worker",
        "SELECT * FROM sms_outbox.finish('w', '{LEASED}', '{1}', '{refused_account}', '{401}', '{e}', '{m}', '{\"{}\"}', '{NULL}', '{NULL}')",
    ),
    ("worker", "SELECT * FROM sms_outbox.app_credentials(APP)"),
    ("worker", "SELECT sms_outbox.goodbye('w')"),
    ("operator", "SELECT sms_outbox.cancel('WAITS')"),
    ("operator", "SELECT sms_outbox.retry('ENDED')"),
    (
        "operator",
        "SELECT * FROM sms_outbox.cancel('{\"mobile\": \"+966501234567\", \"priority\": 2}'::pg_catalog.jsonb, false)",
    ),
    ("operator", "SELECT * FROM sms_outbox.retry('{\"dispatch_status\": \"canceled\"}'::pg_catalog.jsonb, false)"),
    ("operator", "SELECT sms_outbox.create_api_key('shop', 'k', '{read}')"),
    ("operator", "SELECT * FROM sms_outbox.page('shop', 'sent')"),
    (
        "operator",
        "SELECT sms_outbox.set_organization('shop', messages_per_minute => 100000, messages_per_day => 1000000, messages_per_recipient_hour => 100000)",
    ),
    ("app", "SELECT * FROM sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')"),
    ("operator", "SELECT sms_outbox.suppress('shop', '0501234599', 'r')"),
    ("operator", "SELECT sms_outbox.unsuppress('shop', '0501234599')"),
    ("operator", "SELECT * FROM sms_outbox.limits, sms_outbox.suppressed, sms_outbox.refusals"),
    ("operator", "SELECT sms_outbox.release_held()"),
    ("operator", "SELECT sms_outbox.prepare_partitions(9)"),
    ("operator", "SELECT * FROM sms_outbox.run_maintenance()"),
    ("operator", "SELECT sms_outbox.forget_bench('sms-outbox-bench:0123456789ab')"),
    ("operator", "SELECT * FROM sms_outbox.api_keys, sms_outbox.role_bindings, sms_outbox.provider"),
    (
        "monitor",
        "SELECT * FROM sms_outbox.queue_stats, sms_outbox.waiting, sms_outbox.app_stats, sms_outbox.worker_stats, sms_outbox.health",
    ),
    (
        "monitor",
        "SELECT * FROM sms_outbox.organizations, sms_outbox.apps_installed, sms_outbox.masked_outbox, sms_outbox.masked_attempts",
    ),
    ("monitor", "SELECT * FROM sms_outbox.misplaced"),
    ("monitor", "SELECT * FROM sms_outbox.metrics()"),
    ("operator", "SELECT sms_outbox.uninstall_app(APP)"),
];

/// A database in whose `public` role `mallory` made what she could, then the extension, installed with her things first.
async fn prepared(cluster: &Arc<Cluster>) -> Result<Database> {
    let database = Database::create_empty(cluster, "prepared").await?;
    database.sql("CREATE ROLE mallory; GRANT CREATE ON SCHEMA public TO mallory").await?;
    let mallory = database.connect().await?;
    mallory.batch_execute("SET ROLE mallory").await?;
    mallory.batch_execute(include_str!("objects.sql")).await?;
    let made: i64 =
        database.value("SELECT count(*) FROM pg_proc WHERE pronamespace = 'public'::regnamespace", &[]).await?;
    anyhow::ensure!(made > 5000, "only {made} functions lie in wait");
    let installer = database.connect().await?;
    installer.batch_execute("SET search_path = public, pg_catalog; CREATE EXTENSION sms_outbox").await?;
    database.create_logins().await?;
    Ok(database)
}

async fn uses_nothing_made_before(major: Major) -> Result<()> {
    let cluster = Cluster::start_new(major).await?;
    let queue = Queue::on(prepared(&cluster).await?).await?;
    // They do lie in wait.
    let session = queue.connect().await?;
    for sql in ["SELECT now()", "SELECT 1 = 1", "SELECT 'x'::text", "SELECT * FROM pg_class"] {
        let error = refused(&session, &format!("SET search_path = public, pg_catalog; {sql}")).await?;
        assert!(error.message().starts_with(USED), "{sql}: {error}");
    }
    let waiting = cluster.log().matches(USED).count();

    for path in ["public, pg_catalog", "public", "pg_temp, public, pg_catalog"] {
        let app = queue.install("shop", "its own").await?;
        for (login, call) in CALLS {
            let mut sql = call.replace("APP", &app.to_string());
            if sql.contains("WAITS") || sql.contains("LEASED") || sql.contains("ENDED") {
                let id = enqueue(queue.admin(), "shop", "x").await?;
                if sql.contains("LEASED") {
                    claim(queue.admin(), "w", &[&id], app).await?;
                } else if sql.contains("ENDED") {
                    queue.sql(&format!("SELECT sms_outbox.cancel('{id}')")).await?;
                }
                sql = sql.replace("WAITS", &id).replace("LEASED", &id).replace("ENDED", &id);
            }
            let session = queue.connect_as(login).await?;
            // In the caller's own temporary schema too: there relations and types are found before all others.
            session.batch_execute("CREATE TEMP VIEW message AS SELECT public.trap('temporary') AS id; CREATE DOMAIN pg_temp.jsonb AS text").await?;
            session.batch_execute(&format!("SET search_path = {path}")).await?;
            session.batch_execute(&sql).await.with_context(|| format!("{login} under {path}: {sql}"))?;
        }
    }
    queue.assert_placed().await?;

    // The processes themselves, whose logins keep the path that everybody has.
    let sandbox = Sandbox::start().await?;
    sandbox.install_app(&queue, "busy", "account").await?;
    let worker = Worker::start(&queue).await?;
    let id = enqueue(queue.admin(), "busy", "through a real worker").await?;
    queue
        .wait_until("it is sent", &format!("SELECT dispatch_status = 'sent' FROM sms_outbox.outbox WHERE id = '{id}'"))
        .await?;
    queue
        .wait_until(
            "maintenance ran by itself",
            "SELECT bool_and(ran_at > now() - interval '1 minute') FROM sms_outbox.maintenance",
        )
        .await?;
    let api = Api::start(&queue).await?;
    let key = Api::key(&queue, "busy", &["enqueue", "read", "operate"]).await?;
    let message = json!({ "mobile": "0501234567", "message": "x", "idempotency_key": "k", "datetime": "", "meta": {} });
    let path = "/api/v1/sms/outbox";
    let id = api.enqueue(&key, &message).await?.id()?.to_owned();
    for (answer, statuses) in [
        (api.enqueue(&key, &message).await?, [200, 200]),
        (api.post(&format!("{path}/batch"), &key, &json!({ "messages": [message] })).await?, [200, 201]),
        (api.get(&format!("{path}/{id}"), &key).await?, [200, 200]),
        (api.get(&format!("{path}?mobile=0501234567&dispatch_status=sent"), &key).await?, [200, 200]),
        (api.post(&format!("{path}/{id}/cancel"), &key, &json!({})).await?, [200, 409]),
        (api.post(&format!("{path}/{id}/retry"), &key, &json!({})).await?, [200, 409]),
        (api.get(path, "smsk_000000000000_0").await?, [401, 401]),
        (api.get("/readyz", "").await?, [200, 200]),
        (api.get("/metrics", "").await?, [200, 200]),
    ] {
        assert!(statuses.contains(&answer.status), "{answer:?}\n{}", api.log());
    }
    drop((worker, api));
    assert_eq!(cluster.log().matches(USED).count(), waiting, "{}", cluster.log_tail());
    let mut fault = Fault::new("24", "objects made beforehand lie in wait", major);
    fault.injected(u64::try_from(waiting)?);
    fault.asserted(usize::try_from(queue.count("sms_outbox.message").await?)?)
}

/// A name of ours that is taken is an error, never a thing to build upon.
async fn takes_over_nothing_made_before(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).without_preload().start().await?;
    let database = Database::create_empty(&cluster, "taken").await?;
    database
        .sql("CREATE ROLE mallory; GRANT CREATE ON SCHEMA public TO mallory; GRANT CREATE ON DATABASE taken TO mallory")
        .await?;
    let arguments = "text, text, text, timestamptz, text, text, jsonb, text, integer, timestamptz";
    for (made, dropped, state) in [
        ("CREATE SCHEMA sms_outbox".to_owned(), "DROP SCHEMA sms_outbox".to_owned(), "42P06"),
        ("CREATE SCHEMA sms_outbox_api".to_owned(), "DROP SCHEMA sms_outbox_api".to_owned(), "42P06"),
        (
            format!("CREATE FUNCTION public.sms_outbox_enqueue({arguments}) RETURNS text LANGUAGE sql AS 'SELECT $1'"),
            format!("DROP FUNCTION public.sms_outbox_enqueue({arguments})"),
            "42723",
        ),
    ] {
        database.sql(&format!("SET ROLE mallory; {made}; RESET ROLE")).await?;
        let error = refused(database.admin(), "CREATE EXTENSION sms_outbox").await?;
        assert_eq!(error.code().code(), state, "{made}: {error}");
        database.sql(&dropped).await?;
    }
    database.sql("CREATE EXTENSION sms_outbox").await
}

/// Who owns everything must not be able to do more than that, whoever made the role.
async fn accepts_no_powerful_owner(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).without_preload().start().await?;
    let database = Database::create_empty(&cluster, "powerful").await?;
    for (role, power) in [
        ("sms_outbox_owner", "SUPERUSER BYPASSRLS"),
        ("sms_outbox_owner", "LOGIN BYPASSRLS"),
        // Not as it should be either: it works for all organizations.
        ("sms_outbox_owner", ""),
        ("sms_outbox_tenant", "SUPERUSER"),
        ("sms_outbox_tenant", "LOGIN"),
        ("sms_outbox_tenant", "BYPASSRLS"),
    ] {
        database.sql(&format!("CREATE ROLE {role} {power}")).await?;
        let error = refused(database.admin(), "CREATE EXTENSION sms_outbox").await?;
        assert_eq!(error.code().code(), "55000", "{error}");
        let cure = format!("ALTER ROLE {role}");
        assert!(error.message().contains(role) && error.hint().is_some_and(|hint| hint.contains(&cure)), "{error}");
        database.sql(&format!("DROP ROLE {role}")).await?;
    }
    database.sql("CREATE EXTENSION sms_outbox").await
}

/// Rights that the installing superuser hands out by habit end before the extension begins.
async fn gives_nothing_by_default_privileges(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).without_preload().start().await?;
    let database = Database::create_empty(&cluster, "habits").await?;
    database
        .sql(
            "CREATE ROLE reader LOGIN; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO reader; ALTER DEFAULT PRIVILEGES GRANT ALL ON TABLES TO PUBLIC;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON SEQUENCES TO reader; ALTER DEFAULT PRIVILEGES GRANT ALL ON FUNCTIONS TO reader;
             ALTER DEFAULT PRIVILEGES GRANT ALL ON TYPES TO reader; ALTER DEFAULT PRIVILEGES GRANT ALL ON SCHEMAS TO reader; CREATE EXTENSION sms_outbox",
        )
        .await?;
    let queue = Queue::on(database).await?;
    let granted = queue
        .rows(
            "SELECT o.what, a.grantee, a.privilege_type
               FROM (SELECT oid::regclass::text AS what, relacl AS acl FROM pg_class
                      WHERE relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('sms_outbox', 'sms_outbox_api'))
                     UNION ALL SELECT p.oid::regprocedure::text, p.proacl FROM pg_proc AS p
                      WHERE p.proname LIKE 'sms\\_outbox%' OR p.pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname IN ('sms_outbox', 'sms_outbox_api'))
                     UNION ALL SELECT t.oid::regtype::text, t.typacl FROM pg_type AS t WHERE t.typnamespace = 'sms_outbox'::regnamespace
                     UNION ALL SELECT nspname, nspacl FROM pg_namespace WHERE nspname IN ('sms_outbox', 'sms_outbox_api')) AS o
              CROSS JOIN LATERAL aclexplode(o.acl) AS a
              WHERE a.grantee = 0 OR a.grantee = 'reader'::regrole",
        )
        .await?;
    assert_eq!(granted, Vec::<serde_json::Value>::new());
    Ok(())
}
