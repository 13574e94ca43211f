//! Callers that repeat one call for a while, and what they counted.

use std::time::{Duration, Instant};

use anyhow::Result;
use futures_util::future::try_join_all;

/// What one round counted.
#[derive(Clone, Debug)]
pub struct Round {
    /// Calls a second, of all callers together.
    pub rate: f64,
    /// How long calls took, in microseconds, sorted.
    times: Vec<u32>,
}

impl Round {
    /// The time, in milliseconds, that this share of the calls stayed within.
    pub fn percentile(&self, share: f64) -> f64 {
        let place = (self.times.len() as f64 * share) as usize;
        self.times
            .get(place.min(self.times.len().saturating_sub(1)))
            .map_or(f64::NAN, |micros| f64::from(*micros) / 1000.0)
    }
}

/// Something that can be called again and again.
pub trait Caller: Send {
    /// One call.
    fn call(&mut self) -> impl Future<Output = Result<()>> + Send;
}

/// Lets all callers repeat their call for a while.
pub async fn round<C: Caller + 'static>(callers: Vec<C>, lasts: Duration) -> Result<(Vec<C>, Round)> {
    let start = Instant::now();
    let running = callers.into_iter().map(|mut caller| {
        tokio::spawn(async move {
            let mut times = Vec::with_capacity(16 * 1024);
            while start.elapsed() < lasts {
                let begun = Instant::now();
                caller.call().await?;
                times.push(u32::try_from(begun.elapsed().as_micros()).unwrap_or(u32::MAX));
            }
            anyhow::Ok((caller, times))
        })
    });
    let mut callers = Vec::new();
    let mut times = Vec::new();
    for ended in try_join_all(running).await? {
        let (caller, more) = ended?;
        callers.push(caller);
        times.extend(more);
    }
    let rate = times.len() as f64 / start.elapsed().as_secs_f64();
    times.sort_unstable();
    Ok((callers, Round { rate, times }))
}

/// The middle one by rate; the faster of two middle ones.
pub fn median(mut rounds: Vec<Round>) -> Option<Round> {
    rounds.sort_by(|one, other| one.rate.total_cmp(&other.rate));
    let middle = rounds.len() / 2;
    (!rounds.is_empty()).then(|| rounds.swap_remove(middle))
}
