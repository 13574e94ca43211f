//! What the tests of the worker have in common: a shop with a database of its own on a server that the tests of a file
//! share, a pretend provider of its own, and a note of every message that it committed.

#![allow(dead_code, reason = "each file of tests uses a part of it")]

pub(crate) mod apps;

use std::sync::{Arc, Weak};

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::history::journal::{Transaction, Unclear};
use sms_outbox_tests::history::{Commit, Counts, Id, Verdict, read};
use sms_outbox_tests::worker::Options;
use sms_outbox_tests::{Cluster, Database, Fault, Major, Sandbox, Worker};
use tokio::sync::Mutex;

/// The servers that run now, by major: the last test that uses one ends it.
static SERVERS: Mutex<[Weak<Cluster>; 4]> = Mutex::const_new([Weak::new(), Weak::new(), Weak::new(), Weak::new()]);

async fn server(major: Major) -> Result<Arc<Cluster>> {
    let mut servers = SERVERS.lock().await;
    let place = &mut servers[major as usize - 15];
    if let Some(running) = place.upgrade() {
        return Ok(running);
    }
    // Each database has a background worker.
    let cluster = Cluster::options(major).set("max_worker_processes", "64").start().await?;
    *place = Arc::downgrade(&cluster);
    Ok(cluster)
}

/// One message that was queued and committed.
#[derive(Clone, Debug)]
pub(crate) struct Sms {
    pub(crate) id: String,
    pub(crate) to: String,
    pub(crate) text: String,
}

/// A line of the ledger: how the attempt ended, by which app, and the code.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Line {
    pub(crate) status: String,
    pub(crate) app: i64,
    pub(crate) code: Option<String>,
}

#[derive(Debug)]
pub(crate) struct Shop {
    pub(crate) database: Database,
    pub(crate) sandbox: Sandbox,
    /// What its applications and operators did: the journal that they keep.
    pub(crate) commits: Vec<Commit>,
    number: i32,
}

impl Shop {
    /// Opens one on the shared server of this major. `name` is its database: unique in the file.
    pub(crate) async fn open(major: Major, name: &str) -> Result<Self> {
        Self::open_on(&server(major).await?, name).await
    }

    /// Opens one on a server of its own, for tests that stop it.
    pub(crate) async fn open_alone(major: Major) -> Result<Self> {
        Self::open_on(&Cluster::start_new(major).await?, "shop").await
    }

    /// Opens one on a server that the test has made.
    pub(crate) async fn open_on(cluster: &Arc<Cluster>, name: &str) -> Result<Self> {
        let (database, sandbox) = tokio::try_join!(Database::create(cluster, name), Sandbox::start())?;
        Ok(Self { database, sandbox, commits: Vec::new(), number: 0 })
    }

