//! The provider seam: how an SMS becomes an HTTP request, and what the answer to it means.
//!
//! A [`Provider`] describes itself and opens an app's configuration into an [`Account`]; both are pure, so that samples
//! test them. [`http`] is the only place with a network. `docs/guides/write-a-provider.md` walks through a new one.

mod address;
pub mod config;
#[cfg(test)]
mod conformance;
pub mod credential;
pub mod egress;
pub mod generic_http;
pub mod http;
mod look_up;
pub mod mora;
pub mod redact;
pub mod sandbox;
pub mod seal;
pub mod taqnyat;
pub mod twilio;
pub mod verdict;

use std::fmt;

use reqwest::header::{CONTENT_TYPE, HeaderMap, HeaderValue};
use reqwest::{Method, Url};
use serde::Serialize;
use serde_json::Value;

pub use config::{ConfigError, Field};
pub use look_up::{Attempted, Found};
pub use verdict::{Response, Verdict};

use crate::message::{Body, MobileNumber};

/// One SMS as a provider needs it.
#[derive(Clone, Copy, Debug)]
pub struct Sms<'a> {
    /// Recipient; each provider writes it in its own form.
    pub mobile: &'a MobileNumber,
    /// Text.
    pub body: &'a Body,
    /// Sender that the message asks for; else the app's own.
    pub sender: Option<&'a str>,
    /// Names this attempt, for providers that keep a reference of the client's.
    pub reference: &'a str,
}

/// The one HTTP request of an attempt.
#[derive(Clone)]
pub struct Request {
    /// Method.
    pub method: Method,
    /// Address.
    pub url: Url,
    /// Headers, credentials included.
    pub headers: HeaderMap,
    /// Body.
    pub body: Vec<u8>,
    /// Whether it may go to this very machine where its URL says so. That of an API may, for the pretend provider and
    /// proxies; one that was written freely only where the operator allows it.
    pub to_loopback: bool,
}

impl Request {
    /// A POST of JSON.
    pub fn post_json(url: Url, body: &impl Serialize) -> Self {
        // Serializing our own wire types cannot fail: they have text keys, and no map of another kind.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self::new(Method::POST, url, body, "application/json")
    }

    /// A POST of form fields.
    pub fn post_form(url: Url, fields: &[(&str, &str)]) -> Self {
        Self::new(Method::POST, url, encode_form(fields), "application/x-www-form-urlencoded")
    }

    /// A GET, with these fields added to the address.
    pub fn get(mut url: Url, fields: &[(&str, &str)]) -> Self {
        url.query_pairs_mut().extend_pairs(fields);
        Self { method: Method::GET, url, headers: HeaderMap::new(), body: Vec::new(), to_loopback: true }
    }

    fn new(method: Method, url: Url, body: Vec<u8>, content_type: &'static str) -> Self {
        let headers = HeaderMap::from_iter([(CONTENT_TYPE, HeaderValue::from_static(content_type))]);
        Self { method, url, headers, body, to_loopback: true }
    }
}

impl fmt::Debug for Request {
    /// Shows neither query, headers nor body: all of them may hold credentials or the message.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let host = self.url.host_str().unwrap_or_default();
        write!(f, "Request({} {host}, {} bytes)", self.method, self.body.len())
    }
}

fn encode_form(fields: &[(&str, &str)]) -> Vec<u8> {
    // Pairs of texts cannot fail to serialize.
    serde_urlencoded::to_string(fields).unwrap_or_default().into_bytes()
}

/// A kind of provider: what it is called, what it asks for, and how its configuration is opened.
pub trait Provider: Send + Sync {
    /// The name by which apps and messages choose it.
    fn slug(&self) -> &'static str;

    /// Its name for people.
    fn name(&self) -> &'static str;

    /// Where its requests go when the configuration names no other address; `None` where it always does.
    fn own_address(&self) -> Option<&'static str> {
        None
    }

    /// The fields of its configuration.
    fn fields(&self) -> &'static [Field];

    /// Whether it can be asked what became of an attempt: then [`Account::look_up`] gives a request.
    fn looks_up(&self) -> bool {
        false
    }

    /// Checks a configuration. Every error names field, fault and cure, and shows no value.
    fn open(&self, config: &Value) -> Result<Box<dyn Account>, ConfigError>;
}

/// A provider with one app's configuration.
pub trait Account: Send + Sync {
    /// The request that sends this SMS, or why this app cannot send it; then nothing is sent.
    fn request(&self, sms: &Sms<'_>) -> Result<Request, Verdict>;

    /// What the answer to that request means.
    fn verdict(&self, sms: &Sms<'_>, response: &Response) -> Verdict;

    /// The request that asks what became of an attempt which ended as unclear: a read that never causes a send. `None` where
    /// the provider cannot be asked.
    fn look_up(&self, _: &Attempted<'_>) -> Option<Request> {
        None
    }

    /// What a successful answer to that request says of the attempt.
    fn found(&self, _: &Attempted<'_>, _: &Response) -> Found {
        Found::Nothing("the provider cannot be asked")
    }
}

/// All providers, by slug.
pub struct Registry {
    providers: &'static [&'static dyn Provider],
}

impl Registry {
    /// The providers that this worker knows.
    pub const fn new() -> Self {
        Self {
            providers: &[
                &taqnyat::Taqnyat,
                &mora::Mora,
                &twilio::Twilio,
                &generic_http::GenericHttp,
                &sandbox::Sandbox,
            ],
        }
    }

    /// The provider of this slug.
    pub fn get(&self, slug: &str) -> Option<&'static dyn Provider> {
        self.iter().find(|provider| provider.slug() == slug)
    }

    /// Every provider.
    pub fn iter(&self) -> impl Iterator<Item = &'static dyn Provider> {
        self.providers.iter().copied()
    }
}

impl Default for Registry {
    fn default() -> Self {
        Self::new()
    }
}

/// What the database's table of providers must hold: `[{"slug", "name", "looks_up", "config"}]`.
pub fn catalog() -> Value {
    Registry::new()
        .iter()
        .map(|provider| {
            serde_json::json!({
                "slug": provider.slug(),
                "name": provider.name(),
                "looks_up": provider.looks_up(),
                "config": config::describe(provider.fields()),
            })
        })
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slugs_are_unique_and_known() {
        let registry = Registry::new();
        let mut slugs: Vec<_> = registry.iter().map(|provider| provider.slug()).collect();
        assert!(slugs.iter().all(|slug| { registry.get(slug).is_some_and(|found| found.slug() == *slug) }));
        slugs.sort_unstable();
        slugs.dedup();
        assert_eq!(slugs.len(), registry.iter().count());
        assert!(registry.get("no-such").is_none());
    }

    /// The file is what the SQL table is written from. `UPDATE_CATALOG=1 cargo test catalog` writes it anew.
    #[test]
    fn catalog_file_is_current() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/src/provider/catalog.json");
        let now = format!("{:#}\n", catalog());
        if std::env::var_os("UPDATE_CATALOG").is_some() {
            std::fs::write(path, &now).unwrap();
        }
        assert_eq!(std::fs::read_to_string(path).unwrap_or_default(), now, "run with UPDATE_CATALOG=1");
    }

    #[test]
    fn debug_of_a_request_shows_only_where_it_goes() {
        let url = Url::parse("https://h.example/canary?key=canary").unwrap();
        let mut request = Request::post_form(url, &[("message", "canary")]);
        request.headers.insert("x-key", HeaderValue::from_static("canary"));
        assert_eq!(format!("{request:?}"), "Request(POST h.example, 14 bytes)");
    }
}
