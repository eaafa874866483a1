//! A writer that lets only printable text through.

use std::io::{self, Write};

use super::is_printable;

/// How a sink writes a character that must not pass.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Notation {
    /// As in text for people: `\u{1b}`.
    Text,
    /// As in text for people, except that sequences which select a colour or another rendition pass
    /// (ECMA-48, SGR).
    Coloured,
    /// As in a string of JSON: `\u001b`, in UTF-16. Outside of strings, JSON has no such
    /// characters.
    Json,
}

/// Writes text to `out`. Line breaks pass, because reports have lines. Whoever writes a name takes
/// the line breaks out of it before.
#[derive(Debug)]
pub(crate) struct Sink<W> {
    out: W,
    notation: Notation,
    /// The first bytes of a character whose other bytes are still to come.
    begun: Vec<u8>,
}

impl<W: Write> Sink<W> {
    pub(crate) fn new(out: W, notation: Notation) -> Self {
        Self {
            out,
            notation,
            begun: Vec::new(),
        }
    }

    fn write_text(&mut self, mut text: &str) -> io::Result<()> {
        while !text.is_empty() {
            let (clean, rest) = text.split_at(self.passes(text));
            self.out.write_all(clean.as_bytes())?;
            let mut rest = rest.chars();
            if let Some(c) = rest.next() {
                self.write_number(c)?;
            }
            text = rest.as_str();
        }
        Ok(())
    }

    /// Counts the bytes at the start of a text that may pass.
    fn passes(&self, text: &str) -> usize {
        let stops = |c: char| c != '\n' && !is_printable(c);
        let mut end = 0;
        loop {
            end += text[end..].find(stops).unwrap_or(text.len() - end);
            match rendition(&text[end..]) {
                length @ 1.. if self.notation == Notation::Coloured => end += length,
                _ => return end,
            }
        }
    }

    fn write_number(&mut self, c: char) -> io::Result<()> {
        match self.notation {
            Notation::Text | Notation::Coloured => write!(self.out, "{}", c.escape_unicode()),
            Notation::Json => {
                let mut units = [0; 2];
                let mut units = c.encode_utf16(&mut units).iter();
                units.try_for_each(|unit| write!(self.out, "\\u{unit:04x}"))
            }
        }
    }
}

/// Counts the bytes at the start of a text that select a rendition.
fn rendition(text: &str) -> usize {
    let parameters = text.strip_prefix("\x1b[");
    let end = parameters.and_then(|text| text.find(|c: char| !c.is_ascii_digit() && c != ';'));
    match (parameters, end) {
        (Some(parameters), Some(end)) if parameters[end..].starts_with('m') => end + 3,
        _ => 0,
    }
}

impl<W: Write> Write for Sink<W> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        let mut all = std::mem::take(&mut self.begun);
        all.extend_from_slice(bytes);
        let mut chunks = all.utf8_chunks().peekable();
        while let Some(chunk) = chunks.next() {
            self.write_text(chunk.valid())?;
            match chunk.invalid() {
                [] => {}
                begun if chunks.peek().is_none() && is_begun(begun) => self.begun = begun.to_vec(),
                _ => self.write_text("\u{fffd}")?,
            }
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        self.out.flush()
    }
}

/// Whether these bytes may be the first bytes of a character.
fn is_begun(bytes: &[u8]) -> bool {
    std::str::from_utf8(bytes).is_err_and(|error| error.error_len().is_none())
}
