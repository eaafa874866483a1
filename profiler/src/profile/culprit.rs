//! Decides which frame of a stack to blame first.

use crate::capture::FrameKind;
use crate::profile::Frame;
use crate::profile::frames::base_name;

/// How the file names of run-time and allocator libraries begin. The author of an application would
/// look in none of them for the line that keeps memory.
const RUNTIME_MODULES: &[&str] = &[
    "libc.so",
    "libc-",
    "ld-linux",
    "ld-musl",
    "libstdc++",
    "libc++",
    "libgcc_s",
    "libpthread",
    "libjemalloc",
    "libmimalloc",
    "libtcmalloc",
    "libpython",
    "python3",
    "[vdso]",
];

/// How the names of run-time functions begin where they are linked into the program itself.
const RUNTIME_FUNCTIONS: &[&str] = &[
    "std::",
    "core::",
    "alloc::",
    "<std::",
    "<core::",
    "<alloc::",
    "__rust",
    "_rust_",
    "hashbrown::",
    "<hashbrown::",
    "operator new",
    "__gnu_cxx::",
    "void* std::",
    "_rjem_",
    "je_",
    "mi_",
    "tc_",
    "_start",
    "__libc_",
    "_Py",
    "PyObject_",
    "PyMem_",
    "PyEval_",
];

/// The entry points of an allocator that is linked into the program itself.
const ALLOCATOR_FUNCTIONS: &[&str] = &[
    "malloc",
    "calloc",
    "realloc",
    "reallocarray",
    "aligned_alloc",
    "memalign",
    "posix_memalign",
    "valloc",
    "strdup",
    "strndup",
];

/// The paths at which the Rust standard library was built.
const RUNTIME_SOURCES: &[&str] = &["/rustc/", "/rust/library/"];

/// The directories of installed Python code and extensions, which are not the application's.
pub(super) const LIBRARIES: &[&str] = &["/site-packages/", "/dist-packages/"];

/// Parts of the paths of Python code and extensions that came with the interpreter.
pub(super) const WITH_PYTHON: &[&str] = &["/lib/python3", "<frozen "];

/// The directories that installers write launchers to: scripts that import a library and call it.
const LAUNCHERS: &[&str] = &["bin", "sbin"];

/// The functions that start a program, where its file is not the C library.
const START_UP_FUNCTIONS: &[&str] = &["_start", "main"];

/// How the file names of libraries begin that start programs and threads.
const START_UP_MODULES: &[&str] = &["libc.so", "libc-", "libpthread", "ld-linux", "ld-musl"];

/// Whether a native frame belongs to the start of a program or a thread.
pub(super) fn starts_up(module: &str, name: Option<&str>) -> bool {
    name.is_some_and(|name| START_UP_FUNCTIONS.contains(&name))
        || begins_as(base_name(module), START_UP_MODULES)
}

/// What a frame is to somebody who looks for the code to change. That person looks at the first
/// kind first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Code {
    /// Code of the application, in Python or in native code with lines.
    Application,
    /// Python code of an installed package.
    Library,
    /// A script in `bin/`. Mostly an installer wrote the script, which only starts a library.
    Launcher,
    /// Code that comes with Python: modules, and what starts a program.
    WithPython,
    /// Any other native code outside of the run-time.
    Native,
    /// Code of an extension, of an installed package or of what comes with Python.
    Extension,
    /// Code of the interpreter, the C library or the allocator.
    RunTime,
}

/// Finds the index of the frame to blame first: the innermost frame of the first [`Code`] that the
/// stack has. A stack with run-time code only yields the leaf.
pub(super) fn find<'a>(frames: impl Iterator<Item = &'a Frame>) -> usize {
    let codes = frames.map(code).enumerate();
    let first = codes.min_by_key(|(index, code)| (*code, *index));
    match first {
        Some((index, code)) if code != Code::RunTime => index,
        _ => 0,
    }
}

/// Finds the index of the frame through which the application's code at `culprit` allocated: the
/// innermost Python frame of an installed package, or else the first native function that the
/// application called. None if the code at `culprit` is not the application's.
pub(super) fn library<'a>(
    frames: impl DoubleEndedIterator<Item = &'a Frame> + ExactSizeIterator + Clone,
    culprit: usize,
) -> Option<usize> {
    let blamed = frames.clone().nth(culprit);
    let blamed = blamed.filter(|frame| code(frame) == Code::Application)?;
    let inner = || frames.clone().enumerate().take(culprit);
    let in_python = inner().find(|(_, frame)| code(frame) == Code::Library);
    let called = || {
        let is_another = |frame: &Frame| frame.module != blamed.module && is_native_library(frame);
        let mut called = inner().filter(|(_, frame)| is_another(frame));
        called.next_back()
    };
    in_python.or_else(called).map(|(index, _)| index)
}

fn code(frame: &Frame) -> Code {
    match (frame.kind, frame.file.as_deref()) {
        (FrameKind::Python, Some(path)) if has_any(path, LIBRARIES) => Code::Library,
        (FrameKind::Python, Some(path)) if has_any(path, WITH_PYTHON) => Code::WithPython,
        (FrameKind::Python, Some(path)) if is_launcher(&frame.name, path) => Code::Launcher,
        (FrameKind::Python, Some(_)) => Code::Application,
        (FrameKind::Python, None) => Code::WithPython,
        (FrameKind::Native, _) if is_runtime(frame) => Code::RunTime,
        (FrameKind::Native, _) if is_extension(frame) => Code::Extension,
        (FrameKind::Native, _) if frame.line.is_some() => Code::Application,
        (FrameKind::Native, _) => Code::Native,
    }
}

fn is_launcher(name: &str, path: &str) -> bool {
    let directory = path.rsplit('/').nth(1);
    name == "<module>" && directory.is_some_and(|directory| LAUNCHERS.contains(&directory))
}

/// Whether a native frame belongs to a library that an application may call: not to a library that
/// every program has, and not to one that comes with Python.
fn is_native_library(frame: &Frame) -> bool {
    let module = frame.module.as_deref();
    frame.kind == FrameKind::Native
        && !is_runtime(frame)
        && module.is_some_and(|module| has_any(module, LIBRARIES) || !has_any(module, WITH_PYTHON))
}

/// Whether a native frame belongs to an extension that was installed, or that came with Python.
fn is_extension(frame: &Frame) -> bool {
    let module = frame.module.as_deref();
    module.is_some_and(|module| has_any(module, LIBRARIES) || has_any(module, WITH_PYTHON))
}

pub(super) fn has_any(path: &str, parts: &[&str]) -> bool {
    parts.iter().any(|part| path.contains(part))
}

pub(super) fn begins_as(text: &str, starts: &[&str]) -> bool {
    starts.iter().any(|start| text.starts_with(start))
}

pub(super) fn is_runtime(frame: &Frame) -> bool {
    let Frame {
        kind: _,
        name,
        file,
        line: _,
        module,
        inlined: _,
    } = frame;
    ALLOCATOR_FUNCTIONS.contains(&name.as_str())
        || begins_as(name, RUNTIME_FUNCTIONS)
        || module
            .as_deref()
            .is_some_and(|module| begins_as(base_name(module), RUNTIME_MODULES))
        || file
            .as_deref()
            .is_some_and(|file| begins_as(file, RUNTIME_SOURCES))
}
