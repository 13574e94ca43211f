//! Credentials that are sealed or kept elsewhere, through the real command and a real worker: what reaches the provider,
//! what is stored, and what happens when a key, a file or the right place is missing. And where requests may not go.

mod shop;

use std::fs;
use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shop::{Shop, Sms, apps};
use sms_outbox_tests::process::{output, output_of_input};
use sms_outbox_tests::queue::refused;
use sms_outbox_tests::{Major, on_majors, run, worker};

on_majors! { ends:
    sealed_credentials_open_in_their_place_alone, keys_rotate_without_a_gap, references_are_read_at_each_attempt,
    plain_credentials_can_be_forbidden, a_gateway_is_not_a_way_inward,
}

const TOKEN: &str = "canary-credential";

/// `sms-outbox app …` on the shop's database, as its superuser.
fn app(shop: &Shop, arguments: &[&str]) -> Result<Command> {
    let mut command = worker::command("app")?;
    command.args(arguments).env("DATABASE_URL", shop.database.url("postgres"));
    Ok(command)
}

/// A file of keys, the newest first.
async fn write_keys(path: &Path, keys: &[&str]) -> Result<()> {
    Ok(fs::write(path, keys.concat())?)
}

async fn new_key(id: &str) -> Result<String> {
    let mut command = worker::command("app")?;
    command.args(["seal", "--new-key", id]);
    output(command).await
}

fn keys_file() -> Result<PathBuf> {
    run::fresh("keys")
}

/// Installs by the command an app of Taqnyat's whose token is given on standard input; returns its id.
async fn install(shop: &Shop, organization: &str, token: &str, keys: Option<&Path>) -> Result<i64> {
    let mut command = app(shop, &["install", organization, "taqnyat-sms", "-", "--output", "json"])?;
    if let Some(keys) = keys {
        command.arg("--credential-keys-file").arg(keys);
    }
    let mut config = apps::config("taqnyat-sms", shop.sandbox.url());
    config["bearer_token"] = json!(token);
    let told: Value = serde_json::from_str(&output_of_input(command, &config.to_string()).await?)?;
    told["app_id"].as_i64().context("an id")
}

/// The message was sent, with this credential.
async fn expect_sent_by(shop: &Shop, sms: &Sms, account: &str) -> Result<()> {
    shop.wait_for_status(sms, "sent").await?;
    let journal = shop.sandbox.journal()?;
    let found = journal.iter().find(|one| one.body == sms.text).context("not in the journal")?;
    ensure!(found.account == account, "sent by {}", found.account);
    Ok(())
}

/// The message waits after one attempt that ended so, and nothing was sent. Returns what the attempt says of it.
async fn expect_refused(shop: &Shop, sms: &Sms, code: &str) -> Result<String> {
    let over = async || Ok(shop.ledger(sms).await?.into_iter().next());
    let line = shop.database.wait_for(format!("an attempt of '{}'", sms.text), over).await?;
    ensure!(line.status == "refused_account" && line.code.as_deref() == Some(code), "{line:?}");
    shop.wait_for(sms, "waits_for", "account_refused").await?;
    ensure!(shop.seen(sms).await? == (0, 0), "a request went out");
    let told =
        "SELECT error_message FROM sms_outbox.attempts WHERE id = $1::text AND error_message IS NOT NULL LIMIT 1";
    let told: String = shop.database.value(told, &[&sms.id]).await?;
    ensure!(!told.contains(TOKEN) && !told.contains("127.0.0.1"), "{told}");
    Ok(told)
}

/// Ends the wait for the breaker.
async fn resume(shop: &Shop, app: i64) -> Result<()> {
    shop.database.sql(&format!("SELECT sms_outbox.resume_app({app})")).await
}

/// Nothing of the credential in what is stored, in what monitors see, and in what workers log.
async fn expect_hidden(shop: &Shop) -> Result<()> {
    let dump = shop.database.dump(&[]).await?;
    ensure!(!dump.contains(TOKEN), "the credential is in the dump");
    for log in shop.database.logs() {
        ensure!(!fs::read_to_string(&log)?.contains(TOKEN), "the credential is in {}", log.display());
    }
    Ok(())
}

async fn held(shop: &Shop, app: i64) -> Result<Value> {
    shop.database.value("SELECT credentials FROM sms_outbox.apps_installed WHERE app_id = $1", &[&app]).await
}

