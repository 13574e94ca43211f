//! PostgREST: the very SQL that it sends, with its roles and claims, meets the same results and refusals as the HTTP API.

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sms_outbox_tests::{Major, Queue, on_majors};
use tokio_postgres::Client;

on_majors! { ends: enqueues_and_replays, refuses_with_the_status_of_the_api, reads_its_own }

/// A request as PostgREST 12 runs it: role and claims for the transaction, then one statement with the JSON of the body.
async fn request(
    gate: &Client,
    claims: &Value,
    statement: &str,
    body: &Value,
) -> Result<(Result<Value, Value>, String)> {
    gate.batch_execute("BEGIN ISOLATION LEVEL READ COMMITTED READ WRITE").await?;
    gate.query(
        "select set_config('search_path', '\"sms_outbox_api\", \"public\"', true), set_config('role', $1, true),
                set_config('request.jwt.claims', $2, true), set_config('request.method', 'POST', true),
                set_config('request.path', '/rpc/sms_outbox_enqueue', true), set_config('request.headers', '{}', true)",
        &[&claims["role"].as_str(), &claims.to_string()],
    )
    .await?;
    let answer = gate.query_one(statement, &[body]).await;
    let status = match &answer {
        Ok(_) => gate
            .query_one("select coalesce(nullif(current_setting('response.status', true), ''), '200')", &[])
            .await?
            .try_get(0)?,
        Err(_) => String::new(),
    };
    gate.batch_execute(if answer.is_ok() { "COMMIT" } else { "ROLLBACK" }).await?;
    match answer {
        Ok(row) => Ok((Ok(row.try_get(0)?), status)),
        Err(error) => {
            let error = error.as_db_error().context("a database error")?;
            let refusal = if error.code().code() == "PGRST" {
                json!({ "error": serde_json::from_str::<Value>(error.message())?, "answer": serde_json::from_str::<Value>(error.detail().unwrap_or(""))? })
            } else {
                json!({ "sqlstate": error.code().code() })
            };
            Ok((Err(refusal), status))
        }
    }
}

/// `POST /rpc/sms_outbox_enqueue`.
const RPC: &str = r#"WITH pgrst_source AS (
    SELECT "pgrst_call".* FROM (SELECT $1::json AS json_data) pgrst_payload,
    LATERAL (SELECT "mobile", "message", "sender", "datetime", "preferred_provider_slug", "idempotency_key", "meta", "organization_id"
               FROM json_to_record(pgrst_payload.json_data) AS _("mobile" text, "message" text, "sender" text, "datetime" text,
                    "preferred_provider_slug" text, "idempotency_key" text, "meta" jsonb, "organization_id" text) LIMIT 1) pgrst_body,
    LATERAL "sms_outbox_api"."sms_outbox_enqueue"("mobile" := pgrst_body."mobile", "message" := pgrst_body."message", "sender" := pgrst_body."sender",
        "datetime" := pgrst_body."datetime", "preferred_provider_slug" := pgrst_body."preferred_provider_slug",
        "idempotency_key" := pgrst_body."idempotency_key", "meta" := pgrst_body."meta", "organization_id" := pgrst_body."organization_id") pgrst_call)
    SELECT coalesce(json_agg(_postgrest_t)->0, 'null') AS body FROM (SELECT pgrst_source.* FROM pgrst_source) _postgrest_t"#;

/// PostgREST's login, and the role of its tokens: the organization comes with each request.
async fn postgrest(queue: &Queue) -> Result<(Client, String)> {
    let name = queue.name();
    queue
        .sql(&format!(
            "CREATE ROLE \"authenticator_{name}\" LOGIN NOINHERIT; CREATE ROLE \"web_{name}\" IN ROLE sms_outbox_app;
             GRANT \"web_{name}\" TO \"authenticator_{name}\"; SELECT sms_outbox.bind_role('web_{name}')"
        ))
        .await?;
    Ok((queue.connect_as(&format!("authenticator_{name}")).await?, format!("web_{name}")))
}

