//! Several organizations in one database: each sees and changes its own rows, by whatever way it asks.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sms_outbox_tests::queue::{enqueue, refused};
use sms_outbox_tests::{Major, Queue, on_majors};
use tokio_postgres::Client;

on_majors! { ends:
    secures_every_table, shows_each_organization_its_own, binds_a_login, binds_the_role_of_set_role,
    leaves_the_organization_to_each_transaction, keeps_an_operator_to_its_organization, masks_what_monitors_see,
    looks_up_by_index_under_row_security, pages_by_index,
}

/// Tables without an organization's rows: what is common to all.
const COMMON: [&str; 3] = ["maintenance", "provider", "worker"];

/// Two organizations with a message in each place, and logins bound to each.
async fn two_organizations(major: Major) -> Result<Queue> {
    let queue = Queue::new(major).await?;
    queue.install("other", "their app").await?;
    for organization in ["shop", "other"] {
        queue.sql(&format!(
            "SELECT sms_outbox_enqueue('0501234567', 'secret of {organization}', idempotency_key => 'k', organization_id => '{organization}');
             SELECT sms_outbox_enqueue('0501234567', 'later', datetime => now() + interval '1 h', organization_id => '{organization}')"
        )).await?;
        queue
            .sql(&format!(
                "CREATE ROLE \"{organization}_{0}\" LOGIN IN ROLE sms_outbox_app, sms_outbox_operator;
             SELECT sms_outbox.bind_role('{organization}_{0}', '{organization}')",
                queue.name()
            ))
            .await?;
    }
    queue.ended("sent", "accepted").await?;
    queue.ended("failed", "refused_recipient").await?;
    Ok(queue)
}

async fn drop_logins(queue: &Queue) -> Result<()> {
    queue.sql(&format!("DROP ROLE \"shop_{0}\", \"other_{0}\"", queue.name())).await
}

async fn bound_to(queue: &Queue, organization: &str) -> Result<Client> {
    queue.connect_as(&format!("{organization}_{}", queue.name())).await
}

async fn organizations(client: &Client, view: &str) -> Result<Vec<String>> {
    let rows = client
        .query(&format!("SELECT DISTINCT organization_id FROM {view} ORDER BY 1"), &[])
        .await
        .context(view.to_owned())?;
    Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
}

/// A table either holds no organization's rows, or holds them back: also each partition, and a table of tomorrow.
async fn secures_every_table(major: Major) -> Result<()> {
    let queue = two_organizations(major).await?;
    let rows = queue
        .rows(
            "SELECT c.relname, c.relrowsecurity AND c.relforcerowsecurity AS forced, c.relispartition,
                    ARRAY(SELECT p.polname::text FROM pg_policy AS p WHERE p.polrelid = c.oid ORDER BY 1) AS policies
               FROM pg_class AS c WHERE c.relnamespace = 'sms_outbox'::regnamespace AND c.relkind IN ('r', 'p') ORDER BY 1",
        )
        .await?;
    assert!(rows.len() > 15, "{rows:?}");
    for row in rows {
        let name = row["relname"].as_str().context("a name")?;
        let expected = match (row["relispartition"] == json!(true), COMMON.contains(&name)) {
            (_, true) => (json!(false), json!([])),
            (true, _) => (json!(true), json!([])),
            (false, false) => (json!(true), json!(["visible"])),
        };
        assert_eq!((row["forced"].clone(), row["policies"].clone()), expected, "{name}");
    }
    // What is granted by mistake shows nothing all the same.
    queue.sql("GRANT SELECT ON ALL TABLES IN SCHEMA sms_outbox TO sms_outbox_app").await?;
    let app = queue.connect_as("app").await?;
    for table in
        ["message", "ready", "scheduled", "ended", "attempt", "idempotency", "organization_app", "tally", "app_tally"]
    {
        let seen: i64 = app.query_one(&format!("SELECT count(*) FROM sms_outbox.{table}"), &[]).await?.try_get(0)?;
        assert_eq!(seen, 0, "{table}");
        assert!(queue.count(&format!("sms_outbox.{table}")).await? > 0, "{table} holds rows");
    }
    drop_logins(&queue).await
}

