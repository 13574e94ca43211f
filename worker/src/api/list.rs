//! `GET /api/v1/sms/outbox`: pages of messages, newest first. A cursor holds the last id of its page: new messages have
//! greater ids, so what arrives between two pages neither moves nor repeats a row.

use std::str::FromStr;

use axum::Json;
use axum::extract::{RawQuery, State};
use axum::http::HeaderMap;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use jiff::Timestamp;
use serde::Serialize;
use utoipa::ToSchema;
use uuid::Uuid;

use super::auth::Scope;
use super::codes::Code;
use super::docs::ListProblems;
use super::message::{DispatchStatus, Message};
use super::problem::Problem;
use super::service::{Effect, Service};
use crate::message::MessageId;
use crate::outbox::postgres::api::Listing;

const MOST: i32 = 100;
const USUAL: i32 = 20;

/// First byte of a cursor: what the rest of it is.
const AFTER_AN_ID: u8 = 1;

/// A page of messages.
#[derive(Serialize, ToSchema)]
pub(super) struct Page {
    /// The messages, newest first.
    #[schema(max_items = 100)]
    data: Vec<Message>,
    /// How many they are.
    #[schema(example = 20, minimum = 0, maximum = 100)]
    count: usize,
    /// How many were asked for.
    #[schema(example = 20, minimum = 1, maximum = 100)]
    limit: i32,
    /// Whether there are older ones.
    #[schema(example = true)]
    has_next: bool,
    /// Give it as `cursor` for the next page; `null` on the last one.
    #[schema(required, example = "AQGY-f5C0lvOPbgV3LPJpDA")]
    next_cursor: Option<String>,
}

/// List messages
///
/// Newest first. An empty parameter means: not given.
#[utoipa::path(get, path = "/api/v1/sms/outbox", tag = "Messages", operation_id = "list",
    params(
        ("dispatch_status" = Option<DispatchStatus>, Query, description = "Only those in this state."),
        ("mobile" = Option<String>, Query, description = "Only those to this number, in any usual writing, such as `966501234567`.", max_length = 64),
        ("created_after" = Option<String>, Query, format = DateTime, description = "Only those queued at this time or later: RFC 3339, such as `2026-11-23T00:00:00Z`."),
        ("created_before" = Option<String>, Query, format = DateTime, description = "Only those queued before this time: RFC 3339, such as `2026-11-24T00:00:00Z`."),
        ("limit" = Option<i32>, Query, description = "Most messages of the page; 20 by default.", minimum = 1, maximum = 100, example = 20),
        ("cursor" = Option<String>, Query, description = "`next_cursor` of the page before, with the same other parameters.", max_length = 64),
    ),
    responses((status = 200, description = "A page of messages.", body = Page), ListProblems))]
pub(super) async fn list(
    State(service): State<Service>,
    headers: HeaderMap,
    RawQuery(query): RawQuery,
) -> Result<Json<Page>, Problem> {
    let entry = service.admit(&headers, Scope::Read).await?;
    let (listing, limit) = match read(query.as_deref().unwrap_or_default()) {
        Ok(read) => read,
        Err(problem) => return Err(service.refuse(&entry, problem).await),
    };
    let mut data: Vec<Message> = service.answered(Effect::Reads, service.database().page(&entry, listing).await)?;
    // One more row than asked for tells whether there are more.
    let most = usize::try_from(limit).unwrap_or_default();
    let has_next = data.len() > most;
    data.truncate(most);
    let next_cursor = data.last().filter(|_| has_next).and_then(Message::id).map(cursor_of);
    Ok(Json(Page { count: data.len(), limit, has_next, next_cursor, data }))
}

