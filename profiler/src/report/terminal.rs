//! Lines for a terminal: how long they are, and how they look.

use std::io::{self, Write};

use crate::wording;

/// Columns that a line may take: those of a terminal that nobody has made wider.
pub const COLUMNS: usize = 80;

/// Breaks a text at blanks; a word that is too long for a line is cut.
pub fn write_wrapped(text: &str, style: Style, out: &mut impl Write) -> io::Result<()> {
    let lines = wording::wrap(text, COLUMNS).into_iter();
    let mut lines = lines.map(|line| wording::fit(&line, COLUMNS));
    lines.try_for_each(|line| writeln!(out, "{}", style.paint(&line)))
}

/// An ANSI style (ECMA-48, "Select Graphic Rendition").
#[derive(Clone, Copy)]
pub struct Style {
    code: &'static str,
    colour: bool,
}

impl Style {
    /// As the text around it.
    pub const PLAIN: Self = Self {
        code: "",
        colour: false,
    };

    /// What stands out, if there is colour.
    pub const fn bold(colour: bool) -> Self {
        Self { code: "1", colour }
    }

    /// What stands back, if there is colour.
    pub const fn dim(colour: bool) -> Self {
        Self { code: "2", colour }
    }

    /// What is wrong, if there is colour.
    pub const fn warning(colour: bool) -> Self {
        Self {
            code: "1;31",
            colour,
        }
    }

    /// The text in this style.
    pub fn paint(self, text: &str) -> String {
        if self.colour {
            format!("\x1b[{}m{text}\x1b[0m", self.code)
        } else {
            text.to_owned()
        }
    }
}
