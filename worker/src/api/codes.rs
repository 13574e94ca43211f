//! The stable codes of problem documents: the one table of them. docs/guides/http.md shows it, and a test compares.

use axum::http::StatusCode;

macro_rules! codes {
    ($($name:ident $status:ident $text:literal $meaning:literal;)+) => {
        /// What went wrong, for programs.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[allow(missing_docs, reason = "the table says what each means")]
        pub enum Code {
            $($name,)+
        }

        impl Code {
            /// All of them, by status.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The word in problem documents.
            pub const fn text(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// The status that it is answered with.
            pub const fn status(self) -> StatusCode {
                match self { $(Self::$name => StatusCode::$status,)+ }
            }

            /// What it means, and what to do.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => $meaning,)+ }
            }
        }
    };
}

codes! {
    NotJson BAD_REQUEST "not_json"
        "The body is not JSON in UTF-8.";
    OrganizationRequired BAD_REQUEST "organization_required"
        "The token is good for several organizations: name one of them in the header X-Organization-ID.";
    Unauthorized UNAUTHORIZED "unauthorized"
        "No API key or token, or none that is valid: unknown, wrong, expired and revoked ones look alike.";
    MissingScope FORBIDDEN "missing_scope"
        "The key or token may not do this: it needs the scope enqueue (POST), read (GET) or operate (cancel, retry).";
    OrganizationMismatch FORBIDDEN "organization_mismatch"
        "X-Organization-ID names an organization that the key or token is not good for.";
    RecipientSuppressed FORBIDDEN "recipient_suppressed"
        "The recipient is on the organization's suppression list, having opted out. Do not try again.";
    DestinationNotAllowed FORBIDDEN "destination_not_allowed"
        "The organization may not send to this country or prefix.";
    SenderNotAllowed FORBIDDEN "sender_not_allowed"
        "The organization may not send under this sender.";
    NotFound NOT_FOUND "not_found"
        "The organization has no message with this id.";
    UnknownPath NOT_FOUND "unknown_path"
        "There is nothing at this path: see /docs.";
    MethodNotAllowed METHOD_NOT_ALLOWED "method_not_allowed"
        "The path does not take this method; the header Allow names those that it takes.";
    RequestTimeout REQUEST_TIMEOUT "request_timeout"
        "The body did not arrive in time. Nothing was done.";
    NoSmsApp CONFLICT "no_sms_app"
        "No SMS app is installed for the organization, or none of the preferred provider. Nothing was queued.";
    WrongState CONFLICT "wrong_state"
        "The message is not in a state that allows this: only a pending one can be canceled, only an ended one that was not sent can be retried.";
    TooLarge PAYLOAD_TOO_LARGE "too_large"
        "The body is larger than 1 MiB. Nothing was done.";
    UnsupportedMediaType UNSUPPORTED_MEDIA_TYPE "unsupported_media_type"
        "Send JSON, with the header Content-Type: application/json.";
    InvalidField UNPROCESSABLE_ENTITY "invalid_field"
        "A field is missing or bad: errors names it. Nothing was done.";
    UnknownField UNPROCESSABLE_ENTITY "unknown_field"
        "There is no field or parameter of this name: errors names it. Nothing was done.";
    DuplicateField UNPROCESSABLE_ENTITY "duplicate_field"
        "A field or parameter is given twice: errors names it. Nothing was done.";
    IdempotencyKeyConflict UNPROCESSABLE_ENTITY "idempotency_key_conflict"
        "The header Idempotency-Key and the field idempotency_key differ. Nothing was done.";
    MessagesPerMinute TOO_MANY_REQUESTS "messages_per_minute"
        "The organization's limit of messages a minute is reached. Nothing was queued; try again after Retry-After.";
    MessagesPerDay TOO_MANY_REQUESTS "messages_per_day"
        "The organization's limit of messages a day is reached. Nothing was queued; try again after Retry-After.";
    RecipientPerHour TOO_MANY_REQUESTS "recipient_per_hour"
        "The limit of messages to one recipient an hour is reached. Nothing was queued; try again after Retry-After.";
    SegmentsPerDay TOO_MANY_REQUESTS "segments_per_day"
        "The organization's budget of segments a day is spent. Nothing was queued; try again after Retry-After.";
    InternalError INTERNAL_SERVER_ERROR "internal_error"
        "A defect. The log of the API has it under the request_id. Nothing was queued.";
    DatabaseUnavailable SERVICE_UNAVAILABLE "database_unavailable"
        "The database cannot be reached, or has no room. Nothing was done; try again after Retry-After.";
    TryAgain SERVICE_UNAVAILABLE "try_again"
        "Another transaction was in the way. Nothing was done; try again.";
    Overloaded SERVICE_UNAVAILABLE "overloaded"
        "More requests at once than the API takes. Nothing was done; try again after Retry-After.";
    OutcomeUnknown SERVICE_UNAVAILABLE "outcome_unknown"
        "The connection to the database was lost before its answer: it may have been done. Repeating is safe with the same idempotency_key, which then gives the first message.";
    TokensUnavailable SERVICE_UNAVAILABLE "tokens_unavailable"
        "The keys that tokens are checked with are missing at this moment. API keys work.";
}

impl Code {
    /// The code that travels with an error of the database.
    pub fn named(text: &str) -> Option<Self> {
        Self::ALL.iter().copied().find(|code| code.text() == text)
    }
}

/// Answers that any call of `/api/v1` may get.
pub(super) const OF_EVERY_CALL: &[Code] = &[
    Code::OrganizationRequired,
    Code::Unauthorized,
    Code::MissingScope,
    Code::OrganizationMismatch,
    Code::InternalError,
    Code::DatabaseUnavailable,
    Code::TryAgain,
    Code::Overloaded,
    Code::TokensUnavailable,
];

/// Those of calls with a JSON body.
pub(super) const OF_BODIES: &[Code] = &[
    Code::NotJson,
    Code::RequestTimeout,
    Code::TooLarge,
    Code::UnsupportedMediaType,
    Code::InvalidField,
    Code::UnknownField,
    Code::DuplicateField,
];

/// Those of calls that queue.
pub(super) const OF_ENQUEUE: &[Code] = &[
    Code::RecipientSuppressed,
    Code::DestinationNotAllowed,
    Code::SenderNotAllowed,
    Code::NoSmsApp,
    Code::MessagesPerMinute,
    Code::MessagesPerDay,
    Code::RecipientPerHour,
    Code::SegmentsPerDay,
    Code::OutcomeUnknown,
];
