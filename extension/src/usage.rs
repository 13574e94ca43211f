//! How much an organization has enqueued in this minute and today, against its limits. Each call inserts a row of its own
//! (sql/schema/66_limits.sql), so no caller waits for another; the sum of all rows is remembered in the session for a moment,
//! so that a high rate does not add up a long tail again and again.

use std::cell::RefCell;
use std::collections::HashMap;

use pgrx::pg_sys::{self, Datum};

use crate::call::text_of;
use crate::datetime::Micros;
use crate::limits::{Refused, too_many};
use crate::statement::{Spi, Statement, statement};

static SUM: Statement = statement!("usage_sum", [TEXTOID, TIMESTAMPTZOID, TEXTOID, TIMESTAMPTZOID]);
static INSERT: Statement = statement!("insert_usage", [TEXTOID, TIMESTAMPTZOID, DATEOID, INT4OID, INT4OID]);

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;

/// How long a sum is remembered: others may enqueue meanwhile, and this session does not see it.
const FRESH: Micros = SECOND;

/// And it is read again when this session alone has used up this part of what was left: near a limit at each call.
const PART: i64 = 8;

/// Organizations whose sums are remembered.
const MOST_ORGANIZATIONS: usize = 1000;

/// Limits on what is enqueued in a calendar minute and in a day.
#[derive(Clone, Copy, Debug, Default)]
pub(crate) struct Counts {
    pub(crate) per_minute: Option<i64>,
    pub(crate) per_day: Option<i64>,
    pub(crate) segments_per_day: Option<i64>,
}

impl Counts {
    /// Whether there is any.
    pub(crate) fn any(&self) -> bool {
        self.per_minute.or(self.per_day).or(self.segments_per_day).is_some()
    }
}

/// What was enqueued, as a session knows it.
#[derive(Clone, Copy, Debug)]
struct Sum {
    read_at: Micros,
    /// The transaction whose snapshot it comes from, where that does not move on: of no use to a later one.
    transaction: Option<Micros>,
    minute_begins: Micros,
    /// As `date` counts.
    day: i32,
    day_ends: Micros,
    minute_messages: i64,
    messages: i64,
    segments: i64,
    /// What this session may add before it reads again.
    spare_messages: i64,
    spare_segments: i64,
}

thread_local! {
    static SUMS: RefCell<HashMap<String, Sum>> = RefCell::new(HashMap::new());
}

/// Counts one call's messages, of so many segments each, or refuses the first that is too much.
pub(crate) fn take(
    spi: &Spi,
    counts: &Counts,
    organization: Datum,
    time_zone: &str,
    now: Micros,
    segments: &[i64],
    overridden: bool,
) -> Result<(), Refused> {
    // SAFETY: the caller's datum is a text that outlives the call.
    let name = unsafe { text_of(organization) }.unwrap_or_default();
    let read = || Sum::read(spi, counts, organization, time_zone, now);
    let remembered = SUMS.with_borrow(|sums| sums.get(name).copied()).filter(|sum| sum.holds(now, segments));
    let fresh = remembered.is_none();
    let mut sum = remembered.unwrap_or_else(read);
    let mut refused = sum.check(counts, now, segments);
    if refused.is_err() && !fresh {
        // What this session has rolled back is in the remembered sum: nobody is refused for that.
        sum = read();
        refused = sum.check(counts, now, segments);
    }
    if !overridden {
        refused?;
    }
    let total: i64 = segments.iter().sum();
    spi.execute(
        &INSERT,
        &[
            Some(organization),
            Some(Datum::from(now)),
            Some(Datum::from(sum.day)),
            Some(Datum::from(segments.len() as i32)),
            Some(Datum::from(total as i32)),
        ],
    );
    sum.add(segments.len() as i64, total);
    SUMS.with_borrow_mut(|sums| {
        if sums.len() >= MOST_ORGANIZATIONS {
            sums.clear();
        }
        sums.insert(name.to_owned(), sum);
    });
    Ok(())
}

impl Sum {
    fn read(spi: &Spi, counts: &Counts, organization: Datum, time_zone: &str, now: Micros) -> Self {
        let minute_begins = now - now.rem_euclid(MINUTE);
        let rows = spi.execute(
            &SUM,
            &[
                Some(organization),
                Some(Datum::from(now)),
                Some(crate::call::text_datum(time_zone)),
                Some(Datum::from(minute_begins)),
            ],
        );
        let number = |column| rows.get(0, column).map_or(0, |datum| datum.value() as i64);
        let mut sum = Self {
            read_at: now,
            transaction: snapshot_of(),
            minute_begins,
            day: number(1) as i32,
            day_ends: number(2),
            minute_messages: number(3),
            messages: number(4),
            segments: number(5),
            spare_messages: 0,
            spare_segments: 0,
        };
        let left = |limit: Option<i64>, used: i64| limit.map_or(i64::MAX, |limit| limit - used);
        let messages = left(counts.per_minute, sum.minute_messages).min(left(counts.per_day, sum.messages));
        sum.spare_messages = messages / PART;
        sum.spare_segments = left(counts.segments_per_day, sum.segments) / PART;
        sum
    }

    /// Whether it can still be relied on, for a call of so many messages.
    fn holds(&self, now: Micros, segments: &[i64]) -> bool {
        (self.read_at..self.read_at + FRESH).contains(&now)
            && self.minute_begins == now - now.rem_euclid(MINUTE)
            && now < self.day_ends
            && self.transaction.is_none_or(|transaction| snapshot_of() == Some(transaction))
            && self.spare_messages >= segments.len() as i64
            && self.spare_segments >= segments.iter().sum()
    }

    /// The longest wait first: who waits for the minute only to meet the end of the day was not told the truth.
    fn check(&self, counts: &Counts, now: Micros, segments: &[i64]) -> Result<(), Refused> {
        let until_tomorrow = self.day_ends - now;
        let ones = vec![1; segments.len()];
        for (code, what, limit, used, sizes, wait) in [
            ("messages_per_day", "messages a day", counts.per_day, self.messages, &ones[..], until_tomorrow),
            ("segments_per_day", "segments a day", counts.segments_per_day, self.segments, segments, until_tomorrow),
            (
                "messages_per_minute",
                "messages a minute",
                counts.per_minute,
                self.minute_messages,
                &ones,
                self.minute_begins + MINUTE - now,
            ),
        ] {
            let Some(limit) = limit else { continue };
            let mut total = used;
            let over = sizes.iter().position(|size| {
                total += size;
                total > limit
            });
            if let Some(place) = over {
                let cure = if sizes.iter().sum::<i64>() > limit {
                    format!("At most {limit} {what} ({code}): this call alone has more.")
                } else {
                    format!("At most {limit} {what} ({code}); sms_outbox.set_organization() changes it.")
                };
                return Err((
                    place,
                    too_many(code, &format!("the organization's limit of {what} is reached"), cure, wait),
                ));
            }
        }
        Ok(())
    }

    fn add(&mut self, messages: i64, segments: i64) {
        self.minute_messages += messages;
        self.messages += messages;
        self.segments += segments;
        self.spare_messages -= messages;
        self.spare_segments -= segments;
    }
}

/// Which transaction this is, where all its statements see the same snapshot.
fn snapshot_of() -> Option<Micros> {
    // SAFETY: plain reads of the session's state, in a transaction.
    unsafe {
        (pg_sys::XactIsoLevel >= pg_sys::XACT_REPEATABLE_READ as i32)
            .then(|| pg_sys::GetCurrentTransactionStartTimestamp())
    }
}
