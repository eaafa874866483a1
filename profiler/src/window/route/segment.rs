//! Which segments of a path are a route's words, and what takes the place of all others.
//!
//! A path may hold whatever a client has: a password, a token, a name. Nobody can list how secrets look, so what is
//! kept is listed: words of lower-case letters, versions, and types of files. A word is judged by form alone; that a
//! name or a short token of lower-case letters reads like one is what [`Kept::Strict`](super::Kept::Strict) is for.

use std::borrow::Cow;

/// Takes the place of text with a digit in it: most identifiers have one.
const ID: &str = "{id}";
/// Takes the place of any other text that is not kept.
pub(super) const MASK: &str = "{…}";

/// Letters of a word, at most: "authentication" has 14. Random ones are 75 bits then, and tokens have more.
const WORD_LETTERS: usize = 16;
/// Characters of a segment, at most: "apple-app-site-association" has 26.
const SEGMENT_CHARS: usize = 32;
/// Words of a segment, at most. More are a title or a sentence: somebody's text.
const WORDS: usize = 4;
/// Digits of each part of a version, at most. A longer number is a date or an identifier.
const VERSION_DIGITS: usize = 3;

/// Words with a digit in them that name a technique and not a thing.
const TECHNIQUES: [&str; 20] = [
    "2fa", "base64", "e2e", "ec2", "h2", "http2", "http3", "i18n", "ipv4", "ipv6", "k8s", "l10n",
    "md5", "oauth1", "oauth2", "s3", "sha1", "sha256", "sha512", "x509",
];

/// Endings that say what a file is, and nothing about whose.
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

/// The segment as it stands in a template.
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

/// Where the types of a file begin, such as `.min.js`: at the end if there are none.
fn file_type(segment: &str) -> usize {
    let mut end = segment.len();
    while let Some((stem, last)) = segment[..end].rsplit_once('.')
        && FILE_TYPES.contains(&last)
    {
        end = stem.len();
    }
    end
}

/// `login`, `wp-admin`, `oauth2_callback`, `.well-known`.
fn is_words(segment: &str) -> bool {
    let bare = segment.strip_prefix('.').unwrap_or(segment);
    let words = bare.split(['-', '_']).filter(|word| !word.is_empty());
    segment.len() <= SEGMENT_CHARS
        && (1..=WORDS).contains(&words.clone().count())
        && words.clone().all(is_word)
}

fn is_word(text: &str) -> bool {
    let is_letters = text.bytes().all(|it| it.is_ascii_lowercase());
    (is_letters && text.len() <= WORD_LETTERS)
        || TECHNIQUES.contains(&text)
        || is_number_of_version(text)
}

/// `v2`, or an early one such as `v1beta1`.
fn is_number_of_version(text: &str) -> bool {
    let number = text.strip_prefix('v').unwrap_or_default();
    ["alpha", "beta", "rc"]
        .iter()
        .find_map(|stage| number.split_once(stage))
        .map_or(is_short_number(number), |(number, early)| {
            is_short_number(number) && (early.is_empty() || is_short_number(early))
        })
}

/// `v2.1`.
fn is_version(segment: &str) -> bool {
    let number = segment.strip_prefix('v');
    number.is_some_and(|it| it.split('.').all(is_short_number) && it.len() <= WORD_LETTERS)
}

fn is_short_number(text: &str) -> bool {
    (1..=VERSION_DIGITS).contains(&text.len()) && text.bytes().all(|it| it.is_ascii_digit())
}

/// Those of percent-escapes stand for something else.
fn has_digit(text: &str) -> bool {
    let mut unescaped = text.split('%');
    let begins = unescaped.next().unwrap_or_default();
    let has = |text: &str| text.bytes().any(|it| it.is_ascii_digit());
    has(begins) || unescaped.any(|it| it.get(2..).is_some_and(has))
}
