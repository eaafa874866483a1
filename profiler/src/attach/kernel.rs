//! What the running kernel needs before it can be asked for probes.

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

/// Lifts the limit on locked memory. Kernels before 5.11 charge BPF maps to it; later ones charge
/// the memory cgroup and do not look, so failing is harmless.
pub(super) fn raise_memlock_limit() {
    let unlimited = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
}

/// Whether the kernel has `bpf_loop` (5.17). When it does not say, it is old enough not to.
pub(super) fn has_loop() -> bool {
    is_helper_supported(ProgramType::KProbe, BpfHelper::BPF_FUNC_loop).unwrap_or(false)
}

/// How often the kernel skipped a program, from the program's fdinfo (kernel/bpf/syscall.c,
/// `bpf_prog_show_fdinfo`); zero where it does not say.
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

/// Where tracefs is looked for, by us and by aya.
const TRACEFS: [&str; 2] = ["/sys/kernel/tracing", "/sys/kernel/debug/tracing"];

/// Makes tracefs visible to this process. Minimal hosts and containers do not mount it; mounting it
/// for everybody is not ours to do, so it is mounted in a mount namespace of our own.
///
/// Only the calling thread and those it starts later see the mount: call this first.
pub fn ensure_tracefs() {
    if TRACEFS.iter().any(|path| has_tracepoints(path)) {
        return;
    }
    // Where this fails, attaching a tracepoint fails too, and says what to do.
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
    // SAFETY: neither flag affects file descriptors or memory; only the view of mounts changes.
    unsafe { unshare_unsafe(UnshareFlags::NEWNS)? };
    // Mounts made elsewhere still arrive here; ours stays here.
    mount_change(
        "/",
        MountPropagationFlags::DOWNSTREAM | MountPropagationFlags::REC,
    )?;
    mount("tracefs", TRACEFS[0], "tracefs", MountFlags::RDONLY, None)
}