async fn shows_each_organization_its_own(major: Major) -> Result<()> {
    let queue = two_organizations(major).await?;
    for organization in ["shop", "other"] {
        let session = bound_to(&queue, organization).await?;
        for view in ["outbox", "queue_stats", "waiting", "app_stats", "organizations", "apps_installed"] {
            assert_eq!(organizations(&session, &format!("sms_outbox.{view}")).await?, [organization], "{view}");
        }
    }
    assert_eq!(organizations(&bound_to(&queue, "shop").await?, "sms_outbox.attempts").await?, ["shop"]);
    assert_eq!(organizations(&bound_to(&queue, "other").await?, "sms_outbox.attempts").await?, Vec::<String>::new());
    // A login that is not bound serves all, unless it says for whom it acts now.
    let app = queue.connect_as("app").await?;
    assert_eq!(organizations(&app, "sms_outbox.outbox").await?, ["other", "shop"]);
    app.batch_execute("SET sms_outbox.organization_id = 'other'").await?;
    assert_eq!(organizations(&app, "sms_outbox.outbox").await?, ["other"]);
    app.batch_execute("RESET sms_outbox.organization_id; SET request.jwt.claims = '{\"organization_id\": \"shop\"}'")
        .await?;
    assert_eq!(organizations(&app, "sms_outbox.outbox").await?, ["shop"]);
    drop_logins(&queue).await
}

async fn binds_a_login(major: Major) -> Result<()> {
    let queue = two_organizations(major).await?;
    let session = bound_to(&queue, "shop").await?;
    let id: String =
        session.query_one("SELECT id FROM sms_outbox_enqueue('0501234567', 'mine')", &[]).await?.try_get(0)?;
    assert_eq!(queue.field(&id, "organization_id").await?.as_deref(), Some("shop"));
    for statements in [
        "SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'other')",
        "SELECT sms_outbox_enqueue_many('[]', 'other')",
        "SET LOCAL sms_outbox.organization_id = 'other'; SELECT sms_outbox_enqueue('0501234567', 'x')",
        "SET LOCAL sms_outbox.organization_id = 'other'; SELECT * FROM sms_outbox.outbox",
        "SELECT set_config('request.jwt.claims', '{\"organization_id\": \"other\"}', true); SELECT sms_outbox_enqueue('0501234567', 'x')",
        "SELECT set_config('request.jwt.claims', '{\"organization_id\": \"other\"}', true); SELECT * FROM sms_outbox.outbox",
        // Its group is bound to nothing: the login still is.
        "SET LOCAL ROLE sms_outbox_app; SELECT sms_outbox_enqueue('0501234567', 'x', organization_id => 'other')",
        "SELECT set_config('request.jwt.claims', 'not JSON', true); SELECT sms_outbox_enqueue('0501234567', 'x')",
        "SELECT set_config('request.jwt.claims', '{\"organization_id\": 7}', true); SELECT sms_outbox_enqueue('0501234567', 'x')",
        "SELECT sms_outbox.bind_role(session_user, 'other')",
        "SELECT sms_outbox.unbind_role(session_user)",
    ] {
        let error = refused(&session, &format!("BEGIN; {statements}")).await?;
        assert_eq!((error.code().code(), error.constraint()), ("42501", Some("organization_mismatch")), "{statements}");
        assert_eq!(error.column(), Some("organization_id"), "{statements}");
        session.batch_execute("ROLLBACK").await?;
    }
    session.batch_execute("BEGIN; SET LOCAL ROLE sms_outbox_app").await?;
    assert_eq!(organizations(&session, "sms_outbox.outbox").await?, ["shop"], "also after SET ROLE");
    session.batch_execute("COMMIT").await?;
    // The other's key is not this one's.
    let row = session
        .query_one("SELECT idempotent_replay FROM sms_outbox_enqueue('0501234567', 'y', idempotency_key => 'k')", &[])
        .await?;
    assert!(row.try_get::<_, bool>(0)?, "its own");
    let name = queue.name();
    for (role, state) in [("nobody at all", "42704"), ("sms_outbox_app", "22023"), ("postgres", "22023")] {
        assert_eq!(
            refused(queue.admin(), &format!("SELECT sms_outbox.bind_role('{role}', 'shop')")).await?.code().code(),
            state
        );
    }
    assert_eq!(
        queue
            .rows(&format!("SELECT organization_id FROM sms_outbox.role_bindings WHERE role LIKE 'shop\\_{name}'"))
            .await?,
        [json!({ "organization_id": "shop" })]
    );
    queue.sql(&format!("SELECT sms_outbox.unbind_role('shop_{name}')")).await?;
    assert_eq!(
        organizations(&session, "sms_outbox.outbox").await?,
        ["other", "shop"],
        "an end of the tie is seen at once"
    );
    drop_logins(&queue).await
}

