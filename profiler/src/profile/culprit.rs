//! Which frame of a stack to blame first.

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

/// The index of the innermost frame that is not the run-time's and has a line; failing that, of the
/// innermost that is not the run-time's; failing that, of the leaf.
pub(super) fn find<'a>(frames: impl Iterator<Item = &'a Frame>) -> usize {
    let mut without_line = None;
    for (index, frame) in frames.enumerate().filter(|(_, frame)| !is_runtime(frame)) {
        if frame.line.is_some() {
            return index;
        }
        without_line = without_line.or(Some(index));
    }
    without_line.unwrap_or(0)
}

fn is_runtime(frame: &Frame) -> bool {
    let Frame {
        name,
        file,
        line: _,
        module,
        inlined: _,
    } = frame;
    let begins_as = |text: &str, starts: &[&str]| starts.iter().any(|it| text.starts_with(it));
    ALLOCATOR_FUNCTIONS.contains(&name.as_str())
        || begins_as(name, RUNTIME_FUNCTIONS)
        || module
            .as_deref()
            .is_some_and(|it| begins_as(base_name(it), RUNTIME_MODULES))
        || file
            .as_deref()
            .is_some_and(|it| begins_as(it, RUNTIME_SOURCES))
}
