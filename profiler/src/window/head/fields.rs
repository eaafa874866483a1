//! The few headers that are looked at.

use thiserror::Error;

/// Longest request id that is kept.
pub const MAX_ID_BYTES: usize = 128;

/// The header of the W3C's "Trace Context" recommendation.
const TRACEPARENT: &str = "traceparent";

/// Headers that hold secrets. An id must not be asked for in one of them.
const SECRET: [&str; 7] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
];

/// The name of the header that holds the request id: `X-Request-ID`, unless told otherwise.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdHeader(String);

/// Why a header cannot be the one with the request id.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum IdHeaderError {
    /// RFC 9110, section 5.1, allows letters, digits and some marks.
    #[error("`{0}` is not the name of an HTTP header: name one such as `X-Request-ID`")]
    NotAName(String),
    /// Request ids are printed and stored.
    #[error("`{0}` holds a secret, which would be printed: name a header with a request id in it")]
    Secret(String),
}

impl IdHeader {
    /// The header of that name; its case does not matter.
    ///
    /// # Errors
    ///
    /// If it is no name, or that of a header with a secret.
    pub fn new(name: &str) -> Result<Self, IdHeaderError> {
        let is_token = |it: u8| it.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&it);
        if name.is_empty() || !name.bytes().all(is_token) {
            return Err(IdHeaderError::NotAName(name.to_owned()));
        }
        if SECRET
            .iter()
            .any(|secret| secret.eq_ignore_ascii_case(name))
        {
            return Err(IdHeaderError::Secret(name.to_owned()));
        }
        Ok(Self(name.to_owned()))
    }
}

impl Default for IdHeader {
    fn default() -> Self {
        Self("X-Request-ID".to_owned())
    }
}

/// What the headers said, as far as they were seen.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// What the id header says: printable ASCII without blanks and brackets, at most [`MAX_ID_BYTES`].
    pub request_id: Option<String>,
    /// The trace id of `traceparent`: 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// `Connection: close`: the connection ends with this message.
    pub close: bool,
    /// The connection is to speak, or speaks from now on, another protocol.
    pub upgrade: bool,
    /// Bytes of the body.
    pub content_length: Option<u64>,
    /// The body comes in chunks, and its end says so.
    pub chunked: bool,
}

impl Fields {
    /// What to call the request: by its own id, else by its trace.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.request_id.as_deref().or(self.trace_id.as_deref())
    }

    /// Takes a header line with its end. One that is malformed is as good as unknown.
    pub(super) fn take_line(&mut self, line: &mut Vec<u8>, id: &IdHeader) {
        line.extend_from_slice(b"\r\n");
        let mut headers = [httparse::EMPTY_HEADER];
        let Ok(httparse::Status::Complete((_, [header]))) =
            httparse::parse_headers(line, &mut headers)
        else {
            return;
        };
        let is = |name: &str| header.name.eq_ignore_ascii_case(name);
        if is(&id.0) && self.request_id.is_none() {
            self.request_id = request_id(header.value);
        } else if is(TRACEPARENT) && self.trace_id.is_none() {
            self.trace_id = trace_id(header.value);
        } else if is("connection") {
            self.close |= has_token(header.value, b"close");
            self.upgrade |= has_token(header.value, b"upgrade");
        } else if is("upgrade") {
            self.upgrade = true;
        } else if is("content-length") {
            let digits = std::str::from_utf8(header.value.trim_ascii()).ok();
            self.content_length = digits.and_then(|digits| digits.parse().ok());
        } else if is("transfer-encoding") {
            self.chunked |= has_token(header.value, b"chunked");
        }
    }
}

/// Brackets would end the id too early in a request line, blanks could forge what follows it.
fn request_id(value: &[u8]) -> Option<String> {
    let fits = (1..=MAX_ID_BYTES).contains(&value.len());
    let is_plain = |it: &u8| it.is_ascii_graphic() && !b"[]".contains(it);
    let id = value.iter().all(is_plain).then_some(value)?;
    fits.then(|| String::from_utf8_lossy(id).into_owned())
}

/// The second part of `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
fn trace_id(value: &[u8]) -> Option<String> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |it: &[u8]| it.iter().all(|it| matches!(it, b'0'..=b'9' | b'a'..=b'f'));
    let has_form = version.len() == 2 && trace.len() == 32 && parent.len() == 16;
    // The recommendation, section 3.2: version ff and a trace id of zeros are invalid.
    let is_valid = version != b"ff" && trace.iter().any(|it| *it != b'0');
    let all_hex = [version, trace, parent].into_iter().all(is_hex);
    (has_form && is_valid && all_hex).then(|| String::from_utf8_lossy(trace).into_owned())
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    let mut tokens = value.split(|byte| *byte == b',');
    tokens.any(|it| it.trim_ascii().eq_ignore_ascii_case(token))
}
