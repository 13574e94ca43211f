//! `sms-outbox bench` on a real server: a result, nothing left behind however it ends, and no harm where there is something to lose.

use std::process::{Command, Output};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::process::{Process, Signal};
use sms_outbox_tests::{Cluster, Database, Major, Queue, Worker, on_majors, paths, patience, run};

on_majors! { ends:
    measures_and_leaves_nothing, refuses_before_anything_is_changed, a_signal_ends_it_and_it_cleans_up,
    cleans_up_after_lost_connections, what_a_killed_run_left_is_removed_later, ends_when_a_worker_comes_alive,
}

/// Its own server: the background worker wakes, as in life.
async fn queue(major: Major) -> Result<Queue> {
    let cluster = Cluster::start_new(major).await?;
    let queue = Queue::on(Database::create(&cluster, "measured").await?).await?;
    let password = cluster.password();
    queue
        .sql(&format!(
            "CREATE ROLE measurer LOGIN PASSWORD '{password}' IN ROLE sms_outbox_operator, sms_outbox_worker, sms_outbox_app;
             GRANT CREATE ON DATABASE measured TO measurer"
        ))
        .await?;
    // What must be as before.
    queue.ended("real", "accepted").await?;
    queue.ended("real too", "refused_recipient").await?;
    Ok(queue)
}

fn command(queue: &Queue, login: &str, words: &[&str]) -> Result<Command> {
    let mut command = Command::new(paths::command()?);
    command.env("DATABASE_URL", queue.url(login)).arg("bench").args(words).stdin(std::process::Stdio::null());
    Ok(command)
}

async fn output(mut command: Command) -> Result<Output> {
    Ok(tokio::task::spawn_blocking(move || command.output()).await??)
}

/// Starts one that would take minutes, and waits until it has messages in the queue.
async fn started(queue: &Queue) -> Result<Process> {
    let command = command(queue, "measurer", &["--yes", "--duration", "20s"])?;
    let process = Process::spawn("bench", command, &run::fresh("bench")?, Signal::KILL)?;
    let measures = "SELECT count(*) > 100 FROM sms_outbox.message WHERE organization_id ~ '^sms-outbox-bench:'";
    queue.wait_until("messages are measured with", measures).await?;
    Ok(process)
}

/// Everything in the database, but for what time changes by itself.
async fn everything(queue: &Queue) -> Result<Vec<String>> {
    let tables: Vec<String> = queue
        .value(
            "SELECT array_agg(c.relname::text ORDER BY c.relname) FROM pg_class AS c
              WHERE c.relnamespace = 'sms_outbox'::regnamespace AND c.relkind = 'r'
                AND c.relname NOT IN ('worker', 'maintenance', 'tally', 'app_tally')",
            &[],
        )
        .await?;
    let mut all = Vec::new();
    for table in tables {
        let rows =
            format!("SELECT coalesce(string_agg(t::text, ' ' ORDER BY t::text), '') FROM sms_outbox.{table} AS t");
        all.push(format!("{table}: {}", queue.value::<String>(&rows, &[]).await?));
    }
    for (table, by, sum) in
        [("tally", "organization_id, status", "messages"), ("app_tally", "app_id, status", "attempts")]
    {
        let counts = format!(
            "SELECT coalesce(jsonb_agg(to_jsonb(t) ORDER BY t::text), '[]')::text
               FROM (SELECT {by}, sum({sum}) FROM sms_outbox.{table} GROUP BY {by} HAVING sum({sum}) <> 0) AS t"
        );
        all.push(format!("{table}: {}", queue.value::<String>(&counts, &[]).await?));
    }
    let schemas =
        "SELECT string_agg(nspname::text, ' ' ORDER BY nspname) FROM pg_namespace WHERE nspname !~ '^pg_(temp|toast)'";
    all.push(queue.value(schemas, &[]).await?);
    Ok(all)
}

