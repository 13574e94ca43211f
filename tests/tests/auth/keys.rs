//! API keys over HTTP.

use anyhow::{Context, Result};
use reqwest::Method;
use serde_json::{Value, json};
use sms_outbox_tests::api::{Answer, ask};
use sms_outbox_tests::token::Issuer;
use sms_outbox_tests::{Api, Major, Queue, queue, wait_until};

use crate::OUTBOX;

/// With these headers and no others.
async fn with(api: &Api, method: Method, path: &str, headers: &[(&str, &str)]) -> Result<Answer> {
    let request = api.request(method, path, "");
    ask(headers.iter().fold(request, |request, (name, value)| request.header(*name, *value))).await
}

pub(crate) async fn a_key_acts_for_its_organization_and_scopes(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.install("bank", "main").await?;
    let api = Api::start(&queue).await?;
    let [reader, writer, operator] = [
        Api::key(&queue, "shop", &["read"]).await?,
        Api::key(&queue, "shop", &["enqueue"]).await?,
        Api::key(&queue, "shop", &["operate"]).await?,
    ];
    let theirs = queue::enqueue(queue.admin(), "bank", "secret of the bank").await?;
    let own = queue.enqueue("own").await?;

    // In each writing, and with its own organization named.
    for value in [reader.clone(), format!("Bearer {reader}"), format!("bearer {reader}"), format!("BEARER  {reader}")] {
        for organization in [None, Some("shop"), Some("")] {
            let mut headers = vec![("authorization", value.as_str())];
            headers.extend(organization.map(|organization| ("x-organization-id", organization)));
            let answer = with(&api, Method::GET, OUTBOX, &headers).await?;
            assert_eq!((answer.status, &answer.json["count"]), (200, &json!(1)), "{organization:?}: {}", answer.text);
            assert!(!answer.text.contains("bank"), "{}", answer.text);
        }
    }
    for headers in [&["bank"][..], &["SHOP"], &["shop,bank"], &["shop", "bank"], &["shop", "shop"], &["'"]] {
        let named: Vec<_> = headers.iter().map(|organization| ("x-organization-id", *organization)).collect();
        let answer =
            with(&api, Method::GET, OUTBOX, &[&[("authorization", reader.as_str())], &named[..]].concat()).await?;
        assert_eq!((answer.status, answer.code()), (403, "organization_mismatch"), "{headers:?}: {}", answer.text);
    }

    // Another organization's message is answered as one that never was.
    let never = format!("{}0000", &theirs[..23]);
    for (key, method, action) in
        [(&reader, Method::GET, ""), (&operator, Method::POST, "/cancel"), (&operator, Method::POST, "/retry")]
    {
        let mut answers = Vec::new();
        for id in [&theirs, &never] {
            let mut answer = ask(api.request(method.clone(), &format!("{OUTBOX}/{id}{action}"), key)).await?;
            answer.json["request_id"] = Value::Null;
            answers.push((answer.status, answer.json));
        }
        assert_eq!(answers[0], answers[1], "{action}");
        assert_eq!(answers[0].0, 404);
    }
    assert_eq!(queue.status(&theirs).await?, "pending");

    // Each scope is for its calls alone.
    let calls = [
        (Method::POST, OUTBOX.to_owned(), "enqueue"),
        (Method::POST, format!("{OUTBOX}/batch"), "enqueue"),
        (Method::GET, OUTBOX.to_owned(), "read"),
        (Method::GET, format!("{OUTBOX}/{own}"), "read"),
        (Method::POST, format!("{OUTBOX}/{own}/cancel"), "operate"),
        (Method::POST, format!("{OUTBOX}/{own}/retry"), "operate"),
    ];
    let body = |path: &str| match path.ends_with("/batch") {
        true => json!({ "messages": [{ "mobile": "0501234567", "message": "x" }] }),
        false => json!({ "mobile": "0501234567", "message": "x" }),
    };
    for (method, path, needed) in calls {
        for (scope, key) in [("read", &reader), ("enqueue", &writer), ("operate", &operator)] {
            let mut request = api.request(method.clone(), &path, key);
            if needed == "enqueue" {
                request = request.json(&body(&path));
            }
            let answer = ask(request).await?;
            let allowed = matches!(answer.status, 200 | 201);
            assert_eq!(allowed, scope == needed, "{method} {path} with {scope}: {}", answer.text);
            if !allowed {
                assert_eq!((answer.status, answer.code()), (403, "missing_scope"), "{method} {path} with {scope}");
            }
        }
    }
    Ok(())
}

