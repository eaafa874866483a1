//! Methods and request targets.

use std::fmt;

use serde::{Serialize, Serializer};

/// A request method. Those that no standard below names are one, so that nothing which merely looks
/// like a method is kept.
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
    /// Any other.
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

    /// Methods are case-sensitive (RFC 9110, section 9.1).
    #[must_use]
    pub fn of(name: &str) -> Self {
        let named = Self::NAMED.into_iter().find(|it| it.name() == name);
        named.unwrap_or(Self::Other)
    }

    /// As it is written in a request line.
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

/// What a request asks for (RFC 9112, section 3.2): never with a query, a host or a user.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Target {
    /// A path, in origin form or taken out of absolute form.
    Path {
        /// ASCII without blanks or control characters. Escapes are left as they are, and bytes that
        /// should have been escaped are.
        text: String,
        /// Whether more of it was sent than shipped.
        cut: bool,
    },
    /// `*`: the server as a whole.
    Asterisk,
    /// What CONNECT names: a host and a port, which are not kept.
    Authority,
    /// No target that the standard knows. Not kept.
    Malformed,
}

impl Target {
    /// What `target` says; it has to be [`escaped`].
    pub(super) fn parse(method: Method, target: &str, cut: bool) -> Self {
        if method == Method::Connect {
            return Self::Authority;
        }
        if target == "*" && !cut {
            return Self::Asterisk;
        }
        // A fragment is not sent by clients that keep to the standard; it is no part of the path either.
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

/// The path of `http://user@host:80/path`. The user and the host are not kept; of a target that is cut
/// in them nothing is.
fn path_of_absolute(target: &str, cut: bool) -> Option<&str> {
    let (scheme, rest) = target.split_once("://")?;
    let is_scheme = |it: u8| it.is_ascii_alphanumeric() || b"+-.".contains(&it);
    if !scheme.starts_with(|it: char| it.is_ascii_alphabetic()) || !scheme.bytes().all(is_scheme) {
        return None;
    }
    match rest.find('/') {
        Some(at) => Some(&rest[at..]),
        None if cut => Some(""),
        None => Some("/"),
    }
}

/// With every byte that is not ASCII as a percent-escape, which is what it should have been sent as.
pub(super) fn escaped(line: &[u8]) -> Vec<u8> {
    const HEX: &[u8; 16] = b"0123456789ABCDEF";
    let mut escaped = Vec::with_capacity(line.len());
    for byte in line {
        if byte.is_ascii() {
            escaped.push(*byte);
        } else {
            let [high, low] = [byte >> 4, byte & 15].map(|it| HEX[usize::from(it)]);
            escaped.extend_from_slice(&[b'%', high, low]);
        }
    }
    escaped
}
