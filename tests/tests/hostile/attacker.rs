//! The logins of one organization ask for another's rows, by every view and function that their roles may use: nothing is
//! seen, and what belongs to the other is answered like what does not exist.

use std::collections::BTreeSet;

use anyhow::{Context, Result};
use serde_json::{Value, json};
use sms_outbox_tests::queue::refused;
use sms_outbox_tests::{Fault, Major, on_majors};

use crate::scene::{MARK, METRICS, MOBILE, PROBES, PURE, Scene, VICTIM, answer, tells};

on_majors! { ends:
    views_show_nothing_of_others, what_is_others_is_answered_like_what_is_not, nobody_waits_for_another_organization, strangers_get_nothing,
}

async fn views_show_nothing_of_others(major: Major) -> Result<()> {
    let scene = Scene::set(major).await?;
    let views = scene.readable("app,operator,monitor,api").await?;
    assert!(views.len() > 10, "{views:?}");
    let leak = "CREATE TEMP TABLE leaked (what text);
        CREATE FUNCTION pg_temp.leak(what text) RETURNS boolean LANGUAGE plpgsql COST 0.00001 AS 'BEGIN INSERT INTO leaked VALUES ($1); RETURN true; END'";
    for (role, session) in scene.attackers().await? {
        session.batch_execute(leak).await?;
        let mut seen = 0;
        for (view, columns) in &views {
            if answer(&session, &format!("SELECT FROM {view}")).await.contains("42501") {
                continue;
            }
            seen += 1;
            let mut asked = vec![
                format!("SELECT * FROM {view}"),
                format!("EXPLAIN (ANALYZE, VERBOSE) SELECT * FROM {view} AS v WHERE pg_temp.leak(v::text)"),
            ];
            for column in columns {
                // A cast that fails says what it failed on; a function that costs nothing is asked first.
                asked.push(format!("SELECT FROM {view} AS v WHERE v.\"{column}\"::text::numeric::text::date > 'now'"));
                asked.push(format!("SELECT FROM {view} AS v WHERE pg_temp.leak(v.\"{column}\"::text)"));
                asked.push(format!(
                    "SELECT FROM {view} AS v JOIN (VALUES (1)) AS o (n) ON pg_temp.leak(v.\"{column}\"::text) OFFSET 0"
                ));
                asked.push(format!("EXPLAIN (VERBOSE) SELECT FROM {view} AS v WHERE v.\"{column}\"::text > ''"));
            }
            for sql in asked {
                let answer = answer(&session, &sql).await;
                assert!(!tells(&answer), "{role}: {sql}\n{answer}");
            }
            let leaked = answer(&session, "SELECT what FROM leaked").await;
            assert!(!tells(&leaked), "{role} read of {view}: {leaked}");
        }
        assert!(seen >= 2, "{role} reads {seen} views");
    }
    // Whoever sees the rows does leak them so: the traps work.
    let admin = scene.queue.connect().await?;
    admin.batch_execute(leak).await?;
    admin.batch_execute("SELECT FROM sms_outbox.outbox AS v WHERE pg_temp.leak(v.message)").await?;
    assert!(tells(&answer(&admin, "SELECT what FROM leaked").await));
    drop(admin);
    scene.end().await
}

