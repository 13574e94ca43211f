//! What a provider's side of the network can do at each stage of a request, over every provider's wire. Known not to have
//! been sent: the next app sends it. Unclear: nobody sends it again. The client itself never asks twice.

mod shop;

use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use shop::{Shop, Sms, apps};
use sms_outbox_tests::proxy::{Act, Deaf, Moment, Proxy};
use sms_outbox_tests::{Fault, Major, Worker};

const MAJOR: Major = Major::V18;

/// How an app's provider is reached.
enum Front {
    /// Nobody listens.
    Nobody,
    /// The system drops every SYN.
    Deaf,
    /// The name has no address.
    NoName,
    /// TLS is expected of a provider that speaks none.
    NoTls,
    /// TLS, and something happens in its handshake.
    Handshake(Moment, Act),
    /// Plain HTTP, and something happens on the way.
    Way(Moment, Act),
}

/// How an attempt ends.
struct End {
    status: &'static str,
    codes: &'static [&'static str],
    /// Whether the provider had accepted.
    accepted: bool,
}

const fn not_sent(codes: &'static [&'static str]) -> End {
    End { status: "not_sent", codes, accepted: false }
}

const fn unclear(codes: &'static [&'static str], accepted: bool) -> End {
    End { status: "unclear", codes, accepted }
}

async fn worker(shop: &Shop) -> Result<Worker> {
    let options = shop.worker()?.set("SMS_OUTBOX_HTTP_TIMEOUT", "3s").set("SMS_OUTBOX_CONNECT_TIMEOUT", "1s");
    options.start().await
}

/// A message for each wire, by an app that the fault strikes and a second app that is well.
async fn strikes(name: &str, case: &str, front: Front, end: End) -> Result<()> {
    let mut shop = Shop::open(MAJOR, name).await?;
    let mut fault = Fault::new("11", case, MAJOR);
    let sandbox = port_of(shop.sandbox.address())?;
    let (proxy, deaf) = (Proxy::start(sandbox).await?, Deaf::start().await?);
    let url = match &front {
        // Port 1 is privileged, and nobody listens there.
        Front::Nobody => "http://127.0.0.1:1".to_owned(),
        Front::Deaf => format!("http://127.0.0.1:{}", deaf.port()),
        Front::NoName => "https://gateway.invalid".to_owned(),
        Front::NoTls => format!("https://127.0.0.1:{sandbox}"),
        Front::Handshake(..) => format!("https://127.0.0.1:{}", proxy.port()),
        Front::Way(..) => proxy.url(),
    };
    let counted = matches!(front, Front::Handshake(..) | Front::Way(..));
    if let Front::Handshake(moment, act) | Front::Way(moment, act) = front {
        proxy.order(moment, act, u64::MAX);
    }
    let mut worker = worker(&shop).await?;
    let mut struck = Vec::new();
    for slug in apps::SLUGS {
        let app = shop.install_for(slug, slug, apps::config(slug, &url), "").await?;
        let second = shop.install_for(slug, "sandbox", shop.token("second"), "\"position\" => 200").await?;
        struck.push((shop.queue_for(slug, "").await?, app, second));
    }
    shop.wait_until_settled().await?;
    for (sms, app, second) in &struck {
        let ledger = shop.ledger(sms).await?;
        let first = ledger.first().context("no attempt")?;
        ensure!(first.status == end.status && first.app == *app, "{case}: {ledger:?}");
        let code = first.code.as_deref();
        ensure!(end.codes.is_empty() || code.is_some_and(|code| end.codes.contains(&code)), "{case}: {ledger:?}");
        match end.status {
            "not_sent" => shop.expect_ledger(sms, &[("not_sent", *app), ("accepted", *second)]).await?,
            status => shop.expect_ledger(sms, &[(status, *app)]).await?,
        }
        let accepted = usize::from(end.accepted || end.status == "not_sent");
        ensure!(shop.accepted(sms)? == accepted, "{case}: accepted {} times", shop.accepted(sms)?);
        if end.status == "unclear" {
            fault.unclear([&sms.id])?;
        }
    }
    if counted {
        // A client that asked again would be struck again. Connections prove nothing: the client may open one, and then take
        // another that has just become free.
        ensure!(proxy.injected() == struck.len() as u64, "struck {} times: one asked again", proxy.injected());
    }
    fault.injected(struck.len() as u64);
    // The provider is well again.
    proxy.heal();
    let healed = Instant::now();
    for slug in apps::SLUGS {
        let sms = shop.queue_for(slug, "").await?;
        shop.wait_for_status(&sms, "sent").await?;
    }
    fault.recovered_in(healed.elapsed());
    ensure!(worker.drain().await?.success());
    shop.close_fault(fault).await.map(drop)
}

