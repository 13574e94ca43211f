//! API keys as the HTTP API uses them: made once, kept as a hash, refused all alike, ended at once.

use anyhow::{Context, Result};
use serde_json::json;
use sms_outbox_tests::queue::refused;
use sms_outbox_tests::{Major, Queue, on_majors};
use tokio_postgres::{Client, Error};

on_majors! { ends:
    opens_with_its_key, refuses_all_that_is_wrong_alike, holds_to_scope_and_organization, ends_at_once, notes_its_use,
    refuses_bad_keys_when_made,
}

async fn made(queue: &Queue, arguments: &str) -> Result<(String, String)> {
    let key: String = queue.value(&format!("SELECT sms_outbox.create_api_key({arguments})"), &[]).await?;
    let id = key.split('_').nth(1).context("an id in the key")?.to_owned();
    Ok((key, id))
}

async fn enter(client: &Client, scope: &str, key: &str, id: &str, organization: Option<&str>) -> Result<String, Error> {
    client
        .query_one(
            "SELECT sms_outbox.enter($1, $2, sha256(convert_to($3, 'UTF8')), $4)",
            &[&scope, &id, &key, &organization],
        )
        .await?
        .try_get(0)
}

async fn opens_with_its_key(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (key, id) = made(&queue, "'shop', 'checkout'").await?;
    assert!(key.len() == 82 && key.starts_with("smsk_"), "{}", key.len());
    let api = queue.connect_as("api").await?;
    let row = api
        .query_one(
            "SELECT e.id, e.idempotent_replay FROM sms_outbox.enter('enqueue', $1, sha256(convert_to($2, 'UTF8')), NULL) AS c (organization_id),
                    LATERAL sms_outbox.enqueue_text(mobile => '0501234567', message => 'x', datetime => '2026-12-31 18:00',
                                                    idempotency_key => 'k', organization_id => c.organization_id) AS e",
            &[&id, &key],
        )
        .await;
    // Far ahead or past, by the day on which this runs; what matters is that the text was read as a time.
    if let Err(error) = &row {
        assert_eq!(error.as_db_error().and_then(|error| error.column()), Some("datetime"), "{error}");
    }
    let message = api
        .query_one(
            "SELECT e.id FROM sms_outbox.enter('enqueue', $1, sha256(convert_to($2, 'UTF8')), NULL) AS c (organization_id),
                    LATERAL sms_outbox.enqueue_text(mobile => '0501234567', message => 'x', datetime => '', organization_id => c.organization_id) AS e",
            &[&id, &key],
        )
        .await?;
    let message: String = message.try_get(0)?;
    let read = "SELECT to_jsonb(o) FROM sms_outbox.enter('read', $1, sha256(convert_to($2, 'UTF8')), NULL) AS c (organization_id),
                       LATERAL (SELECT * FROM sms_outbox.outbox AS o WHERE o.id = $3::text::sms_outbox.message_id AND o.organization_id = c.organization_id) AS o";
    assert_eq!(api.query(read, &[&id, &key, &message]).await?.len(), 1);
    let (theirs, their_id) = made(&queue, "'other', 'n'").await?;
    assert_eq!(api.query(read, &[&their_id, &theirs, &message]).await?.len(), 0);
    // Kept as a hash.
    let secret = key.rsplit('_').next().context("a secret")?;
    let kept = queue.rows("SELECT * FROM sms_outbox.api_key").await?;
    assert!(!json!(kept).to_string().contains(secret));
    Ok(())
}

async fn refuses_all_that_is_wrong_alike(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (key, id) = made(&queue, "'shop', 'n'").await?;
    let (revoked, revoked_id) = made(&queue, "'shop', 'n'").await?;
    queue.sql(&format!("SELECT sms_outbox.revoke_api_key('{revoked_id}')")).await?;
    let (expired, expired_id) = made(&queue, "'shop', 'n', expires_at => now() + interval '1 h'").await?;
    queue
        .sql(&format!(
            "UPDATE sms_outbox.api_key SET expires_at = now() - interval '1 s' WHERE key_id = '{expired_id}'"
        ))
        .await?;
    let api = queue.connect_as("api").await?;
    let mut answers = Vec::new();
    for (key, id) in [
        (&key, &revoked_id),
        (&revoked, &revoked_id),
        (&expired, &expired_id),
        (&key, &"000000000000".to_owned()),
        (&String::new(), &id),
        (&key, &"'; DROP".to_owned()),
    ] {
        let error = enter(&api, "read", key, id, None).await.err().context("not refused")?;
        let error = error.as_db_error().context("a database error")?;
        answers.push((
            error.code().code().to_owned(),
            error.message().to_owned(),
            error.constraint().map(str::to_owned),
        ));
    }
    answers.dedup();
    assert_eq!(
        answers,
        [("28000".to_owned(), "the credentials are missing or not valid".to_owned(), Some("unauthorized".to_owned()))]
    );
    assert_eq!(enter(&api, "read", &key, &id, None).await?, "shop");
    Ok(())
}

