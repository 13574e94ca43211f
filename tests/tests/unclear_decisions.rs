//! Somebody must decide about messages that may have been sent: what the command shows, says and does then.

mod shop;

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::{Value, json};
use shop::{Shop, Sms};
use sms_outbox_tests::process::{Process, Signal};
use sms_outbox_tests::{Major, Worker, on_majors, paths, patience, run, wait_until};

on_majors! { ends:
    shows_what_is_known_and_what_can_be_done, an_operators_word_settles_it, a_try_that_waits_is_taken_back,
    many_are_decided_by_a_filter_after_a_count, a_signal_lets_the_batch_end, status_tells_what_is_unclear,
    an_app_says_what_it_does_with_the_unclear, two_acceptances_are_shown,
}

/// The command as an operator runs it.
fn command(shop: &Shop, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(paths::command()?);
    command.env("DATABASE_URL", shop.database.url("operator")).args(words);
    Ok(command)
}

async fn run_it(mut command: Command) -> Result<Output> {
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// Standard output of a run that succeeds, and standard error.
async fn said(shop: &Shop, words: &[&str]) -> Result<(String, String)> {
    let output = run_it(command(shop, words)?).await?;
    let (out, err) = (String::from_utf8(output.stdout)?, String::from_utf8(output.stderr)?);
    ensure!(output.status.success(), "{words:?}: {out}{err}");
    Ok((out, err))
}

/// Standard error of a run that fails.
async fn refused(shop: &Shop, words: &[&str]) -> Result<String> {
    let output = run_it(command(shop, words)?).await?;
    ensure!(output.status.code() == Some(1), "{words:?}: {output:?}");
    Ok(String::from_utf8(output.stderr)?)
}

async fn json_of(shop: &Shop, words: &[&str]) -> Result<Value> {
    let (out, _) = said(shop, &[words, &["--output", "json"]].concat()).await?;
    serde_json::from_str(&out).with_context(|| out)
}

/// A shop whose provider cannot be asked what became of an attempt, so that nobody but the test decides.
async fn shop(major: Major, name: &str) -> Result<(Shop, i64, Worker)> {
    let shop = Shop::open(major, name).await?;
    let app = shop.install("taqnyat-sms", "").await?;
    shop.database.sql(&format!("SELECT sms_outbox.update_app({app}, name => 'Main line')")).await?;
    let worker = shop.worker()?.start().await?;
    Ok((shop, app, worker))
}

/// A message that ends as `dispatch_timeout`, because the provider does this.
async fn unclear(shop: &mut Shop, behaviour: &str) -> Result<Sms> {
    let to = shop.next_number();
    shop.rule(json!({"behaviour": behaviour, "to": to, "times": 1})).await?;
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "dispatch_timeout").await?;
    shop.database
        .sql("UPDATE sms_outbox.app_health SET failures = 0, blocked_until = NULL, blocked_reason = NULL")
        .await?;
    Ok(sms)
}