fn port_of(address: &str) -> Result<u16> {
    Ok(address.rsplit_once(':').context("no port")?.1.parse()?)
}

macro_rules! strikes {
    ($($name:ident: $case:literal, $front:expr => $end:expr;)+) => {
        $(
            #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $name() -> Result<()> {
                strikes(stringify!($name), $case, $front, $end).await
            }
        )+
    };
}

strikes! {
    refuses_connections: "refuses connections", Front::Nobody => not_sent(&["connection_refused"]);
    drops_syn: "drops SYN", Front::Deaf => not_sent(&["connect_timeout"]);
    // Where a machine has no name server, the look-up hangs instead.
    has_no_address: "its name has no address", Front::NoName => not_sent(&["dns", "connect_timeout"]);
    speaks_no_tls: "speaks no TLS", Front::NoTls => not_sent(&["tls"]);
    resets_the_handshake: "resets in the TLS handshake", Front::Handshake(Moment::Request, Act::Reset) => not_sent(&["connect"]);
    stalls_the_handshake: "stalls in the TLS handshake", Front::Handshake(Moment::Request, Act::Silence) => not_sent(&["connect_timeout"]);
    resets_unread: "resets before it reads", Front::Way(Moment::Request, Act::Reset) => unclear(&["connection_lost"], false);
    closes_unread: "closes the connection as the request comes", Front::Way(Moment::Request, Act::Close) => unclear(&["connection_lost"], false);
    never_reads: "never reads", Front::Way(Moment::Request, Act::Silence) => unclear(&["timeout"], false);
    resets_after_the_request: "resets after the request", Front::Way(Moment::Answer, Act::Reset) => unclear(&["connection_lost"], true);
    closes_after_the_request: "closes after the request", Front::Way(Moment::Answer, Act::Close) => unclear(&["connection_lost"], true);
    never_answers: "never answers", Front::Way(Moment::Answer, Act::Silence) => unclear(&["timeout"], true);
    breaks_off_in_the_head: "breaks off in the head of its answer", Front::Way(Moment::AmidAnswer, Act::Reset) => unclear(&["connection_lost"], true);
    stalls_in_the_head: "stalls in the head of its answer", Front::Way(Moment::AmidAnswer, Act::Silence) => unclear(&["timeout"], true);
    answers_byte_by_byte: "answers byte by byte", Front::Way(Moment::Answer, Act::Trickle) =>
        End { status: "accepted", codes: &[], accepted: true };
}

/// Whether a byte was written before the reset is the system's to know: not sent or unclear, and never more than once.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn resets_at_once() -> Result<()> {
    let mut shop = Shop::open(MAJOR, "at_once").await?;
    let mut fault = Fault::new("11", "resets each new connection", MAJOR);
    let proxy = Proxy::start(port_of(shop.sandbox.address())?).await?;
    proxy.order(Moment::Connect, Act::Reset, u64::MAX);
    let _worker = worker(&shop).await?;
    let mut all = Vec::new();
    for slug in apps::SLUGS {
        shop.install_for(slug, slug, apps::config(slug, &proxy.url()), "").await?;
        shop.install_for(slug, "sandbox", shop.token("second"), "\"position\" => 200").await?;
        all.extend(shop.queue_many(slug, 3, "").await?);
    }
    shop.wait_until_settled().await?;
    for sms in &all {
        let accepted = shop.accepted(sms)?;
        match shop.show(sms, "dispatch_status").await?.as_deref() {
            Some("sent") => ensure!(accepted == 1, "sent, and accepted {accepted} times"),
            Some("dispatch_timeout") => ensure!(accepted == 0, "the provider saw nothing, and accepted"),
            other => anyhow::bail!("{other:?}"),
        }
    }
    fault.injected(proxy.injected());
    fault.perhaps_unclear(all.iter().map(|sms| &sms.id))?;
    shop.close_fault(fault).await.map(drop)
}

