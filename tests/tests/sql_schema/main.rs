//! The schema as a DBA reads it: equal to its reviewed snapshot, commented, owned, pinned, and granted to nobody by accident.

use std::collections::BTreeMap;

use anyhow::{Context, Result};
use serde_json::Value;
use sms_outbox_tests::queue::refused;
use sms_outbox_tests::{Major, Queue, on_majors, paths};

on_majors! { ends:
    equals_its_snapshot, is_commented_pinned_and_owned, grants_nothing_to_everybody, gives_each_role_its_own,
    knows_the_providers_of_the_worker,
}

/// `sql/snapshot.txt` is what a reviewer reads of a change. Update it with `SMS_OUTBOX_UPDATE=1`.
async fn equals_its_snapshot(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.sql("SELECT sms_outbox.setting('wakeup')").await?; // loads the library, which defines the settings
    let rows = queue.admin().query(include_str!("facts.sql"), &[]).await?;
    let lines: Vec<String> = rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
    let now = lines.join("\n") + "\n";
    let file = paths::checkout("sql/snapshot.txt");
    if std::env::var_os("SMS_OUTBOX_UPDATE").is_some() {
        std::fs::write(&file, &now)?;
    }
    let reviewed = std::fs::read_to_string(&file)?;
    let missing: Vec<&str> = reviewed.lines().filter(|line| !now.lines().any(|other| other == *line)).collect();
    let new: Vec<&str> = now.lines().filter(|line| !reviewed.lines().any(|other| other == *line)).collect();
    assert!(
        now == reviewed,
        "the schema is not that of sql/snapshot.txt; if it should not be, update that with SMS_OUTBOX_UPDATE=1\n\
         only in the snapshot:\n{}\nonly in the schema:\n{}",
        missing.join("\n"),
        new.join("\n")
    );
    Ok(())
}

/// Members of the extension, as a FROM item `o` with classid and objid.
const MEMBERS: &str = "(SELECT d.classid, d.objid FROM pg_depend AS d JOIN pg_extension AS x ON x.oid = d.refobjid AND x.extname = 'sms_outbox'
                         WHERE d.refclassid = 'pg_extension'::regclass AND d.deptype = 'e') AS o";

async fn is_commented_pinned_and_owned(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    // The functions of type message_id pass on to PostgreSQL's for uuid, under the names that a type must give them.
    let ours = format!(
        "{MEMBERS} JOIN pg_proc AS p ON o.classid = 'pg_proc'::regclass AND p.oid = o.objid WHERE p.proname NOT LIKE 'message\\_id%'"
    );
    for (what, faulty) in [
        ("a function without comment", format!("SELECT p.oid::regprocedure::text AS f FROM {ours} AND obj_description(p.oid, 'pg_proc') IS NULL")),
        (
            // A body that was bound when it was made (prosqlbody) looks no name up any more.
            "a function that runs SQL and pins no search_path",
            format!(
                "SELECT p.oid::regprocedure::text AS f FROM {ours}
                    AND (p.prolang <> (SELECT oid FROM pg_language WHERE lanname = 'c') OR p.prosecdef) AND p.prosqlbody IS NULL
                    AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)"
            ),
        ),
        (
            "a relation without comment",
            "SELECT c.oid::regclass::text AS f FROM pg_class AS c WHERE c.relnamespace = 'sms_outbox'::regnamespace
                AND c.relkind IN ('r', 'p', 'v') AND obj_description(c.oid, 'pg_class') IS NULL AND NOT c.relispartition"
                .to_owned(),
        ),
        (
            "a type without comment",
            format!(
                "SELECT t.oid::regtype::text AS f FROM {MEMBERS} JOIN pg_type AS t ON o.classid = 'pg_type'::regclass AND t.oid = o.objid
                   LEFT JOIN pg_class AS c ON c.oid = t.typrelid
                  WHERE t.typcategory <> 'A' AND (c.oid IS NULL OR c.relkind = 'c') AND obj_description(t.oid, 'pg_type') IS NULL"
            ),
        ),
        (
            "an object of another owner",
            "SELECT classid::regclass || ' ' || pg_describe_object(classid, objid, 0) AS f FROM (
                SELECT 'pg_class'::regclass AS classid, oid AS objid, relowner AS owner FROM pg_class WHERE relnamespace = 'sms_outbox'::regnamespace
                UNION ALL SELECT 'pg_proc'::regclass, oid, proowner FROM pg_proc WHERE pronamespace = 'sms_outbox'::regnamespace OR proname LIKE 'sms\\_outbox\\_%'
                UNION ALL SELECT 'pg_type'::regclass, oid, typowner FROM pg_type WHERE typnamespace = 'sms_outbox'::regnamespace
                UNION ALL SELECT 'pg_opclass'::regclass, oid, opcowner FROM pg_opclass WHERE opcnamespace = 'sms_outbox'::regnamespace
                UNION ALL SELECT 'pg_opfamily'::regclass, oid, opfowner FROM pg_opfamily WHERE opfnamespace = 'sms_outbox'::regnamespace
                UNION ALL SELECT 'pg_operator'::regclass, oid, oprowner FROM pg_operator WHERE oprleft = 'sms_outbox.message_id'::regtype
                UNION ALL SELECT 'pg_namespace'::regclass, oid, nspowner FROM pg_namespace WHERE nspname = 'sms_outbox') AS all_of_it
              WHERE owner NOT IN ('sms_outbox_owner'::regrole, 'sms_outbox_tenant'::regrole)"
                .to_owned(),
        ),
    ] {
        assert_eq!(queue.rows(&faulty).await?, Vec::<Value>::new(), "{what}");
    }
    let owners = queue
        .rows("SELECT rolsuper, rolcanlogin, rolcreaterole, rolcreatedb, rolbypassrls FROM pg_roles WHERE rolname IN ('sms_outbox_owner', 'sms_outbox_tenant') ORDER BY rolname")
        .await?;
    let owner = |bypasses: bool| serde_json::json!({ "rolsuper": false, "rolcanlogin": false, "rolcreaterole": false, "rolcreatedb": false, "rolbypassrls": bypasses });
    assert_eq!(owners, [owner(true), owner(false)]);
    Ok(())
}