async fn drop_roles(queue: &Queue, gate: Client) -> Result<()> {
    drop(gate);
    queue.sql(&format!("DROP ROLE \"authenticator_{0}\", \"web_{0}\"", queue.name())).await
}

fn order() -> Value {
    json!({ "mobile": "966501234567", "message": "Order 123 is ready for pickup", "sender": "MyShop", "datetime": "", "preferred_provider_slug": "",
            "idempotency_key": "order-123-ready", "meta": { "order_id": "123" } })
}

async fn enqueues_and_replays(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (gate, role) = postgrest(&queue).await?;
    let claims = json!({ "role": role, "organization_id": "shop" });
    let (first, status) = request(&gate, &claims, RPC, &order()).await?;
    let first = first.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    assert_eq!(
        (status.as_str(), &first["dispatch_status"], &first["idempotent_replay"]),
        ("201", &json!("pending"), &json!(false))
    );
    let (again, status) = request(&gate, &claims, RPC, &order()).await?;
    let again = again.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
    assert_eq!((status.as_str(), &again["id"], &again["idempotent_replay"]), ("200", &first["id"], &json!(true)));
    drop_roles(&queue, gate).await
}

async fn refuses_with_the_status_of_the_api(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (gate, role) = postgrest(&queue).await?;
    let with = |field: &str, value: Value| {
        let mut body = order();
        body[field] = value;
        body
    };
    for (organization, body, status, code, details) in [
        (json!("shop"), with("mobile", json!("12")), 422, "invalid_field", json!("mobile")),
        (json!("shop"), with("datetime", json!("tomorrow")), 422, "invalid_field", json!("datetime")),
        (json!("shop"), with("message", json!("")), 422, "invalid_field", json!("message")),
        (
            json!("shop"),
            with("preferred_provider_slug", json!("twilio-sms")),
            409,
            "no_sms_app",
            json!("preferred_provider_slug"),
        ),
        (json!("empty"), order(), 409, "no_sms_app", Value::Null),
        (
            json!("shop"),
            with("organization_id", json!("other")),
            403,
            "organization_mismatch",
            json!("organization_id"),
        ),
        (Value::Null, with("organization_id", json!("shop")), 403, "organization_mismatch", json!("organization_id")),
    ] {
        let (answer, _) = request(&gate, &json!({ "role": role, "organization_id": organization }), RPC, &body).await?;
        let refusal = answer.err().with_context(|| format!("not refused: {body}"))?;
        assert_eq!(refusal["answer"], json!({ "status": status, "headers": {} }), "{body}");
        assert_eq!((&refusal["error"]["code"], &refusal["error"]["details"]), (&json!(code), &details), "{body}");
    }
    assert_eq!(queue.count("sms_outbox.message").await?, 0);
    drop_roles(&queue, gate).await
}

async fn reads_its_own(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.install("other", "app").await?;
    queue.ended("mine", "accepted").await?;
    queue.sql("SELECT sms_outbox_enqueue('0501234567', 'theirs', organization_id => 'other')").await?;
    let (gate, role) = postgrest(&queue).await?;
    for (view, column) in [("outbox", "message"), ("attempts", "status")] {
        let read = format!(
            r#"WITH pgrst_source AS (SELECT "sms_outbox_api"."{view}".* FROM "sms_outbox_api"."{view}" WHERE $1::json IS NOT NULL)
               SELECT coalesce(json_agg(_postgrest_t."{column}"), '[]') AS body FROM (SELECT * FROM pgrst_source) _postgrest_t"#
        );
        for (organization, expected) in [(json!("shop"), 1), (json!("nobody"), 0), (Value::Null, 0)] {
            let (rows, _) =
                request(&gate, &json!({ "role": role, "organization_id": organization }), &read, &json!({})).await?;
            let rows = rows.map_err(|refusal| anyhow::anyhow!("{refusal}"))?;
            assert_eq!(rows.as_array().map(Vec::len), Some(expected), "{view} of {organization}: {rows}");
        }
    }
    drop_roles(&queue, gate).await
}
