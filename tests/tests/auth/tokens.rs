//! Session tokens over HTTP, by an issuer that rotates its keys.

use anyhow::Result;
use serde_json::{Value, json};
use sms_outbox_tests::api::{Answer, ask};
use sms_outbox_tests::token::{Issuer, claims, encoded, now};
use sms_outbox_tests::{Api, Major, Queue, wait_until};

use crate::OUTBOX;

async fn trusting(queue: &Queue, issuer: &Issuer) -> Result<Api> {
    let options = Api::options(queue)?.set("SMS_OUTBOX_LOG_LEVEL", "info,sms_outbox_worker::api=debug");
    issuer.settings().iter().fold(options, |options, (name, value)| options.set(name, value)).start().await
}

/// GET of the list with a token and an organization.
async fn listed(api: &Api, token: &str, organization: &str) -> Result<Answer> {
    let request = api.request(reqwest::Method::GET, OUTBOX, token);
    ask(if organization.is_empty() { request } else { request.header("X-Organization-ID", organization) }).await
}

pub(crate) async fn a_token_acts_for_its_claims(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    queue.install("bank", "main").await?;
    let issuer = Issuer::new()?;
    let api = trusting(&queue, &issuer).await?;
    let shop = issuer.token("shop")?;
    let message = json!({ "mobile": "0501234567", "message": "by token" });
    let queued = api.enqueue(&shop, &message).await?;
    let own = queued.id()?;
    assert_eq!(api.get(&format!("{OUTBOX}/{own}"), &shop).await?.json["organization_id"], "shop");
    assert_eq!(api.get(&format!("{OUTBOX}/{own}"), &issuer.token("bank")?).await?.status, 404);
    assert_eq!(listed(&api, &issuer.token("bank")?, "").await?.json["count"], 0);

    let several = issuer.sign(&claims(&json!({ "organization_ids": ["bank", "shop"] })))?;
    let one = issuer.sign(&claims(&json!({ "organization_ids": ["shop"] })))?;
    for (token, organization, status, code) in [
        (&several, "", 400, "organization_required"),
        (&several, "mint", 403, "organization_mismatch"),
        (&several, "bank, shop", 403, "organization_mismatch"),
        (&several, "shop", 200, ""),
        (&several, "bank", 200, ""),
        (&one, "", 200, ""),
        (&shop, "shop", 200, ""),
        (&shop, "bank", 403, "organization_mismatch"),
    ] {
        let answer = listed(&api, token, organization).await?;
        assert_eq!((answer.status, answer.code()), (status, code), "{organization:?}: {}", answer.text);
    }
    assert_eq!(listed(&api, &several, "shop").await?.json["count"], 1);
    assert_eq!(listed(&api, &several, "bank").await?.json["count"], 0);

    // Scopes: enqueue and read unless the token says otherwise.
    for (scope, enqueue, read, operate) in [
        (Value::Null, 201, 200, 403),
        (json!("operate"), 403, 403, 200),
        (json!("read profile"), 403, 200, 403),
        (json!(""), 403, 403, 403),
    ] {
        let token = issuer.sign(&claims(&json!({ "organization_id": "shop", "scope": scope })))?;
        let id = api.enqueue(&shop, &message).await?.id()?.to_owned();
        let statuses = [
            api.post(OUTBOX, &token, &message).await?.status,
            listed(&api, &token, "").await?.status,
            api.post(&format!("{OUTBOX}/{id}/cancel"), &token, &json!({})).await?.status,
        ];
        assert_eq!(statuses, [enqueue, read, operate], "{scope}");
    }
    // A key works beside.
    let key = Api::key(&queue, "shop", &["read"]).await?;
    assert_eq!(api.get(OUTBOX, &key).await?.status, 200);
    Ok(())
}

