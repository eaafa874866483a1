//! What the running kernel needs to be told.

/// Lifts the limit on locked memory. Kernels before 5.11 charge BPF maps to it; later ones charge
/// the memory cgroup and do not look, so failing is harmless.
pub(super) fn raise_memlock_limit() {
    let unlimited = rustix::process::Rlimit {
        current: None,
        maximum: None,
    };
    let _ = rustix::process::setrlimit(rustix::process::Resource::Memlock, unlimited);
}
