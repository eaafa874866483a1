//! Heads of HTTP/1.x messages, from the fragments that the kernel side ships.
//!
//! A head comes in any number of pieces and is usually cut: the kernel side ships at most
//! [`HEAD_BYTES`] of each. The parser takes each line when the line is whole (with `httparse`), and
//! then forgets the line. It skips a header line that does not parse, because nobody knows what the
//! server makes of such a line. Of all headers, the parser keeps only the request id and what the
//! headers say about the connection.
//!
//! ```
//! use residue::requests::head::{Head, HeadParser, IdHeader, Target};
//!
//! let mut parser = HeadParser::default();
//! parser.push(b"GET /users/7?token=secret HT", &IdHeader::default());
//! parser.push(b"TP/1.1\r\nX-Request-ID: abc123\r\n\r\n", &IdHeader::default());
//! let Head::Request(request) = parser.finish() else {
//!     panic!("it is a request");
//! };
//! assert_eq!(request.target, Target::Path { text: "/users/7".into(), cut: false });
//! assert_eq!(request.fields.id(), Some("abc123"));
//! ```

mod fields;
mod target;

use std::{fmt, mem};

pub use fields::{Fields, IdHeader, IdHeaderError, MAX_ID_BYTES};
pub use target::{Method, Target};

/// The most bytes of one head that the parser reads, which is what the kernel side ships.
pub const HEAD_BYTES: usize = 256;

/// How a TLS handshake record begins: its type, and the major version (RFC 8446, section 5.1).
const TLS: &[u8] = &[0x16, 0x03];
/// How the preface of HTTP/2 begins (RFC 9113, section 3.4).
const HTTP2: &[u8] = b"PRI * HTTP/2.0";
/// How a request line ends.
const VERSIONS: [&[u8]; 2] = [b" HTTP/1.1\r\n", b" HTTP/1.0\r\n"];
/// How every response begins.
const RESPONSE: &[u8] = b"HTTP/1.";

/// What a head turned out to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Head {
    /// A request.
    Request(RequestHead),
    /// A response that answers the request.
    Response(ResponseHead),
    /// Only interim responses so far (1xx except 101). The response is still to come, with a head
    /// of its own.
    Interim {
        /// The status of the last interim response.
        status: u16,
    },
    /// The preface of HTTP/2. What follows is not HTTP/1.x.
    Http2,
    /// A TLS handshake. What follows is encrypted.
    Tls,
    /// None of these, or too little to tell.
    Unknown,
}

/// What the parser keeps of a request's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RequestHead {
    /// The method, such as `GET`.
    pub method: Method,
    /// The target of the request, without its query.
    pub target: Target,
    /// The version. `None` if the head was cut before it.
    pub version: Option<Version>,
    /// The headers, as far as the parser saw them.
    pub fields: Fields,
}

/// What the parser keeps of a response's head.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ResponseHead {
    /// The status of the status line, not necessarily one that a standard knows.
    pub status: u16,
    /// The version of the status line.
    pub version: Version,
    /// The headers, as far as the parser saw them. Many servers repeat the request id here, or make
    /// one up.
    pub fields: Fields,
}

/// How a reader finds the end of a response (RFC 9112, section 6.3), unless the request's method
/// forbids a body.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ResponseEnd {
    /// After a number of bytes.
    Bytes {
        /// Bytes of the head.
        head: u64,
        /// Bytes of the body.
        body: u64,
    },
    /// After a chunk of zero bytes.
    LastChunk,
    /// When the connection ends.
    ConnectionClosed,
    /// The connection speaks another protocol from here on.
    Upgraded,
}

/// The version of HTTP/1.x.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Version {
    /// Connections end with the response, unless client and server agree otherwise.
    Http10,
    /// Connections stay open, unless client and server agree otherwise.
    Http11,
}

impl Version {
    /// Returns the version of a minor number. httparse knows no numbers other than 0 and 1.
    const fn of_minor(minor: u8) -> Self {
        match minor {
            0 => Self::Http10,
            _ => Self::Http11,
        }
    }
}