async fn binds_the_role_of_set_role(major: Major) -> Result<()> {
    let queue = two_organizations(major).await?;
    let name = queue.name();
    queue
        .sql(&format!(
            "CREATE ROLE \"gate_{name}\" LOGIN NOINHERIT; GRANT \"shop_{name}\", \"other_{name}\" TO \"gate_{name}\""
        ))
        .await?;
    let gate = queue.connect_as(&format!("gate_{name}")).await?;
    for organization in ["shop", "other"] {
        gate.batch_execute(&format!("BEGIN; SET LOCAL ROLE \"{organization}_{name}\"")).await?;
        assert_eq!(organizations(&gate, "sms_outbox.outbox").await?, [organization]);
        gate.batch_execute("COMMIT").await?;
    }
    queue.sql(&format!("SELECT sms_outbox.bind_role('gate_{name}', 'shop')")).await?;
    let error = refused(&gate, &format!("SET ROLE \"other_{name}\"; SELECT * FROM sms_outbox.outbox")).await?;
    assert_eq!(error.constraint(), Some("organization_mismatch"), "bound to two");
    drop(gate);
    queue.sql(&format!("DROP ROLE \"gate_{name}\"")).await?;
    drop_logins(&queue).await
}

async fn leaves_the_organization_to_each_transaction(major: Major) -> Result<()> {
    let queue = two_organizations(major).await?;
    let name = queue.name();
    queue
        .sql(&format!(
            "CREATE ROLE \"web_{name}\" LOGIN IN ROLE sms_outbox_app; SELECT sms_outbox.bind_role('web_{name}')"
        ))
        .await?;
    let web = queue.connect_as(&format!("web_{name}")).await?;
    let api = queue.connect_as("api").await?;
    for (who, session) in [("web", &web), ("api", &api)] {
        assert_eq!(
            organizations(session, "sms_outbox.outbox").await?,
            Vec::<String>::new(),
            "{who}: nothing rather than everything"
        );
        let call = "SELECT sms_outbox.enqueue_text('0501234567', 'x', organization_id => 'shop')";
        assert_eq!(refused(session, call).await?.constraint(), Some("organization_mismatch"), "{who}");
        session
            .batch_execute("BEGIN; SELECT set_config('request.jwt.claims', '{\"organization_id\": \"shop\"}', true)")
            .await?;
        assert_eq!(organizations(session, "sms_outbox.outbox").await?, ["shop"], "{who}");
        session.batch_execute(call).await?;
        session.batch_execute("COMMIT").await?;
        assert_eq!(
            organizations(session, "sms_outbox.outbox").await?,
            Vec::<String>::new(),
            "{who}: the transaction is over"
        );
    }
    drop((web, api));
    queue.sql(&format!("DROP ROLE \"web_{name}\"")).await?;
    drop_logins(&queue).await
}

