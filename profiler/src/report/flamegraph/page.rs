//! The parts around the frames. inferno has only one line for text, and no legend.

use std::io::{self, Write};

use super::colours::{self, Colours};
use crate::wording;

/// The width in pixels before a browser fits the picture to its window.
const WIDTH: usize = 1200;
/// Pixels from one line of text to the next, and from one line of the title to the next.
const LINE: usize = 16;
const TITLE_LINE: usize = 20;
/// How many letters of a line fit into a window of 500 pixels: of the title, and of smaller text.
const TITLE_COLUMNS: usize = 49;
const COLUMNS: usize = 66;
/// Pixels for the mark and the name of a colour.
const LEGEND_STEP: usize = 108;
/// How many colours stand side by side in such a window.
const LEGEND_COLUMNS: usize = 4;
/// Pixels that inferno leaves free above the frames when it draws only a title (`ypad1`).
const INFERNO_TOP: usize = 36;

/// What the width of a frame means.
const MEANING: &str = "the width of a frame is its bytes";

/// Style rules that follow inferno's, and so override them. They make the search button visible.
const STYLE: &str = "
text { fill:#000; }
.heading { text-anchor:middle; }
#title { font-size:16px; }
#title .meaning { font-size:12px; }
#search, #unzoom { opacity:1; text-decoration:underline; fill:#0645ad; }
#search.show { fill:#a0009a; }
#frames > g:hover > rect { stroke:#000; }
";

/// A picture without its frames.
#[derive(Debug)]
pub(super) struct Page {
    pub title: String,
    /// The lines below the title.
    pub remarks: Vec<String>,
    pub colours: Colours,
}

/// The parts of the SVG that inferno has drawn.
struct Drawn<'a> {
    height: usize,
    style: &'a str,
    script: &'a str,
    /// The element with the frames, without the start of its tag, and everything that follows.
    frames: &'a str,
}

impl<'a> Drawn<'a> {
    fn parse(svg: &'a str) -> Option<Self> {
        let (head, frames) = svg.split_once("<svg id=\"frames\"")?;
        let (_, height) = head.split_once(" height=\"")?;
        let (height, _) = height.split_once('"')?;
        let element = |start: &str, end: &str| {
            let from = head.find(start)?;
            let to = from + head[from..].find(end)? + end.len();
            head.get(from..to)
        };
        Some(Self {
            height: height.parse().ok()?,
            style: element("<style", "</style>")?,
            script: element("<script", "</script>")?,
            frames,
        })
    }
}

impl Page {
    /// Writes the picture around the frames that inferno has drawn.
    pub fn write(&self, drawn: &[u8], out: &mut impl Write) -> io::Result<()> {
        let drawn = std::str::from_utf8(drawn).ok().and_then(Drawn::parse);
        let drawn = drawn.ok_or_else(|| io::Error::other("inferno draws in another way now"))?;
        let top = self.heading_height();
        let height = top + drawn.height - INFERNO_TOP;
        let attributes = format!(
            "width=\"{WIDTH}\" height=\"{height}\" viewBox=\"0 0 {WIDTH} {height}\" \
             onload=\"init(evt)\""
        );
        self.write_root(&attributes, out)?;
        writeln!(
            out,
            "{}\n<style type=\"text/css\">{STYLE}</style>",
            drawn.style
        )?;
        writeln!(out, "{}", drawn.script)?;
        self.write_heading(out)?;
        let bottom = height - 12;
        let right = WIDTH - 10;
        writeln!(
            out,
            "<text id=\"unzoom\" class=\"hide\" x=\"10\" y=\"18\">Reset Zoom</text>\n\
             <text id=\"search\" x=\"{right}\" y=\"18\">Search</text>\n\
             <text id=\"details\" x=\"10\" y=\"{bottom}\"> </text>\n\
             <text id=\"matched\" x=\"{right}\" y=\"{bottom}\"> </text>"
        )?;
        let y = top - INFERNO_TOP;
        writeln!(out, "<svg id=\"frames\" y=\"{y}\"{}", drawn.frames)
    }

    /// Writes a picture that says why there are no frames, as wide as the window.
    pub fn write_empty(&self, out: &mut impl Write) -> io::Result<()> {
        self.write_root(
            &format!("width=\"100%\" height=\"{}\"", self.heading_height()),
            out,
        )?;
        let font = "text { font-family:monospace; font-size:12px; }";
        writeln!(out, "<style type=\"text/css\">{font}{STYLE}</style>")?;
        self.write_heading(out)?;
        writeln!(out, "</svg>")
    }

