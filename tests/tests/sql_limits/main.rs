//! Limits against abuse: each at its last allowed message and at the first refused one.

mod counts;
mod rules;

use anyhow::{Context, Result, ensure};
use serde_json::Value;
use sms_outbox_tests::{Queue, on_majors};
use tokio_postgres::error::DbError;

use counts::{
    counts_a_batch_as_its_messages, counts_by_day_of_the_zone, counts_by_minute, counts_by_recipient, counts_segments,
    counts_what_it_refuses, folds_what_it_counts, makes_nobody_wait_and_overshoots_by_what_is_open,
    replays_for_nothing,
};
use rules::{
    goes_by_destination, goes_by_sender, keeps_limits_apart, lets_an_operator_override,
    retries_nobody_who_is_suppressed, says_what_is_no_limit, writes_to_nobody_who_is_suppressed,
};

on_majors! { ends:
    counts_by_minute, counts_by_day_of_the_zone, counts_segments, counts_by_recipient, counts_a_batch_as_its_messages,
    replays_for_nothing, goes_by_destination, goes_by_sender, writes_to_nobody_who_is_suppressed,
    retries_nobody_who_is_suppressed, lets_an_operator_override, makes_nobody_wait_and_overshoots_by_what_is_open,
    folds_what_it_counts, counts_what_it_refuses, keeps_limits_apart, says_what_is_no_limit,
}

pub(crate) async fn limit(queue: &Queue, limits: &str) -> Result<()> {
    queue.sql(&format!("SELECT sms_outbox.set_organization('shop', {limits})")).await
}

/// Not at the end of a minute: the count would begin anew in the middle of the test.
pub(crate) async fn in_one_minute(queue: &Queue) -> Result<()> {
    queue.sql("SELECT pg_sleep(CASE WHEN extract(second FROM clock_timestamp()) > 40 THEN 60.1 - extract(second FROM clock_timestamp()) ELSE 0 END)").await
}

pub(crate) fn call(text: &str, arguments: &str) -> String {
    format!("SELECT sms_outbox_enqueue('0501234567', '{text}', organization_id => 'shop'{arguments})")
}

/// SQLSTATE, code and field of a refusal that is none for ever: it says after how many seconds to come back.
pub(crate) fn later(error: &DbError) -> Result<(&str, &str, Option<&str>, i64)> {
    let detail = error.detail().context("a detail")?;
    let seconds = detail.strip_prefix("retry_after_seconds: ").context("nothing else")?.parse()?;
    ensure!(error.hint().is_some(), "a hint");
    ensure!(!error.message().contains("05012") && !error.message().contains("96650"), "no number in an error");
    Ok((error.code().code(), error.constraint().context("a code")?, error.column(), seconds))
}

/// SQLSTATE, code, field and message of a refusal for good.
pub(crate) fn never(error: &DbError) -> (&str, Option<&str>, Option<&str>) {
    assert!(!format!("{error:?}").contains("50123"), "no number in an error: {error:?}");
    (error.code().code(), error.constraint(), error.column())
}

pub(crate) async fn limits(queue: &Queue) -> Result<Value> {
    queue.rows("SELECT * FROM sms_outbox.limits WHERE organization_id = 'shop'").await?.pop().context("a row")
}
