//! The HTTP API does what the contract says: its example unchanged, the shape of a message, pages, moves, batches.

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sms_outbox_tests::api::{Answer, Api, ask};
use sms_outbox_tests::{Cluster, Database, Major, on_majors};

on_majors! { ends:
    the_example_of_the_contract_works_unchanged, a_message_is_shown_with_all_its_fields, pages_neither_skip_nor_repeat,
    pages_are_filtered, messages_are_taken_back_and_sent_again, a_batch_is_queued_whole_or_not_at_all,
    organizations_see_their_own_alone,
}

const OUTBOX: &str = "/api/v1/sms/outbox";

/// A server, a database in which `shop` and `bank` have an app, and an API.
async fn open(major: Major) -> Result<(Database, Api)> {
    let cluster = Cluster::start_new(major).await?;
    let database = Database::create(&cluster, "api").await?;
    for organization in ["shop", "bank"] {
        let install = "SELECT sms_outbox.install_app($1, 'sandbox', 'main', $2)";
        let config = json!({"token": "x", "base_url": "http://127.0.0.1:9/sandbox", "allow_http": true});
        database.value::<i64>(install, &[&organization, &config]).await?;
    }
    let api = Api::start(&database).await?;
    Ok((database, api))
}

async fn all_scopes(database: &Database, organization: &str) -> Result<String> {
    Api::key(database, organization, &["enqueue", "read", "operate"]).await
}

fn sms(n: usize) -> Value {
    json!({"mobile": format!("96650123{n:04}"), "message": format!("Order {n}")})
}

fn expect(answer: &Answer, status: u16, code: &str) -> Result<()> {
    ensure!(answer.status == status && answer.code() == code, "expected: {status} {code}; seen: {answer:?}");
    Ok(())
}

async fn the_example_of_the_contract_works_unchanged(major: Major) -> Result<()> {
    let (database, api) = open(major).await?;
    let key = Api::key(&database, "shop", &["enqueue"]).await?;
    let body = r#"{"mobile":"966501234567","message":"Order 123 is ready for pickup","sender":"MyShop","datetime":"","preferred_provider_slug":"",
 "idempotency_key":"order-123-ready","meta":{"order_id":"123"}}"#;
    let post = || {
        let request = api.request(Method::POST, OUTBOX, &key).header("content-type", "application/json");
        ask(request.body(body))
    };
    let first = post().await?;
    let id = first.id()?.to_owned();
    let answer = json!({"id": id, "dispatch_status": "pending", "idempotent_replay": false});
    ensure!(first.status == 201 && first.json == answer, "{first:?}");
    ensure!(id.len() == 27 && first.header("x-request-id").len() == 36, "{first:?}");
    let again = post().await?;
    let answer = json!({"id": id, "dispatch_status": "pending", "idempotent_replay": true});
    ensure!(again.status == 200 && again.json == answer, "{again:?}");
    // By the header, with the key bare.
    let bare = api
        .request(Method::POST, OUTBOX, "")
        .header("authorization", &key)
        .header("idempotency-key", "order-123-ready");
    let by_header = ask(bare.json(&sms(1))).await?;
    ensure!(by_header.status == 200 && by_header.json == answer, "{by_header:?}");
    let rows = database.rows("SELECT mobile, message, sender, meta, organization_id FROM sms_outbox.outbox").await?;
    let row = json!({"mobile": "+966501234567", "message": "Order 123 is ready for pickup", "sender": "MyShop",
        "meta": {"order_id": "123"}, "organization_id": "shop"});
    ensure!(rows == [row], "{rows:?}");
    Ok(())
}