async fn sealed_credentials_open_in_their_place_alone(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "sealed").await?;
    let keys = keys_file()?;
    write_keys(&keys, &[&new_key("k1").await?]).await?;
    let app = install(&shop, "shop", TOKEN, Some(&keys)).await?;
    ensure!(held(&shop, app).await? == json!({"bearer_token": "sealed k1"}));
    let with_key = shop.worker()?.set("SMS_OUTBOX_CREDENTIAL_KEYS_FILE", &keys.to_string_lossy());
    let mut worker = with_key.start().await?;
    let sms = shop.queue("").await?;
    expect_sent_by(&shop, &sms, TOKEN).await?;

    // The same value in an app of another organization, and a changed one.
    let moved = install(&shop, "other", "env:NO_SUCH", None).await?;
    let copy = "UPDATE sms_outbox.organization_app AS t SET config = s.config FROM sms_outbox.organization_app AS s";
    shop.database.sql(&format!("{copy} WHERE s.app_id = {app} AND t.app_id = {moved}")).await?;
    let sms = shop.queue_for("other", "").await?;
    let told = expect_refused(&shop, &sms, "credential_unavailable").await?;
    ensure!(told.contains("\"bearer_token\"") && told.contains("sealed for another app"), "{told}");
    let change = "UPDATE sms_outbox.organization_app AS a
                     SET config = a.config || jsonb_build_object('bearer_token', overlay(t.token PLACING
                                      CASE substr(t.token, t.at, 1) WHEN 'A' THEN 'B' ELSE 'A' END FROM t.at FOR 1))
                    FROM (SELECT app_id, config ->> 'bearer_token' AS token, length(config ->> 'bearer_token') - 8 AS at
                            FROM sms_outbox.organization_app) AS t";
    shop.database.sql(&format!("{change} WHERE t.app_id = a.app_id AND a.app_id = {app}")).await?;
    let tampered = shop.queue("").await?;
    let told = expect_refused(&shop, &tampered, "credential_unavailable").await?;
    ensure!(told.contains("it was changed"), "{told}");
    // A worker that has not the key says which one it is.
    worker.drain().await?;
    shop.database.sql(&format!("SELECT sms_outbox.uninstall_app({app})")).await?;
    let again = install(&shop, "third", TOKEN, Some(&keys)).await?;
    let other = keys_file()?;
    write_keys(&other, &[&new_key("k2").await?]).await?;
    let _late = shop.worker()?.set("SMS_OUTBOX_CREDENTIAL_KEYS", fs::read_to_string(&other)?.trim()).start().await?;
    let sms = shop.queue_for("third", "").await?;
    let told = expect_refused(&shop, &sms, "credential_unavailable").await?;
    ensure!(told.contains("\"k1\""), "{told}");
    ensure!(held(&shop, again).await? == json!({"bearer_token": "sealed k1"}));
    expect_hidden(&shop).await
}

async fn keys_rotate_without_a_gap(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "rotation").await?;
    let keys = keys_file()?;
    let (old, new) = (new_key("old").await?, new_key("new").await?);
    write_keys(&keys, &[&old]).await?;
    let plain = install(&shop, "plain", TOKEN, None).await?;
    let sealed = install(&shop, "sealed", TOKEN, Some(&keys)).await?;
    let reference = install(&shop, "reference", "env:TOKEN_OF_A_TEST", Some(&keys)).await?;
    let health = "SELECT status || ': ' || detail FROM sms_outbox.health WHERE \"check\" = 'credentials'";
    ensure!(shop.database.value::<String>(health, &[]).await?.starts_with("warn: 1 app holds plain credentials"));

    // Both keys for the worker first, then the new one seals.
    write_keys(&keys, &[&new, &old]).await?;
    let seal = async |more: &[&str]| {
        let mut command = app(&shop, &["seal", "--output", "json"])?;
        command.arg("--credential-keys-file").arg(&keys).args(more);
        let told = output(command).await?;
        ensure!(!told.contains(TOKEN), "{told}");
        anyhow::Ok(serde_json::from_str::<Value>(&told)?)
    };
    let expected = |sealed: i64, resealed: i64, apps: i64, done: bool| json!({"apps": apps, "sealed": sealed, "resealed": resealed, "key": "new", "done": done});
    ensure!(seal(&[]).await? == expected(1, 1, 2, false), "a dry run");
    ensure!(held(&shop, plain).await? == json!({"bearer_token": "plain"}), "a dry run writes nothing");
    ensure!(seal(&["--yes"]).await? == expected(1, 1, 2, true));
    ensure!(seal(&["--yes"]).await? == expected(0, 0, 0, true), "twice is once");
    for (app, held_so) in [(plain, "sealed new"), (sealed, "sealed new"), (reference, "env")] {
        ensure!(held(&shop, app).await? == json!({"bearer_token": held_so}), "{held_so}");
    }
    ensure!(shop.database.value::<String>(health, &[]).await? == "ok: none is plain");

    // The old key can go.
    write_keys(&keys, &[&new]).await?;
    let options = shop.worker()?.set("SMS_OUTBOX_CREDENTIAL_KEYS_FILE", &keys.to_string_lossy());
    let _worker = options.set("TOKEN_OF_A_TEST", TOKEN).start().await?;
    for organization in ["plain", "sealed", "reference"] {
        let sms = shop.queue_for(organization, "").await?;
        expect_sent_by(&shop, &sms, TOKEN).await?;
    }
    expect_hidden(&shop).await?;
    shop.close().await.map(drop)
}