/// Takes the fragments of one head. The parser holds the line that is not whole yet, and nothing
/// else that [`Head`] does not hold.
#[derive(Default)]
pub struct HeadParser {
    /// How many bytes the parser has taken, at most [`HEAD_BYTES`].
    taken: usize,
    /// How many bytes of the head there are so far.
    head_bytes: usize,
    /// What came since the last end of a line.
    line: Vec<u8>,
    stage: Stage,
    first: FirstLine,
    fields: Fields,
}

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
enum Stage {
    #[default]
    FirstLine,
    Headers,
    Done,
}

#[derive(Debug, Default, PartialEq, Eq)]
enum FirstLine {
    #[default]
    Unknown,
    Http2,
    Tls,
    Request {
        method: Method,
        target: Target,
        version: Option<Version>,
    },
    Response {
        status: u16,
        version: Version,
    },
}

impl HeadParser {
    /// Takes the next fragment, and returns the part of the fragment that lies behind the head. The
    /// parser does not read the bytes there, nor the ones behind the first [`HEAD_BYTES`].
    pub fn push<'a>(&mut self, fragment: &'a [u8], id: &IdHeader) -> &'a [u8] {
        let room = HEAD_BYTES - self.taken;
        let mut rest = &fragment[..fragment.len().min(room)];
        self.taken += rest.len();
        for piece in rest.split_inclusive(|byte| *byte == b'\n') {
            if self.stage == Stage::Done {
                return rest;
            }
            rest = &rest[piece.len()..];
            self.head_bytes += piece.len();
            self.line.extend_from_slice(piece);
            if self.stage == Stage::FirstLine && self.line.starts_with(TLS) {
                self.end_with(FirstLine::Tls);
            } else if piece.ends_with(b"\n") {
                let mut line = mem::take(&mut self.line);
                self.take_line(&mut line, id);
                // The next line reuses the room of this one.
                line.clear();
                self.line = line;
            }
        }
        rest
    }

    /// Tells how a reader finds the end of a response whose head is whole.
    #[must_use]
    pub fn response_end(&self) -> Option<ResponseEnd> {
        let FirstLine::Response { status, .. } = self.first else {
            return None;
        };
        if self.stage != Stage::Done || is_interim(status) {
            return None;
        }
        let head_bytes = self.head_bytes as u64;
        Some(match (status, self.fields.content_length) {
            (101, _) => ResponseEnd::Upgraded,
            (204 | 304, _) => ResponseEnd::Bytes {
                head: head_bytes,
                body: 0,
            },
            _ if self.fields.chunked => ResponseEnd::LastChunk,
            (_, Some(body)) => ResponseEnd::Bytes {
                head: head_bytes,
                body,
            },
            _ => ResponseEnd::ConnectionClosed,
        })
    }

    /// Whether everything so far announces a response that is still to come.
    #[must_use]
    pub fn is_interim(&self) -> bool {
        matches!(self.first, FirstLine::Response { status, .. } if is_interim(status))
    }

    /// Returns the method of a request, once the parser has its first line.
    #[must_use]
    pub fn method(&self) -> Option<Method> {
        match &self.first {
            FirstLine::Request { method, .. } => Some(*method),
            _ => None,
        }
    }

    /// Whether no further byte can change what [`finish`](Self::finish) returns.
    #[must_use]
    pub fn is_complete(&self) -> bool {
        self.stage == Stage::Done || self.taken == HEAD_BYTES
    }

    /// Returns what the head is, as far as the parser saw it.
    #[must_use]
    pub fn finish(mut self) -> Head {
        if self.stage == Stage::FirstLine && !self.line.is_empty() {
            let line = mem::take(&mut self.line);
            self.take_first_line(FirstLine::of_cut(line));
        }
        let fields = self.fields;
        match self.first {
            FirstLine::Unknown => Head::Unknown,
            FirstLine::Http2 => Head::Http2,
            FirstLine::Tls => Head::Tls,
            FirstLine::Response { status, .. } if is_interim(status) => Head::Interim { status },
            FirstLine::Response { status, version } => Head::Response(ResponseHead {
                status,
                version,
                fields,
            }),
            FirstLine::Request {
                method,
                target,
                version,
            } => Head::Request(RequestHead {
                method,
                target,
                version,
                fields,
            }),
        }
    }

    fn take_line(&mut self, line: &mut Vec<u8>, id: &IdHeader) {
        let is_blank = matches!(&line[..], b"\n" | b"\r\n");
        match (self.stage, is_blank) {
            // RFC 9112, section 2.2: a server ignores empty lines before the request line.
            (Stage::FirstLine, true) | (Stage::Done, _) => {}
            (Stage::FirstLine, false) => self.take_first_line(FirstLine::of_line(line)),
            (Stage::Headers, false) => self.fields.take_line(line, id),
            (Stage::Headers, true) => self.end_headers(),
        }
    }

    fn take_first_line(&mut self, first: FirstLine) {
        self.stage = match (&self.first, &first) {
            (_, FirstLine::Response { .. }) => Stage::Headers,
            // Whatever follows an interim response does not undo it.
            (FirstLine::Response { .. }, _) => return self.stage = Stage::Done,
            (_, FirstLine::Request { .. }) => Stage::Headers,
            _ => Stage::Done,
        };
        self.first = first;
    }

    fn end_headers(&mut self) {
        self.stage = match self.first {
            FirstLine::Response { status, .. } if is_interim(status) => {
                self.fields = Fields::default();
                Stage::FirstLine
            }
            _ => Stage::Done,
        };
    }

    fn end_with(&mut self, first: FirstLine) {
        self.line.clear();
        self.take_first_line(first);
    }
}

