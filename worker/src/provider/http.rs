//! The one HTTP client. It makes each request at most once, and knows whether a byte of it may have gone out.
//!
//! Nothing here retries or follows a redirect: a second request could be a second SMS.

use std::error::Error as StdError;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use bytes::{Bytes, BytesMut};
use http_body::{Body as HttpBody, Frame, SizeHint};
use jiff::Timestamp;
use jiff::fmt::rfc2822::DateTimeParser;
use reqwest::header::{DATE, HeaderMap, RETRY_AFTER};

use super::egress::{self, Networks, NotAllowed};
use super::{Request, Response, Verdict};
use crate::failpoint::{self, Point};
use crate::message::AttemptStatus;

/// Longest answer that is read. Real ones have a few hundred bytes.
const LONGEST_ANSWER: usize = 64 * 1024;

/// What [`within`] always waits for.
const LAST_MOMENT: Duration = Duration::from_millis(100);

/// Longest wait that is believed.
const LONGEST_WAIT: Duration = Duration::from_secs(24 * 3600);

/// How the client waits, and where it may go.
#[derive(Clone, Debug)]
pub struct ClientOptions {
    /// For name look-up, connection and TLS together.
    pub connect_timeout: Duration,
    /// How long an unused connection is kept. Below what servers keep theirs (often 5 s, some 2 s): a request written
    /// as the server closes ends unclear.
    pub idle_timeout: Duration,
    /// Networks of this machine's surroundings that the operator allows requests to.
    pub allowed: Networks,
}

impl Default for ClientOptions {
    fn default() -> Self {
        Self {
            connect_timeout: Duration::from_secs(5),
            idle_timeout: Duration::from_secs(1),
            allowed: Networks::default(),
        }
    }
}

/// The HTTP client, shared by all attempts.
#[derive(Clone, Debug)]
pub struct Client {
    inner: reqwest::Client,
    allowed: Networks,
}

impl Client {
    /// A client; fails where the TLS library or the system's certificates cannot be used.
    pub fn new(options: ClientOptions) -> Result<Self, reqwest::Error> {
        let inner = reqwest::Client::builder()
            .user_agent(concat!("sms-outbox/", env!("CARGO_PKG_VERSION")))
            .http1_only()
            .redirect(reqwest::redirect::Policy::none())
            .retry(reqwest::retry::never())
            .referer(false)
            // Credentials and messages go to the configured address, whatever the environment says.
            .no_proxy()
            .connect_timeout(options.connect_timeout)
            .pool_idle_timeout(options.idle_timeout)
            .tcp_nodelay(true)
            .dns_resolver(egress::Resolver { allowed: options.allowed.clone() })
            .build()?;
        Ok(Self { inner, allowed: options.allowed })
    }

    /// Makes one request. Nothing is written after `write_before`, and the answer is awaited until `answer_before`.
    /// A verdict tells of an end without an answer.
    pub async fn send(
        &self,
        request: Request,
        write_before: Instant,
        answer_before: Instant,
    ) -> Result<Response, Verdict> {
        if Instant::now() >= write_before {
            return Err(too_late());
        }
        if !egress::may_begin(&request.url, request.to_loopback, &self.allowed) {
            return Err(egress::refused());
        }
        let gate = Arc::new(Gate { write_before, state: AtomicU8::new(Gate::SHUT) });
        let mut builder = self.inner.request(request.method, request.url).headers(request.headers);
        let has_body = !request.body.is_empty();
        if has_body {
            builder =
                builder.body(reqwest::Body::wrap(GatedBody { gate: gate.clone(), bytes: Some(request.body.into()) }));
        }
        let gate = has_body.then_some(&*gate);
        let written = || gate.is_none_or(Gate::is_passed);
        let sending = failpoint::reach_after(Point::Written, written, builder.send());
        let answer = match within(answer_before, sending).await {
            Some(Ok(answer)) => answer,
            Some(Err(error)) => return Err(transport_end(&error, gate)),
            None => return Err(no_answer(gate)),
        };
        let status = answer.status().as_u16();
        let retry_after = retry_after(answer.headers());
        Ok(Response { status, retry_after, body: within(answer_before, read(answer)).await.flatten() })
    }
}

/// Waits until `before`, and always for a last moment: a process that was stopped finds the time over and the answer
/// in its socket. (The client's own time-out would rather forget that answer, and a message that was sent end unclear.)
async fn within<T>(before: Instant, work: impl Future<Output = T>) -> Option<T> {
    let over = async {
        tokio::time::sleep_until((before - LAST_MOMENT).into()).await;
        tokio::time::sleep(LAST_MOMENT).await;
    };
    tokio::select! {
        biased;
        done = work => Some(done),
        () = over => None,
    }
}