async fn a_message_is_shown_with_all_its_fields(major: Major) -> Result<()> {
    let (database, api) = open(major).await?;
    let key = all_scopes(&database, "shop").await?;
    database.sql("ALTER ROLE api SET timezone = 'Asia/Riyadh'").await?;
    database.sql("SELECT sms_outbox.set_organization('shop', time_zone => 'Asia/Riyadh')").await?;
    let trace = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";
    let local: String = database
        .value("SELECT to_char((now() + '1 day') AT TIME ZONE 'Asia/Riyadh', 'YYYY-MM-DD HH24:MI')", &[])
        .await?;
    let mut body = sms(1);
    body["datetime"] = json!(local);
    body["priority"] = json!(2);
    let request = api.request(Method::POST, OUTBOX, &key).header("traceparent", trace).json(&body);
    let id = ask(request).await?.id()?.to_owned();
    let shown = api.get(&format!("{OUTBOX}/{id}"), &key).await?;
    ensure!(shown.status == 200, "{shown:?}");
    let utc: String = database
        .value(
            "SELECT to_char(datetime AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"') FROM sms_outbox.outbox",
            &[],
        )
        .await?;
    let created = shown.json["created_at"].as_str().context("created_at")?.to_owned();
    ensure!(created.ends_with('Z') && created.contains('T'), "{created}");
    let expected = json!({
        "id": id, "organization_id": "shop", "mobile": "966501230001", "message": "Order 1", "sender": null,
        "datetime": utc, "preferred_provider_slug": null, "idempotency_key": null, "meta": {"traceparent": trace},
        "dispatch_status": "pending", "provider_slug": null, "claimed_organization_app_id": null, "response": null,
        "error_code": null, "error_message": null, "attempt_count": 0, "provider_message_id": null,
        "delivery_status": "unknown", "encoding": "GSM-7", "segments": 1, "priority": 2, "valid_until": null,
        "next_attempt_at": utc, "waits_for": "datetime", "idempotency_mismatch": 0, "created_at": created,
        "claimed_at": null, "sent_at": null, "finalized_at": null,
    });
    ensure!(shown.json == expected, "expected: {expected:#}; seen: {:#}", shown.json);
    for (id, key, status, code) in [
        ("r00000000000000000000000000", &key, 404, "not_found"),
        ("no-id", &key, 404, "not_found"),
        ("r00000000000000000000000000'", &key, 404, "not_found"),
        ("no-id", &"smsk_x".to_owned(), 401, "unauthorized"),
    ] {
        expect(&api.get(&format!("{OUTBOX}/{id}"), key).await?, status, code)?;
    }
    Ok(())
}

async fn pages_neither_skip_nor_repeat(major: Major) -> Result<()> {
    let (database, api) = open(major).await?;
    let key = all_scopes(&database, "shop").await?;
    let mut before = Vec::new();
    for n in 0..45 {
        before.push(api.enqueue(&key, &sms(n)).await?.id()?.to_owned());
    }
    before.reverse();
    let (mut seen, mut path) = (Vec::new(), format!("{OUTBOX}?limit=10"));
    for page in 0.. {
        // Rows arrive while the pages are read.
        api.enqueue(&key, &sms(100 + page)).await?;
        let answer = api.get(&path, &key).await?;
        ensure!(answer.status == 200 && answer.json["limit"] == 10, "{answer:?}");
        let data = answer.json["data"].as_array().context("data")?;
        ensure!(answer.json["count"] == data.len(), "{answer:?}");
        seen.extend(data.iter().filter_map(|message| message["id"].as_str().map(str::to_owned)));
        match answer.json["next_cursor"].as_str() {
            Some(cursor) if answer.json["has_next"] == true => path = format!("{OUTBOX}?limit=10&cursor={cursor}"),
            None if answer.json["has_next"] == false => break,
            _ => anyhow::bail!("{answer:?}"),
        }
    }
    // The first page had the one that came before it as well.
    ensure!(seen[1..] == before, "expected: {before:?}; seen: {seen:?}");
    let all = api.get(OUTBOX, &key).await?;
    ensure!(all.json["count"] == 20 && all.json["limit"] == 20, "{all:?}");
    Ok(())
}

