//! Rows of the queue functions as the worker's types.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::Duration;

use tokio_postgres::{Error, Row};

use crate::message::{AppId, Body, DispatchStatus, MessageId, MobileNumber};
use crate::outbox::{
    App, AppState, Claim, Claimed, Entry, Finish, Finished, Lease, Looked, OrganizationId, Rate, RateUnit, Snapshot,
    Unclear, Xid,
};

/// Organizations and slugs of one answer, each text held once.
#[derive(Default)]
struct Texts(HashMap<String, Arc<str>>);

impl Texts {
    fn share(&mut self, text: &str) -> Arc<str> {
        match self.0.get(text) {
            Some(shared) => shared.clone(),
            None => {
                let shared: Arc<str> = text.into();
                self.0.insert(text.to_owned(), shared.clone());
                shared
            }
        }
    }
}

/// `xmin:xmax:xip,xip`, as PostgreSQL writes a snapshot.
fn snapshot(text: &str) -> Snapshot {
    let mut parts = text.split(':').skip(1);
    let number = |digits: &str| digits.parse::<Xid>().ok();
    Snapshot {
        xmax: parts.next().and_then(number).unwrap_or(0),
        in_progress: parts.next().unwrap_or("").split(',').filter_map(number).collect(),
    }
}

/// The answer of `look`: a header row with the snapshot and the log, then the entries.
pub(super) fn looked(rows: &[Row]) -> Result<Looked, Error> {
    let mut texts = Texts::default();
    let mut looked = Looked::default();
    for row in rows {
        if let Some(text) = row.try_get::<_, Option<&str>>(0)? {
            looked.snapshot = snapshot(text);
            looked.log = row.try_get(9)?;
            continue;
        }
        let range: i32 = row.try_get(1)?;
        let priority: i16 = row.try_get(4)?;
        let xid: &str = row.try_get(5)?;
        let apps = |column| -> Result<Vec<AppId>, Error> {
            Ok(row.try_get::<_, Option<Vec<i64>>>(column)?.unwrap_or_default().into_iter().map(AppId).collect())
        };
        looked.entries.push(Entry {
            range: usize::try_from(range - 1).unwrap_or(0),
            id: MessageId(row.try_get(2)?),
            organization: texts.share(row.try_get(3)?),
            priority: u8::try_from(priority).unwrap_or(2),
            xid: xid.parse().unwrap_or(0),
            pinned: row.try_get::<_, Option<&str>>(6)?.map(|slug| texts.share(slug)),
            refused_by: apps(7)?,
            avoid: apps(8)?,
        });
    }
    Ok(looked)
}

/// One row of `apps`.
pub(super) fn app(row: &Row) -> Result<App, Error> {
    let organization: &str = row.try_get(1)?;
    let slug: &str = row.try_get(2)?;
    let weight: i32 = row.try_get(4)?;
    let max_in_flight: i32 = row.try_get(5)?;
    let per_second: Option<f64> = row.try_get(6)?;
    let unit = if row.try_get::<_, &str>(7)? == "segments" { RateUnit::Segments } else { RateUnit::Messages };
    let burst: Option<i32> = row.try_get(8)?;
    let burst = burst.and_then(|burst| u32::try_from(burst).ok()).unwrap_or(1);
    let blocked: Option<f64> = row.try_get(10)?;
    Ok(App {
        id: AppId(row.try_get(0)?),
        organization: OrganizationId::from(organization),
        slug: slug.into(),
        position: row.try_get(3)?,
        weight: u32::try_from(weight).unwrap_or(1),
        max_in_flight: u32::try_from(max_in_flight).unwrap_or(1),
        rate: per_second.map(|per_second| Rate { per_second, burst, unit }),
        state: match row.try_get(9)? {
            "open" => AppState::Open,
            "probe" => AppState::Probe,
            "blocked" => AppState::Blocked(seconds(blocked)),
            _ => AppState::Paused,
        },
    })
}

fn seconds(value: Option<f64>) -> Duration {
    value.and_then(|seconds| Duration::try_from_secs_f64(seconds).ok()).unwrap_or_default()
}