async fn shows_what_is_known_and_what_can_be_done(major: Major) -> Result<()> {
    let (mut shop, app, _worker) = shop(major, "shows").await?;
    let sms = unclear(&mut shop, "reset_after_accept").await?;
    let id = sms.id.as_str();

    let shown = json_of(&shop, &["message", "show", id]).await?;
    ensure!(shown["certainty"] == "possible" && shown["attempts"][0]["certainty"] == "possible", "{shown:#}");
    let now = shown["now"].as_str().unwrap_or_default();
    ensure!(now.starts_with("It may have been sent: the request had begun, and no answer says"), "{now}");
    ensure!(now.ends_with(&format!("That was attempt 1 by app {app} (taqnyat-sms, Main line).")), "{now}");
    let ask = shown["ask"].as_str().unwrap_or_default();
    ensure!(ask.contains(&format!("{id}-1")) && !ask.contains(&sms.to), "{ask}");
    let events: Vec<&str> =
        shown["timeline"].as_array().context("events")?.iter().filter_map(|event| event["event"].as_str()).collect();
    let expected =
        ["enqueued", "attempt 1 begins by worker ", "attempt 1 ends: unclear after ", "ends as dispatch_timeout"];
    ensure!(events.len() == expected.len(), "{events:?}");
    ensure!(events.iter().zip(expected).all(|(event, begin)| event.starts_with(begin)), "{events:?}");
    ensure!(events[2].contains("connection_lost: The connection broke after the request began"), "{events:?}");

    let (table, hint) = said(&shop, &["message", "show", id]).await?;
    ensure!(table.contains(&format!("\nNow: {now}\n{ask}\n")), "{table}");
    ensure!(!table.contains(&sms.to) && !table.contains(&sms.text) && hint.contains("--reveal"), "{table}{hint}");
    let (table, _) = said(&shop, &["message", "show", id, "--reveal"]).await?;
    ensure!(table.contains(&sms.to) && table.contains(&sms.text), "{table}");

    // The commands that it names are what they say: the one for 'it was taken' is done as it stands.
    let choices = shown["choices"].as_array().context("choices")?;
    let commands: Vec<&str> = choices.iter().filter_map(|choice| choice["command"].as_str()).collect();
    ensure!(commands.len() == 3 && choices.iter().all(|choice| choice["risk"].is_string()), "{choices:?}");
    ensure!(commands[2] == format!("sms-outbox message retry {id} --yes"), "{commands:?}");
    let binary = paths::command()?.display().to_string();
    let mut shell = Command::new("sh");
    shell
        .env("DATABASE_URL", shop.database.url("operator"))
        .args(["-c", &commands[0].replacen("sms-outbox", &binary, 1)]);
    let done = run_it(shell).await?;
    ensure!(done.status.success() && done.stdout == format!("{id} sent\n").as_bytes(), "{done:?}");
    ensure!(shop.seen(&sms).await? == (1, 1), "it was sent again");
    shop.discard().await
}

async fn an_operators_word_settles_it(major: Major) -> Result<()> {
    let (mut shop, app, _worker) = shop(major, "settles").await?;
    let (taken, lost) =
        (unclear(&mut shop, "reset_after_accept").await?, unclear(&mut shop, "reset_after_read").await?);

    let (out, _) = said(&shop, &["message", "resolve", &taken.id, "--sent", "--note", "seen in the portal"]).await?;
    ensure!(out == format!("{} sent\n", taken.id), "{out}");
    let shown = json_of(&shop, &["message", "show", &taken.id]).await?;
    ensure!(shown["dispatch_status"] == "sent" && shown["certainty"] == "sent", "{shown:#}");
    ensure!(shown["choices"] == json!([]) && shown["ask"] == Value::Null, "{shown:#}");
    let told = shown["timeline"].to_string();
    ensure!(
        told.contains("attempt 1 ends: unclear after ")
            && told.contains("attempt 1 was sent, an operator says (operator"),
        "{told}"
    );
    ensure!(told.contains(": seen in the portal"), "{told}");

    // Known not to be sent: a retry risks nothing, and needs nobody's yes.
    let risky = refused(&shop, &["message", "retry", &lost.id]).await?;
    ensure!(risky.contains("a retry risks a second SMS; nothing was changed"), "{risky}");
    ensure!(
        risky.contains(&format!("{} may have been sent", lost.id))
            && risky.contains(&format!("app {app} (taqnyat-sms, Main line), ")),
        "{risky}"
    );
    let (out, _) =
        said(&shop, &["message", "resolve", &lost.id, "--not-sent", "--note", "the portal has none"]).await?;
    ensure!(out == format!("{} failed\n", lost.id), "{out}");
    let shown = json_of(&shop, &["message", "show", &lost.id]).await?;
    ensure!(shown["certainty"] == "not_sent" && shown["choices"][0]["risk"] == "none", "{shown:#}");
    shop.will_retry(&lost).await?;
    let (out, hint) = said(&shop, &["message", "retry", &lost.id]).await?;
    ensure!(
        out == format!("{} pending\n", lost.id) && hint.contains("it was surely not sent: a retry risks nothing"),
        "{out}{hint}"
    );
    shop.wait_for_status(&lost, "sent").await?;

    for (words, fault) in [
        (
            vec!["message", "resolve", &taken.id, "--not-sent", "--note", "x"],
            "the message is sent; no attempt of it is unclear",
        ),
        (vec!["message", "resolve", &lost.id, "--sent", "--note", " "], "detail: how it is known is needed"),
        (vec!["message", "retry", &taken.id, "--yes"], "the message is sent; only failed"),
    ] {
        let error = refused(&shop, &words).await?;
        ensure!(error.contains(fault), "{words:?}: {error}");
    }
    ensure!(shop.seen(&taken).await? == (1, 1) && shop.seen(&lost).await? == (2, 1), "one of them was not sent once");
    shop.discard().await
}