async fn keeps_an_operator_to_its_organization(major: Major) -> Result<()> {
    let queue = two_organizations(major).await?;
    let session = bound_to(&queue, "other").await?;
    let waiting: String = queue.value("SELECT max(id::text) FROM sms_outbox.outbox WHERE organization_id = 'shop' AND dispatch_status = 'pending'", &[]).await?;
    let failed: String = queue
        .value(
            "SELECT max(id::text) FROM sms_outbox.outbox WHERE organization_id = 'shop' AND dispatch_status = 'failed'",
            &[],
        )
        .await?;
    let unknown = "r00000000000000000000000000";
    for (call, of_nobody) in [
        (format!("cancel('{waiting}')"), format!("cancel('{unknown}')")),
        (format!("retry('{failed}')"), format!("retry('{unknown}')")),
        (format!("pause_app({})", queue.app()), "pause_app(999999)".to_owned()),
        (format!("uninstall_app({})", queue.app()), "uninstall_app(999999)".to_owned()),
        (format!("update_app({}, name => 'mine')", queue.app()), "update_app(999999, name => 'mine')".to_owned()),
    ] {
        let theirs = refused(&session, &format!("SELECT sms_outbox.{call}")).await?;
        let nobodys = refused(&session, &format!("SELECT sms_outbox.{of_nobody}")).await?;
        assert_eq!((theirs.code().code(), theirs.hint()), ("P0002", nobodys.hint()), "{call}");
    }
    for call in [
        "cancel('{\"organization_id\": \"shop\"}'::jsonb)",
        "retry('{\"organization_id\": \"shop\", \"dispatch_status\": \"failed\"}'::jsonb)",
        "set_organization('shop', time_zone => 'Asia/Dubai')",
        "pause_organization('shop')",
        "resume_organization('shop')",
        "install_app('shop', 'sandbox', 'mine', '{\"token\": \"t\"}')",
        "create_api_key('shop', 'mine')",
        "release_held()",
    ] {
        let error = refused(&session, &format!("SELECT sms_outbox.{call}")).await?;
        assert_eq!((error.code().code(), error.constraint()), ("42501", Some("organization_mismatch")), "{call}");
    }
    // A filter without an organization means the own one.
    let row = session
        .query_one("SELECT matched, moved FROM sms_outbox.cancel('{\"priority\": 1}'::jsonb, dry_run => false)", &[])
        .await?;
    assert_eq!((row.try_get::<_, i64>(0)?, row.try_get::<_, i64>(1)?), (2, 2));
    assert_eq!(queue.status(&waiting).await?, "pending");
    session.batch_execute("SELECT sms_outbox.set_organization('other', time_zone => 'Asia/Dubai')").await?;
    drop_logins(&queue).await
}

async fn masks_what_monitors_see(major: Major) -> Result<()> {
    let queue = two_organizations(major).await?;
    let monitor = queue.connect_as("monitor").await?;
    let rows = monitor.query("SELECT to_jsonb(o) FROM sms_outbox.masked_outbox AS o", &[]).await?;
    assert_eq!(rows.len(), 6);
    for row in rows {
        let message: Value = row.try_get(0)?;
        assert_eq!(message["mobile"], json!("+9665•••67"));
        assert!(!message.to_string().contains("secret") && message.get("message").is_none(), "{message}");
    }
    assert_eq!(monitor.query("SELECT * FROM sms_outbox.masked_attempts", &[]).await?.len(), 2);
    for view in ["outbox", "attempts", "api_keys"] {
        assert_eq!(
            refused(&monitor, &format!("SELECT * FROM sms_outbox.{view}")).await?.code().code(),
            "42501",
            "{view}"
        );
    }
    drop_logins(&queue).await
}

/// Row security is no reason to read a table: neither by id, nor in a join with an application's own table.
async fn looks_up_by_index_under_row_security(major: Major) -> Result<()> {
    let queue = two_organizations(major).await?;
    for batch in 0..20 {
        queue.sql(&format!("SELECT sms_outbox_enqueue_many((SELECT jsonb_agg(jsonb_build_object('mobile', '0501234567', 'message', 'm' || n)) FROM generate_series(1, 1000) AS n), '{}')", if batch % 2 == 0 { "shop" } else { "other" })).await?;
    }
    queue.sql("ANALYZE; CREATE TABLE public.orders AS SELECT row_number() OVER () AS number, id::text AS sms_id FROM sms_outbox.outbox; ALTER TABLE orders ADD PRIMARY KEY (number); ANALYZE orders; GRANT SELECT ON orders TO PUBLIC").await?;
    let session = bound_to(&queue, "shop").await?;
    let today: String =
        queue.value("SELECT message::text FROM sms_outbox.partitions() ORDER BY day LIMIT 1", &[]).await?;
    let today = today.replace("sms_outbox.", "");
    let id: String = session.query_one("SELECT max(id::text) FROM sms_outbox.outbox", &[]).await?.try_get(0)?;
    for query in [
        format!("SELECT * FROM sms_outbox.outbox WHERE id = '{id}'"),
        format!("SELECT * FROM sms_outbox.attempts WHERE id = '{id}'"),
        "SELECT * FROM public.orders AS o JOIN sms_outbox.outbox AS s ON s.id = o.sms_id WHERE o.number = 7".to_owned(),
    ] {
        let plan = session.query(&format!("EXPLAIN (COSTS OFF) {query}"), &[]).await?;
        let plan: Vec<String> = plan.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?;
        let plan = plan.join("\n");
        // Little else is here: those tables may be read whole, and so may the days to come.
        for table in [today.as_str(), "ready"] {
            assert!(!plan.contains(&format!("Seq Scan on {table}")), "{query}\n{plan}");
        }
    }
    drop_logins(&queue).await
}

