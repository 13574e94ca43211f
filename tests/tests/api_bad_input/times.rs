//! `datetime` in each form that is taken and each that is not, around a change of the clocks too.

use anyhow::{Context, Result};
use jiff::Timestamp;
use jiff::civil::DateTime;
use jiff::tz::TimeZone;
use serde_json::{Value, json};
use sms_outbox_tests::Major;

use crate::fixture::{Fixture, OUTBOX, with};

const ZONE: &str = "Europe/Berlin";

impl Fixture {
    /// Queues a message for this time and says which moment the database understood.
    async fn due(&self, datetime: &str) -> Result<Timestamp> {
        let body = with("datetime", json!(datetime)).to_string();
        let answer = self.send(&self.post(OUTBOX, body.as_bytes())).await?;
        assert_eq!(answer.status, 201, "{datetime}: {}", String::from_utf8_lossy(&answer.body));
        let id = answer.json()["id"].as_str().context("an id")?.to_owned();
        let shown = self.send(&self.get(&format!("{OUTBOX}/{id}"))).await?.json();
        let due = shown["datetime"].as_str().with_context(|| format!("{datetime}: {shown}"))?;
        assert!(due.ends_with('Z'), "{due}");
        Ok(due.parse()?)
    }

    async fn refusal(&self, field: &'static str, value: Value) -> Result<Option<String>> {
        let body = with(field, value.clone()).to_string();
        let answer = self.send(&self.post(OUTBOX, body.as_bytes())).await?;
        let found = (answer.status, answer.code(), answer.field());
        let expected = (422, "invalid_field".to_owned(), field.to_owned());
        Ok((found != expected).then(|| format!("{field}: {value}: {found:?}")))
    }
}

pub(crate) async fn forms_of_datetime(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    // A year ahead, so that both changes of the clocks are in reach whenever this runs.
    let limit = format!("ALTER DATABASE \"{}\" SET sms_outbox.schedule_limit = '400d'", fixture.name());
    fixture.sql(&limit).await?;
    fixture.sql(&format!("SELECT sms_outbox.set_organization('shop', time_zone => '{ZONE}')")).await?;

    let zone = TimeZone::get(ZONE)?;
    let now: Timestamp = fixture.value("SELECT now()", &[]).await?;
    let day = now.checked_add(jiff::SignedDuration::from_hours(48))?.to_zoned(zone.clone()).date();
    let noon: DateTime = day.at(12, 30, 0, 0);
    let local = noon.to_zoned(zone.clone())?.timestamp();
    let utc = noon.to_zoned(TimeZone::UTC)?.timestamp();
    let shifted = utc.checked_sub(jiff::SignedDuration::from_hours(3))?;
    for (form, expected) in [
        (format!("{day}T12:30:00Z"), utc),
        (format!("{day}t12:30:00z"), utc),
        (format!("{day} 12:30:00Z"), utc),
        (format!("{day}T12:30Z"), utc),
        (format!("{day}T12:30:00.000Z"), utc),
        (format!("{day}T12:30:00.000000000Z"), utc),
        (format!("{day}T12:30:00+03:00"), shifted),
        (format!("{day}T12:30:00-00:00"), utc),
        (format!("{day} 12:30"), local),
        (format!("{day} 12:30:00"), local),
        (format!("{day}T12:30"), local),
        (format!("{day}T12:30:00"), local),
        (format!("{day}T12:30:00.0"), local),
    ] {
        assert_eq!(fixture.due(&form).await?, expected, "{form}");
    }
    // The hour that is skipped in spring, and the one that comes twice in autumn: as PostgreSQL's AT TIME ZONE.
    let changes: Vec<_> = zone.following(now).take(2).map(|change| (change.timestamp(), change.offset())).collect();
    for (moment, after) in changes {
        let before = zone.to_offset(moment.checked_sub(jiff::SignedDuration::from_secs(1))?);
        let clocks =
            [before, after].map(|offset| offset.to_datetime(moment).checked_add(jiff::SignedDuration::from_mins(30)));
        for written in clocks {
            let written = written?.strftime("%Y-%m-%d %H:%M").to_string();
            let asked = "SELECT ($1::text::timestamp AT TIME ZONE $2::text)";
            let expected: Timestamp = fixture.value(asked, &[&written, &ZONE]).await?;
            assert_eq!(fixture.due(&written).await?, expected, "{written}");
        }
    }
    let refused = [
        "now",
        "today",
        "tomorrow 10:00",
        "infinity",
        "-infinity",
        "epoch",
        "allballs",
        "in 5 minutes",
        "P1D",
        "1767225600",
        "1767225600000",
        "12:30",
        "%D",
        "%D ",
        " %D 12:30",
        "%D 12:30 ",
        "%D  12:30",
        "%DT",
        "%DT12",
        "%DT12:3",
        "%DT12:30:",
        "%DT12:30:00.",
        "%DT12:30:00.Z",
        "%DT24:00:00",
        "%DT12:60:00",
        "%DT12:30:60Z",
        "%DT12:30:00 Z",
        "%DT12:30:00+3",
        "%DT12:30:00+0300",
        "%DT12:30:00+25:00",
        "%DT12:30:00 Europe/Berlin",
        "%DT12:30:00[Europe/Berlin]",
        "%D 12:30 CET",
        "%D 12:30 PM",
        "%D BC",
        "2027-02-30 10:00",
        "2027-13-01 10:00",
        "2027-00-01 10:00",
        "27-01-01 10:00",
        "01/02/2027 10:00",
        "2027-1-1 1:00",
        "٢٠٢٧-٠١-٠١ ١٠:٠٠",
        "2027-W01-1T10:00",
        "2027-001T10:00",
        "0000-01-01 00:00",
        "-2027-01-01 10:00",
        "99999-01-01 10:00",
        "9999-12-31 23:59",
        "0001-01-01T00:00:00+15:59",
        "1999-12-31 23:59:59",
        "'; SELECT pg_sleep(9); --",
    ];
    let mut faults = Vec::new();
    for form in refused {
        let text = form.replace("%D", &day.to_string());
        faults.extend(fixture.refusal("datetime", json!(text)).await?);
        // `valid_until` is read alike.
        faults.extend(fixture.refusal("valid_until", json!(text)).await?.filter(|_| text != "9999-12-31 23:59"));
    }
    faults.extend(fixture.refusal("datetime", json!("2".repeat(500_000))).await?);
    assert!(faults.is_empty(), "{} forms:\n{}", faults.len(), faults.join("\n"));
    // Up to a day ago is now.
    let ago = now.checked_sub(jiff::SignedDuration::from_hours(20))?;
    assert_eq!(fixture.due(&ago.to_string()).await?.as_second(), ago.as_second());
    let over = now.checked_sub(jiff::SignedDuration::from_hours(30))?;
    assert_eq!(fixture.refusal("datetime", json!(over.to_string())).await?, None);
    fixture.assert_calm();
    Ok(())
}
