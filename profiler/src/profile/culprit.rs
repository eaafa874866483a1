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

/// Where Python code and extensions are that came with the interpreter or were installed, and so are
/// not the application's.
const INSTALLED_PYTHON: &[&str] = &[
    "/site-packages/",
    "/dist-packages/",
    "/lib/python3",
    "<frozen ",
];

/// The functions that start a program, where its file is not the C library.
const START_UP_FUNCTIONS: &[&str] = &["_start", "main"];

/// How the file names of libraries begin that start programs and threads.
const START_UP_MODULES: &[&str] = &["libc.so", "libc-", "libpthread", "ld-linux", "ld-musl"];

/// Whether a native frame belongs to the start of a program or a thread.
pub(super) fn starts_up(module: &str, name: Option<&str>) -> bool {
    name.is_some_and(|name| START_UP_FUNCTIONS.contains(&name))
        || begins_as(base_name(module), START_UP_MODULES)
}

/// The index of the innermost frame that is the application's, in Python or in native code with
/// lines; failing that, of the innermost frame that is not the run-time's and has a line; failing that,
/// of the innermost that is not the run-time's; failing that, of the leaf.
pub(super) fn find<'a>(frames: impl Iterator<Item = &'a Frame> + Clone) -> usize {
    let is_applications = |frame: &Frame| match frame.kind {
        FrameKind::Python => is_application_python(frame),
        FrameKind::Native => frame.line.is_some() && !is_runtime(frame),
    };
    if let Some(index) = frames.clone().position(is_applications) {
        return index;
    }
    let mut without_line = None;
    for (index, frame) in frames.enumerate().filter(|(_, frame)| !is_runtime(frame)) {
        if frame.line.is_some() {
            return index;
        }
        without_line = without_line.or(Some(index));
    }
    without_line.unwrap_or(0)
}

fn is_application_python(frame: &Frame) -> bool {
    frame.kind == FrameKind::Python
        && frame
            .file
            .as_deref()
            .is_some_and(|it| !is_installed_python(it))
}

fn is_installed_python(path: &str) -> bool {
    INSTALLED_PYTHON.iter().any(|it| path.contains(it))
}

fn begins_as(text: &str, starts: &[&str]) -> bool {
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
            .is_some_and(|it| begins_as(base_name(it), RUNTIME_MODULES) || is_installed_python(it))
        || file
            .as_deref()
            .is_some_and(|it| begins_as(it, RUNTIME_SOURCES))
}