async fn a_try_that_waits_is_taken_back(major: Major) -> Result<()> {
    let (mut shop, app, _worker) = shop(major, "waits").await?;
    let sms = unclear(&mut shop, "reset_after_accept").await?;
    shop.database.sql(&format!("SELECT sms_outbox.pause_app({app})")).await?;
    shop.will_retry(&sms).await?;
    let (_, risk) = said(&shop, &["message", "retry", &sms.id, "--yes"]).await?;
    ensure!(risk.contains("may have been sent") && risk.contains("a retry risks a second SMS"), "{risk}");
    let shown = json_of(&shop, &["message", "show", &sms.id]).await?;
    let now = shown["now"].as_str().unwrap_or_default();
    ensure!(now.starts_with("It waits for app_paused (sms-outbox app resume). It may have been sent: "), "{now}");
    said(&shop, &["message", "resolve", &sms.id, "--sent", "--note", "the customer has it"]).await?;
    shop.database.sql(&format!("SELECT sms_outbox.resume_app({app})")).await?;
    ensure!(shop.show(&sms, "dispatch_status").await?.as_deref() == Some("sent"));
    ensure!(shop.seen(&sms).await? == (1, 1), "it was sent again");
    shop.discard().await
}

/// How many messages of each status there are.
async fn statuses(shop: &Shop) -> Result<Vec<Value>> {
    shop.database.rows("SELECT dispatch_status AS s, count(*) AS n FROM sms_outbox.outbox GROUP BY 1 ORDER BY 1").await
}

async fn many_are_decided_by_a_filter_after_a_count(major: Major) -> Result<()> {
    let (mut shop, app, _worker) = shop(major, "many").await?;
    for behaviour in ["error_500", "error_500", "error_500", "accept_then_500", "reset_after_read"] {
        unclear(&mut shop, behaviour).await?;
    }
    let before = statuses(&shop).await?;
    let filter = ["--status", "dispatch_timeout", "--error-code", "http_500"];
    let count = json_of(&shop, &[&["message", "retry"], filter.as_slice()].concat()).await?;
    ensure!(count["matched"] == 4 && count["moved"] == 0 && count["dry_run"] == true, "{count}");
    let group = &count["groups"][0];
    ensure!(
        (&group["organization_app_id"], &group["error_code"], &group["certainty"], &group["messages"])
            == (&json!(app), &json!("http_500"), &json!("possible"), &json!(4)),
        "{count:#}"
    );
    let (table, hint) =
        said(&shop, &["message", "resolve", "--app", &app.to_string(), "--not-sent", "--note", "x"]).await?;
    ensure!(table.contains("http_500") && table.contains("connection_lost"), "{table}");
    ensure!(table.ends_with("\n5 messages would be resolved as not sent\n"), "{table}");
    ensure!(hint == "nothing was changed; add --yes to resolve\n", "{hint}");
    ensure!(statuses(&shop).await? == before, "a dry run moved something");

    // The reset ones were not sent; of the others only the provider knows, and it says which one it has.
    let lost = [
        "message",
        "resolve",
        "--error-code",
        "connection_lost",
        "--not-sent",
        "--note",
        "none in the portal",
        "--yes",
    ];
    let (out, _) = said(&shop, &lost).await?;
    ensure!(out == "1 message resolved as not sent\n", "{out}");
    let warned =
        said(&shop, &["message", "resolve", "--error-code", "http_500", "--sent", "--note", "assumed"]).await?.1;
    ensure!(warned.contains("what was not sent after all is then never sent"), "{warned}");
    let again =
        json_of(&shop, &["message", "resolve", "--error-code", "connection_lost", "--sent", "--note", "x", "--yes"])
            .await?;
    ensure!(again == json!({"matched": 0, "moved": 0, "dry_run": false}), "{again}");
    let mut after: Vec<Value> = before;
    after[0]["n"] = json!(4);
    after.insert(0, json!({"s": "failed", "n": 1}));
    ensure!(statuses(&shop).await? == after, "{:?}", statuses(&shop).await?);
    let misuse = run_it(command(&shop, &["message", "resolve", "--sent", "--note", "all of them?", "--yes"])?).await?;
    ensure!(misuse.status.code() == Some(2), "without a filter: {misuse:?}");
    shop.close().await.map(drop)
}

