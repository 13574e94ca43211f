//! HTTP/1.1 as far as a pretend provider needs it: one request in, one answer out.

use std::io;

use tokio::io::AsyncReadExt;
use tokio::net::TcpStream;

/// Longest request, head and body together.
const LONGEST: usize = 1024 * 1024;

const HEADERS: usize = 64;

/// One request.
#[derive(Debug, Default)]
pub(super) struct Request {
    pub(super) method: String,
    pub(super) path: String,
    pub(super) query: String,
    pub(super) authorization: Option<String>,
    pub(super) api_key: Option<String>,
    pub(super) close: bool,
    pub(super) body: Vec<u8>,
}

impl Request {
    /// The user and secret of basic authentication.
    pub(super) fn basic(&self) -> Option<(String, String)> {
        use base64::Engine;
        let encoded = self.authorization.as_deref()?.strip_prefix("Basic ")?;
        let decoded = base64::engine::general_purpose::STANDARD.decode(encoded).ok()?;
        let (user, secret) = std::str::from_utf8(&decoded).ok()?.split_once(':')?;
        Some((user.to_owned(), secret.to_owned()))
    }

    /// A field of the query.
    pub(super) fn field(&self, name: &str) -> Option<String> {
        let fields: Vec<(String, String)> = serde_urlencoded::from_str(&self.query).unwrap_or_default();
        fields.into_iter().find(|(field, _)| field == name).map(|(_, value)| value)
    }

    /// The token of bearer authentication.
    pub(super) fn bearer(&self) -> Option<String> {
        self.authorization.as_deref()?.strip_prefix("Bearer ").map(str::to_owned).filter(|token| !token.is_empty())
    }
}

/// Reads the next request; what was read beyond it stays in `buffer`. `None` at the end of the connection.
pub(super) async fn read(stream: &mut TcpStream, buffer: &mut Vec<u8>) -> io::Result<Option<Request>> {
    loop {
        if let Some((mut request, head, length)) = parse_head(buffer)? {
            let end = head.checked_add(length).filter(|end| *end <= LONGEST).ok_or_else(too_long)?;
            while buffer.len() < end {
                if stream.read_buf(buffer).await? == 0 {
                    return Err(io::ErrorKind::UnexpectedEof.into());
                }
            }
            request.body = buffer[head..end].to_vec();
            buffer.drain(..end);
            return Ok(Some(request));
        }
        if buffer.len() > LONGEST {
            return Err(too_long());
        }
        if stream.read_buf(buffer).await? == 0 {
            return Ok(None);
        }
    }
}

/// The request without its body, the length of its head and of its body; `None` while the head is incomplete.
fn parse_head(buffer: &[u8]) -> io::Result<Option<(Request, usize, usize)>> {
    let mut headers = [httparse::EMPTY_HEADER; HEADERS];
    let mut parsed = httparse::Request::new(&mut headers);
    let head = match parsed.parse(buffer).map_err(|error| io::Error::new(io::ErrorKind::InvalidData, error))? {
        httparse::Status::Complete(head) => head,
        httparse::Status::Partial => return Ok(None),
    };
    let target = parsed.path.unwrap_or_default();
    let (path, query) = target.split_once('?').unwrap_or((target, ""));
    let mut request = Request {
        method: parsed.method.unwrap_or_default().to_owned(),
        path: path.to_owned(),
        query: query.to_owned(),
        close: parsed.version == Some(0),
        ..Request::default()
    };
    let mut length = 0;
    for header in parsed.headers.iter() {
        let text = || String::from_utf8_lossy(header.value).trim().to_owned();
        if header.name.eq_ignore_ascii_case("content-length") {
            length = text().parse().map_err(|_| io::Error::from(io::ErrorKind::InvalidData))?;
        } else if header.name.eq_ignore_ascii_case("authorization") {
            request.authorization = Some(text());
        } else if header.name.eq_ignore_ascii_case("x-api-key") {
            request.api_key = Some(text());
        } else if header.name.eq_ignore_ascii_case("connection") {
            request.close |= text().eq_ignore_ascii_case("close");
        } else if header.name.eq_ignore_ascii_case("transfer-encoding") {
            return Err(io::Error::new(io::ErrorKind::Unsupported, "chunked requests are not supported"));
        }
    }
    Ok(Some((request, head, length)))
}

fn too_long() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, "the request is too long")
}

/// One answer.
#[derive(Clone, Debug)]
pub(super) struct Answer {
    pub(super) status: u16,
    pub(super) retry_after: Option<u64>,
    pub(super) location: Option<String>,
    pub(super) content_type: &'static str,
    pub(super) body: String,
}

impl Answer {
    pub(super) fn json(status: u16, body: impl ToString) -> Self {
        Self { status, retry_after: None, location: None, content_type: "application/json", body: body.to_string() }
    }

    /// The head, which promises the whole body.
    pub(super) fn head(&self) -> String {
        use std::fmt::Write;
        let reason = reqwest::StatusCode::from_u16(self.status).ok().and_then(|status| status.canonical_reason());
        let mut head = format!(
            "HTTP/1.1 {} {}\r\ncontent-type: {}\r\ncontent-length: {}\r\n",
            self.status,
            reason.unwrap_or("Unknown"),
            self.content_type,
            self.body.len()
        );
        // Writing to a String cannot fail.
        if let Some(seconds) = self.retry_after {
            let _ = write!(head, "retry-after: {seconds}\r\n");
        }
        if let Some(location) = &self.location {
            let _ = write!(head, "location: {location}\r\n");
        }
        head.push_str("\r\n");
        head
    }
}