async fn measures_and_leaves_nothing(major: Major) -> Result<()> {
    let queue = queue(major).await?;
    let before = everything(&queue).await?;
    let short = ["--yes", "--duration", "200ms", "--max-messages", "3000"];
    let told = output(command(&queue, "measurer", &[&short[..], &["--output", "json"]].concat())?).await?;
    ensure!(told.status.success(), "{}", String::from_utf8_lossy(&told.stderr));
    let result: Value = serde_json::from_slice(&told.stdout)?;
    let figure = |pointer: &str| {
        result.pointer(pointer).and_then(Value::as_f64).with_context(|| format!("{pointer}: {result:#}"))
    };
    for (place, connections) in [(0, 1.0), (1, 16.0)] {
        let of = |field: &str| figure(&format!("/enqueue/{place}/{field}"));
        ensure!(of("connections")? == connections, "{result:#}");
        ensure!(of("bare_insert")? > 0.0 && of("enqueue")? > 0.0, "{result:#}");
        ensure!((of("enqueue")? / of("bare_insert")? - of("ratio")?).abs() < 1e-6, "{result:#}");
        ensure!(of("least_ratio")? <= of("ratio")? && of("ratio")? <= of("greatest_ratio")?, "{result:#}");
    }
    ensure!(figure("/claim_and_finish")? > 0.0, "{result:#}");
    let (p50, p99) = (figure("/commit_to_claim/p50_ms")?, figure("/commit_to_claim/p99_ms")?);
    ensure!(0.0 < p50 && p50 <= p99 && figure("/commit_to_claim/messages")? > 1.0, "{result:#}");
    // A message with its key, its place in the queue and its log; and an attempt with its answer.
    ensure!(figure("/wal_bytes/enqueue")? > 300.0 && figure("/wal_bytes/claim_and_finish")? > 300.0, "{result:#}");
    ensure!(result["limits"].as_array().is_some_and(|limits| limits.len() >= 3), "{result:#}");
    ensure!(figure("/messages")? > 100.0 && figure("/removed_messages")? >= figure("/messages")?, "{result:#}");
    ensure!(everything(&queue).await? == before, "{before:#?} became {:#?}", everything(&queue).await?);

    let told = output(command(&queue, "measurer", &short)?).await?;
    let (out, err) = (String::from_utf8(told.stdout)?, String::from_utf8(told.stderr)?);
    ensure!(told.status.success() && out.contains("ENQUEUE ÷ BARE INSERT"), "{out}{err}");
    for words in ["claim and finish", "commit to claim   p50", "WAL of a message", "What limits it", "fsync is off"] {
        ensure!(out.contains(words), "{words}: {out}");
    }
    ensure!(err.contains("removed:") && err.contains("autovacuum"), "{err}");
    ensure!(everything(&queue).await? == before, "{before:#?} became {:#?}", everything(&queue).await?);
    Ok(())
}

async fn refuses_before_anything_is_changed(major: Major) -> Result<()> {
    let queue = queue(major).await?;
    let password = queue.cluster().password();
    queue
        .sql(&format!(
            "CREATE ROLE bound LOGIN PASSWORD '{password}' IN ROLE sms_outbox_operator, sms_outbox_worker, sms_outbox_app;
             SELECT sms_outbox.bind_role('bound', 'shop');
             CREATE ROLE humble LOGIN PASSWORD '{password}' IN ROLE sms_outbox_operator, sms_outbox_worker, sms_outbox_app;
             CREATE ROLE narrow LOGIN PASSWORD '{password}' CONNECTION LIMIT 5 IN ROLE sms_outbox_operator, sms_outbox_worker, sms_outbox_app;
             GRANT CREATE ON DATABASE measured TO narrow"
        ))
        .await?;
    let refused = async |login: &str, words: &[&str], code: i32, fault: &str| -> Result<()> {
        let before = everything(&queue).await?;
        let told = output(command(&queue, login, words)?).await?;
        let said = String::from_utf8(told.stderr)?;
        ensure!(
            told.status.code() == Some(code) && said.contains(fault),
            "{login} {words:?}: {:?} {said}",
            told.status
        );
        ensure!(everything(&queue).await? == before, "{fault}: {before:#?} became {:#?}", everything(&queue).await?);
        Ok(())
    };
    refused("measurer", &[], 2, "--yes: not given").await?;
    refused("measurer", &["--yes", "--duration", "1ms"], 2, "write 100ms to 1m").await?;
    refused("measurer", &["--yes", "--max-messages", "10"], 2, "600..=10000000").await?;
    refused("operator", &["--yes"], 1, "must be a member of sms_outbox_worker too").await?;
    refused("bound", &["--yes"], 1, "acts for one organization alone").await?;
    refused("humble", &["--yes"], 1, "may not create a schema in measured").await?;
    refused("narrow", &["--yes"], 1, "too many connections for role").await?;

    queue.sql("CREATE SCHEMA sms_outbox_bench").await?;
    refused("measurer", &["--yes"], 1, "a schema sms_outbox_bench that this command did not make").await?;
    refused("measurer", &["--clean-up"], 1, "a schema sms_outbox_bench that this command did not make").await?;
    queue.sql("DROP SCHEMA sms_outbox_bench").await?;

    let waiting = queue.enqueue("waits").await?;
    refused("measurer", &["--yes"], 1, "messages wait here (1) or are being sent (0)").await?;
    queue.lease(&waiting).await?;
    refused("measurer", &["--yes"], 1, "messages wait here (0) or are being sent (1)").await?;
    queue.sql(&format!("SELECT sms_outbox.finish('w', '{{{waiting}}}', '{{1}}', '{{accepted}}', '{{200}}', '{{NULL}}', '{{NULL}}', '{{NULL}}', '{{NULL}}', '{{NULL}}')")).await?;
    let worker = Worker::start(&queue).await?;
    refused("measurer", &["--yes"], 1, &format!("worker {}/", worker.name())).await
}

