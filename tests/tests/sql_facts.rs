//! What a session remembers of an organization: read once, and given up as soon as anything that it stands for changes,
//! whoever changes it and however the change ends.

use anyhow::{Result, ensure};
use sms_outbox_tests::queue::refused;
use sms_outbox_tests::{Cluster, Database, Major, Queue, on_majors};
use tokio_postgres::{Client, Error};

on_majors! { ends:
    is_read_once, a_committed_change_is_seen_at_once, an_own_change_is_seen_and_taken_back, an_old_snapshot_leaves_nothing_behind,
    what_replication_brings_is_seen, what_another_session_commits_is_seen,
}

const UNINSTALL: &str = "UPDATE sms_outbox.organization_app SET uninstalled_at = now() WHERE organization_id = 'shop'";
const INSTALL: &str = "UPDATE sms_outbox.organization_app SET uninstalled_at = NULL WHERE organization_id = 'shop'";

const ENQUEUE: &str = "SELECT id FROM sms_outbox_enqueue('0501234567', 'x', organization_id => 'shop')";

async fn enqueue(session: &Client) -> Result<(), Error> {
    session.batch_execute(ENQUEUE).await
}

async fn refuses(session: &Client, statement: &str, words: &str) -> Result<()> {
    let error = refused(session, statement).await?;
    ensure!(error.message().contains(words), "{error}");
    Ok(())
}

/// In a transaction or outside of one, which goes on after it.
async fn is_refused(session: &Client) -> Result<()> {
    let within = session.batch_execute("SAVEPOINT before").await.is_ok();
    refuses(session, ENQUEUE, "no SMS app is installed").await?;
    if within {
        session.batch_execute("ROLLBACK TO before").await?;
    }
    Ok(())
}

/// Times that this transaction has looked into the tables of facts.
async fn looks(session: &Client) -> Result<i64> {
    let row = session
        .query_one(
            "SELECT coalesce(sum(coalesce(seq_scan, 0) + coalesce(idx_scan, 0)), 0)::bigint FROM pg_stat_xact_all_tables
              WHERE schemaname = 'sms_outbox' AND relname IN ('organization', 'organization_app', 'role_binding')",
            &[],
        )
        .await?;
    Ok(row.try_get(0)?)
}

async fn is_read_once(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let session = queue.connect().await?;
    session.batch_execute("BEGIN").await?;
    enqueue(&session).await?;
    let first = looks(&session).await?;
    ensure!(first > 0, "the first enqueue reads");
    for _ in 0..10 {
        enqueue(&session).await?;
    }
    assert_eq!(looks(&session).await?, first, "the others remember");
    session.batch_execute("COMMIT").await?;
    Ok(())
}

async fn a_committed_change_is_seen_at_once(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (session, operator) = (queue.connect().await?, queue.connect().await?);
    // Between transactions, and within one that holds every lock already.
    for within in [false, true] {
        if within {
            session.batch_execute("BEGIN").await?;
        }
        enqueue(&session).await?;
        operator.batch_execute(&format!("BEGIN; {UNINSTALL}")).await?;
        enqueue(&session).await?;
        operator.batch_execute("COMMIT").await?;
        is_refused(&session).await?;
        operator.batch_execute(INSTALL).await?;
        enqueue(&session).await?;
        if within {
            session.batch_execute("COMMIT").await?;
        }
    }
    // Whatever else is remembered: limits, ties of roles, slugs.
    operator.batch_execute("SELECT sms_outbox.set_organization('shop', allowed_senders => '{Other}')").await?;
    let named = "SELECT id FROM sms_outbox_enqueue('0501234567', 'x', 'MyShop', organization_id => 'shop')";
    refuses(&session, named, "sender").await?;
    operator.batch_execute("SELECT sms_outbox.set_organization('shop', allowed_senders => '{}')").await?;
    session.batch_execute(named).await?;
    let app = queue.connect_as("app").await?;
    enqueue(&app).await?;
    operator.batch_execute("SELECT sms_outbox.bind_role('app', 'other')").await?;
    refuses(&app, ENQUEUE, "bound to another organization").await?;
    operator.batch_execute("SELECT sms_outbox.unbind_role('app')").await?;
    enqueue(&app).await?;
    let pinned = "SELECT id FROM sms_outbox_enqueue('0501234567', 'x', preferred_provider_slug => 'twilio-sms', organization_id => 'shop')";
    refuses(&session, pinned, "no app of the provider").await?;
    operator
        .batch_execute(
            "UPDATE sms_outbox.organization_app SET provider_slug = 'twilio-sms' WHERE organization_id = 'shop'",
        )
        .await?;
    session.batch_execute(pinned).await?;
    Ok(())
}

async fn an_own_change_is_seen_and_taken_back(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let session = queue.connect().await?;
    enqueue(&session).await?;
    for (begin, take_back) in [("BEGIN", "ROLLBACK"), ("BEGIN; SAVEPOINT one", "ROLLBACK TO one; COMMIT")] {
        session.batch_execute(&format!("{begin}; {UNINSTALL}")).await?;
        // The second time as it was remembered within what is taken back.
        is_refused(&session).await?;
        is_refused(&session).await?;
        session.batch_execute(take_back).await?;
        enqueue(&session).await?;
    }
    Ok(())
}

/// A transaction of one snapshot does not see what is newer; the next one does.
async fn an_old_snapshot_leaves_nothing_behind(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (session, operator) = (queue.connect().await?, queue.connect().await?);
    for level in ["REPEATABLE READ", "SERIALIZABLE"] {
        session.batch_execute(&format!("BEGIN ISOLATION LEVEL {level}; SELECT 1 FROM sms_outbox.organization")).await?;
        operator.batch_execute(UNINSTALL).await?;
        enqueue(&session).await?;
        session.batch_execute("COMMIT").await?;
        is_refused(&session).await?;
        operator.batch_execute(INSTALL).await?;
        enqueue(&session).await?;
    }
    Ok(())
}

async fn what_replication_brings_is_seen(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let (session, replica) = (queue.connect().await?, queue.connect().await?);
    enqueue(&session).await?;
    replica.batch_execute(&format!("SET session_replication_role = replica; {UNINSTALL}")).await?;
    is_refused(&session).await
}

async fn what_another_session_commits_is_seen(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).without_preload().set("max_prepared_transactions", "1").start().await?;
    let queue = Queue::on(Database::create(&cluster, "prepared").await?).await?;
    let (session, operator) = (queue.connect().await?, queue.connect().await?);
    enqueue(&session).await?;
    operator.batch_execute(&format!("BEGIN; {UNINSTALL}; PREPARE TRANSACTION 'uninstall'")).await?;
    enqueue(&session).await?;
    queue.connect().await?.batch_execute("COMMIT PREPARED 'uninstall'").await?;
    is_refused(&session).await
}
