//! The few headers that the parser reads.

use thiserror::Error;

/// The length of the longest request id that the parser keeps.
pub const MAX_ID_BYTES: usize = 128;

/// The header of the W3C's "Trace Context" recommendation.
const TRACEPARENT: &str = "traceparent";

/// Headers that hold secrets. A user cannot name one of them as the header with the id.
const SECRET: [&str; 7] = [
    "authorization",
    "cookie",
    "proxy-authorization",
    "set-cookie",
    "x-api-key",
    "x-auth-token",
    "x-csrf-token",
];

/// The name of the header that holds the request id. The default is `X-Request-ID`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct IdHeader(String);

/// Why a header cannot be the one with the request id.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum IdHeaderError {
    /// The text is no name: RFC 9110, section 5.1, allows letters, digits and some marks.
    #[error("`{0}` is not the name of an HTTP header: name one such as `X-Request-ID`")]
    NotAName(String),
    /// The header holds a secret. Request ids are printed and stored.
    #[error("`{0}` holds a secret, which would be printed: name a header with a request id in it")]
    Secret(String),
}

impl IdHeader {
    /// Names a header. The case of the name does not matter.
    ///
    /// # Errors
    ///
    /// Fails if the text is no name, or if it is the name of a header with a secret.
    pub fn new(name: &str) -> Result<Self, IdHeaderError> {
        let is_token = |c: u8| c.is_ascii_alphanumeric() || b"!#$%&'*+-.^_`|~".contains(&c);
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

/// What the headers say, as far as the parser saw them.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Fields {
    /// The value of the id header: printable ASCII without blanks and brackets, at most
    /// [`MAX_ID_BYTES`].
    pub request_id: Option<String>,
    /// The trace id of `traceparent`: 32 hexadecimal digits.
    pub trace_id: Option<String>,
    /// `Connection: close`: the connection ends with this message.
    pub close: bool,
    /// The connection speaks another protocol from now on, or is to do so.
    pub upgrade: bool,
    /// The length of the body in bytes.
    pub content_length: Option<u64>,
    /// The body comes in chunks, and the last chunk marks its end.
    pub chunked: bool,
}

impl Fields {
    /// Returns the name of the request: its own id, or else the id of its trace.
    #[must_use]
    pub fn id(&self) -> Option<&str> {
        self.request_id.as_deref().or(self.trace_id.as_deref())
    }

    /// Takes a header line with its end. A malformed line counts as unknown.
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

/// Reads a request id. A bracket would end the id too early in a request line, and a blank could
/// forge what follows the id.
fn request_id(value: &[u8]) -> Option<String> {
    let fits = (1..=MAX_ID_BYTES).contains(&value.len());
    let is_plain = |byte: &u8| byte.is_ascii_graphic() && !b"[]".contains(byte);
    let id = value.iter().all(is_plain).then_some(value)?;
    fits.then(|| String::from_utf8_lossy(id).into_owned())
}

/// Reads the second part of `00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01`.
fn trace_id(value: &[u8]) -> Option<String> {
    let mut parts = value.split(|byte| *byte == b'-');
    let (version, trace, parent) = (parts.next()?, parts.next()?, parts.next()?);
    let is_hex = |c: &u8| matches!(c, b'0'..=b'9' | b'a'..=b'f');
    let has_form = version.len() == 2 && trace.len() == 32 && parent.len() == 16;
    // The recommendation, section 3.2: version ff and a trace id of zeros are invalid.
    let is_valid = version != b"ff" && trace.iter().any(|digit| *digit != b'0');
    let all_hex = [version, trace, parent].concat().iter().all(is_hex);
    (has_form && is_valid && all_hex).then(|| String::from_utf8_lossy(trace).into_owned())
}

fn has_token(value: &[u8], token: &[u8]) -> bool {
    let mut tokens = value.split(|byte| *byte == b',');
    tokens.any(|text| text.trim_ascii().eq_ignore_ascii_case(token))
}
