//! What the HTTP API costs: POST against calling the SQL function over as many connections, in one run, rounds interleaved.
//! `make bench-api` runs it on release builds.

mod client;

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use client::Client;
use serde_json::json;
use sms_outbox_bench::measure::{Caller, Round, median, round};
use sms_outbox_bench::say;
use sms_outbox_tests::api::Api;
use sms_outbox_tests::database::connect;
use sms_outbox_tests::{Cluster, Database, Major};
use tokio_postgres::Statement;

#[derive(Debug, Parser)]
#[command(name = "bench-api", about = "POST /api/v1/sms/outbox against sms_outbox_enqueue(), as ratios of one run")]
struct Arguments {
    /// Callers at once; each has a connection of its own
    #[arg(long, value_delimiter = ',', default_value = "1,16,64", value_parser = clap::value_parser!(u16).range(1..=200))]
    callers: Vec<u16>,
    /// Rounds of each kind; the median by rate is reported
    #[arg(long, default_value_t = 3, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Seconds of a round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
    /// Requests of the memory part, in tenths of which the API's memory is read; 0 leaves it out
    #[arg(long, default_value_t = 1_000_000)]
    requests: u64,
}

/// Messages of a batch.
const BATCH: usize = 1000;

/// Calls a function of SQL.
struct Sql {
    client: tokio_postgres::Client,
    statement: Statement,
    argument: String,
}

impl Caller for Sql {
    async fn call(&mut self) -> Result<()> {
        let rows = self.client.query(&self.statement, &[&self.argument]).await?;
        ensure!(!rows.is_empty(), "nothing was enqueued");
        Ok(())
    }
}

/// Posts to the API.
struct Http {
    client: Client,
    body: String,
}

impl Caller for Http {
    async fn call(&mut self) -> Result<()> {
        self.client.post(&self.body).await
    }
}

/// One kind of call, by both ways.
struct Kind {
    what: &'static str,
    statement: &'static str,
    argument: String,
    path: &'static str,
    body: String,
}

const TEXT: &str =
    "Your order 4711 has left our warehouse and will reach you tomorrow between 9 and 12. Thank you, MyShop.";

fn kinds() -> [Kind; 2] {
    let message =
        json!({ "mobile": "966501234567", "message": TEXT, "sender": "MyShop", "meta": { "order_id": "4711" } });
    let batch = json!(vec![message.clone(); BATCH]);
    [
        Kind {
            what: "one message",
            statement: "SELECT id, dispatch_status::text, idempotent_replay FROM sms_outbox_enqueue('966501234567', $1, 'MyShop', \
                        meta => '{\"order_id\": \"4711\"}', organization_id => 'shop')",
            argument: TEXT.to_owned(),
            path: "/api/v1/sms/outbox",
            body: message.to_string(),
        },
        Kind {
            what: "1000 messages",
            statement: "SELECT id, dispatch_status::text, idempotent_replay FROM sms_outbox_enqueue_many($1::text::jsonb, 'shop')",
            argument: batch.to_string(),
            path: "/api/v1/sms/outbox/batch",
            body: json!({ "messages": batch }).to_string(),
        },
    ]
}

/// What is measured: a server with default durability, and the API beside it.
struct Bench {
    database: Database,
    key: String,
}

impl Bench {
    async fn new() -> Result<Self> {
        let cluster = Cluster::options(Major::V18).durable().set("max_connections", "450").start().await?;
        let database = Database::create(&cluster, "shop").await?;
        database.sql("SELECT sms_outbox.install_app('shop', 'sandbox', 'main', '{\"token\": \"t\"}')").await?;
        let key = Api::key(&database, "shop", &["enqueue"]).await?;
        Ok(Self { database, key })
    }

    async fn sql(&self, kind: &Kind, callers: u16) -> Result<Vec<Sql>> {
        let mut made = Vec::new();
        for _ in 0..callers {
            // By TCP, as the API's own connections.
            let client = connect(&self.database.url("app")).await?;
            let statement = client.prepare(kind.statement).await?;
            made.push(Sql { client, statement, argument: kind.argument.clone() });
        }
        Ok(made)
    }

