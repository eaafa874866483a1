//! The descendants of a process.

use std::collections::{HashMap, HashSet};

use super::Pid;

/// All descendants of `pid` that exist now, parents before their children. Empty when there are
/// none, or when `/proc` hides them.
///
/// Residue finds them by parent PID rather than by `/proc/PID/task/*/children`, which kernels
/// without `CONFIG_PROC_CHILDREN` lack.
#[must_use]
pub fn children(pid: Pid) -> Vec<Pid> {
    let processes = procfs::process::all_processes().into_iter().flatten();
    let stats = processes.filter_map(|process| process.ok()?.stat().ok());
    descendants(pid, stats.map(|stat| (stat.pid, stat.ppid)))
}

/// Finds the descendants in pairs of a process and its parent.
fn descendants(pid: Pid, parents: impl Iterator<Item = (Pid, Pid)>) -> Vec<Pid> {
    let mut by_parent: HashMap<Pid, Vec<Pid>> = HashMap::new();
    for (child, parent) in parents {
        by_parent.entry(parent).or_default().push(child);
    }
    // The snapshot is not atomic: the kernel may reuse PIDs meanwhile, and that could close a
    // circle.
    let mut seen = HashSet::from([pid]);
    let mut found = vec![pid];
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let children = by_parent.remove(parent).unwrap_or_default();
        found.extend(children.into_iter().filter(|child| seen.insert(*child)));
        next += 1;
    }
    found.split_off(1)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descendants_of_all_generations_are_found_and_nobody_else() {
        let tree = [(10, 1), (11, 10), (12, 10), (13, 12), (20, 1)];
        assert_eq!(descendants(10, tree.into_iter()), [11, 12, 13]);
        assert!(descendants(20, tree.into_iter()).is_empty());
    }

    #[test]
    fn a_circle_of_reused_pids_ends() {
        assert_eq!(descendants(1, [(2, 1), (1, 2), (2, 2)].into_iter()), [2]);
    }

    #[test]
    fn a_child_of_this_process_is_found() {
        let mut child = std::process::Command::new("sleep")
            .arg("30")
            .spawn()
            .expect("sleep runs");
        let found = children(std::process::id().cast_signed());
        child
            .kill()
            .and_then(|()| child.wait())
            .expect("it was running");
        assert!(found.contains(&child.id().cast_signed()));
    }
}
