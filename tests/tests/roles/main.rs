//! `docs/roles.md` against the catalog, and what must be true of any schema that several organizations share. Each check also
//! finds a fault that is made for it.

use std::fs;

use anyhow::{Context, Result};
use serde_json::Value;
use sms_outbox_tests::{Cluster, Database, Major, Queue, on_majors, paths};

on_majors! { ends: are_as_documented, leave_no_gap, lose_nothing_to_partitions_of_tomorrow }

/// Where the lists stand.
const PAGE: &str = "docs/roles.md";

/// Everything of the extension, whatever its name and place: `o` with `what`, `acl` and `owner`. Partitions are made at run time.
const OBJECTS: &str = "(SELECT 'relation ' || c.oid::regclass AS what, coalesce(c.relacl, acldefault(CASE c.relkind WHEN 'S' THEN 's' ELSE 'r' END::\"char\", c.relowner)) AS acl, c.relowner AS owner
          FROM pg_class AS c WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'sms\\_outbox%') AND c.relkind IN ('r', 'p', 'v', 'm', 'S', 'f')
        UNION ALL SELECT format('column %s of %s', t.attname, c.oid::regclass), t.attacl, c.relowner FROM pg_attribute AS t JOIN pg_class AS c ON c.oid = t.attrelid
         WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'sms\\_outbox%') AND t.attacl IS NOT NULL
        UNION ALL SELECT 'function ' || p.oid::regprocedure, coalesce(p.proacl, acldefault('f', p.proowner)), p.proowner FROM pg_proc AS p
         WHERE p.pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'sms\\_outbox%') OR p.proname LIKE 'sms\\_outbox%'
        UNION ALL SELECT 'schema ' || n.nspname, coalesce(n.nspacl, acldefault('n', n.nspowner)), n.nspowner FROM pg_namespace AS n WHERE n.nspname LIKE 'sms\\_outbox%'
        UNION ALL SELECT 'type ' || t.oid::regtype, coalesce(t.typacl, acldefault('T', t.typowner)), t.typowner FROM pg_type AS t LEFT JOIN pg_class AS c ON c.oid = t.typrelid
         WHERE t.typnamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'sms\\_outbox%') AND t.typcategory <> 'A' AND (c.oid IS NULL OR c.relkind = 'c')) AS o";

