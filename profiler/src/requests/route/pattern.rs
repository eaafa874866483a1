//! Templates that a user gives, for identifiers that do not look like identifiers.

use std::fmt;
use std::str::FromStr;

use thiserror::Error;

/// A template such as `/blog/{slug}` or `/files/*`. A segment in braces stands for exactly one
/// segment that is not empty. A `*` as the last segment stands for everything from there on. A path
/// that matches a pattern has the text of the pattern as its route.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Pattern(String);

/// Why a text is no pattern.
#[derive(Debug, Error, PartialEq, Eq)]
pub enum PatternError {
    /// Paths begin with a slash.
    #[error("`{0}` does not begin with `/`: a route pattern is a path, such as `/files/*`")]
    NoPath(String),
    /// The pattern would match no request.
    #[error("`{0}` has a query, a blank, or a character that has to be escaped in a path")]
    NotInPaths(String),
    /// The text behind `*` would have no meaning.
    #[error("`{0}` goes on after `*`: name single segments in braces, as in `/files/{{name}}/raw`")]
    AfterAll(String),
}

const ALL: &str = "*";

impl Pattern {
    pub(super) fn matches(&self, path: &str) -> bool {
        let mut segments = path.split('/');
        for pattern in self.0.split('/') {
            match segments.next() {
                Some(segment) if pattern == ALL => return !segment.is_empty(),
                Some(segment) if is_any(pattern) && !segment.is_empty() => {}
                Some(segment) if segment == pattern => {}
                _ => return false,
            }
        }
        segments.next().is_none()
    }
}

fn is_any(pattern: &str) -> bool {
    pattern.starts_with('{') && pattern.ends_with('}')
}

impl FromStr for Pattern {
    type Err = PatternError;

    fn from_str(text: &str) -> Result<Self, PatternError> {
        let in_paths = |c: char| c.is_ascii_graphic() && !"?#".contains(c);
        let mut before_last = text.rsplit('/').skip(1);
        if !text.starts_with('/') {
            Err(PatternError::NoPath(text.to_owned()))
        } else if !text.chars().all(in_paths) {
            Err(PatternError::NotInPaths(text.to_owned()))
        } else if before_last.any(|segment| segment == ALL) {
            Err(PatternError::AfterAll(text.to_owned()))
        } else {
            Ok(Self(text.to_owned()))
        }
    }
}

impl fmt::Display for Pattern {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}
