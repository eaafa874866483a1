//! Whether a return probe would end a sandboxed process.
//!
//! From Linux 6.11 on, a return probe comes back to the kernel through a system call, `uretprobe`,
//! made by code that the kernel puts into the process. Until 6.14 (commit cf6cb56ef244, "seccomp:
//! passthrough uretprobe systemcall without filtering") the process's own seccomp filter judged
//! that call, and the filters of containers and of systemd units, which do not know it, failed it
//! or killed the process.

/// The first versions with the danger, and the first without, by release series. The fix came to
/// stable series in patch releases; the numbers here are rounded up, because refusing one version
/// too many costs a recording, and refusing one too few costs a server.
const AFFECTED: [((u32, u32), u32); 3] = [((6, 11), u32::MAX), ((6, 12), 20), ((6, 13), 8)];

/// Whether the kernel of this release lets a seccomp filter judge return probes.
pub(super) fn filters_return_probes(release: &str) -> bool {
    let mut numbers = release
        .split(|c: char| !c.is_ascii_digit())
        .map_while(|number| number.parse::<u32>().ok());
    let (Some(major), Some(minor)) = (numbers.next(), numbers.next()) else {
        return false;
    };
    let patch = numbers.next().unwrap_or(0);
    AFFECTED
        .iter()
        .any(|&(series, fixed_in)| series == (major, minor) && patch < fixed_in)
}

/// Whether a process runs under a seccomp filter (`Seccomp: 2` in its status: Documentation/
/// filesystems/proc.rst).
pub(super) fn is_filtered(status: &[u8]) -> bool {
    status
        .split(|byte| *byte == b'\n')
        .filter_map(|line| line.strip_prefix(b"Seccomp:"))
        .any(|mode| mode.trim_ascii() != b"0")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_kernels_between_the_system_call_and_the_fix_are_dangerous() {
        for dangerous in ["6.11.0-rc1", "6.11.11", "6.12.0", "6.12.3-amd64", "6.13.1"] {
            assert!(filters_return_probes(dangerous), "{dangerous}");
        }
        for safe in [
            "5.15.0-91-generic",
            "6.1.0-28-cloud-amd64",
            "6.10.9",
            "6.12.38+deb13-amd64",
        ] {
            assert!(!filters_return_probes(safe), "{safe}");
        }
        assert!(!filters_return_probes("6.14.0") && !filters_return_probes("6.18.44-x"));
        assert!(!filters_return_probes("") && !filters_return_probes("unknown"));
    }

    #[test]
    fn a_filter_is_seen_in_the_status() {
        assert!(is_filtered(b"Name:\tx\nSeccomp:\t2\nSeccomp_filters:\t1\n"));
        assert!(!is_filtered(
            b"Name:\tx\nSeccomp:\t0\nSeccomp_filters:\t0\n"
        ));
        assert!(!is_filtered(b"Name:\tx\n"));
    }
}