async fn grants_nothing_to_everybody(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let public = "SELECT what FROM (
            SELECT 'relation ' || oid::regclass AS what, coalesce(relacl, acldefault('r', relowner)) AS acl FROM pg_class WHERE relnamespace = 'sms_outbox'::regnamespace
            UNION ALL SELECT 'function ' || oid::regprocedure, coalesce(proacl, acldefault('f', proowner)) FROM pg_proc
                       WHERE pronamespace = 'sms_outbox'::regnamespace OR proname LIKE 'sms\\_outbox\\_%'
            UNION ALL SELECT 'schema', coalesce(nspacl, acldefault('n', nspowner)) FROM pg_namespace WHERE nspname = 'sms_outbox'
            UNION ALL SELECT 'type ' || t.oid::regtype, coalesce(t.typacl, acldefault('T', t.typowner)) FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
                       WHERE t.typnamespace = 'sms_outbox'::regnamespace AND t.typcategory <> 'A' AND (c.oid IS NULL OR c.relkind = 'c')) AS o
          WHERE EXISTS (SELECT FROM aclexplode(o.acl) AS a WHERE a.grantee = 0)";
    assert_eq!(queue.rows(public).await?, Vec::<Value>::new());
    // Somebody without any of the roles sees and calls nothing.
    let stranger = format!("stranger_{}", queue.name());
    queue.sql(&format!("CREATE ROLE {stranger} LOGIN")).await?;
    let session = queue.connect_as(&stranger).await?;
    for sql in [
        "SELECT * FROM sms_outbox.outbox",
        "SELECT * FROM sms_outbox.message",
        "SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')",
        "SELECT sms_outbox.server_id()",
        "SELECT * FROM sms_outbox.health",
    ] {
        assert_eq!(refused(&session, sql).await?.code().code(), "42501", "{sql}");
    }
    drop(session);
    queue.sql(&format!("DROP ROLE {stranger}")).await
}

