//! Which program of the object serves what.

use residue_ebpf::abi::call_shape::CallShape;

/// Which programs the probes run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgramSet {
    /// Those that count.
    #[default]
    Counting,
    /// Empty ones at the same sites: the floor of what any tool would cost here.
    Empty,
}

/// The programs of one function.
pub(super) struct Names {
    pub enter: Option<&'static str>,
    pub leave: Option<&'static str>,
}

/// Program, category and name of each tracepoint.
pub(super) const TRACEPOINTS: [(&str, &str, &str); 9] = [
    ("enter_mmap", "syscalls", "sys_enter_mmap"),
    ("leave_mmap", "syscalls", "sys_exit_mmap"),
    ("enter_munmap", "syscalls", "sys_enter_munmap"),
    ("leave_munmap", "syscalls", "sys_exit_munmap"),
    ("enter_mremap", "syscalls", "sys_enter_mremap"),
    ("leave_mremap", "syscalls", "sys_exit_mremap"),
    ("leave_brk", "syscalls", "sys_exit_brk"),
    ("process_executed", "sched", "sched_process_exec"),
    ("thread_exited", "sched", "sched_process_exit"),
];

/// The programs for functions of a shape.
pub(super) const fn for_shape(set: ProgramSet, shape: CallShape) -> Names {
    let (enter, leave) = match shape {
        CallShape::Malloc => ("enter_malloc", "leave_malloc"),
        CallShape::Calloc => ("enter_calloc", "leave_calloc"),
        CallShape::Realloc => ("enter_realloc", "leave_realloc"),
        CallShape::ReallocArray => ("enter_reallocarray", "leave_reallocarray"),
        CallShape::AlignedAlloc => ("enter_aligned_alloc", "leave_aligned_alloc"),
        CallShape::PosixMemalign => ("enter_posix_memalign", "leave_posix_memalign"),
        CallShape::ResizeInPlace => ("enter_resize_in_place", "leave_resize_in_place"),
        CallShape::RustRealloc => ("enter_rust_realloc", "leave_rust_realloc"),
        CallShape::Free => ("enter_free", ""),
        CallShape::NoteCaller => ("note_caller", ""),
        CallShape::PythonCodeFreed => ("python_code_freed", ""),
        CallShape::PythonMalloc => ("enter_python_malloc", "leave_python_malloc"),
        CallShape::PythonCalloc => ("enter_python_calloc", "leave_python_calloc"),
        CallShape::PythonRealloc => ("enter_python_realloc", "leave_python_realloc"),
        CallShape::PythonFree => ("enter_python_free", ""),
        CallShape::PythonContextMade => ("", "python_context_made"),
        CallShape::PythonContextFreed => ("python_context_freed", ""),
        CallShape::PythonNewPool => ("", "leave_python_new_pool"),
    };
    let (enter, leave) = match set {
        ProgramSet::Counting => (enter, leave),
        ProgramSet::Empty => (of(enter, "empty_entry"), of(leave, "empty_return")),
    };
    Names {
        enter: some(enter),
        leave: some(leave),
    }
}

/// The empty program in the place of another, if there is one.
const fn of(program: &'static str, empty: &'static str) -> &'static str {
    if program.is_empty() { "" } else { empty }
}

const fn some(program: &'static str) -> Option<&'static str> {
    if program.is_empty() {
        None
    } else {
        Some(program)
    }
}
