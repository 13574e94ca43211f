//! What runs: a server, workers, pretend providers, and the hand that hurts them.

use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, bail};
use serde_json::json;
use sms_outbox_tests::history::Id;
use sms_outbox_tests::process::{Signal, signal_process};
use sms_outbox_tests::{Cluster, Database, Major, Sandbox, Stop, Worker};
use tokio::sync::{Mutex, MutexGuard, RwLock};
use tokio_postgres::Client;

use crate::books::Books;
use crate::plan::Fault;

pub(crate) const WORKERS: usize = 4;
pub(crate) const PROVIDERS: usize = 2;
pub(crate) const ORGANIZATIONS: [&str; 3] = ["north", "south", "west"];
/// Long enough for an attempt on a busy machine, short enough to wait for the dead.
pub(crate) const LEASE_SECONDS: u64 = 30;
const HTTP_TIMEOUT: &str = "8s";
/// Longer than anything here takes: who waits longer waits for ever.
const PATIENCE: Duration = Duration::from_secs(120);

pub(crate) struct Stage {
    pub(crate) cluster: Arc<Cluster>,
    database: Mutex<Database>,
    pub(crate) workers: Mutex<Vec<Worker>>,
    pub(crate) providers: RwLock<Vec<Sandbox>>,
    /// Held by who stops the server or lets it crash: once at a time.
    server: Mutex<()>,
}

impl Stage {
    /// Starts everything.
    pub(crate) async fn build() -> Result<Self> {
        let cluster = Cluster::options(Major::V18)
            .set("shared_buffers", "256MB")
            .set("max_wal_size", "1GB")
            .set("restart_after_crash", "on")
            .start()
            .await?;
        let database = Database::create(&cluster, "soak").await?;
        database.sql(&format!("ALTER DATABASE soak SET sms_outbox.lease_timeout = '{LEASE_SECONDS}s'")).await?;
        let mut providers = Vec::new();
        for _ in 0..PROVIDERS {
            providers.push(Sandbox::start_plain().await?);
        }
        for organization in ORGANIZATIONS {
            for (place, provider) in providers.iter().enumerate() {
                let config = json!({
                    "token": format!("{organization}-{place}"), "base_url": format!("{}/sandbox", provider.url()), "allow_http": true,
                });
                let name = format!("app {place}");
                let install =
                    "SELECT sms_outbox.install_app($1, 'sandbox', $2, $3, max_in_flight => 200, \"position\" => $4)";
                let position = i32::try_from(place)?;
                database.value::<i64>(install, &[&organization, &name, &config, &position]).await?;
            }
        }
        let mut workers = Vec::new();
        for number in 0..WORKERS {
            workers.push(start_worker(&database, number)?);
        }
        Ok(Self {
            cluster,
            database: Mutex::new(database),
            workers: Mutex::new(workers),
            providers: RwLock::new(providers),
            server: Mutex::new(()),
        })
    }

