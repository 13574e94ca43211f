//! What is measured, and from which source.

#![allow(dead_code, reason = "each file of tests uses a part of it")]

use std::fs;

use anyhow::{Context, Result, ensure};
use jiff::Timestamp;
use serde_json::Value;
use tokio::sync::RwLock;

use crate::shop::{Shop, Sms};

/// Who compares times holds it alone; who only counts shares it.
pub(crate) static QUIET: RwLock<()> = RwLock::const_new(());

/// A request as the provider saw it.
#[derive(Clone, Debug)]
pub(crate) struct Seen {
    /// Milliseconds of the provider's clock.
    pub(crate) at: i64,
    pub(crate) account: String,
    pub(crate) to: String,
    /// The message and the attempt: `r…-1`.
    pub(crate) reference: String,
}

/// All requests, in order.
pub(crate) async fn seen(shop: &Shop) -> Result<Vec<Seen>> {
    let text = |request: &Value, field: &str| request[field].as_str().unwrap_or_default().to_owned();
    let mut all = Vec::new();
    for request in shop.sandbox.requests().await? {
        all.push(Seen {
            at: request["at"].as_str().context("no time")?.parse::<Timestamp>()?.as_millisecond(),
            account: text(&request, "account"),
            to: text(&request, "to"),
            reference: text(&request, "reference"),
        });
    }
    all.sort_by_key(|seen| seen.at);
    Ok(all)
}

/// Times of the requests of one account.
pub(crate) fn arrivals(seen: &[Seen], account: &str) -> Vec<i64> {
    seen.iter().filter(|seen| seen.account == account).map(|seen| seen.at).collect()
}

/// Most of them within any stretch of so many milliseconds.
pub(crate) fn most_within(arrivals: &[i64], stretch: i64) -> usize {
    let (mut most, mut first) = (0, 0);
    for (place, at) in arrivals.iter().enumerate() {
        while *at - arrivals[first] >= stretch {
            first += 1;
        }
        most = most.max(place + 1 - first);
    }
    most
}

/// Checks that in no stretch of time more came than a burst and what the rate brings in it; each request costs `cost`. A
/// request may be late by `late` milliseconds, and then stands in a stretch that is not its own.
pub(crate) fn keeps_to(arrivals: &[i64], cost: f64, rate: f64, burst: f64, late: i64) -> Result<()> {
    // The fullest stretch that ends with each request: what of the ones before is more than the rate took away since.
    let (mut level, mut before, mut worst) = (0.0_f64, None, 0.0_f64);
    for at in arrivals {
        let since = before.map_or(0, |before| at - before) as f64 / 1000.0;
        level = (level - since * rate).max(0.0) + cost;
        worst = worst.max(level);
        before = Some(*at);
    }
    let most = burst + rate * late as f64 / 1000.0;
    ensure!(worst <= most + 1e-6, "{worst:.1} at once, with a rate of {rate} a second and a burst of {burst}");
    Ok(())
}

/// The value below which so many of a hundred lie.
pub(crate) fn percentile(values: &[f64], percent: usize) -> f64 {
    let mut sorted = values.to_vec();
    sorted.sort_unstable_by(f64::total_cmp);
    sorted.get((sorted.len() * percent / 100).min(sorted.len().saturating_sub(1))).copied().unwrap_or(f64::NAN)
}

/// Milliseconds from the enqueue of each to its request: the median. One after the other is queued and sent.
pub(crate) async fn time_to_request(shop: &mut Shop, organization: &str, more: &str, times: usize) -> Result<f64> {
    let mut sent: Vec<Sms> = Vec::new();
    for _ in 0..times {
        let sms = shop.queue_for(organization, more).await?;
        shop.wait_for_status(&sms, "sent").await?;
        sent.push(sms);
    }
    let all = seen(shop).await?;
    let mut took = Vec::new();
    for sms in &sent {
        let created =
            "SELECT extract(epoch FROM created_at)::double precision * 1000 FROM sms_outbox.outbox WHERE id = $1::text";
        let created: f64 = shop.database.value(created, &[&sms.id]).await?;
        let same = |seen: &&Seen| seen.to.trim_start_matches('+') == sms.to.trim_start_matches('+');
        let request = all.iter().find(same).context("the provider saw no request")?;
        took.push(request.at as f64 - created);
    }
    Ok(percentile(&took, 50))
}

/// Cancels what an organization has waiting.
pub(crate) async fn cancel_all(shop: &Shop, organization: &str) -> Result<()> {
    let cancel = format!(
        "SELECT moved FROM sms_outbox.cancel(filter => '{{\"organization_id\": \"{organization}\"}}', dry_run => false, max_rows => 10000)"
    );
    while shop.database.value::<i64>(&cancel, &[]).await? > 0 {}
    Ok(())
}

/// Resident memory of a process, in KiB.
pub(crate) fn resident(pid: u32) -> Result<u64> {
    let status = fs::read_to_string(format!("/proc/{pid}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim_end_matches("kB").trim().parse()?)
}
