//! Keys as an operator makes, lists and revokes them, and settings that are refused at the start.

use std::process::Command;

use anyhow::{Context, Result, bail};
use serde_json::{Value, json};
use sms_outbox_tests::process::output;
use sms_outbox_tests::token::Issuer;
use sms_outbox_tests::{Database, Major, Queue, run, worker};

/// `sms-outbox key …` with the rights of an operator.
async fn key(database: &Database, words: &[&str]) -> Result<String> {
    let mut command: Command = worker::command("key")?;
    command.args(words).env("DATABASE_URL", database.url("operator"));
    output(command).await
}

/// What a command said that must fail.
fn refusal(ended: Result<String>) -> Result<String> {
    match ended {
        Ok(printed) => bail!("it was not refused: {printed}"),
        Err(error) => Ok(error.to_string()),
    }
}

pub(crate) async fn keys_are_made_listed_and_revoked_by_the_command(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    // Nothing but the key goes to standard output, so that a script can keep it.
    let plain = key(&queue, &["create", "shop", "web"]).await?;
    assert!(plain.starts_with("smsk_") && plain.trim_end().len() == 82 && plain.lines().count() == 1, "{plain:?}");
    let made = key(
        &queue,
        &["create", "shop", "on call", "--scopes", "read,operate", "--expires", "+48h", "--output", "json"],
    )
    .await?;
    let made: Value = serde_json::from_str(&made)?;
    let (whole, id) = (made["key"].as_str().context("a key")?, made["key_id"].as_str().context("an id")?);
    assert!(whole.starts_with(&format!("smsk_{id}_")) && made["expires_at"].is_string(), "{made}");

    let listed = key(&queue, &["list", "--organization", "shop", "--output", "json"]).await?;
    let table = key(&queue, &["list"]).await?;
    for secret in [plain.trim_end(), whole].map(|key| key.rsplit('_').next().unwrap_or_default()) {
        assert!(secret.len() == 64 && !listed.contains(secret) && !table.contains(secret));
    }
    let listed: Vec<Value> = serde_json::from_str(&listed)?;
    let shown: Vec<Value> = listed.iter().map(|key| json!([key["name"], key["scopes"], key["state"]])).collect();
    assert_eq!(
        shown,
        [json!(["web", ["enqueue", "read"], "active"]), json!(["on call", ["operate", "read"], "active"])]
    );
    assert!(table.contains(&format!("smsk_{id}")) && table.contains("on call"), "{table}");
    assert_eq!(key(&queue, &["list", "--organization", "bank", "--output", "json"]).await?.trim(), "[]");

    // The whole key, as one finds it where it leaked.
    assert_eq!(key(&queue, &["revoke", whole]).await?.trim_end(), format!("key smsk_{id} revoked"));
    let state =
        |listed: Vec<Value>| listed.into_iter().find(|key| key["key_id"] == *id).map(|key| key["state"].clone());
    let listed = serde_json::from_str(&key(&queue, &["list", "--output", "json"]).await?)?;
    assert_eq!(state(listed), Some("revoked".into()));

    for (words, expected) in [
        (&["create", "no good", "web"][..], "organization_id: "),
        (&["create", "shop", ""], "name: "),
        (&["create", "shop", "web", "--expires", "2020-01-01"], "expires_at: "),
        (&["revoke", "000000000000"], "no key"),
    ] {
        let error = refusal(key(&queue, words).await)?;
        assert!(error.contains(expected) && error.contains("exit status: 1"), "{words:?}: {error}");
    }
    for words in [&["create", "shop", "web", "--scopes", "all"][..], &["revoke", "smsk_"], &["create", "shop"]] {
        let error = refusal(key(&queue, words).await)?;
        assert!(error.contains("exit status: 2"), "{words:?}: {error}");
    }
    Ok(())
}

/// What would let in whom nobody meant to let in is told before anybody is served.
pub(crate) async fn unsafe_settings_are_refused_at_the_start(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let issuer = Issuer::new()?;
    let (jwks, weak) = (issuer.file().display().to_string(), run::fresh("secret")?);
    std::fs::write(&weak, "password\n")?;
    let weak = weak.display().to_string();
    let names = ["--jwt-issuer", "https://issuer.example", "--jwt-audience", "sms-outbox"];
    let cases: [(&[&str], &str); 7] = [
        (&["--jwt-jwks-file", &jwks], "jwt-issuer: missing"),
        (&["--jwt-jwks-file", &jwks, names[0], names[1]], "jwt-audience: missing"),
        (&names, "jwt-issuer: set, but no keys are named"),
        (
            &["--jwt-jwks-file", &jwks, "--jwt-algorithms", "HS256", names[0], names[1], names[2], names[3]],
            "HS256 is not for jwt-jwks-file",
        ),
        (&["--jwt-secret-file", &weak, names[0], names[1], names[2], names[3]], "has 8 bytes, HS256 needs 32"),
        (&["--jwt-jwks-file", &weak, names[0], names[1], names[2], names[3]], "neither a JWK set"),
        (&["--jwt-jwks-file", "/nowhere", names[0], names[1], names[2], names[3]], "/nowhere cannot be read"),
    ];
    for (flags, expected) in cases {
        let mut command: Command = worker::command("api")?;
        command.args(["--listen", "127.0.0.1:0"]).args(flags).env("DATABASE_URL", queue.url("api"));
        let error = refusal(output(command).await)?;
        assert!(error.contains(expected) && !error.contains("password"), "{flags:?}: {error}");
    }
    Ok(())
}
