//! Idempotency keys: one message a key, whoever races, however the first caller ends.

use anyhow::Result;
use sms_outbox_tests::queue::refused;
use sms_outbox_tests::{Major, Queue, on_majors};
use tokio_postgres::{Client, Error};

on_majors! { ends:
    gives_one_message_to_fifty_racers, waits_for_the_first_caller, shows_what_became_of_the_first, counts_what_differs,
    passes_on_when_its_message_is_gone, never_deadlocks_many,
}

async fn with_key(client: &Client, organization: &str, key: &str, text: &str) -> Result<(String, String, bool), Error> {
    let row = client
        .query_one(
            "SELECT id, dispatch_status::text, idempotent_replay
               FROM sms_outbox_enqueue('0501234567', $1, idempotency_key => $2, organization_id => $3)",
            &[&text, &key, &organization],
        )
        .await?;
    Ok((row.try_get(0)?, row.try_get(1)?, row.try_get(2)?))
}

async fn gives_one_message_to_fifty_racers(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let mut racers = Vec::new();
    for racer in 0..50 {
        let session = queue.connect_as("app").await?;
        racers.push(async move {
            // Every fifth one takes it back: whoever waited behind it must get its turn.
            let rolls_back = racer % 5 == 0;
            session.batch_execute("BEGIN").await?;
            let answer = with_key(&session, "shop", "race", "x").await?;
            session.batch_execute(if rolls_back { "ROLLBACK" } else { "COMMIT" }).await?;
            Ok::<_, Error>((rolls_back, answer))
        });
    }
    let answers = futures_util::future::try_join_all(racers).await?;
    let kept: Vec<_> = answers.iter().filter(|(rolls_back, _)| !rolls_back).map(|(_, answer)| answer).collect();
    assert_eq!(kept.len(), 40);
    assert_eq!(kept.iter().filter(|(_, _, replay)| !replay).count(), 1, "one is new");
    assert!(kept.iter().all(|(id, status, _)| *id == kept[0].0 && status == "pending"), "all get the same message");
    assert_eq!((queue.count("sms_outbox.message").await?, queue.count("sms_outbox.ready").await?), (1, 1));
    assert_eq!(queue.field(&kept[0].0, "idempotency_mismatch").await?.as_deref(), Some("0"));
    queue.assert_placed().await
}

async fn waits_for_the_first_caller(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (first, mut second) = (queue.connect().await?, queue.connect().await?);
    for (end, replayed) in [("ROLLBACK", false), ("COMMIT", true)] {
        first.batch_execute("BEGIN").await?;
        let (id, ..) = with_key(&first, "shop", "slow", "x").await?;
        let waiting = tokio::spawn(async move {
            let answer = with_key(&second, "shop", "slow", "x").await;
            (second, answer)
        });
        queue
            .wait_until(
                "the second waits",
                "SELECT EXISTS (SELECT FROM pg_locks WHERE NOT granted AND locktype = 'transactionid')",
            )
            .await?;
        let (other, _, replay) = with_key(queue.admin(), "shop", &format!("another {end}"), "x").await?;
        assert!(!replay && other != id, "another key waits for nobody");
        first.batch_execute(end).await?;
        let answer;
        (second, answer) = waiting.await?;
        let (second_id, _, replay) = answer?;
        assert_eq!((replay, second_id == id), (replayed, replayed), "after {end}");
        queue
            .sql("DELETE FROM sms_outbox.idempotency; DELETE FROM sms_outbox.ready; DELETE FROM sms_outbox.message")
            .await?;
    }
    // Above READ COMMITTED the loser cannot see the winner's message: it is told to try again.
    second.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT").await?;
    second.query("SELECT count(*) FROM sms_outbox.outbox", &[]).await?;
    with_key(&first, "shop", "later", "x").await?;
    let fault = refused(
        &second,
        "SELECT sms_outbox_enqueue('0501234567', 'x', idempotency_key => 'later', organization_id => 'shop')",
    )
    .await?;
    assert_eq!(fault.code().code(), "40001");
    Ok(())
}

