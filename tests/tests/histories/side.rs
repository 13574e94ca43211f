//! One of the two queues that a history is played on, spoken to in numbers that mean the same on both.

use std::collections::BTreeSet;
use std::time::Duration;

use anyhow::{Context, Result};
use sms_outbox_worker::message::{AppId, AttemptStatus, MessageId};
use sms_outbox_worker::outbox::conformance::{Enqueue, Install, Standing, Subject};
use sms_outbox_worker::outbox::{
    AppState, CLAIM_ANSWER_LOST, Claim, Claimed, Entry, Finish, Look, Looked, Mark, Outbox, Outcome, Range, Xid,
};
use uuid::Uuid;

use crate::step::{Attempt, End, Message, Step};

pub(crate) const WORKERS: [&str; 2] = ["a", "b"];
const DAY: Duration = Duration::from_secs(24 * 3600);
const SLUGS: [&str; 2] = ["sandbox", "generic-http"];

/// What is known of each message before a step, by which both sides understand it alike.
#[derive(Clone, Debug)]
pub(crate) struct Fact {
    pub(crate) last_attempt: i16,
    /// The worker that holds it.
    pub(crate) holder: Option<usize>,
    pub(crate) scheduled: bool,
    pub(crate) has_end: bool,
}

/// A reader of the log with the plainest marks that lose nothing: how far it has read, and what was running below.
#[derive(Debug, Default)]
struct Reader {
    mark: Xid,
    late: BTreeSet<Xid>,
}

impl Reader {
    fn look(&self, organizations: &[String]) -> Look {
        let from = |priority, xid, before| Range { priority, after: Mark { xid, id: Uuid::nil() }, before };
        let ranges = (0..3).flat_map(|priority| {
            let late = self.late.iter().map(move |xid| from(priority, *xid, Some(*xid + 1)));
            late.chain([from(priority, self.mark, None)])
        });
        let organizations = organizations.iter().map(|id| id.as_str().into()).collect();
        Look { ranges: ranges.collect(), organizations, page: 1000 }
    }

    fn observe(&mut self, looked: &Looked) {
        let running = &looked.snapshot.in_progress;
        self.late.retain(|xid| running.contains(xid));
        self.late.extend(running.iter().filter(|xid| (self.mark..looked.snapshot.xmax).contains(*xid)));
        self.mark = self.mark.max(looked.snapshot.xmax);
    }
}

/// A queue, and what this history has put into it.
pub(crate) struct Side<'a, S: Subject> {
    pub(crate) subject: &'a S,
    pub(crate) ids: Vec<MessageId>,
    workers: [S::Outbox; 2],
    organizations: [String; 2],
    /// Those that are installed, with their organization and their provider.
    apps: Vec<(AppId, usize, usize)>,
    transactions: Vec<S::Transaction>,
    readers: [Reader; 2],
}

impl<'a, S: Subject> Side<'a, S> {
    /// Two apps of the first organization, of which the second sends unclear messages again; one of the second.
    pub(crate) async fn new(subject: &'a S, workers: [S::Outbox; 2], case: u32) -> Result<Self> {
        let organizations = [format!("shop-{case}"), format!("bank-{case}")];
        let mut apps = Vec::new();
        for (of, by) in [(0, 0), (0, 1), (1, 0)] {
            let (organization, slug) = (organizations[of].clone(), SLUGS[by].to_owned());
            let app = Install { organization, resend_unclear: by == 1, name: slug.clone(), slug };
            apps.push((subject.install_app(app).await?, of, by));
        }
        Ok(Self {
            subject,
            ids: Vec::new(),
            workers,
            organizations,
            apps,
            transactions: Vec::new(),
            readers: Default::default(),
        })
    }

    /// Ends what is open, for the next history.
    pub(crate) async fn close(self) -> Result<()> {
        for transaction in self.transactions {
            self.subject.end(transaction, false).await?;
        }
        Ok(())
    }

    /// The number of a message; one more than there are is a message that does not exist.
    fn id(&self, number: u8) -> MessageId {
        let number = usize::from(number) % (self.ids.len() + 1);
        self.ids.get(number).copied().unwrap_or(MessageId(Uuid::nil()))
    }

    fn app(&self, number: u8) -> AppId {
        self.apps[usize::from(number) % self.apps.len()].0
    }

    fn number_of(&self, app: AppId) -> Option<usize> {
        self.apps.iter().position(|(known, ..)| *known == app)
    }