    /// The superuser's connection, once the server takes connections again.
    pub(crate) async fn admin(&self) -> Result<MutexGuard<'_, Database>> {
        let mut database = self.database.lock().await;
        let since = Instant::now();
        while database.admin().is_closed() || database.admin().simple_query("").await.is_err() {
            if let Err(error) = database.reconnect().await
                && since.elapsed() > PATIENCE
            {
                return Err(error.context(self.cluster.log_tail()));
            }
            tokio::time::sleep(Duration::from_millis(50)).await;
        }
        Ok(database)
    }

    /// A connection of a login, once the server takes connections again.
    pub(crate) async fn connect(&self, login: &str) -> Result<Client> {
        let url = self.cluster.socket_url("soak", login);
        let since = Instant::now();
        loop {
            match sms_outbox_tests::database::connect(&url).await {
                Ok(client) => return Ok(client),
                Err(error) if since.elapsed() > PATIENCE => return Err(error.context(self.cluster.log_tail())),
                Err(_) => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        }
    }

    /// Does it, and notes what it may have left unclear.
    pub(crate) async fn inject(&self, fault: Fault, books: &Books) -> Result<()> {
        match fault {
            Fault::KillWorker(number) => self.kill_worker(number, books).await?,
            Fault::StopWorker(number, seconds) => self.stop_worker(number, seconds, books).await?,
            Fault::CutWorker(number) => {
                let kill = format!("{} WHERE application_name = 'soak-{number}'", TERMINATE);
                self.admin().await?.admin().batch_execute(&kill).await?;
            }
            Fault::CutApplication => {
                let kill = format!("{} WHERE usename = 'app' AND pid % 3 = 0", TERMINATE);
                self.admin().await?.admin().batch_execute(&kill).await?;
            }
            Fault::CrashServer => self.crash("backend_type = 'client backend' AND usename = 'worker'").await?,
            Fault::KillMaintainer => self.crash("backend_type = 'sms_outbox maintainer'").await?,
            Fault::RestartServer => {
                let _alone = self.server.lock().await;
                self.cluster.restart(Stop::Immediate).await?;
            }
            Fault::KillProvider(number) => self.kill_provider(number, books).await?,
            Fault::Misbehave(number, behaviour, times) => {
                let rule = json!({"behaviour": behaviour, "times": times});
                self.providers.read().await[number].add_rules(&rule).await?;
                // Those that leave it open are counted in the provider's journal.
                if crate::plan::UNCLEAR.contains(&behaviour) {
                    return Ok(());
                }
            }
        }
        books.injected(fault.kind());
        Ok(())
    }

    async fn kill_worker(&self, number: usize, books: &Books) -> Result<()> {
        let mut workers = self.workers.lock().await;
        workers[number].kill().await?;
        // What its sessions were doing, the server does to the end.
        self.wait_until(&format!(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'soak-{number}')"
        ))
        .await?;
        for (id, attempt) in self.leases(&format!("worker LIKE 'soak-{number}/%'")).await? {
            books.expect_unclear(id, attempt);
        }
        workers[number] = start_worker(&*self.admin().await?, number)?;
        Ok(())
    }

    async fn stop_worker(&self, number: usize, seconds: u64, books: &Books) -> Result<()> {
        // Others may be hurt meanwhile, but not this one.
        let workers = self.workers.lock().await;
        workers[number].pause()?;
        // A claim that it sent may be committed a moment later.
        tokio::time::sleep(Duration::from_millis(500)).await;
        for (id, attempt) in self.leases(&format!("worker LIKE 'soak-{number}/%'")).await? {
            books.allow_unclear(id, attempt);
        }
        tokio::time::sleep(Duration::from_secs(seconds)).await;
        workers[number].resume()
    }

    async fn kill_provider(&self, number: usize, books: &Books) -> Result<()> {
        // With the workers stopped, nothing in flight ends before it is noted.
        let workers = self.workers.lock().await;
        let mut providers = self.providers.write().await;
        workers.iter().try_for_each(Worker::pause)?;
        let old = &mut providers[number];
        old.process().signal(Signal::KILL)?;
        old.process().wait(PATIENCE).await?;
        tokio::time::sleep(Duration::from_millis(300)).await;
        for (id, attempt) in self.leases("true").await? {
            books.allow_unclear(id, attempt);
        }
        let (address, journal) = (old.address().to_owned(), old.journal_file().to_owned());
        *old = Sandbox::start_at(&address, &journal).await?;
        workers.iter().try_for_each(Worker::resume)
    }

    /// SIGKILL of one process of the server, which then restarts itself.
    async fn crash(&self, which: &str) -> Result<()> {
        let _alone = self.server.lock().await;
        let query = format!("SELECT pid FROM pg_stat_activity WHERE datname = 'soak' AND {which} LIMIT 1");
        let since = Instant::now();
        let pid: i32 = loop {
            match self.admin().await?.admin().query_opt(&query, &[]).await {
                Ok(Some(row)) => break row.try_get(0)?,
                other if since.elapsed() > PATIENCE => bail!("there is no {which}: {other:?}"),
                _ => tokio::time::sleep(Duration::from_millis(50)).await,
            }
        };
        signal_process(u32::try_from(pid)?, Signal::KILL)?;
        // The server ends all sessions when it notices.
        let database = self.database.lock().await;
        while !database.admin().is_closed() && since.elapsed() < PATIENCE {
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
        Ok(())
    }

    /// The live attempts.
    async fn leases(&self, which: &str) -> Result<Vec<(Id, i16)>> {
        let query = format!("SELECT id::text, attempt FROM sms_outbox.lease WHERE {which}");
        let since = Instant::now();
        // The server may restart at this moment.
        let rows = loop {
            match self.admin().await?.admin().query(&query, &[]).await {
                Ok(rows) => break rows,
                Err(error) if since.elapsed() > PATIENCE => return Err(error.into()),
                Err(_) => {}
            }
        };
        rows.iter().map(|row| Ok((row.try_get::<_, &str>(0)?.parse()?, row.try_get(1)?))).collect()
    }

    /// Waits until a query gives `true`, whatever becomes of the server meanwhile.
    pub(crate) async fn wait_until(&self, query: &str) -> Result<()> {
        let since = Instant::now();
        loop {
            let admin = self.admin().await?;
            if admin.admin().query_one(query, &[]).await.is_ok_and(|row| row.get(0)) {
                return Ok(());
            }
            if since.elapsed() > PATIENCE * 3 {
                let evidence = admin.evidence().await;
                return Err(anyhow::anyhow!("waited in vain: {query}\n{evidence}"));
            }
            drop(admin);
            tokio::time::sleep(Duration::from_millis(200)).await;
        }
    }

    /// Ends all faults that last, and waits until every message is over.
    pub(crate) async fn settle(&self) -> Result<()> {
        for provider in &*self.providers.read().await {
            provider.clear_rules().await?;
        }
        self.wait_until(
            "SELECT NOT EXISTS (SELECT FROM sms_outbox.ready) AND NOT EXISTS (SELECT FROM sms_outbox.scheduled)
                AND NOT EXISTS (SELECT FROM sms_outbox.lease)",
        )
        .await
        .context("the queue does not empty")
    }
}

const TERMINATE: &str = "SELECT pg_terminate_backend(pid) FROM pg_stat_activity";

/// Starts a worker and does not wait for it: the server may be away.
fn start_worker(database: &Database, number: usize) -> Result<Worker> {
    let url = format!("{}?application_name=soak-{number}", database.url("worker"));
    Worker::options(database)?
        .name(&format!("soak-{number}"))
        .set("DATABASE_URL", &url)
        .set("SMS_OUTBOX_HTTP_TIMEOUT", HTTP_TIMEOUT)
        .set("SMS_OUTBOX_CONCURRENCY", "200")
        .spawn()
}