/// Two organizations with the same numbers, keys of messages and habits: neither learns of the other.
pub(crate) async fn an_attacker_learns_nothing_of_others(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.install("bank", "main").await?;
    let api = Api::start(&queue).await?;
    let all = ["enqueue", "read", "operate"];
    let [bank, shop] = [Api::key(&queue, "bank", &all).await?, Api::key(&queue, "shop", &all).await?];
    let body = |text: &str| json!({ "mobile": "966501234567", "message": text, "idempotency_key": "otp-1", "meta": { "organization_id": "bank" } });
    let theirs = api.enqueue(&bank, &body("code xyzzy")).await?;
    // The same key of another organization's message is a new one, and answers as any new one does.
    let own = api.enqueue(&shop, &body("guess")).await?;
    assert_eq!((own.status, &own.json["idempotent_replay"]), (201, &json!(false)));
    assert_ne!(own.id()?, theirs.id()?);
    let batch = json!({ "messages": [body("guess"), body("guess")] });
    let batch = api.post(&format!("{OUTBOX}/batch"), &shop, &batch).await?;
    assert_eq!((batch.status, &batch.json["data"][0]["id"]), (200, &own.json["id"]), "{}", batch.text);

    for _ in 0..2 {
        api.enqueue(&bank, &json!({ "mobile": "966501234567", "message": "code xyzzz" })).await?;
    }
    let page = api.get(&format!("{OUTBOX}?limit=1"), &bank).await?;
    let cursor = page.json["next_cursor"].as_str().context("more than one")?;
    for query in [
        String::new(),
        "?mobile=966501234567".to_owned(),
        "?dispatch_status=pending".to_owned(),
        "?created_after=2020-01-01T00:00:00Z&created_before=2100-01-01T00:00:00Z&limit=100".to_owned(),
        format!("?cursor={cursor}"),
        format!("?cursor={cursor}&mobile=0501234567&dispatch_status=pending"),
    ] {
        let seen = api.get(&format!("{OUTBOX}{query}"), &shop).await?;
        assert_eq!(seen.status, 200, "{query}: {}", seen.text);
        assert!(!seen.text.contains("code xyz") && !seen.text.contains(theirs.id()?), "{query}: {}", seen.text);
        assert!(seen.json["count"].as_u64().is_some_and(|count| count <= 1), "{query}: {}", seen.text);
    }
    for action in ["", "/cancel", "/retry"] {
        let method = if action.is_empty() { Method::GET } else { Method::POST };
        let answer = ask(api.request(method, &format!("{OUTBOX}/{}{action}", theirs.id()?), &shop)).await?;
        assert_eq!((answer.status, answer.code()), (404, "not_found"), "{action}");
    }
    // What everybody may ask tells of no organization.
    for path in ["/healthz", "/readyz", "/metrics", "/openapi.json", "/docs"] {
        let answer = api.get(path, "").await?;
        for secret in ["xyzz", "966501234567", "bank", theirs.id()?, &bank] {
            assert!(
                !answer.text.contains(secret) || path == "/openapi.json" && secret == "966501234567",
                "{path} has {secret}"
            );
        }
    }
    Ok(())
}