    /// Writes the root element. Its title names the window, and is what a screen reader reads
    /// aloud.
    fn write_root(&self, attributes: &str, out: &mut impl Write) -> io::Result<()> {
        let meaning = self
            .meaning()
            .map_or(String::new(), |text| format!(": {text}"));
        let title = escape(&format!("{}{meaning}", self.title));
        let about = escape(&self.remarks.join("; "));
        writeln!(
            out,
            "<?xml version=\"1.0\" standalone=\"no\"?>\n\
             <svg version=\"1.1\" {attributes} role=\"img\" aria-label=\"{title}. {about}\" \
             xmlns=\"http://www.w3.org/2000/svg\" xmlns:xlink=\"http://www.w3.org/1999/xlink\" \
             xmlns:fg=\"http://github.com/jonhoo/inferno\">\n\
             <title>{title}</title>\n<desc>{about}</desc>"
        )
    }

    fn write_heading(&self, out: &mut impl Write) -> io::Result<()> {
        let background = colours::BACKGROUND;
        writeln!(
            out,
            "<rect width=\"100%\" height=\"100%\" fill=\"{background}\"/>"
        )?;
        let mut lines = Lines { y: 2 * LINE + 8 };
        write!(out, "<text id=\"title\" class=\"heading\">")?;
        for line in self.title_lines() {
            lines.write(&line, "", TITLE_LINE, out)?;
        }
        if let Some(line) = self.meaning() {
            lines.write(line, " class=\"meaning\"", LINE, out)?;
        }
        write!(out, "</text>\n<text id=\"subtitle\" class=\"heading\">")?;
        for line in self.remark_lines() {
            lines.write(&line, "", LINE, out)?;
        }
        writeln!(out, "</text>")?;
        self.write_legend(lines.y + 4, out)
    }

    /// Explains frames, if the picture has any.
    fn meaning(&self) -> Option<&'static str> {
        (!self.colours.origins.is_empty()).then_some(MEANING)
    }

    fn title_lines(&self) -> Vec<String> {
        wording::wrap(&self.title, TITLE_COLUMNS)
    }

    fn remark_lines(&self) -> Vec<String> {
        let remarks = self.remarks.iter();
        let lines = remarks.flat_map(|remark| wording::wrap(remark, COLUMNS));
        lines.collect()
    }

    fn heading_height(&self) -> usize {
        let lines = self.remark_lines().len() + self.meaning().map_or(0, |_| 1);
        let legend = self.colours.origins.len().div_ceil(LEGEND_COLUMNS);
        self.title_lines().len() * TITLE_LINE + (lines + legend + 2) * LINE + 16
    }

    fn write_legend(&self, y: usize, out: &mut impl Write) -> io::Result<()> {
        let origins: Vec<_> = self.colours.origins.iter().copied().collect();
        for (row, origins) in origins.chunks(LEGEND_COLUMNS).enumerate() {
            let y = y + row * LINE;
            writeln!(
                out,
                "<svg class=\"legend\" x=\"50%\" y=\"{y}\" overflow=\"visible\">"
            )?;
            let left = -((origins.len() * LEGEND_STEP / 2) as i64);
            for (origin, x) in origins.iter().zip((left..).step_by(LEGEND_STEP)) {
                let (name, colour, about) = colours::look(*origin);
                let (name, about, text) = (escape(name), escape(about), x + 16);
                writeln!(
                    out,
                    "<g><title>{about}</title>\
                     <rect x=\"{x}\" y=\"-10\" width=\"11\" height=\"11\" fill=\"{colour}\"/>\
                     <text x=\"{text}\" y=\"0\">{name}</text></g>"
                )?;
            }
            writeln!(out, "</svg>")?;
        }
        Ok(())
    }
}

/// Lines of text, one below the other.
struct Lines {
    /// The vertical position of the next line.
    y: usize,
}

impl Lines {
    fn write(
        &mut self,
        text: &str,
        class: &str,
        height: usize,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let (y, text) = (self.y, escape(text));
        self.y += height;
        write!(out, "<tspan{class} x=\"50%\" y=\"{y}\">{text}</tspan>")
    }
}

/// Escapes a text for an element or for the value of an attribute.
fn escape(text: &str) -> String {
    text.replace('&', "&amp;")
        .replace('<', "&lt;")
        .replace('>', "&gt;")
        .replace('"', "&quot;")
}