async fn holds_to_scope_and_organization(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (key, id) = made(&queue, "'shop', 'n', '{read}'").await?;
    let api = queue.connect_as("api").await?;
    for (scope, organization, code) in [
        ("enqueue", None, "missing_scope"),
        ("operate", None, "missing_scope"),
        ("read", Some("other"), "organization_mismatch"),
    ] {
        let error = enter(&api, scope, &key, &id, organization).await.err().context("not refused")?;
        let error = error.as_db_error().context("a database error")?;
        assert_eq!((error.code().code(), error.constraint()), ("42501", Some(code)));
    }
    let without_scope = format!("SELECT sms_outbox.enter(NULL, '{id}', sha256(convert_to('{key}', 'UTF8')))");
    assert_eq!(refused(&api, &without_scope).await?.constraint(), Some("missing_scope"));
    assert_eq!(enter(&api, "read", &key, &id, Some("shop")).await?, "shop");
    // A verified token needs no key, but a name that can be one.
    let row = api.query_one("SELECT sms_outbox.enter('read', NULL, NULL, 'other')", &[]).await?;
    assert_eq!(row.try_get::<_, String>(0)?, "other");
    for organization in ["NULL", "''", "'no; good'"] {
        assert_eq!(
            refused(&api, &format!("SELECT sms_outbox.enter('read', NULL, NULL, {organization})")).await?.column(),
            Some("organization_id")
        );
    }
    Ok(())
}

async fn ends_at_once(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (key, id) = made(&queue, "'shop', 'n'").await?;
    let api = queue.connect_as("api").await?;
    enter(&api, "read", &key, &id, None).await?;
    queue.sql(&format!("SELECT sms_outbox.revoke_api_key('{id}')")).await?;
    assert!(enter(&api, "read", &key, &id, None).await.is_err());
    assert_eq!(
        refused(queue.admin(), "SELECT sms_outbox.revoke_api_key('000000000000')").await?.code().code(),
        "P0002"
    );
    let listed =
        queue.rows("SELECT prefix, name, scopes, revoked_at IS NOT NULL AS revoked FROM sms_outbox.api_keys").await?;
    assert_eq!(
        listed,
        [json!({ "prefix": format!("smsk_{id}"), "name": "n", "scopes": ["enqueue", "read"], "revoked": true })]
    );
    Ok(())
}

async fn notes_its_use(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (key, id) = made(&queue, "'shop', 'n'").await?;
    let (one, other) = (queue.connect_as("api").await?, queue.connect_as("api").await?);
    one.batch_execute("BEGIN").await?;
    enter(&one, "read", &key, &id, None).await?;
    // Another request with the key does not wait for the first one's transaction.
    enter(&other, "read", &key, &id, None).await?;
    one.batch_execute("COMMIT").await?;
    assert_eq!(queue.count("sms_outbox.api_keys WHERE last_used_at > now() - interval '1 min'").await?, 1);
    let before = queue.rows("SELECT ctid::text FROM sms_outbox.api_key").await?;
    enter(&other, "read", &key, &id, None).await?;
    assert_eq!(queue.rows("SELECT ctid::text FROM sms_outbox.api_key").await?, before, "to the minute only");
    Ok(())
}

async fn refuses_bad_keys_when_made(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    for (arguments, field) in [
        ("'no good', 'n'", "organization_id"),
        ("'shop', ''", "name"),
        ("'shop', NULL", "name"),
        ("'shop', 'n', '{}'", "scopes"),
        ("'shop', 'n', '{all}'", "scopes"),
        ("'shop', 'n', '{read,NULL}'", "scopes"),
        ("'shop', 'n', expires_at => now()", "expires_at"),
    ] {
        let error = refused(queue.admin(), &format!("SELECT sms_outbox.create_api_key({arguments})")).await?;
        assert_eq!((error.code().code(), error.column()), ("22023", Some(field)), "{arguments}");
    }
    Ok(())
}