async fn pages_are_filtered(major: Major) -> Result<()> {
    let (database, api) = open(major).await?;
    let key = all_scopes(&database, "shop").await?;
    let first = api.enqueue(&key, &sms(1)).await?.id()?.to_owned();
    let second = api.enqueue(&key, &sms(2)).await?.id()?.to_owned();
    api.post(&format!("{OUTBOX}/{second}/cancel"), &key, &json!({})).await?;
    let created: String = database
        .value("SELECT to_char(max(created_at) AT TIME ZONE 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS.US\"Z\"') FROM sms_outbox.outbox", &[])
        .await?;
    for (query, expected) in [
        ("dispatch_status=pending".to_owned(), vec![&first]),
        ("dispatch_status=canceled".to_owned(), vec![&second]),
        ("dispatch_status=sent".to_owned(), vec![]),
        ("dispatch_status=&mobile=".to_owned(), vec![&second, &first]),
        ("mobile=0501230001".to_owned(), vec![&first]),
        ("mobile=%2B966%2050%20123%200002&dispatch_status=canceled".to_owned(), vec![&second]),
        ("created_after=2020-01-01T00:00:00Z".to_owned(), vec![&second, &first]),
        (format!("created_after={created}"), vec![&second]),
        ("created_before=2020-01-01T00:00:00%2B03:00".to_owned(), vec![]),
    ] {
        let answer = api.get(&format!("{OUTBOX}?{query}"), &key).await?;
        let ids: Vec<&str> = answer.json["data"]
            .as_array()
            .context(answer.text.clone())?
            .iter()
            .filter_map(|m| m["id"].as_str())
            .collect();
        ensure!(ids == expected, "{query}: expected {expected:?}, seen {ids:?}");
    }
    for (query, code, field) in [
        ("dispatch_status=lost", "invalid_field", "dispatch_status"),
        ("mobile=x", "invalid_field", "mobile"),
        ("limit=0", "invalid_field", "limit"),
        ("cursor=x", "invalid_field", "cursor"),
        ("status=sent", "unknown_field", "status"),
        ("limit=1&limit=2", "duplicate_field", "limit"),
    ] {
        let answer = api.get(&format!("{OUTBOX}?{query}"), &key).await?;
        expect(&answer, 422, code)?;
        ensure!(answer.field() == field, "{answer:?}");
    }
    Ok(())
}

async fn messages_are_taken_back_and_sent_again(major: Major) -> Result<()> {
    let (database, api) = open(major).await?;
    let key = all_scopes(&database, "shop").await?;
    let id = api.enqueue(&key, &sms(1)).await?.id()?.to_owned();
    let (cancel, retry) = (format!("{OUTBOX}/{id}/cancel"), format!("{OUTBOX}/{id}/retry"));
    let post = async |path: &str, key: &str| ask(api.request(Method::POST, path, key)).await;
    let refused = post(&retry, &key).await?;
    expect(&refused, 409, "wrong_state")?;
    ensure!(refused.text.contains("pending"), "{refused:?}");
    let canceled = post(&cancel, &key).await?;
    ensure!(
        canceled.status == 200 && canceled.json == json!({"id": id, "dispatch_status": "canceled"}),
        "{canceled:?}"
    );
    expect(&post(&cancel, &key).await?, 409, "wrong_state")?;
    let again = post(&retry, &key).await?;
    ensure!(again.status == 200 && again.json == json!({"id": id, "dispatch_status": "pending"}), "{again:?}");
    let unknown = format!("{OUTBOX}/r00000000000000000000000000/cancel");
    expect(&post(&unknown, &key).await?, 404, "not_found")?;
    let read = Api::key(&database, "shop", &["read"]).await?;
    expect(&post(&cancel, &read).await?, 403, "missing_scope")?;
    Ok(())
}

