//! What the API says of itself: the OpenAPI document, its page, and the table of codes.

use std::fs;

use anyhow::{Context, Result, ensure};
use reqwest::Method;
use serde_json::Value;
use sms_outbox_tests::api::{Api, ask};
use sms_outbox_tests::{Cluster, Database, Major, paths};
use sms_outbox_worker::api::codes::Code;

const SNAPSHOT: &str = "docs/openapi.json";
const GUIDE: &str = "docs/guides/http.md";

async fn api() -> Result<(Database, Api)> {
    let cluster = Cluster::start_new(Major::V18).await?;
    let database = Database::create(&cluster, "documents").await?;
    let api = Api::start(&database).await?;
    Ok((database, api))
}

/// Compares a file, or writes it where `UPDATE_DOCUMENTS` is set.
fn compare(file: &str, text: &str) -> Result<()> {
    let path = paths::checkout(file);
    if fs::read_to_string(&path).unwrap_or_default() == text {
        return Ok(());
    }
    if std::env::var_os("UPDATE_DOCUMENTS").is_some() {
        return Ok(fs::write(path, text)?);
    }
    anyhow::bail!("{file} is old: UPDATE_DOCUMENTS=1 make test-flow TEST=api_documents, and review the difference")
}

#[tokio::test]
async fn the_openapi_document_is_the_reviewed_one() -> Result<()> {
    let (_database, api) = api().await?;
    let answer = api.get("/openapi.json", "").await?;
    ensure!(answer.status == 200 && answer.header("content-type") == "application/json", "{:?}", answer.headers);
    ensure!(
        answer.json["openapi"].as_str().is_some_and(|version| version.starts_with("3.1")),
        "{}",
        answer.json["openapi"]
    );
    compare(SNAPSHOT, &format!("{}\n", answer.text.trim_end()))?;
    let mut faults = Vec::new();
    undescribed(&answer.json["components"]["schemas"], "schemas", &mut faults);
    for (path, item) in answer.json["paths"].as_object().context("paths")? {
        for (method, operation) in item.as_object().context("an item")? {
            for parameter in operation["parameters"].as_array().into_iter().flatten() {
                if parameter["description"].as_str().is_none_or(str::is_empty) {
                    faults.push(format!("{method} {path}: {}", parameter["name"]));
                }
            }
            if path.starts_with("/api/") {
                for status in ["401", "403", "500", "503"] {
                    if operation["responses"][status]["content"]["application/problem+json"].is_null() {
                        faults.push(format!("{method} {path}: no {status}"));
                    }
                }
                if operation["security"][0]["key"].is_null() {
                    faults.push(format!("{method} {path}: no security"));
                }
            }
        }
    }
    ensure!(faults.is_empty(), "{}", faults.join("\n"));
    Ok(())
}

/// Fields without a description, or, where they hold a plain value, without an example.
fn undescribed(schemas: &Value, place: &str, faults: &mut Vec<String>) {
    for (name, schema) in schemas.as_object().into_iter().flatten() {
        for (field, described) in schema["properties"].as_object().into_iter().flatten() {
            let place = format!("{place}.{name}.{field}");
            let described = if described["oneOf"].is_null() { described } else { &described["oneOf"][0] };
            if described["description"].as_str().is_none_or(str::is_empty) {
                faults.push(format!("{place} has no description"));
            }
            let elsewhere = !described["items"].is_null() || !described["$ref"].is_null();
            if described.get("example").is_none() && described.get("examples").is_none() && !elsewhere {
                faults.push(format!("{place} has no example"));
            }
        }
    }
}

#[tokio::test]
async fn the_page_is_served_whole_and_alone() -> Result<()> {
    let (_database, api) = api().await?;
    let page = api.get("/docs/", "").await?;
    ensure!(page.status == 200 && page.text.contains("swagger-ui"), "{page:?}");
    let policy = page.header("content-security-policy").to_owned();
    ensure!(policy.contains("default-src 'none'") && !policy.contains("http"), "{policy}");
    let mut files = Vec::new();
    for attribute in ["src=\"", "href=\""] {
        files.extend(page.text.split(attribute).skip(1).filter_map(|rest| rest.split('"').next()));
    }
    ensure!(files.len() >= 4, "{files:?}");
    ensure!(!page.text.contains("<script>"), "a script that the policy forbids");
    for file in files {
        ensure!(!file.contains("//"), "{file} is elsewhere");
        let answer = api.get(&format!("/docs/{}", file.trim_start_matches("./")), "").await?;
        ensure!(answer.status == 200, "{file}: {}", answer.status);
    }
    let settings = api.get("/docs/swagger-initializer.js", "").await?.text;
    ensure!(
        settings.contains("\"persistAuthorization\": true") || settings.contains("persistAuthorization: true"),
        "{settings}"
    );
    ensure!(settings.contains("/openapi.json"), "{settings}");
    Ok(())
}

#[tokio::test]
async fn what_is_not_there_is_a_problem_too() -> Result<()> {
    let (_database, api) = api().await?;
    for (method, path, status, code, allow) in [
        (Method::GET, "/nothing", 404, "unknown_path", ""),
        (Method::DELETE, "/api/v1/sms/outbox", 405, "method_not_allowed", "GET,HEAD,POST"),
        (Method::PUT, "/healthz", 405, "method_not_allowed", "GET,HEAD"),
        (Method::GET, "/api/v1/sms/outbox/batch/x", 404, "unknown_path", ""),
    ] {
        let request = api.request(method, path, "").header("x-request-id", "mine-1");
        let answer = ask(request).await?;
        ensure!(answer.status == status && answer.code() == code, "{path}: {answer:?}");
        ensure!(answer.header("content-type") == "application/problem+json", "{answer:?}");
        ensure!(answer.header("x-request-id") == "mine-1" && answer.json["request_id"] == "mine-1", "{answer:?}");
        let mut allowed: Vec<&str> = answer.header("allow").split(',').collect();
        allowed.sort_unstable();
        ensure!(allowed.join(",") == allow, "{path}: {answer:?}");
    }
    // An id that could forge a line of the log is not taken over.
    let answer = ask(api.request(Method::GET, "/nothing", "").header("x-request-id", "a b")).await?;
    ensure!(answer.header("x-request-id").len() == 36, "{answer:?}");
    Ok(())
}

#[test]
fn the_table_of_codes_is_the_codes() -> Result<()> {
    let mut table = String::from("| status | code | |\n| --- | --- | --- |\n");
    for code in Code::ALL {
        table += &format!("| {} | `{}` | {} |\n", code.status().as_u16(), code.text(), code.meaning());
    }
    let text = fs::read_to_string(paths::checkout(GUIDE))?;
    let (begin, end) = ("<!-- begin codes -->\n\n", "\n<!-- end codes -->");
    let (head, rest) = text.split_once(begin).context("no begin of the table")?;
    let (_, tail) = rest.split_once(end).context("no end of the table")?;
    compare(GUIDE, &format!("{head}{begin}{table}{end}{tail}"))
}
