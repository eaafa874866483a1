//! Reports, one file for each format. A format is pure: a [`Profile`] goes in, bytes come out.

mod empty;
mod flamegraph;
mod folded;
mod heading;
mod json;
mod pprof;
pub mod request_line;
pub mod routes_table;
mod rows;
mod selection;
pub(crate) mod terminal;
mod text;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use crate::printable::{Notation, Sink};
use crate::profile::{Figures, Profile, Tier};
use crate::requests::record::Stage;
use crate::requests::route::Route;

pub use empty::why_empty;
pub use selection::{Refusal, Selection};

/// The formats of a report.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Format {
    /// An interactive SVG for a browser
    Flamegraph,
    /// One line a stack, for flamegraph tools
    Folded,
    /// Gzipped protocol buffers, for `go tool pprof`, Pyroscope, speedscope
    Pprof,
    /// One object with everything, for programs
    Json,
    /// A table for the terminal
    Text,
}

/// What a report counts. JSON always holds all four, and pprof holds the first two together.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Allocated since attach and not yet freed
    #[default]
    Outstanding,
    /// Everything allocated since attach
    Allocated,
    /// Allocated in requests, and not yet freed when they were over
    Retained,
    /// What of that was not freed within ten further requests of the worker, or 30 seconds
    Survivors,
}

/// How to render a report.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// What the report counts.
    pub by: Measure,
    /// Which blocks the report shows. JSON and text show all tiers.
    pub tier: Tier,
    /// The route whose requests the report shows, where it shows what requests left behind. JSON
    /// shows all routes.
    pub route: Option<&'a Route>,
    /// Whether the report tells apart stacks of several processes that read the same. JSON and
    /// pprof always do.
    pub by_process: bool,
    /// Whether to emphasize with terminal colours. Only the text format does.
    pub colour: bool,
}

impl Format {
    /// Whether the output is of no use on a terminal.
    #[must_use]
    pub const fn needs_file(self) -> bool {
        matches!(self, Self::Flamegraph | Self::Pprof)
    }

    /// Whether the output holds only what the user selected, and so may be empty.
    #[must_use]
    pub const fn shows_a_selection(self) -> bool {
        matches!(self, Self::Flamegraph | Self::Folded | Self::Pprof)
    }

    /// Writes the report.
    ///
    /// # Errors
    ///
    /// Fails when `out` cannot be written to.
    pub fn write(
        self,
        profile: &Profile,
        options: Options<'_>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let notation = match self {
            // The table of strings in a pprof file cleans all text, as the sink does for the other
            // formats.
            Self::Pprof => return pprof::write(profile, options, out),
            Self::Json => Notation::Json,
            Self::Text if options.colour => Notation::Coloured,
            Self::Flamegraph | Self::Folded | Self::Text => Notation::Text,
        };
        // The sink lets only printable text through, whatever a profile holds.
        let out = &mut Sink::new(out, notation);
        match self {
            Self::Flamegraph => flamegraph::write(profile, options, out),
            Self::Folded => folded::write(profile, options, out),
            Self::Json => json::write(profile, out),
            Self::Pprof | Self::Text => text::write(profile, options, out),
        }
    }
}

impl Tier {
    /// Names one counted thing, and the memory, in words for a person.
    const fn nouns(self) -> (&'static str, &'static str) {
        match self {
            Self::Blocks => ("block", "memory"),
            Self::PythonObjects => ("object", "Python objects (estimated from samples)"),
            Self::PythonPools => ("pool", "pools of Python's allocator"),
        }
    }
}

impl Measure {
    /// Tells at which stage of requests this measure looks. None if the measure is not about
    /// requests.
    const fn stage(self) -> Option<Stage> {
        match self {
            Self::Outstanding | Self::Allocated => None,
            Self::Retained => Some(Stage::Retained),
            Self::Survivors => Some(Stage::Survivors),
        }
    }

    /// Tells what to count of memory that the recorder does not keep by request.
    const fn of_all(self) -> Self {
        match self {
            Self::Allocated => Self::Allocated,
            Self::Outstanding | Self::Retained | Self::Survivors => Self::Outstanding,
        }
    }

    const fn bytes(self, figures: &Figures) -> u64 {
        match self.of_all() {
            Self::Allocated => figures.alloc_bytes,
            _ => figures.inuse_bytes,
        }
    }

    const fn objects(self, figures: &Figures) -> u64 {
        match self.of_all() {
            Self::Allocated => figures.alloc_objects,
            _ => figures.inuse_objects,
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Outstanding => "outstanding",
            Self::Allocated => "allocated",
            Self::Retained => "retained",
            Self::Survivors => "survivors",
        }
    }
}
