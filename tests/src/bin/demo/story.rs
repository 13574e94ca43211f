//! The story up to the crash: what an application, a provider and an operator do on an ordinary day.

use std::time::{Duration, Instant};

use anyhow::{Result, ensure};
use serde_json::json;
use sms_outbox_tests::Sandbox;

use crate::shop::Order;
use crate::stage::Stage;

/// How long nothing may happen before it counts as never, until the reckoning looks again.
const WATCH: Duration = Duration::from_secs(1);

const CONFIRMED: Order = Order {
    number: 1001,
    branch: "riyadh",
    mobile: "050 123 4501",
    to: "+966501234501",
    text: "Order 1001 is confirmed.",
    more: "idempotency_key => 'order-1001'",
};

const LONDON: Order = Order {
    number: 1002,
    branch: "london",
    mobile: "07400 123456",
    to: "+447400123456",
    text: "Order 1002 is confirmed.",
    more: "",
};

const ROLLED_BACK: Order = Order {
    number: 1003,
    branch: "riyadh",
    mobile: "050 123 4503",
    to: "+966501234503",
    text: "Order 1003 is confirmed.",
    more: "",
};

const LATER: Order = Order {
    number: 1004,
    branch: "riyadh",
    mobile: "050 123 4504",
    to: "+966501234504",
    text: "Order 1004 can be picked up now.",
    more: "datetime => now() + interval '4 s'",
};

const ARABIC: Order = Order {
    number: 1005,
    branch: "riyadh",
    mobile: "٠٥٠١٢٣٤٥٠٥",
    to: "+966501234505",
    text: "طلبك رقم ١٠٠٥ جاهز للاستلام من فرع الرياض، نسعد بزيارتكم كل يوم حتى العاشرة مساء",
    more: "",
};

const FAILED_OVER: Order = Order {
    number: 1006,
    branch: "riyadh",
    mobile: "+966 50 123 4506",
    to: "+966501234506",
    text: "Order 1006 is on its way.",
    more: "",
};

const PREFERRED: Order = Order {
    number: 1007,
    branch: "riyadh",
    mobile: "00966501234507",
    to: "+966501234507",
    text: "Order 1007 is on its way.",
    more: "preferred_provider_slug => 'sandbox'",
};

const RESET: Order = Order {
    number: 1008,
    branch: "london",
    mobile: "07400 123458",
    to: "+447400123458",
    text: "Order 1008 is on its way.",
    more: "",
};

/// Plays all of it.
pub(crate) async fn play(stage: &mut Stage<'_>) -> Result<()> {
    let confirmed = committed(stage).await?;
    rolled_back(stage).await?;
    replayed(stage, &confirmed).await?;
    let (later, since) = for_later(stage).await?;
    arabic(stage).await?;
    failed_over(stage).await?;
    preferred(stage).await?;
    reset(stage).await?;
    sent_later(stage, &later, since).await
}

async fn committed(stage: &mut Stage<'_>) -> Result<String> {
    stage.terminal.step("The SMS of a committed order is sent, in each branch by its own first app");
    let (id, since) = stage.commit(&CONFIRMED).await?;
    stage.wait_sent(&id, &CONFIRMED, "taqnyat-sms").await?;
    stage.terminal.sees(format!("sent: taqnyat-sms accepted it for {}", CONFIRMED.to), since.elapsed());
    let (london, since) = stage.commit(&LONDON).await?;
    stage.wait_sent(&london, &LONDON, "twilio-sms").await?;
    stage.terminal.sees(format!("sent: twilio-sms accepted it for {}", LONDON.to), since.elapsed());
    Ok(id)
}

async fn rolled_back(stage: &mut Stage<'_>) -> Result<()> {
    stage.terminal.step("The SMS of a rolled back order is never sent");
    stage.terminal.does("psql", ROLLED_BACK.shown("ROLLBACK"));
    let answer = stage.shop.roll_back(&stage.database, &ROLLED_BACK).await?;
    let since = Instant::now();
    tokio::time::sleep(WATCH).await;
    let count = "SELECT count(*) FROM sms_outbox.outbox WHERE id = $1::text::sms_outbox.message_id";
    let rows: i64 = stage.database.value(count, &[&answer.id]).await?;
    let requests = stage.requests(&ROLLED_BACK).await?;
    ensure!(
        rows == 0 && requests == 0,
        "expected: nothing of a rolled back message; seen: {rows} rows in the outbox, {requests} requests at the providers"
    );
    stage.terminal.sees("not in the outbox, and no provider got a request", since.elapsed());
    Ok(())
}

async fn replayed(stage: &mut Stage<'_>, id: &str) -> Result<()> {
    stage.terminal.step("The same order again, with its idempotency key: the first message, no second SMS");
    stage.terminal.does("psql", CONFIRMED.shown("COMMIT"));
    let since = Instant::now();
    let answer = stage.shop.commit(&stage.database, &CONFIRMED).await?;
    ensure!(
        answer.replay && answer.id == id && answer.status == "sent",
        "expected: a replay of {id}, sent; seen: {answer:?}"
    );
    let requests = stage.requests(&CONFIRMED).await?;
    ensure!(requests == 1, "expected: 1 request at the providers for order 1001; seen: {requests}");
    stage.terminal.sees("the same id, idempotent_replay = true, status sent, still 1 request", since.elapsed());
    Ok(())
}

