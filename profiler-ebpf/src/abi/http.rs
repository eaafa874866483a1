//! How messages of HTTP/1.x begin. Pure, and without loops: it runs in the kernel.

/// What the next bytes of a connection begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Beginning {
    /// A request's head.
    Request,
    /// The beginning of a method's name: too few bytes to tell.
    Partial,
    /// The preface of HTTP/2 (RFC 9113, section 3.4).
    Http2,
    /// A TLS handshake record (RFC 8446, section 5.1).
    Tls,
    /// Anything else.
    Other,
}

/// How many bytes tell what they begin, at most.
pub const TOKEN_BYTES: usize = 8;

/// The methods of RFC 9110 and RFC 5789, each with the blank behind it.
const METHODS: [&[u8]; 9] = [
    b"GET ",
    b"PUT ",
    b"POST ",
    b"HEAD ",
    b"PATCH ",
    b"TRACE ",
    b"DELETE ",
    b"OPTIONS ",
    b"CONNECT ",
];
/// As much of the preface of HTTP/2 as fits.
const HTTP2: &[u8] = b"PRI * HT";

/// What the first `len` bytes begin, at most [`TOKEN_BYTES`], given as a little-endian word.
#[inline(always)]
#[must_use]
pub const fn beginning(word: u64, len: usize) -> Beginning {
    let mut partial = false;
    let mut index = 0;
    while index < METHODS.len() {
        let (is_prefix, is_whole) = compare(word, len, METHODS[index]);
        if is_whole {
            return Beginning::Request;
        }
        partial |= is_prefix;
        index += 1;
    }
    let (is_prefix, is_whole) = compare(word, len, HTTP2);
    if is_whole {
        return Beginning::Http2;
    }
    if len >= 2 && word & 0xffff == 0x0316 {
        return Beginning::Tls;
    }
    if partial || is_prefix {
        return Beginning::Partial;
    }
    Beginning::Other
}

/// Whether the bytes agree with `token` as far as both go, and whether the bytes have all of `token`.
#[inline(always)]
const fn compare(word: u64, len: usize, token: &[u8]) -> (bool, bool) {
    let common = if len < token.len() { len } else { token.len() };
    let agrees = (word ^ little_endian(token)) & low_bytes(common) == 0;
    (agrees, agrees && len >= token.len())
}

const fn little_endian(token: &[u8]) -> u64 {
    let mut word = 0;
    let mut index = token.len();
    while index > 0 {
        index -= 1;
        word = word << 8 | token[index] as u64;
    }
    word
}

/// A mask of `count` bytes, at most eight.
#[inline(always)]
#[must_use]
pub const fn low_bytes(count: usize) -> u64 {
    if count >= 8 {
        u64::MAX
    } else {
        (1 << (8 * count)) - 1
    }
}

/// How many of the first bytes are ends of lines, which a server skips before a request's head (RFC
/// 9112, section 2.2); at most two.
#[inline(always)]
#[must_use]
pub const fn leading_line_ends(word: u64, len: usize) -> usize {
    const fn is_line_end(byte: u64) -> bool {
        byte == b'\r' as u64 || byte == b'\n' as u64
    }
    if len == 0 || !is_line_end(word & 0xff) {
        0
    } else if len == 1 || !is_line_end(word >> 8 & 0xff) {
        1
    } else {
        2
    }
}

/// What a message's first bytes say of the response that they begin.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Status {
    /// The bytes begin no response.
    None,
    /// The response announces another one for the same request: 1xx, except for 101.
    Interim,
    /// 101: the connection speaks another protocol from here on.
    Upgrade,
    /// Any other response, or one whose digits have not arrived yet.
    Final,
}

/// How many bytes tell a [`Status`].
const STATUS_BYTES: usize = 12;

/// What the first `len` bytes of a message say. `first` and `second` are the first and the second eight bytes, as
/// little-endian words.
#[inline(always)]
#[must_use]
pub const fn status(first: u64, second: u64, len: usize) -> Status {
    if len < 8 || first & low_bytes(7) != little_endian(b"HTTP/1.") {
        return Status::None;
    }
    let digits = second >> 8 & low_bytes(3);
    if len < STATUS_BYTES || digits & 0xff != b'1' as u64 {
        Status::Final
    } else if digits == little_endian(b"101") {
        Status::Upgrade
    } else {
        Status::Interim
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn beginning_of(bytes: &[u8]) -> Beginning {
        let len = bytes.len().min(TOKEN_BYTES);
        beginning(little_endian(&bytes[..len]), len)
    }

    #[test]
    fn every_method_is_told_from_every_prefix_of_it() {
        for method in METHODS {
            for len in 1..method.len() {
                assert_eq!(beginning_of(&method[..len]), Beginning::Partial);
            }
            assert_eq!(beginning_of(method), Beginning::Request);
            let head = [method, b"/users/7 HTTP/1.1\r\n"].concat();
            assert_eq!(beginning_of(&head), Beginning::Request);
        }
    }

    #[test]
    fn what_is_no_method_begins_nothing() {
        for bytes in [
            &b"GETX/"[..],
            b"get /",
            b"HTTP/1.1",
            b"\0\0\0\0",
            b"PRIX",
            b"*1\r\n",
        ] {
            assert_eq!(beginning_of(bytes), Beginning::Other, "{bytes:?}");
        }
    }

    #[test]
    fn other_protocols_are_told() {
        assert_eq!(beginning_of(b"PRI * HTTP/2.0\r\n"), Beginning::Http2);
        assert_eq!(beginning_of(b"PRI *"), Beginning::Partial);
        assert_eq!(beginning_of(b"\x16\x03\x01\x02"), Beginning::Tls);
    }

    #[test]
    fn line_ends_are_counted() {
        let count = |bytes: &[u8]| leading_line_ends(little_endian(bytes), bytes.len());
        assert_eq!(count(b"\r\nGET"), 2);
        assert_eq!(count(b"\nGET"), 1);
        assert_eq!(count(b"\r"), 1);
        assert_eq!(count(b"GET"), 0);
        assert_eq!(count(b""), 0);
    }

    #[test]
    fn responses_are_told() {
        let status_of = |bytes: &[u8]| {
            let word =
                |at: usize| little_endian(&bytes[at.min(bytes.len())..bytes.len().min(at + 8)]);
            status(word(0), word(8), bytes.len())
        };
        assert_eq!(status_of(b"HTTP/1.1 100 Continue\r\n"), Status::Interim);
        assert_eq!(status_of(b"HTTP/1.1 103 Early Hints"), Status::Interim);
        assert_eq!(
            status_of(b"HTTP/1.1 101 Switching Protocols"),
            Status::Upgrade
        );
        assert_eq!(status_of(b"HTTP/1.0 200 OK\r\n"), Status::Final);
        assert_eq!(status_of(b"HTTP/1.1 10"), Status::Final);
        assert_eq!(status_of(b"HTTP/1."), Status::None);
        assert_eq!(status_of(b"HTTP/2.0 200"), Status::None);
    }
}
