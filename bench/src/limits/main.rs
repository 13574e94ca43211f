//! What limits cost: enqueue in an organization with limits against one without, by as many connections, in one run,
//! rounds interleaved. `make bench-limits` runs it on release builds.

use std::time::Duration;

use anyhow::{Context, Result, ensure};
use clap::Parser;
use serde_json::json;
use sms_outbox_bench::measure::{Caller, Round, median, round};
use sms_outbox_bench::say;
use sms_outbox_tests::{Cluster, Database, Major};
use tokio_postgres::Statement;

#[derive(Debug, Parser)]
#[command(name = "bench-limits", about = "sms_outbox_enqueue() with limits against without, as ratios of one run")]
struct Arguments {
    /// Callers at once; each has a connection of its own
    #[arg(long, value_delimiter = ',', default_value = "1,16", value_parser = clap::value_parser!(u16).range(1..=200))]
    callers: Vec<u16>,
    /// Rounds of each kind; the median by rate is reported
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u16).range(1..=99))]
    rounds: u16,
    /// Seconds of a round
    #[arg(long, default_value_t = 5, value_parser = clap::value_parser!(u64).range(1..=3600))]
    seconds: u64,
}

/// Organizations by the limits that they have, the one to compare with first. No limit is ever reached.
const ORGANIZATIONS: [(&str, &str); 3] = [
    ("none", ""),
    (
        "counts",
        "SELECT sms_outbox.set_organization('counts', messages_per_minute => 100000000, messages_per_day => 100000000,
             segments_per_day => 100000000)",
    ),
    (
        "every",
        "SELECT sms_outbox.set_organization('every', messages_per_minute => 100000000, messages_per_day => 100000000,
             segments_per_day => 100000000, messages_per_recipient_hour => 100000000, allowed_destinations => '{SA,AE}',
             blocked_destinations => '{+96659}', allowed_senders => '{MyShop}');
         SELECT sms_outbox.suppress('every', '+96651' || lpad(n::text, 7, '0')) FROM generate_series(1, 1000) AS n",
    ),
];

/// Messages of one call of `sms_outbox_enqueue_many()`.
const MANY: i32 = 10_000;

const ONE_CALL: &str = "SELECT id FROM sms_outbox_enqueue('+96650' || lpad($2::integer::text, 7, '0'), \
    'Your order 4711 has left our warehouse and will reach you tomorrow between 9 and 12. Thank you, MyShop.', 'MyShop', \
    organization_id => $1)";

const MANY_CALL: &str = "SELECT count(*) FROM sms_outbox_enqueue_many((SELECT jsonb_agg(jsonb_build_object( \
    'mobile', '+96650' || lpad((n % 10000000)::text, 7, '0'), 'sender', 'MyShop', 'message', \
    'Your order 4711 has left our warehouse and will reach you tomorrow between 9 and 12. Thank you, MyShop.')) \
    FROM generate_series($2::integer, $2::integer + 9999) AS n), $1)";

/// Enqueues for one organization, to another number each time.
struct Enqueuer {
    client: tokio_postgres::Client,
    statement: Statement,
    organization: &'static str,
    number: i32,
    step: i32,
}

impl Caller for Enqueuer {
    async fn call(&mut self) -> Result<()> {
        self.number = (self.number + self.step) % 9_000_000;
        let rows = self.client.query(&self.statement, &[&self.organization, &self.number]).await?;
        ensure!(!rows.is_empty(), "nothing was enqueued");
        Ok(())
    }
}

/// A server with default durability, and the organizations in it.
struct Bench {
    database: Database,
}

impl Bench {
    async fn new() -> Result<Self> {
        let cluster = Cluster::options(Major::V18).durable().set("max_connections", "300").start().await?;
        let database = Database::create(&cluster, "shop").await?;
        for (organization, limits) in ORGANIZATIONS {
            let install =
                format!("SELECT sms_outbox.install_app('{organization}', 'sandbox', 'main', '{{\"token\": \"t\"}}')");
            database.sql(&install).await?;
            database.sql(limits).await?;
        }
        Ok(Self { database })
    }

    async fn callers(&self, organization: &'static str, callers: u16, call: &str, step: i32) -> Result<Vec<Enqueuer>> {
        let mut made = Vec::new();
        for place in 0..callers {
            let client = self.database.connect_as("app").await?;
            let statement = client.prepare(call).await?;
            made.push(Enqueuer { client, statement, organization, number: i32::from(place) * 500_000, step });
        }
        Ok(made)
    }

    /// One kind of call, by as many callers, in every organization.
    async fn compare(&self, what: &str, call: &str, step: i32, callers: u16, arguments: &Arguments) -> Result<()> {
        let lasts = Duration::from_secs(arguments.seconds);
        let mut groups = Vec::new();
        for (organization, _) in ORGANIZATIONS {
            groups.push((self.callers(organization, callers, call, step).await?, Vec::<Round>::new()));
        }
        for number in 0..=arguments.rounds {
            for (group, rounds) in &mut groups {
                let (again, counted) = round(std::mem::take(group), lasts).await?;
                *group = again;
                // The first warms up connections and plans.
                if number > 0 {
                    rounds.push(counted);
                }
            }
            // What earlier rounds queued is not what is measured.
            self.database.sql("TRUNCATE sms_outbox.ready").await?;
        }
        let mut without = None;
        for ((organization, _), (_, rounds)) in ORGANIZATIONS.iter().zip(groups) {
            let counted = median(rounds).context("no round")?;
            let base = *without.get_or_insert(counted.rate);
            report(what, callers, organization, &counted, counted.rate / base);
        }
        Ok(())
    }
}

fn report(what: &str, callers: u16, limits: &str, counted: &Round, ratio: f64) {
    let (rate, middle, late) = (counted.rate, counted.percentile(0.5), counted.percentile(0.99));
    say(&format!(
        "{what:<12} {callers:>3} callers, limits {limits:<6}: {rate:>7.1} calls/s, p50 {middle:.2} ms p99 {late:.2} ms, ratio {ratio:.2}"
    ));
    say(&json!({ "part": what, "callers": callers, "limits": limits, "rate": rate, "p50_ms": middle, "p99_ms": late, "ratio": ratio })
        .to_string());
}

#[tokio::main]
async fn main() -> Result<()> {
    let arguments = Arguments::parse();
    let bench = Bench::new().await?;
    let version: String = bench.database.value("SELECT version()", &[]).await?;
    say(&format!("{version}; {} cores", std::thread::available_parallelism()?));
    for callers in &arguments.callers {
        bench.compare("one message", ONE_CALL, 1, *callers, &arguments).await?;
    }
    bench.compare("10000 at once", MANY_CALL, MANY, 1, &arguments).await
}