    /// A worker that is made ready to start.
    pub(crate) fn worker(&self) -> Result<Options<'_>> {
        Worker::options(&self.database)
    }

    /// A worker that fits into leases of 10 s, the shortest that can be set.
    pub(crate) async fn quick_worker(&self) -> Result<Worker> {
        self.worker()?.set("SMS_OUTBOX_HTTP_TIMEOUT", "4s").start().await
    }

    /// The same with fail points: `claimed=pause`.
    pub(crate) fn worker_at(&self, points: &str) -> Result<Options<'_>> {
        Ok(Worker::options_at(&self.database, points)?.set("SMS_OUTBOX_HTTP_TIMEOUT", "4s"))
    }

    /// Leases of 10 s, for claims of connections that are opened from now on.
    pub(crate) async fn shorten_leases(&self) -> Result<()> {
        self.set("lease_timeout", "10s").await
    }

    /// A setting of the extension, for sessions that begin from now on.
    pub(crate) async fn set(&self, name: &str, value: &str) -> Result<()> {
        let database = self.database.name();
        self.database.sql(&format!("ALTER DATABASE \"{database}\" SET sms_outbox.{name} = '{value}'")).await
    }

    /// Queues one message of organization `shop`; `more` are further arguments: `priority => 0`.
    pub(crate) async fn queue(&mut self, more: &str) -> Result<Sms> {
        self.queue_for("shop", more).await
    }

    /// Queues one message of any organization.
    pub(crate) async fn queue_for(&mut self, organization: &str, more: &str) -> Result<Sms> {
        self.queue_many(organization, 1, more).await?.pop().context("no row")
    }

    /// Queues messages, each with its own number and text, in one transaction.
    pub(crate) async fn queue_many(&mut self, organization: &str, count: i32, more: &str) -> Result<Vec<Sms>> {
        let session = self.database.connect_as("app").await?;
        self.queue_by(&session, organization, count, more).await
    }

    /// The number that the next message goes to.
    pub(crate) fn next_number(&self) -> String {
        format!("96650{:07}", self.number + 1)
    }

    /// Queues one message with this text.
    pub(crate) async fn queue_text(&mut self, organization: &str, text: &str) -> Result<Sms> {
        self.number += 1;
        let to = format!("+96650{:07}", self.number);
        let queue = "SELECT id FROM sms_outbox_enqueue($1, $2, organization_id => $3)";
        let id: String = self.database.value(queue, &[&to, &text, &organization]).await?;
        let sms = Sms { id, to, text: text.to_owned() };
        self.note(&sms, Transaction::Committed)?;
        Ok(sms)
    }

    /// Notes a message that was enqueued, and how its transaction ended.
    pub(crate) fn note(&mut self, sms: &Sms, outcome: Transaction) -> Result<()> {
        let Sms { id, to, text } = sms.clone();
        self.commits.push(Commit::Enqueued { id: id.parse()?, to, text, outcome, replay: false });
        Ok(())
    }

    /// Notes an operator's retry, just before it.
    pub(crate) async fn will_retry(&mut self, sms: &Sms) -> Result<()> {
        let at: String = self.database.value("SELECT to_json(clock_timestamp()) #>> '{}'", &[]).await?;
        self.commits.push(Commit::Retried { id: sms.id.parse()?, at: at.parse()? });
        Ok(())
    }

    /// Forgets messages that the test took out of the database itself.
    pub(crate) fn forget(&mut self, gone: impl Fn(&str) -> bool) {
        self.commits.retain(|line| match line {
            Commit::Enqueued { id, .. } | Commit::Retried { id, .. } => !gone(&id.to_string()),
            Commit::End(_) => true,
        });
    }

    /// The same as [`Shop::queue_many`] in a session of the caller's, which must commit; where it does not, see
    /// [`Shop::queue_ending`].
    pub(crate) async fn queue_by(
        &mut self,
        session: &tokio_postgres::Client,
        organization: &str,
        count: i32,
        more: &str,
    ) -> Result<Vec<Sms>> {
        self.queue_ending(session, organization, count, more, Transaction::Committed).await
    }

    /// The same in a transaction of the caller's that is about to end so.
    pub(crate) async fn queue_ending(
        &mut self,
        session: &tokio_postgres::Client,
        organization: &str,
        count: i32,
        more: &str,
        outcome: Transaction,
    ) -> Result<Vec<Sms>> {
        let more = if more.is_empty() { String::new() } else { format!(", {more}") };
        let query = format!(
            "SELECT q.id, '+96650' || lpad(n::text, 7, '0'), 'text ' || n FROM generate_series($1::int, $2::int) AS n,
             sms_outbox_enqueue(mobile => '+96650' || lpad(n::text, 7, '0'), message => 'text ' || n,
                                organization_id => $3{more}) AS q"
        );
        let (from, upto) = (self.number + 1, self.number + count);
        self.number = upto;
        let rows = session.query(&query, &[&from, &upto, &organization]).await.context("enqueue")?;
        let sms: Vec<Sms> = rows.iter().map(|row| Sms { id: row.get(0), to: row.get(1), text: row.get(2) }).collect();
        ensure!(sms.len() == usize::try_from(count)?, "{} of {count} queued", sms.len());
        for sms in &sms {
            self.note(sms, outcome)?;
        }
        Ok(sms)
    }

    /// One column of a message in the view `outbox`, as text.
    pub(crate) async fn show(&self, sms: &Sms, column: &str) -> Result<Option<String>> {
        self.database
            .value(&format!("SELECT {column}::text FROM sms_outbox.outbox WHERE id = $1::text"), &[&sms.id])
            .await
    }

    /// Waits until the message has this `dispatch_status`.
    pub(crate) async fn wait_for_status(&self, sms: &Sms, status: &str) -> Result<()> {
        self.wait_for(sms, "dispatch_status", status).await
    }

    /// Waits until a column of the view `outbox` has a value.
    pub(crate) async fn wait_for(&self, sms: &Sms, column: &str, value: &str) -> Result<()> {
        let asked = async || Ok((self.show(sms, column).await?.as_deref() == Some(value)).then_some(()));
        self.database.wait_for(format!("'{}' has {column} {value}", sms.text), asked).await
    }

    /// Waits until no message waits or is being sent.
    pub(crate) async fn wait_until_settled(&self) -> Result<()> {
        self.database
            .wait_until(
                "nothing waits and nothing is in flight",
                "SELECT NOT EXISTS (SELECT FROM sms_outbox.ready) AND NOT EXISTS (SELECT FROM sms_outbox.scheduled)
                    AND NOT EXISTS (SELECT FROM sms_outbox.lease)",
            )
            .await
    }

    /// Waits for something that the database does not show.
    pub(crate) async fn wait_until(&self, what: &str, mut condition: impl FnMut() -> bool) -> Result<()> {
        self.database.wait_for(what, async || Ok(condition().then_some(()))).await
    }

    /// Waits until the provider has seen so many requests, and no more.
    pub(crate) async fn wait_for_requests(&self, number: usize) -> Result<()> {
        let seen = async || {
            let requests = usize::try_from(self.sandbox.counts().await?.requests)?;
            ensure!(requests <= number, "{requests} requests, expected {number}");
            Ok((requests == number).then_some(()))
        };
        self.database.wait_for(format!("the provider has seen {number} requests"), seen).await
    }

    /// Waits until the provider has seen so many requests, or more.
    pub(crate) async fn wait_until_requests(&self, number: u64) -> Result<()> {
        let seen = async || Ok((self.sandbox.counts().await?.requests >= number).then_some(()));
        self.database.wait_for(format!("the provider has seen {number} requests"), seen).await
    }

    /// Ids of the messages that are leased now.
    pub(crate) async fn leased(&self) -> Result<Vec<String>> {
        let rows = self.database.admin().query("SELECT id::text FROM sms_outbox.lease ORDER BY id", &[]).await?;
        Ok(rows.iter().map(|row| row.get(0)).collect())
    }

    /// Ids of the messages that a dead worker holds, once the server has done the last that it was asked by it.
    pub(crate) async fn left_by(&self, worker: &Worker) -> Result<Vec<String>> {
        let gone = format!(
            "SELECT NOT EXISTS (SELECT FROM pg_stat_activity WHERE application_name = 'sms-outbox worker {}')",
            worker.name()
        );
        self.database.wait_until("the sessions of the dead worker are over", &gone).await?;
        let query = "SELECT id::text FROM sms_outbox.lease WHERE split_part(worker, '/', 1) = $1::text";
        Ok(self.database.admin().query(query, &[&worker.name()]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// The ledger of a message, in order.
    pub(crate) async fn ledger(&self, sms: &Sms) -> Result<Vec<Line>> {
        let query = "SELECT status::text, organization_app_id, error_code FROM sms_outbox.attempts
            WHERE id = $1::text AND status IS NOT NULL ORDER BY attempt";
        let rows = self.database.admin().query(query, &[&sms.id]).await?;
        Ok(rows.iter().map(|row| Line { status: row.get(0), app: row.get(1), code: row.get(2) }).collect())
    }

    /// How its attempts stand, in order; a live one has no status.
    pub(crate) async fn attempts(&self, sms: &Sms) -> Result<Vec<Option<String>>> {
        let query = "SELECT status::text FROM sms_outbox.attempts WHERE id = $1::text ORDER BY attempt";
        Ok(self.database.admin().query(query, &[&sms.id]).await?.iter().map(|row| row.get(0)).collect())
    }

    /// Checks how the attempts of a message ended, in order, and by which apps.
    pub(crate) async fn expect_ledger(&self, sms: &Sms, expected: &[(&str, i64)]) -> Result<()> {
        let ledger = self.ledger(sms).await?;
        let found: Vec<_> = ledger.iter().map(|line| (line.status.as_str(), line.app)).collect();
        ensure!(found == expected, "the ledger of '{}' is {ledger:?}, expected {expected:?}", sms.text);
        Ok(())
    }

    /// How often the provider was asked to send this message, and accepted it.
    pub(crate) async fn seen(&self, sms: &Sms) -> Result<(usize, usize)> {
        let requests = self.sandbox.requests().await?;
        let of_it = requests.iter().filter(|request| request["to"].as_str().is_some_and(|to| same(to, &sms.to)));
        Ok((of_it.count(), self.accepted(sms)?))
    }

    /// How often the provider accepted this message.
    pub(crate) fn accepted(&self, sms: &Sms) -> Result<usize> {
        let journal = self.sandbox.journal()?;
        Ok(journal.iter().filter(|one| same(&one.to, &sms.to) && one.body == sms.text).count())
    }

    /// Judges every message by the three journals; with `unclear`, which of them a fault left so.
    pub(crate) async fn judge(&self, unclear: Option<&[Unclear]>) -> Result<Verdict> {
        read::check(&self.commits, unclear, &self.database, &[&self.sandbox]).await
    }

    /// Every rule holds, and every message is over but these.
    pub(crate) async fn check_leaving(&self, open: &[Sms]) -> Result<Counts> {
        let open = open.iter().map(|sms| sms.id.parse()).collect::<Result<Vec<Id>>>()?;
        let verdict = self.judge(None).await?;
        match verdict.leaving(&open) {
            Ok(counts) => Ok(counts.clone()),
            Err(fault) => Err(fault.context(self.database.evidence().await)),
        }
    }

    /// Every rule holds, and every message is over.
    pub(crate) async fn check(&self) -> Result<Counts> {
        self.check_leaving(&[]).await
    }

    /// Every attempt in the ledger that may have reached the provider is one request that it saw. Only where no
    /// worker was killed and no lease ran out.
    pub(crate) async fn expect_a_request_for_each_attempt(&self) -> Result<()> {
        let attempts: i64 =
            self.database.value("SELECT count(*) FROM sms_outbox.attempt WHERE status <> 'not_sent'", &[]).await?;
        let requests = self.sandbox.counts().await?.requests;
        ensure!(u64::try_from(attempts)? == requests, "{attempts} attempts, {requests} requests");
        Ok(())
    }

    /// Adds one rule to the pretend provider.
    pub(crate) async fn rule(&self, rule: Value) -> Result<()> {
        self.sandbox.add_rules(&rule).await
    }

    /// Ends it well: every rule holds, every message is over, and the database is gone.
    pub(crate) async fn close(self) -> Result<Counts> {
        self.close_leaving(&[]).await
    }

    /// The same, but for messages that the test leaves unfinished.
    pub(crate) async fn close_leaving(self, open: &[Sms]) -> Result<Counts> {
        let counts = self.check_leaving(open).await?;
        self.discard().await?;
        Ok(counts)
    }

    /// The same at the end of a fault: the messages that it left unclear end so, and no others.
    pub(crate) async fn close_fault(self, fault: Fault) -> Result<Counts> {
        let verdict = self.judge(Some(fault.expected())).await?;
        match fault.close(&verdict) {
            Ok(counts) => {
                self.discard().await?;
                Ok(counts)
            }
            Err(error) => Err(error.context(self.database.evidence().await)),
        }
    }

    /// Drops the database of a test that queued nothing.
    pub(crate) async fn discard(self) -> Result<()> {
        let maintenance =
            sms_outbox_tests::database::connect(&self.database.cluster().socket_url("postgres", "postgres")).await?;
        maintenance.batch_execute(&format!("DROP DATABASE \"{}\" WITH (FORCE)", self.database.name())).await?;
        Ok(())
    }
}

fn same(one: &str, other: &str) -> bool {
    one.trim_start_matches('+') == other.trim_start_matches('+')
}
