//! The loop against the queue in memory: real tasks, no database, no network.

mod lost_answers;

use std::collections::BTreeMap;
use std::sync::Mutex;

use serde_json::json;

use super::*;
use crate::message::DispatchStatus;
use crate::outbox::memory::{AppRow, MemoryOutbox, NewMessage};
use crate::scheduler;

/// A provider that does as it is told, and remembers what it was asked.
#[derive(Default)]
struct Pretend {
    asked: Mutex<BTreeMap<MessageId, u32>>,
    at_once: Mutex<(usize, usize)>,
    panics: bool,
    takes: Duration,
}

impl Pretend {
    fn asked(&self, id: MessageId) -> u32 {
        self.asked.lock().unwrap().get(&id).copied().unwrap_or(0)
    }
}

impl Deliver for Pretend {
    async fn deliver(&self, lease: &Lease, _: Instant) -> Outcome {
        *self.asked.lock().unwrap().entry(lease.id).or_default() += 1;
        {
            let mut at_once = self.at_once.lock().unwrap();
            at_once.0 += 1;
            at_once.1 = at_once.1.max(at_once.0);
        }
        tokio::time::sleep(self.takes).await;
        self.at_once.lock().unwrap().0 -= 1;
        assert!(!self.panics, "as told");
        own_outcome(AttemptStatus::Accepted, "ok", "taken")
    }
}

struct Bench {
    provider: Arc<Pretend>,
    shutdown: CancellationToken,
    abort: CancellationToken,
    worker: tokio::task::JoinHandle<usize>,
}

/// A running worker on a queue with one app. Its wake-ups are off: polling must do.
fn start(outbox: &MemoryOutbox, name: &str, provider: Pretend, concurrency: usize) -> Bench {
    let options =
        Options { concurrency, poll_interval: Duration::from_millis(20), drain_timeout: Duration::from_secs(5) };
    start_gathering(outbox, name, provider, options, Gather::new(concurrency))
}

fn start_gathering(outbox: &MemoryOutbox, name: &str, provider: Pretend, options: Options, gather: Gather) -> Bench {
    let outbox = outbox.with_worker(name);
    let provider = Arc::new(provider);
    let (live, workers) = watch::channel(vec![name.to_owned()]);
    let signals = Signals {
        wake: Arc::default(),
        workers,
        shutdown: CancellationToken::new(),
        abort: CancellationToken::new(),
        counters: Arc::default(),
    };
    let (shutdown, abort) = (signals.shutdown.clone(), signals.abort.clone());
    let scheduler = Scheduler::new(name, scheduler::Limits::default());
    let mut dispatcher = Dispatcher::new(Arc::new(outbox), provider.clone(), scheduler, options, signals);
    dispatcher.gather = gather;
    let worker = tokio::spawn(async move {
        let left = dispatcher.run().await;
        drop(live);
        left
    });
    Bench { provider, shutdown, abort, worker }
}

fn queue(messages: usize) -> (MemoryOutbox, Vec<MessageId>) {
    queue_at(None, messages)
}

fn queue_at(rate: Option<f64>, messages: usize) -> (MemoryOutbox, Vec<MessageId>) {
    let outbox = MemoryOutbox::new("setup");
    let mut app = AppRow::new("shop".into(), "sandbox".into());
    app.max_in_flight = 1000;
    app.rate_bits = rate.map(f64::to_bits);
    outbox.install_app(app, json!({}));
    let ids = (0..messages).map(|_| outbox.enqueue(NewMessage::of("shop"))).collect();
    (outbox, ids)
}

async fn until(what: &str, condition: impl Fn() -> bool) {
    for _ in 0..2000 {
        if condition() {
            return;
        }
        tokio::time::sleep(Duration::from_millis(5)).await;
    }
    panic!("waited in vain until {what}");
}

fn all(outbox: &MemoryOutbox, ids: &[MessageId], status: DispatchStatus) -> bool {
    ids.iter().all(|id| outbox.status(*id) == Some(status))
}

#[tokio::test]
async fn sends_all_once_and_never_more_at_once_than_told() {
    let (outbox, ids) = queue(100);
    let bench = start(&outbox, "w1", Pretend { takes: Duration::from_millis(3), ..Pretend::default() }, 7);
    until("all are sent", || all(&outbox, &ids, DispatchStatus::Sent)).await;
    bench.shutdown.cancel();
    assert_eq!(bench.worker.await.unwrap(), 0);
    assert!(ids.iter().all(|id| bench.provider.asked(*id) == 1));
    assert_eq!(bench.provider.at_once.lock().unwrap().1, 6, "one place is left to other apps");
}

#[tokio::test]
async fn a_backlog_larger_than_memory_is_read_on_without_waiting_for_the_next_poll() {
    let (outbox, ids) = queue(3 * scheduler::Limits::default().lane);
    let hour = Duration::from_hours(1);
    let options = Options { concurrency: 100, poll_interval: hour, drain_timeout: hour };
    let bench = start_gathering(&outbox, "w1", Pretend::default(), options, Gather::new(100));
    until("all are sent", || all(&outbox, &ids, DispatchStatus::Sent)).await;
    bench.shutdown.cancel();
    assert_eq!(bench.worker.await.unwrap(), 0);
}

