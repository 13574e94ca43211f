//! What time does to messages is found by indexes of times, and those hold an entry for every row that a snapshot keeps.

use anyhow::{Result, ensure};
use sms_outbox_tests::{Cluster, Database, Major, Queue, on_majors};

on_majors! { ends: are_not_read_again_at_each_call, hide_nothing_that_comes_late }

const DEAD: i64 = 200_000;

/// Leases, schedules and ends of validity that were over long ago, and are gone; a snapshot keeps them.
async fn with_dead_rows(major: Major) -> Result<(Queue, tokio_postgres::Client)> {
    let cluster = Cluster::options(major)
        .without_preload()
        .set("shared_preload_libraries", "pg_stat_statements")
        .set("autovacuum", "off")
        .start()
        .await?;
    let queue = Queue::on(Database::create(&cluster, "shop").await?).await?;
    queue.sql("CREATE EXTENSION pg_stat_statements").await?;
    let reader = queue.connect().await?;
    reader.batch_execute("BEGIN ISOLATION LEVEL REPEATABLE READ; SELECT count(*) FROM sms_outbox.organization").await?;
    queue
        .sql(&format!(
            "CREATE TABLE public.old AS SELECT n, (left(sms_outbox.id_floor(now() - interval '1 hour')::uuid::text, 24) || lpad(to_hex(n), 12, '0'))::uuid::sms_outbox.message_id AS id, now() - interval '1 hour' AS at
                FROM generate_series(1, {DEAD}) AS n;
             INSERT INTO sms_outbox.lease (id, app_id, started_at, expires_at, since, server, attempt, priority, tries, organization_id, worker)
             SELECT id, {app}, at, at, at, sms_outbox.server_id(), 1, 1, 0, 'shop', 'w' FROM public.old;
             INSERT INTO sms_outbox.scheduled (id, due_at, since, valid_until, server, priority, organization_id, reason)
             SELECT id, at, at, at, sms_outbox.server_id(), 1, 'shop', 'datetime' FROM public.old;
             INSERT INTO sms_outbox.ready (id, since, valid_until, server, priority, organization_id)
             SELECT id, now(), at, sms_outbox.server_id(), 1, 'shop' FROM public.old",
            app = queue.app()
        ))
        .await?;
    for table in ["lease", "scheduled", "ready"] {
        queue.sql(&format!("DELETE FROM sms_outbox.{table}")).await?;
    }
    Ok((queue, reader))
}

/// Buffers of the calls of a function since the last reset.
async fn buffers(queue: &Queue, function: &str, call: &str) -> Result<i64> {
    queue.sql("SELECT pg_stat_statements_reset()").await?;
    queue.sql(call).await?;
    let read = "SELECT sum(shared_blks_hit + shared_blks_read)::bigint FROM pg_stat_statements WHERE query ~ (' sms_outbox.' || $1 || '\\(')";
    queue.value(read, &[&function]).await
}

async fn are_not_read_again_at_each_call(major: Major) -> Result<()> {
    let (queue, _reader) = with_dead_rows(major).await?;
    // What runs once a minute runs before, and whatever is read once in a session.
    queue.sql("SELECT sms_outbox.prepare_partitions(); SELECT sms_outbox.fold_tallies(1); SELECT sms_outbox.prune(1); SELECT sms_outbox.leases('w')").await?;
    queue.sql("INSERT INTO sms_outbox.maintenance (task, ran_at) SELECT t, now() FROM unnest(ARRAY['partitions', 'fold', 'prune']) AS t").await?;
    let maintain = "SELECT * FROM sms_outbox.run_maintenance()";
    let whole = buffers(&queue, "run_maintenance", maintain).await?;
    ensure!(whole > DEAD / 50, "{whole} buffers: nothing dead was there");
    let again = buffers(&queue, "run_maintenance", maintain).await?;
    ensure!(again <= 150, "{again} buffers of maintenance, after {whole}");
    let leases = buffers(&queue, "leases", "SELECT * FROM sms_outbox.leases('w')").await?;
    ensure!(leases <= 50, "{leases} buffers of leases()");
    Ok(())
}

/// What commits with a time long past, behind what was read, is found by a later read of all.
async fn hide_nothing_that_comes_late(major: Major) -> Result<()> {
    let (queue, _reader) = with_dead_rows(major).await?;
    queue.maintain().await?;
    let ids =
        [queue.enqueue("leased").await?, queue.enqueue("scheduled").await?, queue.enqueue("no longer valid").await?];
    queue.lease(&ids[0]).await?;
    queue
        .sql(&format!(
            "UPDATE sms_outbox.lease SET expires_at = now() - interval '30 minutes';
             WITH gone AS (DELETE FROM sms_outbox.ready WHERE id = '{}' RETURNING *)
             INSERT INTO sms_outbox.scheduled (id, due_at, since, server, priority, organization_id, reason)
             SELECT id, now() - interval '30 minutes', since, server, priority, organization_id, 'datetime' FROM gone;
             UPDATE sms_outbox.ready SET valid_until = now() - interval '30 minutes' WHERE id = '{}'",
            ids[1], ids[2]
        ))
        .await?;
    let places = async || {
        let due = queue.count(&format!("sms_outbox.ready WHERE id = '{}'", ids[1])).await? == 1;
        anyhow::Ok((queue.status(&ids[0]).await?, due, queue.status(&ids[2]).await?))
    };
    queue.maintain().await?;
    assert_eq!(places().await?, ("sending".to_owned(), false, "pending".to_owned()), "read on from the mark");
    // A minute later.
    queue.sql("UPDATE sms_outbox.maintenance SET ran_at = ran_at - interval '61 seconds'").await?;
    queue.maintain().await?;
    assert_eq!(places().await?, ("dispatch_timeout".to_owned(), true, "expired".to_owned()));
    Ok(())
}
