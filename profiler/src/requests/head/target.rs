//! Methods and targets of requests.

use std::fmt;

use serde::{Serialize, Serializer};

/// The method of a request. All methods that no standard below names are `Other`, so that a route
/// keeps nothing that merely looks like a method.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Method {
    /// RFC 9110, section 9.3.1.
    Get,
    /// RFC 9110, section 9.3.2.
    Head,
    /// RFC 9110, section 9.3.3.
    Post,
    /// RFC 9110, section 9.3.4.
    Put,
    /// RFC 9110, section 9.3.5.
    Delete,
    /// RFC 9110, section 9.3.6.
    Connect,
    /// RFC 9110, section 9.3.7.
    Options,
    /// RFC 9110, section 9.3.8.
    Trace,
    /// RFC 5789.
    Patch,
    /// Any other method.
    Other,
}

impl Method {
    const NAMED: [Self; 9] = [
        Self::Get,
        Self::Head,
        Self::Post,
        Self::Put,
        Self::Delete,
        Self::Connect,
        Self::Options,
        Self::Trace,
        Self::Patch,
    ];

    /// Finds the method of this name. Methods are case-sensitive (RFC 9110, section 9.1).
    #[must_use]
    pub fn of(name: &str) -> Self {
        let named = Self::NAMED.into_iter().find(|method| method.name() == name);
        named.unwrap_or(Self::Other)
    }

    /// Returns the method as a request line writes it.
    #[must_use]
    pub const fn name(self) -> &'static str {
        match self {
            Self::Get => "GET",
            Self::Head => "HEAD",
            Self::Post => "POST",
            Self::Put => "PUT",
            Self::Delete => "DELETE",
            Self::Connect => "CONNECT",
            Self::Options => "OPTIONS",
            Self::Trace => "TRACE",
            Self::Patch => "PATCH",
            Self::Other => "OTHER",
        }
    }
}

impl fmt::Display for Method {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

impl Serialize for Method {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(self.name())
    }
}

/// What a request asks for (RFC 9112, section 3.2), without a query, a host or a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path, in origin form or taken out of absolute form.
    Path {
        /// ASCII without blanks or control characters. Escapes stay as they are. Bytes that the
        /// client should have escaped are escaped.
        text: String,
        /// Whether the client sent more of the path than the kernel side shipped.
        cut: bool,
    },
    /// `*`: the server as a whole.
    Asterisk,
    /// The target of CONNECT: a host and a port, which the parser does not keep.
    Authority,
    /// A target that the standard does not know. The parser does not keep it.
    Malformed,
}

impl Target {
    /// Parses a target, which has to be [`escaped`].
    pub(super) fn parse(method: Method, target: &str, cut: bool) -> Self {
        if method == Method::Connect {
            return Self::Authority;
        }
        if target == "*" && !cut {
            return Self::Asterisk;
        }
        // Clients that keep to the standard send no fragment, and a fragment is no part of the
        // path.
        let end = target.find(['?', '#']);
        let (target, cut) = (&target[..end.unwrap_or(target.len())], cut && end.is_none());
        let path = match target.starts_with('/') {
            true => Some(target),
            false => path_of_absolute(target, cut),
        };
        path.map_or(Self::Malformed, |text| Self::Path {
            text: text.to_owned(),
            cut,
        })
    }
}

/// Finds the path of `http://user@host:80/path`. The parser does not keep the user and the host. A
/// target that is cut inside the user or the host has an empty path.
fn path_of_absolute(target: &str, cut: bool) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let is_scheme = |byte: u8| byte.is_ascii_alphanumeric() || b"+-.".contains(&byte);
    if !scheme.starts_with(|c: char| c.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
        return None;
    }
    match rest.find('/') {
        Some(at) => Some(&rest[at..]),
        None if cut => Some(""),
        None => Some("/"),
    }
}

/// Percent-escapes every byte that is not ASCII, as the client should have done.
pub(super) fn escaped(line: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut escaped = Vec::with_capacity(line.len());
    for byte in line {
        if byte.is_ascii() {
            escaped.push(*byte);
        } else {
            let [high, low] = [byte >> 4, byte & 15].map(|digit| HEX[usize::from(digit)]);
            escaped.extend_from_slice(&[b'%', high, low]);
        }
    }
    escaped
}