/// What must not be (a query that finds it, as `f`), and statements that make it so.
fn checks() -> Vec<(&'static str, String, &'static [&'static str])> {
    vec![
        (
            "something is granted to everybody",
            format!("SELECT o.what AS f FROM {OBJECTS} WHERE EXISTS (SELECT FROM aclexplode(o.acl) AS a WHERE a.grantee = 0)"),
            &[
                "GRANT SELECT ON sms_outbox.health TO PUBLIC",
                "GRANT SELECT (mobile) ON sms_outbox.outbox TO PUBLIC",
                "GRANT EXECUTE ON FUNCTION sms_outbox.server_id() TO PUBLIC",
                "GRANT EXECUTE ON FUNCTION sms_outbox_enqueue_many(jsonb, text) TO PUBLIC",
                "CREATE FUNCTION sms_outbox.forgotten() RETURNS integer LANGUAGE sql AS 'SELECT 1'",
                "CREATE TYPE sms_outbox.forgotten AS ENUM ()",
                "GRANT USAGE ON SCHEMA sms_outbox TO PUBLIC",
            ],
        ),
        (
            "a right of somebody who is no role of the extension",
            format!("SELECT o.what AS f FROM {OBJECTS} CROSS JOIN LATERAL aclexplode(o.acl) AS a WHERE a.grantee <> 0 AND a.grantee::regrole::text NOT LIKE 'sms\\_outbox\\_%'"),
            &["GRANT SELECT ON sms_outbox.outbox TO pg_monitor"],
        ),
        (
            "a right that may be handed on",
            format!("SELECT o.what AS f FROM {OBJECTS} CROSS JOIN LATERAL aclexplode(o.acl) AS a WHERE a.is_grantable AND a.grantee <> o.owner"),
            &["GRANT SELECT ON sms_outbox.outbox TO sms_outbox_app WITH GRANT OPTION"],
        ),
        (
            "a right on a table for somebody who can be",
"SELECT c.oid::regclass || ' ' || r AS f
               FROM pg_class AS c CROSS JOIN unnest('{app,api,worker,operator,monitor}'::text[]) AS r
              WHERE c.relnamespace = 'sms_outbox'::regnamespace AND c.relkind IN ('r', 'p')
                AND (has_table_privilege('sms_outbox_' || r, c.oid, 'INSERT, UPDATE, DELETE, TRUNCATE, REFERENCES, TRIGGER')
                     OR has_any_column_privilege('sms_outbox_' || r, c.oid, 'INSERT, UPDATE, REFERENCES')
                     OR has_any_column_privilege('sms_outbox_' || r, c.oid, 'SELECT') AND (c.relname, r) <> ('provider', 'operator'))"
.to_owned(),
            &["GRANT SELECT ON sms_outbox.message TO sms_outbox_app", "GRANT UPDATE (paused_at) ON sms_outbox.organization TO sms_outbox_operator", "GRANT DELETE ON sms_outbox.provider TO sms_outbox_operator"],
        ),
        (
            "a SECURITY DEFINER whose search_path is not pinned",
            "SELECT p.oid::regprocedure::text AS f FROM pg_proc AS p WHERE p.prosecdef AND NOT coalesce('search_path=pg_catalog, pg_temp' = ANY (p.proconfig), false)
                AND (p.pronamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'sms\\_outbox%') OR p.proname LIKE 'sms\\_outbox%')".to_owned(),
            &[
                "ALTER FUNCTION sms_outbox.visible_organization() RESET search_path",
                "ALTER FUNCTION sms_outbox_enqueue_many(jsonb, text) SET search_path = public, pg_temp",
                "CREATE FUNCTION sms_outbox.forgotten() RETURNS integer LANGUAGE sql SECURITY DEFINER RETURN 1",
            ],
        ),
        (
            "a view that runs with the rights of its reader, past its owner's policies",
            "SELECT c.oid::regclass::text AS f FROM pg_class AS c WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'sms\\_outbox%') AND c.relkind IN ('v', 'm')
                AND (c.relkind = 'm' OR c.reloptions::text LIKE '%security_invoker=t%' OR c.reloptions::text LIKE '%security_invoker=on%')".to_owned(),
            &["ALTER VIEW sms_outbox.outbox SET (security_invoker = on)", "CREATE MATERIALIZED VIEW sms_outbox.copy AS SELECT * FROM sms_outbox.outbox"],
        ),
        (
            "an object of another owner",
            format!("SELECT o.what AS f FROM {OBJECTS} WHERE o.owner::regrole::text NOT IN ('sms_outbox_owner', 'sms_outbox_tenant')"),
            &["CREATE VIEW sms_outbox.forgotten AS SELECT 1", "ALTER FUNCTION sms_outbox.enter(text, text, bytea, text) OWNER TO postgres"],
        ),
        (
            "a table of the tenant role, which its policies would not hold",
            "SELECT c.oid::regclass::text AS f FROM pg_class AS c WHERE c.relkind IN ('r', 'p') AND c.relowner = 'sms_outbox_tenant'::regrole".to_owned(),
            &["ALTER TABLE sms_outbox.worker OWNER TO sms_outbox_tenant"],
        ),
        (
            "a role of the extension that can do more than it is for",
            "SELECT rolname AS f FROM pg_roles WHERE rolname LIKE 'sms\\_outbox\\_%' AND (rolsuper OR rolcanlogin OR rolbypassrls <> (rolname = 'sms_outbox_owner') OR rolcreaterole OR rolcreatedb OR rolreplication)
             UNION ALL SELECT m.member::regrole || ' in ' || m.roleid::regrole FROM pg_auth_members AS m
              WHERE m.roleid::regrole::text IN ('sms_outbox_owner', 'sms_outbox_tenant')
                 OR (m.member::regrole::text LIKE 'sms\\_outbox\\_%' AND m.member::regrole::text <> 'sms_outbox_owner')".to_owned(),
            &["ALTER ROLE sms_outbox_owner SUPERUSER", "ALTER ROLE sms_outbox_tenant BYPASSRLS", "ALTER ROLE sms_outbox_api LOGIN", "GRANT sms_outbox_owner TO sms_outbox_operator", "GRANT sms_outbox_app TO sms_outbox_monitor"],
        ),
        (
            "a table without forced row security that docs/roles.md does not excuse, or a policy that lets others in",
            format!(
                "SELECT c.oid::regclass::text AS f FROM pg_class AS c WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'sms\\_outbox%') AND c.relkind IN ('r', 'p')
                    AND NOT c.oid::regclass::text = ANY ('{{{}}}') AND NOT (c.relrowsecurity AND c.relforcerowsecurity AND (c.relispartition OR EXISTS (SELECT FROM pg_policy AS p WHERE p.polrelid = c.oid)))
                 UNION ALL SELECT format('%s on %s', p.polname, p.polrelid::regclass) FROM pg_policy AS p JOIN pg_class AS c ON c.oid = p.polrelid
                  WHERE c.relnamespace IN (SELECT oid FROM pg_namespace WHERE nspname LIKE 'sms\\_outbox%')
                    AND (p.polroles <> ARRAY['sms_outbox_tenant'::regrole::oid] OR p.polcmd <> 'r' OR c.relispartition
                         OR pg_get_expr(p.polqual, p.polrelid) !~ 'visible_organization|organization_app')",
                excused().map(|tables| tables.join(",")).unwrap_or_default()
            ),
            &[
                "CREATE TABLE sms_outbox.forgotten (organization_id text)",
                "ALTER TABLE sms_outbox.message NO FORCE ROW LEVEL SECURITY",
                "ALTER TABLE sms_outbox.api_key DISABLE ROW LEVEL SECURITY",
                "DROP POLICY visible ON sms_outbox.lease",
                "CREATE POLICY all_of_it ON sms_outbox.message FOR SELECT TO sms_outbox_tenant USING (true)",
                "CREATE POLICY everybody ON sms_outbox.message FOR SELECT USING (organization_id = 'shop')",
                "DO $$ DECLARE leaf regclass := (SELECT min(inhrelid) FROM pg_inherits WHERE inhparent = 'sms_outbox.message'::regclass); BEGIN EXECUTE format('ALTER TABLE %s DISABLE ROW LEVEL SECURITY', leaf); END $$",
            ],
        ),
    ]
}