    /// The message, where an app is installed that could send it: another one is refused.
    fn wanted(&self, message: &Message) -> Option<Enqueue> {
        // The second organization has the first provider alone.
        let (organization, pinned) =
            (usize::from(message.bank), message.pinned.map(|second| usize::from(second && !message.bank)));
        let matches =
            |(_, of, by): &(AppId, usize, usize)| *of == organization && pinned.is_none_or(|pinned| pinned == *by);
        self.apps.iter().any(matches).then(|| Enqueue {
            organization: self.organizations[organization].clone(),
            mobile: "+966501234567".to_owned(),
            message: "Order 123 is ready for pickup".to_owned(),
            priority: message.priority,
            pinned: pinned.map(|by| SLUGS[by].to_owned()),
            due_in: message.later.then_some(2 * DAY),
            valid_for: message.valid.then_some(3 * DAY),
            traceparent: None,
        })
    }

    /// Does what the step says, where it can be done, and tells what was answered.
    pub(crate) async fn play(&mut self, step: &Step, facts: &[Option<Fact>]) -> Result<String> {
        let fact = |number: &u8| facts.get(usize::from(*number) % (facts.len() + 1))?.as_ref();
        Ok(match step {
            Step::Enqueue(messages) => {
                for message in messages {
                    if let Some(wanted) = self.wanted(message) {
                        self.ids.push(self.subject.enqueue(wanted).await?);
                    }
                }
                String::new()
            }
            Step::Begin(messages) => {
                let transaction = self.subject.begin().await?;
                for message in messages {
                    if let Some(wanted) = self.wanted(message) {
                        self.ids.push(self.subject.enqueue_in(&transaction, wanted).await?);
                    }
                }
                self.transactions.push(transaction);
                String::new()
            }
            Step::Commit(number) | Step::Rollback(number) => {
                if !self.transactions.is_empty() {
                    let transaction = self.transactions.remove(usize::from(*number) % self.transactions.len());
                    self.subject.end(transaction, matches!(step, Step::Commit(_))).await?;
                }
                String::new()
            }
            Step::Look(reader) => self.look(usize::from(*reader)).await?,
            Step::Claim { worker, wishes } => self.claim(usize::from(*worker), wishes).await?,
            Step::Finish { worker, ends } => {
                let first = ends.first().and_then(|end| fact(&end.message)?.holder);
                let worker = worker.map(usize::from).or(first).unwrap_or(0);
                let ends: Vec<Finish> = ends
                    .iter()
                    .map(|end| Finish {
                        id: self.id(end.message),
                        attempt: number_of(end.attempt, fact(&end.message)),
                        outcome: outcome(end),
                    })
                    .collect();
                self.finish(worker, &ends).await?
            }
            Step::Leases(worker) => {
                let leases = self.workers[usize::from(*worker)].leases().await?;
                let own = leases.iter().filter_map(|(id, attempt)| Some((self.position(*id)?, attempt)));
                format!("{:?}", own.collect::<BTreeSet<_>>())
            }
            Step::Resolve(message, attempt, verdict, evidence) => {
                let Some(known) = fact(message) else { return Ok(String::new()) };
                let attempt = number_of(*attempt, Some(known)).max(1);
                let told = self.subject.resolve(self.id(*message), attempt, *verdict, *evidence).await?;
                format!("corrected: {told}")
            }
            Step::Receipt(message, attempt, status) => {
                let attempt = number_of(*attempt, fact(message));
                format!("{:?}", self.subject.record_receipt(self.id(*message), attempt, *status).await?)
            }
            Step::Cancel(message) if fact(message).is_some() => {
                format!("canceled: {}", self.subject.cancel(self.id(*message)).await?)
            }
            Step::Retry(message) if fact(message).is_some() => {
                format!("retried: {}", self.subject.retry(self.id(*message)).await?)
            }
            Step::PauseApp(app, paused) if self.apps.len() > 1 => {
                self.subject.set_app_paused(self.app(*app), *paused).await?;
                String::new()
            }
            Step::PauseOrganization(bank, paused) => {
                let organization = &self.organizations[usize::from(*bank)];
                self.subject.set_organization_paused(organization, *paused).await?;
                String::new()
            }
            Step::Uninstall(app) if self.apps.len() > 1 => {
                let (app, ..) = self.apps.remove(usize::from(*app) % self.apps.len());
                self.subject.uninstall_app(app).await?;
                String::new()
            }
            Step::ExpireLease(message) if fact(message).is_some_and(|known| known.holder.is_some()) => {
                self.subject.expire_lease(self.id(*message)).await?;
                String::new()
            }
            Step::MakeDue(message) if fact(message).is_some_and(|known| known.scheduled) => {
                self.subject.make_due(self.id(*message)).await?;
                String::new()
            }
            Step::PassValidity(message) if fact(message).is_some_and(|known| known.has_end) => {
                self.subject.pass_validity(self.id(*message)).await?;
                String::new()
            }
            Step::PassBlock(app) => {
                self.subject.pass_block(self.app(*app)).await?;
                String::new()
            }
            Step::Maintain => {
                self.subject.run_maintenance().await?;
                String::new()
            }
            _ => String::new(),
        })
    }

