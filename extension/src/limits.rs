//! Limits against abuse, checked in the caller's transaction: where messages may go, who may be named as their sender, who
//! must not be written to, and how many there may be. An organization without limits pays for none of it.

use pgrx::pg_sys::{self, Datum, Oid};

use crate::arguments::Payload;
use crate::call::{Call, Reply, sql_function, text_datum};
use crate::datetime::Micros;
use crate::destination::Destination;
use crate::ids;
use crate::queue::array;
use crate::refusal::{Refusal, State};
use crate::statement::{Rows, Spi, Statement, statement};
use crate::usage::{self, Counts};
use crate::{segments, settings};

static FIRST_SUPPRESSED: Statement = statement!("first_suppressed", [TEXTOID, TEXTARRAYOID]);
static RECIPIENTS_OVER: Statement =
    statement!("recipients_over", [TEXTOID, TEXTARRAYOID, INT4ARRAYOID, INT4OID, UUIDOID, UUIDOID]);

const SECOND: Micros = 1_000_000;
const MINUTE: Micros = 60 * SECOND;
const HOUR: Micros = 60 * MINUTE;

/// Which of the messages is refused, and why.
pub(crate) type Refused = (usize, Refusal);

/// What an organization may enqueue; nothing set is no limit.
#[derive(Debug, Default)]
pub(crate) struct Limits {
    counts: Counts,
    per_recipient_hour: Option<i64>,
    allowed_destinations: Option<Vec<String>>,
    blocked_destinations: Option<Vec<String>>,
    allowed_senders: Option<Vec<String>>,
    suppresses: bool,
}

impl Limits {
    /// Reads them from a row, beginning at a column.
    pub(crate) fn read(rows: &Rows, column: usize) -> Self {
        let count = |place| rows.get(0, column + place).map(|datum| i64::from(datum.value() as i32));
        // No entry holds a comma.
        let list =
            |place| rows.text(0, column + place).map(|list| list.split(',').map(str::to_owned).collect::<Vec<_>>());
        Self {
            counts: Counts { per_minute: count(0), per_day: count(1), segments_per_day: count(3) },
            per_recipient_hour: count(2),
            allowed_destinations: list(4),
            blocked_destinations: list(5),
            allowed_senders: list(6),
            suppresses: rows.flag(0, column + 7),
        }
    }