async fn gives_each_role_its_own(major: Major) -> Result<()> {
    const LOOK: &str = "SELECT * FROM sms_outbox.look(ARRAY[1::smallint], ARRAY['0'::xid8], ARRAY['r00000000000000000000000000'::sms_outbox.message_id], ARRAY[NULL::xid8], 10)";
    let queue = Queue::new(major).await?;
    queue.ended("canary", "accepted").await?;
    queue.enqueue("another").await?;
    // What, and who may: app, worker, operator, monitor.
    for (sql, allowed) in [
        ("SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')", "ao"),
        ("SELECT sms_outbox_enqueue_many('[]', 'shop')", "ao"),
        ("SELECT * FROM sms_outbox.outbox WHERE id = (SELECT max(id::text) FROM sms_outbox.outbox)", "ao"),
        ("SELECT id::text FROM sms_outbox.outbox WHERE id = 'r00000000000000000000000000'::text", "ao"),
        ("SELECT * FROM sms_outbox.attempts", "ao"),
        (LOOK, "w"),
        ("SELECT * FROM sms_outbox.apps(ARRAY['shop'])", "w"),
        ("SELECT * FROM sms_outbox.claim('w', ARRAY[]::sms_outbox.message_id[], ARRAY[]::bigint[])", "w"),
        ("SELECT * FROM sms_outbox.leases('w')", "w"),
        ("SELECT * FROM sms_outbox.finish('w', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}', '{}')", "w"),
        ("SELECT * FROM sms_outbox.heartbeat('w', '1', 'h', 0, 0, 0, 0)", "w"),
        ("SELECT sms_outbox.goodbye('w')", "w"),
        ("SELECT * FROM sms_outbox.unclear('1 minute', 10)", "w"),
        ("SELECT * FROM sms_outbox.record_receipt('r00000000000000000000000000', 1, 'delivered')", "o"),
        ("SELECT sms_outbox.install_app('shop', 'sandbox', 'n', '{\"token\": \"t\"}')", "o"),
        ("SELECT sms_outbox.update_app(1, name => 'n')", "o"),
        ("SELECT sms_outbox.pause_app(1)", "o"),
        ("SELECT sms_outbox.resume_app(1)", "o"),
        ("SELECT sms_outbox.set_organization('shop')", "o"),
        ("SELECT sms_outbox.pause_organization('shop')", "o"),
        ("SELECT sms_outbox.resume_organization('shop')", "o"),
        ("SELECT sms_outbox.cancel('{\"organization_id\": \"shop\"}'::jsonb)", "o"),
        ("SELECT sms_outbox.retry('{\"dispatch_status\": \"failed\"}'::jsonb)", "o"),
        ("SELECT * FROM sms_outbox.survey('{\"dispatch_status\": \"failed\"}')", "o"),
        (
            "SELECT * FROM sms_outbox.resolve(filter => '{\"dispatch_status\": \"failed\"}', verdict => 'accepted', detail => 'x')",
            "o",
        ),
        ("SELECT sms_outbox.release_held()", "o"),
        ("SELECT sms_outbox.run_maintenance()", "o"),
        ("SELECT sms_outbox.forget_bench('sms-outbox-bench:0123456789ab')", "o"),
        ("SELECT * FROM sms_outbox.queue_stats", "om"),
        ("SELECT * FROM sms_outbox.waiting", "om"),
        ("SELECT * FROM sms_outbox.app_stats", "om"),
        ("SELECT * FROM sms_outbox.worker_stats", "om"),
        ("SELECT * FROM sms_outbox.health", "om"),
        ("SELECT * FROM sms_outbox.organizations", "om"),
        ("SELECT * FROM sms_outbox.apps_installed", "om"),
        ("SELECT * FROM sms_outbox.misplaced", "om"),
        ("SELECT slug FROM sms_outbox.provider", "o"),
        ("SELECT * FROM sms_outbox.message", ""),
        ("SELECT * FROM sms_outbox.ready", ""),
        ("SELECT config FROM sms_outbox.organization_app", ""),
        ("DELETE FROM sms_outbox.idempotency", ""),
        ("SELECT sms_outbox.ended_matching('{}')", ""),
        ("SELECT sms_outbox.settle_message(NULL, NULL, NULL)", ""),
        ("SELECT sms_outbox.settle_unclear(NULL, NULL, NULL, NULL)", ""),
        ("SELECT sms_outbox.conclude(NULL, NULL)", ""),
        ("SELECT sms_outbox.forget(NULL)", ""),
        ("SELECT sms_outbox.requeue_ended(NULL)", ""),
        ("SELECT sms_outbox.cancel_waiting(NULL)", ""),
    ] {
        for role in ["app", "worker", "operator", "monitor"] {
            let session = queue.connect_as(role).await?;
            let result = session.batch_execute(sql).await;
            if allowed.contains(&role[..1]) {
                result.with_context(|| format!("{role} must be allowed to: {sql}"))?;
            } else {
                let error = result.err().with_context(|| format!("{role} must not be allowed to: {sql}"))?;
                assert_eq!(error.code().map(|code| code.code()), Some("42501"), "{role}: {sql}: {error}");
            }
        }
    }
    // What a monitor sees holds no number, no body and no credential.
    let monitor = queue.connect_as("monitor").await?;
    for view in ["queue_stats", "waiting", "app_stats", "worker_stats", "health", "organizations", "apps_installed"] {
        let rows = monitor.query(&format!("SELECT row_to_json(v)::text FROM sms_outbox.{view} AS v"), &[]).await?;
        for row in rows {
            let text: String = row.try_get(0)?;
            assert!(
                !text.contains("501234567") && !text.contains("canary") && !text.contains("\"t\""),
                "{view}: {text}"
            );
        }
    }
    Ok(())
}

async fn knows_the_providers_of_the_worker(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let catalog: Value =
        serde_json::from_str(&std::fs::read_to_string(paths::checkout("worker/src/provider/catalog.json"))?)?;
    let installed = queue.rows("SELECT slug, name, looks_up, config FROM sms_outbox.provider ORDER BY slug").await?;
    assert_eq!(by_slug(&Value::from(installed))?, by_slug(&catalog)?);
    Ok(())
}

fn by_slug(catalog: &Value) -> Result<BTreeMap<String, Value>> {
    let entries = catalog.as_array().context("an array")?;
    entries.iter().map(|entry| Ok((entry["slug"].as_str().context("a slug")?.to_owned(), entry.clone()))).collect()
}