/// Each list reads its own index, a page of it, however much there is; pages neither skip nor repeat while rows arrive.
async fn pages_by_index(major: Major) -> Result<()> {
    let queue = two_organizations(major).await?;
    let operator = queue.connect_as("operator").await?;
    let page = async |arguments: &str| -> Result<Vec<String>> {
        let rows = operator
            .query(&format!("SELECT p::text FROM sms_outbox.page('shop', {arguments}) AS p"), &[])
            .await
            .context(arguments.to_owned())?;
        Ok(rows.iter().map(|row| row.try_get(0)).collect::<Result<_, _>>()?)
    };
    let mut before = "NULL".to_owned();
    let mut seen = Vec::new();
    loop {
        let ids = page(&format!("before_id => {before}, rows => 2")).await?;
        enqueue(queue.admin(), "shop", "arrives meanwhile").await?;
        let Some(last) = ids.last() else { break };
        before = format!("'{last}'");
        seen.extend(ids);
    }
    let then: Vec<String> = queue
        .rows("SELECT id::text FROM sms_outbox.outbox WHERE organization_id = 'shop' AND message <> 'arrives meanwhile' ORDER BY id DESC")
        .await?
        .iter()
        .map(|row| row["id"].as_str().unwrap_or_default().to_owned())
        .collect();
    assert_eq!(seen, then);

    for (status, expected) in [("pending", 5), ("sending", 0), ("sent", 1), ("failed", 1), ("canceled", 0)] {
        let of_view: i64 = queue.value(&format!("SELECT count(*) FROM sms_outbox.outbox WHERE organization_id = 'shop' AND dispatch_status = '{status}'"), &[]).await?;
        assert_eq!(
            (page(&format!("dispatch_status => '{status}'")).await?.len(), of_view),
            (expected, expected as i64),
            "{status}"
        );
        assert_eq!(
            page(&format!("dispatch_status => '{status}', mobile => '٠٥٠ ١٢٣ ٤٥٦٧'")).await?.len(),
            expected,
            "{status}"
        );
    }
    assert_eq!(page("mobile => '0509999999'").await?.len(), 0);
    assert_eq!(page("created_after => now() + interval '1 s'").await?.len(), 0);
    assert_eq!(page("created_before => now() - interval '1 h'").await?.len(), 0);
    assert_eq!(
        page("created_after => now() - interval '1 h', created_before => now() + interval '1 h'").await?.len(),
        7
    );
    for (arguments, field) in [
        ("dispatch_status => 'gone'", "dispatch_status"),
        ("mobile => 'x'", "mobile"),
        ("rows => 0", "rows"),
        ("rows => 1002", "rows"),
    ] {
        let error = refused(&operator, &format!("SELECT sms_outbox.page('shop', {arguments})")).await?;
        assert_eq!((error.code().code(), error.column()), ("22023", Some(field)));
    }
    let session = bound_to(&queue, "other").await?;
    let error = refused(&session, "SELECT sms_outbox.page('shop')").await?;
    assert_eq!((error.code().code(), error.constraint()), ("42501", Some("organization_mismatch")));
    drop_logins(&queue).await
}
