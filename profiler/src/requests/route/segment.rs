//! Which segments of a path are words of a route, and what stands for all others.
//!
//! A path may hold whatever a client has: a password, a token, a name. Nobody can list how secrets
//! look, so this file lists what to keep: words of lower-case letters, versions, and types of
//! files. The form alone decides what is a word. A name or a short token of lower-case letters has
//! the form of a word: [`Kept::Strict`](super::Kept::Strict) is for that case.

use std::borrow::Cow;

/// Stands for text with a digit in it. Most identifiers have one.
const ID: &str = "{id}";
/// Stands for any other text that is not kept.
pub(super) const MASK: &str = "{…}";

/// The most letters of a word: "authentication" has 14. This many random letters are 75 bits, and
/// tokens have more.
const WORD_LETTERS: usize = 16;
/// The most characters of a segment: "apple-app-site-association" has 26.
const SEGMENT_CHARS: usize = 32;
/// The most words of a segment. More words are a title or a sentence: somebody's text.
const WORDS: usize = 4;
/// The most digits in each part of a version. A longer number is a date or an identifier.
const VERSION_DIGITS: usize = 3;

/// Words with a digit in them that name a technique and not a thing.
const TECHNIQUES: [&str; 20] = [
    "2fa", "base64", "e2e", "ec2", "h2", "http2", "http3", "i18n", "ipv4", "ipv6", "k8s", "l10n",
    "md5", "oauth1", "oauth2", "s3", "sha1", "sha256", "sha512", "x509",
];

/// Endings that tell the type of a file, and not whose file it is.
const FILE_TYPES: [&str; 58] = [
    "asp",
    "aspx",
    "atom",
    "avif",
    "bin",
    "bmp",
    "bz2",
    "cgi",
    "css",
    "csv",
    "do",
    "doc",
    "docx",
    "eot",
    "exe",
    "gif",
    "gz",
    "htm",
    "html",
    "ico",
    "jpeg",
    "jpg",
    "js",
    "json",
    "jsp",
    "map",
    "md",
    "min",
    "mjs",
    "mp3",
    "mp4",
    "otf",
    "pdf",
    "php",
    "png",
    "ps",
    "py",
    "rss",
    "sql",
    "svg",
    "tar",
    "tgz",
    "tif",
    "tiff",
    "ttf",
    "txt",
    "wasm",
    "wav",
    "webm",
    "webmanifest",
    "webp",
    "woff",
    "woff2",
    "xhtml",
    "xls",
    "xlsx",
    "xml",
    "zip",
];

/// Makes a segment into what a template shows.
pub(super) fn generalize(segment: &str) -> Cow<'_, str> {
    // Parameters of a segment (RFC 3986, section 3.3) hold session ids: `;jsessionid=…`.
    let segment = segment.split_once(';').map_or(segment, |(name, _)| name);
    if segment.is_empty() || is_words(segment) || is_version(segment) {
        return segment.into();
    }
    let (stem, file_type) = segment.split_at(file_type(segment));
    if !file_type.is_empty() && is_words(stem) {
        return segment.into();
    }
    let mask = if has_digit(stem) { ID } else { MASK };
    format!("{mask}{file_type}").into()
}

/// Finds where the types of a file begin, such as `.min.js`. The result is the end of the segment
/// if there are none.
fn file_type(segment: &str) -> usize {
    let mut end = segment.len();
    while let Some((stem, last)) = segment[..end].rsplit_once('.')
        && FILE_TYPES.contains(&last)
    {
        end = stem.len();
    }
    end
}

/// Whether the segment consists of words: `login`, `wp-admin`, `oauth2_callback`, `.well-known`.
fn is_words(segment: &str) -> bool {
    let bare = segment.strip_prefix('.').unwrap_or(segment);
    let words = bare.split(['-', '_']).filter(|word| !word.is_empty());
    segment.len() <= SEGMENT_CHARS
        && (1..=WORDS).contains(&words.clone().count())
        && words.clone().all(is_word)
}

fn is_word(text: &str) -> bool {
    let is_letters = text.bytes().all(|byte| byte.is_ascii_lowercase());
    (is_letters && text.len() <= WORD_LETTERS)
        || TECHNIQUES.contains(&text)
        || is_number_of_version(text)
}

/// Whether the text is a version such as `v2`, or an early version such as `v1beta1`.
fn is_number_of_version(text: &str) -> bool {
    let number = text.strip_prefix('v').unwrap_or_default();
    ["alpha", "beta", "rc"]
        .iter()
        .find_map(|stage| number.split_once(stage))
        .map_or(is_short_number(number), |(number, early)| {
            is_short_number(number) && (early.is_empty() || is_short_number(early))
        })
}

/// Whether the segment is a version such as `v2.1`.
fn is_version(segment: &str) -> bool {
    let number = segment.strip_prefix('v');
    number.is_some_and(|text| text.split('.').all(is_short_number) && text.len() <= WORD_LETTERS)
}

fn is_short_number(text: &str) -> bool {
    (1..=VERSION_DIGITS).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

/// Whether the text has a digit. The digits of a percent-escape do not count, because they stand
/// for another character.
fn has_digit(text: &str) -> bool {
    let mut unescaped = text.split('%');
    let begins = unescaped.next().unwrap_or_default();
    let has = |text: &str| text.bytes().any(|byte| byte.is_ascii_digit());
    has(begins) || unescaped.any(|part| part.get(2..).is_some_and(has))
}