    /// Lets new messages of an organization in and counts them, or refuses the first that is too much.
    pub(crate) fn admit(
        &self,
        spi: &Spi,
        organization: Datum,
        time_zone: &str,
        now: Micros,
        new: &[&Payload<'_>],
    ) -> Result<(), Refused> {
        let overridden = overridden();
        if !overridden && !new.is_empty() {
            for (place, message) in new.iter().enumerate() {
                self.check_sender(message.sender).map_err(|refusal| (place, refusal))?;
                self.check_destination(&message.mobile).map_err(|refusal| (place, refusal))?;
            }
            self.check_suppressed(spi, organization, new)?;
            self.check_recipients(spi, organization, now, new)?;
        }
        if self.counts.any() && !new.is_empty() {
            let segments: Vec<i64> =
                new.iter().map(|message| segments::measure(message.message).segments as i64).collect();
            usage::take(spi, &self.counts, organization, time_zone, now, &segments, overridden)?;
        }
        Ok(())
    }

    fn check_sender(&self, sender: Option<&str>) -> Result<(), Refusal> {
        let (Some(allowed), Some(sender)) = (&self.allowed_senders, sender) else { return Ok(()) };
        if allowed.iter().any(|allowed| allowed.eq_ignore_ascii_case(sender)) {
            return Ok(());
        }
        Err(forbidden(
            "sender",
            "sender_not_allowed",
            "is not one that this organization may use",
            "Name one of the organization's allowed_senders, or none.",
        ))
    }

    fn check_destination(&self, mobile: &str) -> Result<(), Refusal> {
        let destination = Destination::new(mobile);
        let blocked = self.blocked_destinations.as_ref().is_some_and(|rules| destination.matches(rules));
        let allowed = self.allowed_destinations.as_ref().is_none_or(|rules| destination.matches(rules));
        if allowed && !blocked {
            return Ok(());
        }
        Err(forbidden(
            "mobile",
            "destination_not_allowed",
            "is in a country or range that this organization may not send to",
            "The view sms_outbox.limits shows allowed_destinations and blocked_destinations; sms_outbox.set_organization() changes them.",
        ))
    }

    fn check_suppressed(&self, spi: &Spi, organization: Datum, new: &[&Payload<'_>]) -> Result<(), Refused> {
        if !self.suppresses {
            return Ok(());
        }
        let mobiles = array(new.iter().map(|message| text_datum(&message.mobile)), pg_sys::TEXTOID);
        let rows = spi.execute(&FIRST_SUPPRESSED, &[Some(organization), Some(mobiles)]);
        let Some(place) = rows.get(0, 1) else { return Ok(()) };
        Err((
            place.value().saturating_sub(1),
            forbidden(
                "mobile",
                "recipient_suppressed",
                "this number is on the organization's suppression list",
                "sms_outbox.unsuppress() takes it off; an operator may SET LOCAL sms_outbox.override_limits = on.",
            ),
        ))
    }

    /// Within the hour before now, whenever the messages are due.
    fn check_recipients(
        &self,
        spi: &Spi,
        organization: Datum,
        now: Micros,
        new: &[&Payload<'_>],
    ) -> Result<(), Refused> {
        let Some(limit) = self.per_recipient_hour else { return Ok(()) };
        let mut order: Vec<usize> = (0..new.len()).collect();
        order.sort_by_key(|place| (&new[*place].mobile, *place));
        let groups: Vec<&[usize]> = order.chunk_by(|one, other| new[*one].mobile == new[*other].mobile).collect();
        let rows = spi.execute(
            &RECIPIENTS_OVER,
            &[
                Some(organization),
                Some(array(groups.iter().map(|group| text_datum(&new[group[0]].mobile)), pg_sys::TEXTOID)),
                Some(array(groups.iter().map(|group| Datum::from(group.len() as i32)), pg_sys::INT4OID)),
                Some(Datum::from(limit as i32)),
                Some(ids::datum(ids::floor(now - HOUR))),
                // Not the partitions of the days to come.
                Some(ids::datum(ids::floor(now + MINUTE))),
            ],
        );
        let over = (0..rows.count()).filter_map(|row| {
            let group = groups.get(rows.get(row, 1)?.value().checked_sub(1)?)?;
            let sent = rows.get(row, 2)?.value() as i32;
            let place = *group.get((limit as usize).saturating_sub(sent as usize))?;
            let free_at = rows.get(row, 3).map_or(now + HOUR, |id| ids::time_of(ids::from_datum(id)) + HOUR);
            Some((place, free_at))
        });
        let Some((place, free_at)) = over.min() else { return Ok(()) };
        Err((
            place,
            too_many(
                "recipient_per_hour",
                "mobile: this number has got as many messages within an hour as the organization may send it",
                format!("At most {limit} messages to one number within an hour (messages_per_recipient_hour)."),
                free_at - now,
            )
            .with_column("mobile"),
        ))
    }
}

fn forbidden(column: &'static str, code: &'static str, fault: &str, cure: &str) -> Refusal {
    Refusal::new(State::Forbidden, format!("{column}: {fault}")).with_column(column).with_code(code).with_hint(cure)
}

/// A refusal for now; `wait` says for how long.
pub(crate) fn too_many(code: &'static str, fault: &str, cure: String, wait: Micros) -> Refusal {
    Refusal::new(State::LimitReached, fault)
        .with_code(code)
        .with_detail(format!("retry_after_seconds: {}", (wait.max(1) + SECOND - 1) / SECOND))
        .with_hint(cure)
}

/// Whether limits do not hold for the caller: for an operator who says so. By the role that acts: an application that may
/// become operator by SET ROLE has to.
fn overridden() -> bool {
    settings::override_limits() && {
        // SAFETY: catalog look-ups through the syscache, in a transaction.
        unsafe {
            let operators = pg_sys::get_role_oid(c"sms_outbox_operator".as_ptr(), true);
            operators != Oid::INVALID && pg_sys::has_privs_of_role(pg_sys::GetOuterUserId(), operators)
        }
    }
}

/// `sms_outbox.overrides_limits()`.
fn overrides_limits(_: &Call) -> Reply {
    Ok(Some(Datum::from(overridden())))
}

sql_function!(overrides_limits_wrapper, pg_finfo_overrides_limits_wrapper, overrides_limits);
