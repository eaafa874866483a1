//! Which segments of a path name a thing and not a kind of things.
//!
//! Judged by form alone, so that a route's name does not depend on what came before. The rules are
//! made so that words stay words: an identifier that is missed makes a row of its own, a word that is
//! taken for one hides what the route does.

use std::borrow::Cow;

/// What takes the place of an identifier.
const ID: &str = "{id}";

/// From this length on, hexadecimal digits are an identifier if one of them is a number; the longest
/// English words of the letters a to f are no longer than this ("fabaceae").
const HEX_DIGITS: usize = 8;
/// From this length on they are one without a number in them.
const HEX_LETTERS: usize = 12;
/// Letters and digits of a random identifier, at least: 62^16 is 95 bits. Shorter ones cannot be told
/// from names such as `OAuth2Callback`.
const RANDOM_CHARS: usize = 16;
/// Changes between letters and digits that speak for chance; `Report2024Summary` has two.
const CHANGES: usize = 3;
/// Letters and digits a word, in tenths, below which what looks like words is chance: random characters
/// of base64 have 1.8 a word, camel case five or so.
const CHARS_PER_WORD: usize = 22;

/// The longest ending that counts as a file's type: `.jpeg`, `.woff2`.
const EXTENSION_CHARS: usize = 5;

/// What stands between the parts of a token.
const SEPARATORS: [char; 10] = ['.', ':', '=', ',', '~', '%', '!', '$', '+', '@'];
const ESCAPED_BASE64: [&str; 6] = ["%2B", "%2b", "%2F", "%2f", "%3D", "%3d"];

/// The segment as it stands in a template.
pub(super) fn generalize(segment: &str) -> Cow<'_, str> {
    // Parameters of a segment (RFC 3986, section 3.3) hold session ids: `;jsessionid=…`.
    let segment = segment.split_once(';').map_or(segment, |(name, _)| name);
    if is_id(segment) {
        return ID.into();
    }
    match segment.rsplit_once('.') {
        Some((stem, extension)) if is_extension(extension) && (is_id(stem) || has_token(stem)) => {
            format!("{ID}.{extension}").into()
        }
        _ if has_token(segment) => ID.into(),
        _ => segment.into(),
    }
}

/// Something random among other parts: a JSON Web Token, a signed value (`1:1rZ…:uH4…`), `token=…`. Whoever
/// reads it may be let in by it.
fn has_token(segment: &str) -> bool {
    // Base64's two characters that are no letters, and its padding.
    let joined = ESCAPED_BASE64
        .iter()
        .fold(Cow::from(segment), |text, escaped| {
            match text.contains(escaped) {
                true => text.replace(escaped, "").into(),
                false => text,
            }
        });
    joined
        .split(SEPARATORS)
        .any(|part| is_random(part.as_bytes()))
}

fn is_id(segment: &str) -> bool {
    // Base64's padding says nothing, escaped or not.
    let bare = segment.trim_end_matches("%3D").trim_end_matches("%3d");
    let bare = bare.trim_end_matches('=').as_bytes();
    is_number(bare) || is_hex(bare) || is_random(bare) || is_address(segment)
}

fn is_extension(text: &str) -> bool {
    let is_short = (1..=EXTENSION_CHARS).contains(&text.len());
    is_short
        && text.bytes().all(|it| it.is_ascii_alphanumeric())
        && text.bytes().any(|it| it.is_ascii_alphabetic())
}

/// `42`, and dates and ranges: `2024-01-31`, `10:30`. Not `1.0`, which is a version.
fn is_number(text: &[u8]) -> bool {
    text.iter().any(u8::is_ascii_digit)
        && text
            .iter()
            .all(|it| it.is_ascii_digit() || b"-_:,".contains(it))
}

/// Also with hyphens, as in a UUID.
fn is_hex(text: &[u8]) -> bool {
    let digits = text.iter().filter(|it| **it != b'-');
    let count = digits.clone().count();
    let is_all_hex = digits.clone().all(u8::is_ascii_hexdigit);
    let has_number = digits.clone().any(u8::is_ascii_digit);
    // "bad-cafe-facade" is a title.
    let has_hyphen = count < text.len();
    is_all_hex && ((has_number && count >= HEX_DIGITS) || (!has_hyphen && count >= HEX_LETTERS))
}

/// Base64, base62 and base32, a prefix such as `cus_` included: no words can be made out.
fn is_random(text: &[u8]) -> bool {
    let is_base64 = |it: &u8| it.is_ascii_alphanumeric() || b"-_".contains(it);
    let chars = text.iter().filter(|it| it.is_ascii_alphanumeric()).count();
    if chars < RANDOM_CHARS || !text.iter().all(is_base64) {
        return false;
    }
    let pairs = || text.iter().zip(&text[1..]);
    let changes = pairs().filter(|(a, b)| is_change(**a, **b)).count();
    let words = 1 + pairs().filter(|(a, b)| begins_word(**a, **b)).count();
    changes >= CHANGES || chars * 10 < words * CHARS_PER_WORD
}

fn is_change(a: u8, b: u8) -> bool {
    (a.is_ascii_digit() && b.is_ascii_alphabetic())
        || (a.is_ascii_alphabetic() && b.is_ascii_digit())
}

/// `B` begins a word in `aB`, `AB`, `a_B` and `1B`; so does a digit behind a letter.
fn begins_word(a: u8, b: u8) -> bool {
    b.is_ascii_uppercase()
        || is_change(a, b)
        || (!a.is_ascii_alphanumeric() && b.is_ascii_alphanumeric())
}

/// A mail address, which is nobody's business either.
fn is_address(text: &str) -> bool {
    let parts = text.split_once('@').or_else(|| text.split_once("%40"));
    parts.is_some_and(|(user, host)| !user.is_empty() && host.contains('.'))
}
