//! A TCP proxy that breaks connections when it is told to: a network, or a provider's front, that fails at a chosen moment.
//!
//! It lies before a pretend provider or before a server, and passes everything on until an order fits. What it did is
//! counted, since a fault that did not happen proves nothing.

mod postgres;

use std::io;
use std::net::SocketAddr;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use anyhow::{Context, Result};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{TcpListener, TcpSocket, TcpStream};
use tokio::sync::watch;
use tokio::task::{JoinHandle, JoinSet};

use self::postgres::Tap;

/// When it breaks a connection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Moment {
    /// A client connects.
    Connect,
    /// A client's next bytes have come; they are not passed on.
    Request,
    /// The next bytes of an answer have come; they are not passed on.
    Answer,
    /// The first bytes of an answer have been passed on, and no more of them.
    AmidAnswer,
    /// A client asks for a PostgreSQL statement with these words; it is not passed on.
    Ask(&'static str),
    /// A PostgreSQL server has done a statement with these words, and is ready for the next; its answer is not passed on.
    AnswerTo(&'static str),
}

/// How it breaks a connection.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Act {
    /// Resets it: RST.
    Reset,
    /// Closes it: FIN.
    Close,
    /// Keeps it, and never again reads or writes a byte of it: half open.
    Silence,
    /// Passes the answer on byte by byte, and goes on.
    Trickle,
}

struct Order {
    at: Moment,
    act: Act,
    times: u64,
}

struct Shared {
    upstream: SocketAddr,
    orders: Mutex<Vec<Order>>,
    silenced: watch::Sender<&'static str>,
    idle: watch::Sender<Option<Duration>>,
    connections: AtomicU64,
    injected: AtomicU64,
    round_trips: AtomicU64,
}

impl Shared {
    fn orders(&self) -> MutexGuard<'_, Vec<Order>> {
        self.orders.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// What was ordered for a moment, once.
    fn take(&self, fits: impl Fn(&Moment) -> bool) -> Option<Act> {
        let mut orders = self.orders();
        let order = orders.iter_mut().find(|order| order.times > 0 && fits(&order.at))?;
        order.times -= 1;
        self.injected.fetch_add(1, Ordering::Relaxed);
        Some(order.act)
    }
}

/// A proxy on a port of its own; its connections end with it.
pub struct Proxy {
    port: u16,
    shared: Arc<Shared>,
    accepting: JoinHandle<()>,
}

