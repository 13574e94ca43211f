//! What applications do to their own transactions, while workers run: they roll back, die before the commit, commit late or in two
//! phases, race for one key, and find no partition ahead.

mod shop;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use futures_util::future::try_join_all;
use shop::{Shop, Sms};
use sms_outbox_tests::history::journal::Transaction;
use sms_outbox_tests::process::{Signal, signal_process};
use sms_outbox_tests::{Fault, Major, Stop, on_majors};
use tokio_postgres::Client;

on_majors! { every: what_is_not_committed_is_never_sent, late_commits_are_found }
on_majors! { faults:
    a_prepared_transaction_outlives_the_server, fifty_racers_for_one_key_make_one_message, days_that_ran_out_stop_nobody,
}

/// A transaction that has queued three messages and will not commit, and its backend.
async fn open_transaction(shop: &mut Shop) -> Result<(Client, u32)> {
    let session = shop.database.connect_as("app").await?;
    session.batch_execute("BEGIN").await?;
    shop.queue_ending(&session, "shop", 3, "", Transaction::RolledBack).await?;
    let pid: i32 = session.query_one("SELECT pg_backend_pid()", &[]).await?.try_get(0)?;
    Ok((session, u32::try_from(pid)?))
}

async fn what_is_not_committed_is_never_sent(major: Major) -> Result<()> {
    // A backend that is killed takes the whole server down for a moment.
    let mut shop = Shop::open_alone(major).await?;
    shop.install("sandbox", "").await?;
    let mut worker = shop.worker()?.start().await?;
    let mut fault = Fault::new("1", "the application rolls back, leaves, or is killed before the commit", major);
    for end in ["rolled back", "disconnected", "terminated", "killed"] {
        let (session, pid) = open_transaction(&mut shop).await?;
        // What comes later is claimed while the other is open.
        let later = shop.queue("").await?;
        shop.wait_for_status(&later, "sent").await?;
        match end {
            "rolled back" => session.batch_execute("ROLLBACK").await?,
            "disconnected" => drop(session),
            "terminated" => {
                ensure!(shop.database.value::<bool>("SELECT pg_terminate_backend($1)", &[&i32::try_from(pid)?]).await?)
            }
            _ => {
                signal_process(pid, Signal::KILL)?;
                shop.database.reconnect().await?;
            }
        }
        fault.injected(1);
        for sms in shop.queue_many("shop", 5, "").await? {
            shop.wait_for_status(&sms, "sent").await?;
        }
    }
    shop.expect_a_request_for_each_attempt().await?;
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    let counts = shop.close_fault(fault).await?;
    ensure!((counts.committed, counts.accepted) == (24, 24), "{counts}");
    Ok(())
}

