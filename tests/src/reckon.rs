//! The reckoning: what the application committed, what the database says and what the provider accepted must agree.
//! The provider's journal is the truth about what was sent; the application's about what ought to be.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

use anyhow::{Result, bail};

use crate::sandbox::Acceptance;
use crate::{Database, Sandbox};

/// A message that the application committed.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Committed {
    /// What `sms_outbox_enqueue` returned.
    pub id: String,
    /// The number in international form, with or without `+`.
    pub to: String,
    /// The text. To tell acceptances apart, a test gives each message its own number or its own text.
    pub text: String,
}

/// How the database says that a message stands.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Standing {
    /// Its `dispatch_status`.
    pub status: String,
    /// How many of its attempts in the ledger were accepted.
    pub accepted: i64,
    /// The number.
    pub to: String,
    /// The text.
    pub text: String,
}

/// The three journals.
#[derive(Clone, Debug, Default)]
pub struct Journals {
    /// The application's.
    pub committed: Vec<Committed>,
    /// The database's, by id.
    pub database: BTreeMap<String, Standing>,
    /// The provider's, in its order.
    pub accepted: Vec<Acceptance>,
}

/// What the journals agree on.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Balance {
    /// Messages committed.
    pub committed: usize,
    /// Messages by `dispatch_status`.
    pub by_status: BTreeMap<String, usize>,
    /// Messages that the provider accepted.
    pub accepted: usize,
    /// Of these, those that the database calls unclear: the answer was lost.
    pub accepted_unclear: usize,
}

impl fmt::Display for Balance {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        let statuses: Vec<String> = self.by_status.iter().map(|(status, count)| format!("{count} {status}")).collect();
        write!(formatter, "{} committed; {}; {} accepted", self.committed, statuses.join(", "), self.accepted)?;
        match self.accepted_unclear {
            0 => Ok(()),
            lost => write!(formatter, ", {lost} of them with the answer lost"),
        }
    }
}

impl Journals {
    /// Reads the database's and the provider's, beside what the application committed.
    pub async fn read(committed: Vec<Committed>, database: &Database, sandboxes: &[&Sandbox]) -> Result<Self> {
        let query = "SELECT o.id::text, o.dispatch_status::text, o.mobile, o.message,
                (SELECT count(*) FROM sms_outbox.attempts AS a WHERE a.id = o.id AND a.status = 'accepted')
            FROM sms_outbox.outbox AS o";
        let mut standings = BTreeMap::new();
        for row in database.admin().query(query, &[]).await? {
            let standing = Standing {
                status: row.try_get(1)?,
                to: row.try_get(2)?,
                text: row.try_get(3)?,
                accepted: row.try_get(4)?,
            };
            standings.insert(row.try_get(0)?, standing);
        }
        let mut accepted = Vec::new();
        for sandbox in sandboxes {
            accepted.extend(sandbox.journal()?);
        }
        Ok(Self { committed, database: standings, accepted })
    }

