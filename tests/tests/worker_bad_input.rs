//! What a person can get wrong when starting a worker: each names field, fault and cure, and shows no secret. And what
//! is secret in a busy worker is in no log.

mod shop;

use std::fs;
use std::net::TcpListener;

use anyhow::{Context, Result, ensure};
use serde_json::json;
use shop::Shop;
use sms_outbox_tests::proxy::{Act, Moment, Proxy};
use sms_outbox_tests::{Database, Major, on_majors, run, worker};
use tokio::process::Command;

on_majors! { ends: a_wrong_start_is_explained, secrets_are_in_no_log }

const PASSWORD: &str = "pa55word-canary";

/// One wrong start: what is given, the exit code, and the words that must be in the message.
struct Case {
    name: &'static str,
    arguments: Vec<String>,
    url: Option<String>,
    code: i32,
    words: &'static [&'static str],
}

fn case(name: &'static str, url: &str, arguments: &[&str], code: i32, words: &'static [&'static str]) -> Case {
    let arguments = arguments.iter().map(ToString::to_string).collect();
    Case { name, arguments, url: Some(url.to_owned()), code, words }
}

async fn check(case: &Case) -> Result<()> {
    let mut command = Command::from(worker::command("worker")?);
    command.args(&case.arguments).kill_on_drop(true);
    if let Some(url) = &case.url {
        command.env("DATABASE_URL", url);
    }
    let ended = tokio::time::timeout(sms_outbox_tests::patience(), command.output()).await;
    let output = ended.with_context(|| format!("{}: it runs on", case.name))??;
    let told = String::from_utf8_lossy(&output.stderr).into_owned();
    ensure!(
        output.status.code() == Some(case.code),
        "{}: {}, expected {}: {told}",
        case.name,
        output.status,
        case.code
    );
    for word in case.words {
        ensure!(told.contains(word), "{}: '{word}' is not in: {told}", case.name);
    }
    ensure!(output.stdout.is_empty(), "{}: on standard output: {:?}", case.name, output.stdout);
    ensure!(!told.contains(PASSWORD) && !told.contains("panicked"), "{}: {told}", case.name);
    Ok(())
}

async fn check_all(cases: &[Case]) -> Result<()> {
    let mut faults = Vec::new();
    for case in cases {
        if let Err(fault) = check(case).await {
            faults.push(format!("{fault:#}"));
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

async fn a_wrong_start_is_explained(major: Major) -> Result<()> {
    let shop = Shop::open(major, "wrong").await?;
    let good = shop.database.url("worker");
    let port = shop.database.cluster().port();
    // Bound and not listened at: nobody else gets it.
    let silent = TcpListener::bind("127.0.0.1:0")?;
    // Takes the login, and swallows the answer to the first question.
    let mute = Proxy::start(port).await?;
    mute.order(Moment::AnswerTo("server_version_num"), Act::Silence, 1);
    let with_password = |rest: &str| format!("postgresql://worker:{PASSWORD}@{rest}");
    let (config, unknown_key) = (run::fresh("config")?, run::fresh("config")?);
    fs::write(&unknown_key, format!("poll_intervall = \"1s\"\n# {PASSWORD}\n"))?;
    fs::write(&config, format!("concurrency = 7\n{PASSWORD}\n"))?;
    let (config, unknown_key) = (config.display().to_string(), unknown_key.display().to_string());

    let mut cases = vec![
        case("no URL at all", "", &[], 2, &["database_url", "not set", "DATABASE_URL"]),
        case(
            "no URL",
            &format!("hello {PASSWORD}"),
            &[],
            2,
            &["database_url", "no PostgreSQL URL", "postgres://user:password@host"],
        ),
        case("an option that is none", &with_password("127.0.0.1/x?nonsense=1"), &[], 2, &["database_url"]),
        case(
            "a password that is not encoded",
            &format!("postgresql://worker:pa@{PASSWORD}@127.0.0.1/x"),
            &[],
            2,
            &["database_url", "percent-encode"],
        ),
        case(
            "nobody there",
            &with_password("127.0.0.1:1/x"),
            &[],
            1,
            &["cannot reach 127.0.0.1:1", "refused", "check host and port"],
        ),
        case(
            "no such host",
            &with_password("no-such-host.invalid/x"),
            &[],
            1,
            &["cannot reach no-such-host.invalid", "check host and port"],
        ),
        case(
            "a server that says nothing",
            &with_password(&format!("{}/x?connect_timeout=1", silent.local_addr()?)),
            &[],
            1,
            &["cannot reach", "no answer within"],
        ),
        case(
            "a server that lets us in and says nothing",
            &format!("{}?connect_timeout=1", good.replace(&port.to_string(), &mute.port().to_string())),
            &[],
            1,
            &["let us in and did not say within 2 s", "a pooler"],
        ),
        case(
            "a wrong password",
            &with_password(&format!("127.0.0.1:{port}/wrong")),
            &[],
            1,
            &["refused the login", "check user and password"],
        ),
        case(
            "no such database",
            &good.replace("/wrong", "/none"),
            &[],
            1,
            &["refused the connection", "none", "create the database"],
        ),
        case(
            "http_timeout beyond the lease",
            &good,
            &["--http-timeout", "3min"],
            1,
            &["http_timeout: 180s", "lease of 120s", "115s"],
        ),
        case("an unknown flag", &good, &["--concurency", "3"], 2, &["--concurency", "--concurrency"]),
        case(
            "an unknown key",
            &good,
            &["--config", &unknown_key],
            2,
            &["poll_intervall: no such setting", "poll_interval"],
        ),
        case("no TOML", &good, &["--config", &config], 2, &["not TOML, line 2"]),
        case("no such file", &good, &["--config", "/nowhere/x.toml"], 2, &["/nowhere/x.toml", "cannot be read"]),
        case("too much at once", &good, &["--concurrency", "10001"], 2, &["concurrency", "10001", "1 to 10000"]),
        case("nothing at once", &good, &["--concurrency", "0"], 2, &["concurrency", "1 to 10000"]),
        case("a pause that is too long", &good, &["--poll-interval", "2h"], 2, &["poll-interval", "50ms", "1m"]),
        case("a pause without a unit", &good, &["--poll-interval", "soon"], 2, &["poll-interval", "soon"]),
        case(
            "heartbeats that are too rare to count",
            &good,
            &["--heartbeat-interval", "30s"],
            2,
            &["heartbeat-interval", "4s"],
        ),
        case("a name that fits nowhere", &good, &["--worker-name", "a/b"], 2, &["worker-name", "1 to 64 characters"]),
    ];
    cases[0].url = None;
    check_all(&cases).await?;

    let bare = Database::create_empty(shop.database.cluster(), "bare").await?;
    let other = |version: &'static str| {
        format!("UPDATE pg_extension SET extversion = '{version}' WHERE extname = 'sms_outbox'")
    };
    check(&case(
        "no extension",
        &bare.url("worker"),
        &[],
        1,
        &["sms_outbox is not in database bare", "sms-outbox install"],
    ))
    .await?;
    shop.database.sql(&other("9.0.0")).await?;
    check(&case(
        "a newer extension",
        &good,
        &[],
        3,
        &["database wrong is 9.0.0, newer than", "upgrade the sms-outbox binary"],
    ))
    .await?;
    shop.database.sql(&other("0.0.1")).await?;
    check(&case("an older extension", &good, &[], 1, &["database wrong is 0.0.1, older than", "sms-outbox install"]))
        .await?;
    shop.database.sql(&other("0.1.0")).await?;
    shop.discard().await
}

/// Failures of all kinds, with a number, a text and credentials that must not be found afterwards.
async fn secrets_are_in_no_log(major: Major) -> Result<()> {
    const TOKEN: &str = "t0ken-canary";
    const BODY: &str = "b0dy-canary";
    let mut shop = Shop::open(major, "canary").await?;
    let behaviours = [
        "refuse_recipient",
        "refuse_content",
        "refuse_account",
        "balance",
        "throttle",
        "error_500",
        "accept_then_500",
        "reset_after_read",
        "reset_after_accept",
        "stall_after_headers",
        "truncate",
        "garbage",
        "redirect",
    ];
    let mut workers = Vec::new();
    for format in ["human", "json"] {
        let options = shop.worker()?.set("SMS_OUTBOX_LOG_LEVEL", "trace").set("SMS_OUTBOX_LOG_FORMAT", format);
        workers.push(options.set("SMS_OUTBOX_HTTP_TIMEOUT", "2s").start().await?);
    }
    let mut numbers = Vec::new();
    for behaviour in behaviours {
        let token = format!("{TOKEN}-{behaviour}");
        shop.install_for(behaviour, "sandbox", shop.token(&token), "").await?;
        shop.rule(json!({"behaviour": behaviour, "account": token, "times": 2})).await?;
        for _ in 0..4 {
            numbers.push(shop.queue_text(behaviour, &format!("{BODY} {behaviour}")).await?.to);
        }
    }
    shop.install_for("dead", "sandbox", json!({"token": TOKEN, "base_url": "http://127.0.0.1:1"}), "").await?;
    numbers.push(shop.queue_text("dead", BODY).await?.to);
    let over = "SELECT count(*) = 13 FROM (SELECT m.organization_id FROM sms_outbox.attempts AS a JOIN sms_outbox.outbox AS m USING (id)
        WHERE a.status <> 'accepted' AND m.organization_id <> 'dead' GROUP BY 1) AS failed";
    shop.database.wait_until("every kind of failure happened", over).await?;
    // An outage of the database is the other occasion on which much is said.
    shop.database.sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE usename = 'worker' AND datname = current_database()").await?;
    let healthy = shop.install_for("healthy", "sandbox", shop.token(TOKEN), "").await?;
    let last = shop.queue_text("healthy", BODY).await?;
    shop.wait_for_status(&last, "sent").await?;
    shop.expect_ledger(&last, &[("accepted", healthy)]).await?;
    let mut logs = String::new();
    for worker in &mut workers {
        ensure!(worker.drain().await?.success());
        logs += &worker.log();
    }
    ensure!(logs.contains("attempt over") && logs.contains("SQLSTATE 57P01"), "too little is logged: {logs}");
    ensure!(!logs.contains("db error"), "an error of the database without its cause: {logs}");
    let password = shop.database.cluster().password();
    for secret in [TOKEN, BODY, password].into_iter().chain(numbers.iter().map(|number| &number[1..])) {
        let line = logs.lines().find(|line| line.contains(secret));
        ensure!(line.is_none(), "'{secret}' is in a log: {line:?}");
    }
    let kept = shop.database.rows("SELECT error_message, response FROM sms_outbox.attempts").await?;
    ensure!(!json!(kept).to_string().contains(TOKEN), "a credential is in the ledger: {kept:?}");
    Ok(())
}