async fn a_signal_lets_the_batch_end(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "signal").await?;
    let app = shop.install("taqnyat-sms", "max_in_flight => 10000").await?;
    shop.queue_many("shop", 2500, "").await?;
    let all = "(SELECT array_agg(id ORDER BY id) FROM sms_outbox.outbox)";
    shop.database
        .sql(&format!(
            "SELECT count(*) FROM sms_outbox.claim('w', {all}, array_fill({app}::bigint, ARRAY[2500]));
             SELECT count(*) FROM sms_outbox.finish('w', {all}, array_fill(1::smallint, ARRAY[2500]), array_fill('unclear'::sms_outbox.attempt_status, ARRAY[2500]),
                array_fill(NULL::smallint, ARRAY[2500]), array_fill('timeout'::text, ARRAY[2500]), array_fill(NULL::text, ARRAY[2500]),
                array_fill(NULL::text, ARRAY[2500]), array_fill(NULL::text, ARRAY[2500]), array_fill(NULL::float8, ARRAY[2500]))"
        ))
        .await?;
    // Somebody holds them all: the first batch waits.
    let mut holder = shop.database.connect().await?;
    let held = holder.transaction().await?;
    held.batch_execute("SELECT count(*) FROM (SELECT FROM sms_outbox.ended FOR UPDATE) AS e").await?;
    let log = run::fresh("resolve-log")?;
    let resolve = ["message", "resolve", "--organization", "shop", "--sent", "--note", "assumed", "--yes"];
    let mut process = Process::spawn("resolve", command(&shop, &resolve)?, &log, Signal::KILL)?;
    let waits = "SELECT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'sms-outbox message resolve' AND wait_event_type = 'Lock')";
    shop.database.wait_until("the first batch waits", waits).await?;
    process.signal(Signal::INT)?;
    wait_until("the command has heard the signal", async || Ok(process.log().contains("stopping after this batch")))
        .await?;
    held.rollback().await?;
    let status = process.wait(patience()).await?;
    let log = process.log();
    let count = "SELECT count(*) FROM sms_outbox.outbox WHERE dispatch_status = 'sent'";
    let moved: i64 = shop.database.value(count, &[]).await?;
    ensure!(moved == 1000 && status.code() == Some(1), "{moved} moved, {status}: {log}");
    ensure!(log.contains("1000 messages resolved as sent"), "{log}");
    ensure!(log.contains("stopped before the other 1500; the same command goes on"), "{log}");
    let (rest, _) = said(&shop, &resolve).await?;
    ensure!(rest == "1500 messages resolved as sent\n", "{rest}");
    shop.discard().await
}

