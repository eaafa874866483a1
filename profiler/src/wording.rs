//! Words numbers and sentences for people. Every output takes its wording from here.

pub(crate) use crate::printable::printable;

const UNITS: [&str; 7] = ["B", "KiB", "MiB", "GiB", "TiB", "PiB", "EiB"];

/// Writes `1234567` as `1.2 MiB`.
pub(crate) fn bytes(count: u64) -> String {
    let mut scaled = count as f64;
    let mut unit = 0;
    // From 1023.95 on, one decimal would print 1024.0.
    while scaled >= 1023.95 && unit + 1 < UNITS.len() {
        scaled /= 1024.0;
        unit += 1;
    }
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{scaled:.1} {}", UNITS[unit])
    }
}

/// Writes `1234567` as `1,234,567`.
pub(crate) fn number(count: u64) -> String {
    let digits = count.to_string();
    let mut grouped = String::with_capacity(digits.len() * 4 / 3);
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

/// Writes `1 block` or `2 blocks`.
pub(crate) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{} {noun}{plural}", number(count))
}

/// Cuts a long text in its middle, because a name begins with its place and ends with its line.
pub(crate) fn fit(text: &str, columns: usize) -> String {
    let length = text.chars().count();
    if length <= columns {
        return text.to_owned();
    }
    let head = (columns - 1) / 2;
    let tail = columns - 1 - head;
    let start: String = text.chars().take(head).collect();
    let end: String = text.chars().skip(length - tail).collect();
    format!("{start}…{end}")
}

/// Breaks a text that is too long for one line at blanks. Further lines begin below the text of the
/// first line, which is what follows its first gap of two or more blanks.
pub(crate) fn wrap(text: &str, columns: usize) -> Vec<String> {
    let indent = text
        .find("  ")
        .map(|at| text.len() - text[at..].trim_start().len());
    // A gap further right belongs to a name, and an indent that wide would leave no room.
    let indent = indent.filter(|indent| *indent < columns / 2).unwrap_or(0);
    let mut lines = Vec::new();
    let mut line = String::new();
    for word in text.split(' ') {
        if !line.trim().is_empty() && line.chars().count() + word.chars().count() > columns {
            lines.push(line.trim_end().to_owned());
            line = " ".repeat(indent);
        }
        line.push_str(word);
        line.push(' ');
    }
    lines.push(line.trim_end().to_owned());
    lines
}
