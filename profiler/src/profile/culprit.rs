//! Which frame of a stack to blame first.

use crate::capture::FrameKind;
use crate::profile::Frame;
use crate::profile::frames::base_name;

/// How the file names of run-time and allocator libraries begin. None is where an application's
/// author would look for the line that keeps memory.
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

/// The allocator's own entry points, where it is linked into the program itself.
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

/// Where the Rust standard library was built.
const RUNTIME_SOURCES: &[&str] = &["/rustc/", "/rust/library/"];

/// Where Python code and extensions are that were installed, and so are not the application's.
pub(super) const LIBRARIES: &[&str] = &["/site-packages/", "/dist-packages/"];

/// Where Python code and extensions are that came with the interpreter.
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

/// What a frame is to whoever looks for the code to change; the first is looked at first.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Code {
    /// The application's, in Python or in native code with lines.
    Application,
    /// An installed package's, in Python.
    Library,
    /// A script in `bin/`: mostly what an installer wrote there, which only starts a library.
    Launcher,
    /// Of what comes with Python: modules, and what starts a program.
    WithPython,
    /// Any other native code that is not the run-time's.
    Native,
    /// An extension's, of an installed package or of what comes with Python.
    Extension,
    /// The interpreter's, the C library's, the allocator's.
    RunTime,
}

/// The index of the frame to blame first: the innermost of the first [`Code`] that the stack has; of a stack
/// that has the run-time's alone, the leaf.
pub(super) fn find<'a>(frames: impl Iterator<Item = &'a Frame>) -> usize {
    let codes = frames.map(code).enumerate();
    let first = codes.min_by_key(|(index, code)| (*code, *index));
    match first {
        Some((index, code)) if code != Code::RunTime => index,
        _ => 0,
    }
}

/// The index of the frame by which the code at `culprit`, if it is the application's, came to the memory: the
/// innermost one in Python of an installed package, or else the first native function that is called.
pub(super) fn library<'a>(
    frames: impl DoubleEndedIterator<Item = &'a Frame> + ExactSizeIterator + Clone,
    culprit: usize,
) -> Option<usize> {
    let blamed = frames.clone().nth(culprit);
    let blamed = blamed.filter(|it| code(it) == Code::Application)?;
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
    name == "<module>" && directory.is_some_and(|it| LAUNCHERS.contains(&it))
}

/// Whether a native frame is a library's that an application may call: not one that every program has, and
/// none that comes with Python.
fn is_native_library(frame: &Frame) -> bool {
    let module = frame.module.as_deref();
    frame.kind == FrameKind::Native
        && !is_runtime(frame)
        && module.is_some_and(|it| has_any(it, LIBRARIES) || !has_any(it, WITH_PYTHON))
}

/// Whether a native frame is of an extension that was installed, or came with Python.
fn is_extension(frame: &Frame) -> bool {
    let module = frame.module.as_deref();
    module.is_some_and(|it| has_any(it, LIBRARIES) || has_any(it, WITH_PYTHON))
}

pub(super) fn has_any(path: &str, parts: &[&str]) -> bool {
    parts.iter().any(|it| path.contains(it))
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
            .is_some_and(|it| begins_as(base_name(it), RUNTIME_MODULES))
        || file
            .as_deref()
            .is_some_and(|it| begins_as(it, RUNTIME_SOURCES))
}
