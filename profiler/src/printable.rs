//! What may be printed: the one place that says so, and the sinks that hold every output to it.
//!
//! Names come from targets and captures, and strangers choose them. A control character could drive the
//! reader's terminal, a line break forge a line of a report, a bidirectional control make a name read
//! backwards, and what has no width hide in a name that looks like another. Each such character is shown by
//! its number, as `\u{202e}`, so that nothing is hidden and two names that differ never read the same.

mod sink;

#[cfg(test)]
pub(crate) mod hostile;

use std::borrow::Cow;

pub(crate) use sink::{Notation, Sink};

/// Whether a character shows what it is, wherever it stands: all but controls, line and paragraph
/// separators, blanks other than the space, what formats or has no width, and what is no character.
///
/// The Unicode Character Database 16 has the ranges: `Default_Ignorable_Code_Point` in
/// DerivedCoreProperties.txt, where those are included that are not assigned yet, `Bidi_Control` in
/// PropList.txt, general categories Cc, Cf, Zl, Zp and Zs, and the noncharacters of section 23.7 of the
/// standard.
pub(crate) const fn is_printable(c: char) -> bool {
    // Most text is of these.
    if matches!(c, ' '..='~') {
        return true;
    }
    let control = matches!(c, '\0'..='\u{1f}' | '\u{7f}'..='\u{9f}');
    let blank = matches!(
        c,
        '\u{a0}' | '\u{1680}' | '\u{2000}'..='\u{200a}' | '\u{2028}'..='\u{2029}'
            | '\u{202f}' | '\u{205f}' | '\u{3000}'
    );
    !(control || blank || is_ignorable(c) || formats(c) || is_no_character(c))
}

/// `Default_Ignorable_Code_Point`: shown as nothing at all. The bidirectional controls are among them.
const fn is_ignorable(c: char) -> bool {
    matches!(
        c,
        '\u{ad}' | '\u{34f}' | '\u{61c}' | '\u{115f}'..='\u{1160}' | '\u{17b4}'..='\u{17b5}'
            | '\u{180b}'..='\u{180f}' | '\u{200b}'..='\u{200f}' | '\u{202a}'..='\u{202e}'
            | '\u{2060}'..='\u{206f}' | '\u{3164}' | '\u{fe00}'..='\u{fe0f}' | '\u{feff}' | '\u{ffa0}'
            | '\u{fff0}'..='\u{fff8}' | '\u{1bca0}'..='\u{1bca3}' | '\u{1d173}'..='\u{1d17a}'
            | '\u{e0000}'..='\u{e0fff}'
    )
}

/// The other characters of category Cf.
const fn formats(c: char) -> bool {
    matches!(
        c,
        '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
    )
}

/// The noncharacters; XML forbids two of them.
const fn is_no_character(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || c as u32 & 0xfffe == 0xfffe
}

/// The name as one line that holds nothing but printable characters.
pub(crate) fn printable(name: &str) -> String {
    clean(name, |_| false).into_owned()
}

/// The same of several lines, which stay lines.
pub(crate) fn lines(text: &str) -> String {
    clean(text, |c| c == '\n').into_owned()
}

/// A message of one or more lines. Every line after the first is indented, so that a line break in a name
/// cannot make what follows read as a message of its own.
pub(crate) fn message(text: &str) -> String {
    let mut lines = text.lines();
    let mut message = printable(lines.next().unwrap_or_default());
    for line in lines {
        let needs_none = line.is_empty() || line.starts_with("  ");
        let indent = if needs_none { "" } else { "  " };
        message += &format!("\n{indent}{}", printable(line));
    }
    message
}

/// Cleans a field in place.
pub(crate) fn clean_in_place(text: &mut String) {
    if let Cow::Owned(clean) = clean(text, |_| false) {
        *text = clean;
    }
}

fn clean(text: &str, is_allowed: impl Fn(char) -> bool) -> Cow<'_, str> {
    if text.chars().all(|c| is_printable(c) || is_allowed(c)) {
        return Cow::Borrowed(text);
    }
    let mut clean = String::with_capacity(text.len() + 16);
    for c in text.chars() {
        match is_printable(c) || is_allowed(c) {
            true => clean.push(c),
            false => clean.extend(c.escape_unicode()),
        }
    }
    Cow::Owned(clean)
}

#[cfg(test)]
mod tests;