/// One app behind the proxy.
async fn behind(shop: &Shop, proxy: &Proxy) -> Result<i64> {
    shop.install_for("shop", "sandbox", apps::config("sandbox", &proxy.url()), "max_in_flight => 1").await
}

async fn over(shop: &Shop, sms: &Sms) -> Result<()> {
    let ended = async || Ok((!shop.ledger(sms).await?.is_empty()).then_some(()));
    shop.database.wait_for(format!("{} is over", sms.text), ended).await
}

/// The request goes out as the provider closes the connection that it had kept: the client must not ask again by itself.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_a_pooled_connection_as_the_request_goes_out() -> Result<()> {
    for (name, act) in [("pooled_close", Act::Close), ("pooled_reset", Act::Reset)] {
        let mut shop = Shop::open(MAJOR, name).await?;
        let mut fault = Fault::new("11", &format!("an idle connection meets a request: {act:?}"), MAJOR);
        let proxy = Proxy::start(port_of(shop.sandbox.address())?).await?;
        let app = behind(&shop, &proxy).await?;
        let mut worker = worker(&shop).await?;
        let mut struck = 0;
        // The client keeps a connection for a second: on a slow machine that may be over.
        for _ in 0..20 {
            let warm = shop.queue("").await?;
            shop.wait_for_status(&warm, "sent").await?;
            let connections = proxy.connections();
            proxy.order(Moment::Request, act, 1);
            let sms = shop.queue("").await?;
            over(&shop, &sms).await?;
            shop.expect_ledger(&sms, &[("unclear", app)]).await?;
            ensure!(shop.seen(&sms).await? == (0, 0), "the client asked again");
            fault.unclear([&sms.id])?;
            if proxy.connections() == connections {
                struck += 1;
            }
            if struck == 3 {
                break;
            }
        }
        ensure!(struck == 3, "{struck} pooled connections were struck");
        fault.injected(proxy.injected());
        ensure!(worker.drain().await?.success());
        shop.close_fault(fault).await?;
    }
    Ok(())
}

/// The provider closes what is idle, sooner than the client: each request may meet it.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn closes_idle_connections_at_any_time() -> Result<()> {
    let mut shop = Shop::open(MAJOR, "idle").await?;
    let mut fault = Fault::new("11", "closes idle connections sooner than the client", MAJOR);
    let proxy = Proxy::start(port_of(shop.sandbox.address())?).await?;
    behind(&shop, &proxy).await?;
    let mut worker = worker(&shop).await?;
    let all = shop.queue_many("shop", 200, "").await?;
    while shop.database.value::<bool>("SELECT EXISTS (SELECT FROM sms_outbox.ready)", &[]).await? {
        proxy.close_idle(Some(Duration::from_micros(fastrand::u64(0..15_000))));
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    shop.wait_until_settled().await?;
    fault.injected(proxy.injected());
    let requests = shop.sandbox.requests().await?.len();
    ensure!(requests <= all.len(), "{requests} requests for {} messages: the client asked again", all.len());
    for sms in &all {
        let (status, accepted) = (shop.show(sms, "dispatch_status").await?, shop.accepted(sms)?);
        ensure!(
            accepted == usize::from(status.as_deref() == Some("sent")) || accepted <= 1,
            "accepted {accepted} times"
        );
    }
    fault.perhaps_unclear(all.iter().map(|sms| &sms.id))?;
    ensure!(worker.drain().await?.success());
    shop.close_fault(fault).await.map(drop)
}