/// Whether another status line follows for the same request. After 101 the connection speaks
/// another protocol, so 101 is the last status line.
const fn is_interim(status: u16) -> bool {
    matches!(status, 100..200) && status != 101
}

impl FirstLine {
    /// Reads a line with its end.
    fn of_line(line: &[u8]) -> Self {
        if line.starts_with(HTTP2) {
            Self::Http2
        } else if line.starts_with(RESPONSE) {
            Self::of_response(line)
        } else {
            Self::of_request(&target::escaped(line), false)
        }
    }

    /// Reads a line whose end the kernel side did not ship. The function adds an end, and does not
    /// keep what may be cut.
    fn of_cut(mut line: Vec<u8>) -> Self {
        if line.starts_with(HTTP2) || line.starts_with(RESPONSE) {
            line.extend_from_slice(b"\r\n");
            return Self::of_line(&line);
        }
        let mut line = target::escaped(&line);
        let mut blanks = line.iter().enumerate().filter(|(_, byte)| **byte == b' ');
        let target_end = blanks.nth(1).map(|(at, _)| at);
        let rest = line.split_off(target_end.unwrap_or(line.len()));
        if !VERSIONS.iter().any(|version| version.starts_with(&rest)) {
            return Self::Unknown;
        }
        line.extend_from_slice(VERSIONS[0]);
        match Self::of_request(&line, target_end.is_none()) {
            Self::Request { method, target, .. } => Self::Request {
                method,
                target,
                version: None,
            },
            other => other,
        }
    }

    fn of_request(line: &[u8], target_is_cut: bool) -> Self {
        let mut request = httparse::Request::new(&mut []);
        // httparse takes a line without headers for a part of a head, and returns no error.
        let (
            Ok(httparse::Status::Partial),
            httparse::Request {
                method: Some(method),
                path: Some(target),
                version: Some(version),
                ..
            },
        ) = (request.parse(line), request)
        else {
            return Self::Unknown;
        };
        let method = Method::of(method);
        Self::Request {
            method,
            target: Target::parse(method, target, target_is_cut),
            version: Some(Version::of_minor(version)),
        }
    }

    fn of_response(line: &[u8]) -> Self {
        let mut response = httparse::Response::new(&mut []);
        let (
            Ok(httparse::Status::Partial),
            httparse::Response {
                version: Some(version),
                code: Some(status),
                ..
            },
        ) = (response.parse(line), response)
        else {
            return Self::Unknown;
        };
        Self::Response {
            status,
            version: Version::of_minor(version),
        }
    }
}

/// Shows how many bytes of the unfinished line the parser holds, and never which. The line may hold
/// a header that is nobody's business.
impl fmt::Debug for HeadParser {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self {
            taken,
            head_bytes,
            line,
            stage,
            first,
            fields,
        } = self;
        f.debug_struct("HeadParser")
            .field("taken", taken)
            .field("head_bytes", head_bytes)
            .field("line_bytes", &line.len())
            .field("stage", stage)
            .field("first", first)
            .field("fields", fields)
            .finish()
    }
}