impl Proxy {
    /// Starts one before a port of this machine.
    pub async fn start(upstream: u16) -> Result<Self> {
        let listener = TcpListener::bind("127.0.0.1:0").await?;
        let port = listener.local_addr()?.port();
        let shared = Arc::new(Shared {
            upstream: SocketAddr::from(([127, 0, 0, 1], upstream)),
            orders: Mutex::default(),
            silenced: watch::Sender::new(""),
            idle: watch::Sender::new(None),
            connections: AtomicU64::new(0),
            injected: AtomicU64::new(0),
            round_trips: AtomicU64::new(0),
        });
        let accepting = tokio::spawn(accept(listener, shared.clone()));
        Ok(Self { port, shared, accepting })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// `http://127.0.0.1:PORT`.
    pub fn url(&self) -> String {
        format!("http://127.0.0.1:{}", self.port)
    }

    /// Orders a fault for the next times that the moment comes.
    pub fn order(&self, at: Moment, act: Act, times: u64) {
        self.shared.orders().push(Order { at, act, times });
    }

    /// From now on those connections are half open which have carried a PostgreSQL statement with these words.
    pub fn silence(&self, words: &'static str) {
        self.shared.silenced.send_replace(words);
    }

    /// From now on connections are closed that carry nothing for so long.
    pub fn close_idle(&self, after: Option<Duration>) {
        self.shared.idle.send_replace(after);
    }

    /// No order is left, and nothing goes silent any more; what is half open stays so.
    pub fn heal(&self) {
        self.shared.orders().clear();
        self.shared.silenced.send_replace("");
        self.close_idle(None);
    }

    /// How many connections it has broken.
    pub fn injected(&self) -> u64 {
        self.shared.injected.load(Ordering::Relaxed)
    }

    /// How often clients have waited for an answer of a PostgreSQL server.
    pub fn round_trips(&self) -> u64 {
        self.shared.round_trips.load(Ordering::Relaxed)
    }

    /// How many connections clients have made.
    pub fn connections(&self) -> u64 {
        self.shared.connections.load(Ordering::Relaxed)
    }
}

impl Drop for Proxy {
    fn drop(&mut self) {
        self.accepting.abort();
    }
}

async fn accept(listener: TcpListener, shared: Arc<Shared>) {
    let mut connections = JoinSet::new();
    while let Ok((client, _)) = listener.accept().await {
        shared.connections.fetch_add(1, Ordering::Relaxed);
        let shared = shared.clone();
        // A side that breaks off ends the other: that is all that an error means here.
        connections.spawn(async move { drop(serve(client, &shared).await) });
        while connections.try_join_next().is_some() {}
    }
}

async fn serve(mut client: TcpStream, shared: &Shared) -> io::Result<()> {
    client.set_nodelay(true)?;
    if let Some(act) = shared.take(|at| *at == Moment::Connect) {
        return end(&client, act).await;
    }
    let mut server = TcpStream::connect(shared.upstream).await?;
    server.set_nodelay(true)?;
    let (mut request, mut answer) = (vec![0; 16 * 1024], vec![0; 16 * 1024]);
    let mut tap = Tap::default();
    let (mut silenced, mut idle) = (shared.silenced.subscribe(), shared.idle.subscribe());
    // What is done once the statement that is on its way is answered.
    let mut once_answered = None;
    loop {
        let patience = *idle.borrow_and_update();
        tokio::select! {
            biased;
            read = client.read(&mut request) => {
                let bytes = &request[..ended(read)?];
                if let Some(act) = shared.take(|at| *at == Moment::Request) {
                    return end(&client, act).await;
                }
                for statement in tap.client(bytes) {
                    let asks = |at: &Moment| matches!(at, Moment::Ask(words) if statement.contains(words));
                    if let Some(act) = shared.take(asks) {
                        return end(&client, act).await;
                    }
                    let answers = |at: &Moment| matches!(at, Moment::AnswerTo(words) if statement.contains(words));
                    once_answered = once_answered.or_else(|| shared.take(answers));
                }
                shared.round_trips.fetch_add(tap.take_round_trips(), Ordering::Relaxed);
                server.write_all(bytes).await?;
            }
            read = server.read(&mut answer) => {
                let bytes = &answer[..ended(read)?];
                if let Some(act) = once_answered {
                    if tap.is_ready(bytes) {
                        return end(&client, act).await;
                    }
                } else if let Some(act) = shared.take(|at| *at == Moment::AmidAnswer) {
                    client.write_all(&bytes[..bytes.len().min(20)]).await?;
                    return end(&client, act).await;
                } else {
                    match shared.take(|at| *at == Moment::Answer) {
                        None => client.write_all(bytes).await?,
                        Some(Act::Trickle) => trickle(&mut client, bytes).await?,
                        Some(act) => return end(&client, act).await,
                    }
                }
            }
            Ok(()) = silenced.changed() => {
                let words = *silenced.borrow_and_update();
                if !words.is_empty() && tap.has_seen(words) {
                    shared.injected.fetch_add(1, Ordering::Relaxed);
                    return end(&client, Act::Silence).await;
                }
            }
            Ok(()) = idle.changed() => {}
            () = tokio::time::sleep(patience.unwrap_or_default()), if patience.is_some() => {
                shared.injected.fetch_add(1, Ordering::Relaxed);
                return end(&client, Act::Close).await;
            }
        }
    }
}

/// The length of what was read; the end of a side is the end of the connection.
fn ended(read: io::Result<usize>) -> io::Result<usize> {
    match read? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

async fn end(client: &TcpStream, act: Act) -> io::Result<()> {
    match act {
        // Closing with no lingering sends RST instead of FIN.
        Act::Reset => client.set_zero_linger(),
        Act::Close | Act::Trickle => Ok(()),
        Act::Silence => std::future::pending().await,
    }
}

async fn trickle(client: &mut TcpStream, bytes: &[u8]) -> io::Result<()> {
    for byte in bytes {
        client.write_all(&[*byte]).await?;
        tokio::time::sleep(Duration::from_millis(2)).await;
    }
    Ok(())
}

/// A port whose queue of connections is full, and stays so: the system drops every further SYN.
#[derive(Debug)]
pub struct Deaf {
    port: u16,
    _listener: TcpListener,
    _waiting: Vec<TcpStream>,
}

impl Deaf {
    /// Starts one, and sees that it is deaf.
    pub async fn start() -> Result<Self> {
        let socket = TcpSocket::new_v4()?;
        socket.bind(SocketAddr::from(([127, 0, 0, 1], 0)))?;
        let listener = socket.listen(1)?;
        let address = listener.local_addr()?;
        let mut waiting = Vec::new();
        while let Ok(connected) = tokio::time::timeout(Duration::from_millis(500), TcpStream::connect(address)).await {
            waiting.push(connected.context("refused, not dropped")?);
        }
        Ok(Self { port: address.port(), _listener: listener, _waiting: waiting })
    }

    /// Its port.
    pub fn port(&self) -> u16 {
        self.port
    }
}

#[cfg(test)]
mod tests;
