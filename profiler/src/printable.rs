//! Decides which characters may be printed, and holds the sinks through which every output goes.
//!
//! Names come from targets and captures, so strangers choose them. A control character could drive
//! the reader's terminal. A line break could forge a line of a report. A bidirectional control
//! could make a name read backwards. A character without width could hide in a name that looks like
//! another. Each such character is written as its number, such as `\u{202e}`. So nothing is hidden,
//! and two different names never read the same.

mod sink;

#[cfg(test)]
pub(crate) mod hostile;

use std::borrow::Cow;

pub(crate) use sink::{Notation, Sink};

/// Whether a character shows what it is, wherever it stands. That excludes controls, line and
/// paragraph separators, blanks other than the space, formatting characters, characters without
/// width, and noncharacters.
///
/// The ranges come from the Unicode Character Database 16: `Default_Ignorable_Code_Point` in
/// DerivedCoreProperties.txt, which includes code points that are not assigned yet, `Bidi_Control`
/// in PropList.txt, the general categories Cc, Cf, Zl, Zp and Zs, and the noncharacters of section
/// 23.7 of the standard.
pub(crate) const fn is_printable(c: char) -> bool {
    // Most text consists of these characters.
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

/// Whether a terminal shows the character as nothing at all (`Default_Ignorable_Code_Point`). The
/// bidirectional controls are among these characters.
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

/// Whether the character is one of the others of category Cf.
const fn formats(c: char) -> bool {
    matches!(
        c,
        '\u{600}'..='\u{605}' | '\u{6dd}' | '\u{70f}' | '\u{890}'..='\u{891}' | '\u{8e2}'
            | '\u{fff9}'..='\u{fffb}' | '\u{110bd}' | '\u{110cd}' | '\u{13430}'..='\u{1343f}'
    )
}

/// Whether the code point is a noncharacter. XML forbids two of them.
const fn is_no_character(c: char) -> bool {
    matches!(c, '\u{fdd0}'..='\u{fdef}') || c as u32 & 0xfffe == 0xfffe
}

/// Writes a name as one line of printable characters.
pub(crate) fn printable(name: &str) -> String {
    clean(name, |_| false).into_owned()
}

/// Writes several lines of printable characters. The lines stay lines.
pub(crate) fn lines(text: &str) -> String {
    clean(text, |c| c == '\n').into_owned()
}

/// Writes a message of one or more lines. Every line after the first is indented, so that a line
/// break in a name cannot make what follows read as a message of its own.
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
