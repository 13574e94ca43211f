//! Everything of a request but its headers and body: methods, paths, ids, parameters.

use anyhow::{Context, Result};
use serde_json::json;
use sms_outbox_tests::{Api, Major, queue};

use crate::fixture::{Fixture, OUTBOX};
use crate::raw;

/// A request and how it is refused.
pub(crate) struct Row {
    name: String,
    bytes: Vec<u8>,
    status: u16,
    code: &'static str,
    field: &'static str,
}

impl Fixture {
    pub(crate) fn row(
        &self,
        name: impl Into<String>,
        bytes: Vec<u8>,
        status: u16,
        code: &'static str,
        field: &'static str,
    ) -> Row {
        Row { name: name.into(), bytes, status, code, field }
    }

    /// GET of the list with these parameters.
    fn listing(&self, query: &str, code: &'static str, field: &'static str) -> Row {
        let shown: String = query.chars().take(60).collect();
        self.row(shown, self.get(&format!("{OUTBOX}?{query}")), 422, code, field)
    }

    pub(crate) async fn check(&self, rows: Vec<Row>) -> Result<()> {
        let mut faults = Vec::new();
        for Row { name, bytes, status, code, field } in rows {
            let answer = self.send(&bytes).await.with_context(|| name.clone())?;
            let found = (answer.status, answer.code(), answer.field());
            if (found.0, found.1.as_str(), found.2.as_str()) != (status, code, field) {
                faults.push(format!("{name}: {found:?}, not {:?}", (status, code, field)));
            }
            if answer.header("content-type") != Some("application/problem+json") {
                faults.push(format!("{name}: no problem document: {}", answer.head));
            }
        }
        assert!(faults.is_empty(), "{} rows:\n{}", faults.len(), faults.join("\n"));
        self.assert_calm();
        Ok(())
    }
}

pub(crate) async fn paths_and_methods(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let at = |method: &str, path: &str| raw::request(method, path, &[fixture.authorization()], b"");
    let mut rows = Vec::new();
    for path in [
        "/",
        "/api",
        "/api/v1/sms/outbox/",
        "/api/v1/sms/outboxes",
        "/api/v2/sms/outbox",
        "//api/v1/sms/outbox",
        "/API/v1/sms/outbox",
        "/api/v1/sms/outbox/x/y",
        "/api/v1/sms/outbox/x/cancel/",
        "/%2e%2e/%2e%2e/etc/passwd",
        "/metrics/x",
    ] {
        rows.push(fixture.row(path, at("GET", path), 404, "unknown_path", ""));
    }
    for (method, path) in [
        ("PUT", OUTBOX),
        ("DELETE", OUTBOX),
        ("PATCH", OUTBOX),
        ("TRACE", OUTBOX),
        ("BREW", OUTBOX),
        ("get", OUTBOX),
        ("GET", "/api/v1/sms/outbox/x/cancel"),
        ("POST", "/healthz"),
        ("DELETE", "/readyz"),
    ] {
        let answer = fixture.send(&at(method, path)).await?;
        assert!(answer.header("allow").is_some(), "{method} {path}: {}", answer.head);
        rows.push(fixture.row(format!("{method} {path}"), at(method, path), 405, "method_not_allowed", ""));
    }
    fixture.check(rows).await
}

/// Ids that are malformed, unknown, another organization's or deleted: one answer for all.
pub(crate) async fn ids(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    fixture.install("bank", "main").await?;
    let theirs = queue::enqueue(fixture.admin(), "bank", "secret").await?;
    let (own, gone) = (fixture.enqueue("a").await?, fixture.enqueue("b").await?);
    assert_eq!(fixture.send(&fixture.get(&format!("{OUTBOX}/{own}"))).await?.status, 200);
    // As retention leaves it: nothing of the message is there.
    fixture.sql(&format!("DELETE FROM sms_outbox.ready WHERE id = '{gone}'")).await?;
    fixture.sql(&format!("DELETE FROM sms_outbox.message WHERE id = '{gone}'")).await?;
    let flipped = format!("{}{}", &own[..26], if own.ends_with('0') { "1" } else { "0" });
    let long = "r".repeat(10_000);
    let ids = [
        theirs.as_str(),
        &gone,
        &flipped,
        "x",
        "r",
        "R",
        "0",
        "-1",
        "null",
        "%20",
        "%00",
        "%2e%2e",
        "%ff",
        "%C0%AF",
        "%F0%9F%99%82",
        "%",
        "r0000000000000000000000000u",
        "rzzzzzzzzzzzzzzzzzzzzzzzzzz",
        "'%20OR%20'1'='1",
        "01890a5d-ac96-774b-bcce-b302099a8057",
        &own[1..],
        &own[..26],
        &format!("{own}0"),
        &format!("{own}%0a"),
        &format!("%20{own}"),
        &own.to_uppercase(),
        &long,
    ];
    let mut answers = Vec::new();
    for id in ids {
        for (method, path) in [
            ("GET", format!("{OUTBOX}/{id}")),
            ("POST", format!("{OUTBOX}/{id}/cancel")),
            ("POST", format!("{OUTBOX}/{id}/retry")),
        ] {
            let answer = fixture.send(&raw::request(method, &path, &[fixture.authorization()], b"")).await?;
            let mut body = answer.json();
            body["request_id"] = json!("");
            answers.push((
                format!("{} {body}", answer.status),
                format!("{method} {}", path.chars().take(80).collect::<String>()),
            ));
        }
    }
    let (expected, _) = answers[0].clone();
    let others: Vec<_> = answers.iter().filter(|(answer, _)| *answer != expected).collect();
    assert!(others.is_empty(), "not as the id of another organization ({expected}):\n{others:#?}");
    assert!(expected.starts_with("404 ") && expected.contains("not_found"), "{expected}");
    assert_eq!(fixture.status(&theirs).await?, "pending");
    fixture.assert_calm();
    Ok(())
}

