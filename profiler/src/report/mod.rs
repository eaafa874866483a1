//! Reports: one file a format. Each is pure: a [`Profile`] in, bytes out.

mod flamegraph;
mod folded;
mod json;
mod pprof;
mod text;
pub(crate) mod units;

#[cfg(test)]
mod tests;

use std::io::{self, Write};

use crate::profile::{Figures, Profile, Tier};

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

/// What a report counts. JSON and pprof always hold both.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, clap::ValueEnum)]
pub enum Measure {
    /// Allocated since attach and not yet freed
    #[default]
    Outstanding,
    /// Everything allocated since attach
    Allocated,
}

/// How a report is rendered.
#[derive(Clone, Copy, Debug, Default)]
pub struct Options {
    /// What is counted.
    pub by: Measure,
    /// Whose blocks; JSON and text hold all.
    pub tier: Tier,
    /// Whether to emphasize with terminal colours (text only).
    pub colour: bool,
}

impl Format {
    /// Whether the output is of no use on a terminal.
    #[must_use]
    pub const fn needs_file(self) -> bool {
        matches!(self, Self::Flamegraph | Self::Pprof)
    }

    /// Writes the report.
    ///
    /// # Errors
    ///
    /// When `out` cannot be written to.
    pub fn write(
        self,
        profile: &Profile,
        options: Options,
        out: &mut impl Write,
    ) -> io::Result<()> {
        match self {
            Self::Flamegraph => flamegraph::write(profile, options, out),
            Self::Folded => folded::write(profile, options, out),
            Self::Pprof => pprof::write(profile, options.tier, out),
            Self::Json => json::write(profile, out),
            Self::Text => text::write(profile, options, out),
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
    const fn bytes(self, figures: &Figures) -> u64 {
        match self {
            Self::Outstanding => figures.inuse_bytes,
            Self::Allocated => figures.alloc_bytes,
        }
    }

    const fn objects(self, figures: &Figures) -> u64 {
        match self {
            Self::Outstanding => figures.inuse_objects,
            Self::Allocated => figures.alloc_objects,
        }
    }

    const fn noun(self) -> &'static str {
        match self {
            Self::Outstanding => "outstanding",
            Self::Allocated => "allocated",
        }
    }
}