async fn a_signal_ends_it_and_it_cleans_up(major: Major) -> Result<()> {
    let queue = queue(major).await?;
    let before = everything(&queue).await?;
    let mut bench = started(&queue).await?;
    bench.signal(Signal::INT)?;
    let ended = bench.wait(patience()).await?;
    let said = bench.log();
    ensure!(ended.code() == Some(1) && said.contains("stopped before the end"), "{ended}: {said}");
    ensure!(said.contains("removed again:"), "{said}");
    ensure!(everything(&queue).await? == before, "{before:#?} became {:#?}", everything(&queue).await?);
    Ok(())
}

async fn cleans_up_after_lost_connections(major: Major) -> Result<()> {
    let queue = queue(major).await?;
    let before = everything(&queue).await?;
    let mut bench = started(&queue).await?;
    let cut: i64 = queue
        .value(
            "SELECT count(pg_terminate_backend(pid)) FROM pg_stat_activity WHERE application_name = 'sms-outbox bench'",
            &[],
        )
        .await?;
    ensure!(cut >= 17, "only {cut} connections were cut");
    let ended = bench.wait(patience()).await?;
    let said = bench.log();
    ensure!(ended.code() == Some(1) && said.contains("removed again:"), "{ended}: {said}");
    ensure!(everything(&queue).await? == before, "{before:#?} became {:#?}", everything(&queue).await?);
    Ok(())
}

async fn what_a_killed_run_left_is_removed_later(major: Major) -> Result<()> {
    let queue = queue(major).await?;
    let before = everything(&queue).await?;
    let mut bench = started(&queue).await?;
    let second = output(command(&queue, "measurer", &["--yes"])?).await?;
    let said = String::from_utf8(second.stderr)?;
    ensure!(second.status.code() == Some(1) && said.contains("another sms-outbox bench runs"), "{said}");
    bench.signal(Signal::KILL)?;
    bench.wait(patience()).await?;
    let served = "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'sms-outbox bench')";
    queue.wait_until("the server knows that it is gone", served).await?;
    ensure!(everything(&queue).await? != before, "nothing was left: the kill came too late");

    let told = output(command(&queue, "measurer", &["--clean-up"])?).await?;
    let said = String::from_utf8(told.stderr)?;
    ensure!(told.status.success() && said.contains("of 1 run"), "{said}");
    ensure!(everything(&queue).await? == before, "{before:#?} became {:#?}", everything(&queue).await?);
    Ok(())
}

async fn ends_when_a_worker_comes_alive(major: Major) -> Result<()> {
    let queue = queue(major).await?;
    let before = everything(&queue).await?;
    let command = command(&queue, "measurer", &["--yes", "--duration", "2s"])?;
    let mut bench = Process::spawn("bench", command, &run::fresh("bench")?, Signal::KILL)?;
    let measures = "SELECT count(*) > 100 FROM sms_outbox.message WHERE organization_id ~ '^sms-outbox-bench:'";
    queue.wait_until("messages are measured with", measures).await?;
    let mut worker = Worker::start(&queue).await?;
    let ended = bench.wait(patience()).await?;
    let said = bench.log();
    ensure!(ended.code() == Some(1) && said.contains("came alive"), "{ended}: {said}");
    worker.drain().await?;
    ensure!(everything(&queue).await? == before, "{before:#?} became {:#?}", everything(&queue).await?);
    Ok(())
}
