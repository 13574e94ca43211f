//! Problem documents (RFC 9457): how every refusal is told. A handler answers with a [`Problem`]; the outermost layer
//! writes it, with the id of the request.

use std::borrow::Cow;

use axum::body::Body;
use axum::http::{HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Serialize;
use utoipa::ToSchema;

use super::auth::AuthRefusal;
use super::codes::Code;
use crate::outbox::postgres::api::{CallError, Refusal};

const MEDIA_TYPE: &str = "application/problem+json";

/// What is wrong with one field.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, ToSchema)]
pub(super) struct FieldError {
    /// The field or parameter. In a batch with its place, counted from 0.
    #[schema(example = "mobile")]
    pub(super) field: String,
    /// What is wrong with it, for people.
    #[schema(example = "is no valid mobile number")]
    pub(super) message: String,
}

/// Why a request is refused.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Problem {
    pub(super) code: Code,
    detail: Cow<'static, str>,
    errors: Vec<FieldError>,
    retry_after: Option<u32>,
}

/// Why a request was refused: RFC 9457, with a stable `code`.
#[derive(Serialize, ToSchema)]
#[schema(as = Problem)]
pub(super) struct Document<'a> {
    /// Always `about:blank`: the code says what happened.
    #[serde(rename = "type")]
    #[schema(example = "about:blank")]
    kind: &'static str,
    /// The words of the status.
    #[schema(example = "Unprocessable Entity")]
    title: &'a str,
    /// The status, as in the head of the answer.
    #[schema(example = 422, minimum = 400, maximum = 599)]
    status: u16,
    /// What went wrong, for programs: one of the table in docs/guides/http.md.
    #[schema(example = "invalid_field")]
    code: &'static str,
    /// What went wrong and what to do, for people.
    #[schema(example = "Give a mobile number such as 0501234567 or +966501234567.")]
    detail: &'a str,
    /// The bad fields, where fields are bad.
    #[serde(skip_serializing_if = "<[FieldError]>::is_empty")]
    #[schema(required = false)]
    errors: &'a [FieldError],
    /// The id of this request, also in the header X-Request-ID and in the API's log.
    #[schema(example = "8d1a9d1e-6ed7-4d52-9a3c-6a2f0b4f1f0e")]
    request_id: &'a str,
}

impl Problem {
    pub(super) fn new(code: Code) -> Self {
        let retry_after = match code {
            Code::DatabaseUnavailable | Code::OutcomeUnknown | Code::TokensUnavailable => Some(2),
            Code::Overloaded | Code::TryAgain => Some(1),
            _ => None,
        };
        Self { code, detail: Cow::Borrowed(code.meaning()), errors: Vec::new(), retry_after }
    }

    pub(super) fn with_detail(mut self, detail: impl Into<Cow<'static, str>>) -> Self {
        self.detail = detail.into();
        self
    }

    pub(super) fn with_errors(mut self, errors: Vec<FieldError>) -> Self {
        self.errors = errors;
        self
    }

    /// A bad field.
    pub(super) fn of_field(code: Code, field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::new(code).with_errors(vec![FieldError { field: field.into(), message: message.into() }])
    }

    /// A bad or missing value.
    pub(super) fn invalid(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self::of_field(Code::InvalidField, field, message)
    }

    /// The bad fields.
    #[cfg(test)]
    pub(super) fn errors(&self) -> &[FieldError] {
        &self.errors
    }

    /// The whole answer.
    pub(super) fn write(&self, request_id: &str) -> (HeaderValue, Body) {
        let status = self.code.status();
        let document = Document {
            kind: "about:blank",
            title: status.canonical_reason().unwrap_or_default(),
            status: status.as_u16(),
            code: self.code.text(),
            detail: &self.detail,
            errors: &self.errors,
            request_id,
        };
        let body = serde_json::to_vec(&document).unwrap_or_default();
        (HeaderValue::from_static(MEDIA_TYPE), Body::from(body))
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let mut response = self.code.status().into_response();
        let headers = response.headers_mut();
        if let Some(seconds) = self.retry_after {
            headers.insert(header::RETRY_AFTER, HeaderValue::from(seconds));
        }
        if response.status() == StatusCode::UNAUTHORIZED {
            response.headers_mut().insert(header::WWW_AUTHENTICATE, HeaderValue::from_static("Bearer"));
        }
        response.extensions_mut().insert(self);
        response
    }
}

impl From<AuthRefusal> for Problem {
    fn from(refusal: AuthRefusal) -> Self {
        Self::new(match refusal {
            AuthRefusal::Unauthorized => Code::Unauthorized,
            AuthRefusal::MissingScope(_) => Code::MissingScope,
            AuthRefusal::OrganizationRequired => Code::OrganizationRequired,
            AuthRefusal::OrganizationMismatch => Code::OrganizationMismatch,
            AuthRefusal::Unavailable => Code::TokensUnavailable,
        })
    }
}

impl From<CallError> for Problem {
    fn from(error: CallError) -> Self {
        match error {
            CallError::Away(_) | CallError::Busy => Self::new(Code::DatabaseUnavailable),
            CallError::Lost(_) => Self::new(Code::OutcomeUnknown),
            CallError::Unexpected(_) => Self::new(Code::InternalError),
            CallError::Refused(refusal) => Self::from(*refusal),
        }
    }
}

impl From<Refusal> for Problem {
    fn from(refusal: Refusal) -> Self {
        // A constraint of a table, whose name is no code of ours, tells nothing to a caller.
        if let Some(code) = refusal.code.as_deref().and_then(Code::named) {
            return Self::coded(code, refusal);
        }
        // PostgreSQL's own words may hold internals; those of the extension name the field.
        match &refusal.field {
            Some(_) if refusal.sqlstate.starts_with("22") => Self::coded(Code::InvalidField, refusal),
            _ if refusal.sqlstate.starts_with("22") => Self::new(Code::InvalidField),
            _ if refusal.is_passing() => Self::new(Code::TryAgain),
            _ if refusal.is_of_server() => Self::new(Code::DatabaseUnavailable),
            _ => Self::new(Code::InternalError),
        }
    }
}

impl Problem {
    fn coded(code: Code, refusal: Refusal) -> Self {
        let Refusal { field, message, detail, hint, .. } = refusal;
        let mut problem = Self::new(code);
        problem.retry_after = detail.as_deref().and_then(retry_after).or(problem.retry_after);
        match code {
            Code::Unauthorized | Code::NotFound => return problem,
            Code::WrongState => return problem.with_detail(message),
            _ => {}
        }
        if let Some(hint) = hint {
            problem.detail = Cow::Owned(hint);
        }
        if let Some(field) = field {
            problem.errors = vec![placed(field, message)];
        }
        problem
    }
}

/// The words begin with the field: `mobile: is empty`; of an element of a batch with its place: `messages[17].mobile: …`.
fn placed(field: String, message: String) -> FieldError {
    match message.split_once(": ") {
        Some((place, fault)) if place == field || place.starts_with("messages[") => {
            FieldError { field: place.to_owned(), message: fault.to_owned() }
        }
        _ => FieldError { field, message },
    }
}

/// `retry_after_seconds: 37`, anywhere in a detail.
fn retry_after(detail: &str) -> Option<u32> {
    let (_, rest) = detail.split_once("retry_after_seconds: ")?;
    rest.split(|c: char| !c.is_ascii_digit()).next()?.parse().ok()
}

#[cfg(test)]
mod tests;
