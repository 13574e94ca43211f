//! Where requests may go, and how credentials stand in their headers.

use reqwest::Url;
use reqwest::header::HeaderValue;

use super::config::{BASE_URL, ConfigError};
use super::egress;

/// Reads an address that requests may go to: https, or http where that was allowed or never leaves this machine.
pub(super) fn address(field: &str, text: &str, allow_http: bool) -> Result<Url, ConfigError> {
    let url = Url::parse(text).ok().filter(|url| url.has_host()).ok_or_else(|| {
        ConfigError::new(field, "is not an address", "write it like https://gateway.example.com/path")
    })?;
    match url.scheme() {
        "https" => {}
        "http" if allow_http || egress::is_loopback(&url) => {}
        "http" => {
            return Err(ConfigError::new(
                field,
                "is plain http",
                "use https, or set allow_http to true and accept the risk",
            ));
        }
        _ => {
            return Err(ConfigError::new(field, "is neither https nor http", "use https"));
        }
    }
    if !url.username().is_empty() || url.password().is_some() || url.fragment().is_some() {
        return Err(ConfigError::new(
            field,
            "contains credentials or a fragment",
            "give credentials in their own fields",
        ));
    }
    Ok(url)
}

/// The address of one call of an API: the given base, or the provider's own, and the path behind it.
pub(super) fn endpoint(base_url: Option<&str>, own: &str, allow_http: bool, path: &str) -> Result<Url, ConfigError> {
    let mut url = address(BASE_URL.name, base_url.unwrap_or(own), allow_http)?;
    if url.query().is_some() {
        return Err(ConfigError::new(BASE_URL.name, "contains a query", "give the address up to the path alone"));
    }
    let full = format!("{}{path}", url.path().trim_end_matches('/'));
    url.set_path(&full);
    Ok(url)
}

/// A header value that no `Debug` shows.
pub(super) fn header(field: &str, text: &str) -> Result<HeaderValue, ConfigError> {
    let mut value = HeaderValue::from_str(text).map_err(|_| {
        ConfigError::new(field, "cannot stand in an HTTP header", "use plain ASCII without line breaks")
    })?;
    value.set_sensitive(true);
    Ok(value)
}

/// `Bearer <token>`.
pub(super) fn bearer(field: &str, token: &str) -> Result<HeaderValue, ConfigError> {
    header(field, &format!("Bearer {token}"))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn address_takes_https_and_loopback_http_alone() {
        for good in ["https://api.example.com", "http://127.0.0.1:8025/x", "http://localhost", "http://[::1]:1"] {
            assert!(address("base_url", good, false).is_ok(), "{good}");
        }
        for bad in
            ["http://api.example.com", "ftp://h", "gateway", "https://u:p@h", "https://h/#f", "http://127.0.0.1.nip.io"]
        {
            let error = address("base_url", bad, false).unwrap_err();
            assert_eq!(error.field, "base_url", "{bad}");
        }
        assert!(address("base_url", "http://api.example.com", true).is_ok());
    }

    #[test]
    fn endpoint_keeps_the_base_path() {
        let url = endpoint(Some("http://127.0.0.1:9/mora/"), "https://own.example", false, "/api/v1/sendsms").unwrap();
        assert_eq!(url.as_str(), "http://127.0.0.1:9/mora/api/v1/sendsms");
        assert_eq!(endpoint(None, "https://own.example", false, "/v1").unwrap().as_str(), "https://own.example/v1");
        assert!(endpoint(Some("https://h/?key=1"), "https://own.example", false, "/v1").is_err());
    }
}
