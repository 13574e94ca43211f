//! One connection: reads requests, does what the rules say, answers or misbehaves.

use std::io;
use std::sync::Arc;
use std::time::Duration;

use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use super::State;
use super::control;
use super::request::{self, Answer, Request};
use super::rules::{Behaviour, Rule};
use super::wire::{self, Fault, Wire};

/// How long a stalled answer stalls where its rule does not say.
const STALL: Duration = Duration::from_secs(600);

/// What becomes of the connection.
enum Next {
    Keep,
    Close,
    Reset,
}

/// Serves a connection to its end. A client that breaks off or speaks no HTTP ends it too: that is its right.
pub(super) async fn serve(mut stream: TcpStream, state: Arc<State>) {
    let _ = stream.set_nodelay(true);
    let mut buffer = Vec::with_capacity(4096);
    while let Ok(Next::Keep) = turn(&mut stream, &mut buffer, &state).await {}
}

async fn turn(stream: &mut TcpStream, buffer: &mut Vec<u8>, state: &State) -> io::Result<Next> {
    let next = match one_request(stream, buffer, state).await {
        Ok(next) => next,
        Err(error) => {
            if !matches!(error.kind(), io::ErrorKind::InvalidData | io::ErrorKind::Unsupported) {
                return Err(error);
            }
            let body = serde_json::json!({"error": error.to_string()});
            write(stream, &Answer::json(400, body)).await?;
            Next::Close
        }
    };
    if matches!(next, Next::Reset) {
        // Closing with no lingering sends RST instead of FIN.
        stream.set_zero_linger()?;
    }
    Ok(next)
}

async fn one_request(stream: &mut TcpStream, buffer: &mut Vec<u8>, state: &State) -> io::Result<Next> {
    if buffer.is_empty() {
        match timeout(state.idle_timeout, stream.readable()).await {
            Ok(ready) => ready?,
            Err(_) => return Ok(Next::Close),
        }
        if state.rules.act_before_read()
            && let Some(wire) = peek(stream).await?
            && state.rules.resets_unread(wire.slug())
        {
            state.journal.note(wire.slug(), None, Some(Behaviour::ResetBeforeRead), None)?;
            return Ok(Next::Reset);
        }
    }
    let Some(request) = request::read(stream, buffer).await? else { return Ok(Next::Close) };
    let next = if request.path.starts_with("/control/") {
        write(stream, &control::answer(state, &request)).await?;
        Next::Keep
    } else {
        match wire::of(&request.path) {
            Some(wire) => match wire.look_up(&request, &state.journal) {
                Some(answer) => {
                    write(stream, &answer).await?;
                    Next::Keep
                }
                None => submit(stream, state, wire, &request).await?,
            },
            None => {
                write(stream, &Answer::json(404, serde_json::json!({"error": "no provider has this path"}))).await?;
                Next::Keep
            }
        }
    };
    Ok(match next {
        Next::Keep if request.close => Next::Close,
        next => next,
    })
}

/// The wire of the request that waits unread; none for one that can only be a look-up.
async fn peek(stream: &TcpStream) -> io::Result<Option<&'static dyn Wire>> {
    let mut unread = [0; 64];
    let length = stream.peek(&mut unread).await?;
    let line = String::from_utf8_lossy(&unread[..length]);
    let path = line.split(' ').nth(1).filter(|_| !line.starts_with("GET "));
    Ok(path.and_then(wire::of_prefix))
}

async fn submit(stream: &mut TcpStream, state: &State, wire: &dyn Wire, request: &Request) -> io::Result<Next> {
    let submission = match wire.read(request) {
        Ok(submission) => submission,
        Err(fault) => {
            state.journal.note(wire.slug(), None, None, None)?;
            write(stream, &wire.fault(&fault)).await?;
            return Ok(Next::Keep);
        }
    };
    let rule = state.rules.choose(wire.slug(), &submission);
    let id = wire.id(state.journal.next_id());
    let accepted = rule.behaviour.accepts().then_some(id.as_str());
    if let Err(error) = state.journal.note(wire.slug(), Some(&submission), Some(rule.behaviour), accepted) {
        tracing::error!(%error, "the journal cannot be written: nothing is accepted");
        write(stream, &wire.fault(&wire.refusal(Behaviour::Error500))).await?;
        return Ok(Next::Keep);
    }
    let wait = rule.delay();
    if !wait.is_zero() && rule.behaviour != Behaviour::StallAfterHeaders {
        tokio::time::sleep(wait).await;
    }
    let answer = match rule.behaviour {
        Behaviour::ResetBeforeRead | Behaviour::ResetAfterRead | Behaviour::ResetAfterAccept => {
            return Ok(Next::Reset);
        }
        Behaviour::Accept | Behaviour::Delay => wire.accepted(&submission, &id),
        Behaviour::StallAfterHeaders => {
            stream.write_all(wire.accepted(&submission, &id).head().as_bytes()).await?;
            let wait = rule.delay_ms.map_or(STALL, Duration::from_millis);
            // Ends when the client leaves; what it may still send is not read as a request.
            let _ = timeout(wait, stream.read_u8()).await;
            return Ok(Next::Close);
        }
        Behaviour::Truncate => {
            let answer = wire.accepted(&submission, &id);
            let half = &answer.body.as_bytes()[..answer.body.len() / 2];
            stream.write_all(&[answer.head().as_bytes(), half].concat()).await?;
            return Ok(Next::Close);
        }
        Behaviour::Garbage => Answer {
            content_type: "text/html",
            ..Answer::json(rule.status.unwrap_or(200), "<!doctype html><title>Maintenance</title>")
        },
        Behaviour::Redirect => Answer {
            location: Some(format!("{}?redirected=1", request.path)),
            ..Answer::json(rule.status.unwrap_or(307), "{}")
        },
        Behaviour::RefuseRecipient
        | Behaviour::RefuseContent
        | Behaviour::RefuseAccount
        | Behaviour::Balance
        | Behaviour::Throttle
        | Behaviour::Error500
        | Behaviour::AcceptThen500 => wire.fault(&scripted(wire, &rule)),
    };
    write(stream, &answer).await?;
    Ok(Next::Keep)
}

/// The provider's own refusal, changed as the rule says.
fn scripted(wire: &dyn Wire, rule: &Rule) -> Fault {
    let own = wire.refusal(rule.behaviour);
    Fault {
        status: rule.status.unwrap_or(own.status),
        code: rule.code.clone().or(own.code),
        retry_after: rule.retry_after.or(own.retry_after),
        ..own
    }
}

async fn write(stream: &mut TcpStream, answer: &Answer) -> io::Result<()> {
    let mut bytes = answer.head().into_bytes();
    bytes.extend_from_slice(answer.body.as_bytes());
    stream.write_all(&bytes).await
}
