//! Callers who do it wrong, by HTTP and by SQL, and what they are told.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::json;
use sms_outbox_tests::api::{Answer, ask};
use sms_outbox_tests::{Api, Database};

use crate::planted::{BODY, KEY, META, SECRET, number};

/// Requests that should not have been made: what they hold stands where a careless line would print it.
pub(crate) async fn misuse(api: &Api, key: &str, token: &str) -> Result<Vec<Answer>> {
    let (path, to) = ("/api/v1/sms/outbox", format!("0{}", number(1)));
    let mut answers = Vec::new();
    for body in [
        format!("{{\"mobile\": \"{to}\", \"message\": \"{META}\""),
        format!("\"{to} {META}\""),
        json!({ "mobile": format!("{to}{to}"), "message": BODY, "meta": { "m": META } }).to_string(),
        json!({ "mobile": to, "message": BODY.repeat(200), "idempotency_key": KEY }).to_string(),
        json!({ "mobile": [to], "message": BODY }).to_string(),
        json!({ "mobile": to, "message": { "text": BODY } }).to_string(),
        json!({ "mobile": to, "message": BODY, "meta": META }).to_string(),
        json!({ "mobile": to, "message": BODY, "datetime": format!("at {META}") }).to_string(),
        json!({ "mobile": to, "message": BODY, "priority": META }).to_string(),
        json!({ "mobile": to, "message": BODY, "preferred_provider_slug": META }).to_string(),
        json!({ "mobile": to, "message": BODY, "idempotency_key": KEY.repeat(50) }).to_string(),
        json!({ "mobile": to, "message": format!("{BODY}\0") }).to_string(),
        json!({ "mobile": to, "message": BODY, "meta": { "m": META.repeat(3000) } }).to_string(),
        META.repeat(200_000),
    ] {
        for credential in [key, token, ""] {
            answers.push(
                ask(api
                    .request(Method::POST, path, credential)
                    .header("content-type", "application/json")
                    .body(body.clone()))
                .await?,
            );
        }
        answers.push(
            ask(api
                .request(Method::POST, &format!("{path}/batch"), key)
                .header("content-type", "application/json")
                .body(format!("{{\"messages\": [{body}]}}")))
            .await?,
        );
    }
    for wrong in [
        format!("smsk_{}_{META}", &key[5..17]),
        format!("{token}x"),
        format!("{}x", key),
        format!("Basic {META}"),
        META.repeat(400),
    ] {
        answers.push(ask(api.request(Method::GET, path, &wrong)).await?);
    }
    for target in [
        format!("{path}/{to}"),
        format!("{path}/{META}/cancel"),
        format!("{path}?mobile={to}{META}"),
        format!("{path}?cursor={META}&mobile={to}"),
        format!("{path}?unknown={to}{META}&key={key}"),
        format!("/{META}/{to}?key={key}"),
    ] {
        answers.push(api.get(&target, key).await?);
        answers.push(ask(api.request(Method::DELETE, &target, key)).await?);
    }
    answers.push(
        ask(api
            .request(Method::POST, path, key)
            .header("content-type", META)
            .header("idempotency-key", format!("{KEY}\u{e9}"))
            .body(to))
        .await?,
    );
    answers.push(
        ask(api.request(Method::from_bytes(META.as_bytes())?, path, key).header("x-organization-id", META)).await?,
    );
    Ok(answers)
}

/// The same in SQL, with parameters, as drivers send them.
pub(crate) async fn misuse_sql(database: &Database) -> Result<Vec<String>> {
    let app = database.connect_as("app").await?;
    let operator = database.connect_as("operator").await?;
    let to = format!("0{}", number(1));
    let twice = format!("{to}{to}");
    let long = BODY.repeat(200);
    let mut errors = Vec::new();
    for (to, body, sender, key) in [
        (twice.as_str(), BODY, "S", KEY),
        (&to, &long, "S", KEY),
        (&to, BODY, "much too long a sender name", KEY),
        (&to, BODY, "S", &KEY.repeat(50)),
    ] {
        let enqueue = "SELECT sms_outbox_enqueue($1, $2, $3, idempotency_key => $4, organization_id => 'shop')";
        errors.push(app.query(enqueue, &[&to, &body, &sender, &key]).await.err().context("refused")?);
    }
    let many = json!([{ "mobile": to, "message": BODY }, { "mobile": twice, "message": BODY, "idempotency_key": KEY, "meta": { "m": META } }]);
    errors.push(app.query("SELECT sms_outbox_enqueue_many($1, 'shop')", &[&many]).await.err().context("refused")?);
    for config in [
        json!({ "token": SECRET, "base_url": format!("ftp://u:{SECRET}@h") }),
        json!({ "token": [SECRET] }),
        json!({ SECRET.to_lowercase(): 1 }),
        json!(SECRET),
    ] {
        errors.extend(
            operator.query("SELECT sms_outbox.install_app('shop', 'sandbox', 'n', $1)", &[&config]).await.err(),
        );
    }
    errors.extend(
        operator
            .query("SELECT sms_outbox.retry($1::jsonb)", &[&json!({ "mobile": to, "dispatch_status": META })])
            .await
            .err(),
    );
    Ok(errors
        .iter()
        .filter_map(|error| {
            error
                .as_db_error()
                .map(|db| format!("{} | {:?} | {:?} | {:?}", db.message(), db.detail(), db.hint(), db.where_()))
        })
        .collect())
}