async fn what_is_others_is_answered_like_what_is_not(major: Major) -> Result<()> {
    let scene = Scene::set(major).await?;
    // A function that somebody adds must be tried too.
    let callable = scene
        .queue
        .rows(
            "SELECT DISTINCT p.proname AS name FROM pg_proc AS p CROSS JOIN unnest('{app,operator,monitor,api}'::text[]) AS r
              WHERE (p.pronamespace IN ('sms_outbox'::regnamespace, 'sms_outbox_api'::regnamespace) OR p.proname LIKE 'sms\\_outbox\\_%')
                AND has_function_privilege('sms_outbox_' || r, p.oid, 'EXECUTE') ORDER BY 1",
        )
        .await?;
    let untried: Vec<&str> = callable
        .iter()
        .filter_map(|row| row["name"].as_str())
        .filter(|name| {
            !PURE.iter().any(|pure| name.starts_with(pure))
                && !PROBES.iter().any(|probe| probe.contains(&format!("{name}(")))
        })
        .collect();
    assert!(untried.is_empty() && callable.len() > 20, "no attack on {untried:?}");

    let before = scene
        .queue
        .rows(&format!("SELECT * FROM sms_outbox.outbox WHERE organization_id = '{VICTIM}' ORDER BY id"))
        .await?;
    let mut refusals = BTreeSet::new();
    let mut fault = Fault::new("23", "an organization asks for another's rows", major);
    for (role, session) in scene.attackers().await? {
        for probe in PROBES.iter().filter(|probe| !(role == "api" && **probe == METRICS)) {
            let mut answers = Vec::new();
            for of_victim in [true, false] {
                let mut sql = (*probe).to_owned();
                for (name, theirs, nobodys) in &scene.values {
                    sql = sql.replace(name, if of_victim { theirs } else { nobodys });
                }
                let mut answer = answer(&session, &format!("BEGIN; {sql}")).await;
                session.batch_execute("ROLLBACK").await?;
                for (name, theirs, nobodys) in &scene.values {
                    answer = answer.replace(if of_victim { theirs } else { nobodys }, name);
                }
                assert!(!tells(&answer), "{role}: {sql}\n{answer}");
                fault.injected(1);
                answers.push(mask_ids(&answer));
            }
            assert_eq!(answers[0], answers[1], "{role} learns from {probe}");
            refusals.extend(answers.pop().filter(|answer| answer.starts_with("SqlState")));
        }
    }
    assert!(refusals.len() > 3, "{refusals:?}");
    let after = scene
        .queue
        .rows(&format!("SELECT * FROM sms_outbox.outbox WHERE organization_id = '{VICTIM}' ORDER BY id"))
        .await?;
    assert_eq!(before, after);
    assert_eq!(
        scene
            .queue
            .rows(&format!(
                "SELECT name, config ->> 'sender' AS sender FROM sms_outbox.organization_app WHERE app_id = {}",
                scene.app
            ))
            .await?,
        [json!({ "name": "app of Q7VICTIM", "sender": MARK })]
    );
    // Who sees all does learn: the comparison compares something. So does the owner of the key.
    let admin = scene.queue.connect().await?;
    let page = |organization: &str| format!("SELECT sms_outbox.page('{organization}', 'pending')");
    assert_ne!(answer(&admin, &page(VICTIM)).await, answer(&admin, &page("nobody")).await);
    let replay: Value = scene.queue.rows(&format!("SELECT idempotent_replay AS r FROM sms_outbox_enqueue('{MOBILE}', 'x', idempotency_key => 'key of {MARK}', organization_id => '{VICTIM}')")).await?[0]["r"].clone();
    assert_eq!(replay, json!(true));
    scene.end().await?;
    fault.asserted(before.len())
}

/// Two ids that were made one after the other are never the same, and ages grow between two questions.
fn mask_ids(answer: &str) -> String {
    let is_age = |text: &str| text.bytes().all(|byte| byte.is_ascii_digit() || byte == b':');
    let mask_age = |word: &str| match word.split_at_checked(8) {
        Some((age, rest)) if is_age(age) => format!("AGE{rest}"),
        _ => word.to_owned(),
    };
    let answer = answer.split(' ').map(mask_age).collect::<Vec<String>>().join(" ");
    let is_id =
        |word: &str| word.len() == 27 && word.starts_with('r') && word.bytes().all(|byte| byte.is_ascii_alphanumeric());
    answer.split('|').map(|word| if is_id(word) { "ID" } else { word }).collect::<Vec<_>>().join("|")
}