/// The tables that the page excuses from row security: `- `sms_outbox.name`: why`.
fn excused() -> Result<Vec<String>> {
    let page = fs::read_to_string(paths::checkout(PAGE))?;
    let tables =
        page.lines().filter_map(|line| line.strip_prefix("- `")?.split_once("`: ").filter(|(_, why)| why.len() > 10));
    Ok(tables.map(|(table, _)| table.to_owned()).collect())
}

async fn are_as_documented(major: Major) -> Result<()> {
    // A server of its own: the roles are the server's, and other tests make members.
    let cluster = Cluster::options(major).without_preload().start().await?;
    let database = Database::create_empty(&cluster, "documented").await?;
    database.sql("CREATE EXTENSION sms_outbox").await?;
    let file = paths::checkout(PAGE);
    let mut page = fs::read_to_string(&file)?;
    for list in ["roles", "functions", "views", "tables"] {
        let rows = database.rows(&include_str!("matrix.sql").replace("LIST", &format!("'{list}'"))).await?;
        let lines: Vec<&str> = rows.iter().filter_map(|row| row["line"].as_str()).collect();
        assert!(lines.len() > 6, "{list}: {lines:?}");
        let (begin, end) = (format!("<!-- begin {list} -->\n"), format!("\n<!-- end {list} -->"));
        let (head, rest) = page.split_once(&begin).with_context(|| format!("{PAGE} has no {begin}"))?;
        let (written, tail) = rest.split_once(&end).with_context(|| format!("{PAGE} has no {end}"))?;
        let now = format!("\n{}\n", lines.join("\n"));
        if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
            page = format!("{head}{begin}{now}{end}{tail}");
            fs::write(&file, &page)?;
        } else {
            let differ: Vec<&str> = now
                .lines()
                .filter(|line| !written.lines().any(|other| other == *line))
                .chain(written.lines().filter(|line| !now.lines().any(|other| other == *line)))
                .collect();
            assert!(
                now == written,
                "{PAGE} is not what the catalog says of {list}; UPDATE_DOCUMENTS=1 make test-flow TEST=roles writes it, and the difference is reviewed:\n{}",
                differ.join("\n")
            );
        }
    }
    for table in excused()? {
        let without: Option<bool> = database
            .value("SELECT (SELECT NOT relrowsecurity FROM pg_class WHERE oid = to_regclass($1))", &[&table])
            .await?;
        assert_eq!(without, Some(true), "{table} needs no excuse");
    }
    let installer = database.rows("SELECT r.rolsuper AS superuser FROM pg_extension AS x JOIN pg_roles AS r ON r.oid = x.extowner WHERE x.extname = 'sms_outbox'").await?;
    assert_eq!(
        installer,
        [serde_json::json!({ "superuser": true })],
        "the case that matters: what a superuser installed runs with a superuser's rights unless it is handed over"
    );
    Ok(())
}

async fn leave_no_gap(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).without_preload().start().await?;
    let database = Database::create_empty(&cluster, "gaps").await?;
    database.sql("CREATE EXTENSION sms_outbox; SELECT sms_outbox.prepare_partitions()").await?;
    for (what, query, seeds) in checks() {
        assert_eq!(database.rows(&query).await?, Vec::<Value>::new(), "{what}");
        for seed in seeds {
            database.sql(&format!("BEGIN; {seed}")).await?;
            let found = database.rows(&query).await?;
            database.sql("ROLLBACK").await?;
            assert!(!found.is_empty(), "this was not found by «{what}»: {seed}");
        }
    }
    Ok(())
}

/// Maintenance makes tables too.
async fn lose_nothing_to_partitions_of_tomorrow(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.sql("SELECT sms_outbox.prepare_partitions(30)").await?;
    let open = "SELECT c.oid::regclass::text AS f FROM pg_inherits AS i JOIN pg_class AS c ON c.oid = i.inhrelid
                 WHERE i.inhparent IN ('sms_outbox.message'::regclass, 'sms_outbox.attempt'::regclass)
                   AND (NOT (c.relrowsecurity AND c.relforcerowsecurity) OR c.relowner <> 'sms_outbox_owner'::regrole OR c.relacl IS NOT NULL)";
    assert_eq!(queue.rows(open).await?, Vec::<Value>::new());
    assert!(queue.count("pg_inherits WHERE inhparent = 'sms_outbox.message'::regclass").await? > 30);
    Ok(())
}
