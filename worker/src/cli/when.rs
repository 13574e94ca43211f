//! Times on the command line. What is relative is counted by the database's clock, like all that is due.

use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};
use tokio_postgres::Client;

use crate::outbox::postgres::operator::server;

/// A time as given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum When {
    /// This very moment.
    At(Timestamp),
    /// So long from now; negative: so long ago.
    FromNow(SignedDuration),
}

impl When {
    /// The moment that is meant.
    pub(super) async fn moment(self, client: &Client) -> anyhow::Result<Timestamp> {
        match self {
            Self::At(moment) => Ok(moment),
            Self::FromNow(duration) => Ok(server::now(client).await?.checked_add(duration)?),
        }
    }
}

/// The moment of an optional time.
pub(super) async fn moment(when: Option<When>, client: &Client) -> anyhow::Result<Option<Timestamp>> {
    match when {
        Some(when) => when.moment(client).await.map(Some),
        None => Ok(None),
    }
}

/// `2026-11-24T09:00:00+03:00`, or `2026-11-24 09:00` in this machine's time zone, or `+2h` from now, or `-2h` ago.
pub(super) fn parse(text: &str) -> Result<When, String> {
    let help = || {
        "write 2026-11-24T09:00:00+03:00, or '2026-11-24 09:00' in this machine's time zone, or +2h or -2h from now"
            .to_owned()
    };
    if text.starts_with(['+', '-']) {
        return text.parse().map(When::FromNow).map_err(|_| help());
    }
    if let Ok(moment) = text.parse() {
        return Ok(When::At(moment));
    }
    let local = text.parse::<DateTime>().map_err(|_| help())?;
    local.to_zoned(TimeZone::system()).map(|zoned| When::At(zoned.timestamp())).map_err(|_| help())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn times_are_read_in_the_usual_writings() {
        let moment = "2026-11-24T06:00:00Z".parse().expect("a moment");
        assert_eq!(parse("2026-11-24T09:00:00+03:00"), Ok(When::At(moment)));
        assert!(parse("2026-11-24 09:00").is_ok() && parse("2026-11-24").is_ok());
        assert_eq!(parse("+2h"), Ok(When::FromNow(SignedDuration::from_hours(2))));
        assert_eq!(parse("-90min"), Ok(When::FromNow(SignedDuration::from_mins(-90))));
        for bad in ["", "tomorrow", "infinity", "2026-13-01", "+", "+-2h x", "2h"] {
            assert!(parse(bad).is_err(), "{bad}");
        }
    }
}