async fn a_batch_is_queued_whole_or_not_at_all(major: Major) -> Result<()> {
    let (database, api) = open(major).await?;
    let key = all_scopes(&database, "shop").await?;
    let batch = format!("{OUTBOX}/batch");
    let mut messages: Vec<Value> = (0..1000).map(sms).collect();
    messages[17]["mobile"] = json!("1");
    let refused = api.post(&batch, &key, &json!({ "messages": messages })).await?;
    expect(&refused, 422, "invalid_field")?;
    ensure!(refused.field() == "messages[17].mobile", "{refused:?}");
    let count = "SELECT count(*) FROM sms_outbox.outbox";
    ensure!(database.value::<i64>(count, &[]).await? == 0);
    for (n, message) in messages.iter_mut().enumerate() {
        *message = sms(n);
        message["idempotency_key"] = json!(format!("k{n}"));
    }
    let queued = api.post(&batch, &key, &json!({ "messages": messages })).await?;
    ensure!(queued.status == 201 && queued.json["count"] == 1000, "{} {:.300}", queued.status, queued.text);
    ensure!(database.value::<i64>(count, &[]).await? == 1000);
    let ids = queued.json["data"].as_array().context("data")?;
    let third = api.get(&format!("{OUTBOX}/{}", ids[3]["id"].as_str().context("id")?), &key).await?;
    ensure!(third.json["message"] == "Order 3", "{third:?}");
    let replayed = api.post(&batch, &key, &json!({ "messages": messages })).await?;
    ensure!(replayed.status == 200 && replayed.json["data"][999]["idempotent_replay"] == true, "{}", replayed.status);
    let (none, many) = (json!({"messages": []}), json!({"messages": vec![sms(1); 1001]}));
    for body in [none, many] {
        let refused = api.post(&batch, &key, &body).await?;
        expect(&refused, 422, "invalid_field")?;
        ensure!(refused.field() == "messages", "{refused:?}");
    }
    Ok(())
}

async fn organizations_see_their_own_alone(major: Major) -> Result<()> {
    let (database, api) = open(major).await?;
    let (shop, bank) = (all_scopes(&database, "shop").await?, all_scopes(&database, "bank").await?);
    let id = api.enqueue(&shop, &sms(1)).await?.id()?.to_owned();
    for path in [format!("{OUTBOX}/{id}"), format!("{OUTBOX}/{id}/cancel"), format!("{OUTBOX}/{id}/retry")] {
        let method = if path.ends_with(&id) { Method::GET } else { Method::POST };
        let other = ask(api.request(method.clone(), &path, &bank)).await?;
        let unknown = ask(api.request(method, &path.replace(&id, "r00000000000000000000000000"), &bank)).await?;
        expect(&other, 404, "not_found")?;
        ensure!(other.json["detail"] == unknown.json["detail"], "{other:?} {unknown:?}");
    }
    ensure!(api.get(OUTBOX, &bank).await?.json["count"] == 0);
    ensure!(api.get(OUTBOX, &shop).await?.json["count"] == 1);
    let named = api.request(Method::GET, OUTBOX, &shop).header("x-organization-id", "bank");
    expect(&ask(named).await?, 403, "organization_mismatch")?;
    let empty = Api::key(&database, "empty", &["enqueue"]).await?;
    expect(&api.post(OUTBOX, &empty, &sms(1)).await?, 409, "no_sms_app")?;
    // Every 401 is the same, whatever is wrong, and comes before any fault of the body.
    database.value::<String>("SELECT sms_outbox.revoke_api_key(substr($1, 6, 12))::text", &[&empty]).await?;
    let last = if shop.ends_with('0') { '1' } else { '0' };
    let wrong = format!("{}{last}", &shop[..shop.len() - 1]);
    let mut told = Vec::new();
    for key in ["", "smsk_", "x.y.z", &empty, &wrong] {
        let refused =
            ask(api.request(Method::POST, OUTBOX, key).header("content-type", "application/json").body("{")).await?;
        expect(&refused, 401, "unauthorized")?;
        ensure!(refused.header("www-authenticate") == "Bearer", "{refused:?}");
        told.push(refused.json["detail"].clone());
    }
    ensure!(told.iter().all(|words| *words == told[0]), "{told:?}");
    Ok(())
}