async fn status_tells_what_is_unclear(major: Major) -> Result<()> {
    let (mut shop, app, _worker) = shop(major, "status").await?;
    let (table, _) = said(&shop, &["status"]).await?;
    ensure!(!table.contains("Nobody knows"), "{table}");
    unclear(&mut shop, "garbage").await?;
    unclear(&mut shop, "error_500").await?;
    let status = json_of(&shop, &["status", "--organization", "shop"]).await?;
    let of =
        |group: &Value| (group["organization_app_id"].clone(), group["certainty"].clone(), group["messages"].clone());
    let groups: Vec<_> = status["unclear"].as_array().context("groups")?.iter().map(of).collect();
    ensure!(
        groups == [(json!(app), json!("possible"), json!(1)), (json!(app), json!("likely"), json!(1))],
        "{status:#}"
    );
    let (table, _) = said(&shop, &["status"]).await?;
    ensure!(table.contains("Nobody knows whether these were sent (how to decide: docs/guides/unclear.md)"), "{table}");
    let health = "2 messages may have been sent or not, the first since ";
    ensure!(table.contains(health) && table.contains(&format!("2 by app {app} (taqnyat-sms)")), "{table}");
    shop.close().await.map(drop)
}

async fn an_app_says_what_it_does_with_the_unclear(major: Major) -> Result<()> {
    let (shop, app, _worker) = shop(major, "app").await?;
    let (table, _) = said(&shop, &["app", "list"]).await?;
    ensure!(table.contains(" kept "), "{table}");
    let app = app.to_string();
    said(&shop, &["app", "update", &app, "--resend-unclear"]).await?;
    let (table, _) = said(&shop, &["app", "list"]).await?;
    ensure!(table.contains(" sent again "), "{table}");
    said(&shop, &["app", "update", &app, "--resend-unclear", "false"]).await?;
    ensure!(json_of(&shop, &["app", "list"]).await?[0]["resend_unclear"] == false);
    shop.discard().await
}

async fn two_acceptances_are_shown(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "twice").await?;
    let app = shop.install("taqnyat-sms", "").await?;
    let sms = shop.queue("").await?;
    let id = &sms.id;
    let claim = format!("SELECT count(*) FROM sms_outbox.claim('w', '{{{id}}}', '{{{app}}}')");
    let finish = |attempt: i16, status: &str| {
        format!(
            "SELECT count(*) FROM sms_outbox.finish('w', '{{{id}}}', '{{{attempt}}}', '{{{status}}}', '{{NULL}}', '{{NULL}}', '{{NULL}}', '{{NULL}}', '{{NULL}}', '{{NULL}}')"
        )
    };
    let health = "SELECT status || ': ' || detail FROM sms_outbox.health WHERE \"check\" = 'sent_twice'";
    let warned = [
        "warn: 1 message of which one attempt turned out to be accepted while another is in flight or unclear",
        "warn: 1 message of which one attempt turned out to be accepted while another is in flight or unclear",
        "warn: 1 message of which a provider turned out in the last day to have accepted two attempts",
    ];
    let retried = format!("SELECT sms_outbox.retry('{id}')");
    for step in [claim.clone(), finish(1, "unclear"), retried, claim] {
        shop.database.sql(&step).await?;
    }
    // The late answer, with the second in flight; that one ends as unclear; and turns out to be accepted too.
    for (step, warned) in [finish(1, "accepted"), finish(2, "unclear"), finish(2, "accepted")].iter().zip(warned) {
        shop.database.sql(step).await?;
        let said: String = shop.database.value(health, &[]).await?;
        ensure!(said.starts_with(warned) && said.ends_with(id.as_str()), "{step}: {said}");
    }
    let shown = json_of(&shop, &["message", "show", id]).await?;
    let now = shown["now"].as_str().unwrap_or_default();
    ensure!(
        now.starts_with("It was accepted 2 times, and its recipient may have got it as often: attempt 1 by "),
        "{now}"
    );
    ensure!(shown["timeline"].to_string().contains("attempt 1 was sent, a late answer says (w)"), "{shown:#}");
    shop.discard().await
}