async fn references_are_read_at_each_attempt(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "references").await?;
    let folder = run::fresh("credentials")?;
    fs::create_dir(&folder)?;
    let file = folder.join("taqnyat");
    let reference = format!("file:{}", file.display());
    let app = install(&shop, "shop", &reference, None).await?;
    ensure!(held(&shop, app).await? == json!({"bearer_token": "file"}));
    let _worker = shop.worker()?.set("SMS_OUTBOX_CREDENTIALS_DIR", &folder.to_string_lossy()).start().await?;
    let sms = shop.queue("").await?;
    let told = expect_refused(&shop, &sms, "credential_unavailable").await?;
    ensure!(told.contains("file:") && !told.contains("taqnyat"), "{told}");
    fs::write(&file, format!("{TOKEN}\n"))?;
    resume(&shop, app).await?;
    expect_sent_by(&shop, &sms, TOKEN).await?;
    // Replaced while the worker runs.
    fs::write(&file, "another\n")?;
    let sms = shop.queue("").await?;
    expect_sent_by(&shop, &sms, "another").await?;
    // What an answer repeats of it is not kept.
    fs::write(&file, TOKEN)?;
    shop.rule(json!({"behaviour": "refuse_account", "account": TOKEN, "times": 1})).await?;
    let sms = shop.queue("").await?;
    shop.wait_for(&sms, "waits_for", "account_refused").await?;
    expect_hidden(&shop).await?;

    // Nothing but credentials can be read so.
    for (organization, reference) in [
        ("database", "env:DATABASE_URL"),
        ("settings", "env:SMS_OUTBOX_CREDENTIALS_DIR"),
        ("passwords", "file:/etc/passwd"),
        ("parent", &format!("file:{}/../{}", folder.display(), "x")),
    ] {
        install(&shop, organization, reference, None).await?;
        let sms = shop.queue_for(organization, "").await?;
        let told = expect_refused(&shop, &sms, "credential_unavailable").await?;
        ensure!(!told.contains("passwd") && !told.contains("DATABASE_URL"), "{told}");
    }
    Ok(())
}