    /// Compares them. The error names every message on which they disagree.
    pub fn reckon(&self) -> Result<Balance> {
        let mut faults = Vec::new();
        let mut balance =
            Balance { committed: self.committed.len(), accepted: self.accepted.len(), ..Balance::default() };
        let mut sends: BTreeMap<(String, &str), usize> = BTreeMap::new();
        for acceptance in &self.accepted {
            *sends.entry((digits(&acceptance.to), acceptance.body.as_str())).or_default() += 1;
        }
        let mut known = BTreeMap::new();
        for message in &self.committed {
            let key = (digits(&message.to), message.text.as_str());
            let sent = sends.get(&key).copied().unwrap_or(0);
            if let Some(other) = known.insert(key, &message.id) {
                bail!("{} and {other} have the same number and text: the test cannot tell them apart", message.id);
            }
            if sent > 1 {
                faults.push(format!("{}: the provider accepted it {sent} times", message.id));
            }
            let Some(standing) = self.database.get(&message.id) else {
                faults.push(format!("{}: committed, but not in the database", message.id));
                continue;
            };
            if digits(&standing.to) != digits(&message.to) || standing.text != message.text {
                faults.push(format!("{}: the database holds another number or text", message.id));
            }
            *balance.by_status.entry(standing.status.clone()).or_default() += 1;
            faults.extend(disagreement(standing, sent).map(|fault| format!("{}: {fault}", message.id)));
            if sent > 0 && standing.status == "dispatch_timeout" {
                balance.accepted_unclear += 1;
            }
        }
        let committed: BTreeSet<&String> = self.committed.iter().map(|message| &message.id).collect();
        for id in self.database.keys().filter(|id| !committed.contains(id)) {
            faults.push(format!("{id}: in the database, but never committed"));
        }
        for one in self.accepted.iter().filter(|one| !known.contains_key(&(digits(&one.to), one.body.as_str()))) {
            let (text, id) = (&one.body, &one.provider_message_id);
            faults.push(format!("the provider accepted '{text}' as {id}, which was never committed"));
        }
        if !faults.is_empty() {
            bail!("the journals disagree:\n{}", faults.join("\n"));
        }
        Ok(balance)
    }
}

/// What is wrong with a message that the provider accepted `sent` times, if anything.
fn disagreement(standing: &Standing, sent: usize) -> Option<String> {
    let status = standing.status.as_str();
    match (status, sent) {
        ("sent", 0) => Some("sent, but the provider never accepted it".to_owned()),
        ("sent", _) if standing.accepted != 1 => Some(format!("sent, with {} accepted attempts", standing.accepted)),
        // An answer that is on its way, or was lost, leaves these two open.
        ("sent" | "sending" | "dispatch_timeout", _) | (_, 0) => None,
        _ => Some(format!("{status}, but the provider accepted it")),
    }
}

/// A number as all journals can write it.
pub fn digits(number: &str) -> String {
    number.chars().filter(char::is_ascii_digit).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn journals(status: &str, sends: usize) -> Journals {
        let (id, to, text) = ("r1".to_owned(), "966501234567".to_owned(), "one".to_owned());
        let accepted = i64::from(status == "sent");
        let acceptance = Acceptance {
            provider: "sandbox".to_owned(),
            account: "north".to_owned(),
            to: to.clone(),
            sender: None,
            body: text.clone(),
            reference: None,
            provider_message_id: "p1".to_owned(),
        };
        Journals {
            committed: vec![Committed { id: id.clone(), to: to.clone(), text: text.clone() }],
            database: BTreeMap::from([(id, Standing { status: status.to_owned(), accepted, to, text })]),
            accepted: vec![acceptance; sends],
        }
    }

    fn fault(journals: &Journals) -> String {
        journals.reckon().expect_err("they disagree").to_string()
    }

    #[test]
    fn agreement_is_counted() {
        let balance = journals("sent", 1).reckon().expect("they agree");
        assert_eq!(balance.to_string(), "1 committed; 1 sent; 1 accepted");
        let lost = journals("dispatch_timeout", 1).reckon().expect("the answer was lost");
        assert_eq!(lost.to_string(), "1 committed; 1 dispatch_timeout; 1 accepted, 1 of them with the answer lost");
        assert!(journals("failed", 0).reckon().is_ok());
    }

    #[test]
    fn every_disagreement_is_named() {
        assert!(fault(&journals("sent", 0)).contains("r1: sent, but the provider never accepted it"));
        assert!(fault(&journals("sent", 2)).contains("r1: the provider accepted it 2 times"));
        assert!(fault(&journals("dispatch_timeout", 2)).contains("2 times"));
        assert!(fault(&journals("canceled", 1)).contains("r1: canceled, but the provider accepted it"));
        let mut lost = journals("sent", 1);
        lost.database.clear();
        assert!(fault(&lost).contains("r1: committed, but not in the database"));
        let mut extra = journals("sent", 1);
        extra.committed.clear();
        assert!(fault(&extra).contains("r1: in the database, but never committed"));
        assert!(fault(&extra).contains("accepted 'one' as p1, which was never committed"));
    }
}
