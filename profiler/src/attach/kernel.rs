//! Asks the running kernel what it can do, and prepares the host for probes.

use std::{
    os::fd::{AsRawFd as _, BorrowedFd},
    path::Path,
};

use aya::{
    programs::ProgramType,
    sys::{BpfHelper, is_helper_supported},
};
use rustix::{
    mount::{MountFlags, MountPropagationFlags, mount, mount_change},
    thread::{UnshareFlags, unshare_unsafe},
};

/// Lifts the limit on locked memory. Kernels before 5.11 charge BPF maps to that limit. Later kernels charge
/// them to the memory cgroup and ignore the limit, so that a failure is harmless there.
pub(super) fn raise_memlock_limit() {
    let unlimited = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
}

/// Whether the kernel has `bpf_loop` (Linux 5.17). A kernel that cannot say so is older.
pub(super) fn has_loop() -> bool {
    is_helper_supported(ProgramType::KProbe, BpfHelper::BPF_FUNC_loop).unwrap_or(false)
}

/// How often the kernel skipped a program, from the program's fdinfo (kernel/bpf/syscall.c,
/// `bpf_prog_show_fdinfo`); zero where the kernel does not say.
pub(super) fn recursion_misses(program: BorrowedFd<'_>) -> u64 {
    let fdinfo = format!("/proc/self/fdinfo/{}", program.as_raw_fd());
    let Ok(text) = std::fs::read_to_string(fdinfo) else {
        return 0;
    };
    text.lines()
        .find_map(|line| line.strip_prefix("recursion_misses:"))
        .and_then(|count| count.trim().parse().ok())
        .unwrap_or(0)
}

/// Where residue and aya look for tracefs.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Makes tracefs visible to this process. Minimal hosts and containers do not mount tracefs. Residue should
/// not mount it for everybody, so it moves to a mount namespace of its own and mounts tracefs there.
///
/// Only the calling thread and the threads that it starts later see the mount: call this first.
pub fn ensure_tracefs() {
    if TRACEFS.iter().any(|path| has_tracepoints(path)) {
        return;
    }
    // When this fails, attaching a tracepoint fails too, and that error says what to do.
    let _ = mount_tracefs_privately();
}

/// Whether this kernel has System V shared memory (CONFIG_SYSVIPC).
pub(super) fn has_segments() -> bool {
    let exists = |path: &&str| {
        Path::new(path)
            .join("events/syscalls/sys_exit_shmat")
            .is_dir()
    };
    TRACEFS.iter().any(exists)
}

fn has_tracepoints(tracefs: &str) -> bool {
    Path::new(tracefs).join("events/syscalls").is_dir()
}

fn mount_tracefs_privately() -> rustix::io::Result<()> {
    // SAFETY: the flag changes this thread's view of mounts, and neither file descriptors nor memory.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    // Mounts that others make still appear here, but ours does not appear elsewhere.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    mount("tracefs", TRACEFS[0], "tracefs", MountFlags::RDONLY, None)
}