async fn read(mut answer: reqwest::Response) -> Option<Bytes> {
    let mut body = BytesMut::new();
    while let Some(chunk) = answer.chunk().await.ok()? {
        if body.len() + chunk.len() > LONGEST_ANSWER {
            return None;
        }
        body.extend_from_slice(&chunk);
    }
    Some(body.freeze())
}

/// Stands before the first byte of a request: hyper asks for the body after it has a connection, and flushes the head
/// only together with it. So as long as nobody asked, nothing was written; and it is the last moment at which the clock
/// can be read, for a worker that was stopped for a while.
#[derive(Debug)]
struct Gate {
    write_before: Instant,
    state: AtomicU8,
}

impl Gate {
    const SHUT: u8 = 0;
    const PASSED: u8 = 1;
    const TOO_LATE: u8 = 2;
    const GIVEN_UP: u8 = 3;

    fn is_passed(&self) -> bool {
        self.state.load(Ordering::Acquire) == Self::PASSED
    }

    /// Moves on from shut, once; returns what it was.
    fn leave_shut(&self, next: u8) -> u8 {
        match self.state.compare_exchange(Self::SHUT, next, Ordering::AcqRel, Ordering::Acquire) {
            Ok(was) | Err(was) => was,
        }
    }
}

struct GatedBody {
    gate: Arc<Gate>,
    bytes: Option<Bytes>,
}

impl HttpBody for GatedBody {
    type Data = Bytes;
    type Error = io::Error;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<Option<Result<Frame<Bytes>, io::Error>>> {
        let Some(bytes) = self.bytes.take() else {
            return Poll::Ready(None);
        };
        if Instant::now() >= self.gate.write_before {
            self.gate.state.store(Gate::TOO_LATE, Ordering::Release);
        }
        match self.gate.leave_shut(Gate::PASSED) {
            Gate::SHUT => {
                failpoint::reach_now(Point::Write);
                Poll::Ready(Some(Ok(Frame::data(bytes))))
            }
            _ => Poll::Ready(Some(Err(io::ErrorKind::TimedOut.into()))),
        }
    }

    fn is_end_stream(&self) -> bool {
        self.bytes.is_none()
    }

    fn size_hint(&self) -> SizeHint {
        SizeHint::with_exact(self.bytes.as_ref().map_or(0, |bytes| bytes.len() as u64))
    }
}

const TIMEOUT: (&str, &str) = ("timeout", "The provider did not answer in time, so the message may have been sent.");
const CONNECT_TIMEOUT: (&str, &str) =
    ("connect_timeout", "No connection to the provider came about in time, so nothing was sent.");

fn too_late() -> Verdict {
    Verdict::ended(AttemptStatus::NotSent, "lease_short", "Too little time of the lease was left, so nothing was sent.")
}

/// What it means that the time is over. From now on the gate lets nothing pass that had not passed.
fn no_answer(gate: Option<&Gate>) -> Verdict {
    match gate.map(|gate| gate.leave_shut(Gate::GIVEN_UP)) {
        Some(Gate::SHUT) => Verdict::ended(AttemptStatus::NotSent, CONNECT_TIMEOUT.0, CONNECT_TIMEOUT.1),
        Some(Gate::TOO_LATE) => too_late(),
        _ => Verdict::ended(AttemptStatus::Unclear, TIMEOUT.0, TIMEOUT.1),
    }
}

/// What a broken end without an answer means. Without a body there is no gate, and only a failed connection is surely unsent.
fn transport_end(error: &reqwest::Error, gate: Option<&Gate>) -> Verdict {
    let written = match gate.map(|gate| gate.state.load(Ordering::Acquire)) {
        Some(Gate::TOO_LATE) => return too_late(),
        Some(state) => state == Gate::PASSED,
        None => !error.is_connect(),
    };
    if !written {
        if causes(error).any(|cause| cause.is::<NotAllowed>()) {
            return egress::refused();
        }
        let (code, message) = unsent_cause(error);
        return Verdict::ended(AttemptStatus::NotSent, code, message);
    }
    let (code, message) = if error.is_timeout() {
        TIMEOUT
    } else {
        ("connection_lost", "The connection broke after the request began, so the message may have been sent.")
    };
    Verdict::ended(AttemptStatus::Unclear, code, message)
}