async fn for_later(stage: &mut Stage<'_>) -> Result<(String, Instant)> {
    stage.terminal.step("An SMS for later waits in PostgreSQL");
    let (id, since) = stage.commit(&LATER).await?;
    let query = "SELECT dispatch_status::text || ', waits_for ' || waits_for FROM sms_outbox.outbox
        WHERE id = $1::text::sms_outbox.message_id";
    let waits: String = stage.database.value(query, &[&id]).await?;
    ensure!(waits == "pending, waits_for datetime", "expected: pending, waits_for datetime; seen: {waits}");
    stage.terminal.sees(format!("{waits}; we come back to it"), since.elapsed());
    Ok((id, since))
}

async fn sent_later(stage: &mut Stage<'_>, id: &str, since: Instant) -> Result<()> {
    stage.terminal.step("The SMS for later (order 1004) is sent when its time has come");
    stage.wait_sent(id, &LATER, "taqnyat-sms").await?;
    let took = since.elapsed();
    let query = "SELECT extract(epoch FROM a.started_at - o.datetime)::float8
        FROM sms_outbox.outbox AS o JOIN sms_outbox.attempts AS a USING (id) WHERE o.id = $1::text::sms_outbox.message_id";
    let late: f64 = stage.database.value(query, &[&id]).await?;
    ensure!(late >= 0.0, "expected: an attempt at its datetime or after; seen: {:.3} s too early", -late);
    stage.terminal.sees(format!("sent by taqnyat-sms, begun {late:.2} s after its datetime"), took);
    Ok(())
}

async fn arabic(stage: &mut Stage<'_>) -> Result<()> {
    stage.terminal.step("Arabic digits and text: normalized, measured in segments, delivered letter by letter");
    let (id, since) = stage.commit(&ARABIC).await?;
    stage.wait_sent(&id, &ARABIC, "taqnyat-sms").await?;
    let took = since.elapsed();
    let query = "SELECT format('%s characters, %s, %s segments', length(message), encoding, segments)
        FROM sms_outbox.outbox WHERE id = $1::text::sms_outbox.message_id";
    let measured: String = stage.database.value(query, &[&id]).await?;
    ensure!(measured.ends_with("UCS-2, 2 segments"), "expected: UCS-2, 2 segments; seen: {measured}");
    stage.terminal.does("text", ARABIC.text);
    stage.terminal.sees(format!("sent to {}: {measured}; text unchanged", ARABIC.to), took);
    Ok(())
}

async fn failed_over(stage: &mut Stage<'_>) -> Result<()> {
    stage.terminal.step("One app is down, the next one carries the message");
    stage.terminal.does("provider", "the process that speaks as Taqnyat is killed: nobody listens there");
    let (address, journal) = (stage.taqnyat.address().to_owned(), stage.taqnyat.journal_file().to_owned());
    let down = stage.taqnyat.process();
    down.signal(sms_outbox_tests::process::Signal::KILL)?;
    down.wait(sms_outbox_tests::patience()).await?;
    let (id, since) = stage.commit(&FAILED_OVER).await?;
    stage.wait_sent(&id, &FAILED_OVER, "mora-sms").await?;
    let took = since.elapsed();
    let attempts = stage.attempts(&id).await?;
    let expected = "taqnyat-sms: not_sent (connection_refused), mora-sms: accepted";
    ensure!(attempts == expected, "expected: {expected}; seen: {attempts}");
    stage.terminal.sees(attempts, took);
    let since = Instant::now();
    stage.taqnyat = Sandbox::start_at(&address, &journal).await?;
    stage.terminal.sees("Taqnyat is back at its address", since.elapsed());
    Ok(())
}

async fn preferred(stage: &mut Stage<'_>) -> Result<()> {
    stage.terminal.step("A preferred provider: the third app, although the first could");
    let (id, since) = stage.commit(&PREFERRED).await?;
    stage.wait_sent(&id, &PREFERRED, "sandbox").await?;
    stage.terminal.sees(format!("sent: sandbox accepted it for {}", PREFERRED.to), since.elapsed());
    Ok(())
}

async fn reset(stage: &mut Stage<'_>) -> Result<()> {
    stage.terminal.step("A provider takes the request and resets the connection: not sent twice");
    stage.others.add_rules(&json!({"behaviour": "reset_after_accept", "to": RESET.to, "times": 1})).await?;
    stage.terminal.does("provider", format!("will accept the SMS for {} and reset instead of answering", RESET.to));
    let (id, since) = stage.commit(&RESET).await?;
    let ended = async || Ok(Some(stage.standing(&id).await?).filter(|standing| standing.status == "dispatch_timeout"));
    stage.database.wait_for("order 1008 ends as dispatch_timeout", ended).await?;
    let took = since.elapsed();
    let attempts = stage.attempts(&id).await?;
    ensure!(attempts == "twilio-sms: unclear (connection_lost)", "expected: one unclear attempt; seen: {attempts}");
    // A second request would come at once, by this app or the next.
    tokio::time::sleep(WATCH).await;
    let (requests, accepted) = (stage.requests(&RESET).await?, stage.accepted(&RESET)?.len());
    ensure!(
        requests == 1 && accepted == 1,
        "expected: 1 request, accepted; seen: {requests} requests, {accepted} accepted"
    );
    stage.terminal.sees(attempts, took);
    stage.terminal.sees("dispatch_timeout: it may have been sent (it was), so it is not sent again", since.elapsed());
    Ok(())
}