fn read(query: &str) -> Result<(Listing, i32), Problem> {
    let pairs: Vec<(String, String)> =
        serde_urlencoded::from_str(query).map_err(|_| Problem::invalid("query", "cannot be read"))?;
    let (mut listing, mut limit, mut seen) = (Listing::default(), USUAL, Vec::new());
    for (name, value) in pairs {
        if value.contains('\0') {
            return Err(Problem::invalid(shown(&name), "holds the character NUL (%00)"));
        }
        let given = Some(value).filter(|value| !value.is_empty());
        match name.as_str() {
            "dispatch_status" => listing.dispatch_status = given,
            "mobile" => listing.mobile = given,
            "created_after" => listing.created_after = given.map(|text| time(&name, &text)).transpose()?,
            "created_before" => listing.created_before = given.map(|text| time(&name, &text)).transpose()?,
            "limit" => limit = given.map_or(Ok(USUAL), |text| count(&text))?,
            "cursor" => listing.before = given.map(|text| id_of(&text)).transpose()?,
            _ => {
                let fault = "is no parameter here; there are dispatch_status, mobile, created_after, created_before, limit, cursor";
                return Err(Problem::of_field(Code::UnknownField, shown(&name), fault));
            }
        }
        if seen.contains(&name) {
            return Err(Problem::of_field(Code::DuplicateField, name, "is given twice"));
        }
        seen.push(name);
    }
    listing.rows = limit + 1;
    Ok((listing, limit))
}

/// A parameter's name is the caller's own text.
fn shown(name: &str) -> String {
    name.chars().filter(|c| !c.is_control()).take(64).collect()
}

fn time(name: &str, text: &str) -> Result<Timestamp, Problem> {
    let time = Timestamp::from_str(text).map_err(|_| {
        Problem::invalid(
            name,
            "is not RFC 3339, like 2026-11-23T09:00:00Z or, with + as %2B, 2026-11-23T12:00:00%2B03:00",
        )
    })?;
    // All messages are younger than that, and the database knows no earlier times than 4713 BC.
    Ok(time.max(Timestamp::UNIX_EPOCH))
}

fn count(text: &str) -> Result<i32, Problem> {
    let number = text.parse().ok().filter(|number| (1..=MOST).contains(number));
    number.ok_or_else(|| Problem::invalid("limit", "is not a whole number from 1 to 100"))
}

fn cursor_of(id: MessageId) -> String {
    let mut bytes = vec![AFTER_AN_ID];
    bytes.extend_from_slice(id.0.as_bytes());
    URL_SAFE_NO_PAD.encode(bytes)
}

fn id_of(cursor: &str) -> Result<MessageId, Problem> {
    let bytes = URL_SAFE_NO_PAD.decode(cursor).ok();
    let id = bytes.as_deref().and_then(<[u8]>::split_first).filter(|(kind, _)| **kind == AFTER_AN_ID);
    let id = id.and_then(|(_, id)| Uuid::from_slice(id).ok()).map(MessageId);
    id.ok_or_else(|| Problem::invalid("cursor", "is no cursor of ours; give next_cursor of the page before as it came"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_read_as_it_was_written() {
        let id: MessageId = "r01m84wd39be94sbg97t2cw9nr4".parse().unwrap();
        let (listing, limit) = read(&format!("limit=5&mobile=&cursor={}", cursor_of(id))).unwrap();
        assert_eq!((listing.before, limit, listing.rows, listing.mobile), (Some(id), 5, 6, None));
        for bad in
            ["r01m84wd39be94sbg97t2cw9nr4", "AQ", "AA==", "%21", &cursor_of(id)[1..], &format!("{}A", cursor_of(id))]
        {
            assert_eq!(id_of(bad).unwrap_err().code, Code::InvalidField, "{bad}");
        }
    }

    #[test]
    fn parameters_are_known_given_once_and_in_bounds() {
        for (query, code, field) in [
            ("limit=0", Code::InvalidField, "limit"),
            ("limit=101", Code::InvalidField, "limit"),
            ("limit=1e1", Code::InvalidField, "limit"),
            ("limit=1&limit=1", Code::DuplicateField, "limit"),
            ("page=2", Code::UnknownField, "page"),
            ("created_after=yesterday", Code::InvalidField, "created_after"),
            ("created_after=2026-11-23T00:00:00+03:00", Code::InvalidField, "created_after"),
            ("mobile=05%00", Code::InvalidField, "mobile"),
        ] {
            let problem = read(query).expect_err(query);
            assert_eq!((problem.code, problem.errors()[0].field.as_str()), (code, field), "{query}");
        }
        let (listing, limit) = read("created_after=-005000-01-01T00:00:00Z&limit=").unwrap();
        assert_eq!((listing.created_after, limit), (Some(Timestamp::UNIX_EPOCH), USUAL));
    }
}