async fn plain_credentials_can_be_forbidden(major: Major) -> Result<()> {
    let shop = Shop::open(major, "forbidden").await?;
    shop.set("plain_credentials", "off").await?;
    let session = shop.database.connect().await?;
    let install = |slug: &str, config: &Value| {
        format!("SELECT sms_outbox.install_app('shop', '{slug}', 'n', $config${config}$config$)")
    };
    let generic = |headers: Value, secrets: Value| json!({"url": "https://gateway.example/", "body": {}, "success": {"status": [200]}, "headers": headers, "secrets": secrets});
    let header = json!({"Authorization": "Bearer {{ secrets.key }}"});
    for (slug, config, field) in [
        ("taqnyat-sms", json!({"bearer_token": TOKEN}), "\"bearer_token\""),
        ("taqnyat-sms", json!({"bearer_token": "env:A-B"}), "\"bearer_token\""),
        ("taqnyat-sms", json!({"bearer_token": "file:relative"}), "\"bearer_token\""),
        ("taqnyat-sms", json!({"bearer_token": "sealed:v2:a:b"}), "\"bearer_token\""),
        (
            "twilio-sms",
            json!({"account_sid": "AC", "auth_token": "env:A", "api_key_secret": TOKEN}),
            "\"api_key_secret\"",
        ),
        ("generic-http", generic(header.clone(), json!({"key": TOKEN})), "\"secrets.key\""),
        ("generic-http", generic(json!({"X-Key": TOKEN}), json!({})), "\"headers.X-Key\""),
        ("generic-http", generic(header.clone(), json!({"key": {"deep": TOKEN}})), "\"secrets.key\""),
    ] {
        let error = refused(&session, &install(slug, &config)).await?;
        ensure!(error.code().code() == "22023" && error.column() == Some("config"), "{config}: {error:?}");
        ensure!(error.message().contains(field) && error.hint().is_some(), "{config}: {error:?}");
        ensure!(!format!("{error:?}").contains(TOKEN), "{error:?}");
    }
    for (slug, config) in [
        ("taqnyat-sms", json!({"bearer_token": "env:TOKEN"})),
        ("taqnyat-sms", json!({"bearer_token": "file:/etc/sms-outbox/credentials/taqnyat"})),
        ("generic-http", generic(header, json!({"key": "env:TOKEN"}))),
    ] {
        session.batch_execute(&install(slug, &config)).await.with_context(|| config.to_string())?;
    }
    let error = refused(&session, "SELECT sms_outbox.update_app(1, config => '{\"bearer_token\": \"x\"}')").await?;
    ensure!(error.code().code() == "22023", "{error:?}");

    // The command seals by itself, and then it may.
    let keys = keys_file()?;
    write_keys(&keys, &[&new_key("k1").await?]).await?;
    ensure!(self::install(&shop, "other", TOKEN, None).await.is_err());
    self::install(&shop, "other", TOKEN, Some(&keys)).await?;
    // Only workers are given credentials.
    for role in ["app", "operator", "monitor"] {
        let session = shop.database.connect_as(role).await?;
        for statement in [
            "SELECT * FROM sms_outbox.app_credentials()",
            "SELECT config FROM sms_outbox.organization_app",
            "SELECT * FROM sms_outbox.installed_app(1)",
        ] {
            let error = refused(&session, statement).await?;
            ensure!(error.code().code() == "42501", "{role}: {statement}: {error:?}");
        }
    }
    shop.database.connect_as("worker").await?.batch_execute("SELECT * FROM sms_outbox.app_credentials()").await?;
    expect_hidden(&shop).await
}

async fn a_gateway_is_not_a_way_inward(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "inward").await?;
    let gateway = shop.install("generic-http", "").await?;
    let worker = shop.worker()?.set("SMS_OUTBOX_ALLOW_ADDRESS", "").start().await?;
    let sms = shop.queue("").await?;
    let told = expect_refused(&shop, &sms, "address_not_allowed").await?;
    ensure!(told.contains("--allow-address"), "{told}");
    // In other writings, by a name, of the neighbourhood, and as the base of an API.
    let port = shop.sandbox.address().rsplit(':').next().context("a port")?.to_owned();
    let mut generic = apps::config("generic-http", shop.sandbox.url());
    generic["allow_http"] = json!(true);
    for (organization, url) in [
        ("decimal", format!("http://2130706433:{port}/generic/send")),
        ("mapped", format!("http://[::ffff:127.0.0.1]:{port}/generic/send")),
        ("unspecified", format!("http://0.0.0.0:{port}/generic/send")),
        ("name", format!("http://localhost.:{port}/generic/send")),
        ("metadata", "http://169.254.169.254/latest/meta-data/".to_owned()),
    ] {
        let mut config = generic.clone();
        config["url"] = json!(url);
        shop.install_for(organization, "generic-http", config, "").await?;
        let sms = shop.queue_for(organization, "").await?;
        expect_refused(&shop, &sms, "address_not_allowed").await.context(organization)?;
    }
    let base = json!({"token": "t", "base_url": "http://10.0.0.1/sandbox", "allow_http": true});
    shop.install_for("base", "sandbox", base, "").await?;
    let neighbour = shop.queue_for("base", "").await?;
    expect_refused(&shop, &neighbour, "address_not_allowed").await?;
    // The pretend provider at its own address may stay on this machine.
    shop.install_for("own", "sandbox", shop.token("t"), "").await?;
    let own = shop.queue_for("own", "").await?;
    shop.wait_for_status(&own, "sent").await?;

    drop(worker);
    let _allowed = shop.worker()?.set("SMS_OUTBOX_ALLOW_ADDRESS", "127.0.0.1").start().await?;
    resume(&shop, gateway).await?;
    shop.wait_for_status(&sms, "sent").await
}