/// What comes one by one is claimed together, unless a rate lets it go only one by one.
#[tokio::test]
async fn few_messages_wait_for_more_but_not_where_a_rate_paces_them() {
    let options =
        Options { concurrency: 100, poll_interval: Duration::from_millis(20), drain_timeout: Duration::from_secs(5) };
    for rate in [None, Some(1_f64)] {
        let (outbox, first) = queue_at(rate, 1);
        let gather = Gather { enough: 25, patience: Duration::from_hours(1) };
        let bench = start_gathering(&outbox, "w1", Pretend::default(), options, gather);
        until("the first is sent", || all(&outbox, &first, DispatchStatus::Sent)).await;
        let next = outbox.enqueue(NewMessage::of("shop"));
        if rate.is_none() {
            tokio::time::sleep(Duration::from_millis(300)).await;
            assert_eq!(outbox.status(next), Some(DispatchStatus::Pending));
            for _ in 1..25 {
                outbox.enqueue(NewMessage::of("shop"));
            }
        }
        until("the next is sent", || all(&outbox, &[next], DispatchStatus::Sent)).await;
        bench.shutdown.cancel();
        assert_eq!(bench.worker.await.unwrap(), 0);
    }
}

#[tokio::test]
async fn a_lost_answer_of_a_claim_loses_and_doubles_nothing() {
    let (outbox, ids) = queue(20);
    outbox.lose_answers(8);
    let bench = start(&outbox, "w1", Pretend::default(), 50);
    until("all are sent", || {
        // Backoff and breaker go by the queue's clock.
        outbox.advance(Duration::from_millis(100));
        outbox.run_maintenance();
        all(&outbox, &ids, DispatchStatus::Sent)
    })
    .await;
    assert!(ids.iter().all(|id| bench.provider.asked(*id) == 1), "each is handed over once");
    bench.shutdown.cancel();
    assert_eq!(bench.worker.await.unwrap(), 0);
}

#[tokio::test]
async fn an_outcome_is_kept_until_the_database_is_back() {
    let (outbox, ids) = queue(10);
    let bench = start(&outbox, "w1", Pretend { takes: Duration::from_millis(50), ..Pretend::default() }, 20);
    until("all are being sent", || all(&outbox, &ids, DispatchStatus::Sending)).await;
    outbox.set_away(true);
    until("the provider has taken all", || bench.provider.at_once.lock().unwrap().0 == 0).await;
    tokio::time::sleep(Duration::from_millis(50)).await;
    assert!(all(&outbox, &ids, DispatchStatus::Sending));
    outbox.set_away(false);
    until("all are sent", || all(&outbox, &ids, DispatchStatus::Sent)).await;
    assert!(ids.iter().all(|id| bench.provider.asked(*id) == 1));
    bench.shutdown.cancel();
    assert_eq!(bench.worker.await.unwrap(), 0);
}

#[tokio::test]
async fn an_adapter_that_panics_leaves_its_message_unclear() {
    let (outbox, ids) = queue(3);
    let bench = start(&outbox, "w1", Pretend { panics: true, ..Pretend::default() }, 10);
    until("all have ended", || all(&outbox, &ids, DispatchStatus::DispatchTimeout)).await;
    bench.shutdown.cancel();
    assert_eq!(bench.worker.await.unwrap(), 0);
}

#[tokio::test]
async fn a_stop_waits_for_what_is_in_flight_and_claims_nothing_more() {
    let (outbox, ids) = queue(30);
    let bench = start(&outbox, "w1", Pretend { takes: Duration::from_millis(100), ..Pretend::default() }, 10);
    until("some are being sent", || ids.iter().any(|id| outbox.status(*id) == Some(DispatchStatus::Sending))).await;
    bench.shutdown.cancel();
    assert_eq!(bench.worker.await.unwrap(), 0);
    let count = |status| ids.iter().filter(|id| outbox.status(**id) == Some(status)).count();
    assert_eq!((count(DispatchStatus::Sent), count(DispatchStatus::Pending)), (8, 22));
}

#[tokio::test]
async fn an_abort_waits_for_nothing_and_says_what_it_leaves() {
    let (outbox, ids) = queue(4);
    let bench = start(&outbox, "w1", Pretend { takes: Duration::from_secs(3600), ..Pretend::default() }, 10);
    until("all are being sent", || all(&outbox, &ids, DispatchStatus::Sending)).await;
    bench.shutdown.cancel();
    bench.abort.cancel();
    assert_eq!(bench.worker.await.unwrap(), 4);
}

#[tokio::test]
async fn two_workers_share_without_a_double() {
    let (outbox, ids) = queue(200);
    let one = start(&outbox, "w1", Pretend { takes: Duration::from_millis(1), ..Pretend::default() }, 8);
    let two = start(&outbox, "w2", Pretend { takes: Duration::from_millis(1), ..Pretend::default() }, 8);
    until("all are sent", || all(&outbox, &ids, DispatchStatus::Sent)).await;
    assert!(ids.iter().all(|id| one.provider.asked(*id) + two.provider.asked(*id) == 1));
    for bench in [one, two] {
        bench.shutdown.cancel();
        assert_eq!(bench.worker.await.unwrap(), 0);
    }
}