pub(crate) async fn parameters(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let mut rows = Vec::new();
    for limit in
        ["0", "-1", "101", "1.5", "1e1", "abc", "+1", "%201", "0x10", "99999999999999999999", "NaN", "٥", "null"]
    {
        rows.push(fixture.listing(&format!("limit={limit}"), "invalid_field", "limit"));
    }
    let id = fixture.enqueue("a").await?;
    let cursors = [
        "x",
        "%00",
        "%ff",
        "AA",
        "AQ",
        "AQ==",
        "AQAA",
        "=",
        "..%2F",
        id.as_str(),
        "AAAAAAAAAAAAAAAAAAAAAAA",
        "1",
        "null",
        "eyJpZCI6MX0",
        "'%20OR%201=1--",
    ];
    for cursor in cursors {
        rows.push(fixture.listing(&format!("cursor={cursor}"), "invalid_field", "cursor"));
    }
    rows.push(fixture.listing(&format!("cursor={}", "A".repeat(30_000)), "invalid_field", "cursor"));
    for time in [
        "x",
        "now",
        "infinity",
        "2026-11-23",
        "2026-13-01T00:00:00Z",
        "2026-11-23T00:00:00",
        "1",
        "2026-11-23T00:00:00+03:00",
        "%00",
    ] {
        rows.push(fixture.listing(&format!("created_after={time}"), "invalid_field", "created_after"));
        rows.push(fixture.listing(&format!("created_before={time}"), "invalid_field", "created_before"));
    }
    for status in ["lost", "Pending", "PENDING", "pending,sent", "%27", "%00", "1"] {
        rows.push(fixture.listing(&format!("dispatch_status={status}"), "invalid_field", "dispatch_status"));
    }
    for mobile in ["x", "12", "%2B", "%00", "050123456789012345678", "9665%2501234567"] {
        rows.push(fixture.listing(&format!("mobile={mobile}"), "invalid_field", "mobile"));
    }
    rows.extend([
        fixture.listing("limit=5&limit=5", "duplicate_field", "limit"),
        fixture.listing("cursor=&cursor=", "duplicate_field", "cursor"),
        fixture.listing("page=2", "unknown_field", "page"),
        fixture.listing("organization_id=bank", "unknown_field", "organization_id"),
        fixture.listing("Limit=5", "unknown_field", "Limit"),
        fixture.listing("limit[]=5", "unknown_field", "limit[]"),
        fixture.listing("=5", "unknown_field", ""),
    ]);
    fixture.check(rows).await?;
    for good in [
        "",
        "limit=&cursor=&mobile=&dispatch_status=&created_after=&created_before=",
        "limit=100",
        "limit=1",
        "mobile=%2B966501234567",
        "mobile=0501234567&dispatch_status=pending",
        "created_after=2026-11-23T00:00:00%2B03:00",
    ] {
        assert_eq!(fixture.send(&fixture.get(&format!("{OUTBOX}?{good}"))).await?.status, 200, "{good}");
    }
    Ok(())
}

/// One that may only look may not do the rest, whatever else is wrong with its requests.
pub(crate) async fn who_asks_comes_before_what(major: Major) -> Result<()> {
    let fixture = Fixture::new(major).await?;
    let reader = Api::key(&fixture, "shop", &["read"]).await?;
    let asked = |authorization: &str, body: &[u8]| {
        let length = body.len().to_string();
        raw::request("POST", OUTBOX, &[("Content-Length", &length), ("Authorization", authorization)], body)
    };
    let nobody = format!("smsk_000000000000_{}", "0".repeat(64));
    let mut rows = Vec::new();
    for body in [&b""[..], b"{", b"\xff", b"{\"mobile\":1}", &[b'['; 5000], &vec![b'x'; 2 << 20]] {
        let name = format!("{} bytes", body.len());
        rows.push(fixture.row(name.clone(), asked(&nobody, body), 401, "unauthorized", ""));
        rows.push(fixture.row(name, asked(&reader, body), 403, "missing_scope", ""));
    }
    for path in ["?limit=0", "?x=1", "/x", "/r0000000000000000000000000u"] {
        let get = raw::request("GET", &format!("{OUTBOX}{path}"), &[("Authorization", &nobody)], b"");
        rows.push(fixture.row(path, get, 401, "unauthorized", ""));
    }
    fixture.check(rows).await
}
