//! What an organization may not send is refused over HTTP with the status, the code and the time that the contract says.

use anyhow::{Result, ensure};
use reqwest::Method;
use serde_json::{Value, json};
use sms_outbox_tests::api::{Answer, Api, ask};
use sms_outbox_tests::{Cluster, Database, Major, on_majors};

on_majors! { ends: refusals_of_limits_have_a_code_and_a_time }

const OUTBOX: &str = "/api/v1/sms/outbox";

fn expect(answer: &Answer, status: u16, code: &str) -> Result<()> {
    ensure!(answer.status == status && answer.code() == code, "expected: {status} {code}; seen: {answer:?}");
    let seconds = answer.header("retry-after").parse::<u32>();
    ensure!(seconds.is_ok_and(|seconds| (1..=86_400).contains(&seconds)) == (status == 429), "{answer:?}");
    Ok(())
}

fn sms(mobile: &str) -> Value {
    json!({"mobile": mobile, "message": "Order 1", "sender": "MyShop"})
}

async fn refusals_of_limits_have_a_code_and_a_time(major: Major) -> Result<()> {
    let cluster = Cluster::start_new(major).await?;
    let database = Database::create(&cluster, "limits").await?;
    let config = json!({"token": "x", "base_url": "http://127.0.0.1:9/sandbox", "allow_http": true});
    let api = Api::start(&database).await?;
    for (organization, limits, code, status) in [
        ("minute", "messages_per_minute => 1", "messages_per_minute", 429),
        ("day", "messages_per_day => 1", "messages_per_day", 429),
        ("hour", "messages_per_recipient_hour => 1", "recipient_per_hour", 429),
        ("segments", "segments_per_day => 1", "segments_per_day", 429),
        ("place", "allowed_destinations => '{GB}'", "destination_not_allowed", 403),
        ("sender", "allowed_senders => '{Other}'", "sender_not_allowed", 403),
    ] {
        database.sql(&format!("SELECT sms_outbox.set_organization('{organization}', {limits})")).await?;
        let install = "SELECT sms_outbox.install_app($1, 'sandbox', 'main', $2)";
        database.value::<i64>(install, &[&organization, &config]).await?;
        let key = Api::key(&database, organization, &["enqueue"]).await?;
        if status == 429 {
            api.enqueue(&key, &sms("0501234567")).await?;
        }
        let refused = api.post(OUTBOX, &key, &sms("0501234567")).await?;
        expect(&refused, status, code)?;
        ensure!(!refused.text.contains("1234567"), "no number in an error: {refused:?}");
        let batch = api.post(&format!("{OUTBOX}/batch"), &key, &json!({"messages": [sms("0501234567")]})).await?;
        expect(&batch, status, code)?;
    }
    let install = "SELECT sms_outbox.install_app('shop', 'sandbox', 'main', $1)";
    database.value::<i64>(install, &[&config]).await?;
    let key = Api::key(&database, "shop", &["enqueue", "operate"]).await?;
    let id = api.enqueue(&key, &sms("0501234567")).await?.id()?.to_owned();
    let post = async |what: &str| ask(api.request(Method::POST, &format!("{OUTBOX}/{id}/{what}"), &key)).await;
    ensure!(post("cancel").await?.status == 200);
    database.sql("SELECT sms_outbox.suppress('shop', '0501234567')").await?;
    expect(&api.post(OUTBOX, &key, &sms("0501234567")).await?, 403, "recipient_suppressed")?;
    expect(&post("retry").await?, 403, "recipient_suppressed")?;
    Ok(())
}
