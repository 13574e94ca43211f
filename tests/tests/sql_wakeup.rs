//! Wake-ups: on commit and only then, few for many, in the way of the setting.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use futures_util::{StreamExt, future, stream};
use sms_outbox_tests::queue::{enqueue, refused};
use sms_outbox_tests::{Cluster, Database, Major, Queue, on_majors, patience};
use tokio::sync::mpsc::{UnboundedReceiver, unbounded_channel};
use tokio_postgres::{AsyncMessage, Client, Config, Error, NoTls};

on_majors! { ends: coalesces_the_wake_ups_of_many_commits, notifies_by_trigger_or_not_at_all }

/// A session that listens on channels `sms_outbox` and `fence`.
struct Listener {
    _client: Client,
    channels: UnboundedReceiver<String>,
}

impl Listener {
    async fn start(database: &Database) -> Result<Self> {
        let config: Config = database.cluster().socket_url(database.name(), "worker").parse()?;
        let (client, mut connection) = config.connect(NoTls).await?;
        let (sender, channels) = unbounded_channel();
        tokio::spawn(async move {
            let mut messages = stream::poll_fn(move |context| connection.poll_message(context));
            while let Some(Ok(message)) = messages.next().await {
                if let AsyncMessage::Notification(notification) = message
                    && sender.send(format!("{}{}", notification.channel(), notification.payload())).is_err()
                {
                    return;
                }
            }
        });
        client.batch_execute("LISTEN sms_outbox; LISTEN fence").await?;
        Ok(Self { _client: client, channels })
    }

    async fn next(&mut self) -> Result<String> {
        tokio::time::timeout(patience(), self.channels.recv())
            .await
            .context("no notification came")?
            .context("the session ended")
    }

    /// Notifications that came before one that is sent now: they are delivered in the order of commits.
    async fn until_fence(&mut self, database: &Database) -> Result<usize> {
        database.sql("NOTIFY fence").await?;
        let mut count = 0;
        loop {
            match self.next().await?.as_str() {
                "fence" => return Ok(count),
                other => ensure!(other == "sms_outbox", "the payload is empty: {other}"),
            }
            count += 1;
        }
    }

    /// Whether nothing comes for a while that is long against the least time between two notifications.
    async fn is_quiet(&mut self) -> bool {
        tokio::time::timeout(Duration::from_millis(500), self.channels.recv()).await.is_err()
    }
}

async fn coalesces_the_wake_ups_of_many_commits(major: Major) -> Result<()> {
    let cluster = Cluster::options(major).set("sms_outbox.maintenance_interval", "1h").start().await?;
    let queue = Queue::on(Database::create(&cluster, "shop").await?).await?;
    let alive = "SELECT EXISTS (SELECT FROM sms_outbox.health WHERE \"check\" = 'background_worker' AND status = 'ok')";
    queue.wait_until("the background worker is alive", alive).await?;
    let mut listener = Listener::start(&queue).await?;
    queue.enqueue("first").await?;
    listener.next().await?;
    while !listener.is_quiet().await {}

    for _ in 0..20 {
        queue.sql("BEGIN").await?;
        queue.enqueue("rolled back").await?;
        queue.sql("ROLLBACK").await?;
    }
    assert!(listener.is_quiet().await, "a rollback wakes nobody");

    let mut clients = Vec::new();
    for _ in 0..8 {
        let session = queue.connect_as("app").await?;
        clients.push(async move {
            for _ in 0..100 {
                enqueue(&session, "shop", "one of many").await?;
            }
            Ok::<_, Error>(())
        });
    }
    future::try_join_all(clients).await?;
    let mut notifications = 0;
    while !listener.is_quiet().await {
        notifications += 1;
    }
    assert!((1..=400).contains(&notifications), "{notifications} notifications for 800 commits");

    // The worker that sends them is replaced; a wake-up wanted meanwhile is not lost.
    queue
        .sql("SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE backend_type = 'sms_outbox maintainer'")
        .await?;
    queue.enqueue("while it is away").await?;
    listener.next().await?;
    Ok(())
}

async fn notifies_by_trigger_or_not_at_all(major: Major) -> Result<()> {
    let queue = Queue::new(major).await?;
    let mut listener = Listener::start(&queue).await?;
    let session = queue.connect().await?;
    session.batch_execute("SET sms_outbox.wakeup = 'trigger'").await?;
    enqueue(&session, "shop", "wakes").await?;
    assert_eq!(listener.until_fence(&queue).await?, 1);
    session.batch_execute("BEGIN").await?;
    for _ in 0..10 {
        enqueue(&session, "shop", "wake once").await?;
    }
    session.batch_execute("COMMIT; BEGIN").await?;
    enqueue(&session, "shop", "does not wake").await?;
    session.batch_execute("ROLLBACK").await?;
    assert_eq!(listener.until_fence(&queue).await?, 1, "one a transaction, none for a rollback");
    let later =
        "SELECT sms_outbox_enqueue('0501234567', 'x', datetime => now() + interval '1 day', organization_id => 'shop')";
    session.batch_execute(later).await?;
    assert_eq!(listener.until_fence(&queue).await?, 0, "what is not due wakes nobody");
    session.batch_execute("BEGIN").await?;
    enqueue(&session, "shop", "prepared").await?;
    assert_eq!(
        refused(&session, &format!("PREPARE TRANSACTION '{}'", queue.name())).await?.code().code(),
        "0A000",
        "core's own limit"
    );

    session.batch_execute("SET sms_outbox.wakeup = 'off'").await?;
    enqueue(&session, "shop", "found by polling").await?;
    // Without preload there is nobody to coalesce either: the same as off.
    session.batch_execute("SET sms_outbox.wakeup = 'coalesced'").await?;
    enqueue(&session, "shop", "found by polling").await?;
    assert_eq!(listener.until_fence(&queue).await?, 0);
    Ok(())
}
