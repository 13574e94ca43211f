//! Connections of clients: bounded in number and in the time that a head may take, and ended in order.

use std::collections::BTreeMap;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use axum::Router;
use axum::body::Body;
use axum::extract::Request;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper_util::rt::{TokioIo, TokioTimer};
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::Notify;
use tokio::time::timeout;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use tower::ServiceExt;

use super::ApiSettings;
use super::layers::WAIT_FOR_PLACE;

/// Largest head of a request, in bytes.
const LARGEST_HEAD: usize = 64 * 1024;

/// After a failed accept, which is out of file descriptors at the most: some will be free soon.
const BREATH: Duration = Duration::from_millis(50);

/// Accepts until `shutdown`; then waits for the requests in flight, but no longer than the drain time-out or `now`.
pub(super) async fn serve(
    listener: TcpListener,
    router: Router,
    settings: &ApiSettings,
    shutdown: CancellationToken,
    now: CancellationToken,
) {
    let connections = Connections::default();
    let tasks = TaskTracker::new();
    loop {
        let stream = tokio::select! {
            () = shutdown.cancelled() => break,
            accepted = listener.accept() => match accepted {
                Ok((stream, _)) => stream,
                Err(error) => {
                    tracing::warn!(%error, "a connection cannot be accepted");
                    tokio::time::sleep(BREATH).await;
                    continue;
                }
            },
        };
        let Some(place) = connections.wait(settings.max_connections).await else {
            // All stay at work: this one is closed, rather than kept waiting for nobody knows what.
            continue;
        };
        let served = connection(stream, router.clone(), place, settings.read_timeout, shutdown.clone());
        tasks.spawn(served);
    }
    drop(listener);
    tasks.close();
    tracing::info!(connections = tasks.len(), "stopping: no new connections, requests in flight end");
    tokio::select! {
        () = tasks.wait() => {}
        () = now.cancelled() => tracing::warn!(connections = tasks.len(), "stopped at once"),
        () = tokio::time::sleep(settings.drain_timeout) => {
            tracing::warn!(connections = tasks.len(), "drain-timeout is over; the rest is cut off");
        }
    }
}

async fn connection(
    stream: TcpStream,
    router: Router,
    place: Place,
    read_timeout: Duration,
    shutdown: CancellationToken,
) {
    // Small answers go out at once.
    let _ = stream.set_nodelay(true);
    let evicted = place.evicted.clone();
    let service = hyper::service::service_fn(move |mut request: hyper::Request<Incoming>| {
        request.extensions_mut().insert(place.clone());
        let (router, place) = (router.clone(), place.clone());
        async move {
            let response = router.oneshot(Request::from(request.map(Body::new))).await;
            place.offer(true);
            response
        }
    });
    let connection = http1::Builder::new()
        .timer(TokioTimer::new())
        .header_read_timeout(read_timeout)
        .max_buf_size(LARGEST_HEAD)
        .serve_connection(TokioIo::new(stream), service);
    tokio::pin!(connection);
    let ended = tokio::select! {
        ended = connection.as_mut() => ended,
        () = evicted.cancelled() => return,
        () = shutdown.cancelled() => {
            connection.as_mut().graceful_shutdown();
            connection.await
        }
    };
    if let Err(error) = ended {
        // A client that went away, or was too slow: nothing that an operator could mend.
        tracing::debug!(%error, "a connection ended");
    }
}

/// The places of connections. Where all are taken, the one that has kept us waiting longest, for a head or a body, goes:
/// clients that hold connections and send nothing do not keep out those that send. Those that were answered before go
/// last: their clients may be sending the next request at this very moment.
#[derive(Clone, Default)]
struct Connections(Arc<Shared>);

#[derive(Default)]
struct Shared {
    places: Mutex<Places>,
    /// A place was given back, or may be taken from its client.
    freed: Notify,
}

#[derive(Default)]
struct Places {
    next: u64,
    taken: usize,
    /// Those that wait for their client, in the order in which they go.
    waiting: BTreeMap<Turn, CancellationToken>,
}

/// Whether it was answered before, and since when it waits: a counter, since order is all that matters.
type Turn = (bool, u64);

impl Connections {
    /// A place, as soon as there is one. Those that come meanwhile queue in the listener.
    async fn wait(&self, most: usize) -> Option<Place> {
        let taken = async {
            loop {
                let freed = self.0.freed.notified();
                if let Some(place) = self.take(most) {
                    return place;
                }
                freed.await;
            }
        };
        timeout(WAIT_FOR_PLACE, taken).await.ok()
    }

    fn take(&self, most: usize) -> Option<Place> {
        let evicted = CancellationToken::new();
        {
            let mut places = self.places();
            if places.taken >= most {
                let (_, longest) = places.waiting.pop_first()?;
                longest.cancel();
            }
            places.taken += 1;
        }
        let ticket = Ticket { connections: self.clone(), waits: Mutex::new(None), evicted: evicted.clone() };
        let place = Place { ticket: Arc::new(ticket), evicted };
        place.offer(false);
        Some(place)
    }

    fn places(&self) -> MutexGuard<'_, Places> {
        self.0.places.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// A connection's place, given back when the last clone is dropped.
#[derive(Clone)]
pub(super) struct Place {
    ticket: Arc<Ticket>,
    evicted: CancellationToken,
}

struct Ticket {
    connections: Connections,
    /// The key in [`Places::waiting`], while it waits for its client.
    waits: Mutex<Option<Turn>>,
    evicted: CancellationToken,
}

impl Place {
    /// It waits for its client: it may be taken from it.
    fn offer(&self, answered: bool) {
        self.keep();
        let mut places = self.ticket.connections.places();
        let turn = (answered, places.next);
        places.next += 1;
        places.waiting.insert(turn, self.ticket.evicted.clone());
        *self.ticket.waits() = Some(turn);
        self.ticket.connections.0.freed.notify_one();
    }

    /// Its request is here: it is not taken from it until the answer is written.
    pub(super) fn keep(&self) {
        let mut places = self.ticket.connections.places();
        if let Some(turn) = self.ticket.waits().take() {
            places.waiting.remove(&turn);
        }
    }
}

impl Ticket {
    fn waits(&self) -> MutexGuard<'_, Option<Turn>> {
        self.waits.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for Ticket {
    fn drop(&mut self) {
        let mut places = self.connections.places();
        if let Some(turn) = self.waits().take() {
            places.waiting.remove(&turn);
        }
        places.taken -= 1;
        self.connections.0.freed.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn who_waits_longest_makes_room_and_who_was_answered_goes_last() {
        let connections = Connections::default();
        let answered = connections.take(3).expect("free");
        answered.keep();
        answered.offer(true);
        let silent = connections.take(3).expect("free");
        let younger = connections.take(3).expect("free");
        let third = connections.take(3).expect("the silent one is evicted");
        assert!(silent.evicted.is_cancelled() && !younger.evicted.is_cancelled() && !answered.evicted.is_cancelled());
        drop(silent);
        for place in [&answered, &younger, &third] {
            place.keep();
        }
        assert!(connections.take(3).is_none(), "all are at work");
        third.offer(true);
        assert!(connections.take(3).is_some() && third.evicted.is_cancelled());
    }
}
