//! Frames as reports show them, each distinct one kept once.

use std::collections::HashMap;
use std::fmt;

use crate::capture::FrameKind;

/// A symbolized frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// What kind of code it is.
    pub kind: FrameKind,
    /// The function; never empty.
    pub name: String,
    /// Source file, as the compiler saw it.
    pub file: Option<String>,
    /// Line in that file.
    pub line: Option<u32>,
    /// The ELF file that holds it, as the target sees it. None for code in no file.
    pub module: Option<String>,
    /// Whether the compiler inlined it into the next outer frame.
    pub inlined: bool,
}

/// `function (file.c:12)`, with the file's base name, and a Python file's directory, which is its
/// package; or as much of it as is known.
impl fmt::Display for Frame {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.name)?;
        let Some(file) = &self.file else {
            return Ok(());
        };
        let file = match self.kind {
            FrameKind::Native => base_name(file),
            FrameKind::Python => with_package(file),
        };
        match self.line {
            Some(line) => write!(out, " ({file}:{line})"),
            None => write!(out, " ({file})"),
        }
    }
}

/// What follows the last slash.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// The last two parts of a path.
fn with_package(path: &str) -> &str {
    let slash = path.rmatch_indices('/').nth(1);
    slash.map_or(path, |(at, _)| &path[at + 1..])
}

/// Stands for a frame of one [`super::Profile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(u32);

impl FrameId {
    /// Its place in [`super::Profile::frames`].
    #[must_use]
    pub const fn index(self) -> usize {
        self.0 as usize
    }
}

/// Gives equal frames the same id.
#[derive(Debug, Default)]
pub(super) struct Interner {
    ids: HashMap<Frame, FrameId>,
}

impl Interner {
    pub(super) fn intern(&mut self, frame: Frame) -> FrameId {
        let next = u32::try_from(self.ids.len()).expect("a capture's frame ids are 32 bits wide");
        *self.ids.entry(frame).or_insert(FrameId(next))
    }

    pub(super) fn into_frames(self) -> Vec<Frame> {
        let mut frames: Vec<(Frame, FrameId)> = self.ids.into_iter().collect();
        frames.sort_unstable_by_key(|(_, id)| *id);
        frames.into_iter().map(|(frame, _)| frame).collect()
    }
}