/// What lies behind an error, from the nearest to the farthest.
fn causes(error: &reqwest::Error) -> impl Iterator<Item = &(dyn StdError + 'static)> {
    // An io::Error shows as its source not the error within, but that one's source.
    fn next<'a>(cause: &'a (dyn StdError + 'static)) -> Option<&'a (dyn StdError + 'static)> {
        match cause.downcast_ref::<io::Error>().and_then(io::Error::get_ref) {
            Some(inner) => Some(inner),
            None => cause.source(),
        }
    }
    std::iter::successors(error.source(), |cause| next(*cause))
}

/// Why no connection came about. The text is ours: the client's own shows addresses.
fn unsent_cause(error: &reqwest::Error) -> (&'static str, &'static str) {
    let causes = || causes(error);
    let refused = |cause: &io::Error| cause.kind() == io::ErrorKind::ConnectionRefused;
    if causes().any(|cause| cause.is::<rustls::Error>()) {
        ("tls", "The provider's certificate or TLS was not acceptable, so nothing was sent.")
    } else if causes().any(|cause| cause.downcast_ref().is_some_and(refused)) {
        ("connection_refused", "The provider refused the connection, so nothing was sent.")
    } else if error.is_timeout() {
        CONNECT_TIMEOUT
    } else if causes().any(|cause| cause.to_string().starts_with("dns error")) {
        ("dns", "The provider's host name could not be resolved, so nothing was sent.")
    } else {
        ("connect", "No connection to the provider came about, so nothing was sent.")
    }
}

/// `Retry-After` in seconds, or as a date. The date is counted from the answer's own `Date`, so that nobody's clock need
/// be right; without one it is not believed.
fn retry_after(headers: &HeaderMap) -> Option<Duration> {
    fn date(text: &str) -> Option<Timestamp> {
        DateTimeParser::new().parse_timestamp(text).ok()
    }
    let text = |name| headers.get(name).and_then(|value| value.to_str().ok()).map(str::trim);
    let asked = text(RETRY_AFTER)?;
    let wait = match asked.parse::<f64>() {
        Ok(seconds) => Duration::try_from_secs_f64(seconds).ok()?,
        Err(_) => {
            let asked = date(asked)?;
            let answered = text(DATE).and_then(date)?;
            Duration::try_from(asked.duration_since(answered)).unwrap_or_default()
        }
    };
    Some(wait.min(LONGEST_WAIT))
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::net::SocketAddr;

    use reqwest::dns::{Addrs, Name, Resolve, Resolving};
    use reqwest::header::HeaderValue;
    use tokio::net::TcpListener;

    fn wait(asked: &'static str, date: Option<&'static str>) -> Option<u64> {
        let mut headers = HeaderMap::from_iter([(RETRY_AFTER, HeaderValue::from_static(asked))]);
        if let Some(date) = date {
            headers.insert(DATE, HeaderValue::from_static(date));
        }
        retry_after(&headers).map(|wait| wait.as_secs())
    }

    #[test]
    fn retry_after_in_seconds_or_as_a_date() {
        assert_eq!(wait("30", None), Some(30));
        assert_eq!(wait(" 1.5 ", None), Some(1));
        assert_eq!(wait("99999999999", None), Some(24 * 3600));
        let answered = Some("Sun, 06 Nov 1994 08:49:30 GMT");
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", answered), Some(7));
        assert_eq!(wait("Sun, 06 Nov 1994 08:48:00 GMT", answered), Some(0));
        assert_eq!(wait("Sun, 06 Nov 1994 08:49:37 GMT", None), None);
        for garbage in ["", "-1", "soon", "NaN", "inf", "Sun, 99 Nov 1994"] {
            assert_eq!(wait(garbage, None), None, "{garbage}");
        }
    }

    /// A resolver of somebody else's, who says now this and now that.
    struct Says {
        answers: std::sync::Mutex<Vec<SocketAddr>>,
        allowed: Networks,
    }

    impl Resolve for Says {
        fn resolve(&self, name: Name) -> Resolving {
            let answer = self.answers.lock().unwrap().pop().unwrap();
            let admitted = egress::admitted(name.as_str(), vec![answer], &self.allowed);
            Box::pin(async move { Ok(Box::new(admitted?.into_iter()) as Addrs) })
        }
    }

    #[tokio::test]
    async fn a_name_that_turns_inward_gets_no_connection() {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let port = listener.local_addr().unwrap().port();
        let inward = SocketAddr::from(([127, 0, 0, 1], port));
        for (allowed, code) in [("", "address_not_allowed"), ("127.0.0.0/8", "connection_lost")] {
            let allowed: Networks = allowed.parse().unwrap();
            let says = Says { answers: vec![inward].into(), allowed: allowed.clone() };
            let inner = reqwest::Client::builder().no_proxy().dns_resolver(says).build().unwrap();
            let client = Client { inner, allowed };
            let url = format!("http://gateway.example:{port}/").parse().unwrap();
            let soon = Instant::now() + Duration::from_secs(5);
            let hang_up = async { drop(listener.accept().await) };
            let sending = client.send(Request::post_form(url, &[("a", "b")]), soon, soon);
            let (verdict, connected) = tokio::select! {
                verdict = sending => (verdict.unwrap_err(), false),
                () = hang_up => (Verdict::ended(AttemptStatus::Unclear, "connection_lost", ""), true),
            };
            assert_eq!(verdict.error_code.as_deref(), Some(code));
            assert_eq!(connected, code == "connection_lost");
        }
    }
}