/// Unknown, wrong, expired and revoked keys, tokens and other things: one answer, one look-up, to the last byte.
pub(crate) async fn every_401_is_the_same(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.sql(&format!("ALTER DATABASE \"{}\" SET log_statement = 'all'", queue.name())).await?;
    let issuer = Issuer::new()?;
    let options = Api::options(&queue)?;
    let api = issuer.settings().iter().fold(options, |options, (name, value)| options.set(name, value)).start().await?;
    let [good, revoked, expired] = [
        Api::key(&queue, "shop", &["read"]).await?,
        Api::key(&queue, "shop", &["read"]).await?,
        Api::key(&queue, "shop", &["read"]).await?,
    ];
    let id = |key: &str| key[5..17].to_owned();
    queue.sql(&format!("SELECT sms_outbox.revoke_api_key('{}')", id(&revoked))).await?;
    let expire = "UPDATE sms_outbox.api_key SET expires_at = now() - interval '1 s' WHERE key_id = ";
    queue.sql(&format!("{expire}'{}'", id(&expired))).await?;
    let (other_secret, other_id) =
        (format!("{}{}", &good[..18], "0".repeat(64)), good.replace(&id(&good), "000000000000"));
    let (short, long, upper) = (&good[..81], format!("{good}0"), good.to_uppercase());
    let (token, over) = (issuer.token("shop")?, issuer.sign(&json!({ "exp": 1 }))?);
    let (cut, bare) = (format!("Bearer {}", &token[..token.len() - 3]), token.clone());
    let (over, twice) = (format!("Bearer {over}"), format!("Bearer Bearer {good}"));
    let basic = format!("Basic {good}");
    let values = [
        "",
        "Bearer",
        "Bearer ",
        "x",
        &basic,
        &twice,
        &other_secret,
        &other_id,
        &revoked,
        &expired,
        short,
        &long,
        &upper,
        "smsk_",
        "smsk_000000000000_",
        &cut,
        &bare,
        &over,
        "Bearer a.b.c",
        "Bearer eyJhbGciOiJub25lIn0.e30.",
        "'; SELECT 1; --",
    ];
    let calls = [
        (Method::GET, OUTBOX.to_owned()),
        (Method::POST, OUTBOX.to_owned()),
        (Method::POST, format!("{OUTBOX}/r0/cancel")),
    ];
    let (mut first, mut asked) = (None, 0);
    for (method, path) in &calls {
        let mut cases: Vec<Vec<(&str, &str)>> = values.iter().map(|value| vec![("authorization", *value)]).collect();
        cases.push(vec![]);
        cases.push(vec![("authorization", &good), ("authorization", &good)]);
        cases.push(vec![("authorization", &other_secret), ("x-organization-id", "bank")]);
        cases.push(vec![("x-api-key", &good)]);
        cases.push(vec![("cookie", &good)]);
        for headers in cases {
            let answer = with(&api, method.clone(), path, &headers).await.context("no answer")?;
            asked += 1;
            let mut names: Vec<_> =
                answer.headers.iter().map(|(name, value)| (name.to_string(), format!("{value:?}"))).collect();
            names.retain(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id"));
            let request_id = answer.json["request_id"].as_str().context("a request id")?;
            let seen = (answer.status, answer.text.replace(request_id, ""), names);
            assert_eq!(&seen, first.get_or_insert_with(|| seen.clone()), "{headers:?}");
        }
    }
    let (status, text, names) = first.context("an answer")?;
    assert_eq!(status, 401, "{text}");
    assert!(text.contains("\"code\":\"unauthorized\""), "{text}");
    assert!(names.iter().any(|(name, value)| name == "www-authenticate" && value == "\"Bearer\""), "{names:?}");
    // The database was asked once for each: what took no look-up could be told by its time.
    let mark = format!("{} api LOG:  execute ", queue.name());
    let asked_for = queue.cluster().log().lines().filter(|line| line.contains(&mark)).count();
    assert_eq!(asked_for, asked, "statements, requests");
    // Nothing of a credential is in the log.
    let log = api.log();
    for secret in [&good, &revoked, &expired, &other_secret].map(|key| &key[18..]).into_iter().chain([token.as_str()]) {
        assert!(!log.contains(secret), "{log}");
    }
    Ok(())
}

pub(crate) async fn keys_end_within_seconds(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let api = Api::start(&queue).await?;
    let [revoked, expired] = [Api::key(&queue, "shop", &["read"]).await?, Api::key(&queue, "shop", &["read"]).await?];
    let refused = async |key: &str| Ok(api.get(OUTBOX, key).await?.status == 401);
    for key in [&revoked, &expired] {
        assert_eq!(api.get(OUTBOX, key).await?.status, 200);
    }
    let used = queue.value::<i64>("SELECT count(last_used_at) FROM sms_outbox.api_keys", &[]).await?;
    assert_eq!(used, 2, "their use is noted");
    queue.sql(&format!("SELECT sms_outbox.revoke_api_key('{}')", &revoked[5..17])).await?;
    assert!(refused(&revoked).await?, "the next request");
    let soon = "UPDATE sms_outbox.api_key SET expires_at = now() + interval '1 s' WHERE revoked_at IS NULL";
    queue.sql(soon).await?;
    wait_until("the other is over", async || refused(&expired).await).await
}
