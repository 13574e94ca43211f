//! For which organization a token acts: its claims, and the header that chooses among several.

use axum::http::HeaderMap;

use super::token::Claims;
use super::{AuthRefusal, ORGANIZATION_HEADER};

const MOST_CHARACTERS: usize = 64;

/// What `X-Organization-ID` asks for. Empty is not given. Sent twice it is joined, as HTTP does with any header: that is
/// no organization's id, so that it is refused, whichever of the two a proxy may have looked at.
pub(super) fn wanted(headers: &HeaderMap) -> Option<String> {
    let given = headers.get_all(ORGANIZATION_HEADER).iter().map(|value| String::from_utf8_lossy(value.as_bytes()));
    let joined = given.collect::<Vec<_>>().join(", ");
    (!joined.trim().is_empty()).then_some(joined)
}

/// The organization of a request, out of those of the token.
pub(super) fn choose(claims: &Claims, wanted: Option<&str>) -> Result<String, AuthRefusal> {
    let mut known: Vec<&str> = Vec::new();
    for id in claims.organization_id.iter().chain(claims.organization_ids.iter().flatten()) {
        // The issuer is trusted, but what it wrote would reach a setting of the database.
        if !is_id(id) {
            return Err(AuthRefusal::Unauthorized);
        }
        if !known.contains(&id.as_str()) {
            known.push(id);
        }
    }
    let chosen = match (wanted, known.as_slice()) {
        (_, []) => return Err(AuthRefusal::Unauthorized),
        (Some(wanted), known) => known.iter().find(|id| **id == wanted).ok_or(AuthRefusal::OrganizationMismatch)?,
        (None, [only]) => only,
        (None, _) => return Err(AuthRefusal::OrganizationRequired),
    };
    Ok((*chosen).to_owned())
}

fn is_id(text: &str) -> bool {
    (1..=MOST_CHARACTERS).contains(&text.len())
        && text.bytes().all(|b| b.is_ascii_alphanumeric() || matches!(b, b'_' | b'-' | b'.' | b':'))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn claims(json: &str) -> Claims {
        serde_json::from_str(json).expect("claims")
    }

    fn chosen(json: &str, wanted: Option<&str>) -> Result<String, AuthRefusal> {
        choose(&claims(json), wanted)
    }

    #[test]
    fn one_organization_needs_no_header() {
        let one = r#"{"iss":"i","organization_id":"shop"}"#;
        assert_eq!(chosen(one, None), Ok("shop".to_owned()));
        assert_eq!(chosen(one, Some("shop")), Ok("shop".to_owned()));
        assert_eq!(chosen(one, Some("other")), Err(AuthRefusal::OrganizationMismatch));
        let listed = r#"{"iss":"i","organization_ids":["shop","shop"],"organization_id":"shop"}"#;
        assert_eq!(chosen(listed, None), Ok("shop".to_owned()));
    }

    #[test]
    fn several_need_the_header() {
        let several = r#"{"iss":"i","organization_ids":["a","b"]}"#;
        assert_eq!(chosen(several, None), Err(AuthRefusal::OrganizationRequired));
        assert_eq!(chosen(several, Some("b")), Ok("b".to_owned()));
        for other in ["c", "a,b", "a, b", "A", "a ", "a\0", "'", "\u{fffd}"] {
            assert_eq!(chosen(several, Some(other)), Err(AuthRefusal::OrganizationMismatch), "{other}");
        }
    }

    #[test]
    fn none_or_a_malformed_one_is_no_organization() {
        let long = format!(r#"{{"iss":"i","organization_id":"{}"}}"#, "a".repeat(65));
        let cases = [
            r#"{"iss":"i"}"#,
            r#"{"iss":"i","organization_id":null}"#,
            r#"{"iss":"i","organization_ids":[]}"#,
            r#"{"iss":"i","organization_id":""}"#,
            r#"{"iss":"i","organization_id":"a b"}"#,
            r#"{"iss":"i","organization_ids":["a","b'"]}"#,
            long.as_str(),
        ];
        for json in cases {
            assert_eq!(chosen(json, None), Err(AuthRefusal::Unauthorized), "{json}");
            assert_eq!(chosen(json, Some("a")), Err(AuthRefusal::Unauthorized), "{json}");
        }
    }

    #[test]
    fn the_header_is_taken_once() {
        let mut headers = HeaderMap::new();
        assert_eq!(wanted(&headers), None);
        headers.append(ORGANIZATION_HEADER, "".parse().expect("a value"));
        assert_eq!(wanted(&headers), None);
        headers.insert(ORGANIZATION_HEADER, "a".parse().expect("a value"));
        assert_eq!(wanted(&headers).as_deref(), Some("a"));
        headers.append(ORGANIZATION_HEADER, "a".parse().expect("a value"));
        assert_eq!(wanted(&headers).as_deref(), Some("a, a"));
    }
}