/// The mistakes of RFC 8725 once more, through the door. Each kind has more cases in the unit tests.
pub(crate) async fn hostile_tokens_are_refused(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (issuer, stranger) = (Issuer::new()?, Issuer::new()?);
    let api = trusting(&queue, &issuer).await?;
    let own = json!({ "organization_id": "shop" });
    let good = issuer.sign(&claims(&own))?;
    let with = |more: Value| {
        let mut all = own.clone();
        all.as_object_mut().into_iter().zip(more.as_object()).for_each(|(all, more)| all.extend(more.clone()));
        issuer.sign(&claims(&all))
    };
    let headed = |header: Value| issuer.sign_with(&header, &claims(&own));
    let parts: Vec<&str> = good.split('.').collect();
    let none = encoded(json!({ "alg": "none" }).to_string());
    let tokens = [
        ("another issuer's key", stranger.sign(&claims(&own))?),
        ("alg none", format!("{none}.{}.", parts[1])),
        ("alg none with a signature", format!("{none}.{}.{}", parts[1], parts[2])),
        ("stripped", format!("{}.{}.", parts[0], parts[1])),
        ("no signature part", format!("{}.{}", parts[0], parts[1])),
        (
            "other claims",
            format!("{}.{}.{}", parts[0], encoded(claims(&json!({ "organization_id": "bank" })).to_string()), parts[2]),
        ),
        ("HS256 by the public key", headed(json!({ "alg": "HS256" }))?),
        ("a path as kid", headed(json!({ "alg": "ES256", "kid": "../../../../dev/null" }))?),
        ("SQL as kid", headed(json!({ "alg": "ES256", "kid": "' OR 1=1 --" }))?),
        ("crit", headed(json!({ "alg": "ES256", "crit": ["x"], "x": 1 }))?),
        ("another type", headed(json!({ "alg": "ES256", "typ": "logout+jwt" }))?),
        ("over", with(json!({ "exp": now() - 60 }))?),
        (
            "no end",
            issuer.sign(&json!({ "iss": "https://issuer.example", "aud": "sms-outbox", "organization_id": "shop" }))?,
        ),
        ("the end is a text", with(json!({ "exp": "9999999999" }))?),
        ("not yet", with(json!({ "nbf": now() + 600 }))?),
        ("another audience", with(json!({ "aud": "billing" }))?),
        ("another issuer", with(json!({ "iss": "https://attacker.example" }))?),
        ("no organization", issuer.sign(&claims(&json!({})))?),
        ("an organization that is none", with(json!({ "organization_id": "a'; --" }))?),
        ("huge", with(json!({ "padding": "x".repeat(7000) }))?),
        ("larger than any head", with(json!({ "padding": "x".repeat(200_000) }))?),
    ];
    for (name, token) in &tokens {
        let answer = listed(&api, token, "").await?;
        assert!(matches!(answer.status, 401 | 431), "{name}: {} {}", answer.status, answer.text);
    }
    assert_eq!(listed(&api, &good, "").await?.status, 200);
    // The operator learns why, and nobody learns a token.
    let log = api.log();
    for reason in [
        "alg: not among",
        "no key of this kid",
        "the signature is not",
        "exp: over",
        "aud: another audience",
        "longer than 8 KiB",
    ] {
        assert!(log.contains(reason), "{reason} is not told:\n{log}");
    }
    for (name, token) in tokens.iter().filter(|(_, token)| token.len() < 8000) {
        let secret = token.rsplit('.').next().unwrap_or_default();
        assert!(secret.len() < 20 || !log.contains(secret), "{name} is in the log");
    }
    Ok(())
}

pub(crate) async fn keys_rotate_without_a_restart(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let mut issuer = Issuer::new()?;
    let api = trusting(&queue, &issuer).await?;
    let old = issuer.token("shop")?;
    let status = async |token: &str| Ok::<_, anyhow::Error>(listed(&api, token, "").await?.status);
    assert_eq!(status(&old).await?, 200);

    issuer.add_key()?;
    let new = issuer.token("shop")?;
    wait_until("the new key is known", async || Ok(status(&new).await? == 200)).await?;
    assert_eq!(status(&old).await?, 200, "both are good for a while");
    issuer.drop_oldest_key()?;
    wait_until("the old key is gone", async || Ok(status(&old).await? == 401)).await?;
    assert_eq!(status(&new).await?, 200);

    // A file that was written badly leaves what was, and is told once.
    issuer.publish_text("{\"keys\":[")?;
    wait_until("the log warns", async || {
        assert_eq!(status(&new).await?, 200);
        Ok(api.log().contains("cannot be used; the old ones stay"))
    })
    .await?;
    std::fs::remove_file(issuer.file())?;
    for _ in 0..20 {
        assert_eq!(status(&new).await?, 200);
        tokio::time::sleep(std::time::Duration::from_millis(100)).await;
    }
    issuer.publish_text("{\"keys\":[]}")?;
    wait_until("no key is left", async || Ok(status(&new).await? == 503)).await?;
    assert_eq!(status("smsk_x").await?, 401, "keys of the API are judged all the same");
    issuer.publish()?;
    wait_until("it is back", async || Ok(status(&new).await? == 200)).await?;
    assert_eq!(api.log().matches("cannot be used; the old ones stay").count(), 2, "once a change: {}", api.log());
    Ok(())
}
