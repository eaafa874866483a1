//! Reports: one file a format. Each is pure: a [`Profile`] in, bytes out.

mod empty;
mod flamegraph;
mod folded;
mod json;
mod pprof;
mod rows;
mod selection;
pub(crate) mod terminal;
mod text;
pub(crate) mod units;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use crate::printable::{Notation, Sink};
use crate::profile::{Figures, Profile, Tier};
use crate::window::record::Stage;
use crate::window::route::Route;

pub use empty::why_empty;
pub use selection::{Refusal, Selection};

/// What a report is rendered as.
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

/// What a report counts. JSON always holds all of it, and pprof the first two together.
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

/// How a report is rendered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options<'a> {
    /// What is counted.
    pub by: Measure,
    /// Whose blocks; JSON and text hold all.
    pub tier: Tier,
    /// Of what requests left behind, those of this route; JSON holds all.
    pub route: Option<&'a Route>,
    /// Whether stacks of several processes that read the same are told apart; JSON and pprof always do.
    pub by_process: bool,
    /// Whether to emphasize with terminal colours (text only).
    pub colour: bool,
}

impl Format {
    /// Whether the output is of no use on a terminal.
    #[must_use]
    pub const fn needs_file(self) -> bool {
        matches!(self, Self::Flamegraph | Self::Pprof)
    }

    /// Whether the output is of what was selected alone, and so may be empty.
    #[must_use]
    pub const fn shows_a_selection(self) -> bool {
        matches!(self, Self::Flamegraph | Self::Folded | Self::Pprof)
    }

    /// Writes the report.
    ///
    /// # Errors
    ///
    /// When `out` cannot be written to.
    pub fn write(
        self,
        profile: &Profile,
        options: Options<'_>,
        out: &mut impl Write,
    ) -> io::Result<()> {
        let notation = match self {
            // Its table of strings is its sink.
            Self::Pprof => return pprof::write(profile, options, out),
            Self::Json => Notation::Json,
            Self::Text if options.colour => Notation::Coloured,
            Self::Flamegraph | Self::Folded | Self::Text => Notation::Text,
        };
        // Nothing that is not printable gets past the sink, whatever a profile holds.
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
    /// What its figures count, for a person: one, and the memory.
    const fn nouns(self) -> (&'static str, &'static str) {
        match self {
            Self::Blocks => ("block", "memory"),
            Self::PythonObjects => ("object", "Python objects (estimated from samples)"),
            Self::PythonPools => ("pool", "pools of Python's allocator"),
        }
    }
}

impl Measure {
    /// At which stage of requests it looks, if it is about them.
    const fn stage(self) -> Option<Stage> {
        match self {
            Self::Outstanding | Self::Allocated => None,
            Self::Retained => Some(Stage::Retained),
            Self::Survivors => Some(Stage::Survivors),
        }
    }

    /// What is counted of memory that is not kept by request.
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
