//! Frames as reports show them. Each distinct frame is kept once.

use std::collections::HashMap;
use std::fmt;

use crate::capture::FrameKind;
use crate::profile::cython;

/// A symbolized frame.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Frame {
    /// What kind of code the frame runs.
    pub kind: FrameKind,
    /// The name of the function. Never empty.
    pub name: String,
    /// The source file, as the compiler saw it.
    pub file: Option<String>,
    /// The line in that file.
    pub line: Option<u32>,
    /// The ELF file that holds the code, as the target sees it. None for code that lies in no file.
    pub module: Option<String>,
    /// Whether the compiler inlined the function into the next outer frame.
    pub inlined: bool,
}

/// `function (file.c:12)`, or as much of that as is known. A native file shows its base name. A
/// Python file also shows its directory, which is the package.
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

/// The directories that installers write Python packages to.
const PACKAGES: [&str; 2] = ["/site-packages/", "/dist-packages/"];

impl Frame {
    /// Names the frame as one of a library: `package Class.function:12`, or `libxml2.so.2
    /// xmlNewNode`.
    #[must_use]
    pub fn in_library(&self) -> String {
        let path = self.path();
        let library = path.map_or("", |path| package(path).unwrap_or(base_name(path)));
        let name = cython::plain(&self.name).unwrap_or_else(|| self.name.clone());
        // A function without a name already carries the name of its file.
        if library.is_empty() || name.starts_with(library) {
            return name;
        }
        match (self.kind, self.line) {
            (FrameKind::Python, Some(line)) => format!("{library} {name}:{line}"),
            _ => format!("{library} {name}"),
        }
    }

    /// Finds the installed Python package that the frame belongs to.
    #[must_use]
    pub fn package(&self) -> Option<&str> {
        self.path().and_then(package)
    }

    /// Finds the file that holds the code.
    fn path(&self) -> Option<&str> {
        match self.kind {
            FrameKind::Native => self.module.as_deref(),
            FrameKind::Python => self.file.as_deref(),
        }
    }
}

/// Finds the installed package that a file belongs to. A package that is a single file yields the
/// name of the file without suffixes.
fn package(path: &str) -> Option<&str> {
    let inside = PACKAGES.iter().find_map(|part| path.rsplit_once(part));
    let (_, inside) = inside?;
    match inside.split_once('/') {
        Some((package, _)) => Some(package),
        None => inside.split('.').next(),
    }
}

/// Returns what follows the last slash.
pub(super) fn base_name(path: &str) -> &str {
    path.rsplit('/').next().unwrap_or(path)
}

/// Returns the last two parts of a path.
fn with_package(path: &str) -> &str {
    let slash = path.rmatch_indices('/').nth(1);
    slash.map_or(path, |(at, _)| &path[at + 1..])
}

/// The number of a frame in one [`super::Profile`].
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct FrameId(u32);

impl FrameId {
    /// The index of the frame in [`super::Profile::frames`].
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
