//! How much memory the kernel keeps for a recorder's live set.

use std::{fs, path::PathBuf};

use anyhow::{Context as _, Result};
use residue_ebpf::abi::heap::live_buckets;
use residue_tests::recorder::Recorder;

/// `BPF_MAP_TYPE_ARRAY` (include/uapi/linux/bpf.h).
const ARRAY: u64 = 2;

/// Bytes of the table that holds `capacity` allocations: what the kernel itself says in the map's
/// fdinfo (`bpf_map_show_fdinfo` in kernel/bpf/syscall.c).
pub fn of_live_set(recorder: &Recorder, capacity: u32) -> Result<u64> {
    let process = process_of(recorder)?;
    let maps = fs::read_dir(process.join("fdinfo"))
        .context("failed to list the recorder's descriptors")?
        .filter_map(|entry| fs::read_to_string(entry.ok()?.path()).ok());
    maps.filter_map(|text| memory(&text, capacity))
        .next()
        .with_context(|| format!("the recorder has no live set for {capacity} allocations"))
}

/// The recorder's directory in /proc: only its command line names that capture.
fn process_of(recorder: &Recorder) -> Result<PathBuf> {
    let capture = recorder.capture().display().to_string();
    let names_it = |process: &PathBuf| {
        let line = fs::read(process.join("cmdline")).unwrap_or_default();
        line.split(|&byte| byte == 0)
            .any(|word| word == capture.as_bytes())
    };
    fs::read_dir("/proc")
        .context("failed to list /proc")?
        .filter_map(|entry| Some(entry.ok()?.path()))
        .find(names_it)
        .context("the recorder is gone")
}

fn memory(fdinfo: &str, capacity: u32) -> Option<u64> {
    let is_live_set = field(fdinfo, "map_type") == Some(ARRAY)
        && field(fdinfo, "max_entries") == Some(u64::from(live_buckets(capacity)));
    is_live_set.then(|| field(fdinfo, "memlock")).flatten()
}

fn field(fdinfo: &str, name: &str) -> Option<u64> {
    let values = fdinfo.lines().filter_map(|line| line.split_once(':'));
    values
        .filter(|(key, _)| *key == name)
        .find_map(|(_, value)| value.trim().parse().ok())
}

#[cfg(test)]
mod tests {
    use super::*;

    const FDINFO: &str =
        "pos:\t0\nmap_type:\t2\nkey_size:\t4\nmax_entries:\t200\nmemlock:\t25936\n";

    #[test]
    fn the_live_set_is_the_array_of_its_capacity() {
        assert_eq!(memory(FDINFO, 600), Some(25_936));
        assert_eq!(memory(FDINFO, 601), None);
        assert_eq!(
            memory(&FDINFO.replace("map_type:\t2", "map_type:\t1"), 600),
            None
        );
    }
}