    async fn http(&self, api: &Api, kind: &Kind, callers: u16) -> Result<Vec<Http>> {
        let mut made = Vec::new();
        for _ in 0..callers {
            let client = Client::open(api.address(), kind.path, &self.key).await?;
            made.push(Http { client, body: kind.body.clone() });
        }
        Ok(made)
    }

    async fn compare(&self, kind: &Kind, callers: u16, arguments: &Arguments) -> Result<()> {
        let lasts = Duration::from_secs(arguments.seconds);
        let pool = callers.to_string();
        let api = Api::options(&self.database)?.set("SMS_OUTBOX_API_POOL_SIZE", &pool).start().await?;
        let (mut sql, mut http) = (self.sql(kind, callers).await?, self.http(&api, kind, callers).await?);
        let (mut by_sql, mut by_http): (Vec<Round>, Vec<Round>) = (Vec::new(), Vec::new());
        for number in 0..=arguments.rounds {
            let (callers, direct) = round(sql, lasts).await?;
            sql = callers;
            let (callers, posted) = round(http, lasts).await?;
            http = callers;
            // The first warms up connections and plans.
            if number > 0 {
                by_sql.push(direct);
                by_http.push(posted);
            }
        }
        let direct = median(by_sql).context("no round")?;
        let posted = median(by_http).context("no round")?;
        report(kind.what, callers, &direct, &posted);
        Ok(())
    }

    /// The API's memory while it serves many requests.
    async fn memory(&self, arguments: &Arguments) -> Result<()> {
        let [one, _] = kinds();
        let mut api = Api::start(&self.database).await?;
        let mut callers = self.http(&api, &one, 16).await?;
        let mut resident = Vec::new();
        let mut served = 0;
        while served < arguments.requests {
            let (again, counted) = round(callers, Duration::from_secs(arguments.seconds)).await?;
            callers = again;
            served += (counted.rate * arguments.seconds as f64) as u64;
            if served * 10 / arguments.requests > resident.len() as u64 {
                resident.push(memory_of(api.process().id())?);
                // What was posted is not what is measured.
                self.database.sql("TRUNCATE sms_outbox.ready").await?;
            }
        }
        let (first, last) = (resident.first().context("no reading")?, resident.last().context("no reading")?);
        say(&format!(
            "memory of the API over {served} requests: {first} KiB after the first tenth, {last} KiB at the end, ratio {:.2}",
            *last as f64 / *first as f64
        ));
        say(&json!({ "part": "memory", "requests": served, "resident_kib": resident }).to_string());
        Ok(())
    }
}

/// Resident memory of a process, in KiB.
fn memory_of(process: u32) -> Result<u64> {
    let status = std::fs::read_to_string(format!("/proc/{process}/status"))?;
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).context("no VmRSS")?;
    Ok(line.trim().trim_end_matches(" kB").parse()?)
}

fn report(what: &str, callers: u16, direct: &Round, posted: &Round) {
    say(&format!(
        "{what:<14} {callers:>3} callers: POST {:>7.0}/s, SQL {:>7.0}/s, ratio {:.2}; POST p50 {:.2} ms p99 {:.2} ms, SQL p50 {:.2} ms p99 {:.2} ms",
        posted.rate,
        direct.rate,
        posted.rate / direct.rate,
        posted.percentile(0.5),
        posted.percentile(0.99),
        direct.percentile(0.5),
        direct.percentile(0.99),
    ));
    let figures = |round: &Round| json!({ "rate": round.rate, "p50_ms": round.percentile(0.5), "p99_ms": round.percentile(0.99) });
    say(&json!({ "part": what, "callers": callers, "post": figures(posted), "sql": figures(direct), "ratio": posted.rate / direct.rate }).to_string());
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let bench = Bench::new().await?;
    let version: String = bench.database.value("SELECT version()", &[]).await?;
    say(&format!("{version}; {} cores", std::thread::available_parallelism()?));
    let [one, batch] = kinds();
    for callers in &arguments.callers {
        bench.compare(&one, *callers, &arguments).await?;
    }
    for callers in arguments.callers.iter().filter(|callers| **callers <= 16) {
        bench.compare(&batch, *callers, &arguments).await?;
    }
    if arguments.requests > 0 {
        bench.memory(&arguments).await?;
    }
    Ok(())
}
