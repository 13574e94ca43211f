//! The shop's web front: an application elsewhere, which knows the API and no SQL of the outbox.

use std::time::Instant;

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sms_outbox_tests::api::ask;

use crate::shop::Order;
use crate::stage::Stage;

pub(crate) const OUTBOX: &str = "/api/v1/sms/outbox";

const FROM_THE_WEB: Order = Order {
    number: 1009,
    branch: "riyadh",
    mobile: "966501234509",
    to: "+966501234509",
    text: "Order 1009 is ready for pickup.",
    more: "",
};

/// An order of the web front: queued by POST, posted again as after a lost answer, and looked at by GET.
pub(crate) async fn play(stage: &mut Stage<'_>) -> Result<()> {
    let order = &FROM_THE_WEB;
    stage.terminal.step("An application elsewhere posts to the API, and posts again when in doubt: one SMS");
    stage.shop.place(&stage.database, order).await?;
    let body = json!({"mobile": order.mobile, "message": order.text, "idempotency_key": "order-1009", "meta": {"order": order.number}});
    stage.terminal.does(
        "curl",
        format!("POST {OUTBOX} {{\"mobile\":\"{}\", …, \"idempotency_key\":\"order-1009\"}}", order.mobile),
    );
    let since = Instant::now();
    let first = post(stage, &body).await?;
    ensure!(first.0 == 201 && first.1["idempotent_replay"] == false, "expected: 201, no replay; seen: {first:?}");
    let id = first.1["id"].as_str().unwrap_or_default().to_owned();
    stage.shop.journal.push(order.committed(&id)?);
    stage.wait_sent(&id, order, "taqnyat-sms").await?;
    stage.terminal.sees(format!("201, sent: taqnyat-sms accepted it for {}", order.to), since.elapsed());

    let since = Instant::now();
    let again = post(stage, &body).await?;
    ensure!(
        again.0 == 200 && again.1 == json!({"id": id, "dispatch_status": "sent", "idempotent_replay": true}),
        "expected: 200 and a replay of {id}, sent; seen: {again:?}"
    );
    let shown = stage.api.get(&format!("{OUTBOX}/{id}"), &stage.key).await?;
    ensure!(
        shown.status == 200 && shown.json["mobile"] == order.mobile && shown.json["dispatch_status"] == "sent",
        "expected: message {id}, sent; seen: {shown:?}"
    );
    let requests = stage.requests(order).await?;
    ensure!(requests == 1, "expected: 1 request at the providers for order 1009; seen: {requests}");
    stage.terminal.sees("posted again: 200, the same id, idempotent_replay = true, still 1 request", since.elapsed());

    let since = Instant::now();
    let refused = ask(stage.api.request(Method::GET, &format!("{OUTBOX}/{id}"), "")).await?;
    ensure!(refused.status == 401, "expected: 401 without a key; seen: {refused:?}");
    stage.terminal.sees("GET without the key: 401", since.elapsed());
    Ok(())
}

async fn post(stage: &Stage<'_>, body: &Value) -> Result<(u16, Value)> {
    let answer = stage.api.post(OUTBOX, &stage.key, body).await?;
    Ok((answer.status, answer.json))
}

/// Lines for a person to paste.
pub(crate) fn curl_lines(stage: &Stage<'_>) -> [String; 3] {
    let (url, key) = (stage.api.url(), &stage.key);
    let curl = format!("curl -s -H 'Authorization: Bearer {key}'");
    [
        format!(
            "{curl} -H 'Content-Type: application/json' {url}{OUTBOX} -d '{{\"mobile\": \"966501234597\", \"message\": \"Hello\", \"idempotency_key\": \"hello-1\"}}'"
        ),
        format!("{curl} '{url}{OUTBOX}?mobile=966501234597'"),
        format!("open {url}/docs in a browser, press Authorize and paste {key}"),
    ]
}
