//! Names the program of the eBPF object for each tracepoint and each call shape.

use residue_ebpf::abi::call_shape::CallShape;

/// Which programs the probes run.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum ProgramSet {
    /// The programs that count.
    #[default]
    Counting,
    /// Empty programs at the same sites. They cost the least that any tool would cost there.
    Empty,
}

/// The programs of one function.
pub(super) struct Names {
    pub enter: Option<&'static str>,
    pub leave: Option<&'static str>,
}

/// A program, and the tracepoints that run it.
pub(super) struct Tracepoints {
    pub program: &'static str,
    pub category: &'static str,
    pub names: &'static [&'static str],
}

/// The tracepoints that follow processes.
pub(super) const PROCESSES: [Tracepoints; 3] = [
    sched("process_executed", &["sched_process_exec"]),
    sched("thread_exited", &["sched_process_exit"]),
    Tracepoints {
        program: "task_created",
        category: "task",
        names: &["task_newtask"],
    },
];

/// The tracepoints that follow memory mappings.
pub(super) const MAPPINGS: [Tracepoints; 7] = [
    syscalls("enter_mmap", &["sys_enter_mmap"]),
    syscalls("leave_mmap", &["sys_exit_mmap"]),
    syscalls("enter_munmap", &["sys_enter_munmap"]),
    syscalls("leave_munmap", &["sys_exit_munmap"]),
    syscalls("enter_mremap", &["sys_enter_mremap"]),
    syscalls("leave_mremap", &["sys_exit_mremap"]),
    syscalls("leave_brk", &["sys_exit_brk"]),
];

/// The tracepoints that follow System V shared memory. A kernel without CONFIG_SYSVIPC has none of them.
pub(super) const SEGMENTS: [Tracepoints; 2] = [
    syscalls("leave_shmat", &["sys_exit_shmat"]),
    syscalls("enter_shmdt", &["sys_enter_shmdt"]),
];

/// The tracepoints that follow requests on sockets.
pub(super) const SOCKETS: [Tracepoints; 5] = [
    syscalls(
        "data_read",
        &[
            "sys_exit_read",
            "sys_exit_readv",
            "sys_exit_recvfrom",
            "sys_exit_recvmsg",
        ],
    ),
    syscalls(
        "data_written",
        &[
            "sys_exit_write",
            "sys_exit_writev",
            "sys_exit_sendto",
            "sys_exit_sendmsg",
            "sys_exit_sendfile64",
        ],
    ),
    syscalls("descriptor_closes", &["sys_enter_close"]),
    syscalls(
        "thread_waits",
        &[
            "sys_enter_accept",
            "sys_enter_accept4",
            "sys_enter_epoll_wait",
            "sys_enter_epoll_pwait",
            "sys_enter_epoll_pwait2",
            "sys_enter_poll",
            "sys_enter_ppoll",
            "sys_enter_select",
            "sys_enter_pselect6",
        ],
    ),
    syscalls(
        "thread_waited",
        &[
            "sys_exit_accept",
            "sys_exit_accept4",
            "sys_exit_select",
            "sys_exit_pselect6",
            "sys_exit_nanosleep",
            "sys_exit_clock_nanosleep",
        ],
    ),
];

/// All tracepoints that residue knows.
pub(super) fn tracepoints() -> impl Iterator<Item = &'static Tracepoints> {
    let mappings = MAPPINGS.iter().chain(&SEGMENTS);
    PROCESSES.iter().chain(mappings).chain(&SOCKETS)
}

const fn sched(program: &'static str, names: &'static [&'static str]) -> Tracepoints {
    Tracepoints {
        program,
        category: "sched",
        names,
    }
}

const fn syscalls(program: &'static str, names: &'static [&'static str]) -> Tracepoints {
    Tracepoints {
        program,
        category: "syscalls",
        names,
    }
}

/// The programs for functions of a call shape.
pub(super) const fn for_shape(set: ProgramSet, shape: CallShape) -> Names {
    let (enter, leave) = counting(shape);
    let (enter, leave) = match set {
        ProgramSet::Counting => (enter, leave),
        ProgramSet::Empty => (of(enter, "empty_entry"), of(leave, "empty_return")),
    };
    Names {
        enter: some(enter),
        leave: some(leave),
    }
}

/// The programs that count what functions of a call shape do, at their entry and at their return; empty where there is
/// none.
const fn counting(shape: CallShape) -> (&'static str, &'static str) {
    match shape {
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
        CallShape::PythonItemPut => ("python_item_put", ""),
        CallShape::PythonItemTaken => ("", "python_item_taken"),
        CallShape::PythonItemReturned => ("python_item_returned", ""),
        CallShape::PythonNewPool => ("", "leave_python_new_pool"),
        CallShape::SslRead => ("enter_ssl_call", "leave_ssl_read"),
        CallShape::SslReadEx => ("enter_ssl_call_ex", "leave_ssl_read"),
        CallShape::SslWrite => ("enter_ssl_call", "leave_ssl_write"),
        CallShape::SslWriteEx => ("enter_ssl_call_ex", "leave_ssl_write"),
        CallShape::SslFree => ("enter_ssl_free", ""),
        CallShape::WindowFunction => ("enter_window_function", "leave_window_function"),
        CallShape::WindowEnter => ("enter_window_call", ""),
        CallShape::WindowLeave => ("window_function_left", ""),
        CallShape::WindowOpen => ("open_window", ""),
        CallShape::WindowClose => ("close_window", ""),
    }
}

/// `empty`, if there is a program that the empty one can stand in for.
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