async fn late_commits_are_found(major: Major) -> Result<()> {
    commits_late(major, Duration::from_secs(3)).await
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
#[ignore = "a minute of waiting: make faults"]
async fn a_commit_a_minute_late_is_found() -> Result<()> {
    commits_late(Major::V18, Duration::from_secs(60)).await
}

/// Transactions that wait so long with their commit: a plain one, one whose messages were queued in savepoints, and one in two
/// phases. Meanwhile later ones are claimed, over and over.
async fn commits_late(major: Major, pause: Duration) -> Result<()> {
    let mut fault =
        Fault::new("2", &format!("commits {} s late, after later ones were claimed", pause.as_secs()), major);
    let mut shop = Shop::open(major, &format!("late_{}", pause.as_secs())).await?;
    shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.start().await?;
    let mut late = Vec::new();
    for priority in 0..3 {
        let session = shop.database.connect_as("app").await?;
        session.batch_execute("BEGIN").await?;
        let first = shop.queue_by(&session, "shop", 2, &format!("priority => {priority}")).await?;
        session.batch_execute("SAVEPOINT one").await?;
        shop.queue_ending(&session, "shop", 1, "", Transaction::RolledBack).await?;
        session.batch_execute("ROLLBACK TO one; SAVEPOINT two").await?;
        let second = shop.queue_by(&session, "shop", 2, &format!("priority => {priority}")).await?;
        late.push((session, [first, second].concat()));
    }
    let prepared = shop.database.connect_as("app").await?;
    // Named for the whole server, which other tests share.
    let transaction = shop.database.name().to_owned();
    prepared.batch_execute("BEGIN").await?;
    let in_two_phases = shop.queue_by(&prepared, "shop", 2, "").await?;
    prepared.batch_execute(&format!("PREPARE TRANSACTION '{transaction}'")).await?;

    let until = Instant::now() + pause;
    let mut others = 0;
    while Instant::now() < until {
        let sms = shop.queue("").await?;
        shop.wait_for_status(&sms, "sent").await?;
        others += 1;
        tokio::time::sleep(Duration::from_millis(200)).await;
    }
    ensure!(shop.sandbox.journal()?.len() == others, "something was sent before its commit");
    for (session, sms) in &late {
        session.batch_execute("COMMIT").await?;
        fault.injected(1);
        all_sent(&shop, sms).await?;
    }
    prepared.batch_execute(&format!("COMMIT PREPARED '{transaction}'")).await?;
    fault.injected(1);
    all_sent(&shop, &in_two_phases).await?;
    ensure!(shop.close_fault(fault).await?.accepted == others + 14);
    Ok(())
}

async fn all_sent(shop: &Shop, sms: &[Sms]) -> Result<()> {
    for one in sms {
        shop.wait_for_status(one, "sent").await?;
    }
    Ok(())
}

async fn a_prepared_transaction_outlives_the_server(major: Major) -> Result<()> {
    let mut shop = Shop::open_alone(major).await?;
    shop.install("sandbox", "").await?;
    let mut worker = shop.worker()?.start().await?;
    let mut fault = Fault::new("3", "prepared transactions over restarts of the server", major);
    let mut prepared = Vec::new();
    for (name, outcome) in [("committed", Transaction::Committed), ("rolled back", Transaction::RolledBack)] {
        let session = shop.database.connect_as("app").await?;
        session.batch_execute("BEGIN").await?;
        prepared.extend(shop.queue_ending(&session, "shop", 2, "", outcome).await?);
        session.batch_execute(&format!("PREPARE TRANSACTION '{name}'")).await?;
    }
    for how in [Stop::Fast, Stop::Immediate] {
        let sms = shop.queue("").await?;
        shop.wait_for_status(&sms, "sent").await?;
        shop.database.cluster().restart(how).await?;
        shop.database.reconnect().await?;
        fault.injected(1);
    }
    let sms = shop.queue("").await?;
    shop.wait_for_status(&sms, "sent").await?;
    ensure!(shop.sandbox.journal()?.len() == 3, "something was sent before its commit");
    shop.database.sql("ROLLBACK PREPARED 'rolled back'").await?;
    shop.database.sql("COMMIT PREPARED 'committed'").await?;
    all_sent(&shop, &prepared[..2]).await?;
    ensure!(worker.drain().await?.success(), "{}", worker.log());
    ensure!(shop.close_fault(fault).await?.accepted == 5);
    Ok(())
}

async fn fifty_racers_for_one_key_make_one_message(major: Major) -> Result<()> {
    const RACERS: usize = 50;
    let mut shop = Shop::open(major, "racers").await?;
    shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.start().await?;
    let mut fault = Fault::new("4", "50 racers for one key", major);
    let mut sessions = Vec::new();
    for _ in 0..RACERS {
        sessions.push(shop.database.connect_as("app").await?);
    }
    for round in 0..5 {
        let to = format!("+{}", shop.next_number());
        let (key, text) = (format!("order {round}"), format!("key {round}"));
        let queue = "SELECT id, idempotent_replay FROM sms_outbox_enqueue($1, $2, idempotency_key => $3, organization_id => 'shop')";
        let race = sessions.iter().map(async |session| session.query_one(queue, &[&to, &text, &key]).await);
        let answers = try_join_all(race).await?;
        let replays = answers.iter().filter(|answer| answer.get::<_, bool>(1)).count();
        let mut ids: Vec<String> = answers.iter().map(|answer| answer.get(0)).collect();
        ids.dedup();
        ensure!((replays, ids.len()) == (RACERS - 1, 1), "{replays} replays, {ids:?}");
        fault.injected(1);
        let sms = Sms { id: ids.pop().context("no id")?, to, text };
        shop.note(&sms, Transaction::Committed)?;
        shop.wait_for_status(&sms, "sent").await?;
    }
    let counts = shop.close_fault(fault).await?;
    ensure!((counts.committed, counts.accepted) == (5, 5), "{counts}");
    Ok(())
}

/// Maintenance makes no partition any more, and those that it made are used up.
async fn days_that_ran_out_stop_nobody(major: Major) -> Result<()> {
    let mut shop = Shop::open(major, "days").await?;
    shop.install("sandbox", "").await?;
    let _worker = shop.worker()?.start().await?;
    let mut fault = Fault::new("5", "no partition ahead", major);
    let session = shop.database.connect_as("app").await?;
    // Maintenance passes over a task that another session holds.
    let holder = shop.database.connect().await?;
    holder
        .batch_execute(
            "INSERT INTO sms_outbox.maintenance (task, ran_at) VALUES ('partitions', now()) ON CONFLICT (task) DO NOTHING;
             BEGIN; SELECT FROM sms_outbox.maintenance WHERE task = 'partitions' FOR UPDATE",
        )
        .await?;
    shop.database
        .sql(
            "CREATE TABLE public.orders (number integer PRIMARY KEY);
             GRANT INSERT ON public.orders TO app;
             DO $$ DECLARE day record; last date := (now() AT TIME ZONE 'UTC')::date - 1; parent text; leaf text; BEGIN
                 FOR day IN SELECT * FROM sms_outbox.partitions() LOOP
                     EXECUTE format('DROP TABLE %s, %s', day.message, day.attempt);
                 END LOOP;
                 FOREACH parent IN ARRAY ARRAY['message', 'attempt'] LOOP
                     leaf := parent || '_p' || to_char(last, 'YYYYMMDD');
                     EXECUTE format('CREATE TABLE sms_outbox.%I PARTITION OF sms_outbox.%I FOR VALUES FROM (%L) TO (%L)', leaf, parent,
                         sms_outbox.id_floor(last::timestamp AT TIME ZONE 'UTC'), sms_outbox.id_floor((last + 1)::timestamp AT TIME ZONE 'UTC'));
                     EXECUTE format('ALTER TABLE sms_outbox.%I OWNER TO sms_outbox_owner', leaf);
                 END LOOP;
             END $$",
        )
        .await?;
    session.batch_execute("BEGIN; INSERT INTO public.orders VALUES (1)").await?;
    let clamped = shop.queue_by(&session, "shop", 3, "").await?;
    session.batch_execute("COMMIT").await?;
    ensure!(clamped.is_sorted_by_key(|sms| &sms.id), "clamped ids sort too");
    let ordered: i64 = shop.database.value("SELECT count(*) FROM public.orders", &[]).await?;
    ensure!(ordered == 1, "the application's own row is lost");
    all_sent(&shop, &clamped).await?;
    let check = "SELECT status FROM sms_outbox.health WHERE \"check\" = 'partitions_ahead'";
    let status: String = shop.database.value(check, &[]).await?;
    ensure!(status == "critical", "health says {status}");

    // Maintenance comes back, and the days with it.
    let release = "UPDATE sms_outbox.maintenance SET ran_at = '-infinity' WHERE task = 'partitions'; COMMIT";
    holder.batch_execute(release).await?;
    shop.database.wait_until("health is well", &format!("SELECT ({check}) = 'ok'")).await?;
    session.batch_execute("BEGIN").await?;
    let next = shop.queue_by(&session, "shop", 1, "").await?;
    session.batch_execute("COMMIT").await?;
    ensure!(next[0].id > clamped[2].id);
    all_sent(&shop, &next).await?;
    let day = "SELECT sms_outbox.day_of($1::text::sms_outbox.message_id) = (created_at AT TIME ZONE 'UTC')::date FROM sms_outbox.outbox WHERE id = $1::text";
    ensure!(shop.database.value::<bool>(day, &[&next[0].id]).await?, "still clamped");
    for sms in &clamped {
        ensure!(!shop.database.value::<bool>(day, &[&sms.id]).await?, "it was not clamped");
        fault.injected(1);
    }
    shop.expect_a_request_for_each_attempt().await?;
    shop.close_fault(fault).await.map(drop)
}