    async fn look(&mut self, reader: usize) -> Result<String> {
        let looked = self.workers[reader].look(&self.readers[reader].look(&self.organizations)).await?;
        self.readers[reader].observe(&looked);
        let shown = |entry: &Entry| -> Result<String> {
            let apps = |apps: &[AppId]| apps.iter().map(|app| self.number_of(*app)).collect::<BTreeSet<_>>();
            let number = self.position(entry.id).context("an unknown message")?;
            let (refused_by, avoid) = (apps(&entry.refused_by), apps(&entry.avoid));
            Ok(format!(
                "{number}: priority {}, pinned {:?}, refused by {refused_by:?}, avoid {avoid:?}",
                entry.priority, entry.pinned
            ))
        };
        let entries = looked.entries.iter().map(shown).collect::<Result<BTreeSet<_>>>()?;
        Ok(format!("{entries:?}"))
    }

    async fn claim(&self, worker: usize, wishes: &[(u8, Option<u8>)]) -> Result<String> {
        let wishes: Vec<Claim> = wishes
            .iter()
            .map(|(message, app)| Claim { id: self.id(*message), app: app.map(|app| self.app(app)) })
            .collect();
        let answers = self.workers[worker].claim(&wishes).await?;
        let word = |answer: &Claimed| match answer {
            Claimed::Leased(lease) => {
                format!("leased as attempt {} of app {:?}", lease.attempt, self.number_of(lease.app))
            }
            Claimed::Gone => "gone".to_owned(),
            Claimed::Locked => "locked".to_owned(),
            Claimed::AppUnavailable => "app unavailable".to_owned(),
            Claimed::Failed => "failed".to_owned(),
        };
        Ok(format!("{:?}", answers.iter().map(word).collect::<Vec<_>>()))
    }

    async fn finish(&self, worker: usize, ends: &[Finish]) -> Result<String> {
        let answers = self.workers[worker].finish(ends).await?;
        let told =
            answers.iter().map(|answer| (self.position(answer.id), answer.attempt, answer.applied, answer.status));
        Ok(format!("{:?}", told.collect::<Vec<_>>()))
    }

    fn position(&self, id: MessageId) -> Option<usize> {
        self.ids.iter().position(|known| *known == id)
    }

    /// Everything that there is: each message, each app.
    pub(crate) async fn standing(&self) -> Result<String> {
        let mut lines = Vec::new();
        for (number, standing) in self.subject.standings(&self.ids).await?.into_iter().enumerate() {
            let Some(Standing { status, table, tries, refused_by, avoid, attempts, receipts }) = standing else {
                lines.push(format!("message {number}: none"));
                continue;
            };
            let apps =
                |apps: &BTreeSet<AppId>| apps.iter().filter_map(|app| self.number_of(*app)).collect::<BTreeSet<_>>();
            lines.push(format!(
                "message {number}: {status} in {table:?}, {tries} tries, refused by {:?}, avoids {:?}, attempts {attempts:?}, receipts {receipts:?}",
                apps(&refused_by),
                apps(&avoid)
            ));
        }
        let organizations = self.organizations.each_ref().map(|id| id.as_str().into());
        let mut apps = self.workers[0].apps(&organizations).await?;
        apps.sort_by_key(|app| self.number_of(app.id));
        for app in apps {
            let state = match app.state {
                AppState::Blocked(_) => "blocked".to_owned(),
                other => format!("{other:?}"),
            };
            lines.push(format!("app {:?}: {state}", self.number_of(app.id)));
        }
        Ok(lines.join("\n"))
    }
}

fn number_of(attempt: Attempt, fact: Option<&Fact>) -> i16 {
    let last = fact.map_or(0, |known| known.last_attempt);
    match attempt {
        Attempt::Last => last,
        Attempt::Stale => last - 1,
        Attempt::MadeUp => last + 1,
    }
}

fn outcome(end: &End) -> Outcome {
    let code = if end.given_back { CLAIM_ANSWER_LOST } else { "code" };
    Outcome {
        status: end.status,
        http_status: None,
        error_code: (end.status != AttemptStatus::Accepted).then(|| code.to_owned()),
        error_message: None,
        response: None,
        provider_message_id: None,
        retry_after: None,
    }
}