/// A statement that waits tells that somebody holds the same key, row or app.
async fn nobody_waits_for_another_organization(major: Major) -> Result<()> {
    let scene = Scene::set(major).await?;
    let value = |wanted: &str| {
        scene.values.iter().find(|(name, ..)| *name == wanted).map(|(_, theirs, _)| theirs.clone()).context("a value")
    };
    let (id, secret, app) = (value("ID")?, value("SECRET")?, scene.app);
    let victim = scene.queue.connect().await?;
    let new_key = "SELECT sms_outbox_enqueue('0551111119', 'x', idempotency_key => 'held'";
    let attackers = scene.attackers().await?;
    let mut fault = Fault::new("23", "another organization waits behind a key or a row that is held", major);
    for (held, probes) in [
        (format!("{new_key}, organization_id => '{VICTIM}')"), vec![format!("{new_key})"), "SELECT sms_outbox_enqueue_many('[{\"mobile\": \"0551111119\", \"message\": \"x\", \"idempotency_key\": \"held\"}]')".to_owned()]),
        (format!("SELECT sms_outbox.cancel('{id}')"), vec![format!("SELECT sms_outbox.cancel('{id}')"), format!("SELECT sms_outbox.retry('{id}')"), "SELECT sms_outbox.cancel('{\"priority\": 1}'::jsonb, false)".to_owned()]),
        (format!("SELECT sms_outbox.pause_app({app})"), vec![format!("SELECT sms_outbox.pause_app({app})"), format!("SELECT sms_outbox.update_app({app}, name => 'x')")]),
        (format!("SELECT sms_outbox.pause_organization('{VICTIM}')"), vec![format!("SELECT sms_outbox.pause_organization('{VICTIM}')"), format!("SELECT sms_outbox_enqueue('0551111119', 'x', organization_id => '{VICTIM}')")]),
        (format!("SELECT sms_outbox.revoke_api_key('{secret}')"), vec![format!("SELECT sms_outbox.revoke_api_key('{secret}')"), format!("SELECT sms_outbox.enter('read', '{secret}', '\\x00')")]),
    ] {
        victim.batch_execute(&format!("BEGIN; {held}")).await.with_context(|| held.clone())?;
        for (role, session) in &attackers {
            for probe in &probes {
                let answer = answer(session, &format!("BEGIN; SET LOCAL lock_timeout = '5s'; {probe}")).await;
                session.batch_execute("ROLLBACK").await?;
                assert!(!answer.contains("55P03"), "{role} waited in {probe}, for {held}");
                fault.injected(1);
            }
        }
        victim.batch_execute("ROLLBACK").await?;
    }
    // Within one organization the second does wait, as it must.
    let [(_, one), (_, other), ..] = attackers.as_slice() else { anyhow::bail!("too few attackers") };
    one.batch_execute(&format!("BEGIN; {new_key})")).await?;
    let error = refused(other, &format!("SET lock_timeout = '100ms'; {new_key})")).await?;
    assert_eq!(error.code().code(), "55P03");
    one.batch_execute("ROLLBACK").await?;
    drop((attackers, victim));
    scene.end().await?;
    fault.asserted(1)
}

async fn strangers_get_nothing(major: Major) -> Result<()> {
    let scene = Scene::set(major).await?;
    let stranger = scene.queue.connect_as(&format!("stranger_{}", scene.queue.name())).await?;
    for (view, _) in scene.readable("app,operator,monitor,api,owner").await? {
        assert_eq!(refused(&stranger, &format!("SELECT * FROM {view}")).await?.code().code(), "42501", "{view}");
    }
    for probe in PROBES.iter().filter(|probe| probe.starts_with("SELECT")) {
        let mut sql = (*probe).to_owned();
        for (name, theirs, _) in &scene.values {
            sql = sql.replace(name, theirs);
        }
        assert_eq!(refused(&stranger, &sql).await?.code().code(), "42501", "{sql}");
    }
    drop(stranger);
    scene.end().await
}
