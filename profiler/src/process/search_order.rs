//! The order in which the dynamic linker searches objects, and which of them were there from the
//! start. Pure: this reads the objects' own statements of what they need, and the linker's list if
//! there is one.

use std::collections::{HashMap, HashSet};

/// What an object says about linking.
#[derive(Clone, Copy, Debug)]
pub(super) struct Linkage<'a> {
    /// `DT_NEEDED`, in order.
    pub needed: &'a [Vec<u8>],
    /// `DT_SONAME`.
    pub soname: Option<&'a [u8]>,
    /// The last part of its path.
    pub file_name: &'a [u8],
}

/// The objects by the names that others need them by; of two with the same name, the first.
struct ByName<'a>(HashMap<&'a [u8], usize>);

impl<'a> ByName<'a> {
    fn of(objects: &[Linkage<'a>]) -> Self {
        let mut names = HashMap::new();
        for (index, object) in objects.iter().enumerate() {
            for name in object.soname.into_iter().chain([object.file_name]) {
                names.entry(name).or_insert(index);
            }
        }
        Self(names)
    }

    fn needed(&self, name: &[u8]) -> Option<usize> {
        let name = name.rsplit(|byte| *byte == b'/').next().unwrap_or(name);
        self.0.get(name).copied()
    }
}

/// The objects that were loaded at startup, in search order: what the executable (the first one)
/// and the preloaded ones need, breadth first, as the linker does it.
///
/// `objects` may be in any order when `listed` is false. Otherwise they come in the order of the
/// linker's list, where preloaded ones stand between the executable and the first that it needs.
pub(super) fn loaded_at_startup(objects: &[Linkage<'_>], listed: bool) -> Vec<usize> {
    let Some(executable) = objects.first() else {
        return Vec::new();
    };
    let names = ByName::of(objects);
    let needed = executable.needed.iter();
    let first_needed = needed.filter_map(|name| names.needed(name)).min();
    let preloaded = first_needed.filter(|_| listed).unwrap_or(1);
    let mut found: Vec<usize> = (0..preloaded).collect();
    let mut is_found: HashSet<usize> = found.iter().copied().collect();
    let mut next = 0;
    while let Some(parent) = found.get(next) {
        let needed = objects[*parent].needed.iter();
        for child in needed.filter_map(|name| names.needed(name)) {
            if is_found.insert(child) {
                found.push(child);
            }
        }
        next += 1;
    }
    if listed {
        found.sort_unstable();
    }
    found
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Objects by name, each with the names it needs.
    fn startup(objects: &[(&str, &[&str])], listed: bool) -> Vec<usize> {
        let needed: Vec<Vec<Vec<u8>>> = objects
            .iter()
            .map(|(_, needed)| needed.iter().map(|name| name.as_bytes().to_vec()).collect())
            .collect();
        let linkage: Vec<_> = objects
            .iter()
            .zip(&needed)
            .map(|((name, _), needed)| Linkage {
                needed,
                soname: Some(name.as_bytes()),
                file_name: b"",
            })
            .collect();
        loaded_at_startup(&linkage, listed)
    }

    #[test]
    fn a_preloaded_library_was_there_from_the_start_and_a_dlopened_one_was_not() {
        let objects: &[(&str, &[&str])] = &[
            ("server", &["libm", "libc"]),
            ("libjemalloc", &["libc"]),
            ("libm", &["libc"]),
            ("libc", &["ld.so"]),
            ("ld.so", &[]),
            ("plugin", &["libc"]),
        ];
        assert_eq!(startup(objects, true), [0, 1, 2, 3, 4]);
    }

    #[test]
    fn without_the_linkers_list_the_order_is_breadth_first() {
        let objects: &[(&str, &[&str])] = &[
            ("server", &["libz", "libb"]),
            ("liba", &[]),
            ("libb", &[]),
            ("libz", &["liba"]),
            ("plugin", &[]),
        ];
        assert_eq!(startup(objects, false), [0, 3, 2, 1]);
    }

    #[test]
    fn libraries_that_need_each_other_end() {
        assert_eq!(startup(&[("a", &["b"]), ("b", &["a", "b"])], true), [0, 1]);
        assert_eq!(startup(&[], true), [0; 0]);
    }
}