/// The answer of `claim`, put in the order of what was asked. The database answers once for each distinct id;
/// a second wish for the same id is answered as gone.
pub(super) fn claimed(claims: &[Claim], rows: &[Row]) -> Result<Vec<Claimed>, Error> {
    let mut configs: HashMap<AppId, Arc<serde_json::Value>> = HashMap::new();
    let mut answers: HashMap<MessageId, Claimed> = HashMap::with_capacity(rows.len());
    for row in rows {
        let id = MessageId(row.try_get(0)?);
        let answer = match row.try_get(1)? {
            "leased" => {
                let app = AppId(row.try_get(3)?);
                if let Some(config) = row.try_get::<_, Option<serde_json::Value>>(9)? {
                    configs.insert(app, Arc::new(config));
                }
                let slug: &str = row.try_get(4)?;
                let organization: &str = row.try_get(12)?;
                let mobile: &str = row.try_get(6)?;
                let body: &str = row.try_get(7)?;
                let segments: i16 = row.try_get(13)?;
                Claimed::Leased(Box::new(Lease {
                    id,
                    attempt: row.try_get(2)?,
                    app,
                    organization: organization.into(),
                    slug: slug.into(),
                    lasts: seconds(row.try_get(5)?),
                    mobile: MobileNumber::new(mobile),
                    body: Body::new(body),
                    sender: row.try_get(8)?,
                    config: configs.get(&app).cloned().unwrap_or_default(),
                    traceparent: row.try_get::<_, Option<&str>>(10)?.and_then(|text| text.parse().ok()),
                    waited: seconds(row.try_get(11)?),
                    segments: u16::try_from(segments).unwrap_or(1),
                }))
            }
            "locked" => Claimed::Locked,
            "failed" => Claimed::Failed,
            "app_unavailable" => Claimed::AppUnavailable,
            _ => Claimed::Gone,
        };
        answers.insert(id, answer);
    }
    Ok(claims.iter().map(|claim| answers.remove(&claim.id).unwrap_or(Claimed::Gone)).collect())
}

/// The answer of `unclear`: the configuration stands on the first row of each app.
pub(super) fn unclear(rows: &[Row]) -> Result<Vec<Unclear>, Error> {
    let mut texts = Texts::default();
    let mut configs: HashMap<AppId, Arc<serde_json::Value>> = HashMap::new();
    let mut unclear = Vec::with_capacity(rows.len());
    for row in rows {
        let app = AppId(row.try_get(2)?);
        if let Some(config) = row.try_get::<_, Option<serde_json::Value>>(5)? {
            configs.insert(app, Arc::new(config));
        }
        let mobile: &str = row.try_get(6)?;
        let body: &str = row.try_get(7)?;
        unclear.push(Unclear {
            id: MessageId(row.try_get(0)?),
            attempt: row.try_get(1)?,
            app,
            organization: texts.share(row.try_get(3)?),
            slug: texts.share(row.try_get(4)?),
            config: configs.get(&app).cloned().unwrap_or_default(),
            mobile: MobileNumber::new(mobile),
            body: Body::new(body),
            sender: row.try_get(8)?,
            started_at: row.try_get(9)?,
            finished_at: row.try_get(10)?,
            age: seconds(row.try_get(11)?),
            taken_ids: row.try_get(12)?,
            has_twin: row.try_get(13)?,
        });
    }
    Ok(unclear)
}

/// The answer of `finish`, put in the order of what was reported. A repeated outcome gets the answer of the first.
pub(super) fn finished(outcomes: &[Finish], rows: &[Row]) -> Result<Vec<Finished>, Error> {
    let mut answers: HashMap<(MessageId, i16), Finished> = HashMap::with_capacity(rows.len());
    for row in rows {
        let (id, attempt) = (MessageId(row.try_get(0)?), row.try_get(1)?);
        let status = row.try_get::<_, Option<&str>>(3)?.and_then(DispatchStatus::from_word);
        answers.insert((id, attempt), Finished { id, attempt, applied: row.try_get(2)?, status });
    }
    let unknown = |finish: &Finish| Finished { id: finish.id, attempt: finish.attempt, applied: false, status: None };
    Ok(outcomes
        .iter()
        .map(|finish| answers.get(&(finish.id, finish.attempt)).copied().unwrap_or_else(|| unknown(finish)))
        .collect())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn snapshots_are_read_as_postgres_writes_them() {
        assert_eq!(snapshot("760:760:"), Snapshot { xmax: 760, in_progress: vec![] });
        assert_eq!(snapshot("10:5000000000:10,12"), Snapshot { xmax: 5_000_000_000, in_progress: vec![10, 12] });
    }
}