async fn shows_what_became_of_the_first(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let again = async |key: &str| -> Result<(String, bool)> {
        let (_, status, replay) = with_key(queue.admin(), "shop", key, "x").await?;
        Ok((status, replay))
    };
    for (outcome, status) in [
        ("accepted", "sent"),
        ("refused_recipient", "failed"),
        ("unclear", "dispatch_timeout"),
        ("throttled", "pending"),
    ] {
        let (id, ..) = with_key(queue.admin(), "shop", outcome, "x").await?;
        assert_eq!(again(outcome).await?, ("pending".to_owned(), true));
        let attempt = queue.lease(&id).await?;
        assert_eq!(again(outcome).await?, ("sending".to_owned(), true));
        sms_outbox_tests::queue::finish(queue.admin(), "w", &id, attempt, outcome).await?;
        assert_eq!(again(outcome).await?, (status.to_owned(), true), "{outcome}");
    }
    let (id, ..) = with_key(queue.admin(), "shop", "canceled", "x").await?;
    queue.sql(&format!("SELECT sms_outbox.cancel('{id}')")).await?;
    assert_eq!(again("canceled").await?, ("canceled".to_owned(), true));
    queue.install("other", "main").await?;
    let (_, _, replay) = with_key(queue.admin(), "other", "canceled", "x").await?;
    assert!(!replay, "keys of organizations are apart");
    Ok(())
}

async fn counts_what_differs(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (id, ..) = with_key(queue.admin(), "shop", "k", "x").await?;
    let replay = async |changed: &str| -> Result<bool> {
        let sql = format!(
            "SELECT id = '{id}' AND idempotent_replay FROM sms_outbox_enqueue(mobile => '+966501234567', idempotency_key => 'k', organization_id => 'shop', {changed})"
        );
        queue.value(&sql, &[]).await
    };
    assert!(replay("message => 'x', meta => '{\"attempt\": 2}'").await?);
    assert_eq!(queue.field(&id, "idempotency_mismatch").await?.as_deref(), Some("0"), "another writing of the same");
    for (count, changed) in [
        "message => 'y'",
        "message => 'x', sender => 'Other'",
        "message => 'x', priority => 0",
        "message => 'x', datetime => now() + interval '1 hour'",
        "message => 'x', preferred_provider_slug => 'sandbox'",
        "message => ''",
    ]
    .iter()
    .enumerate()
    {
        assert!(replay(changed).await?, "{changed}");
        assert_eq!(queue.field(&id, "idempotency_mismatch").await?, Some((count + 1).to_string()), "{changed}");
    }
    assert_eq!(queue.field(&id, "message").await?.as_deref(), Some("x"), "the first stands");
    assert_eq!(queue.count("sms_outbox.message").await?, 1);
    Ok(())
}

async fn passes_on_when_its_message_is_gone(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (old, ..) = with_key(queue.admin(), "shop", "k", "x").await?;
    queue.sql("DELETE FROM sms_outbox.ready; DELETE FROM sms_outbox.message").await?;
    let (new, _, replay) = with_key(queue.admin(), "shop", "k", "x").await?;
    assert!(new != old && !replay);
    let (again, _, replay) = with_key(queue.admin(), "shop", "k", "x").await?;
    assert!(again == new && replay);
    queue.assert_placed().await
}

async fn never_deadlocks_many(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let mut callers = Vec::new();
    for caller in 0..8 {
        let session = queue.connect_as("app").await?;
        // The same keys, in an order of each caller's own.
        let array = format!(
            "SELECT e.id FROM sms_outbox_enqueue_many((SELECT jsonb_agg(jsonb_build_object('mobile', '0501234567', 'message', 'm' || n,
                 'idempotency_key', 'k' || n) ORDER BY md5('{caller}' || n)) FROM generate_series(1, 40) AS n), 'shop') AS e"
        );
        callers.push(async move {
            for _ in 0..5 {
                session.query(&array, &[]).await?;
            }
            Ok::<_, Error>(())
        });
    }
    futures_util::future::try_join_all(callers).await?;
    assert_eq!(queue.count("sms_outbox.message").await?, 40);
    Ok(())
}
